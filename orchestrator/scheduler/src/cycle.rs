//! One scheduling cycle: which node, or why none.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

use crate::snapshot::{NodeInfo, Resources, Snapshot, requests};
use crate::{plugins, volumes};

/// Why a node will not do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub node: String,
    pub plugin: &'static str,
    /// As upstream words it, such as `Insufficient cpu`.
    pub reason: String,
    /// It is the pod's own, whatever the node.
    #[serde(skip)]
    pub whole: bool,
}

/// What a cycle came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The node, with the score it won by.
    Node { name: String, score: i64 },
    /// Every node's verdicts.
    Unschedulable(Vec<Verdict>),
}

/// Chooses a node. Among equal scores the one with the smallest `tie_break` wins.
pub fn schedule(pod: &Pod, snapshot: &Snapshot, tie_break: impl Fn(&str) -> u64) -> Outcome {
    let spec = pod.spec.clone().unwrap_or_default();
    let requests: Resources = requests(&spec);
    let wants = match snapshot.volumes.wants(pod) {
        Ok(wants) => wants,
        Err(reason) => {
            let verdict = |node: &NodeInfo| Verdict {
                node: node.name.clone(),
                plugin: volumes::NAME,
                reason: reason.clone(),
                whole: true,
            };
            return Outcome::Unschedulable(snapshot.nodes.iter().map(verdict).collect());
        }
    };
    let mut verdicts = Vec::new();
    let mut feasible = Vec::new();
    for node in &snapshot.nodes {
        let before = verdicts.len();
        for (plugin, filter) in plugins::FILTERS {
            let refused = filter(pod, &spec, &requests, node);
            verdicts.extend(refused.into_iter().map(|reason| Verdict {
                node: node.name.clone(),
                plugin,
                reason,
                whole: false,
            }));
            // As upstream: the first plugin that refuses a node ends the filtering of that node.
            if verdicts.len() > before {
                break;
            }
        }
        if verdicts.len() > before {
            continue;
        }
        match snapshot.volumes.choose(&wants, &node.node) {
            Ok(_) => feasible.push(node),
            Err(reason) => verdicts.push(Verdict {
                node: node.name.clone(),
                plugin: volumes::NAME,
                reason,
                whole: false,
            }),
        }
    }
    let best = feasible.iter().map(|node| {
        let score: i64 = plugins::SCORES
            .iter()
            .map(|(_, weight, score)| weight * score(pod, &requests, node, &feasible))
            .sum();
        (score, node)
    });
    match best.max_by_key(|(score, node)| (*score, std::cmp::Reverse(tie_break(&node.name)))) {
        Some((score, node)) => Outcome::Node { name: node.name.clone(), score },
        None => Outcome::Unschedulable(verdicts),
    }
}

/// The sentence of the FailedScheduling event, as upstream's FitError says it.
pub(crate) fn message(nodes: usize, verdicts: &[Verdict]) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    if let Some(v) = verdicts.iter().find(|v| v.whole) {
        return format!("0/{nodes} nodes are available: {}.", v.reason);
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for v in verdicts {
        *counts.entry(&v.reason).or_default() += 1;
    }
    let mut parts: Vec<String> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, cpu: &str, extra: Value) -> Arc<k8s_openapi::api::core::v1::Node> {
        let mut v = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {},
            "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "3"}}
        });
        json_patch::merge(&mut v, &extra);
        Arc::new(serde_json::from_value(v).expect("a node"))
    }

    fn pod(spec: Value) -> Pod {
        let mut v = json!({"metadata": {"name": "p", "namespace": "n", "labels": {"app": "a"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}});
        json_patch::merge(&mut v["spec"], &spec);
        serde_json::from_value(v).expect("a pod")
    }

    fn place(pod: &Pod, nodes: &[Arc<k8s_openapi::api::core::v1::Node>], there: &[Arc<Pod>]) -> Outcome {
        schedule(pod, &Snapshot::new(nodes, there, |_| None), |n| n.len() as u64)
    }

    fn on(node: &str) -> Arc<Pod> {
        Arc::new(pod(json!({"nodeName": node})))
    }

    #[test]
    fn a_pod_goes_where_there_is_room_and_says_why_elsewhere_not() {
        let nodes = [
            node("full", "400m", json!({})),
            node(
                "tainted",
                "4",
                json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}}),
            ),
        ];
        let Outcome::Unschedulable(v) = place(&pod(json!({})), &nodes, &[]) else {
            panic!("it fits nowhere")
        };
        assert_eq!(
            message(2, &v),
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {gpu: yes}."
        );
        let tolerant = pod(json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]}));
        assert!(matches!(place(&tolerant, &nodes, &[]), Outcome::Node { name, .. } if name == "tainted"));
    }

    #[test]
    fn selectors_names_cordons_and_counts_are_kept() {
        let check = |spec: Value, extra: Value, there: &[Arc<Pod>], reason: &str| match place(
            &pod(spec),
            &[node("a", "4", extra)],
            there,
        ) {
            Outcome::Unschedulable(v) => assert_eq!(v[0].reason, reason),
            Outcome::Node { .. } => assert_eq!(reason, "", "it was placed"),
        };
        check(json!({}), json!({}), &[], "");
        check(
            json!({"nodeSelector": {"disk": "ssd"}}),
            json!({}),
            &[],
            "node(s) didn't match Pod's node affinity/selector",
        );
        check(
            json!({"nodeSelector": {"disk": "ssd"}}),
            json!({"metadata": {"labels": {"disk": "ssd"}}}),
            &[],
            "",
        );
        check(json!({"nodeName": "b"}), json!({}), &[], "node(s) didn't match the requested node name");
        check(json!({}), json!({"spec": {"unschedulable": true}}), &[], "node(s) were unschedulable");
        check(json!({}), json!({}), &[on("a"), on("a"), on("a")], "Too many pods");
    }

    #[test]
    fn pods_of_one_owner_spread_and_the_emptier_node_wins() {
        let nodes = [node("a", "4", json!({})), node("bb", "4", json!({}))];
        assert!(
            matches!(place(&pod(json!({})), &nodes, &[on("a")]), Outcome::Node { name, .. } if name == "bb")
        );
        assert!(
            matches!(place(&pod(json!({})), &nodes, &[on("bb")]), Outcome::Node { name, .. } if name == "a")
        );
    }
}
