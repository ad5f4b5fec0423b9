//! Who may do what.

use apimachinery::user::UserInfo;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRole, Role, RoleBinding};
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;

use crate::{cluster, from, status};

#[tokio::test]
async fn nobody_may_what_no_role_allows() {
    let c = cluster().await;
    let pods: Api<Pod> = Api::namespaced(c.client_as(UserInfo::new("eve", &[])), "default");
    let (code, _, message) = status(pods.list(&ListParams::default()).await.expect_err("forbidden"));
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "pods is forbidden: User \"eve\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> = Api::namespaced(c.client(), "default");
    let b = from(
        json!({"metadata": {"name": "eve"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "eve"}]}),
    );
    bindings.create(&PostParams::default(), &b).await.expect("bound");
    pods.list(&ListParams::default()).await.expect("allowed now");
    let elsewhere: Api<Pod> = Api::namespaced(c.client_as(UserInfo::new("eve", &[])), "kube-system");
    assert_eq!(status(elsewhere.list(&ListParams::default()).await.expect_err("elsewhere")).0, 403);
}

#[tokio::test]
async fn nobody_grants_what_they_lack() {
    let c = cluster().await;
    let bindings: Api<RoleBinding> = Api::namespaced(c.client(), "default");
    let group = "rbac.authorization.k8s.io";
    let binding = |name: &str, role: &str, user: &str| -> RoleBinding {
        from(
            json!({"metadata": {"name": name}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": user}]}),
        )
    };
    bindings.create(&PostParams::default(), &binding("eve", "admin", "eve")).await.expect("bound");
    let eve = || c.client_as(UserInfo::new("eve", &["system:authenticated"]));
    let roles: Api<Role> = Api::namespaced(eve(), "default");
    let role = |name: &str, resource: &str| -> Role {
        from(
            json!({"metadata": {"name": name}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]}),
        )
    };
    roles.create(&PostParams::default(), &role("pods", "pods")).await.expect("what she has");
    let e = roles.create(&PostParams::default(), &role("nodes", "nodes")).await.expect_err("what she lacks");
    let expect = "roles.rbac.authorization.k8s.io \"nodes\" is forbidden: user \"eve\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}";
    assert_eq!(status(e), (403, "Forbidden".to_owned(), expect.to_owned()));
    let own: Api<RoleBinding> = Api::namespaced(eve(), "default");
    own.create(&PostParams::default(), &binding("friend", "view", "bob")).await.expect("a part of hers");
    let (code, _, message) = status(
        own.create(&PostParams::default(), &binding("more", "cluster-admin", "eve")).await.expect_err("all"),
    );
    assert!(code == 403 && message.contains("not currently held"), "{message}");
    // Whoever may bind a role may give it away unheld.
    let may: ClusterRole = from(json!({"metadata": {"name": "binder"},
        "rules": [{"verbs": ["bind"], "apiGroups": [group], "resources": ["clusterroles"], "resourceNames": ["cluster-admin"]}]}));
    Api::<ClusterRole>::all(c.client()).create(&PostParams::default(), &may).await.expect("created");
    bindings.create(&PostParams::default(), &binding("binder", "binder", "eve")).await.expect("bound");
    own.create(&PostParams::default(), &binding("more", "cluster-admin", "eve")).await.expect("may bind");
}
