//! Two real name servers in a network namespace of their own: one asks the other for what is not its zone's.

use std::process::Command;

use hickory_server::proto::rr::Name;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::*;

fn service(spec: serde_json::Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": spec}))
        .expect("service")
}

/// Serves a zone of one service at an address.
async fn serve(
    domain: &str,
    ip: [u8; 4],
    upstreams: Vec<SocketAddr>,
    service: &Service,
) -> CancellationToken {
    let address = Ipv4Addr::from(ip);
    let added = Command::new("ip").args(["address", "add", &format!("{address}/32"), "dev", "lo"]).status();
    assert!(added.expect("ip is missing").success());
    let mut config = Config::new("d".into(), "n".to_owned(), Ipv4Addr::LOCALHOST);
    (config.dns_ip, config.cluster_domain, config.upstreams) = (address, domain.to_owned(), upstreams);
    let zone = Arc::new(SharedZone::new(domain, address));
    zone.set(Zone::build([service], [], domain, address));
    let stop = CancellationToken::new();
    start(&config, zone, stop.clone()).await.expect("a name server");
    stop
}

#[tokio::test(flavor = "current_thread")]
async fn an_alias_is_followed_into_another_zone() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace: run as root");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip is missing");
    assert!(up.success());
    let there = service(json!({"clusterIP": "10.9.9.9", "ports": [{"name": "http", "port": 80}]}));
    let here = service(json!({"type": "ExternalName", "externalName": "web.n.svc.there.local"}));
    let far = SocketAddr::from(([10, 1, 0, 2], 53));
    let stops = [
        serve("there.local", [10, 1, 0, 2], Vec::new(), &there).await,
        serve("here.local", [10, 1, 0, 1], vec![far], &here).await,
    ];
    let client = forward::Forward::new(vec![SocketAddr::from(([10, 1, 0, 1], 53))]);
    let ask = async |name: &str, kind| {
        let answers = client.resolve(Name::from_ascii(name).expect("name"), kind).await.expect("an answer");
        answers.iter().map(|r| r.data.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ask("web.n.svc.here.local.", RecordType::A).await, "web.n.svc.there.local. 10.9.9.9");
    assert_eq!(ask("web.n.svc.here.local.", RecordType::CNAME).await, "web.n.svc.there.local.");
    assert_eq!(ask("web.n.svc.there.local.", RecordType::A).await, "10.9.9.9");
    assert_eq!(ask("none.n.svc.here.local.", RecordType::A).await, "");
    stops.iter().for_each(CancellationToken::cancel);
}
