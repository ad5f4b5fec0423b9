//! Bodies that want to hurt: refused with a Status that says why, nothing lost, and the server goes on.

use apimachinery::user::UserInfo;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{Cluster, cluster, from};

async fn post(c: &Cluster, media: &str, body: impl Into<Body>) -> (u16, Value) {
    let request = Request::post("/api/v1/namespaces/default/configmaps").header("content-type", media);
    let router = c.server.in_process(UserInfo::new("admin", &["system:masters"]));
    let answer = router.oneshot(request.body(body.into()).expect("a request")).await.expect("an answer");
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.expect("its body").to_bytes();
    (code, serde_json::from_slice(&bytes).expect("a Status is JSON"))
}

fn nested(levels: usize, open: &str, close: &str) -> String {
    format!(r#"{{"metadata":{{"name":"deep"}},"data":{}1{}}}"#, open.repeat(levels), close.repeat(levels))
}

#[tokio::test]
async fn hostile_bodies_are_refused_and_nothing_is_lost() {
    let c = cluster().await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    let kept: ConfigMap = from(json!({"metadata": {"name": "kept"}, "data": {"k": "v"}}));
    let kept = maps.create(&PostParams::default(), &kept).await.expect("created");

    let check = |what: &str, (code, said): (u16, Value), expect: u16| {
        assert_eq!(code, expect, "{what}: {said}");
        assert_eq!((&said["kind"], &said["status"]), (&"Status".into(), &"Failure".into()), "{what}");
        assert!(
            said["message"].as_str().is_some_and(|m| !m.is_empty() && m.len() < 10_000),
            "{what}: {said}"
        );
    };
    const JSON: &str = "application/json";
    const YAML: &str = "application/yaml";
    check("10 MB", post(&c, JSON, vec![b' '; 10 << 20]).await, 413);
    let big = json!({"metadata": {"name": "big"}, "data": {"k": "x".repeat(2 << 20)}}).to_string();
    check("2 MB in one object", post(&c, JSON, big).await, 422);
    for levels in [100, 100_000] {
        check("deep objects", post(&c, JSON, nested(levels, "{\"a\":", "}")).await, 400);
        check("deep lists", post(&c, JSON, nested(levels, "[", "]")).await, 400);
        check("deep YAML", post(&c, YAML, nested(levels, "[", "]")).await, 400);
    }
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let one = format!("*a{}", i - 1);
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![one; 10].join(", ")));
    }
    check("a YAML bomb", post(&c, YAML, bomb).await, 400);
    check("half of a JSON", post(&c, JSON, "{\"metadata\":").await, 400);
    check("no UTF-8", post(&c, YAML, vec![0xff, 0xfe, 0x00]).await, 400);
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    for bytes in [b"".as_slice(), b"k8s", b"k8s\0", b"k8s\0\xff\xff\xff\xff\xff\xff", b"nonsense", &[0; 4096]]
    {
        let (code, said) = post(&c, PROTOBUF, bytes.to_vec()).await;
        assert!(matches!(code, 400 | 415), "{said}");
    }

    let again = maps.get("kept").await.expect("still there");
    assert_eq!(again.metadata.resource_version, kept.metadata.resource_version);
}
