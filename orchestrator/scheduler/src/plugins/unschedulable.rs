//! NodeUnschedulable: a cordoned node takes only pods that tolerate it.

use apimachinery::placement::tolerates;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Taint};

use crate::snapshot::{NodeInfo, Resources};

pub(super) fn filter(_: &Pod, spec: &PodSpec, _: &Resources, node: &NodeInfo) -> Vec<String> {
    let cordoned = node.node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if cordoned && !tolerates(spec, &taint) {
        vec!["node(s) were unschedulable".to_owned()]
    } else {
        Vec::new()
    }
}
