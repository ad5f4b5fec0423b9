//! Admission plugins through the API.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::{cluster, cluster_with, deployment, from, pod, status};

fn namespace(name: &str, labels: Value) -> Namespace {
    from(json!({"metadata": {"name": name, "labels": labels}}))
}

/// The `Warning` headers of an answer, and its status.
async fn answer(
    c: &crate::Cluster,
    method: &str,
    path: &str,
    media: &str,
    o: &Value,
) -> (u16, Vec<String>, Value) {
    use tower::ServiceExt;
    let router = c.server.in_process(apimachinery::user::UserInfo::new("admin", &["system:masters"]));
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media)
        .body(axum::body::Body::from(o.to_string()))
        .expect("a request");
    let r = router.oneshot(request).await.expect("an answer");
    let status = r.status().as_u16();
    let warnings = r.headers().get_all("warning").iter();
    let warnings = warnings.map(|w| w.to_str().expect("text").to_owned()).collect();
    let bytes = axum::body::to_bytes(r.into_body(), 1 << 20).await.expect("a body");
    (status, warnings, serde_json::from_slice(&bytes).expect("JSON"))
}

#[tokio::test]
async fn namespaces_enforce_and_warn_of_pod_security() {
    let c = cluster().await;
    c.account().await;
    let spaces: Api<Namespace> = Api::all(c.client());
    let e = spaces
        .create(
            &PostParams::default(),
            &namespace("x", json!({"pod-security.kubernetes.io/enforce": "strict"})),
        )
        .await
        .expect_err("no such level");
    assert_eq!(
        status(e).2,
        "Namespace \"x\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted"
    );
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    let mut privileged = pod("before");
    privileged.spec.as_mut().expect("a spec").host_network = Some(true);
    pods.create(&PostParams::default(), &privileged).await.expect("nothing is enforced yet");
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let (code, warnings, _) =
        answer(&c, "PATCH", "/api/v1/namespaces/default", "application/merge-patch+json", &labels).await;
    assert_eq!(code, 200);
    assert_eq!(
        warnings,
        [
            "299 - \"existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
            "299 - \"before: host namespaces\"",
        ]
    );
    privileged.metadata.name = Some("after".to_owned());
    let e = pods.create(&PostParams::default(), &privileged).await.expect_err("enforced");
    assert_eq!(
        status(e),
        (
            403,
            "Forbidden".to_owned(),
            "pods \"after\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
                .to_owned()
        )
    );
    pods.create(&PostParams::default(), &pod("plain")).await.expect("good enough for baseline");
    // A workload is made, but its maker is told.
    let mut d = serde_json::to_value(deployment("d")).expect("JSON");
    d["spec"]["template"]["spec"]["hostPID"] = true.into();
    let (code, warnings, _) =
        answer(&c, "POST", "/apis/apps/v1/namespaces/default/deployments", "application/json", &d).await;
    assert_eq!(code, 201);
    assert_eq!(
        warnings,
        ["299 - \"would violate PodSecurity \\\"baseline:latest\\\": host namespaces (hostPID=true)\""]
    );
    let all: Api<Deployment> = Api::namespaced(c.client(), "default");
    assert!(all.get_opt("d").await.expect("asked").is_some());
    // Nobody slips a host's namespace in by an update that looks harmless.
    let image = json!({"spec": {"containers": [{"name": "c", "image": "busybox:2"}]}});
    let e = pods
        .patch("before", &PatchParams::default(), &Patch::Strategic(image))
        .await
        .expect_err("judged again");
    assert!(status(e).2.contains("violates PodSecurity"));
}

#[tokio::test]
async fn pod_security_exempts_whom_its_configuration_names() {
    let c = cluster_with(|config| {
        let own = json!({"defaults": {"enforce": "restricted"}, "exemptions": {"namespaces": ["trusted"], "usernames": ["root"]}});
        config.admission.pod_security = apiserver::PodSecurity::parse(&own).expect("good");
    })
    .await;
    c.account().await;
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    let e = pods.create(&PostParams::default(), &pod("p")).await.expect_err("restricted by default");
    assert!(status(e).2.starts_with("pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"));
    let root = apimachinery::user::UserInfo::new("root", &["system:masters"]);
    let own: Api<Pod> = Api::namespaced(c.client_as(root), "default");
    own.create(&PostParams::default(), &pod("p")).await.expect("exempt");
}

#[tokio::test]
async fn small_plugins() {
    let c = cluster_with(|config| {
        config.admission.switch(["DenyServiceExternalIPs", "AlwaysPullImages"], true).expect("known");
    })
    .await;
    c.account().await;
    let spaces: Api<Namespace> = Api::all(c.client());
    for name in ["default", "kube-system", "kube-public"] {
        let e = spaces.delete(name, &DeleteParams::default()).await.expect_err("it stays");
        let expect = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
        assert_eq!(status(e), (403, "Forbidden".to_owned(), expect));
    }
    let services: Api<Service> = Api::namespaced(c.client(), "default");
    let external = from(
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": ["203.0.113.7"]}}),
    );
    let e = services.create(&PostParams::default(), &external).await.expect_err("denied");
    assert_eq!(
        status(e).2,
        "services \"s\" is forbidden: Use of external IPs is denied by admission control"
    );
    let classes: Api<RuntimeClass> = Api::all(c.client());
    let class: RuntimeClass = from(
        json!({"metadata": {"name": "vm"}, "handler": "kata", "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}}),
    );
    classes.create(&PostParams::default(), &class).await.expect("made");
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    let of = |class: &str| {
        let mut p = pod("p");
        p.spec.as_mut().expect("a spec").runtime_class_name = Some(class.to_owned());
        p
    };
    let e = pods.create(&PostParams::default(), &of("none")).await.expect_err("no such class");
    assert_eq!(status(e).2, "pods \"p\" is forbidden: pod rejected: RuntimeClass \"none\" not found");
    let spec = pods.create(&PostParams::default(), &of("vm")).await.expect("made").spec.expect("a spec");
    assert_eq!(spec.overhead.expect("overhead")["cpu"].0, "250m");
    assert_eq!(spec.node_selector.expect("a selector")["vm"], "yes");
    assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("Always"));
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(c.client(), "default");
    let claim = from(
        json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
    );
    claims.create(&PostParams::default(), &claim).await.expect("made");
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let e = claims.patch("c", &PatchParams::default(), &Patch::Merge(more)).await.expect_err("not bound");
    // The rules speak before the plugin, which says the same of claims that are not bound.
    let immutable = "PersistentVolumeClaim \"c\" is invalid: spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n  core.PersistentVolumeClaimSpec{\n";
    let message = status(e).2;
    assert!(message.starts_with(immutable), "{message}");
}
