//! Admission webhooks, asked over real HTTPS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Json;
use axum::Router;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, EvictParams, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::https::{reviewed, serve_anywhere};
use crate::{Cluster, cluster, deployment, from, pod, status};

fn hook(c: &Cluster, name: &str, url: String, resource: &str, operations: &[&str]) -> Value {
    json!({
        "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": url, "caBundle": STANDARD.encode(c.server.pki().ca_pem())},
        "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "resources": [resource], "operations": operations}],
    })
}

async fn validating(c: &Cluster, hooks: Value) {
    let o: ValidatingWebhookConfiguration = from(json!({"metadata": {"name": "v"}, "webhooks": hooks}));
    Api::all(c.client()).create(&PostParams::default(), &o).await.expect("configured");
}

async fn mutating(c: &Cluster, hooks: Value) {
    let o: MutatingWebhookConfiguration = from(json!({"metadata": {"name": "m"}, "webhooks": hooks}));
    Api::all(c.client()).create(&PostParams::default(), &o).await.expect("configured");
}

fn map(name: &str, labels: Value) -> ConfigMap {
    from(json!({"metadata": {"name": name, "labels": labels}, "data": {"a": "b"}}))
}

fn patched(review: &Value, patch: &Value) -> Json<Value> {
    let encoded = STANDARD.encode(patch.to_string());
    reviewed(review, json!({"allowed": true, "patchType": "JSONPatch", "patch": encoded}))
}

#[tokio::test]
async fn validating_webhooks_refuse_and_see_everything() {
    let c = cluster().await;
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = seen.clone();
    let router = Router::new().route(
        "/check",
        post(move |Json(review): Json<Value>| async move {
            kept.lock().push(review.clone());
            let no = review["request"]["object"]["metadata"]["labels"]["bad"] == "yes"
                || review["request"]["oldObject"]["metadata"]["labels"]["keep"] == "yes";
            let mut answer =
                json!({"allowed": !no, "warnings": ["look at it"], "auditAnnotations": {"k": "v"}});
            if no {
                answer["status"] = json!({"code": 403, "reason": "Forbidden", "message": "not here"});
            }
            reviewed(&review, answer)
        }),
    );
    let port = serve_anywhere(&c, &["localhost"], router).await;
    let url = format!("https://localhost:{port}/check");
    let all = ["CREATE", "UPDATE", "DELETE"];
    validating(&c, json!([hook(&c, "check.example.com", url, "configmaps", &all)])).await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    maps.create(&PostParams::default(), &map("good", json!({"keep": "yes"}))).await.expect("allowed");
    let refused = maps.create(&PostParams::default(), &map("bad", json!({"bad": "yes"}))).await;
    let expect = "admission webhook \"check.example.com\" denied the request: not here";
    assert_eq!(status(refused.expect_err("refused")), (403, "Forbidden".to_owned(), expect.to_owned()));
    assert!(maps.get_opt("bad").await.expect("asked").is_none());
    let refused = maps.delete("good", &DeleteParams::default()).await;
    assert_eq!(status(refused.expect_err("refused")).2, expect);
    let seen = seen.lock();
    let r = &seen[0]["request"];
    assert_eq!(seen[0]["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(r["operation"], "CREATE");
    assert_eq!(r["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(r["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!((&r["name"], &r["namespace"]), (&json!("good"), &json!("default")));
    assert_eq!(r["userInfo"]["username"], "admin");
    assert_eq!(r["object"]["data"]["a"], "b");
    assert!(r["oldObject"].is_null() && r["dryRun"] == false);
    assert_eq!(r["options"]["kind"], "CreateOptions");
    let last = &seen[seen.len() - 1]["request"];
    assert_eq!(last["operation"], "DELETE");
    assert!(last["object"].is_null());
    assert_eq!(last["oldObject"]["metadata"]["name"], "good");
    assert_eq!(last["options"]["kind"], "DeleteOptions");
}

#[tokio::test]
async fn mutating_webhooks_patch_in_order_and_again() {
    let c = cluster().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let first = move |Json(review): Json<Value>| async move {
        counted.fetch_add(1, Ordering::SeqCst);
        let o = &review["request"]["object"]["data"];
        let n = o.as_object().map_or(0, serde_json::Map::len);
        patched(&review, &json!([{"op": "add", "path": "/data/first", "value": n.to_string()}]))
    };
    let second = |Json(review): Json<Value>| async move {
        // The last two words are the server's to say, and are not heard.
        let patch = json!([
            {"op": "add", "path": "/data/second", "value": "here"},
            {"op": "replace", "path": "/metadata/uid", "value": "x"},
            {"op": "replace", "path": "/metadata/namespace", "value": "kube-system"},
        ]);
        patched(&review, &patch)
    };
    let router = Router::new().route("/first", post(first)).route("/second", post(second));
    let port = serve_anywhere(&c, &["localhost"], router).await;
    let at = |path: &str| format!("https://localhost:{port}/{path}");
    let mut a = hook(&c, "a.example.com", at("first"), "configmaps", &["CREATE"]);
    a["reinvocationPolicy"] = "IfNeeded".into();
    mutating(&c, json!([a, hook(&c, "b.example.com", at("second"), "configmaps", &["CREATE"])])).await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    let made = maps.create(&PostParams::default(), &map("x", json!({}))).await.expect("made");
    assert_ne!(made.metadata.uid.as_deref(), Some("x"));
    assert_eq!(made.metadata.namespace.as_deref(), Some("default"));
    let data = made.data.expect("data");
    assert_eq!((data["first"].as_str(), data["second"].as_str()), ("3", "here"));
    assert_eq!(calls.load(Ordering::SeqCst), 2, "called again, as the second changed the object");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let made = maps.create(&dry, &map("y", json!({}))).await.expect("a dry run");
    assert!(made.data.expect("data").contains_key("second"));
    assert!(maps.get_opt("y").await.expect("asked").is_none());
}

#[tokio::test]
async fn failures_close_or_open_as_the_policy_says() {
    let c = cluster().await;
    let slow = |Json(_): Json<Value>| async { std::future::pending::<Json<Value>>().await };
    let wrong = |Json(_): Json<Value>| async { Json(json!({"kind": "AdmissionReview"})) };
    let broken = || async { (http::StatusCode::INTERNAL_SERVER_ERROR, "oops") };
    let router =
        Router::new().route("/slow", post(slow)).route("/wrong", post(wrong)).route("/broken", post(broken));
    let port = serve_anywhere(&c, &["localhost"], router).await;
    let api: Api<ValidatingWebhookConfiguration> = Api::all(c.client());
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    let closed = |hook: Value, expect: String| {
        let (api, maps) = (api.clone(), maps.clone());
        async move {
            let with = |policy: &str| -> ValidatingWebhookConfiguration {
                let mut hook = hook.clone();
                hook["failurePolicy"] = policy.into();
                from(json!({"metadata": {"name": "v"}, "webhooks": [hook]}))
            };
            api.create(&PostParams::default(), &with("Fail")).await.expect("configured");
            let e = maps.create(&PostParams::default(), &map("x", json!({}))).await.expect_err("closed");
            let prefix = "Internal error occurred: failed calling webhook \"v.example.com\": ";
            assert_eq!(status(e), (500, "InternalError".to_owned(), format!("{prefix}{expect}")));
            api.delete("v", &DeleteParams::default()).await.expect("deleted");
            api.create(&PostParams::default(), &with("Ignore")).await.expect("configured");
            maps.create(&PostParams::default(), &map("x", json!({}))).await.expect("open");
            maps.delete("x", &DeleteParams::default()).await.expect("deleted");
            api.delete("v", &DeleteParams::default()).await.expect("deleted");
        }
    };
    let at = |host: &str, path: &str| {
        let mut h =
            hook(&c, "v.example.com", format!("https://{host}:{port}/{path}"), "configmaps", &["CREATE"]);
        h["timeoutSeconds"] = 1.into();
        h
    };
    let url = |host: &str, path: &str| format!("https://{host}:{port}/{path}?timeout=1s");
    closed(
        at("localhost", "slow"),
        format!("failed to call webhook: Post \"{}\": context deadline exceeded", url("localhost", "slow")),
    )
    .await;
    closed(
        at("localhost", "wrong"),
        "received invalid webhook response: webhook response was absent".to_owned(),
    )
    .await;
    closed(
        at("localhost", "broken"),
        "failed to call webhook: an error on the server (\"oops\") has prevented the request from succeeding"
            .to_owned(),
    )
    .await;
    closed(
        at("localhost", "none"),
        "failed to call webhook: the server could not find the requested resource".to_owned(),
    )
    .await;
    let mut stranger = at("localhost", "wrong");
    let other = cluster().await;
    stranger["clientConfig"]["caBundle"] = STANDARD.encode(other.server.pki().ca_pem()).into();
    closed(stranger, format!("failed to call webhook: Post \"{}\": tls: failed to verify certificate: x509: certificate signed by unknown authority", url("localhost", "wrong"))).await;
    let mut service = at("localhost", "wrong");
    let ca = service["clientConfig"]["caBundle"].clone();
    service["clientConfig"] = json!({"service": {"name": "none", "namespace": "default"}, "caBundle": ca});
    closed(service, "failed to call webhook: Post \"https://none.default.svc:443/?timeout=1s\": services \"none\" not found".to_owned()).await;
}

#[tokio::test]
async fn services_selectors_and_dry_runs() {
    let c = cluster().await;
    let router = Router::new().route(
        "/deny",
        post(|Json(review): Json<Value>| async move { reviewed(&review, json!({"allowed": false})) }),
    );
    let port = serve_anywhere(&c, &["hook.default.svc"], router).await;
    let raw = |o: Value| -> Value { o };
    let client = c.client();
    for (path, o) in [
        (
            "/api/v1/namespaces/default/services",
            raw(json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}]}})),
        ),
        (
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            raw(json!({"metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
                "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"port": port}]})),
        ),
    ] {
        let request = http::Request::post(path).body(o.to_string().into_bytes()).expect("a request");
        client.request::<Value>(request).await.expect("made");
    }
    let mut h = hook(&c, "deny.example.com", String::new(), "configmaps", &["CREATE"]);
    let ca = h["clientConfig"]["caBundle"].clone();
    h["clientConfig"] =
        json!({"service": {"name": "hook", "namespace": "default", "path": "/deny"}, "caBundle": ca});
    h["objectSelector"] = json!({"matchLabels": {"watched": "yes"}});
    h["namespaceSelector"] = json!({"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}]});
    validating(&c, json!([h])).await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    maps.create(&PostParams::default(), &map("free", json!({}))).await.expect("not selected");
    let watched = map("x", json!({"watched": "yes"}));
    let e = maps.create(&PostParams::default(), &watched).await.expect_err("refused");
    let expect = "admission webhook \"deny.example.com\" denied the request without explanation";
    assert_eq!(status(e).2, expect);
    let elsewhere: Api<ConfigMap> = Api::namespaced(c.client(), "kube-system");
    elsewhere.create(&PostParams::default(), &watched).await.expect("another namespace");
    // A hook with side effects is not asked about dry runs: they are refused.
    let v: Api<ValidatingWebhookConfiguration> = Api::all(c.client());
    let e = v
        .patch(
            "v",
            &PatchParams::default(),
            &Patch::Json::<()>(from(
                json!([{"op": "replace", "path": "/webhooks/0/sideEffects", "value": "Some"}]),
            )),
        )
        .await
        .expect_err("v1 knows no such word");
    assert_eq!(status(e).0, 422);
}

#[tokio::test]
async fn subresources_have_kinds_of_their_own() {
    let c = cluster().await;
    c.account().await;
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = seen.clone();
    let router = Router::new().route(
        "/see",
        post(move |Json(review): Json<Value>| async move {
            kept.lock().push(review["request"].clone());
            reviewed(&review, json!({"allowed": true}))
        }),
    );
    let port = serve_anywhere(&c, &["localhost"], router).await;
    let url = format!("https://localhost:{port}/see");
    let mut h = hook(&c, "see.example.com", url, "*/*", &["*"]);
    h["rules"][0]["resources"] = json!(["pods/binding", "pods/eviction", "deployments/scale", "pods/exec"]);
    validating(&c, json!([h])).await;
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    pods.create(&PostParams::default(), &pod("p")).await.expect("made");
    let deployments: Api<Deployment> = Api::namespaced(c.client(), "default");
    deployments.create(&PostParams::default(), &deployment("d")).await.expect("made");
    deployments
        .patch_scale("d", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}})))
        .await
        .expect("scaled");
    pods.exec("p", ["true"], &kube::api::AttachParams::default())
        .await
        .map(drop)
        .expect_err("it has no node");
    pods.evict("p", &EvictParams::default()).await.expect("evicted");
    let got: Vec<String> = seen
        .lock()
        .iter()
        .map(|r| {
            let word = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            format!("{} {} {}", word(&r["operation"]), word(&r["subResource"]), word(&r["object"]["kind"]))
        })
        .collect();
    assert_eq!(got, ["UPDATE scale Scale", "CONNECT exec PodExecOptions", "CREATE eviction Eviction"]);
    let scale = &seen.lock()[0];
    assert_eq!(
        (&scale["object"]["spec"]["replicas"], &scale["oldObject"]["spec"]["replicas"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(scale["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
}
