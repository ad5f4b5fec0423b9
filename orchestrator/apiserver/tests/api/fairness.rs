//! Priority and fairness: a flood is refused, and nobody else feels it. Counts, not times.

use apimachinery::user::UserInfo;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::{Cluster, cluster, from, status};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

fn api(c: &Cluster, kind: &str, plural: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: GROUP.to_owned(),
        version: "v1".to_owned(),
        api_version: format!("{GROUP}/v1"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    Api::all_with(c.client(), &resource)
}

fn level(name: &str, spec: &Value) -> DynamicObject {
    from(json!({"apiVersion": format!("{GROUP}/v1"), "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name}, "spec": spec}))
}

fn schema(name: &str, level: &str, user: &str) -> DynamicObject {
    let rule = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true});
    let subject = json!({"kind": "User", "user": {"name": user}});
    from(
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema", "metadata": {"name": name}, "spec": {
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": 50,
        "distinguisherMethod": {"type": "ByUser"}, "rules": [{"subjects": [subject], "resourceRules": [rule]}]}}),
    )
}

#[tokio::test]
async fn every_cluster_has_upstreams_levels() {
    let c = cluster().await;
    let levels = api(&c, "PriorityLevelConfiguration", "prioritylevelconfigurations");
    let all = levels.list(&ListParams::default()).await.expect("levels").items;
    let names: Vec<_> = all.iter().filter_map(|l| l.metadata.name.as_deref()).collect();
    let expect = [
        "catch-all",
        "exempt",
        "global-default",
        "leader-election",
        "node-high",
        "system",
        "workload-high",
        "workload-low",
    ];
    assert_eq!(names, expect);
    let schemas = api(&c, "FlowSchema", "flowschemas").list(&ListParams::default()).await.expect("schemas");
    assert_eq!(schemas.items.len(), 13);
}

#[tokio::test]
async fn flow_control_objects_are_checked() {
    let c = cluster().await;
    let levels = api(&c, "PriorityLevelConfiguration", "prioritylevelconfigurations");
    let made = levels
        .create(
            &PostParams::default(),
            &level(
                "l",
                &json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}),
            ),
        )
        .await
        .expect("a level");
    assert_eq!(
        made.data["spec"]["limited"],
        json!({"limitResponse": {"type": "Queue", "queuing": {"queues": 64, "handSize": 8, "queueLengthLimit": 50}},
            "nominalConcurrencyShares": 30, "lendablePercent": 0})
    );
    let bad = level("b", &json!({"type": "Sometimes"}));
    let e = levels.create(&PostParams::default(), &bad).await.expect_err("no such type");
    let expect = format!(
        "PriorityLevelConfiguration.{GROUP} \"b\" is invalid: spec.type: Unsupported value: \"Sometimes\": supported values: \"Exempt\", \"Limited\""
    );
    assert_eq!(status(e), (422, "Invalid".to_owned(), expect));
    let mut first = schema("first", "l", "eve");
    first.data["spec"]["matchingPrecedence"] = 1.into();
    let schemas = api(&c, "FlowSchema", "flowschemas");
    let (code, _, message) = status(schemas.create(&PostParams::default(), &first).await.expect_err("taken"));
    assert!(
        code == 422 && message.contains("only the schema named 'exempt' may have matchingPrecedence 1"),
        "{message}"
    );
}

async fn send(c: &Cluster, user: &str, method: &str, path: &str, body: Body) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let router = c.server.in_process(UserInfo::new(user, &[]));
    router.oneshot(request.body(body).expect("a request")).await.expect("an answer")
}

#[tokio::test]
async fn a_flood_is_refused_and_nobody_else_feels_it() {
    let c = cluster().await;
    let levels = api(&c, "PriorityLevelConfiguration", "prioritylevelconfigurations");
    // One share of 246 of 600 seats is three.
    let queuing = json!({"queues": 8, "handSize": 2, "queueLengthLimit": 2});
    let tiny = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 1,
        "limitResponse": {"type": "Queue", "queuing": queuing}}});
    let tiny = levels.create(&PostParams::default(), &level("tiny", &tiny)).await.expect("a level");
    let schemas = api(&c, "FlowSchema", "flowschemas");
    let of_eve =
        schemas.create(&PostParams::default(), &schema("eve", "tiny", "eve")).await.expect("a schema");
    schemas.create(&PostParams::default(), &schema("bob", "tiny", "bob")).await.expect("a schema");
    let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> = Api::namespaced(c.client(), "default");
    for user in ["eve", "bob"] {
        let admin = json!({"metadata": {"name": user}, "subjects": [{"kind": "User", "name": user}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"}});
        bindings.create(&PostParams::default(), &from(admin)).await.expect("bound");
    }

    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    // Eve takes the three seats with bodies that do not end…
    let c = std::sync::Arc::new(c);
    let (mut slow, mut ends) = (JoinSet::new(), Vec::new());
    for i in 0..3 {
        let (end, ended) = oneshot::channel::<()>();
        let (asked, reading) = oneshot::channel::<()>();
        let text = json!({"metadata": {"name": format!("slow-{i}")}}).to_string();
        let body = futures::stream::once(async move {
            asked.send(()).expect("the test waits");
            ended.await.expect("the test goes on");
            Ok::<_, std::convert::Infallible>(Bytes::from(text))
        });
        let c = c.clone();
        slow.spawn(async move { send(&c, "eve", "POST", MAPS, Body::from_stream(body)).await.status() });
        ends.push(end);
        reading.await.expect("the body is being read: it has its seat");
    }
    // …and then sends a hundred more: her hand is two queues of two, the rest is refused at once.
    let mut flood = JoinSet::new();
    for _ in 0..100 {
        let c = c.clone();
        flood.spawn(async move {
            let r = send(&c, "eve", "GET", MAPS, Body::empty()).await;
            let header = |n: &str| r.headers().get(n).and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned();
            let uids =
                (header("x-kubernetes-pf-flowschema-uid"), header("x-kubernetes-pf-prioritylevel-uid"));
            (r.status().as_u16(), header("retry-after"), uids)
        });
    }
    let mut refused = 0;
    while refused < 96 {
        let (code, retry, uids) = flood.join_next().await.expect("an answer").expect("no panic");
        assert_eq!((code, retry.as_str()), (429, "1"));
        assert_eq!(uids.0, of_eve.metadata.uid.clone().expect("a uid"));
        assert_eq!(uids.1, tiny.metadata.uid.clone().expect("a uid"));
        refused += 1;
    }
    assert_eq!(flood.len(), 4);
    // Others are in other levels, and administrators in none.
    for user in ["carol", "system:kube-scheduler"] {
        let code = send(&c, user, "GET", "/api/v1/namespaces", Body::empty()).await.status();
        assert_ne!(code, 429, "{user}");
    }
    levels.list(&ListParams::default()).await.expect("an administrator's list");
    // Bob is in the same level: he waits for a seat, in a queue that is not Eve's.
    let bob = {
        let c = c.clone();
        telemetry::task::spawn(
            "bob",
            async move { send(&c, "bob", "GET", MAPS, Body::empty()).await.status() },
        )
    };
    for end in ends {
        end.send(()).expect("the body is waiting");
    }
    assert_eq!(bob.await.expect("no panic"), 200);
    while let Some(code) = slow.join_next().await {
        assert_eq!(code.expect("no panic"), 201);
    }
    while let Some(answer) = flood.join_next().await {
        assert_ne!(answer.expect("no panic").0, 429, "who waited was served");
    }
}

#[tokio::test]
async fn schemas_say_whether_their_level_is_there() {
    let c = cluster().await;
    let r = crate::crd::Raw::of(&c);
    let base = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let conditions = |o: &Value| o["status"]["conditions"][0].clone();
    let own = conditions(&r.get(&format!("{base}/flowschemas/probes")).await);
    assert_eq!(
        (&own["type"], &own["status"], &own["reason"]),
        (&json!("Dangling"), &json!("False"), &json!("Found"))
    );
    let schema =
        json!({"metadata": {"name": "mine"}, "spec": {"priorityLevelConfiguration": {"name": "mine"}}});
    let (status, body) = r.post(&format!("{base}/flowschemas"), &schema).await;
    assert_eq!(status, 201, "{body}");
    let path = format!("{base}/flowschemas/mine");
    r.until(&path, |o| conditions(o)["status"] == "True").await;
    let words = "This FlowSchema references the PriorityLevelConfiguration object named \"mine\"";
    let said = conditions(&r.get(&path).await);
    assert_eq!(
        (&said["reason"], &said["message"]),
        (&json!("NotFound"), &json!(format!("{words} but there is no such object")))
    );
    let level = json!({"metadata": {"name": "mine"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}});
    let (status, body) = r.post(&format!("{base}/prioritylevelconfigurations"), &level).await;
    assert_eq!(status, 201, "{body}");
    r.until(&path, |o| conditions(o)["message"] == format!("{words} and it exists")).await;
}
