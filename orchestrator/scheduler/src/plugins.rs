//! The plugins, in the order they are asked. One file each.

mod balanced;
mod host_ports;
mod node_affinity;
mod node_fit;
mod node_name;
mod spread;
mod taints;
mod unschedulable;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::snapshot::{NodeInfo, Resources};

/// Reasons why the node will not do; none if it will.
pub(crate) type Filter = fn(&Pod, &PodSpec, &Resources, &NodeInfo) -> Vec<String>;
/// 0 (worst) to 100 (best), given all nodes that will do.
pub(crate) type Score = fn(&Pod, &Resources, &NodeInfo, &[&NodeInfo]) -> i64;

pub(crate) const FILTERS: [(&str, Filter); 6] = [
    ("NodeUnschedulable", unschedulable::filter),
    ("NodeName", node_name::filter),
    ("TaintToleration", taints::filter),
    ("NodeAffinity", node_affinity::filter),
    ("NodePorts", host_ports::filter),
    ("NodeResourcesFit", node_fit::filter),
];

/// Name, weight, function.
pub(crate) const SCORES: [(&str, i64, Score); 4] = [
    ("NodeResourcesFit", 1, node_fit::score),
    ("NodeResourcesBalancedAllocation", 1, balanced::score),
    ("TaintToleration", 3, taints::score),
    ("PodTopologySpread", 2, spread::score),
];
