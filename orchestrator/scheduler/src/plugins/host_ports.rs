//! NodePorts: two pods cannot have the same port of one node.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::snapshot::{NodeInfo, Resources};

fn ports(spec: &PodSpec) -> impl Iterator<Item = (i32, &str, &str)> {
    spec.containers.iter().flat_map(|c| c.ports.iter().flatten()).filter_map(|p| {
        let port = p.host_port.filter(|n| *n > 0)?;
        Some((port, p.protocol.as_deref().unwrap_or("TCP"), p.host_ip.as_deref().unwrap_or("0.0.0.0")))
    })
}

pub(super) fn filter(_: &Pod, spec: &PodSpec, _: &Resources, node: &NodeInfo) -> Vec<String> {
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
    let taken =
        ports(spec).any(|(port, protocol, ip)| {
            node.pods.iter().filter_map(|p| p.spec.as_ref()).flat_map(ports).any(|(p, proto, other)| {
                p == port && proto == protocol && (any(ip) || any(other) || ip == other)
            })
        });
    if taken {
        vec!["node(s) didn't have free ports for the requested pod ports".to_owned()]
    } else {
        Vec::new()
    }
}
