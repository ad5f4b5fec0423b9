//! NodeResourcesBalancedAllocation: CPU and memory should run out together.

use k8s_openapi::api::core::v1::Pod;

use crate::snapshot::{NodeInfo, Resources};

pub(super) fn score(_: &Pod, requests: &Resources, node: &NodeInfo, _: &[&NodeInfo]) -> i64 {
    let fraction = |name: &str| {
        let all = node.allocatable.get(name);
        if all <= 0 {
            1.0
        } else {
            ((node.requested.get(name) + requests.get(name)) as f64 / all as f64).min(1.0)
        }
    };
    // The standard deviation of two numbers is half their distance.
    let deviation = (fraction("cpu") - fraction("memory")).abs() / 2.0;
    ((1.0 - deviation) * 100.0) as i64
}
