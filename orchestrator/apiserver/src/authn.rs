//! Who is asking: a client certificate, the admin's token or a service account's.

use apimachinery::user::{AUTHENTICATED, MASTERS, UserInfo};
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::{ApiError, Result};
use crate::server::{Access, ApiServer};

/// A verified client certificate: the common name is the user, organizations are groups.
pub(crate) fn from_certificate(der: &[u8]) -> Option<UserInfo> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let name = cert.subject().iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<&str> = cert.subject().iter_organization().filter_map(|o| o.as_str().ok()).collect();
    Some(UserInfo::new(name, &groups))
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
        match self.tokens.authenticate(token, &[], &self.cache, self.now()) {
            Ok((user, _)) => Some(user),
            Err(reason) => {
                tracing::debug!(reason, "a bearer token was refused");
                None
            }
        }
    }

    /// `kubectl --as`: another identity, for those who may take it.
    pub(crate) fn impersonate(&self, user: UserInfo, headers: &HeaderMap) -> Result<UserInfo> {
        let one = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let Some(name) = one("impersonate-user") else { return Ok(user) };
        let groups: Vec<&str> =
            headers.get_all("impersonate-group").iter().filter_map(|v| v.to_str().ok()).collect();
        let mut questions = Vec::new();
        match name.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':')) {
            Some((ns, sa)) => questions.push(("serviceaccounts", ns, sa)),
            None => questions.push(("users", "", name)),
        }
        questions.extend(groups.iter().map(|g| ("groups", "", *g)));
        for (resource, namespace, name) in questions {
            let access = Access {
                verb: "impersonate".to_owned(),
                resource: resource.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                ..Access::default()
            };
            if !self.rbac.allows(&user, &access) {
                let message = format!(
                    "{resource} \"{name}\" is forbidden: User \"{}\" cannot impersonate resource \"{resource}\" in API group \"\" at the cluster scope",
                    user.name
                );
                return Err(ApiError::new(403, "Forbidden", message));
            }
        }
        let mut other = match name.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':')) {
            Some((ns, sa)) if groups.is_empty() => crate::token::service_account(ns, sa),
            _ => UserInfo {
                name: name.to_owned(),
                groups: groups.iter().map(|g| (*g).to_owned()).collect(),
                ..UserInfo::default()
            },
        };
        if !other.in_group(AUTHENTICATED) && name != "system:anonymous" {
            other.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(other)
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|t| !t.is_empty())
}
