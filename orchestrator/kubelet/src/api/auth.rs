//! Who may use the node's API: clients with a certificate of the cluster's CA or a bearer token the API server knows,
//! for what it says they may do to `nodes/…` (kubernetes: pkg/kubelet/server/auth.go, cmd/kubelet/app/auth.go).
//!
//! Answers are kept as long as upstream keeps them by default; nobody is anonymous.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::user::{MASTERS, UserInfo};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use signal::time::SharedClock;

use super::refuse;

/// Upstream's `authentication.webhook.cacheTTL`, `authorization.webhook.cacheAuthorizedTTL` and `cacheUnauthorizedTTL`.
const TOKEN_FOR: Duration = Duration::from_secs(120);
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const DENIED_FOR: Duration = Duration::from_secs(30);
/// Answers of each kind; beyond it those that have ended go, or else all.
const MAX_KEPT: usize = 1024;
const ASK_WITHIN: Duration = Duration::from_secs(10);

/// Who a connection's certificate says its client is.
#[derive(Clone)]
pub(super) struct Peer(pub(super) Option<UserInfo>);

/// The user of a client certificate that the cluster's CA signed: its common name, with its organisations as groups.
pub(super) fn from_certificate(der: &[u8]) -> Option<UserInfo> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).ok()?;
    let name = cert.subject().iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<&str> = cert.subject().iter_organization().filter_map(|o| o.as_str().ok()).collect();
    Some(UserInfo::new(name, &groups))
}

struct Kept<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    fn get(&self, key: &K, now: Instant) -> Option<V> {
        self.0.lock().get(key).filter(|(until, _)| now < *until).map(|(_, v)| v.clone())
    }

    fn put(&self, key: K, value: V, now: Instant, period: Duration) {
        let mut kept = self.0.lock();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (until, _)| now < *until);
        }
        if kept.len() >= MAX_KEPT {
            tracing::warn!(kept = MAX_KEPT, "more clients use the node's API than answers are kept for");
            kept.clear();
        }
        kept.insert(key, (now + period, value));
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Question {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: Vec<(String, Vec<String>)>,
    verb: &'static str,
    subresource: &'static str,
}

/// Asks the API server about clients, and remembers.
pub(super) struct Auth {
    node: String,
    tokens: Api<TokenReview>,
    access: Api<SubjectAccessReview>,
    clock: SharedClock,
    known: Kept<[u8; 32], Option<UserInfo>>,
    decided: Kept<Question, bool>,
}

impl Auth {
    pub(super) fn new(node: String, client: Client, clock: SharedClock) -> Self {
        Auth {
            node,
            tokens: Api::all(client.clone()),
            access: Api::all(client),
            clock,
            known: Kept(Mutex::default()),
            decided: Kept(Mutex::default()),
        }
    }

    /// Whether the request goes on; else what its client gets.
    async fn judge(
        &self,
        certificate: Option<UserInfo>,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
    ) -> Result<(), Response> {
        let unauthorized = || refuse(StatusCode::UNAUTHORIZED, "Unauthorized");
        let user = match (certificate, bearer(headers)) {
            (Some(user), _) => user,
            (None, Some(token)) => self.bearer(token).await.ok_or_else(unauthorized)?,
            (None, None) => return Err(unauthorized()),
        };
        // The API server's authorizers are not asked about them either; it is one of them itself.
        if user.in_group(MASTERS) {
            return Ok(());
        }
        let verb = verb(method);
        let parts = subresources(path);
        for part in &parts {
            match self.allowed(&user, verb, part).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(e) => {
                    tracing::warn!(error = %e, user = user.name, "asking who may use the node's API");
                    let text = format!(
                        "Authorization error (user={}, verb={verb}, resource=nodes, subresource={part})",
                        user.name
                    );
                    return Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, text));
                }
            }
        }
        let text = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
            user.name,
            parts.join(" ")
        );
        Err(refuse(StatusCode::FORBIDDEN, text))
    }

    /// The user behind a token; what could not be asked is not kept.
    async fn bearer(&self, token: &str) -> Option<UserInfo> {
        let key: [u8; 32] = Sha256::digest(token).into();
        let now = self.clock.monotonic();
        if let Some(known) = self.known.get(&key, now) {
            return known;
        }
        let question = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: None },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let asked = tokio::time::timeout(ASK_WITHIN, self.tokens.create(&params, &question)).await;
        let status = match asked {
            Ok(Ok(review)) => review.status.unwrap_or_default(),
            Ok(Err(e)) => {
                tracing::warn!(error = %e, "asking whose a token is");
                return None;
            }
            Err(_) => {
                tracing::warn!("nobody said in time whose a token is");
                return None;
            }
        };
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(|u| UserInfo {
            name: u.username.unwrap_or_default(),
            uid: u.uid.unwrap_or_default(),
            groups: u.groups.unwrap_or_default(),
            extra: u.extra.unwrap_or_default(),
        });
        self.known.put(key, user.clone(), now, TOKEN_FOR);
        user
    }

    async fn allowed(
        &self,
        user: &UserInfo,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, String> {
        let question = Question {
            user: user.name.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone().into_iter().collect(),
            verb,
            subresource,
        };
        let now = self.clock.monotonic();
        if let Some(decided) = self.decided.get(&question, now) {
            return Ok(decided);
        }
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: some(&user.name),
                uid: some(&user.uid),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: some(verb),
                    version: some("v1"),
                    resource: some("nodes"),
                    subresource: some(subresource),
                    name: some(&self.node),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            ..SubjectAccessReview::default()
        };
        let params = PostParams::default();
        let asked = tokio::time::timeout(ASK_WITHIN, self.access.create(&params, &review)).await;
        let review = asked.map_err(|_| "no answer in time".to_owned())?.map_err(|e| e.to_string())?;
        let allowed = review.status.is_some_and(|s| s.allowed && s.denied != Some(true));
        self.decided.put(question, allowed, now, if allowed { ALLOWED_FOR } else { DENIED_FOR });
        Ok(allowed)
    }
}

/// The layer in front of all that the node's API has, also of what it has not.
pub(super) async fn guard(State(auth): State<Arc<Auth>>, request: Request<Body>, next: Next) -> Response {
    let certificate = request.extensions().get::<Peer>().and_then(|p| p.0.clone());
    let judged = auth.judge(certificate, request.headers(), request.method(), request.uri().path()).await;
    match judged {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|t| !t.is_empty())
}

fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// What of `nodes` a path is; any of them is enough.
fn subresources(path: &str) -> Vec<&'static str> {
    let below = |at: &str| path == at || path.strip_prefix(at).is_some_and(|rest| rest.starts_with('/'));
    let fine = [
        ("/pods", "pods"),
        ("/healthz", "healthz"),
        ("/configz", "configz"),
        ("/statusz", "statusz"),
        ("/runningpods", "pods"),
    ];
    let own = [("/stats", "stats"), ("/metrics", "metrics"), ("/logs", "log"), ("/checkpoint", "checkpoint")];
    let mut out: Vec<&str> = fine.iter().filter(|(at, _)| below(at)).map(|(_, name)| *name).collect();
    out.push(own.iter().find(|(at, _)| below(at)).map_or("proxy", |(_, name)| name));
    out
}

#[cfg(test)]
mod tests;
