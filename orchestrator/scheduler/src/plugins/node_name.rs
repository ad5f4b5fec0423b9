//! NodeName: a pod that names its node fits nowhere else.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::snapshot::{NodeInfo, Resources};

pub(super) fn filter(_: &Pod, spec: &PodSpec, _: &Resources, node: &NodeInfo) -> Vec<String> {
    match spec.node_name.as_deref() {
        None | Some("") => Vec::new(),
        Some(name) if name == node.name => Vec::new(),
        Some(_) => vec!["node(s) didn't match the requested node name".to_owned()],
    }
}
