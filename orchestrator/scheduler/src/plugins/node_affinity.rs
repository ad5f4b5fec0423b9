//! NodeAffinity: `nodeSelector` and the required terms of `affinity.nodeAffinity`.

use apimachinery::placement;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::snapshot::{NodeInfo, Resources};

pub(super) fn filter(_: &Pod, spec: &PodSpec, _: &Resources, node: &NodeInfo) -> Vec<String> {
    if placement::fits_affinity(spec, &node.node) {
        Vec::new()
    } else {
        vec!["node(s) didn't match Pod's node affinity/selector".to_owned()]
    }
}
