//! Tokens of a pod's service account: asked for once, kept, and renewed before they are old.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::PostParams;
use kube::{Api, Client};
use signal::Timestamp;
use signal::time::SharedClock;
use tokio::sync::Mutex;

use crate::Error;

/// How long a token is asked for if the pod does not say.
pub(crate) const TOKEN_SECONDS: i64 = 3600;
/// However long a token lives, it is renewed after this (kubelet: token/token_manager.go).
const MOST_AGE: i64 = 24 * 3600;

struct Token {
    text: String,
    issued: Timestamp,
    expires: Timestamp,
}

impl Token {
    /// True in the last fifth of its life.
    fn is_old(&self, now: Timestamp) -> bool {
        let life = self.expires.nanos().saturating_sub(self.issued.nanos());
        let age = now.nanos().saturating_sub(self.issued.nanos());
        age >= life / 5 * 4 || age >= MOST_AGE * 1_000_000_000
    }
}

/// The tokens of one pod, by audience and life.
pub(crate) struct Tokens {
    clock: SharedClock,
    /// Held over the request, so that two looks at once ask once.
    kept: Mutex<BTreeMap<(String, i64), Token>>,
}

impl Tokens {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Tokens { clock, kept: Mutex::default() }
    }

    /// The token for a projection: the kept one, or a fresh one bound to the pod.
    pub(crate) async fn get(
        &self,
        client: &Client,
        pod: &Pod,
        t: &ServiceAccountTokenProjection,
    ) -> Result<String, Error> {
        let seconds = t.expiration_seconds.unwrap_or(TOKEN_SECONDS);
        let key = (t.audience.clone().unwrap_or_default(), seconds);
        let mut kept = self.kept.lock().await;
        let now = self.clock.now();
        if let Some(t) = kept.get(&key).filter(|t| !t.is_old(now)) {
            return Ok(t.text.clone());
        }
        let fresh = request(client, pod, &key.0, seconds, now).await?;
        let text = fresh.text.clone();
        kept.insert(key, fresh);
        Ok(text)
    }
}

async fn request(
    client: &Client,
    pod: &Pod,
    audience: &str,
    seconds: i64,
    now: Timestamp,
) -> Result<Token, Error> {
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.clone());
    let account = account.filter(|a| !a.is_empty()).unwrap_or_else(|| "default".to_owned());
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: Some(audience.to_owned()).into_iter().filter(|a| !a.is_empty()).collect(),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            expiration_seconds: Some(seconds),
        },
        ..TokenRequest::default()
    };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let api = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let answer = api.create_token_request(&account, &PostParams::default(), &request).await?;
    let status = answer
        .status
        .ok_or_else(|| Error::Config(format!("no token was issued for service account {account}")))?;
    let expires = Timestamp::from_secs(status.expiration_timestamp.0.as_second());
    Ok(Token { text: status.token, issued: now, expires })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_in_its_last_fifth_or_after_a_day() {
        let check = |life: i64, age: i64, old: bool| {
            let at = Timestamp::from_secs;
            let t = Token { text: String::new(), issued: at(1000), expires: at(1000 + life) };
            assert_eq!(t.is_old(at(1000 + age)), old, "{life} {age}");
        };
        check(3600, 0, false);
        check(3600, 2879, false);
        check(3600, 2880, true);
        check(10 * 24 * 3600, 24 * 3600 - 1, false);
        check(10 * 24 * 3600, 24 * 3600, true);
    }
}
