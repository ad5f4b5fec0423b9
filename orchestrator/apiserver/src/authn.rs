//! Who is asking: a client certificate, the admin's token or a service account's, a bootstrap token, an OpenID
//! provider's, one that a webhook knows. Nothing a client writes into a header says who it is.

pub(crate) mod bootstrap;
pub(crate) mod expired;
pub(crate) mod oidc;
pub(crate) mod review;

use std::collections::BTreeMap;

use apimachinery::user::{AUTHENTICATED, MASTERS, UNAUTHENTICATED, UserInfo};
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::dispatch::CertificateUser;
use crate::error::{ApiError, Result};
use crate::server::{Access, ApiServer};

const ANONYMOUS: &str = "system:anonymous";

/// A verified client certificate: the common name is the user, organizations are groups.
pub(crate) fn from_certificate(der: &[u8]) -> Option<CertificateUser> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let name = cert.subject().iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<&str> = cert.subject().iter_organization().filter_map(|o| o.as_str().ok()).collect();
    let ends = cert.validity().not_after.timestamp() as f64;
    Some(CertificateUser { user: UserInfo::new(name, &groups), ends })
}

impl ApiServer {
    /// The user behind a request. A bearer token that is shown must be good, whatever else is there.
    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        certificate: Option<UserInfo>,
    ) -> Result<UserInfo> {
        let user = match bearer_token(headers) {
            Some(token) => self.bearer(token).await.ok_or_else(ApiError::unauthorized)?,
            None => certificate.ok_or_else(ApiError::unauthorized)?,
        };
        Ok(user)
    }

    pub(crate) async fn bearer(&self, token: &str) -> Option<UserInfo> {
        let admin = &self.config.admin_token;
        // Digests, so that the comparison tells nothing about the token by its time.
        if !admin.is_empty() && Sha256::digest(token) == Sha256::digest(admin) {
            return Some(UserInfo::new("binnacle-admin", &[MASTERS]));
        }
        if self.cache.fresh().await.is_err() {
            return None;
        }
        match self.known(token).await {
            Ok(user) => Some(user),
            Err(reason) => {
                tracing::debug!(reason, "a bearer token was refused");
                None
            }
        }
    }

    /// The authenticators in their order; each knows at once whether a token is for it.
    async fn known(&self, token: &str) -> std::result::Result<UserInfo, String> {
        if let Some(judged) = bootstrap::authenticate(&self.cache, token, self.now()) {
            return judged;
        }
        let reason = match self.tokens.authenticate(token, &[], &self.cache, self.now()) {
            Ok((user, _)) => return Ok(user),
            Err(reason) => reason,
        };
        if let Some(oidc) = &self.oidc
            && let Some(judged) = oidc.authenticate(&self.peers, token, self.now()).await
        {
            return judged;
        }
        match &self.reviewer {
            Some(r) => {
                r.authenticate(&self.peers, token, &self.tokens.issuer, self.config.clock.monotonic()).await
            }
            None => Err(reason),
        }
    }

    /// `kubectl --as`: another identity, for those who may take it
    /// (apiserver: pkg/endpoints/filters/impersonation).
    pub(crate) fn impersonate(&self, user: UserInfo, headers: &HeaderMap) -> Result<UserInfo> {
        let Some(wanted) = Wanted::read(headers)? else { return Ok(user) };
        for (group, resource, subresource, namespace, name) in wanted.questions() {
            let access = Access {
                verb: "impersonate".to_owned(),
                group: group.to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            if self.decide(&user, &access, None).allowed {
                continue;
            }
            let what = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
            let full = if subresource.is_empty() {
                resource.to_owned()
            } else {
                format!("{resource}/{subresource}")
            };
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            let message = format!(
                "{what} {name:?} is forbidden: User {:?} cannot impersonate resource {full:?} in API group {group:?} {place}",
                user.name
            );
            let mut e = ApiError::new(403, "Forbidden", message);
            e.details = Some(json!({"kind": resource, "name": name}));
            if let Some(d) = e.details.as_mut().filter(|_| !group.is_empty()) {
                d["group"] = group.into();
            }
            return Err(e);
        }
        Ok(wanted.user())
    }
}

/// Whom a request wants to be.
#[derive(Debug, Default)]
struct Wanted {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    const EXTRA: &str = "impersonate-extra-";

    fn read(headers: &HeaderMap) -> Result<Option<Wanted>> {
        let text = |v: &HeaderValue| {
            let bad = |_| ApiError::bad_request("an impersonation header is no visible ASCII text");
            v.to_str().map(str::to_owned).map_err(bad)
        };
        let mut wanted = Wanted::default();
        let mut any = false;
        for (key, v) in headers {
            let key = key.as_str();
            if !key.starts_with("impersonate-") {
                continue;
            }
            any = true;
            match key {
                "impersonate-user" if wanted.name.is_empty() => wanted.name = text(v)?,
                "impersonate-uid" if wanted.uid.is_empty() => wanted.uid = text(v)?,
                // A second one would be another user than the one that is checked.
                "impersonate-user" | "impersonate-uid" => {
                    return Err(ApiError::bad_request(format!("{key} is given more than once")));
                }
                "impersonate-group" => wanted.groups.push(text(v)?),
                _ => match key.strip_prefix(Self::EXTRA) {
                    Some(of) => wanted.extra.entry(crate::request::decode(of)).or_default().push(text(v)?),
                    // client-go sends no other; what is unknown is not silently dropped.
                    None => return Err(ApiError::bad_request(format!("unknown header {key}"))),
                },
            }
        }
        if any && wanted.name.is_empty() {
            return Err(ApiError::internal(
                "requested impersonation of groups, uids or extra without impersonating a user",
            ));
        }
        Ok(any.then_some(wanted))
    }

    fn account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// What must be allowed: group, resource, subresource, namespace, name.
    fn questions(&self) -> Vec<(&str, &str, &str, &str, &str)> {
        const AUTHENTICATION: &str = "authentication.k8s.io";
        let mut all = vec![match self.account() {
            Some((ns, name)) => ("", "serviceaccounts", "", ns, name),
            None => ("", "users", "", "", self.name.as_str()),
        }];
        all.extend(self.groups.iter().map(|g| ("", "groups", "", "", g.as_str())));
        for (key, values) in &self.extra {
            let each = values.iter().map(|v| (AUTHENTICATION, "userextras", key.as_str(), "", v.as_str()));
            all.extend(each);
        }
        if !self.uid.is_empty() {
            all.push((AUTHENTICATION, "uids", "", "", self.uid.as_str()));
        }
        all
    }

    fn user(self) -> UserInfo {
        let mut groups = self.groups.clone();
        if let (Some((ns, name)), true) = (self.account(), groups.is_empty()) {
            groups = crate::token::service_account(ns, name).groups;
        }
        let anonymous = self.name == ANONYMOUS;
        let everyone = if anonymous { UNAUTHENTICATED } else { AUTHENTICATED };
        if !groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
            groups.push(everyone.to_owned());
        }
        UserInfo { name: self.name, uid: self.uid, groups, extra: self.extra }
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|t| !t.is_empty())
}
