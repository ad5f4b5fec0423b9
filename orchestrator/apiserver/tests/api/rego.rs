//! Policies in Rego.

use serde_json::{Value, json};

use crate::{Cluster, cluster};

async fn send(c: &Cluster, method: &str, path: &str, o: Value) -> (u16, Value, Vec<String>) {
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let router = c.server.in_process(apimachinery::user::UserInfo::new("jane", &["system:masters"]));
    let body = axum::body::Body::from(o.to_string());
    let req = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    let answer = router.oneshot(req.body(body).expect("a request")).await.expect("an answer");
    let (parts, body) = answer.into_parts();
    let warnings = parts.headers.get_all("warning").iter().map(|w| w.to_str().expect("text").to_owned());
    let warnings = warnings.collect();
    let bytes = body.collect().await.expect("a body").to_bytes();
    (parts.status.as_u16(), serde_json::from_slice(&bytes).expect("JSON"), warnings)
}

const POLICIES: &str = "/apis/policy.binnacle.io/v1alpha1/regopolicies";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn policy(name: &str, rego: &str) -> Value {
    json!({"apiVersion": "policy.binnacle.io/v1alpha1", "kind": "RegoPolicy", "metadata": {"name": name}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE", "DELETE"], "resources": ["configmaps"]}]},
        "rego": rego}})
}

fn map(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}})
}

#[tokio::test]
async fn rego_refuses_and_warns() {
    let c = cluster().await;
    let rego = "package team\n\
        deny contains msg if {\n  input.request.operation == \"CREATE\"\n  not input.request.object.metadata.labels.team\n  msg := sprintf(\"%s: %s has no team\", [input.request.userInfo.username, input.request.name])\n}\n\
        deny contains \"it is kept\" if {\n  input.request.operation == \"DELETE\"\n  input.request.oldObject.metadata.labels.keep == \"yes\"\n}\n\
        warn contains \"the red team is on holiday\" if input.request.object.metadata.labels.team == \"red\"\n";
    let (code, made, _) = send(&c, "POST", POLICIES, policy("teams", rego)).await;
    assert_eq!((code, &made["spec"]["failurePolicy"]), (201, &json!("Fail")), "{made}");
    let (code, refused, _) = send(&c, "POST", MAPS, map("a", json!({}))).await;
    assert_eq!((code, &refused["reason"]), (403, &json!("Forbidden")));
    assert_eq!(
        refused["message"],
        "configmaps \"a\" is forbidden: RegoPolicy 'teams' denied request: jane: a has no team"
    );
    let (code, _, warnings) = send(&c, "POST", MAPS, map("a", json!({"team": "red", "keep": "yes"}))).await;
    assert_eq!(code, 201);
    assert_eq!(warnings, ["299 - \"RegoPolicy 'teams': the red team is on holiday\""]);
    let (code, refused, _) = send(&c, "DELETE", &format!("{MAPS}/a"), json!({})).await;
    assert_eq!((code, refused["message"].as_str().expect("a message").ends_with("it is kept")), (403, true));
    // Other kinds are not its business, and neither is the policy itself.
    let (code, ..) = send(&c, "POST", "/api/v1/namespaces/default/secrets", map("a", json!({}))).await;
    assert_eq!(code, 201);
    let (code, ..) = send(&c, "DELETE", &format!("{POLICIES}/teams"), json!({})).await;
    assert_eq!(code, 200);
    let (code, ..) = send(&c, "DELETE", &format!("{MAPS}/a"), json!({})).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn a_policy_is_read_when_it_is_written_and_has_its_time() {
    let c = cluster().await;
    let (code, refused, _) =
        send(&c, "POST", POLICIES, policy("broken", "package a\ndeny contains msg if { msg := }")).await;
    let message = refused["message"].as_str().expect("a message");
    assert_eq!(code, 422, "{message}");
    let expect =
        "RegoPolicy.policy.binnacle.io \"broken\" is invalid: spec.rego: Invalid value: compilation failed: ";
    assert!(message.starts_with(expect), "{message}");
    let mut bare = policy("bare", "");
    bare["spec"]["matchConstraints"] = json!({});
    let (_, refused, _) = send(&c, "POST", POLICIES, bare).await;
    assert_eq!(
        refused["message"],
        "RegoPolicy.policy.binnacle.io \"bare\" is invalid: [spec.matchConstraints.resourceRules: Required value, spec.rego: Required value]"
    );
    let endless = "package a\ndeny contains \"x\" if {\n input.request\n some i in numbers.range(1, 20000)\n some j in numbers.range(1, 20000)\n i * j == -1\n}";
    let (code, made, _) = send(&c, "POST", POLICIES, policy("endless", endless)).await;
    assert_eq!(code, 201, "{made}");
    let (code, refused, _) = send(&c, "POST", MAPS, map("b", json!({}))).await;
    assert_eq!(code, 403);
    let message = refused["message"].as_str().expect("a message");
    assert!(
        message.contains("RegoPolicy 'endless' denied request: ") && message.contains("time limit"),
        "{message}"
    );
    let mut mild = made;
    mild["spec"]["failurePolicy"] = "Ignore".into();
    let (code, ..) = send(&c, "PUT", &format!("{POLICIES}/endless"), mild).await;
    assert_eq!(code, 200);
    let (code, ..) = send(&c, "POST", MAPS, map("b", json!({}))).await;
    assert_eq!(code, 201);
}
