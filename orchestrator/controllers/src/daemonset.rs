//! DaemonSet: one pod on every node that fits (kubernetes: pkg/controller/daemon).

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::placement::{fits_affinity, untolerated};
use apimachinery::workload::scaled;
use client::{Key, Reconcile, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Error};
use crate::owner::is_controlled_by;
use crate::podcontrol::{self, PodControl};
use crate::replicaset::until;
use crate::{pod, revisions};

/// Most pods created or deleted in one reconcile.
const BURST: usize = 250;

#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// Names of nodes.
    create: Vec<String>,
    /// Names of pods.
    delete: Vec<String>,
    status: DaemonSetStatus,
    look_again: Option<Timestamp>,
}

/// What keeps a daemon's pod nowhere (kubernetes: pkg/controller/daemon/util AddOrUpdateDaemonPodTolerations).
fn tolerate(spec: &mut PodSpec) {
    let all = spec.tolerations.get_or_insert_default();
    let mut add = |key: &str, effect: &str| {
        let t = Toleration {
            key: Some(format!("node.kubernetes.io/{key}")),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !all.contains(&t) {
            all.push(t);
        }
    };
    add("not-ready", "NoExecute");
    add("unreachable", "NoExecute");
    for pressure in ["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"] {
        add(pressure, "NoSchedule");
    }
    if spec.host_network == Some(true) {
        add("network-unavailable", "NoSchedule");
    }
}

fn spec_of(ds: &DaemonSet) -> PodSpec {
    let mut spec = ds.spec.as_ref().and_then(|s| s.template.spec.clone()).unwrap_or_default();
    tolerate(&mut spec);
    spec
}

/// Whether a pod should be made there, and whether one that is there may stay.
fn wants(spec: &PodSpec, node: &Node) -> (bool, bool) {
    let named = spec.node_name.as_deref().is_none_or(|n| n.is_empty() || n == node.name_any());
    let fits = named && fits_affinity(spec, node);
    let run = fits && untolerated(spec, node, &["NoSchedule", "NoExecute"]).is_none();
    (run, fits && untolerated(spec, node, &["NoExecute"]).is_none())
}

/// The node a pod is on, or is meant for.
fn node_of(p: &Pod) -> Option<String> {
    let spec = p.spec.as_ref()?;
    if let Some(n) = spec.node_name.as_ref().filter(|n| !n.is_empty()) {
        return Some(n.clone());
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let field = terms.first()?.match_fields.as_ref()?.first()?;
    (field.key == "metadata.name").then(|| field.values.as_ref()?.first().cloned())?
}

/// `pods` are those the set controls; `hash` is that of its present template.
fn plan(ds: &DaemonSet, hash: &str, nodes: &[Arc<Node>], pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let spec = spec_of(ds);
    let set = ds.spec.clone().unwrap_or_default();
    let mut by_node: BTreeMap<String, Vec<&Arc<Pod>>> = BTreeMap::new();
    for p in pods {
        by_node.entry(node_of(p).unwrap_or_default()).or_default().push(p);
    }
    let mut plan = Plan::default();
    let status = &mut plan.status;
    status.observed_generation = ds.metadata.generation;
    status.collision_count = ds.status.as_ref().and_then(|s| s.collision_count);
    let min_ready = set.min_ready_seconds.unwrap_or(0);
    let (mut updated, mut available, mut unavailable) = (0, 0, 0);
    // Pods of an old template that may be replaced, those that serve nobody first.
    let mut old: Vec<(bool, String)> = Vec::new();
    for node in nodes {
        let (run, stay) = wants(&spec, node);
        let here = by_node.remove(&node.name_any()).unwrap_or_default();
        if !run {
            if !here.is_empty() {
                status.number_misscheduled += 1;
            }
            if !stay {
                plan.delete.extend(here.iter().filter(|p| alive(p)).map(|p| p.name_any()));
            }
            continue;
        }
        status.desired_number_scheduled += 1;
        // A pod that failed makes room; the oldest of several stays.
        let (mut kept, mut leaving): (Vec<&Arc<Pod>>, bool) = (Vec::new(), false);
        for p in here {
            if p.metadata.deletion_timestamp.is_some() {
                leaving = true;
            } else if pod::phase(p) == "Failed" {
                plan.delete.push(p.name_any());
                leaving = true;
            } else {
                kept.push(p);
            }
        }
        kept.sort_by_key(|p| (p.metadata.creation_timestamp.as_ref().map(|t| t.0), p.name_any()));
        plan.delete.extend(kept.iter().skip(1).map(|p| p.name_any()));
        let Some(p) = kept.first() else {
            unavailable += 1;
            if !leaving {
                plan.create.push(node.name_any());
            }
            continue;
        };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pod::is_ready(p));
        let is_available = match pod::availability(p, min_ready, now) {
            Ok(is) => is,
            Err(due) => {
                plan.look_again = Some(plan.look_again.map_or(due, |t| t.min(due)));
                false
            }
        };
        available += i32::from(is_available);
        unavailable += i32::from(!is_available);
        if p.labels().get(revisions::HASH).is_some_and(|h| h == hash) {
            updated += 1;
        } else {
            old.push((is_available, p.name_any()));
        }
    }
    // Nodes that are gone take theirs along.
    plan.delete.extend(by_node.values().flatten().filter(|p| alive(p)).map(|p| p.name_any()));
    status.updated_number_scheduled = Some(updated);
    status.number_available = Some(available).filter(|n| *n > 0);
    status.number_unavailable = Some(status.desired_number_scheduled - available).filter(|n| *n > 0);
    replace(&mut plan, &set, old, unavailable);
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    plan
}

fn alive(p: &Pod) -> bool {
    p.metadata.deletion_timestamp.is_none()
}

/// A rolling update deletes as many old pods as may be missing at once; those that are missing anyway come first.
fn replace(
    plan: &mut Plan,
    set: &k8s_openapi::api::apps::v1::DaemonSetSpec,
    mut old: Vec<(bool, String)>,
    unavailable: i32,
) {
    let strategy = set.update_strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return;
    }
    let desired = plan.status.desired_number_scheduled;
    let most = strategy
        .and_then(|s| s.rolling_update.as_ref()?.max_unavailable.as_ref())
        .map_or(1, |m| scaled(m, desired, true));
    let mut room = most.max(1) - unavailable;
    old.sort();
    for (is_available, name) in old {
        if !is_available {
            plan.delete.push(name);
        } else if room > 0 {
            room -= 1;
            plan.delete.push(name);
        }
    }
}

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("daemonset");
    let sets = context.informers.of::<DaemonSet>();
    let pods = context.informers.of::<Pod>();
    let nodes = context.informers.of::<Node>();
    let control = PodControl::new(context, "daemonset-controller");
    control.queue_owners(&sets, &pods, &queue);
    let (q, s) = (queue.clone(), sets.clone());
    nodes.on_change(move |change| {
        // Heartbeats change nothing here.
        let what = |n: &Option<Arc<Node>>| {
            n.as_ref().map(|n| (n.metadata.labels.clone(), n.spec.as_ref().and_then(|s| s.taints.clone())))
        };
        if what(&change.old) != what(&change.new) {
            s.list().iter().for_each(|d| q.add(Key::of(&**d)));
        }
    });
    sets.synced().await;
    pods.synced().await;
    nodes.synced().await;
    control.context.informers.of::<k8s_openapi::api::apps::v1::ControllerRevision>().synced().await;
    queue.run(2, stop, move |key| reconcile(control.clone(), key)).await;
}

async fn reconcile(c: Arc<PodControl>, key: Key) -> Result<Reconcile, Error> {
    let Some(ds) = c.context.informers.of::<DaemonSet>().get(&key) else { return Ok(Reconcile::Done) };
    if ds.metadata.deletion_timestamp.is_some() {
        return Ok(Reconcile::Done);
    }
    let mut pods = c.context.informers.of::<Pod>().list_in(&key.namespace);
    pods.retain(|p| is_controlled_by(&p.metadata, &*ds));
    let spec = ds.spec.clone().unwrap_or_default();
    let limit = spec.revision_history_limit.unwrap_or(10);
    let revision = revisions::sync(&c.context, &*ds, &spec.template, &pods, limit).await?;
    let hash = revisions::hash_of(&revision);
    let nodes = c.context.informers.of::<Node>().list();
    let plan = plan(&ds, hash, &nodes, &pods, c.context.now());
    if (!plan.create.is_empty() || !plan.delete.is_empty()) && c.satisfied(&key) {
        let made = plan.create.iter().map(|node| pod_for(&ds, hash, node)).collect();
        c.create(&*ds, &key, made).await?;
        c.delete(&*ds, &key, &plan.delete).await?;
    }
    if ds.status.as_ref() != Some(&plan.status) {
        let api: Api<DaemonSet> = Api::namespaced(c.context.client(), &key.namespace);
        let mut status = serde_json::to_value(&plan.status)?;
        // Absent would leave what was there.
        for field in ["numberAvailable", "numberUnavailable"] {
            if status.get(field).is_none() {
                status[field] = serde_json::Value::Null;
            }
        }
        let patch = Patch::Merge(json!({"status": status}));
        client::error::optional(api.patch_status(&key.name, &PatchParams::default(), &patch).await)?;
    }
    Ok(match plan.look_again {
        Some(at) => Reconcile::After(until(at, c.context.now())),
        None => Reconcile::Done,
    })
}

/// A pod that the scheduler can put on this node only.
fn pod_for(ds: &DaemonSet, hash: &str, node: &str) -> Pod {
    let template = ds.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let mut p = podcontrol::from_template(ds, template);
    p.labels_mut().insert(revisions::HASH.to_owned(), hash.to_owned());
    let spec = p.spec.get_or_insert_default();
    tolerate(spec);
    let is_node = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity =
        spec.affinity.get_or_insert_default().node_affinity.get_or_insert_with(NodeAffinity::default);
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(|| NodeSelector { node_selector_terms: Vec::new() });
    // The terms were asked when the node was chosen: the name alone is left.
    required.node_selector_terms =
        vec![NodeSelectorTerm { match_fields: Some(vec![is_node]), ..NodeSelectorTerm::default() }];
    p
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> DaemonSet {
        serde_json::from_value(json!({"metadata": {"name": "d", "namespace": "n", "uid": "u", "generation": 2},
            "spec": {"selector": {}, "template": {"spec": {"containers": [], "nodeSelector": {"disk": "yes"}}}}}))
        .expect("a set")
    }

    fn node(name: &str, disk: bool, taint: Option<&str>) -> Arc<Node> {
        let taints: Vec<_> = taint.into_iter().map(|t| json!({"key": t, "effect": "NoSchedule"})).collect();
        let labels = if disk { json!({"disk": "yes"}) } else { json!({}) };
        let n = json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
        Arc::new(serde_json::from_value(n).expect("a node"))
    }

    fn a_pod(name: &str, node: &str, hash: &str, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        let p = json!({"metadata": {"name": name, "labels": {revisions::HASH: hash}}, "spec": {"containers": [], "nodeName": node},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
        Arc::new(serde_json::from_value(p).expect("a pod"))
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    #[test]
    fn one_on_each_node_that_fits() {
        let nodes = [
            node("a", true, None),
            node("b", false, None),
            node("c", true, Some("gpu")),
            node("d", true, Some("node.kubernetes.io/unschedulable")),
        ];
        let p =
            plan(&set(), "h", &nodes, &[a_pod("x", "b", "h", true), a_pod("y", "gone", "h", true)], now());
        assert_eq!(
            (p.create.as_slice(), p.delete.as_slice()),
            (&["a".to_owned(), "d".to_owned()][..], &["x".to_owned(), "y".to_owned()][..])
        );
        assert_eq!((p.status.desired_number_scheduled, p.status.number_misscheduled), (2, 1));
    }

    #[test]
    fn updates_roll_one_by_one() {
        let nodes = [node("a", true, None), node("b", true, None)];
        let old = [a_pod("x", "a", "old", true), a_pod("y", "b", "old", true)];
        assert_eq!(plan(&set(), "h", &nodes, &old, now()).delete, ["x"]);
        let half = [a_pod("z", "a", "h", false), a_pod("y", "b", "old", true)];
        assert_eq!(plan(&set(), "h", &nodes, &half, now()).delete, Vec::<String>::new());
        let half = [a_pod("z", "a", "h", true), a_pod("y", "b", "old", true)];
        let p = plan(&set(), "h", &nodes, &half, now());
        assert_eq!(
            (p.delete.as_slice(), p.status.updated_number_scheduled),
            (&["y".to_owned()][..], Some(1))
        );
    }

    #[test]
    fn pods_are_made_for_their_node() {
        assert_eq!(node_of(&pod_for(&set(), "h", "a")).as_deref(), Some("a"));
    }
}
