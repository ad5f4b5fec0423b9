//! What a node may do, and what it must not.

use apimachinery::user::UserInfo;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Client;
use kube::api::{Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::{Cluster, cluster, from, status};

fn node(c: &Cluster, name: &str) -> Client {
    c.client_as(UserInfo::new(format!("system:node:{name}"), &["system:nodes"]))
}

fn on(name: &str, node: &str, spec: &Value) -> Pod {
    let mut p = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "busybox:1"}]}});
    for (k, v) in spec.as_object().expect("fields") {
        p["spec"][k] = v.clone();
    }
    from(p)
}

async fn two_nodes() -> Cluster {
    let c = cluster().await;
    c.account().await;
    for name in ["a", "b"] {
        let own: Api<Node> = Api::all(node(&c, name));
        own.create(&PostParams::default(), &from(json!({"metadata": {"name": name}})))
            .await
            .expect("registered");
    }
    let secrets: Api<Secret> = Api::namespaced(c.client(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    for name in ["of-a", "of-b", "nobodys"] {
        let o = json!({"metadata": {"name": name}});
        secrets.create(&PostParams::default(), &from(o.clone())).await.expect("a secret");
        maps.create(&PostParams::default(), &from(o)).await.expect("a config map");
    }
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    for n in ["a", "b"] {
        let spec = json!({"volumes": [{"name": "s", "secret": {"secretName": format!("of-{n}")}}, {"name": "m", "configMap": {"name": format!("of-{n}")}}]});
        pods.create(&PostParams::default(), &on(&format!("pod-{n}"), n, &spec)).await.expect("a pod");
    }
    c
}

#[tokio::test]
async fn nodes_read_only_what_their_pods_name() {
    let c = two_nodes().await;
    let secrets: Api<Secret> = Api::namespaced(node(&c, "a"), "default");
    let maps: Api<ConfigMap> = Api::namespaced(node(&c, "a"), "default");
    secrets.get("of-a").await.expect("its pod's");
    maps.get("of-a").await.expect("its pod's");
    secrets.list(&ListParams::default().fields("metadata.name=of-a")).await.expect("one by name");
    let refused = "User \"system:node:a\" cannot get resource \"secrets\" in API group \"\" in the namespace \"default\": no relationship found between node 'a' and this object";
    for name in ["of-b", "nobodys", "none"] {
        let e = secrets.get(name).await.expect_err("another's");
        assert_eq!(status(e).2, format!("secrets {name:?} is forbidden: {refused}"));
        maps.get(name).await.expect_err("another's");
    }
    for list in [
        ListParams::default(),
        ListParams::default().fields("metadata.name=of-b"),
        ListParams::default().fields("metadata.name!=of-a"),
    ] {
        assert_eq!(status(secrets.list(&list).await.expect_err("all")).0, 403);
    }
    let everywhere: Api<Secret> = Api::all(node(&c, "a"));
    everywhere.list(&ListParams::default().fields("metadata.name=of-a")).await.expect_err("no namespace");
    secrets.delete("of-a", &DeleteParams::default()).await.expect_err("reading is not deleting");
    let pods: Api<Pod> = Api::all(node(&c, "a"));
    let own = pods.list(&ListParams::default().fields("spec.nodeName=a")).await.expect("its own");
    assert_eq!(own.items.len(), 1);
    for fields in ["spec.nodeName=b", "spec.nodeName!=b", ""] {
        let list = ListParams::default().fields(fields);
        assert_eq!(status(pods.list(&list).await.expect_err("all pods")).0, 403, "{fields}");
    }
    let nodes: Api<Node> = Api::all(node(&c, "a"));
    nodes.get("a").await.expect("itself");
    let e = nodes.get("b").await.expect_err("another");
    assert!(status(e).2.ends_with("node 'a' cannot read 'b', only its own Node object"));
    nodes.list(&ListParams::default()).await.expect_err("all");
    // A user of that name that is not in the group is nobody, and the group alone is nobody in particular.
    for user in [UserInfo::new("system:node:a", &[]), UserInfo::new("a", &["system:nodes"])] {
        let other: Api<Secret> = Api::namespaced(c.client_as(user), "default");
        assert_eq!(status(other.get("of-a").await.expect_err("nobody")).0, 403);
    }
    // When the pod goes, so does the right.
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    pods.delete("pod-a", &DeleteParams::default().grace_period(0)).await.expect("deleted");
    secrets.get("of-a").await.expect_err("no pod names it");
    let bindings: Api<ClusterRoleBinding> = Api::all(c.client());
    assert!(bindings.get("system:node").await.expect("it is there").subjects.unwrap_or_default().is_empty());
}

#[tokio::test]
async fn nodes_write_only_what_is_theirs() {
    let c = two_nodes().await;
    let merge = |o: Value| Patch::Merge(o);
    let params = PatchParams::default();
    let nodes: Api<Node> = Api::all(node(&c, "a"));
    let e = nodes
        .patch("b", &params, &merge(json!({"metadata": {"labels": {"x": "y"}}})))
        .await
        .expect_err("another");
    assert_eq!(status(e).2, "nodes \"b\" is forbidden: node \"a\" is not allowed to modify node \"b\"");
    nodes.patch("a", &params, &merge(json!({"metadata": {"labels": {"x": "y"}}}))).await.expect("its own");
    let label = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/tier": "a"}}});
    let e = nodes.patch("a", &params, &merge(label)).await.expect_err("a restricted label");
    assert_eq!(
        status(e).2,
        "nodes \"a\" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/tier"
    );
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let e = nodes.patch("a", &params, &merge(taint)).await.expect_err("taints");
    assert_eq!(status(e).2, "nodes \"a\" is forbidden: node \"a\" is not allowed to modify taints");
    let e = nodes
        .create(&PostParams::default(), &from(json!({"metadata": {"name": "c"}})))
        .await
        .expect_err("another");
    assert_eq!(status(e).2, "nodes \"c\" is forbidden: node \"a\" is not allowed to modify node \"c\"");
    let pods: Api<Pod> = Api::namespaced(node(&c, "a"), "default");
    let ready = json!({"status": {"phase": "Running"}});
    pods.patch_status("pod-a", &params, &merge(ready.clone())).await.expect("its pod");
    let e = pods.patch_status("pod-b", &params, &merge(ready)).await.expect_err("another's");
    assert!(
        status(e)
            .2
            .ends_with("node \"a\" can only update pod status for pods with spec.nodeName set to itself")
    );
    let e = pods.create(&PostParams::default(), &on("p", "a", &json!({}))).await.expect_err("no mirror pod");
    assert!(status(e).2.contains("node \"a\" can only create mirror pods"));
    let e = pods.delete("pod-b", &DeleteParams::default()).await.expect_err("another's");
    assert!(status(e).2.ends_with("node \"a\" can only delete pods with spec.nodeName set to itself"));
    let e = pods.evict("pod-b", &EvictParams::default()).await.expect_err("another's");
    assert!(status(e).2.ends_with("node a can only evict pods with spec.nodeName set to itself"));
    pods.patch("pod-a", &params, &merge(json!({"metadata": {"labels": {"x": "y"}}})))
        .await
        .expect_err("no verb");
    let leases: Api<Lease> = Api::namespaced(node(&c, "a"), "kube-node-lease");
    let lease = |name: &str| -> Lease { from(json!({"metadata": {"name": name}})) };
    leases.create(&PostParams::default(), &lease("a")).await.expect("its lease");
    let e = leases.create(&PostParams::default(), &lease("b")).await.expect_err("another's");
    assert!(status(e).2.ends_with("can only access node lease with the same name as the requesting node"));
    let elsewhere: Api<Lease> = Api::namespaced(node(&c, "a"), "default");
    elsewhere.create(&PostParams::default(), &lease("a")).await.expect_err("not there");
}

#[tokio::test]
async fn tokens_are_for_pods_on_the_node() {
    let c = two_nodes().await;
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    let accounts: Api<ServiceAccount> = Api::namespaced(node(&c, "a"), "default");
    let ask = |pod: Option<Pod>, uid: bool| {
        let accounts = accounts.clone();
        async move {
            let bound = pod.map(|p| {
                let uid = if uid { p.metadata.uid } else { None };
                json!({"apiVersion": "v1", "kind": "Pod", "name": p.metadata.name, "uid": uid})
            });
            let request: TokenRequest =
                from(json!({"metadata": {}, "spec": {"audiences": ["api"], "boundObjectRef": bound}}));
            accounts.create_token_request("default", &PostParams::default(), &request).await
        }
    };
    let (a, b) = (pods.get("pod-a").await.expect("a"), pods.get("pod-b").await.expect("b"));
    ask(Some(a.clone()), true).await.expect("its pod's");
    let refused = |e: kube::Error, why: &str| {
        assert_eq!(status(e).2, format!("serviceaccounts \"default\" is forbidden: {why}"))
    };
    refused(
        ask(Some(b), true).await.expect_err("another's"),
        "node requested token bound to a pod scheduled on a different node",
    );
    refused(ask(None, false).await.expect_err("unbound"), "node requested token not bound to a pod");
    refused(
        ask(Some(a), false).await.expect_err("no uid"),
        "node requested token with a pod binding without a uid",
    );
    let other: ServiceAccount = from(json!({"metadata": {"name": "other"}}));
    Api::<ServiceAccount>::namespaced(c.client(), "default")
        .create(&PostParams::default(), &other)
        .await
        .expect("made");
    let e = accounts
        .create_token_request(
            "other",
            &PostParams::default(),
            &from(json!({"metadata": {}, "spec": {"audiences": []}})),
        )
        .await
        .expect_err("no pod of this node is that account");
    assert!(status(e).2.ends_with("no relationship found between node 'a' and this object"));
}
