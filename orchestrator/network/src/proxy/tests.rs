//! The plan as a table, and its text against the real nft in a network namespace of its own.

use super::*;
use serde_json::json;

const NONE: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);

fn service(spec: serde_json::Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}))
        .expect("service")
}

fn slice(endpoints: serde_json::Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    }))
    .expect("slice")
}

fn web(extra: serde_json::Value) -> Service {
    let mut spec =
        json!({"clusterIP": "10.43.0.7", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
    spec.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
    service(spec)
}

fn two() -> EndpointSlice {
    slice(json!([
        {"addresses": ["10.42.0.2"], "nodeName": "n", "conditions": {"ready": true}},
        {"addresses": ["10.42.0.3"], "conditions": {"ready": true}},
        {"addresses": ["10.42.0.4"], "conditions": {"ready": false}},
    ]))
}

#[test]
fn ready_endpoints_only_and_none_means_refused() {
    let r = plan([&web(json!({}))], [&two()], "n", NONE);
    let ips: Vec<_> = r.ports[0].endpoints.iter().map(|e| (e.ip.octets()[3], e.port, e.local)).collect();
    assert_eq!(ips, [(2, 8080, true), (3, 8080, false)]);
    assert_eq!(r.ports[0].node_port, Some(30080));

    let r = plan([&web(json!({}))], [], "n", NONE);
    assert!(r.ports[0].endpoints.is_empty());
    assert!(r.render("t", None).contains("10.43.0.7 . tcp . 80 : goto refuse"));
}

#[test]
fn terminating_endpoints_serve_when_nothing_else_does() {
    let s = slice(json!([{"addresses": ["10.42.0.9"],
        "conditions": {"ready": false, "serving": true, "terminating": true}}]));
    assert_eq!(plan([&web(json!({}))], [&s], "n", NONE).ports[0].endpoints.len(), 1);
}

#[test]
fn headless_external_and_dns_are_left_out() {
    for spec in [
        json!({"clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "x.org"}),
        json!({"clusterIP": "10.43.0.10", "ports": [{"port": 53}]}),
    ] {
        assert_eq!(plan([&service(spec)], [], "n", NONE), Ruleset::default());
    }
}

#[test]
fn session_affinity_keeps_its_seconds() {
    let s = web(json!({"sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}));
    let r = plan([&s], [&two()], "n", NONE);
    assert_eq!(r.ports[0].affinity, Some(60));
    assert!(r.render("t", None).contains("timeout 60s"));
}

#[test]
fn local_policies_choose_endpoints_of_this_node_or_nobody() {
    let here = |extra| plan([&web(extra)], [&two()], "n", NONE).render("t", None);
    let there = |extra| plan([&web(extra)], [&two()], "elsewhere", NONE).render("t", None);
    let (outside, inside) =
        (json!({"externalTrafficPolicy": "Local"}), json!({"internalTrafficPolicy": "Local"}));
    let text = here(outside.clone());
    assert!(text.contains("numgen inc mod 2") && !text.contains("goto ignore"), "{text}");
    assert!(there(outside).contains("tcp . 30080 : goto ignore"));
    let text = there(inside.clone());
    assert!(
        text.contains("10.43.0.7 . tcp . 80 : goto ignore") && !text.contains("30080 : goto ignore"),
        "{text}"
    );
    assert!(!here(inside).contains("goto ignore"));
}

/// Runs on a thread with a network namespace of its own: the table touches nothing else on the machine.
#[tokio::test(flavor = "current_thread")]
async fn nft_takes_every_step_of_a_services_life() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace: run as root");
    let affine = web(json!({"sessionAffinity": "ClientIP"}));
    let (none, first) = (Ruleset::default(), plan([&web(json!({}))], [], "n", NONE));
    let second = plan([&affine], [&two()], "n", NONE);
    let third = plan(
        [&affine],
        [&slice(json!([{"addresses": ["10.42.0.3"], "conditions": {"ready": true}}]))],
        "n",
        NONE,
    );
    let local = plan([&web(json!({"externalTrafficPolicy": "Local"}))], [&two()], "n", NONE);
    let mut before: Option<&Ruleset> = None;
    let nobody = plan(
        [&web(json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}))],
        [&two()],
        "m",
        NONE,
    );
    for next in [&none, &first, &second, &third, &local, &nobody, &none, &second] {
        let text = next.render("binnacle", before);
        crate::nft::apply(&text).await.unwrap_or_else(|e| panic!("{e}\n{text}"));
        before = Some(next);
    }
    crate::nft::delete_tables(&["binnacle".to_owned()]).await.expect("delete");
}
