//! Service account tokens: ES256 JWTs, signed with our own key, bound to an account and maybe a pod.

use apimachinery::user::UserInfo;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use signal::Timestamp;

use crate::cache::{Cache, object_key};
use crate::error::Error;
use crate::kinds;
use crate::object;
use crate::pki::Pki;

/// How far clocks may differ.
const LEEWAY_S: i64 = 60;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) name: String,
    pub(crate) uid: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) iss: String,
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: KubernetesClaims,
    pub(crate) nbf: i64,
    pub(crate) sub: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KubernetesClaims {
    pub(crate) namespace: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) node: Option<Bound>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) pod: Option<Bound>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) secret: Option<Bound>,
    pub(crate) serviceaccount: Bound,
}

pub(crate) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    /// Names the key, as upstream does: the digest of its public half.
    key_id: String,
    /// The public half as others read it.
    pub(crate) jwks: Value,
    /// Issuer and default audience.
    pub(crate) issuer: String,
}

impl Tokens {
    pub(crate) fn new(pki: &Pki, cluster_domain: &str) -> Result<Self, Error> {
        let bad = |e: jsonwebtoken::errors::Error| Error::Certificate(format!("service-account.key: {e}"));
        let (key_id, jwks) = jwks(pki.service_account_public_pem())?;
        Ok(Tokens {
            key_id,
            jwks,
            encoding: EncodingKey::from_ec_pem(pki.service_account_key_pem.as_bytes()).map_err(bad)?,
            decoding: DecodingKey::from_ec_pem(pki.service_account_public_pem().as_bytes()).map_err(bad)?,
            issuer: format!("https://kubernetes.default.svc.{cluster_domain}"),
        })
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, String> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.encoding).map_err(|e| e.to_string())
    }

    /// The claims of a token that is ours and not over. Its account and pod are the caller's to look at.
    fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, String> {
        let mut rules = Validation::new(Algorithm::ES256);
        // Time is judged below, by our own clock; audiences by whoever asks.
        rules.validate_exp = false;
        rules.validate_nbf = false;
        rules.validate_aud = false;
        rules.set_required_spec_claims(&["exp", "iss", "sub"]);
        rules.set_issuer(&[&self.issuer]);
        let claims =
            jsonwebtoken::decode::<Claims>(token, &self.decoding, &rules).map_err(|e| e.to_string())?.claims;
        let now = now.millis() / 1000;
        if now > claims.exp + LEEWAY_S {
            return Err("service account token has expired".to_owned());
        }
        if now < claims.nbf - LEEWAY_S {
            return Err("service account token is not valid yet".to_owned());
        }
        Ok(claims)
    }

    /// Who a token stands for, if its account and pod still are.
    pub(crate) fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        cache: &Cache,
        now: Timestamp,
    ) -> Result<(UserInfo, Claims), String> {
        let claims = self.verify(token, now)?;
        let wanted: &[String] =
            if audiences.is_empty() { std::slice::from_ref(&self.issuer) } else { audiences };
        if !claims.aud.iter().any(|a| wanted.contains(a)) {
            return Err(format!(
                "token audiences {:?} is invalid for the target audiences {wanted:?}",
                claims.aud
            ));
        }
        let k = &claims.kubernetes;
        let exists = |resource: &str, bound: &Bound| -> Result<(), String> {
            let served = kinds::by_resource("", resource).expect("tokens are bound to known kinds");
            let key = object_key(served.kind, &k.namespace, &bound.name);
            let object = cache.get(served.index, &key);
            let uid =
                object.map(|o| o.value()).and_then(|v| object::text(&v, "metadata.uid").map(str::to_owned));
            if uid.as_deref() == Some(&bound.uid) {
                Ok(())
            } else {
                Err(format!("the token's {resource} {:?} is gone", bound.name))
            }
        };
        exists("serviceaccounts", &k.serviceaccount)?;
        let mut user = service_account(&k.namespace, &k.serviceaccount.name);
        user.uid.clone_from(&k.serviceaccount.uid);
        let mut extra = |key: &str, v: &str| {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![v.to_owned()]);
        };
        extra("credential-id", &format!("JTI={}", claims.jti));
        if let Some(pod) = &k.pod {
            exists("pods", pod)?;
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        if let Some(secret) = &k.secret {
            exists("secrets", secret)?;
        }
        if let Some(node) = &k.node {
            // A token for a node alone ends with it; a pod's ends with the pod.
            if k.pod.is_none() {
                exists("nodes", node)?;
            }
            extra("node-name", &node.name);
            extra("node-uid", &node.uid);
        }
        Ok((user, claims))
    }
}

/// The id of a public key (PEM, P-256), and the set of keys with it alone (RFC 7517).
fn jwks(pem: &str) -> Result<(String, Value), Error> {
    let bad = |why: &str| Error::Certificate(format!("service-account.key: {why}"));
    let der =
        SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| bad("no public key in PEM"))?;
    let encode = |b: &[u8]| URL_SAFE_NO_PAD.encode(b);
    let id = encode(&Sha256::digest(der.as_ref()));
    // An uncompressed point ends the key: 4, x, y.
    let at = der.as_ref().len().checked_sub(65).ok_or_else(|| bad("the public key is too short"))?;
    let point = &der.as_ref()[at..];
    if point[0] != 4 {
        return Err(bad("the public key is no uncompressed P-256 point"));
    }
    let key = json!({"use": "sig", "kty": "EC", "kid": id, "crv": "P-256", "alg": "ES256",
        "x": encode(&point[1..33]), "y": encode(&point[33..])});
    Ok((id, json!({"keys": [key]})))
}

/// A service account as a user.
pub(crate) fn service_account(namespace: &str, name: &str) -> UserInfo {
    let own = format!("system:serviceaccounts:{namespace}");
    UserInfo::new(format!("system:serviceaccount:{namespace}:{name}"), &["system:serviceaccounts", &own])
}

/// Name and uid of an object that a token is bound to.
pub(crate) fn bound(o: &Value) -> Bound {
    Bound {
        name: object::name(o).to_owned(),
        uid: object::text(o, "metadata.uid").unwrap_or_default().to_owned(),
    }
}
