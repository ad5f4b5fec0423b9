//! Aggregated APIs: a real server behind a Service, over real TLS, that takes nobody but us.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::user::UserInfo;
use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use crate::https::{at, serve_clients};
use crate::{Cluster, cluster};

const NAME: &str = "v1alpha1.wardle.example.com";
const BASE: &str = "/apis/wardle.example.com/v1alpha1";

async fn ask(c: &Cluster, req: http::request::Builder, body: Value) -> (StatusCode, HeaderMap, String) {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let router = c.server.in_process(UserInfo::new("admin", &["system:masters"]));
    let answer = router.oneshot(req.body(body).expect("a request")).await.expect("an answer");
    let (parts, body) = answer.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    (parts.status, parts.headers, String::from_utf8_lossy(&bytes).into_owned())
}

async fn read(c: &Cluster, path: &str) -> Value {
    let (status, _, text) = ask(c, Request::get(path), Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{path}: {text}");
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

async fn make(c: &Cluster, path: &str, o: Value) -> (StatusCode, Value) {
    let (status, _, text) = ask(c, Request::post(path), o).await;
    (status, serde_json::from_str(&text).expect("JSON"))
}

/// Status, reason and message of `Available`.
async fn available(c: &Cluster, name: &str) -> (String, String, String) {
    let o = read(c, &format!("/apis/apiregistration.k8s.io/v1/apiservices/{name}")).await;
    let word = |c: &Value, k: &str| c[k].as_str().unwrap_or_default().to_owned();
    let all = o["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let c = all.iter().find(|c| c["type"] == "Available").cloned().unwrap_or_default();
    (word(&c, "status"), word(&c, "reason"), word(&c, "message"))
}

async fn becomes(c: &Cluster, reason: &str) -> String {
    let wait = async {
        loop {
            let (_, now, message) = available(c, NAME).await;
            if now == reason {
                return message;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(20), wait).await {
        Ok(message) => message,
        Err(_) => panic!("{NAME} is {:?}, not {reason}", available(c, NAME).await),
    }
}

fn service(port: u16) -> (Value, Value) {
    let service =
        json!({"metadata": {"name": "wardle"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
    let slice = json!({"metadata": {"name": "wardle-1", "labels": {"kubernetes.io/service-name": "wardle"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"name": "https", "port": port}]});
    (service, slice)
}

fn row(c: &Cluster) -> Value {
    json!({"metadata": {"name": NAME}, "spec": {
        "group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 10,
        "service": {"namespace": "default", "name": "wardle"}, "caBundle": STANDARD.encode(c.server.pki().ca_pem())}})
}

/// A little extension server: what it was asked lies in `seen`.
fn wardle(seen: Arc<Mutex<Vec<(String, HeaderMap)>>>) -> Router {
    let noted = seen.clone();
    let resources = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1",
        "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
            "shortNames": ["fl"], "verbs": ["create", "get", "list", "watch"]}]});
    let index = json!({"paths": {"apis/wardle.example.com/v1alpha1":
        {"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=ABC"}}});
    let v2 = json!({"swagger": "2.0",
        "paths": {format!("{BASE}/flunders"): {"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/wardle.Flunder"}}}}},
            "/apis/other/v1/x": {}},
        "definitions": {"wardle.Flunder": {"type": "object", "properties": {"metadata": {"$ref": "#/definitions/meta"}}},
            "meta": {"type": "object"}, "unused": {}}});
    let flunders = move |req: Request<Body>| async move {
        noted.lock().push((req.uri().to_string(), req.headers().clone()));
        if req.uri().query().is_some_and(|q| q.contains("watch")) {
            let events = futures::stream::iter(["{\"type\":\"ADDED\"}\n"]).map(Ok::<_, std::io::Error>);
            // It goes on for ever.
            let open = futures::StreamExt::chain(events, futures::stream::pending());
            return axum::response::Response::new(Body::from_stream(open));
        }
        let list = json!({"kind": "FlunderList", "apiVersion": "wardle.example.com/v1alpha1", "items": []});
        let mut r = axum::response::Response::new(Body::from(list.to_string()));
        r.headers_mut().insert("x-wardle", "yes".parse().expect("a value"));
        r
    };
    let upgrade = |mut req: Request<Body>| async move {
        let on = hyper::upgrade::on(&mut req);
        telemetry::task::spawn("test-echo", async move {
            let mut io = TokioIo::new(on.await.expect("upgraded"));
            let mut word = [0; 5];
            io.read_exact(&mut word).await.expect("five bytes");
            io.write_all(&word.map(|b| b.to_ascii_uppercase())).await.expect("written");
        });
        http::Response::builder()
            .status(101)
            .header("connection", "Upgrade")
            .header("upgrade", "echo")
            .body(Body::empty())
            .expect("an answer")
    };
    use futures::StreamExt;
    Router::new()
        .route(BASE, get(|| async { Json(resources) }))
        .route("/openapi/v3", get(|| async { Json(index) }))
        .route("/openapi/v2", get(|| async { Json(v2) }))
        .route(
            "/openapi/v3/apis/wardle.example.com/v1alpha1",
            get(|| async { Json(json!({"openapi": "3.0.0"})) }),
        )
        .route(&format!("{BASE}/namespaces/default/flunders"), get(flunders.clone()).post(flunders))
        .route(&format!("{BASE}/namespaces/default/flunders/x/echo"), get(upgrade))
}

#[tokio::test]
async fn another_server_answers_under_our_roof() {
    let c = cluster().await;
    let seen: Arc<Mutex<Vec<(String, HeaderMap)>>> = Arc::default();
    let (addr, listener) = at().await;
    let (status, made) = make(&c, "/apis/apiregistration.k8s.io/v1/apiservices", row(&c)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["service"]["port"], 443);

    // Nothing is there yet, and it is told what is missing, a step at a time.
    assert_eq!(becomes(&c, "ServiceNotFound").await, "service/wardle in \"default\" is not present");
    let (status, headers, text) = ask(&c, Request::get(format!("{BASE}/flunders")), Value::Null).await;
    assert_eq!((status, text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n"));
    assert_eq!(headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    let (service, slice) = service(addr.port());
    make(&c, "/api/v1/namespaces/default/services", service).await;
    assert_eq!(
        becomes(&c, "EndpointsNotFound").await,
        "cannot find endpointslices for service/wardle in \"default\""
    );
    drop(listener);
    make(&c, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    let message = becomes(&c, "FailedDiscoveryCheck").await;
    assert!(message.starts_with("failing or missing response from https://10.43."), "{message}");
    assert!(message.ends_with(&format!("dial tcp {addr}: connect: connection refused")), "{message}");
    let listener = tokio::net::TcpListener::bind(addr).await.expect("the port is free again");
    let front = c.server.pki().front_proxy_ca_pem().to_owned();
    serve_clients(&c, &["wardle.default.svc"], listener, wardle(seen.clone()), Some(&front));
    assert_eq!(becomes(&c, "Passed").await, "all checks passed");

    // A request, and who made it; nobody says of himself who he is.
    let req = Request::get(format!("{BASE}/namespaces/default/flunders?limit=5"))
        .header("x-remote-user", "mallory")
        .header("x-remote-group", "system:masters")
        .header("x-remote-extra-scopes", "all")
        .header("authorization", "Bearer secret")
        .header("accept", "application/vnd.kubernetes.protobuf, application/json");
    let (status, headers, text) = ask(&c, req, Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert_eq!(headers["x-wardle"], "yes");
    assert!(text.contains("FlunderList"), "{text}");
    let (uri, got) = seen.lock().last().cloned().expect("asked");
    assert_eq!(uri, format!("{BASE}/namespaces/default/flunders?limit=5"));
    let all = |name: &str| -> Vec<String> {
        got.get_all(name).iter().map(|v| v.to_str().expect("text").to_owned()).collect()
    };
    assert_eq!(all("x-remote-user"), ["admin"]);
    assert_eq!(all("x-remote-group"), ["system:masters", "system:authenticated"]);
    assert!(all("x-remote-extra-scopes").is_empty() && all("authorization").is_empty());
    assert_eq!(all("x-forwarded-uri"), [uri]);

    // A watch comes piece by piece.
    let router = c.server.in_process(UserInfo::new("jane", &["system:masters"]));
    let req = Request::get(format!("{BASE}/namespaces/default/flunders?watch=1")).body(Body::empty());
    let answer = router.oneshot(req.expect("a request")).await.expect("an answer");
    let first = answer.into_body().frame().await.expect("a frame").expect("whole").into_data().expect("data");
    assert_eq!(&first[..], b"{\"type\":\"ADDED\"}\n");

    // Discovery, both forms, and OpenAPI.
    let groups = read(&c, "/apis").await;
    let names: Vec<&str> =
        groups["groups"].as_array().expect("groups").iter().filter_map(|g| g["name"].as_str()).collect();
    assert_eq!((names[0], names[1]), ("apiregistration.k8s.io", "apps"));
    assert_eq!(names.last(), Some(&"wardle.example.com"));
    assert_eq!(read(&c, "/apis/wardle.example.com").await["preferredVersion"]["version"], "v1alpha1");
    assert_eq!(read(&c, BASE).await["resources"][0]["name"], "flunders");
    let wanted = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (_, _, text) = ask(&c, Request::get("/apis").header("accept", wanted), Value::Null).await;
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let items = list["items"].as_array().expect("groups");
    let own = items.iter().find(|g| g["metadata"]["name"] == "wardle.example.com").expect("the group");
    let version = &own["versions"][0];
    assert_eq!(
        (&version["freshness"], &version["resources"][0]["resource"]),
        (&json!("Current"), &json!("flunders"))
    );
    let index = read(&c, "/openapi/v3").await;
    let at = &index["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"];
    assert_eq!(at, "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=ABC");
    assert_eq!(read(&c, at.as_str().expect("an address")).await["openapi"], "3.0.0");
    let v2 = read(&c, "/openapi/v2").await;
    assert!(
        v2["paths"][format!("{BASE}/flunders")]["get"].is_object()
            && v2["paths"].get("/apis/other/v1/x").is_none()
    );
    assert_eq!(v2["definitions"]["wardle.Flunder"]["properties"]["metadata"]["$ref"], "#/definitions/meta");
    assert!(v2["definitions"]["meta"].is_object() && v2["definitions"].get("unused").is_none());

    // When its endpoint goes, it says so, and what it had is stale.
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/wardle-1";
    ask(&c, Request::delete(slice), Value::Null).await;
    becomes(&c, "EndpointsNotFound").await;
    let (_, _, text) = ask(&c, Request::get("/apis").header("accept", wanted), Value::Null).await;
    assert!(text.contains("\"freshness\":\"Stale\"") && text.contains("flunders"));
    let (status, _, _) = ask(&c, Request::get(format!("{BASE}/flunders")), Value::Null).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn upgraded_connections_are_carried() {
    let c = cluster().await;
    let (addr, listener) = at().await;
    let front = c.server.pki().front_proxy_ca_pem().to_owned();
    // Its name is another's: only who says not to look takes it.
    serve_clients(&c, &["somebody.else"], listener, wardle(Arc::default()), Some(&front));
    let (service, slice) = service(addr.port());
    make(&c, "/api/v1/namespaces/default/services", service).await;
    make(&c, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    let mut row = row(&c);
    make(&c, "/apis/apiregistration.k8s.io/v1/apiservices", row.clone()).await;
    let message = becomes(&c, "FailedDiscoveryCheck").await;
    assert!(message.contains("x509: certificate is not valid for wardle.default.svc"), "{message}");
    ask(&c, Request::delete(format!("/apis/apiregistration.k8s.io/v1/apiservices/{NAME}")), Value::Null)
        .await;
    row["spec"]["insecureSkipTLSVerify"] = true.into();
    let (status, refused) = make(&c, "/apis/apiregistration.k8s.io/v1/apiservices", row.clone()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refused["message"],
        format!(
            "APIService.apiregistration.k8s.io \"{NAME}\" is invalid: spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"
        )
    );
    row["spec"]["caBundle"] = Value::Null;
    make(&c, "/apis/apiregistration.k8s.io/v1/apiservices", row).await;
    becomes(&c, "Passed").await;

    // Through a real connection, as only such a one can be upgraded.
    let (near, far) = tokio::io::duplex(1 << 16);
    let router = c.server.in_process(UserInfo::new("admin", &["system:masters"]));
    telemetry::task::spawn("test-near", async move {
        let service = hyper_util::service::TowerToHyperService::new(router);
        let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(near), service);
        served.with_upgrades().await.expect("served");
    });
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(far)).await.expect("ready");
    telemetry::task::spawn("test-far", async move { connection.with_upgrades().await.expect("carried") });
    let req = Request::get(format!("{BASE}/namespaces/default/flunders/x/echo"))
        .header("connection", "Upgrade")
        .header("upgrade", "echo")
        .body(Body::empty())
        .expect("a request");
    let answer = sender.send_request(req).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut io = TokioIo::new(hyper::upgrade::on(answer).await.expect("upgraded"));
    io.write_all(b"hello").await.expect("written");
    let mut word = [0; 5];
    io.read_exact(&mut word).await.expect("five bytes");
    assert_eq!(&word, b"HELLO");
}

#[tokio::test]
async fn what_is_served_here_has_rows_of_its_own() {
    let c = cluster().await;
    let rows = || async {
        let list = read(&c, "/apis/apiregistration.k8s.io/v1/apiservices").await;
        let all = list["items"].as_array().cloned().unwrap_or_default();
        all.iter().filter_map(|o| Some(o["metadata"]["name"].as_str()?.to_owned())).collect::<Vec<_>>()
    };
    let until = |name: &'static str, there: bool| async move {
        let wait = async {
            while rows().await.iter().any(|r| r == name) != there {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect(name);
    };
    until("v1.", true).await;
    until("v2.autoscaling", true).await;
    assert!(!rows().await.iter().any(|r| r.ends_with("apiregistration.k8s.io")));
    let (status, reason, message) = available(&c, "v1.").await;
    assert_eq!(
        (status.as_str(), reason.as_str(), message.as_str()),
        ("True", "Local", "Local APIServices are always available")
    );
    let crd = json!({"metadata": {"name": "crons.stable.example.com"}, "spec": {
        "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "crons", "kind": "Cron"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    make(&c, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd).await;
    until("v1.stable.example.com", true).await;
    let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crons.stable.example.com";
    ask(&c, Request::delete(crd), Value::Null).await;
    until("v1.stable.example.com", false).await;

    let (status, refused) = make(
        &c,
        "/apis/apiregistration.k8s.io/v1/apiservices",
        json!({"metadata": {"name": "wrong"}, "spec": {"group": "a.b", "version": "v1", "versionPriority": 1}}),
    )
    .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refused["message"],
        "APIService.apiregistration.k8s.io \"wrong\" is invalid: [metadata.name: Invalid value: \"wrong\": must be `spec.version+\".\"+spec.group`: \"v1.a.b\", spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000]"
    );
    let trust = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let map = read(&c, trust).await;
    assert_eq!(map["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    assert_eq!(map["data"]["client-ca-file"], c.server.pki().ca_pem());
}
