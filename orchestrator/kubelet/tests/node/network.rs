//! Pods on the network: ports of the node, the node's own network, names, services.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::Scenario;
use crate::harness::{Bench, run, shell, shell_with};

pub(crate) fn scenarios(bench: &Arc<Bench>) -> Vec<Scenario> {
    crate::scenarios![bench, many_at_once, host_port, host_network, names, services]
}

fn ip(pod: &Pod) -> String {
    pod.status.as_ref().and_then(|s| s.pod_ip.clone()).expect("ip")
}

/// Pods that are made at once have an address each.
async fn many_at_once(bench: &Bench) {
    let names: Vec<String> = (0..12).map(|n| format!("many-{n}")).collect();
    for name in &names {
        bench.create(name, json!({"containers": shell("sleep 1000")})).await;
    }
    let mut ips = BTreeSet::new();
    for name in &names {
        ips.insert(ip(&bench.until_ready(name).await));
    }
    assert_eq!(ips.len(), names.len(), "{ips:?}");
    futures::future::join_all(names.iter().map(|n| bench.remove(n))).await;
}

async fn host_port(bench: &Bench) {
    let ports = json!({"ports": [{"containerPort": 8080, "hostPort": 18080}]});
    bench.create("hostport", json!({"containers": shell_with("nc -ll -p 8080 -e echo hello", ports)})).await;
    bench.until_ready("hostport").await;
    let gateway = bench.network_config().gateway();
    let mut text = String::new();
    // The shell may be running before nc listens.
    let said = async {
        while text.is_empty() {
            if let Ok(mut s) = TcpStream::connect((gateway, 18080)).await {
                s.read_to_string(&mut text).await.expect("read");
            }
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, said).await.expect("an answer");
    assert_eq!(text, "hello\n");
    bench.remove_within("hostport", 1).await;
    assert!(TcpStream::connect((gateway, 18080)).await.is_err());
}

async fn host_network(bench: &Bench) {
    let script = "readlink /proc/self/ns/net; head -1 /etc/hosts; tail -1 /etc/hosts; grep -c . /etc/resolv.conf; hostname";
    let spec = json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet",
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]});
    let text = bench.output("hostnet", spec, script).await;
    let ns = std::fs::read_link("/proc/thread-self/ns/net").expect("ns").display().to_string();
    let host = run("hostname", &[]);
    let expect = format!("{ns}\n# Kubernetes-managed hosts file (host network).\n1.2.3.4\ta\tb\n3\n{host}");
    assert_eq!(text, expect);
    bench.create("hostnetip", json!({"hostNetwork": true, "containers": shell("sleep 1000")})).await;
    assert_eq!(ip(&bench.until_ready("hostnetip").await), "127.0.0.1");
    bench.remove("hostnetip").await;
}

/// `/etc/hosts`, `/etc/resolv.conf` and the host name, as the spec asks for them.
async fn names(bench: &Bench) {
    let script = "hostname; cat /etc/hosts; cat /etc/resolv.conf";
    let spec = json!({"hostname": "me", "subdomain": "sub", "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["9.9.9.9"], "searches": ["x.org"], "options": [{"name": "ndots", "value": "2"}]},
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]});
    let text = bench.output("names", spec, script).await;
    assert!(text.starts_with("me\n# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{text}");
    assert!(text.contains(
        "\tme.sub.default.svc.cluster.local\tme\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
    ));
    assert!(text.ends_with("search x.org\nnameserver 9.9.9.9\noptions ndots:2\n"), "{text}");
    let text = bench.output("cluster-names", json!({}), "cat /etc/resolv.conf").await;
    assert!(text.starts_with("search default.svc.cluster.local svc.cluster.local cluster.local"), "{text}");
    assert!(text.ends_with("nameserver 10.143.0.10\noptions ndots:5\n"), "{text}");
}

async fn slice(bench: &Bench, service: &str, endpoints: Value) {
    bench
        .make::<EndpointSlice>(json!({
            "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}], "endpoints": endpoints}))
        .await;
}

async fn service(bench: &Bench, name: &str, spec: Value) -> Service {
    let mut all = json!({"ports": [{"name": "http", "port": 80}]});
    crate::harness::merge(&mut all, spec);
    bench.make(json!({"metadata": {"name": name}, "spec": all})).await
}

/// Services by name and by port of the node: in turn, sticky, refused, to oneself, headless, and by another name.
async fn services(bench: &Bench) {
    let stop = CancellationToken::new();
    let network = network::Network::start(bench.network_config(), bench.client.clone(), stop.clone());
    let network = network.await.expect("service network");
    let script = "hostname > /srv/index.html; httpd -f -p 80 -h /srv &
        until wget -qO- http://own/ 2>/dev/null; do usleep 100000; done; wait";
    for name in ["web-0", "web-1"] {
        bench.create(name, json!({"containers": shell(script)})).await;
    }
    let (a, b) = (ip(&bench.until_ready("web-0").await), ip(&bench.until_ready("web-1").await));
    let endpoint = |ip: &str, name: &str| json!({"addresses": [ip], "nodeName": "node", "hostname": name, "conditions": {"ready": true}});
    let both = json!([endpoint(&a, "web-0"), endpoint(&b, "web-1")]);
    let web = service(bench, "web", json!({"type": "NodePort"})).await;
    let node_port = web.spec.and_then(|s| s.ports).and_then(|p| p[0].node_port).expect("node port");
    slice(bench, "web", both.clone()).await;
    service(bench, "sticky", json!({"sessionAffinity": "ClientIP"})).await;
    slice(bench, "sticky", both.clone()).await;
    service(bench, "heads", json!({"clusterIP": "None"})).await;
    slice(bench, "heads", both).await;
    service(bench, "empty", json!({})).await;
    service(bench, "own", json!({})).await;
    slice(bench, "own", json!([endpoint(&a, "web-0")])).await;
    service(bench, "out", json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}))
        .await;

    // A pod that is its own service's only endpoint reaches itself.
    bench.until_log("web-0", "web-0").await;
    let gateway = bench.network_config().gateway();
    let script = format!(
        "until wget -qO- http://web/ > /dev/null 2>&1; do usleep 100000; done
        for i in 1 2 3 4 5 6 7 8; do wget -qO- http://web.default.svc.cluster.local/; done | sort | uniq -c
        for i in 1 2 3 4 5 6 7 8; do wget -qO- http://sticky/; done | sort | uniq -c | wc -l
        for i in 1 2 3 4; do wget -qO- http://{gateway}:{node_port}/; done | sort | uniq -c
        nc empty 80 < /dev/null 2>&1 | grep -o 'Connection refused'
        wget -qO- http://web-1.heads/
        nslookup -type=a heads.default.svc.cluster.local | grep -c '^Address: 10.142'
        nslookup -type=srv _http._tcp.heads.default.svc.cluster.local | grep -c 'service = 0 [0-9]* 80 web-'
        nslookup {dashed}.default.pod.cluster.local | grep '^Address: 10.142'
        wget -qO- http://out/ > /dev/null && echo out
        nslookup none.default.svc.cluster.local 2>&1 | grep -o NXDOMAIN | head -1",
        dashed = a.replace('.', "-")
    );
    let text = bench.output("client", json!({}), &script).await;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let expect = [
        "4 web-0",
        "4 web-1",
        "1",
        "2 web-0",
        "2 web-1",
        "Connection refused",
        "web-1",
        "2",
        "2",
        &format!("Address: {a}"),
        "out",
        "NXDOMAIN",
    ];
    assert_eq!(lines, expect);
    for name in ["web-0", "web-1"] {
        bench.remove(name).await;
    }
    stop.cancel();
    network.stopped().await;
}
