//! Who may use the node's API, as a real API server says.

use std::net::Ipv4Addr;

use apiserver::pki::{Pki, PkiConfig};
use axum::body::to_bytes;
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::json;

use super::*;

#[test]
fn a_path_is_one_or_two_of_a_nodes_resources() {
    let check = |path: &str, expect: &[&str]| assert_eq!(subresources(path), expect, "{path}");
    check("/pods", &["pods", "proxy"]);
    check("/runningpods/", &["pods", "proxy"]);
    check("/healthz", &["healthz", "proxy"]);
    check("/healthz/ping", &["healthz", "proxy"]);
    check("/configz", &["configz", "proxy"]);
    check("/metrics", &["metrics"]);
    check("/metrics/cadvisor", &["metrics"]);
    check("/stats/summary", &["stats"]);
    check("/logs/", &["log"]);
    check("/checkpoint/a/b/c", &["checkpoint"]);
    check("/podsecurity", &["proxy"]);
    check("/exec/a/b/c", &["proxy"]);
    check("/", &["proxy"]);
}

#[test]
fn no_more_is_kept_than_said() {
    let kept = Kept(Mutex::default());
    let now = signal::time::monotonic();
    for n in 0..MAX_KEPT {
        kept.put(n, n, now, if n == 7 { Duration::from_secs(9) } else { Duration::from_secs(1) });
    }
    let later = now + Duration::from_secs(2);
    assert_eq!((kept.get(&7, later), kept.get(&8, later)), (Some(7), None));
    kept.put(MAX_KEPT, 0, later, TOKEN_FOR);
    assert_eq!(kept.0.lock().len(), 2);
}

async fn said(r: Result<(), Response>) -> (u16, String) {
    let Err(r) = r else { return (200, String::new()) };
    let code = r.status().as_u16();
    let body = to_bytes(r.into_body(), 1 << 16).await.expect("a body");
    (code, String::from_utf8(body.to_vec()).expect("text"))
}

#[tokio::test]
async fn the_api_server_says_who_may_what() {
    let dir = tempfile::tempdir().expect("dir");
    let clock = signal::time::system_clock();
    let service_cidr: apiserver::Cidr = "10.143.0.0/16".parse().expect("cidr");
    let pki = Pki::open(PkiConfig {
        dir: dir.path().join("pki"),
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        service_ip: service_cidr.nth(1).into(),
        cluster_domain: "cluster.local".to_owned(),
        hostname: "node".to_owned(),
        now: clock.now(),
    })
    .expect("pki");
    let store = store::Store::open(store::Config::new(dir.path().join("store"))).expect("store");
    let server = apiserver::ApiServer::open(apiserver::Config {
        service_cidr,
        advertise_address: Ipv4Addr::LOCALHOST.into(),
        clock: clock.clone(),
        admin_token: "secret".to_owned(),
        ..apiserver::Config::new(Arc::new(store), Arc::new(pki))
    })
    .await
    .expect("api server");
    let admin = Client::new(server.in_process(UserInfo::new("test", &[MASTERS])), "default");
    let rbac = |kind: &str, plural: &str, rest: serde_json::Value| {
        let resource = ApiResource {
            group: "rbac.authorization.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "rbac.authorization.k8s.io/v1".to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        let mut object =
            json!({"apiVersion": resource.api_version, "kind": kind, "metadata": {"name": "scraper"}});
        object.as_object_mut().expect("an object").extend(rest.as_object().expect("fields").clone());
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let api = Api::all_with(admin.clone(), &resource);
        async move { drop(api.create(&PostParams::default(), &object).await.expect("created")) }
    };
    let rules = json!({"rules": [{"apiGroups": [""], "resources": ["nodes/metrics", "nodes/healthz"], "verbs": ["get"]}]});
    rbac("ClusterRole", "clusterroles", rules).await;
    let binding = json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "scraper"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}],
    });
    rbac("ClusterRoleBinding", "clusterrolebindings", binding).await;

    let node = server.in_process(UserInfo::new("system:node:n", &["system:nodes"]));
    let auth = Auth::new("n".to_owned(), Client::new(node, "default"), clock);
    let none = HeaderMap::new();
    let with = |value: &str| {
        let mut h = HeaderMap::new();
        h.insert(header::AUTHORIZATION, value.parse().expect("a header"));
        h
    };
    let eve = || Some(UserInfo::new("eve", &[]));
    let (get, post) = (Method::GET, Method::POST);

    let unauthorized = (401, "Unauthorized".to_owned());
    assert_eq!(said(auth.judge(None, &none, &get, "/healthz").await).await, unauthorized);
    assert_eq!(said(auth.judge(None, &with("Bearer wrong"), &get, "/healthz").await).await, unauthorized);
    assert_eq!(said(auth.judge(None, &with("Basic c2VjcmV0"), &get, "/healthz").await).await, unauthorized);
    // Twice: the second time from memory.
    for _ in 0..2 {
        assert_eq!(said(auth.judge(None, &with("Bearer secret"), &post, "/exec/a/b/c").await).await.0, 200);
        assert_eq!(said(auth.judge(eve(), &none, &get, "/metrics/cadvisor").await).await.0, 200);
        assert_eq!(said(auth.judge(eve(), &none, &get, "/healthz").await).await.0, 200);
        assert_eq!(
            said(auth.judge(eve(), &none, &get, "/pods").await).await,
            (403, "Forbidden (user=eve, verb=get, resource=nodes, subresource(s)=[pods proxy])".to_owned())
        );
        assert_eq!(
            said(auth.judge(eve(), &none, &post, "/exec/a/b/c").await).await,
            (403, "Forbidden (user=eve, verb=create, resource=nodes, subresource(s)=[proxy])".to_owned())
        );
    }
    let api_server = UserInfo::new("kube-apiserver-kubelet-client", &[MASTERS]);
    assert_eq!(said(auth.judge(Some(api_server), &none, &post, "/exec/a/b/c").await).await.0, 200);
}
