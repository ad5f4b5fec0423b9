//! Somebody else knows the token: a webhook is asked by TokenReview, and its answers are kept for a while
//! (apiserver: plugin/pkg/authenticator/token/webhook, pkg/authentication/token/cache).

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use apimachinery::user::{AUTHENTICATED, UserInfo};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::object;
use crate::pki::Identity;
use crate::webhook::client::{Peer, Peers};

const WITHIN: Duration = Duration::from_secs(30);
/// Answers kept; beyond it all are asked anew.
const MAX_KEPT: usize = 4096;

/// Whom to ask; upstream's `--authentication-token-webhook-config-file`.
#[derive(Clone, Default)]
pub struct TokenWebhook {
    peer: Peer,
    /// How long answers count.
    pub cache_ttl: Duration,
}

impl std::fmt::Debug for TokenWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenWebhook").field("url", &self.peer.url).finish_non_exhaustive()
    }
}

impl TokenWebhook {
    /// From a kubeconfig; `read` gives the files it names.
    pub fn from_kubeconfig(
        config: &Value,
        cache_ttl: Duration,
        read: impl Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<TokenWebhook, String> {
        let named = |list: &str, inner: &str, name: Option<&str>| -> Value {
            let all = object::list(config, list);
            let found = all.iter().find(|e| name.is_none() || e["name"].as_str() == name);
            found.map(|e| e[inner].clone()).unwrap_or_default()
        };
        let context = named("contexts", "context", object::text(config, "current-context"));
        let cluster = named("clusters", "cluster", object::text(&context, "cluster"));
        let user = named("users", "user", object::text(&context, "user"));
        let url = object::text(&cluster, "server").unwrap_or_default().to_owned();
        if !url.starts_with("https://") {
            return Err(format!("the token webhook's server {url:?} must begin with https://"));
        }
        let file = |o: &Value, key: &str| -> Result<Vec<u8>, String> {
            match (object::text(o, &format!("{key}-data")), object::text(o, key)) {
                (Some(data), _) => STANDARD.decode(data).map_err(|e| format!("{key}-data: {e}")),
                (None, Some(path)) => read(path),
                (None, None) => Ok(Vec::new()),
            }
        };
        let text = |b: Vec<u8>, what: &str| String::from_utf8(b).map_err(|_| format!("{what} is no PEM"));
        let (cert, key) = (file(&user, "client-certificate")?, file(&user, "client-key")?);
        let identity = if cert.is_empty() {
            None
        } else {
            Some(Identity { cert_pem: text(cert, "client-certificate")?, key_pem: text(key, "client-key")? })
        };
        let peer = Peer {
            url,
            ca_pem: file(&cluster, "certificate-authority")?,
            identity,
            bearer: object::text(&user, "token").map(str::to_owned),
            insecure: false,
        };
        Ok(TokenWebhook { peer, cache_ttl })
    }
}

type Answer = Result<UserInfo, String>;

pub(crate) struct Reviewer {
    config: TokenWebhook,
    kept: Mutex<HashMap<[u8; 32], (Instant, Answer)>>,
}

impl Reviewer {
    pub(crate) fn new(config: TokenWebhook) -> Self {
        Reviewer { config, kept: Mutex::default() }
    }

    /// Who the webhook says it is. What it could not be asked is not kept.
    pub(crate) async fn authenticate(
        &self,
        peers: &Peers,
        token: &str,
        audience: &str,
        now: Instant,
    ) -> Answer {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some((until, answer)) = self.kept.lock().get(&key)
            && now < *until
        {
            return answer.clone();
        }
        let question = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {}, "spec": {"token": token, "audiences": [audience]}});
        let said = peers.post(&self.config.peer, &question, WITHIN).await;
        let said = said.map_err(|e| format!("the token webhook could not be asked: {e}"))?;
        let answer = parse(&said, audience);
        let mut kept = self.kept.lock();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (until, _)| now < *until);
            if kept.len() >= MAX_KEPT {
                kept.clear();
            }
        }
        kept.insert(key, (now + self.config.cache_ttl, answer.clone()));
        answer
    }
}

fn parse(said: &Value, audience: &str) -> Answer {
    let status = &said["status"];
    if status["authenticated"] != true {
        let why = status["error"].as_str().unwrap_or("the token webhook does not know the token");
        return Err(why.to_owned());
    }
    // A webhook that says for whom the token is must say that it is for us.
    let audiences = object::list(status, "audiences");
    if !audiences.is_empty() && !audiences.iter().any(|a| a == audience) {
        return Err("the token is for another audience".to_owned());
    }
    let strings = |v: &Value| -> Vec<String> {
        v.as_array().into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)).collect()
    };
    let user = &status["user"];
    let name = user["username"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err("the token webhook names no user".to_owned());
    }
    let mut groups = strings(&user["groups"]);
    if !groups.iter().any(|g| g == AUTHENTICATED) {
        groups.push(AUTHENTICATED.to_owned());
    }
    let extra = user["extra"].as_object().into_iter().flatten();
    let extra: BTreeMap<String, Vec<String>> = extra.map(|(k, v)| (k.clone(), strings(v))).collect();
    Ok(UserInfo {
        name: name.to_owned(),
        uid: user["uid"].as_str().unwrap_or_default().to_owned(),
        groups,
        extra,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let user = json!({"username": "jane", "groups": ["dev"]});
        let good = parse(&json!({"status": {"authenticated": true, "user": user}}), "us").expect("a user");
        assert_eq!((good.name.as_str(), good.groups.len()), ("jane", 2));
        let no = |status: Value| parse(&json!({"status": status}), "us").expect_err("nobody");
        assert_eq!(no(json!({"authenticated": false, "error": "who"})), "who");
        assert_eq!(
            no(json!({"authenticated": "true", "user": user})),
            "the token webhook does not know the token"
        );
        assert_eq!(no(json!({"authenticated": true})), "the token webhook names no user");
        assert_eq!(
            no(json!({"authenticated": true, "user": user, "audiences": ["them"]})),
            "the token is for another audience"
        );
    }

    #[test]
    fn kubeconfigs() {
        let config = json!({"clusters": [{"name": "c", "cluster": {"server": "https://a/authn", "certificate-authority": "ca.pem"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "current-context": "x"});
        let w = TokenWebhook::from_kubeconfig(&config, Duration::from_secs(1), |p| Ok(p.as_bytes().to_vec()));
        let w = w.expect("read");
        assert_eq!(
            (w.peer.url.as_str(), w.peer.ca_pem.as_slice()),
            ("https://a/authn", b"ca.pem".as_slice())
        );
        assert_eq!(w.peer.bearer.as_deref(), Some("t"));
        let plain = json!({"clusters": [{"name": "c", "cluster": {"server": "http://a"}}]});
        assert!(TokenWebhook::from_kubeconfig(&plain, Duration::ZERO, |_| unreachable!("no file")).is_err());
    }
}
