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

/// The answer to a request with headers of one's own.
async fn asked(
    c: &crate::Cluster,
    user: UserInfo,
    headers: &[(&str, &str)],
    path: &str,
    body: &str,
) -> (u16, serde_json::Value) {
    use tower::ServiceExt;
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut request = http::Request::builder().method(method).uri(path);
    for (k, v) in headers {
        request = request.header(*k, *v);
    }
    let request = request.body(axum::body::Body::from(body.to_owned())).expect("a request");
    let r = c.server.in_process(user).oneshot(request).await.expect("an answer");
    let code = r.status().as_u16();
    let bytes = axum::body::to_bytes(r.into_body(), 1 << 20).await.expect("a body");
    (code, serde_json::from_slice(&bytes).expect("JSON"))
}

#[tokio::test]
async fn impersonation_is_checked_word_by_word() {
    let c = cluster().await;
    let role: ClusterRole = from(json!({"metadata": {"name": "actor"}, "rules": [
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["jane"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["dev"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["uids"], "resourceNames": ["u1"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"], "resourceNames": ["view"]},
    ]}));
    Api::<ClusterRole>::all(c.client()).create(&PostParams::default(), &role).await.expect("created");
    let binding = from(
        json!({"metadata": {"name": "actor"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "actor"},
        "subjects": [{"kind": "User", "name": "actor"}]}),
    );
    Api::<k8s_openapi::api::rbac::v1::ClusterRoleBinding>::all(c.client())
        .create(&PostParams::default(), &binding)
        .await
        .expect("bound");
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let actor = || UserInfo::new("actor", &[]);
    let all = [
        ("impersonate-user", "jane"),
        ("impersonate-group", "dev"),
        ("impersonate-uid", "u1"),
        ("impersonate-extra-scopes", "view"),
    ];
    let (code, who) = asked(&c, actor(), &all, path, "{}").await;
    assert_eq!(code, 201, "{who}");
    assert_eq!(
        who["status"]["userInfo"],
        json!({"username": "jane", "uid": "u1", "groups": ["dev", "system:authenticated"], "extra": {"scopes": ["view"]}})
    );
    for (header, value, expect) in [
        (
            "impersonate-user",
            "joe",
            "users \"joe\" is forbidden: User \"actor\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
        ),
        (
            "impersonate-group",
            "system:masters",
            "groups \"system:masters\" is forbidden: User \"actor\" cannot impersonate resource \"groups\" in API group \"\" at the cluster scope",
        ),
        (
            "impersonate-uid",
            "u2",
            "uids.authentication.k8s.io \"u2\" is forbidden: User \"actor\" cannot impersonate resource \"uids\" in API group \"authentication.k8s.io\" at the cluster scope",
        ),
        (
            "impersonate-extra-scopes",
            "admin",
            "userextras.authentication.k8s.io \"admin\" is forbidden: User \"actor\" cannot impersonate resource \"userextras/scopes\" in API group \"authentication.k8s.io\" at the cluster scope",
        ),
        (
            "impersonate-extra-other",
            "view",
            "userextras.authentication.k8s.io \"view\" is forbidden: User \"actor\" cannot impersonate resource \"userextras/other\" in API group \"authentication.k8s.io\" at the cluster scope",
        ),
    ] {
        let user = if header == "impersonate-user" { value } else { "jane" };
        let mut headers = vec![("impersonate-user", user)];
        if header != "impersonate-user" {
            headers.push((header, value));
        }
        let (code, s) = asked(&c, actor(), &headers, path, "{}").await;
        assert_eq!((code, s["message"].as_str()), (403, Some(expect)));
    }
    // Parts of an identity without a user, two users, unknown words: refused, never guessed.
    let root = || UserInfo::new("root", &["system:masters"]);
    for headers in [
        vec![("impersonate-group", "dev")],
        vec![("impersonate-uid", "u1")],
        vec![("impersonate-user", "jane"), ("impersonate-user", "joe")],
        vec![("impersonate-user", "jane"), ("impersonate-other", "x")],
    ] {
        let (code, s) = asked(&c, root(), &headers, path, "{}").await;
        assert!(code >= 400, "{headers:?} {s}");
    }
    // Whoever is impersonated has no more rights than they have.
    let (code, _) = asked(&c, root(), &[("impersonate-user", "jane")], "/api/v1/secrets", "").await;
    assert_eq!(code, 403);
}

#[tokio::test]
async fn identities_come_from_credentials_only() {
    let c = cluster().await;
    let smuggled = [
        ("x-remote-user", "system:admin"),
        ("x-remote-group", "system:masters"),
        ("x-remote-extra-scopes", "all"),
        ("x-forwarded-user", "admin"),
        ("remote-user", "admin"),
    ];
    let (code, _) = asked(&c, UserInfo::new("eve", &[]), &smuggled, "/api/v1/secrets", "").await;
    assert_eq!(code, 403);
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (_, who) = asked(&c, UserInfo::new("eve", &[]), &smuggled, path, "{}").await;
    assert_eq!(who["status"]["userInfo"]["username"], "eve");
}
