//! Users of an OpenID provider: its id tokens are bearer tokens here
//! (apiserver: plugin/pkg/authenticator/token/oidc).
//!
//! The provider's keys are fetched over HTTPS when a token names one that is not known, not more often than every
//! [`FETCH_EVERY`]. Only signatures by keys of the provider count: `none` and shared secrets are no signatures.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::user::UserInfo;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use signal::Timestamp;
use signal::time::SharedClock;

use crate::webhook::client::{Peer, Peers};

const FETCH_EVERY: Duration = Duration::from_secs(10);
const FETCH_WITHIN: Duration = Duration::from_secs(10);
const LEEWAY_S: i64 = 10;
/// Names that stand for parts of the cluster: no provider gives them away.
const SYSTEM: &str = "system:";

/// An OpenID provider and how its users are named here; upstream's `--oidc-…` flags.
#[derive(Clone, Debug, Default)]
pub struct OidcConfig {
    /// `https://…`, as in the tokens' `iss`.
    pub issuer_url: String,
    /// One of these must be in the tokens' `aud`.
    pub client_ids: Vec<String>,
    /// The claim that is the name; `sub` if empty.
    pub username_claim: String,
    /// Before each name; `None` is the issuer's URL and `#`, unless the claim is `email`; `-` is none.
    pub username_prefix: Option<String>,
    pub groups_claim: Option<String>,
    pub groups_prefix: String,
    pub required_claims: BTreeMap<String, String>,
    /// PEM that the provider's certificate is checked with; the machine's own roots if empty.
    pub ca_pem: String,
    /// Names of signature algorithms; RS256 if empty.
    pub signing_algs: Vec<String>,
}

pub(crate) struct Oidc {
    config: OidcConfig,
    algorithms: Vec<Algorithm>,
    clock: SharedClock,
    keys: tokio::sync::Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    set: Option<Arc<JwkSet>>,
    fetched: Option<Instant>,
}

impl Oidc {
    pub(crate) fn new(config: OidcConfig, clock: SharedClock) -> Result<Oidc, String> {
        if !config.issuer_url.starts_with("https://") {
            return Err(format!("the OIDC issuer {:?} must begin with https://", config.issuer_url));
        }
        if config.client_ids.iter().all(String::is_empty) {
            return Err("an OIDC client id is needed: tokens for others are not taken".to_owned());
        }
        let names = if config.signing_algs.is_empty() {
            vec!["RS256".to_owned()]
        } else {
            config.signing_algs.clone()
        };
        let mut algorithms = Vec::new();
        for name in names {
            match Algorithm::from_str(&name) {
                Ok(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) | Err(_) => {
                    return Err(format!(
                        "OIDC signing algorithm {name:?} is not taken: use RS, PS or ES ones"
                    ));
                }
                Ok(a) => algorithms.push(a),
            }
        }
        Ok(Oidc { config, algorithms, clock, keys: tokio::sync::Mutex::default() })
    }

    /// Who a token stands for; `None` if it is not this provider's.
    pub(crate) async fn authenticate(
        &self,
        peers: &Peers,
        token: &str,
        now: Timestamp,
    ) -> Option<Result<UserInfo, String>> {
        let claims = unverified(token)?;
        if claims["iss"].as_str() != Some(&self.config.issuer_url) {
            return None;
        }
        Some(self.verify(peers, token, now).await)
    }

    async fn verify(&self, peers: &Peers, token: &str, now: Timestamp) -> Result<UserInfo, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|e| format!("oidc: malformed token: {e}"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(format!("oidc: algorithm {:?} is not taken", header.alg));
        }
        let key = self.key(peers, header.kid.as_deref()).await?;
        // Time and audience are judged below, by our own clock.
        let mut rules = Validation::new(header.alg);
        rules.validate_exp = false;
        rules.validate_nbf = false;
        rules.validate_aud = false;
        rules.set_required_spec_claims(&["exp", "iss", "aud"]);
        rules.set_issuer(&[&self.config.issuer_url]);
        let claims = jsonwebtoken::decode::<Value>(token, &key, &rules)
            .map_err(|e| format!("oidc: verify token: {e}"))?
            .claims;
        self.user(&claims, now)
    }

    /// The key a token names; fetched anew if it is not known.
    async fn key(&self, peers: &Peers, id: Option<&str>) -> Result<DecodingKey, String> {
        let mut keys = self.keys.lock().await;
        let find = |set: &JwkSet| match id {
            Some(id) => set.find(id).cloned(),
            None if set.keys.len() == 1 => set.keys.first().cloned(),
            None => None,
        };
        let mut found = keys.set.as_deref().and_then(find);
        let now = self.clock.monotonic();
        let may = keys.fetched.is_none_or(|t| now.saturating_duration_since(t) >= FETCH_EVERY);
        if found.is_none() && may {
            keys.fetched = Some(now);
            let set = self.fetch(peers).await?;
            found = find(&set);
            keys.set = Some(Arc::new(set));
        }
        let jwk = found.ok_or("oidc: the token is signed by a key that the provider does not name")?;
        DecodingKey::from_jwk(&jwk).map_err(|e| format!("oidc: a key of the provider cannot be used: {e}"))
    }

    async fn fetch(&self, peers: &Peers) -> Result<JwkSet, String> {
        let peer =
            |url: String| Peer { url, ca_pem: self.config.ca_pem.clone().into_bytes(), ..Peer::default() };
        let at = format!("{}/.well-known/openid-configuration", self.config.issuer_url.trim_end_matches('/'));
        let failed = |e: crate::webhook::client::CallError| {
            format!("oidc: the provider's keys cannot be fetched: {e}")
        };
        let discovery = peers.get(&peer(at), FETCH_WITHIN).await.map_err(failed)?;
        if discovery["issuer"].as_str() != Some(&self.config.issuer_url) {
            return Err("oidc: the provider names another issuer than is configured".to_owned());
        }
        let keys = discovery["jwks_uri"].as_str().ok_or("oidc: the provider names no jwks_uri")?;
        let keys = peers.get(&peer(keys.to_owned()), FETCH_WITHIN).await.map_err(failed)?;
        serde_json::from_value(keys).map_err(|e| format!("oidc: the provider's keys cannot be read: {e}"))
    }

    /// Claims that are signed → a user.
    fn user(&self, claims: &Value, now: Timestamp) -> Result<UserInfo, String> {
        let c = &self.config;
        let now = now.millis() / 1000;
        let time = |k: &str| claims[k].as_i64().or_else(|| claims[k].as_f64().map(|f| f as i64));
        match time("exp") {
            Some(t) if now <= t + LEEWAY_S => {}
            Some(_) => return Err("oidc: verify token: oidc: token is expired".to_owned()),
            None => return Err("oidc: the token never ends".to_owned()),
        }
        if time("nbf").is_some_and(|t| now < t - LEEWAY_S) {
            return Err("oidc: the token is not valid yet".to_owned());
        }
        let audiences = strings(&claims["aud"]);
        if !audiences.iter().any(|a| c.client_ids.iter().any(|id| id == a)) {
            return Err(format!("oidc: expected audience in {:?} got {audiences:?}", c.client_ids));
        }
        for (k, v) in &c.required_claims {
            if claims[k.as_str()].as_str() != Some(v) {
                return Err(format!("oidc: required claim {k} not present or of another value"));
            }
        }
        let claim = if c.username_claim.is_empty() { "sub" } else { &c.username_claim };
        let name = claims[claim].as_str().filter(|n| !n.is_empty());
        let name = name.ok_or_else(|| format!("oidc: parse username claims {claim:?}: claim not present"))?;
        if claim == "email" && claims.get("email_verified").is_some_and(|v| *v != true) {
            return Err("oidc: email not verified".to_owned());
        }
        let prefix = match c.username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(p) if !p.is_empty() => p.to_owned(),
            _ if claim == "email" => String::new(),
            _ => format!("{}#", c.issuer_url),
        };
        let name = format!("{prefix}{name}");
        if name.starts_with(SYSTEM) {
            return Err(format!("oidc: user name {name:?} is the cluster's own: set a prefix"));
        }
        let given = c.groups_claim.as_deref().map(|g| strings(&claims[g])).unwrap_or_default();
        let groups: Vec<String> = given.iter().map(|g| format!("{}{g}", c.groups_prefix)).collect();
        let own: Vec<&str> = groups.iter().map(String::as_str).filter(|g| !g.starts_with(SYSTEM)).collect();
        let mut user = UserInfo::new(name, &own);
        if let Some(id) = claims["jti"].as_str() {
            let key = "authentication.kubernetes.io/credential-id".to_owned();
            user.extra.insert(key, vec![format!("JTI={id}")]);
        }
        Ok(user)
    }
}

/// A text, or a list of them.
fn strings(v: &Value) -> Vec<String> {
    match v {
        Value::String(s) => vec![s.clone()],
        Value::Array(all) => all.iter().filter_map(|s| s.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// What a token says, believed by nobody: only for choosing whose keys to check it with.
fn unverified(token: &str) -> Option<Value> {
    use base64::Engine as _;
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> OidcConfig {
        OidcConfig {
            issuer_url: "https://id.example".to_owned(),
            client_ids: vec!["binnacle".to_owned()],
            groups_claim: Some("groups".to_owned()),
            ..OidcConfig::default()
        }
    }

    fn check(config: OidcConfig, change: impl FnOnce(&mut Value), expect: Result<(&str, &[&str]), &str>) {
        let mut claims = json!({"iss": "https://id.example", "aud": "binnacle", "exp": 2000, "sub": "jane",
            "email": "jane@example", "groups": ["dev", "system:masters"]});
        change(&mut claims);
        let oidc = Oidc::new(config, signal::time::system_clock()).expect("a provider");
        match (oidc.user(&claims, Timestamp::from_secs(1000)), expect) {
            (Ok(u), Ok((name, groups))) => {
                assert_eq!(u.name, name);
                assert_eq!(u.groups, groups);
            }
            (Err(e), Err(part)) => assert!(e.contains(part), "{e}"),
            (got, _) => panic!("{got:?}"),
        }
    }

    #[test]
    fn claims_become_users() {
        let everyone = "system:authenticated";
        check(config(), |_| {}, Ok(("https://id.example#jane", &["dev", everyone])));
        let email = || OidcConfig { username_claim: "email".to_owned(), ..config() };
        check(email(), |_| {}, Ok(("jane@example", &["dev", everyone])));
        check(email(), |c| c["email_verified"] = false.into(), Err("email not verified"));
        let prefixed = OidcConfig {
            username_prefix: Some("oidc:".to_owned()),
            groups_prefix: "oidc:".to_owned(),
            ..config()
        };
        check(prefixed, |_| {}, Ok(("oidc:jane", &["oidc:dev", "oidc:system:masters", everyone])));
        let bare = || OidcConfig { username_prefix: Some("-".to_owned()), ..config() };
        check(bare(), |_| {}, Ok(("jane", &["dev", everyone])));
        check(bare(), |c| c["sub"] = "system:admin".into(), Err("is the cluster's own"));
        check(config(), |c| c["exp"] = 900.into(), Err("expired"));
        check(config(), |c| c["nbf"] = 1900.into(), Err("not valid yet"));
        check(config(), |c| drop(c.as_object_mut().expect("claims").remove("exp")), Err("never ends"));
        check(config(), |c| c["aud"] = json!(["other"]), Err("expected audience"));
        check(config(), |c| drop(c.as_object_mut().expect("claims").remove("sub")), Err("claim not present"));
        let strict =
            OidcConfig { required_claims: [("hd".to_owned(), "example".to_owned())].into(), ..config() };
        check(strict, |_| {}, Err("required claim hd"));
    }

    #[test]
    fn shared_secrets_are_no_signatures() {
        for alg in ["HS256", "none", "x"] {
            let c = OidcConfig { signing_algs: vec![alg.to_owned()], ..config() };
            assert!(Oidc::new(c, signal::time::system_clock()).is_err(), "{alg}");
        }
        let plain = OidcConfig { issuer_url: "http://id.example".to_owned(), ..config() };
        assert!(Oidc::new(plain, signal::time::system_clock()).is_err());
    }
}
