//! TaintToleration: taints a pod does not tolerate keep it away, or make a node worse.

use apimachinery::placement::{tolerates, untolerated};
use k8s_openapi::api::core::v1::{Pod, PodSpec, Taint};

use crate::snapshot::{NodeInfo, Resources};

fn taints(node: &NodeInfo) -> impl Iterator<Item = &Taint> {
    node.node.spec.as_ref().and_then(|s| s.taints.as_ref()).into_iter().flatten()
}

pub(super) fn filter(_: &Pod, spec: &PodSpec, _: &Resources, node: &NodeInfo) -> Vec<String> {
    untolerated(spec, &node.node, &["NoSchedule", "NoExecute"])
        .map(|t| format!("node(s) had untolerated taint {{{}: {}}}", t.key, t.value.as_deref().unwrap_or("")))
        .into_iter()
        .collect()
}

pub(super) fn score(pod: &Pod, _: &Resources, node: &NodeInfo, feasible: &[&NodeInfo]) -> i64 {
    let spec = pod.spec.clone().unwrap_or_default();
    let count =
        |n: &NodeInfo| taints(n).filter(|t| t.effect == "PreferNoSchedule" && !tolerates(&spec, t)).count();
    let most = feasible.iter().map(|n| count(n)).max().unwrap_or(0);
    ((most - count(node)) * 100).checked_div(most).map_or(100, |share| share as i64)
}
