//! NodeResourcesFit: there must be room; the emptier node is better (LeastAllocated).

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::snapshot::{NodeInfo, Resources};

pub(super) fn filter(_: &Pod, _: &PodSpec, requests: &Resources, node: &NodeInfo) -> Vec<String> {
    let mut reasons = Vec::new();
    let most = node.allocatable.get("pods");
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) + 1 > most {
        reasons.push("Too many pods".to_owned());
    }
    for (name, wanted) in requests.0.iter().filter(|(_, n)| **n > 0) {
        if *wanted > node.allocatable.get(name) - node.requested.get(name) {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    reasons
}

pub(super) fn score(_: &Pod, requests: &Resources, node: &NodeInfo, _: &[&NodeInfo]) -> i64 {
    let free = |name: &str| {
        let all = node.allocatable.get(name);
        let taken = node.requested.get(name) + requests.get(name);
        if all <= 0 || taken > all { 0 } else { (all - taken) * 100 / all }
    };
    i64::midpoint(free("cpu"), free("memory"))
}
