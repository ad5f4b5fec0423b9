//! Admission by expressions.

use http::Method;
use serde_json::{Value, json};

use crate::cluster;
use crate::crd::Raw;

const GROUP: &str = "/apis/admissionregistration.k8s.io";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn policy(name: &str, spec: Value) -> Value {
    let mut o = json!({"metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}]}}});
    for (k, v) in spec.as_object().expect("a spec") {
        o["spec"][k] = v.clone();
    }
    o
}

async fn bind(r: &Raw, version: &str, kind: &str, policy: &str, spec: Value) {
    let mut o = json!({"metadata": {"name": format!("{policy}-binding")}, "spec": {"policyName": policy}});
    for (k, v) in spec.as_object().expect("a spec") {
        o["spec"][k] = v.clone();
    }
    let (status, body) = r.post(&format!("{GROUP}/{version}/{kind}"), &o).await;
    assert_eq!(status, 201, "{body}");
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validating_policies_refuse_warn_and_take_parameters() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let path = format!("{GROUP}/v1/validatingadmissionpolicies");
    let (status, body) = r
        .post(&path, &policy("small", json!({
            "matchConditions": [{"name": "not-system", "expression": "!object.metadata.name.startsWith('kube-')"}],
            "variables": [{"name": "size", "expression": "has(object.data) ? object.data.size() : 0"}],
            "validations": [
                {"expression": "variables.size <= 1", "messageExpression": "'too many keys: ' + string(variables.size)"},
                {"expression": "authorizer.group('').resource('secrets').namespace('default').check('list').allowed()", "reason": "Forbidden"},
            ],
        })))
        .await;
    assert_eq!(status, 201, "{body}");
    bind(&r, "v1", "validatingadmissionpolicybindings", "small", json!({"validationActions": ["Deny"]}))
        .await;
    let (status, refused) = r.post(MAPS, &map("a", json!({"a": "1", "b": "2"}))).await;
    assert_eq!(status, 422, "{refused}");
    assert_eq!(
        refused["message"],
        "configmaps \"a\" is forbidden: ValidatingAdmissionPolicy 'small' with binding 'small-binding' denied request: too many keys: 2"
    );
    assert_eq!(refused["reason"], "Invalid");
    assert_eq!(r.post(MAPS, &map("a", json!({"a": "1"}))).await.0, 201);
    assert_eq!(r.post(MAPS, &map("kube-a", json!({"a": "1", "b": "2"}))).await.0, 201);
    // With parameters, and only a warning.
    let (status, body) = r
        .post(&path, &policy("limited", json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "validations": [{"expression": "!has(object.data) || object.data.all(k, k in params.data)"}],
        })))
        .await;
    assert_eq!(status, 201, "{body}");
    let reference = json!({"name": "kube-a", "parameterNotFoundAction": "Deny"});
    bind(
        &r,
        "v1",
        "validatingadmissionpolicybindings",
        "limited",
        json!({"validationActions": ["Warn"], "paramRef": reference}),
    )
    .await;
    let (status, headers, _) = r
        .full(
            Method::POST,
            MAPS,
            &[("content-type", "application/json")],
            &map("b", json!({"c": "1"})).to_string(),
        )
        .await;
    assert_eq!(status, 201);
    assert_eq!(
        headers["warning"],
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'limited' with binding 'limited-binding': failed expression: !has(object.data) || object.data.all(k, k in params.data)\""
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expressions_that_are_wrong_are_refused() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let path = format!("{GROUP}/v1/validatingadmissionpolicies");
    let (status, refused) =
        r.post(&path, &policy("p", json!({"validations": [{"expression": "request.nope == 1"}]}))).await;
    assert_eq!(status, 422);
    assert_eq!(
        refused["message"],
        "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"p\" is invalid: spec.validations[0].expression: Invalid value: \"request.nope == 1\": compilation failed: ERROR: <input>:1:8: undefined field 'nope'\n | request.nope == 1\n | .......^"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutating_policies_apply_and_patch() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let path = format!("{GROUP}/v1beta1/mutatingadmissionpolicies");
    let (status, body) = r
        .post(&path, &policy("labels", json!({
            "reinvocationPolicy": "Never",
            "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                    "Object{metadata: Object.metadata{labels: {'made-by': request.userInfo.username}}}"}},
                {"patchType": "JSONPatch", "jsonPatch": {"expression":
                    "[JSONPatch{op: 'add', path: '/data/extra', value: 'yes'}]"}},
            ],
        })))
        .await;
    assert_eq!(status, 201, "{body}");
    bind(&r, "v1beta1", "mutatingadmissionpolicybindings", "labels", json!({})).await;
    let (status, made) = r.post(MAPS, &map("a", json!({"a": "1"}))).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["metadata"]["labels"], json!({"made-by": "admin"}));
    assert_eq!(made["data"], json!({"a": "1", "extra": "yes"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_are_asked_where_their_conditions_hold() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let path = format!("{GROUP}/v1/validatingwebhookconfigurations");
    let hook = |expression: &str| {
        json!({"metadata": {"name": "v"}, "webhooks": [{
            "name": "nobody.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "matchConditions": [{"name": "asked", "expression": expression}],
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}],
        }]})
    };
    let (status, refused) = r.post(&path, &hook("object.metadata")).await;
    assert_eq!(status, 201, "what may be anything is judged when it is there: {refused}");
    let (status, _) = r.send(Method::DELETE, &format!("{path}/v"), "application/json", "").await;
    assert_eq!(status, 200);
    let (status, refused) = r.post(&path, &hook("request.name + 1")).await;
    assert_eq!(status, 422, "{refused}");
    let (status, made) = r.post(&path, &hook("object.metadata.name == 'asked'")).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(r.post(MAPS, &map("other", json!({}))).await.0, 201);
    let (status, refused) = r.post(MAPS, &map("asked", json!({}))).await;
    let said = refused["message"].as_str().unwrap_or_default();
    assert!(status == 500 && said.contains("failed calling webhook \"nobody.example.com\""), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admission_and_lists_are_counted() {
    let c = cluster().await;
    let r = Raw::of(&c);
    assert_eq!(r.post(MAPS, &map("a", json!({}))).await.0, 201);
    r.get(MAPS).await;
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
    let text = c.client().request_text(request).await.expect("metrics");
    for line in [
        "apiserver_admission_step_admission_duration_seconds_count{type=\"admit\",operation=\"CREATE\",rejected=\"false\"}",
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"ValidatingAdmissionPolicy\",type=\"validate\",operation=\"CREATE\",rejected=\"false\"}",
        "apiserver_cache_list_total{group=\"\",resource=\"configmaps\",index=\"namespace\"}",
        "apiserver_cache_list_returned_objects_total{group=\"\",resource=\"configmaps\"}",
        "apiserver_watch_cache_consistent_read_total{group=\"\",resource=\"configmaps\",success=\"true\",fallback=\"false\"}",
        "apiserver_watch_cache_resource_version{group=\"\",resource=\"configmaps\"}",
        "apiserver_flowcontrol_request_wait_duration_seconds_count{priority_level=\"exempt\",flow_schema=\"exempt\",execute=\"true\"}",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
