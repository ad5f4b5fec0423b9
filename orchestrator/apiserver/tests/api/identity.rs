//! Who somebody is: certificates that are asked for, tokens of every kind, and what must not pass for one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apimachinery::user::UserInfo;
use apiserver::{OidcConfig, TokenWebhook};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::https::{at, serve};
use crate::{Cluster, cluster, cluster_with, from, status};

fn request(name: &str, groups: &[&str]) -> String {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    for g in groups {
        params.distinguished_name.push(DnType::OrganizationName, *g);
    }
    params.serialize_request(&key).expect("a request").pem().expect("PEM")
}

fn csr(name: &str, signer: &str, pem: &str, usages: &[&str]) -> CertificateSigningRequest {
    from(json!({"metadata": {"name": name}, "spec": {"request": STANDARD.encode(pem), "signerName": signer,
        "usages": usages, "username": "somebody-else", "groups": ["system:masters"]}}))
}

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const USAGES: [&str; 2] = ["digital signature", "client auth"];

async fn allow(c: &Cluster, user: &str, rules: Value) {
    let role: ClusterRole = from(json!({"metadata": {"name": user}, "rules": rules}));
    Api::<ClusterRole>::all(c.client()).create(&PostParams::default(), &role).await.expect("a role");
    let binding = from(
        json!({"metadata": {"name": user}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"kind": "User", "name": user}]}),
    );
    Api::<ClusterRoleBinding>::all(c.client()).create(&PostParams::default(), &binding).await.expect("bound");
}

fn approved() -> Patch<Value> {
    Patch::Merge(
        json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "ByHand"}]}}),
    )
}

/// Waits until a request is as it should be.
async fn until(
    api: &Api<CertificateSigningRequest>,
    name: &str,
    is: impl Fn(&CertificateSigningRequest) -> bool,
) {
    let wait =
        kube::runtime::wait::await_condition(api.clone(), name, |o: Option<&CertificateSigningRequest>| {
            o.is_some_and(&is)
        });
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time").expect("watched");
}

fn has(o: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = o.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == kind)
}

#[tokio::test]
async fn certificates_are_asked_for_approved_and_signed() {
    let c = cluster().await;
    let rule = |verbs: &[&str], resources: &[&str]| json!({"verbs": verbs, "apiGroups": ["certificates.k8s.io"], "resources": resources});
    allow(&c, "jane", json!([rule(&["create", "get"], &["certificatesigningrequests"])])).await;
    allow(
        &c,
        "clerk",
        json!([rule(
            &["get", "patch", "update"],
            &[
                "certificatesigningrequests",
                "certificatesigningrequests/approval",
                "certificatesigningrequests/status"
            ]
        )]),
    )
    .await;
    let jane: Api<CertificateSigningRequest> = Api::all(c.client_as(UserInfo::new("jane", &["dev"])));
    let pem = request("jane", &["dev"]);
    let made = jane.create(&PostParams::default(), &csr("jane", CLIENT, &pem, &USAGES)).await.expect("asked");
    assert_eq!(made.spec.username.as_deref(), Some("jane"), "nobody asks in another's name");
    assert_eq!(made.spec.groups, Some(vec!["dev".to_owned(), "system:authenticated".to_owned()]));
    let clerk: Api<CertificateSigningRequest> = Api::all(c.client_as(UserInfo::new("clerk", &[])));
    let params = PatchParams::default();
    let e = clerk
        .patch_subresource("approval", "jane", &params, &approved())
        .await
        .expect_err("not the signer's");
    assert_eq!(
        status(e).2,
        format!(
            "certificatesigningrequests.certificates.k8s.io \"jane\" is forbidden: user not permitted to approve requests with signerName {CLIENT:?}"
        )
    );
    let odd = Patch::Merge(json!({"status": {"certificate": STANDARD.encode("x")}}));
    let e = clerk.patch_status("jane", &params, &odd).await.expect_err("no certificate");
    assert!(status(e).2.ends_with("must contain one or more CERTIFICATE PEM blocks"));
    let forged = Patch::Merge(json!({"status": {"conditions": [{"type": "Failed", "status": "True"}]}}));
    let e = clerk.patch_status("jane", &params, &forged).await.expect_err("not the signer");
    assert!(
        status(e).2.ends_with(&format!("user not permitted to sign requests with signerName {CLIENT:?}"))
    );
    // A status update decides nothing.
    let all: Api<CertificateSigningRequest> = Api::all(c.client());
    let after = all.patch_status("jane", &params, &approved()).await.expect("taken");
    assert!(!has(&after, "Approved"));
    all.patch_subresource("approval", "jane", &params, &approved()).await.expect("approved");
    until(&all, "jane", |o| o.status.as_ref().is_some_and(|s| s.certificate.is_some())).await;
    let o = all.get("jane").await.expect("there");
    let signed = o.status.and_then(|s| s.certificate).expect("signed").0;
    assert!(signed.starts_with(b"-----BEGIN CERTIFICATE-----"));
    let denied = Patch::Merge(json!({"status": {"conditions": [{"type": "Denied", "status": "True"}]}}));
    let e = all.patch_subresource("approval", "jane", &params, &denied).await.expect_err("decided");
    assert!(status(e).2.contains("updates may not remove a condition of type \"Approved\""));
    // What would make a master of anybody is not signed, and what no signer can sign fails.
    let e = jane
        .create(&PostParams::default(), &csr("root", CLIENT, &request("root", &["system:masters"]), &USAGES))
        .await
        .expect_err("masters");
    assert!(status(e).2.ends_with(
        "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    ));
    jane.create(&PostParams::default(), &csr("odd", CLIENT, &pem, &["client auth", "server auth"]))
        .await
        .expect("asked");
    all.patch_subresource("approval", "odd", &params, &approved()).await.expect("approved");
    until(&all, "odd", |o| has(o, "Failed")).await;
    let e = jane
        .create(&PostParams::default(), &csr("bad", CLIENT, "nothing", &USAGES))
        .await
        .expect_err("no request");
    assert!(status(e).2.contains("PEM block type must be CERTIFICATE REQUEST"));
}

#[tokio::test]
async fn nodes_get_theirs_without_a_person_if_roles_say_so() {
    let c = cluster().await;
    let all: Api<CertificateSigningRequest> = Api::all(c.client());
    let node = |name: &str| {
        Api::<CertificateSigningRequest>::all(
            c.client_as(UserInfo::new(format!("system:node:{name}"), &["system:nodes"])),
        )
    };
    // A node renews its own by the Node authorizer's word; another's it does not get.
    let own = csr("own", KUBELET, &request("system:node:a", &["system:nodes"]), &USAGES);
    node("a").create(&PostParams::default(), &own).await.expect("asked");
    until(&all, "own", |o| o.status.as_ref().is_some_and(|s| s.certificate.is_some())).await;
    let other = csr("other", KUBELET, &request("system:node:b", &["system:nodes"]), &USAGES);
    node("a").create(&PostParams::default(), &other).await.expect("asked");
    let master = csr("master", KUBELET, &request("system:node:a", &["system:masters"]), &USAGES);
    node("a").create(&PostParams::default(), &master).await.expect("asked");
    // One more that is served shows that those before it were looked at.
    let last = csr("last", KUBELET, &request("system:node:a", &["system:nodes"]), &USAGES);
    node("a").create(&PostParams::default(), &last).await.expect("asked");
    until(&all, "last", |o| o.status.as_ref().is_some_and(|s| s.certificate.is_some())).await;
    for name in ["other", "master"] {
        let o = all.get(name).await.expect("there");
        assert!(!has(&o, "Approved"), "{name}");
    }
}

async fn whoami(c: &Cluster, token: &str) -> Option<UserInfo> {
    c.server.authenticate_token(token).await
}

#[tokio::test]
async fn bootstrap_tokens() {
    let c = cluster().await;
    let secrets: Api<Secret> = Api::namespaced(c.client(), "kube-system");
    let secret: Secret = from(
        json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}}),
    );
    secrets.create(&PostParams::default(), &secret).await.expect("made");
    let user = whoami(&c, "abcdef.0123456789abcdef").await.expect("known");
    assert_eq!(user.name, "system:bootstrap:abcdef");
    assert_eq!(user.groups, ["system:bootstrappers", "system:authenticated"]);
    for wrong in ["abcdef.0123456789abcdeg", "abcdeg.0123456789abcdef", "abcdef."] {
        assert!(whoami(&c, wrong).await.is_none(), "{wrong}");
    }
    secrets.delete("bootstrap-token-abcdef", &DeleteParams::default()).await.expect("revoked");
    assert!(whoami(&c, "abcdef.0123456789abcdef").await.is_none());
}

/// A JWT of any header and claims, signed with the key or not at all.
fn jwt(header: &Value, claims: &Value, key: Option<&KeyPair>) -> String {
    let encode = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let text = format!("{}.{}", encode(header), encode(claims));
    match key {
        None => format!("{text}."),
        Some(key) => {
            let key = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).expect("a key");
            let h =
                Header { kid: header["kid"].as_str().map(str::to_owned), ..Header::new(Algorithm::ES256) };
            jsonwebtoken::encode(&h, claims, &key).expect("signed")
        }
    }
}

#[tokio::test]
async fn service_account_tokens_end_and_cannot_be_made_up() {
    let c = cluster().await;
    c.account().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(c.client(), "default");
    let secrets: Api<Secret> = Api::namespaced(c.client(), "default");
    secrets.create(&PostParams::default(), &from(json!({"metadata": {"name": "s"}}))).await.expect("made");
    let ask = |audiences: Value, bound: Value| {
        let accounts = accounts.clone();
        async move {
            let r: TokenRequest =
                from(json!({"metadata": {}, "spec": {"audiences": audiences, "boundObjectRef": bound}}));
            let t =
                accounts.create_token_request("default", &PostParams::default(), &r).await.expect("a token");
            t.status.expect("a status").token
        }
    };
    let plain = ask(json!([]), Value::Null).await;
    assert_eq!(whoami(&c, &plain).await.expect("known").name, "system:serviceaccount:default:default");
    let other = ask(json!(["vault"]), Value::Null).await;
    assert!(whoami(&c, &other).await.is_none(), "for another audience");
    let bound = ask(json!([]), json!({"apiVersion": "v1", "kind": "Secret", "name": "s"})).await;
    assert!(whoami(&c, &bound).await.is_some());
    secrets.delete("s", &DeleteParams::default()).await.expect("deleted");
    assert!(whoami(&c, &bound).await.is_none(), "it ended with its secret");
    // A review says for whom a token is, and only that.
    let reviews: Api<TokenReview> = Api::all(c.client());
    let review = |token: String, audiences: Value| {
        let reviews = reviews.clone();
        async move {
            let r: TokenReview =
                from(json!({"metadata": {}, "spec": {"token": token, "audiences": audiences}}));
            reviews.create(&PostParams::default(), &r).await.expect("an answer").status.expect("a status")
        }
    };
    let s = review(other.clone(), json!(["vault", "more"])).await;
    assert_eq!((s.authenticated, s.audiences), (Some(true), Some(vec!["vault".to_owned()])));
    assert_eq!(review(plain.clone(), json!(["vault"])).await.authenticated, Some(false));
    assert_eq!(
        review("secret".to_owned(), json!(["vault"])).await.authenticated,
        Some(false),
        "the admin's is no vault's"
    );
    // Forgeries: another key, no signature, a signature by what everybody can read, other words.
    let parts: Vec<&str> = plain.split('.').collect();
    let decode = |s: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(s).expect("base64")).expect("JSON")
    };
    let (header, claims) = (decode(parts[0]), decode(parts[1]));
    let stranger = KeyPair::generate().expect("a key");
    assert!(whoami(&c, &jwt(&header, &claims, Some(&stranger))).await.is_none());
    for alg in ["none", "None", "NONE"] {
        let h = json!({"alg": alg, "typ": "JWT"});
        assert!(whoami(&c, &jwt(&h, &claims, None)).await.is_none(), "{alg}");
    }
    let public = c.jwks().await;
    let shared = EncodingKey::from_secret(public.to_string().as_bytes());
    let confused = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &shared).expect("signed");
    assert!(whoami(&c, &confused).await.is_none(), "a public key is no shared secret");
    let mut longer = claims.clone();
    longer["exp"] = (claims["exp"].as_i64().expect("a time") + 1).into();
    let payload = URL_SAFE_NO_PAD.encode(longer.to_string());
    assert!(whoami(&c, &format!("{}.{payload}.{}", parts[0], parts[2])).await.is_none());
    assert_eq!(public["keys"][0]["kid"], header["kid"]);
    accounts.delete("default", &DeleteParams::default()).await.expect("deleted");
    assert!(whoami(&c, &plain).await.is_none(), "it ended with its account");
}

impl Cluster {
    async fn jwks(&self) -> Value {
        let request = http::Request::get("/openid/v1/jwks").body(Vec::new()).expect("a request");
        self.client().request::<Value>(request).await.expect("keys")
    }
}

/// A provider with one key, and how often its keys were asked for.
fn provider(key: &KeyPair, issuer: &str, asked: Arc<AtomicUsize>) -> Router {
    let raw = key.public_key_raw();
    let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "k1",
        "x": URL_SAFE_NO_PAD.encode(&raw[1..33]), "y": URL_SAFE_NO_PAD.encode(&raw[33..65])}]});
    let discovery = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")});
    Router::new()
        .route("/.well-known/openid-configuration", get(move || async move { Json(discovery) }))
        .route(
            "/keys",
            get(move || async move {
                asked.fetch_add(1, Ordering::SeqCst);
                Json(keys)
            }),
        )
}

#[tokio::test]
async fn users_of_an_openid_provider() {
    let (addr, listener) = at().await;
    let issuer = format!("https://localhost:{}", addr.port());
    let c = cluster_with(|config| {
        config.oidc = Some(OidcConfig {
            issuer_url: issuer.clone(),
            client_ids: vec!["binnacle".to_owned()],
            username_claim: "email".to_owned(),
            groups_claim: Some("groups".to_owned()),
            groups_prefix: "oidc:".to_owned(),
            ca_pem: config.pki.ca_pem().to_owned(),
            signing_algs: vec!["ES256".to_owned()],
            ..OidcConfig::default()
        });
    })
    .await;
    let key = KeyPair::generate().expect("a key");
    let asked = Arc::new(AtomicUsize::new(0));
    serve(&c, &["localhost"], listener, provider(&key, &issuer, asked.clone()));
    let now = signal::time::now().millis() / 1000;
    let claims = |change: &dyn Fn(&mut Value)| {
        let mut v = json!({"iss": issuer, "aud": "binnacle", "exp": now + 60, "email": "jane@example", "groups": ["dev"]});
        change(&mut v);
        v
    };
    let header = json!({"alg": "ES256", "kid": "k1"});
    let good = jwt(&header, &claims(&|_| {}), Some(&key));
    let user = whoami(&c, &good).await.expect("known");
    assert_eq!((user.name.as_str(), user.groups[0].as_str()), ("jane@example", "oidc:dev"));
    assert!(whoami(&c, &good).await.is_some());
    assert_eq!(asked.load(Ordering::SeqCst), 1, "keys are kept");
    let stranger = KeyPair::generate().expect("a key");
    let refused = [
        ("another key", jwt(&header, &claims(&|_| {}), Some(&stranger))),
        ("an unknown key", jwt(&json!({"alg": "ES256", "kid": "k2"}), &claims(&|_| {}), Some(&stranger))),
        ("no signature", jwt(&json!({"alg": "none"}), &claims(&|_| {}), None)),
        ("expired", jwt(&header, &claims(&|v| v["exp"] = (now - 60).into()), Some(&key))),
        ("another audience", jwt(&header, &claims(&|v| v["aud"] = "other".into()), Some(&key))),
        ("another issuer", jwt(&header, &claims(&|v| v["iss"] = "https://evil".into()), Some(&key))),
        ("a system name", jwt(&header, &claims(&|v| v["email"] = "system:admin".into()), Some(&key))),
        ("an unverified address", jwt(&header, &claims(&|v| v["email_verified"] = false.into()), Some(&key))),
    ];
    for (what, token) in refused {
        assert!(whoami(&c, &token).await.is_none(), "{what}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "made-up key ids do not make us ask again and again");
}

#[tokio::test]
async fn a_webhook_knows_tokens() {
    let (addr, listener): (SocketAddr, _) = at().await;
    let c = cluster_with(|config| {
        let kubeconfig = json!({"clusters": [{"name": "c", "cluster": {"server": format!("https://localhost:{}/authn", addr.port()),
            "certificate-authority-data": STANDARD.encode(config.pki.ca_pem())}}],
            "contexts": [{"name": "x", "context": {"cluster": "c"}}], "current-context": "x"});
        let hook = TokenWebhook::from_kubeconfig(&kubeconfig, Duration::from_secs(60), |_| unreachable!("no file"));
        config.token_webhook = Some(hook.expect("a configuration"));
    })
    .await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let router = Router::new().route(
        "/authn",
        post(move |Json(review): Json<Value>| async move {
            counted.fetch_add(1, Ordering::SeqCst);
            let known = review["spec"]["token"] == "opaque";
            let status = if known {
                json!({"authenticated": true, "user": {"username": "jane", "uid": "7", "groups": ["dev"], "extra": {"k": ["v"]}}})
            } else {
                json!({"authenticated": false})
            };
            Json(json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status}))
        }),
    );
    serve(&c, &["localhost"], listener, router);
    let user = whoami(&c, "opaque").await.expect("known");
    assert_eq!((user.name.as_str(), user.uid.as_str(), user.groups[0].as_str()), ("jane", "7", "dev"));
    assert!(whoami(&c, "opaque").await.is_some());
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the answer is kept");
    assert!(whoami(&c, "wrong").await.is_none());
    assert!(whoami(&c, "secret").await.is_some(), "the admin's token is nobody else's business");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn expired_bootstrap_tokens_are_deleted() {
    let c = cluster().await;
    let r = crate::crd::Raw::of(&c);
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    for (id, until) in
        [("aaaaaa", "2020-01-01T00:00:00Z"), ("bbbbbb", "2199-01-01T00:00:00Z"), ("cccccc", "")]
    {
        let mut o = json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token",
            "stringData": {"token-id": id, "token-secret": "0123456789abcdef"}});
        if !until.is_empty() {
            o["stringData"]["expiration"] = until.into();
        }
        let (status, body) = r.post(secrets, &o).await;
        assert_eq!(status, 201, "{body}");
    }
    r.until(&format!("{secrets}/bootstrap-token-aaaaaa"), |o| o["code"] == 404).await;
    for id in ["bbbbbb", "cccccc"] {
        r.get(&format!("{secrets}/bootstrap-token-{id}")).await;
    }
}
