//! `resize` of a pod, and what protects volumes in use.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::{cluster, from, status};

#[tokio::test]
async fn resources_change_through_their_own_door() {
    let c = cluster().await;
    c.account().await;
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    let resources = json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m"}});
    let pod: Pod = from(json!({"metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "busybox:1", "resources": resources}]}}));
    let made = pods.create(&PostParams::default(), &pod).await.expect("made");
    let patch = |resources: Value| {
        Patch::Strategic(
            json!({"spec": {"containers": [{"name": "c", "image": "other:1", "resources": resources}]}}),
        )
    };
    let direct = pods.patch("p", &PatchParams::default(), &patch(json!({"requests": {"cpu": "150m"}}))).await;
    assert!(status(direct.expect_err("refused")).2.contains("pod updates may not change fields other than"));
    let resized = |resources: Value| {
        let (pods, patch) = (pods.clone(), patch(resources));
        async move { pods.patch_subresource("resize", "p", &PatchParams::default(), &patch).await }
    };
    let now =
        resized(json!({"requests": {"cpu": "150m"}, "limits": {"cpu": "300m"}})).await.expect("resized");
    let spec = now.spec.as_ref().expect("a spec");
    let r = spec.containers[0].resources.as_ref().expect("resources");
    let amount =
        |m: &Option<
            std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
        >,
         k: &str| { m.as_ref().and_then(|m| m.get(k)).map(|q| q.0.clone()).unwrap_or_default() };
    assert_eq!(
        (amount(&r.requests, "cpu"), amount(&r.limits, "cpu"), amount(&r.requests, "memory")),
        ("150m".to_owned(), "300m".to_owned(), "64Mi".to_owned())
    );
    assert_eq!(
        spec.containers[0].image.as_deref(),
        Some("busybox:1"),
        "nothing else comes through this door"
    );
    assert!(now.metadata.generation > made.metadata.generation);
    let check = |resources: Value, expect: &'static str| {
        let refused = resized(resources);
        async move {
            let (code, _, message) = status(refused.await.expect_err(expect));
            assert!(code == 422 && message.contains(expect), "{message}");
        }
    };
    check(
        json!({"limits": {"example.com/gpu": "1"}, "requests": {"example.com/gpu": "1"}}),
        "only cpu and memory resources are mutable",
    )
    .await;
    check(json!({"limits": {"cpu": null}}), "resource limits cannot be removed").await;
    check(
        json!({"requests": {"cpu": "300m"}, "limits": {"memory": "64Mi"}}),
        "Pod QOS Class may not change as a result of resizing",
    )
    .await;
}

#[tokio::test]
async fn a_claim_waits_for_whoever_lets_it_go() {
    let c = cluster().await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(c.client(), "default");
    let claim: PersistentVolumeClaim = from(json!({"metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}));
    let made = claims.create(&PostParams::default(), &claim).await.expect("made");
    assert_eq!(made.finalizers(), ["kubernetes.io/pvc-protection"]);
    claims.delete("data", &DeleteParams::default()).await.expect("marked");
    let there = claims.get("data").await.expect("still there");
    assert!(there.metadata.deletion_timestamp.is_some());
    let patch = json!({"metadata": {"finalizers": []}});
    claims.patch("data", &PatchParams::default(), &Patch::Merge(patch)).await.expect("let go");
    assert!(claims.get_opt("data").await.expect("asked").is_none());
}
