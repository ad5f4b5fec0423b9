//! One object in several versions: rules of admission that name another one than the request, and who is asked again.

use std::sync::Arc;

use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::crd::Raw;
use crate::https::{reviewed, serve_anywhere};
use crate::{Cluster, cluster};

const ADMISSION: &str = "/apis/admissionregistration.k8s.io";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn scaler(name: &str, percent: u64) -> Value {
    json!({"metadata": {"name": name}, "spec": {"maxReplicas": 3,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}]}})
}

fn scalers(version: &str) -> String {
    format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers")
}

fn rule(group: &str, version: &str, resource: &str) -> Value {
    json!({"apiGroups": [group], "apiVersions": [version], "operations": ["CREATE", "UPDATE"], "resources": [resource]})
}

async fn made(r: &Raw, path: &str, o: Value) -> Value {
    let (status, body) = r.post(path, &o).await;
    assert_eq!(status, 201, "{body}");
    body
}

async fn bound(r: &Raw, version: &str, prefix: &str, name: &str, spec: Value) -> Value {
    let policy = json!({"metadata": {"name": name}, "spec": spec});
    let policy = made(r, &format!("{ADMISSION}/{version}/{prefix}admissionpolicies"), policy).await;
    let mut binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    if prefix == "validating" {
        binding["spec"]["validationActions"] = json!(["Deny"]);
    }
    made(r, &format!("{ADMISSION}/{version}/{prefix}admissionpolicybindings"), binding).await;
    policy
}

async fn mutating(c: &Cluster, r: &Raw, hooks: Vec<Value>) {
    let hooks: Vec<Value> = hooks
        .into_iter()
        .map(|mut h| {
            h["clientConfig"]["caBundle"] = STANDARD.encode(c.server.pki().ca_pem()).into();
            h["sideEffects"] = "None".into();
            h["admissionReviewVersions"] = json!(["v1"]);
            h
        })
        .collect();
    let o = json!({"metadata": {"name": "hooks"}, "webhooks": hooks});
    made(r, &format!("{ADMISSION}/v1/mutatingwebhookconfigurations"), o).await;
}

fn patched(review: &Value, patch: &Value) -> Json<Value> {
    let patch = STANDARD.encode(patch.to_string());
    reviewed(review, json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_on_one_version_meets_requests_of_another() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let policy = |exact: bool, most: u64| {
        let mut spec = json!({"matchConstraints": {"resourceRules": [rule("autoscaling", "v1", "horizontalpodautoscalers")]},
            "validations": [{
                "expression": format!("object.spec.targetCPUUtilizationPercentage <= {most} && request.kind.version == 'v1'"),
                "messageExpression": "request.requestKind.version + ' asks for ' + string(object.spec.targetCPUUtilizationPercentage)"}]});
        if exact {
            spec["matchConstraints"]["matchPolicy"] = "Exact".into();
        }
        spec
    };
    let made_of = bound(&r, "v1", "validating", "small", policy(false, 70)).await;
    assert_eq!(made_of["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
    bound(&r, "v1", "validating", "exact", policy(true, 10)).await;
    let (status, refused) = r.post(&scalers("v2"), &scaler("a", 80)).await;
    assert_eq!(status, 422, "{refused}");
    let expect = "denied request: v2 asks for 80";
    assert!(refused["message"].as_str().is_some_and(|m| m.ends_with(expect)), "{refused}");
    made(&r, &scalers("v2"), scaler("a", 60)).await;
    let first = json!({"metadata": {"name": "b"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 60,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let (_, refused) = r.post(&scalers("v1"), &first).await;
    let expect = "ValidatingAdmissionPolicy 'exact' with binding 'exact' denied request: v1 asks for 60";
    assert!(refused["message"].as_str().is_some_and(|m| m.ends_with(expect)), "{refused}");
    // The other way round, and what a mutating policy says in one version is written in the other.
    bound(
        &r,
        "v1beta1",
        "mutating",
        "least",
        json!({"matchConstraints": {"resourceRules": [rule("autoscaling", "v1", "horizontalpodautoscalers")]},
        "reinvocationPolicy": "Never", "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'replace', path: '/spec/targetCPUUtilizationPercentage', value: 7}]"}}]}),
    )
    .await;
    let o = made(&r, &scalers("v2"), scaler("c", 60)).await;
    assert_eq!(o["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 7, "{o}");
    assert_eq!(o["apiVersion"], "autoscaling/v2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_sees_and_patches_the_version_it_asked_for() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = seen.clone();
    let router = Router::new().route(
        "/",
        post(move |Json(review): Json<Value>| async move {
            kept.lock().push(review["request"].clone());
            let patch =
                json!([{"op": "replace", "path": "/spec/targetCPUUtilizationPercentage", "value": 11}]);
            patched(&review, &patch)
        }),
    );
    let port = serve_anywhere(&c, &["localhost"], router).await;
    let hook = json!({"name": "v1.example.com", "clientConfig": {"url": format!("https://localhost:{port}/")},
        "rules": [rule("autoscaling", "v1", "horizontalpodautoscalers")],
        "matchConditions": [{"name": "v1", "expression": "has(object.spec.targetCPUUtilizationPercentage)"}]});
    mutating(&c, &r, vec![hook]).await;
    let o = made(&r, &scalers("v2"), scaler("a", 60)).await;
    assert_eq!(o["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 11, "{o}");
    let seen = seen.lock();
    assert_eq!(
        (&seen[0]["kind"]["version"], &seen[0]["requestKind"]["version"]),
        (&json!("v1"), &json!("v2"))
    );
    assert_eq!(seen[0]["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(seen[0]["object"]["spec"]["targetCPUUtilizationPercentage"], 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_are_asked_again_after_webhooks() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let add = |review: &Value, key: &str| {
        let have = review["request"]["object"]["data"].as_object().map_or(0, serde_json::Map::len);
        patched(review, &json!([{"op": "add", "path": format!("/data/{key}"), "value": have.to_string()}]))
    };
    let router =
        Router::new().route("/late", post(move |Json(v): Json<Value>| async move { add(&v, "late") }));
    let port = serve_anywhere(&c, &["localhost"], router).await;
    let hook = json!({"name": "late.example.com", "clientConfig": {"url": format!("https://localhost:{port}/late")},
        "rules": [rule("", "v1", "configmaps")]});
    mutating(&c, &r, vec![hook]).await;
    let counts = |key: &str, again: &str| {
        json!({"matchConstraints": {"resourceRules": [rule("", "v1", "configmaps")]}, "reinvocationPolicy": again,
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
                format!("[JSONPatch{{op: 'add', path: '/data/{key}', value: string(object.data.size())}}]")}}]})
    };
    bound(&r, "v1beta1", "mutating", "again", counts("again", "IfNeeded")).await;
    bound(&r, "v1beta1", "mutating", "never", counts("never", "Never")).await;
    let o = made(&r, MAPS, json!({"metadata": {"name": "x"}, "data": {"a": "b"}})).await;
    // One, then two, then the webhook finds three; of the policies only one looks again, at all four.
    assert_eq!(o["data"], json!({"a": "b", "again": "4", "never": "2", "late": "3"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expressions_are_checked_against_the_kinds_they_match() {
    let c = cluster().await;
    let r = Raw::of(&c);
    r.define(&crate::crd::crontabs()).await;
    let path = format!("{ADMISSION}/v1/validatingadmissionpolicies");
    let policy = json!({"metadata": {"name": "types"}, "spec": {
    "matchConstraints": {"resourceRules": [rule("apps", "v1", "deployments"), rule("stable.example.com", "v1", "crontabs")]},
    "variables": [{"name": "spec", "expression": "object.spec"}],
    "validations": [
        {"expression": "object.replicas > 1"},
        {"expression": "object.metadata.name != '' && variables.spec != null",
            "messageExpression": "object.metadata.labels['a'] + object.spec.nope"},
    ]}});
    made(&r, &path, policy).await;
    let at = format!("{path}/types");
    r.until(&at, |o| o["status"]["observedGeneration"] == 1).await;
    let o = r.get(&at).await;
    let warnings = &o["status"]["typeChecking"]["expressionWarnings"];
    let words = "ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^";
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].expression");
    let expect = format!("apps/v1, Kind=Deployment: {words}\nstable.example.com/v1, Kind=CronTab: {words}");
    assert_eq!(warnings[0]["warning"], expect);
    assert_eq!(warnings[1]["fieldRef"], "spec.validations[1].messageExpression");
    assert!(
        warnings[1]["warning"].as_str().is_some_and(|w| w.contains("undefined field 'nope'")),
        "{warnings}"
    );
    assert_eq!(warnings.as_array().map(Vec::len), Some(2));
    // A better one is looked at again.
    let better = json!([{"op": "replace", "path": "/spec/validations", "value": [{"expression": "object.spec != null"}]}]);
    let (status, _) = r.send(Method::PATCH, &at, "application/json-patch+json", &better.to_string()).await;
    assert_eq!(status, 200);
    r.until(&at, |o| o["status"]["observedGeneration"] == 2).await;
    assert_eq!(r.get(&at).await["status"]["typeChecking"], json!({}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_keep_the_version_they_wrote_in() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let apply = |version: &'static str, mut o: Value, more: &str| {
        let path = format!("{}/a?fieldManager=a{more}", scalers(version));
        o["apiVersion"] = format!("autoscaling/{version}").into();
        o["kind"] = "HorizontalPodAutoscaler".into();
        let r = &r;
        async move { r.send(Method::PATCH, &path, "application/apply-patch+yaml", &o.to_string()).await }
    };
    let mut first = scaler("a", 60);
    let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 50}}});
    first["spec"]["metrics"].as_array_mut().expect("metrics").push(memory);
    first["spec"]["behavior"] = json!({"scaleDown": {"stabilizationWindowSeconds": 5}});
    let (status, o) = apply("v2", first.clone(), "").await;
    assert_eq!(status, 201, "{o}");
    let patch = |manager: &str, spec: Value| {
        let path = format!("{}/a?fieldManager={manager}", scalers("v1"));
        let (r, body) = (&r, json!({"spec": spec}).to_string());
        async move { r.send(Method::PATCH, &path, "application/merge-patch+json", &body).await }
    };
    assert_eq!(patch("b", json!({"maxReplicas": 9})).await.0, 200);
    let (status, o) = patch("c", json!({"targetCPUUtilizationPercentage": 33})).await;
    assert_eq!(status, 200, "{o}");
    let managers = o["metadata"]["managedFields"].as_array().expect("managers");
    let of = |name: &str| managers.iter().find(|m| m["manager"] == name).unwrap_or(&Value::Null);
    assert_eq!(
        (&of("a")["apiVersion"], &of("b")["apiVersion"]),
        (&json!("autoscaling/v2"), &json!("autoscaling/v1"))
    );
    assert_eq!(of("b")["fieldsV1"], json!({"f:spec": {"f:maxReplicas": {}}}), "{o}");
    assert_eq!(of("c")["fieldsV1"], json!({"f:spec": {"f:targetCPUUtilizationPercentage": {}}}), "{o}");
    // What v1 has no fields for is kept.
    let now = r.get(&format!("{}/a", scalers("v2"))).await;
    assert_eq!(now["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 5, "{now}");
    assert_eq!(now["spec"]["metrics"][0]["resource"]["name"], "memory", "{now}");
    let (status, refused) = apply("v2", first.clone(), "").await;
    assert_eq!(status, 409, "{refused}");
    let message = refused["message"].as_str().expect("a message");
    for said in [
        "Apply failed with 2 conflicts: ",
        "conflict with \"b\" using autoscaling/v1: .spec.maxReplicas",
        "conflict with \"c\" using autoscaling/v1: .spec.targetCPUUtilizationPercentage",
    ] {
        assert!(message.contains(said), "{message}");
    }
    let (status, o) = apply("v2", first, "&force=true").await;
    assert_eq!(status, 200, "{o}");
    let managers = o["metadata"]["managedFields"].as_array().expect("managers");
    assert_eq!(managers.len(), 1, "nothing is left to the others: {o}");
    // The same manager in another version: its fields are told in that one from now on.
    let old = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 4, "targetCPUUtilizationPercentage": 60,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let (status, o) = apply("v1", old, "").await;
    assert_eq!(status, 200, "{o}");
    assert_eq!(o["metadata"]["managedFields"][0]["apiVersion"], "autoscaling/v1", "{o}");
    assert_eq!(o["spec"]["maxReplicas"], 4, "{o}");
}
