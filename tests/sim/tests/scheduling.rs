//! Random clusters: no node is ever overcommitted, no taint ignored, and a pod is refused only with every node's
//! reason named.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler::{Outcome, Snapshot, schedule};
use serde_json::json;
use sim::Random;

fn node(r: &mut Random, i: u64) -> Arc<Node> {
    let taints = if r.below(4) == 0 {
        json!([{"key": "own", "value": "x", "effect": "NoSchedule"}])
    } else {
        json!([])
    };
    let v = json!({
        "metadata": {"name": format!("n{i}"), "labels": {"zone": format!("z{}", r.below(3))}},
        "spec": {"taints": taints, "unschedulable": r.below(10) == 0},
        "status": {"allocatable": {"cpu": format!("{}", 1 + r.below(8)), "memory": "8Gi", "pods": format!("{}", 2 + r.below(10))}}
    });
    Arc::new(serde_json::from_value(v).expect("a node"))
}

fn pod(r: &mut Random, i: u64) -> Pod {
    let mut spec = json!({"containers": [{"name": "c", "resources":
        {"requests": {"cpu": format!("{}m", 100 * (1 + r.below(20))), "memory": "64Mi"}}}]});
    if r.below(3) == 0 {
        spec["tolerations"] = json!([{"key": "own", "operator": "Exists"}]);
    }
    if r.below(4) == 0 {
        spec["nodeSelector"] = json!({"zone": format!("z{}", r.below(3))});
    }
    serde_json::from_value(json!({"metadata": {"name": format!("p{i}"), "namespace": "n", "uid": format!("u{i}")}, "spec": spec}))
        .expect("a pod")
}

fn run(seed: u64) {
    let mut r = Random::new(seed);
    let nodes: Vec<Arc<Node>> = (0..1 + r.below(12)).map(|i| node(&mut r, i)).collect();
    let mut pods: Vec<Arc<Pod>> = Vec::new();
    for i in 0..60 {
        if r.below(5) == 0 && !pods.is_empty() {
            let gone = r.below(pods.len() as u64) as usize;
            pods.remove(gone);
        }
        let mut p = pod(&mut r, i);
        let snapshot = Snapshot::new(&nodes, &pods, |_| None);
        let ties = r.draw();
        match schedule(&p, &snapshot, |n| ties ^ n.len() as u64) {
            Outcome::Node { name, .. } => {
                p.spec.as_mut().expect("a spec").node_name = Some(name);
                pods.push(Arc::new(p));
            }
            Outcome::Unschedulable(verdicts) => {
                let named: std::collections::BTreeSet<_> = verdicts.iter().map(|v| v.node.clone()).collect();
                assert_eq!(named.len(), nodes.len(), "seed {seed}: every node has a verdict");
            }
        }
        check(seed, &nodes, &pods);
    }
}

fn check(seed: u64, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) {
    let snapshot = Snapshot::new(nodes, pods, |_| None);
    for n in &snapshot.nodes {
        let limits: BTreeMap<_, _> = n.allocatable.0.iter().collect();
        for (resource, used) in &n.requested.0 {
            assert!(used <= limits[resource], "seed {seed}: {} has {used} of {resource} taken", n.name);
        }
        assert!(
            n.pods.len() as i64 <= n.allocatable.get("pods"),
            "seed {seed}: {} has too many pods",
            n.name
        );
        let spec = n.node.spec.clone().unwrap_or_default();
        assert!(
            !spec.unschedulable.unwrap_or(false) || n.pods.is_empty(),
            "seed {seed}: {} is cordoned",
            n.name
        );
        let tainted = spec.taints.is_some_and(|t| !t.is_empty());
        let tolerated = n.pods.iter().all(|p| p.spec.as_ref().is_some_and(|s| s.tolerations.is_some()));
        assert!(!tainted || tolerated, "seed {seed}: {} is tainted", n.name);
    }
}

#[test]
fn two_hundred_histories() {
    (0..200).for_each(run);
}
