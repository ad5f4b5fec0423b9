//! What the nodes offer and what is taken of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::volumes::Volumes;

/// Amounts of resources: CPU in millicores, everything else in its own unit (bytes, pods, devices).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources(pub BTreeMap<String, i64>);

impl Resources {
    /// Text that is no quantity counts as nothing: the API server has refused it before.
    fn from_quantities(map: Option<&BTreeMap<String, Quantity>>) -> Self {
        let amounts = map.into_iter().flatten().filter_map(|(name, q)| {
            let amount: Amount = q.0.parse().ok()?;
            Some((name.clone(), if name == "cpu" { amount.milli() } else { amount.value() }))
        });
        Resources(amounts.collect())
    }

    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn add(&mut self, other: &Resources) {
        for (name, n) in &other.0 {
            *self.0.entry(name.clone()).or_default() += n;
        }
    }

    fn max(&mut self, other: &Resources) {
        for (name, n) in &other.0 {
            let mine = self.0.entry(name.clone()).or_default();
            *mine = (*mine).max(*n);
        }
    }
}

/// What a pod asks for: its containers together, or its largest init container, plus the overhead
/// (KEP-753: sidecars run beside all that come after them).
pub(crate) fn requests(spec: &PodSpec) -> Resources {
    let of =
        |c: &Container| Resources::from_quantities(c.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let mut total = Resources::default();
    spec.containers.iter().for_each(|c| total.add(&of(c)));
    let mut sidecars = Resources::default();
    let mut init = Resources::default();
    for c in spec.init_containers.iter().flatten() {
        let mut here = sidecars.clone();
        here.add(&of(c));
        if c.restart_policy.as_deref() == Some("Always") {
            sidecars = here.clone();
        }
        init.max(&here);
    }
    total.add(&sidecars);
    total.max(&init);
    total.add(&Resources::from_quantities(spec.overhead.as_ref()));
    total
}

/// One node and the pods on it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub node: Arc<Node>,
    pub name: String,
    pub allocatable: Resources,
    pub requested: Resources,
    pub pods: Vec<Arc<Pod>>,
}

impl NodeInfo {
    pub fn new(node: Arc<Node>) -> Self {
        NodeInfo {
            name: node.metadata.name.clone().unwrap_or_default(),
            allocatable: Resources::from_quantities(
                node.status.as_ref().and_then(|s| s.allocatable.as_ref()),
            ),
            requested: Resources::default(),
            pods: Vec::new(),
            node,
        }
    }

    pub fn add(&mut self, pod: Arc<Pod>) {
        if let Some(spec) = &pod.spec {
            self.requested.add(&requests(spec));
        }
        self.pods.push(pod);
    }
}

/// All nodes at one moment, in order of name.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub nodes: Vec<NodeInfo>,
    /// What the claims of the pod at hand are about.
    pub volumes: Volumes,
}

impl Snapshot {
    /// `assumed` names the node of pods whose binding is on its way.
    pub fn new(nodes: &[Arc<Node>], pods: &[Arc<Pod>], assumed: impl Fn(&Pod) -> Option<String>) -> Self {
        let mut by_name: BTreeMap<String, NodeInfo> = nodes
            .iter()
            .filter(|n| n.metadata.deletion_timestamp.is_none())
            .map(|n| NodeInfo::new(n.clone()))
            .map(|n| (n.name.clone(), n))
            .collect();
        for pod in pods {
            let finished = pod
                .status
                .as_ref()
                .is_some_and(|s| matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")));
            let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty());
            if !finished
                && let Some(name) = node.or_else(|| assumed(pod))
                && let Some(info) = by_name.get_mut(&name)
            {
                info.add(pod.clone());
            }
        }
        Snapshot { nodes: by_name.into_values().collect(), volumes: Volumes::default() }
    }
}
