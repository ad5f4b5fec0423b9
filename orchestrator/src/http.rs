//! The door for people and query clients (`--http-addr`): UI, Prometheus, Loki, Tempo, SQL, and the Kubernetes API
//! as the logged-in user. Nothing answers without credentials but `/livez`, `/readyz` and `/version`.

mod backup;
mod objects;
mod session;
mod view;
mod watch;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use apimachinery::user::UserInfo;
use apiserver::{Access, ApiServer};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use client::Informers;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use query::Scope;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tower::ServiceExt;

use crate::assemble::Shared;
use crate::assemble::control::Control;
use crate::assemble::engines::{Engines, listen};

pub(crate) use session::Sessions;

#[derive(Clone)]
struct Door {
    history: Arc<log_index::LogIndex>,
    server: Arc<ApiServer>,
    informers: Informers,
    rules: Arc<rules::Rules>,
    sessions: Sessions,
}

pub(crate) async fn bind(addr: SocketAddr) -> Result<TcpListener> {
    listen(addr, "--http-addr").await
}

/// What the door leads to.
pub(crate) struct Rooms<'a> {
    pub(crate) control: &'a Control,
    pub(crate) engines: &'a Engines,
    pub(crate) informers: &'a Informers,
    pub(crate) rules: Arc<rules::Rules>,
    /// What takes telemetry of others.
    pub(crate) receivers: Router,
}

pub(crate) fn serve(
    shared: &Shared,
    rooms: Rooms<'_>,
    sessions: Sessions,
    listener: TcpListener,
    threads: &tokio::runtime::Handle,
) {
    let Rooms { control, engines, informers, rules, receivers } = rooms;
    let door = Door {
        server: control.server.clone(),
        history: engines.history.clone(),
        informers: informers.clone(),
        rules: rules.clone(),
        sessions,
    };
    let settings = shared.config.told();
    let queries = query::router(
        query::Engines {
            tsdb: engines.metrics.clone(),
            logs: engines.logs.clone(),
            traces: engines.traces.clone(),
            sink: engines.intake.clone(),
            targets: view::targets(shared),
            rules,
            clock: shared.clock.clone(),
        },
        query::Config {
            admin_api: shared.config.enable_admin_api,
            retention: settings.get("metrics-retention").cloned().unwrap_or_default(),
            yaml: shared.config.yaml(),
            hostname: shared.config.node_name.clone(),
            flags: settings,
            release: Some(crate::memory::give_back),
            ..query::Config::default()
        },
    );
    let source = backup::Source { server: control.server.clone(), data_dir: shared.config.data_dir.clone() };
    let backups = Router::new().route("/backup", get(backup::backup)).with_state(source);
    let guarded = Router::new()
        .route("/ui/api/session", get(session))
        .route("/k8s/{*path}", any(kubernetes))
        .route("/metrics", get(metrics))
        .route("/graph", get(graph))
        .with_state(door.clone())
        .merge(backups)
        .merge(queries)
        .merge(receivers.layer(middleware::from_fn(all_may_write)))
        .merge(dashboards::router())
        .layer(middleware::from_fn_with_state(door.clone(), authenticate));
    let app = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/version", get(|| async { Json(json!({"version": env!("CARGO_PKG_VERSION")})) }))
        .route("/ui/login", get(login))
        .route("/ui/api/login-link", axum::routing::post(login_link))
        .with_state(door)
        .merge(guarded);
    let stop = shared.stop.clone();
    let _inside = threads.enter();
    telemetry::task::spawn("http", async move {
        let serve =
            axum::serve(collector::prompt(listener), app.into_make_service_with_connect_info::<SocketAddr>());
        tokio::select! {
            // Tails and streams never end by themselves: the process's end is theirs.
            () = stop.cancelled() => {}
            r = serve => if let Err(e) = r {
                tracing::error!(error = %e, "the HTTP server ended");
            }
        }
    });
}

impl Door {
    async fn user(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
        if let Some(token) = text(header::AUTHORIZATION).and_then(token_of) {
            return self.server.authenticate_token(&token).await;
        }
        self.sessions.user(text(header::COOKIE)?)
    }

    /// Who may read a namespace's pod logs sees its telemetry, by any path (design, section 1).
    fn scope(&self, user: &UserInfo) -> Scope {
        let may = |namespace: &str| {
            self.server.authorize(
                user,
                &Access {
                    verb: "get".to_owned(),
                    resource: "pods".to_owned(),
                    subresource: "log".to_owned(),
                    namespace: namespace.to_owned(),
                    ..Access::default()
                },
            )
        };
        if may("") {
            return Scope::All;
        }
        let namespaces = self.informers.of::<Namespace>().list();
        Scope::Namespaces(namespaces.iter().map(|n| n.name_any()).filter(|n| may(n)).collect::<BTreeSet<_>>())
    }
}

/// The token of an `Authorization` header. Clients that know only user names and passwords send it as the password,
/// Elasticsearch's as the key of any id.
fn token_of(value: &str) -> Option<String> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") || scheme.eq_ignore_ascii_case("apikey") {
        let pair = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
        return pair.split_once(':').map(|(_, password)| password.to_owned());
    }
    None
}

const LOGIN_PAGE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Binnacle: log in</title>\
    <h1>Log in to Binnacle</h1><p>Run <code>sudo binnacle open</code> on the machine that runs Binnacle and open \
    the link it prints. A link is good once, for ten minutes.</p></html>";

async fn authenticate(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let Some(user) = door.user(request.headers()).await else {
        let path = request.uri().path();
        if path == "/" || path.starts_with("/ui") && !path.starts_with("/ui/api") {
            return (StatusCode::UNAUTHORIZED, Html(LOGIN_PAGE)).into_response();
        }
        let body = json!({"status": "error", "errorType": "unauthorized", "error": "give a bearer token \
            (`binnacle token create`) or log in (`binnacle open`)"});
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], Json(body))
            .into_response();
    };
    // A browser sends its cookie from any page: what changes things must come from ours.
    let foreign = request.headers().get("sec-fetch-site").is_some_and(|v| v != "same-origin" && v != "none");
    if foreign && request.method() != axum::http::Method::GET {
        return (StatusCode::FORBIDDEN, "requests from other sites are refused").into_response();
    }
    let scope = door.scope(&user);
    let objects = objects::Objects {
        history: door.history.clone(),
        server: door.server.clone(),
        informers: door.informers.clone(),
        user: user.clone(),
    };
    request.extensions_mut().insert(query::Objects(Arc::new(objects)));
    request.extensions_mut().insert(scope);
    request.extensions_mut().insert(user);
    next.run(request).await
}

/// Writing under other names than one's own is only for those who may see all.
async fn all_may_write(
    axum::Extension(scope): axum::Extension<Scope>,
    request: Request,
    next: Next,
) -> Response {
    if scope != Scope::All {
        return (StatusCode::FORBIDDEN, "only cluster-wide writers may send telemetry here").into_response();
    }
    next.run(request).await
}

/// The same checks as the API's own door.
async fn readyz(State(door): State<Door>) -> Response {
    let failed: Vec<String> = door
        .server
        .checks()
        .await
        .into_iter()
        .filter_map(|(name, result)| Some(format!("[-]{name} failed: {}\n", result.err()?)))
        .collect();
    if failed.is_empty() {
        // What is told of and keeps nothing from working.
        let rules = door.rules.problems().into_iter().map(|p| format!("rules: {p}"));
        let remarks: String =
            door.server.remarks().into_iter().chain(rules).map(|r| format!("\n[!]{r}")).collect();
        return format!("ok{remarks}").into_response();
    }
    (StatusCode::INTERNAL_SERVER_ERROR, failed.concat()).into_response()
}

#[derive(Deserialize)]
struct Code {
    #[serde(default)]
    code: String,
}

async fn login(State(door): State<Door>, Query(Code { code }): Query<Code>) -> Response {
    match door.sessions.redeem(&code) {
        Some(cookie) => ([(header::SET_COOKIE, cookie)], Redirect::to("/ui/")).into_response(),
        None => (StatusCode::UNAUTHORIZED, Html(LOGIN_PAGE)).into_response(),
    }
}

/// A new one-time link, for who holds a bearer token.
async fn login_link(State(door): State<Door>, headers: HeaderMap) -> Response {
    match door.user(&headers).await {
        Some(user) if user.in_group("system:masters") => {
            Json(json!({"path": door.sessions.path()})).into_response()
        }
        _ => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn session(
    axum::Extension(user): axum::Extension<UserInfo>,
    axum::Extension(scope): axum::Extension<Scope>,
) -> Response {
    let namespaces = match scope {
        Scope::All => None,
        Scope::Namespaces(n) => Some(n),
    };
    Json(json!({"user": user.name, "groups": user.groups, "namespaces": namespaces,
        "version": env!("CARGO_PKG_VERSION")}))
    .into_response()
}

/// Links in alerts lead to Prometheus' own page: ours is the one that explores.
async fn graph(Query(asked): Query<std::collections::HashMap<String, String>>) -> Redirect {
    let query = asked.get("g0.expr").map(String::as_str).unwrap_or_default();
    let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let tab = if asked.get("g0.tab").is_some_and(|t| t == "1") { "&tab=table" } else { "" };
    Redirect::to(&format!("/ui/explore?q={query}{tab}"))
}

async fn metrics(headers: HeaderMap) -> impl IntoResponse {
    let (media, text) = telemetry::metrics::answer(headers.get(header::ACCEPT).and_then(|a| a.to_str().ok()));
    ([(header::CONTENT_TYPE, media)], text)
}

/// `/k8s/<path>` is the Kubernetes API's `/<path>`, as the logged-in user, with all checks.
async fn kubernetes(
    State(door): State<Door>,
    axum::Extension(user): axum::Extension<UserInfo>,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    mut request: Request,
) -> Response {
    let rest = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let rest = rest.strip_prefix("/k8s").unwrap_or(rest);
    match rest.parse::<Uri>() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(e) => return (StatusCode::BAD_REQUEST, e.to_string()).into_response(),
    }
    request.headers_mut().remove(header::COOKIE);
    request.headers_mut().remove(header::AUTHORIZATION);
    let socket = socket.ok().filter(|_| watch::is_watch(request.uri()));
    match door.server.in_process(user).oneshot(request).await {
        Ok(response) => match socket {
            Some(socket) => watch::upgrade(socket, response),
            None => response.into_response(),
        },
        Err(e) => match e {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_as_bearer_or_as_password() {
        let check =
            |value: &str, expect: Option<&str>| assert_eq!(token_of(value).as_deref(), expect, "{value}");
        check("Bearer abc", Some("abc"));
        check("bearer  abc ", Some("abc"));
        check("Basic dXNlcjphOmI=", Some("a:b"));
        check("ApiKey dXNlcjphOmI=", Some("a:b"));
        check("Basic dXNlcg==", None);
        check("Basic !", None);
        check("Digest x", None);
        check("abc", None);
    }
}
