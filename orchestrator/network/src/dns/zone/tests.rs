//! Questions and answers, one line each.

use super::*;
use serde_json::json;

fn zone() -> Zone {
    let services: Vec<Service> = [
        json!({"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIP": "10.43.0.7", "ports": [{"name": "http", "port": 80}]}}),
        json!({"metadata": {"name": "db", "namespace": "shop"},
            "spec": {"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}}),
        json!({"metadata": {"name": "out", "namespace": "shop"},
            "spec": {"type": "ExternalName", "externalName": "example.org"}}),
    ]
    .into_iter()
    .map(|v| serde_json::from_value(v).expect("service"))
    .collect();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "ports": [{"name": "sql", "port": 5432}],
        "endpoints": [
            {"addresses": ["10.42.0.2"], "hostname": "db-0", "conditions": {"ready": true}},
            {"addresses": ["10.42.0.3"], "conditions": {"ready": true}},
            {"addresses": ["10.42.0.4"], "conditions": {"ready": false}},
        ],
    }))
    .expect("slice");
    Zone::build(&services, [&slice], "cluster.local", Ipv4Addr::new(10, 43, 0, 10))
}

/// The answer as text: records joined, `nodata`, `nxdomain` or `elsewhere`.
fn ask(name: &str, kind: RecordType) -> String {
    match zone().answer(&Name::from_ascii(name).expect("name"), kind) {
        Answer::Records { answers, .. } => {
            let mut all: Vec<String> = answers.iter().map(|r| r.data.to_string()).collect();
            all.sort();
            all.join(" | ")
        }
        Answer::NoData => "nodata".to_owned(),
        Answer::NoName => "nxdomain".to_owned(),
        Answer::Elsewhere => "elsewhere".to_owned(),
    }
}

#[test]
fn answers_as_the_specification_says() {
    use RecordType::{A, AAAA, PTR, SRV};
    let check = |name: &str, kind, expect: &str| assert_eq!(ask(name, kind), expect, "{name} {kind}");
    check("web.shop.svc.cluster.local.", A, "10.43.0.7");
    check("WEB.Shop.svc.cluster.local.", A, "10.43.0.7");
    check("web.shop.svc.cluster.local.", AAAA, "nodata");
    check("_http._tcp.web.shop.svc.cluster.local.", SRV, "0 100 80 web.shop.svc.cluster.local.");
    check("_tcp.web.shop.svc.cluster.local.", A, "nodata");
    check("shop.svc.cluster.local.", A, "nodata");
    check("none.shop.svc.cluster.local.", A, "nxdomain");
    check("web.shop.svc.cluster.local.shop.svc.cluster.local.", A, "nxdomain");
    check("db.shop.svc.cluster.local.", A, "10.42.0.2 | 10.42.0.3");
    check("db-0.db.shop.svc.cluster.local.", A, "10.42.0.2");
    check("10-42-0-3.db.shop.svc.cluster.local.", A, "10.42.0.3");
    check(
        "_sql._tcp.db.shop.svc.cluster.local.",
        SRV,
        "0 100 5432 10-42-0-3.db.shop.svc.cluster.local. | 0 100 5432 db-0.db.shop.svc.cluster.local.",
    );
    check("out.shop.svc.cluster.local.", A, "example.org.");
    check("10-42-0-9.shop.pod.cluster.local.", A, "10.42.0.9");
    check("nonsense.shop.pod.cluster.local.", A, "nxdomain");
    check("7.0.43.10.in-addr.arpa.", PTR, "web.shop.svc.cluster.local.");
    check("2.0.42.10.in-addr.arpa.", PTR, "db-0.db.shop.svc.cluster.local.");
    check("1.2.3.4.in-addr.arpa.", PTR, "elsewhere");
    check("example.org.", A, "elsewhere");
    check("notcluster.local.", A, "elsewhere");
}
