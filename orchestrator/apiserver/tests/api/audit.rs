//! What the audit log is told.

use std::sync::Arc;

use apimachinery::user::UserInfo;
use apiserver::{Audit, AuditEvent, AuditPolicy};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{Cluster, cluster_with, from, pod};

type Told = Arc<Mutex<Vec<AuditEvent>>>;

async fn audited(policy: AuditPolicy) -> (Cluster, Told) {
    let told = Told::default();
    let kept = told.clone();
    let c = cluster_with(|config| {
        let sink = Arc::new(move |e| kept.lock().push(e));
        config.audit = Some(Audit { policy: Arc::new(policy), sink });
    })
    .await;
    c.account().await;
    told.lock().clear();
    (c, told)
}

fn events(told: &Told) -> Vec<Value> {
    told.lock().iter().map(|e| serde_json::from_str(&e.body).expect("JSON")).collect()
}

#[tokio::test]
async fn writes_are_told_with_who_and_why() {
    let (c, told) = audited(AuditPolicy::default()).await;
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    pods.create(&PostParams::default(), &pod("p")).await.expect("made");
    pods.list(&ListParams::default()).await.expect("reading is not told of");
    let eve: Api<Pod> = Api::namespaced(c.client_as(UserInfo::new("eve", &["dev"])), "default");
    eve.delete("p", &DeleteParams::default()).await.expect_err("she may not");
    let got = events(&told);
    assert_eq!(got.len(), 2, "{got:?}");
    let made = &got[0];
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("Event"), &json!("audit.k8s.io/v1")));
    assert_eq!((&made["level"], &made["stage"]), (&json!("Metadata"), &json!("ResponseComplete")));
    assert_eq!(made["verb"], "create");
    assert_eq!(made["user"]["username"], "admin");
    assert_eq!(
        made["objectRef"],
        json!({"resource": "pods", "apiVersion": "v1", "namespace": "default", "name": "p"})
    );
    assert_eq!(made["responseStatus"]["code"], 201);
    assert_eq!(made["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(made["annotations"]["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
    let note = |key: &str| made["annotations"][key].as_str().unwrap_or_default();
    assert_eq!((note("binnacle.io/flow-schema"), note("binnacle.io/priority-level")), ("exempt", "exempt"));
    let revision = pods.get("p").await.expect("it is there").metadata.resource_version.unwrap_or_default();
    assert_eq!(note("binnacle.io/revision"), revision);
    let parts = [
        "authentication ",
        "queue ",
        "authorization ",
        "body ",
        "admission ",
        "validation ",
        "store ",
        "answer ",
    ];
    let time: Vec<&str> = note("binnacle.io/time").split(", ").collect();
    assert_eq!(time.len(), parts.len(), "{time:?}");
    assert!(time.iter().zip(parts).all(|(t, p)| t.starts_with(p) && t.ends_with("ms")), "{time:?}");
    assert!(made.get("requestObject").is_none() && made.get("responseObject").is_none());
    let refused = &got[1];
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(refused["responseStatus"]["code"], 403);
    assert_eq!(refused["responseStatus"]["reason"], "Forbidden");
    let first = told.lock()[0].fields.clone();
    assert!(first.contains(&("verb", "create".to_owned())) && first.contains(&("user", "admin".to_owned())));
}

#[tokio::test]
async fn an_answers_audit_id_is_its_records() {
    use tower::ServiceExt;
    let (c, told) = audited(AuditPolicy::default()).await;
    let request = http::Request::delete("/api/v1/namespaces/default/pods/none")
        .header("impersonate-user", "jane")
        .header("user-agent", "test/1")
        .header("audit-id", "forged")
        .body(axum::body::Body::empty())
        .expect("a request");
    let router = c.server.in_process(UserInfo::new("root", &["system:masters"]));
    let answer = router.oneshot(request).await.expect("an answer");
    let id = answer.headers()["audit-id"].to_str().expect("text").to_owned();
    let got = events(&told);
    assert_eq!(got[0]["auditID"], id.as_str());
    assert_ne!(id, "forged");
    assert_eq!(got[0]["user"]["username"], "root");
    assert_eq!(got[0]["impersonatedUser"]["username"], "jane");
    assert_eq!(got[0]["userAgent"], "test/1");
}

#[tokio::test]
async fn secrets_are_never_written_down() {
    let policy = json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "omitStages": ["RequestReceived"], "omitManagedFields": true,
        "rules": [{"level": "RequestResponse"}]});
    let (c, told) = audited(AuditPolicy::parse(&policy).expect("a policy")).await;
    let secrets: Api<Secret> = Api::namespaced(c.client(), "default");
    let o = json!({"metadata": {"name": "s"}, "stringData": {"k": "hunter2"}});
    secrets.create(&PostParams::default(), &from(o)).await.expect("made");
    secrets.list(&ListParams::default()).await.expect("read");
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    maps.create(&PostParams::default(), &from(json!({"metadata": {"name": "m"}, "data": {"k": "hunter2"}})))
        .await
        .expect("made");
    let encoded = "aHVudGVyMg==";
    for e in told.lock().iter() {
        assert!(!e.body.contains("hunter2") && !e.body.contains(encoded), "{}", e.body);
    }
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    pods.create(&PostParams::default(), &pod("p")).await.expect("made");
    let last = events(&told).pop().expect("an event");
    assert_eq!(last["level"], "RequestResponse");
    assert_eq!(last["requestObject"]["metadata"]["name"], "p");
    assert_eq!(last["responseObject"]["metadata"]["name"], "p");
    assert!(last["responseObject"]["metadata"].get("managedFields").is_none());
    assert!(last["responseObject"]["metadata"]["uid"].is_string());
}

#[tokio::test]
async fn who_shows_nothing_good_is_told_of() {
    let policy = json!({"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "rules": [{"level": "Metadata"}]});
    let (c, told) = audited(AuditPolicy::parse(&policy).expect("a policy")).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serving = telemetry::task::spawn("serve", c.server.clone().serve(listener, c.stop.clone()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(c.server.pki().ca_der().expect("a CA")).expect("trusted");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let tls = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.expect("TLS");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(tls)).await.expect("HTTP");
    let driving =
        telemetry::task::spawn("client", async move { connection.await.map_err(|e| e.to_string()) });
    let request = http::Request::get("/api/v1/secrets")
        .header("host", "localhost")
        .header("authorization", "Bearer wrong")
        .header("x-remote-user", "admin")
        .body(axum::body::Body::empty())
        .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), 401);
    drop(answer);
    let got: Vec<Value> =
        events(&told).into_iter().filter(|e| e["requestURI"] == "/api/v1/secrets").collect();
    assert_eq!(got.len(), 2, "{got:?}");
    assert_eq!(got[1]["responseStatus"]["code"], 401);
    assert_eq!(got[1]["sourceIPs"], json!(["127.0.0.1"]));
    drop(sender);
    driving.await.expect("no panic").expect("closed");
    c.stop.cancel();
    serving.await.expect("no panic").expect("no error");
}

#[tokio::test]
async fn requests_are_counted_under_upstreams_names() {
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let (c, _) = audited(AuditPolicy::default()).await;
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    pods.create(&PostParams::default(), &pod("counted")).await.expect("made");
    pods.list(&ListParams::default()).await.expect("listed");
    let request = http::Request::get("/metrics").body(axum::body::Body::empty()).expect("a request");
    let router = c.server.in_process(UserInfo::new("root", &["system:masters"]));
    let answer = router.oneshot(request).await.expect("an answer");
    let bytes = answer.into_body().collect().await.expect("its body").to_bytes();
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    for series in [
        r#"apiserver_request_total{verb="POST",group="",version="v1",resource="pods",subresource="",scope="namespace",component="apiserver",dry_run="",code="201"}"#,
        r#"apiserver_request_duration_seconds_count{verb="LIST",group="",version="v1",resource="pods""#,
        r#"apiserver_response_sizes_count{verb="LIST""#,
        r#"apiserver_current_inflight_requests{request_kind="readOnly"}"#,
        r#"apiserver_storage_objects{resource="pods"}"#,
        r#"etcd_request_duration_seconds_count{operation="create",type="pods"}"#,
        r#"authorization_attempts_total{result="allowed"}"#,
        r#"apiserver_flowcontrol_dispatched_requests_total{"#,
        r#"apiserver_flowcontrol_nominal_limit_seats{priority_level="workload-low"}"#,
    ] {
        assert!(text.contains(series), "{series} in\n{text}");
    }
}
