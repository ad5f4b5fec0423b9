//! What services have of the cluster's network, as objects.

use serde_json::json;

use crate::cluster;
use crate::crd::Raw;

const BASE: &str = "/apis/networking.k8s.io/v1";

#[tokio::test]
async fn addresses_are_objects_too() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let network = r.get(&format!("{BASE}/servicecidrs/kubernetes")).await;
    assert_eq!(network["spec"]["cidrs"], json!(["10.43.0.0/16"]));
    assert_eq!(network["metadata"]["finalizers"], json!(["networking.k8s.io/service-cidr-finalizer"]));
    let ready = &network["status"]["conditions"][0];
    assert_eq!((&ready["type"], &ready["status"]), (&json!("Ready"), &json!("True")));
    let own = r.get(&format!("{BASE}/ipaddresses/10.43.0.1")).await;
    assert_eq!(
        own["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "kubernetes"})
    );
    assert_eq!(
        own["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );

    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, ip: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
    let (status, body) = r.post(services, &service("web", "10.43.7.7")).await;
    assert_eq!(status, 201, "{body}");
    let path = format!("{BASE}/ipaddresses/10.43.7.7");
    r.until(&path, |o| o["spec"]["parentRef"]["name"] == "web").await;
    // Taken away, it is there again: the service still has it.
    let (status, body) = r.delete(&path).await;
    assert_eq!(status, 200, "{body}");
    r.until(&path, |o| o["spec"]["parentRef"]["name"] == "web").await;
    let (status, body) = r.delete(&format!("{services}/web")).await;
    assert_eq!(status, 200, "{body}");
    r.until(&path, |o| o["code"] == 404).await;

    // What somebody keeps for himself no service gets.
    let kept = json!({"metadata": {"name": "10.43.7.8"}, "spec": {"parentRef": {"group": "example.com", "resource": "routers", "name": "r"}}});
    let (status, body) = r.post(&format!("{BASE}/ipaddresses"), &kept).await;
    assert_eq!(status, 201, "{body}");
    let (status, body) = r.post(services, &service("other", "10.43.7.8")).await;
    assert_eq!(status, 422);
    let why = "spec.clusterIPs: Invalid value: [\"10.43.7.8\"]: failed to allocate IP 10.43.7.8: provided IP is already allocated";
    assert!(body["message"].as_str().is_some_and(|m| m.contains(why)), "{body}");

    // In use, the network stays.
    let (status, body) = r.delete(&format!("{BASE}/servicecidrs/kubernetes")).await;
    assert_eq!(status, 200, "{body}");
    let path = format!("{BASE}/servicecidrs/kubernetes");
    r.until(&path, |o| o["status"]["conditions"][0]["reason"] == "Terminating").await;
}

#[tokio::test]
async fn a_network_that_nothing_is_given_out_of_says_so() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let other = json!({"metadata": {"name": "other"}, "spec": {"cidrs": ["192.0.2.0/24"]}});
    let (status, body) = r.post(&format!("{BASE}/servicecidrs"), &other).await;
    assert_eq!(status, 201, "{body}");
    let path = format!("{BASE}/servicecidrs/other");
    r.until(&path, |o| o["status"]["conditions"][0]["status"] == "False").await;
    let (status, body) = r.delete(&path).await;
    assert_eq!(status, 200, "{body}");
    r.until(&path, |o| o["code"] == 404).await;
}

#[tokio::test]
async fn a_balancer_asks_nodes_at_a_port_of_its_own() {
    let c = cluster().await;
    let r = Raw::of(&c);
    let services = "/api/v1/namespaces/default/services";
    let o = json!({"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]}});
    let (status, made) = r.post(services, &o).await;
    assert_eq!(status, 201, "{made}");
    let port = &made["spec"]["healthCheckNodePort"];
    assert!(port.as_i64().is_some_and(|n| (30000..=32767).contains(&n)), "{made}");
    assert_ne!(*port, made["spec"]["ports"][0]["nodePort"]);
    let path = format!("{services}/web");
    let patch = |p: serde_json::Value| {
        let (r, path) = (&r, &path);
        async move {
            let body = p.to_string();
            r.send(http::Method::PATCH, path, "application/merge-patch+json", &body).await.1
        }
    };
    let kept = patch(json!({"spec": {"healthCheckNodePort": 0, "sessionAffinity": "ClientIP"}})).await;
    assert_eq!(kept["spec"]["healthCheckNodePort"], *port, "{kept}");
    let other = patch(json!({"spec": {"healthCheckNodePort": 30001}})).await;
    assert_eq!(other["code"], 422, "{other}");
    let gone = patch(json!({"spec": {"externalTrafficPolicy": "Cluster"}})).await;
    assert!(gone["spec"].get("healthCheckNodePort").is_none(), "{gone}");
}
