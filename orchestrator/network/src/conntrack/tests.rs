//! Which connections are stale, and a real one that is forgotten while its neighbour stays.

use std::net::UdpSocket;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use super::*;
use crate::{PodNetwork, enter_network, plan};

const NONE: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);

/// The rules of a UDP service with these endpoints.
fn rules(endpoints: &[Ipv4Addr]) -> Ruleset {
    let service: Service = serde_json::from_value(json!({"metadata": {"name": "dns", "namespace": "n"},
        "spec": {"clusterIP": "10.43.0.7", "ports": [{"name": "d", "port": 53, "protocol": "UDP", "nodePort": 30053}]}}))
    .expect("service");
    let list: Vec<_> =
        endpoints.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "dns-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "dns"}},
        "addressType": "IPv4", "ports": [{"name": "d", "port": 5353, "protocol": "UDP"}], "endpoints": list}))
    .expect("slice");
    plan([&service], [&slice], "n", NONE)
}

#[test]
fn stale_is_what_nobody_answers_any_more() {
    let ip = |n| Ipv4Addr::new(10, 42, 0, n);
    let at = |s: &str| -> SocketAddrV4 { s.parse().expect("address") };
    let check = |before: Option<&[Ipv4Addr]>, now: &[Ipv4Addr], to: &str, from: &str, expect: bool| {
        let before = before.map(rules);
        let answers = answers(before.as_ref(), &rules(now));
        let c = Connection { to: at(to), from: at(from), orig: Vec::new(), id: None };
        assert_eq!(is_stale(&answers, &c), expect, "{to} {from}");
    };
    let (two, three) = ([ip(2)], [ip(3)]);
    let (vip, gone, here) = ("10.43.0.7:53", "10.42.0.2:5353", "10.42.0.3:5353");
    check(Some(&two), &three, vip, gone, true);
    check(Some(&two), &three, vip, here, false);
    check(Some(&two), &three, "127.0.0.9:30053", gone, true);
    check(Some(&two), &three, "127.0.0.9:30053", here, false);
    // A server of the node's own on that port, at another address, is nobody's endpoint.
    check(Some(&two), &three, "9.9.9.9:30053", "9.9.9.9:30053", false);
    check(Some(&two), &three, "9.9.9.9:53", "9.9.9.9:53", false);
    // It was asked before it had endpoints.
    check(Some(&[]), &three, vip, vip, true);
    check(Some(&two), &[], vip, gone, true);
    check(None, &three, vip, gone, true);
    // Nothing changed: nothing is looked at.
    assert!(answers(Some(&rules(&two)), &rules(&two)).is_empty());
}

/// A client that keeps its port is led to the new endpoint, as soon as the old one is gone.
#[tokio::test(flavor = "current_thread")]
async fn a_client_follows_its_service() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace: run as root");
    let dir = tempfile::tempdir().expect("dir");
    let config = crate::Config::new(dir.path().to_owned(), "n".to_owned(), Ipv4Addr::LOCALHOST);
    let net = PodNetwork::open(&config).await.expect("open");
    let mut servers = Vec::new();
    for uid in ["uid-a", "uid-b", "uid-client"] {
        let addr = net.attach(uid, "ns", uid).await.expect("attach");
        let port = if uid == "uid-client" { 4444 } else { 5353 };
        let socket = enter_network(&addr.namespaces.net, || UdpSocket::bind(("0.0.0.0", port)))
            .expect("enter")
            .expect("bind");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        servers.push((addr.ip, socket));
    }
    let client = servers.pop().expect("client").1;
    let (first, second) = (rules(&[servers[0].0]), rules(&[servers[1].0]));
    let ask = |server: &UdpSocket, word: &str| {
        client.send_to(word.as_bytes(), "10.43.0.7:53").expect("send");
        let mut buf = [0; 16];
        let (n, from) = server.recv_from(&mut buf).expect("receive");
        assert_eq!(&buf[..n], word.as_bytes());
        server.send_to(b"well", from).expect("answer");
        let (_, from) = client.recv_from(&mut buf).expect("answer");
        assert_eq!(from.to_string(), "10.43.0.7:53");
    };
    crate::nft::apply(&first.render("binnacle", None)).await.expect("rules");
    ask(&servers[0].1, "one");
    crate::nft::apply(&second.render("binnacle", Some(&first))).await.expect("rules");
    assert_eq!(forget_stale(Some(&first), &second).await.expect("conntrack"), 1);
    ask(&servers[1].1, "two");
    assert_eq!(forget_stale(Some(&first), &second).await.expect("conntrack"), 0, "the good one stays");
    ask(&servers[1].1, "three");
    crate::purge(&config).await.expect("purge");
}
