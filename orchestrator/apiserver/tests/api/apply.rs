//! Server-side apply.

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use crate::{cluster, deployment, status};

#[tokio::test]
async fn appliers_own_their_fields() {
    let c = cluster().await;
    let all: Api<Deployment> = Api::namespaced(c.client(), "default");
    let mut d = serde_json::to_value(deployment("web")).expect("json");
    d["spec"]["replicas"] = 2.into();
    d["metadata"]["labels"] = json!({"a": "1"});
    let ours = PatchParams::apply("ours");
    let made = all.patch("web", &ours, &Patch::Apply(&d)).await.expect("applied");
    let again = all.patch("web", &ours, &Patch::Apply(&d)).await.expect("applied again");
    assert_eq!(made.resource_version(), again.resource_version());
    let theirs = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 5}});
    let e = status(
        all.patch("web", &PatchParams::apply("theirs"), &Patch::Apply(&theirs))
            .await
            .expect_err("a conflict"),
    );
    assert_eq!(e.2, "Apply failed with 1 conflict: conflict with \"ours\": .spec.replicas");
    all.patch("web", &PatchParams::apply("theirs").force(), &Patch::Apply(&theirs)).await.expect("forced");
    d["spec"].as_object_mut().expect("a spec").remove("replicas");
    d["metadata"].as_object_mut().expect("metadata").remove("labels");
    let d = all.patch("web", &ours, &Patch::Apply(&d)).await.expect("applied with less");
    assert_eq!(d.spec.and_then(|s| s.replicas), Some(5), "the other manager's field stays");
    assert_eq!(d.metadata.labels, None, "what nobody names any more goes");
}
