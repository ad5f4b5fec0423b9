//! Pods, workloads and services.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Binding, Pod, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::{cluster, deployment, from, pod, status};

#[tokio::test]
async fn pods_are_defaulted_bound_and_deleted_gracefully() {
    let c = cluster().await;
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    let (code, _, message) =
        status(pods.create(&PostParams::default(), &pod("early")).await.expect_err("no account"));
    assert_eq!(code, 403);
    assert!(message.contains("error looking up service account default/default"), "{message}");
    c.account().await;
    let p = pods.create(&PostParams::default(), &pod("a")).await.expect("created");
    let spec = p.spec.expect("a spec");
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    assert_eq!(spec.tolerations.map(|t| t.len()), Some(2));
    assert!(spec.volumes.expect("volumes")[0].name.starts_with("kube-api-access-"));
    assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("IfNotPresent"));
    assert_eq!(p.status.expect("a status").qos_class.as_deref(), Some("BestEffort"));

    let binding: Binding = from(json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}}));
    pods.create_subresource::<Binding, Value>("binding", "a", &PostParams::default(), &binding)
        .await
        .expect("bound");
    let p = pods.get("a").await.expect("the pod");
    assert_eq!(p.spec.as_ref().and_then(|s| s.node_name.as_deref()), Some("n1"));
    assert_eq!(
        p.status.as_ref().and_then(|s| s.conditions.as_ref()).map(|c| c[0].type_.as_str()),
        Some("PodScheduled")
    );

    let image = json!({"spec": {"containers": [{"name": "c", "image": "busybox:2"}]}});
    pods.patch("a", &PatchParams::default(), &Patch::Strategic(&image)).await.expect("a new image");
    let node = json!({"spec": {"dnsPolicy": "Default"}});
    let e =
        status(pods.patch("a", &PatchParams::default(), &Patch::Merge(&node)).await.expect_err("immutable"));
    assert_eq!(e.0, 422);

    let deleting =
        pods.delete("a", &DeleteParams::default()).await.expect("marked").left().expect("still there");
    assert_eq!(deleting.metadata.deletion_grace_period_seconds, Some(30));
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete("a", &now).await.expect("gone");
    assert_eq!(status(pods.get("a").await.expect_err("gone")).0, 404);

    pods.create(&PostParams::default(), &pod("free")).await.expect("created");
    pods.delete("free", &DeleteParams::default()).await.expect("unbound pods go at once");
    assert_eq!(status(pods.get("free").await.expect_err("gone")).0, 404);
}

#[tokio::test]
async fn workloads_scale_and_refuse_nonsense() {
    let c = cluster().await;
    let all: Api<Deployment> = Api::namespaced(c.client(), "default");
    let d = all.create(&PostParams::default(), &deployment("web")).await.expect("created");
    assert_eq!(d.metadata.generation, Some(1));
    let spec = d.spec.expect("a spec");
    assert_eq!(
        (spec.replicas, spec.revision_history_limit, spec.progress_deadline_seconds),
        (Some(1), Some(10), Some(600))
    );
    let p = Patch::Merge(json!({"spec": {"replicas": 4}}));
    let scale = all.patch_scale("web", &PatchParams::default(), &p).await.expect("scaled");
    assert_eq!(scale.spec.and_then(|s| s.replicas), Some(4));
    assert_eq!(
        all.get_scale("web").await.expect("a scale").status.and_then(|s| s.selector).as_deref(),
        Some("app=web")
    );
    let d = all.get("web").await.expect("the deployment");
    assert_eq!(d.metadata.generation, Some(2));
    let s = Patch::Merge(json!({"status": {"replicas": 4}, "spec": {"replicas": 9}}));
    let d = all.patch_status("web", &PatchParams::default(), &s).await.expect("a status");
    assert_eq!((d.metadata.generation, d.spec.and_then(|s| s.replicas)), (Some(2), Some(4)));
    assert_eq!(d.status.and_then(|s| s.replicas), Some(4));

    let mut bad = deployment("bad");
    bad.spec.as_mut().expect("a spec").selector.match_labels =
        Some([("app".to_owned(), "other".to_owned())].into());
    let (code, reason, message) =
        status(all.create(&PostParams::default(), &bad).await.expect_err("invalid"));
    assert_eq!((code, &*reason), (422, "Invalid"));
    assert!(
        message.contains("Deployment.apps \"bad\" is invalid: spec.template.metadata.labels: Invalid value"),
        "{message}"
    );
    assert!(message.contains("`selector` does not match template `labels`"), "{message}");
}

#[tokio::test]
async fn services_get_addresses_that_no_other_has() {
    let c = cluster().await;
    let all: Api<Service> = Api::namespaced(c.client(), "default");
    let kubernetes = all.get("kubernetes").await.expect("the first service");
    assert_eq!(kubernetes.spec.and_then(|s| s.cluster_ip).as_deref(), Some("10.43.0.1"));
    let make = |i: usize| {
        let all = all.clone();
        async move {
            let s: Service = from(
                json!({"metadata": {"name": format!("s{i}")}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}),
            );
            all.create(&PostParams::default(), &s).await.expect("created").spec.expect("a spec")
        }
    };
    let specs = futures::future::join_all((0..20).map(make)).await;
    let ips: std::collections::HashSet<_> = specs.iter().filter_map(|s| s.cluster_ip.clone()).collect();
    let ports: std::collections::HashSet<_> =
        specs.iter().flat_map(|s| s.ports.iter().flatten().filter_map(|p| p.node_port)).collect();
    assert_eq!((ips.len(), ports.len()), (20, 20));
    let taken = ips.iter().next().expect("one");
    let s: Service =
        from(json!({"metadata": {"name": "again"}, "spec": {"clusterIP": taken, "ports": [{"port": 80}]}}));
    let e = status(all.create(&PostParams::default(), &s).await.expect_err("taken"));
    assert!(e.2.contains("provided IP is already allocated"), "{}", e.2);
}

#[tokio::test]
async fn ephemeral_containers_come_and_never_go() {
    let c = cluster().await;
    c.account().await;
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    pods.create(&PostParams::default(), &pod("a")).await.expect("created");
    let guest = json!({"spec": {"ephemeralContainers": [{"name": "g", "image": "busybox:1", "targetContainerName": "c"}]}});
    let strategic = |patch: &Value| Patch::Strategic(patch.clone());
    let params = PatchParams::default();
    let e = status(pods.patch("a", &params, &strategic(&guest)).await.expect_err("not on the pod itself"));
    assert_eq!(e.0, 422, "{e:?}");
    let p = pods.patch_ephemeral_containers("a", &params, &strategic(&guest)).await.expect("added");
    let list = p.spec.and_then(|s| s.ephemeral_containers).expect("a guest");
    assert_eq!((list.len(), list[0].image_pull_policy.as_deref()), (1, Some("IfNotPresent")));

    let more = json!({"spec": {"ephemeralContainers": [{"name": "h", "image": "busybox:1"}]}, "metadata": {"labels": {"not": "here"}}});
    let p = pods.patch_ephemeral_containers("a", &params, &strategic(&more)).await.expect("merged by name");
    assert_eq!(p.spec.and_then(|s| s.ephemeral_containers).map(|l| l.len()), Some(2));
    assert!(!p.metadata.labels.unwrap_or_default().contains_key("not"), "nothing but the containers");

    for (list, says) in [
        (json!([]), "existing ephemeral containers \"g\" may not be removed"),
        (
            json!([{"name": "g", "image": "other:1"}, {"name": "h", "image": "busybox:1"}]),
            "existing ephemeral containers \"g\" may not be changed",
        ),
        (json!([{"name": "c", "image": "x:1"}]), "spec.ephemeralContainers[0].name: Duplicate value: \"c\""),
        (
            json!([{"name": "i", "image": "x:1", "targetContainerName": "none"}]),
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"none\"",
        ),
        (
            json!([{"name": "i", "image": "x:1", "resources": {"limits": {"cpu": "1"}}}]),
            "spec.ephemeralContainers[0].resources: Forbidden: cannot be set for an Ephemeral Container",
        ),
    ] {
        let patch = Patch::Merge(json!({"spec": {"ephemeralContainers": list}}));
        let e = status(pods.patch_ephemeral_containers("a", &params, &patch).await.expect_err(says));
        assert!(e.0 == 422 && e.2.contains(says), "{e:?}");
    }
}
