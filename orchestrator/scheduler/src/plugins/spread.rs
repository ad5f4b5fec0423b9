//! PodTopologySpread: pods of one controller go to nodes that have the fewest of them.

use k8s_openapi::api::core::v1::Pod;

use crate::snapshot::{NodeInfo, Resources};

pub(super) fn score(pod: &Pod, _: &Resources, node: &NodeInfo, feasible: &[&NodeInfo]) -> i64 {
    let owner = |p: &Pod| {
        let refs = p.metadata.owner_references.as_deref()?;
        refs.iter().find(|o| o.controller == Some(true)).map(|o| o.uid.clone())
    };
    let Some(mine) = owner(pod) else { return 100 };
    let count = |n: &NodeInfo| n.pods.iter().filter(|p| owner(p).as_deref() == Some(&mine)).count();
    let most = feasible.iter().map(|n| count(n)).max().unwrap_or(0);
    ((most - count(node)) * 100).checked_div(most).map_or(100, |share| share as i64)
}
