//! Node lifecycle: a node whose Lease is not renewed becomes Unknown, is tainted, and its pods are evicted
//! when they tolerate that no longer (kubernetes: pkg/controller/nodelifecycle and tainteviction).

use std::time::Duration;

use client::{Key, Reconcile, WorkQueue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Error};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that a silent node can no longer vouch for.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
#[derive(Debug, Default, PartialEq)]
struct Plan {
    conditions: Option<Vec<NodeCondition>>,
    taints: Option<Vec<Taint>>,
    look_again: Option<Timestamp>,
}

/// `renewed` is the Lease's last renewal.
fn plan(node: &Node, renewed: Option<Timestamp>, grace: SignedDuration, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let created = node.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let due = renewed.unwrap_or(created).max(created) + grace;
    let silent = due <= now;
    let mut conditions = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    if silent {
        for c in
            conditions.iter_mut().filter(|c| CONDITIONS.contains(&c.type_.as_str()) && c.status != "Unknown")
        {
            "Unknown".clone_into(&mut c.status);
            c.reason = Some("NodeStatusUnknown".to_owned());
            c.message = Some("Kubelet stopped posting node status.".to_owned());
            c.last_transition_time = Some(Time(now));
            plan.conditions = Some(Vec::new());
        }
        for type_ in CONDITIONS {
            if !conditions.iter().any(|c| c.type_ == type_) {
                conditions.push(NodeCondition {
                    type_: type_.to_owned(),
                    status: "Unknown".to_owned(),
                    reason: Some("NodeStatusNeverUpdated".to_owned()),
                    message: Some("Kubelet never posted node status.".to_owned()),
                    last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                    last_transition_time: Some(Time(now)),
                });
                plan.conditions = Some(Vec::new());
            }
        }
    } else {
        plan.look_again = Some(due);
    }
    let ready = conditions.iter().find(|c| c.type_ == "Ready").map_or("Unknown", |c| c.status.as_str());
    let key = match ready {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    };
    let before = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let mut after: Vec<Taint> = before
        .iter()
        .filter(|t| (t.key != NOT_READY && t.key != UNREACHABLE) || Some(t.key.as_str()) == key)
        .cloned()
        .collect();
    let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
    let by_cordon = |t: &Taint| t.key == UNSCHEDULABLE && t.effect == "NoSchedule";
    if !cordoned {
        after.retain(|t| !by_cordon(t));
    } else if !after.iter().any(by_cordon) {
        after.push(Taint {
            key: UNSCHEDULABLE.to_owned(),
            effect: "NoSchedule".to_owned(),
            time_added: Some(Time(now)),
            value: None,
        });
    }
    for effect in ["NoSchedule", "NoExecute"] {
        if let Some(key) = key
            && !after.iter().any(|t| t.key == key && t.effect == effect)
        {
            after.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: (effect == "NoExecute").then_some(Time(now)),
                value: None,
            });
        }
    }
    if plan.conditions.is_some() {
        plan.conditions = Some(conditions);
    }
    if after != before {
        plan.taints = Some(after);
    }
    plan
}

/// When a pod must leave a node with these taints: `None` if it may stay.
fn eviction_time(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.clone()).unwrap_or_default();
    taints
        .iter()
        .filter(|t| t.effect == "NoExecute")
        .filter_map(|taint| {
            let since = taint.time_added.as_ref().map_or(now, |t| t.0);
            let mut seconds: Option<i64> = None;
            for t in tolerations.iter().filter(|t| tolerates(t, taint)) {
                // Tolerated without end.
                let s = t.toleration_seconds?;
                seconds = Some(seconds.map_or(s, |m| m.min(s)));
            }
            Some(since + SignedDuration::from_secs(seconds.unwrap_or(0).max(0)))
        })
        .min()
}

fn tolerates(t: &k8s_openapi::api::core::v1::Toleration, taint: &Taint) -> bool {
    let effect = t.effect.as_deref().unwrap_or("");
    let key = t.key.as_deref().unwrap_or("");
    let exists = t.operator.as_deref() == Some("Exists");
    (effect.is_empty() || effect == taint.effect)
        && (key == taint.key || key.is_empty() && exists)
        && (exists || t.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""))
}

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("node-lifecycle");
    let nodes = context.informers.of::<Node>();
    let pods = context.informers.of::<Pod>();
    let q = queue.clone();
    nodes.on_change(move |c| q.add(Key::of(&**c.object())));
    nodes.synced().await;
    pods.synced().await;
    queue.run(1, stop, move |key| reconcile(context.clone(), key)).await;
}

async fn reconcile(context: Context, key: Key) -> Result<Reconcile, Error> {
    let Some(node) = context.informers.of::<Node>().get(&key) else { return Ok(Reconcile::Done) };
    // The Lease is read, not watched: it changes every few seconds and matters once in a grace period.
    let leases: Api<Lease> = Api::namespaced(context.client(), "kube-node-lease");
    let renewed = leases.get_opt(&key.name).await?.and_then(|l| l.spec?.renew_time).map(|t| t.0);
    let now = context.now();
    let grace = SignedDuration::try_from(context.config.node_monitor_grace_period)
        .unwrap_or(SignedDuration::from_secs(40));
    let plan = plan(&node, renewed, grace, now);
    let api: Api<Node> = Api::all(context.client());
    let params = PatchParams::default();
    if let Some(conditions) = plan.conditions {
        tracing::warn!(node = %key.name, "node is silent, its conditions are now unknown");
        let patch = json!({"status": {"conditions": conditions}});
        api.patch_status(&key.name, &params, &Patch::Merge(patch)).await?;
    }
    let taints = match plan.taints {
        Some(taints) => {
            api.patch(&key.name, &params, &Patch::Merge(json!({"spec": {"taints": taints}}))).await?;
            taints
        }
        None => node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default(),
    };
    let mut next = plan.look_again;
    for p in context.informers.of::<Pod>().list() {
        let here = p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&key.name);
        if !here || p.metadata.deletion_timestamp.is_some() {
            continue;
        }
        match eviction_time(&p, &taints, now) {
            Some(at) if at <= now => {
                let pods: Api<Pod> = Api::namespaced(context.client(), &p.namespace().unwrap_or_default());
                client::error::optional(
                    pods.delete(&p.name_any(), &DeleteParams::default()).await.map(drop),
                )?;
                tracing::info!(node = %key.name, pod = %p.name_any(), "deleted a pod that does not tolerate its node's taints");
            }
            Some(at) => next = Some(next.map_or(at, |n| n.min(at))),
            None => {}
        }
    }
    Ok(next.map_or(Reconcile::Done, |at| {
        Reconcile::After(crate::replicaset::until(at, now).max(Duration::from_secs(1)))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: &str) -> Timestamp {
        format!("2026-01-01T00:{s}Z").parse().expect("a time")
    }

    fn node(ready: &str, taints: serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}
        }))
        .expect("a node")
    }

    #[test]
    fn a_silent_node_becomes_unknown_and_tainted() {
        let grace = SignedDuration::from_secs(40);
        let p = plan(&node("True", json!([])), Some(at("00:10")), grace, at("00:30"));
        assert_eq!((p.conditions, p.taints, p.look_again), (None, None, Some(at("00:50"))));
        let p = plan(&node("True", json!([])), Some(at("00:10")), grace, at("00:51"));
        assert_eq!(p.conditions.expect("conditions")[0].status, "Unknown");
        assert_eq!(p.taints.expect("taints").len(), 2);
    }

    #[test]
    fn a_node_that_was_never_heard_of_is_unknown() {
        let node: Node = serde_json::from_value(
            json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"}}),
        )
        .expect("a node");
        let p = plan(&node, None, SignedDuration::from_secs(40), at("00:50"));
        let all: Vec<_> =
            p.conditions.expect("conditions").into_iter().map(|c| (c.type_, c.reason)).collect();
        let never = Some("NodeStatusNeverUpdated".to_owned());
        assert_eq!(all, CONDITIONS.map(|c| (c.to_owned(), never.clone())));
        assert_eq!(plan(&node, None, SignedDuration::from_secs(40), at("00:30")).conditions, None);
    }

    #[test]
    fn a_cordoned_node_is_tainted_until_it_is_uncordoned() {
        let grace = SignedDuration::from_secs(40);
        let mut cordoned = node("True", json!([]));
        cordoned.spec.as_mut().expect("a spec").unschedulable = Some(true);
        let taints = plan(&cordoned, Some(at("00:10")), grace, at("00:20")).taints.expect("taints");
        let all: Vec<_> = taints.iter().map(|t| (t.key.as_str(), t.effect.as_str())).collect();
        assert_eq!(all, [(UNSCHEDULABLE, "NoSchedule")]);
        let back = node("True", json!([{"key": UNSCHEDULABLE, "effect": "NoSchedule"}]));
        assert_eq!(plan(&back, Some(at("00:10")), grace, at("00:20")).taints, Some(Vec::new()));
    }

    #[test]
    fn a_node_that_is_back_loses_its_taints() {
        let tainted =
            json!([{"key": UNREACHABLE, "effect": "NoExecute"}, {"key": "own", "effect": "NoSchedule"}]);
        let p = plan(&node("True", tainted), Some(at("00:10")), SignedDuration::from_secs(40), at("00:20"));
        let left: Vec<_> = p.taints.expect("taints").into_iter().map(|t| t.key).collect();
        assert_eq!(left, ["own"]);
    }

    #[test]
    fn pods_stay_as_long_as_they_tolerate() {
        let check = |tolerations: serde_json::Value, expect: Option<Timestamp>| {
            let p: Pod =
                serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}}))
                    .expect("a pod");
            let taint = Taint {
                key: UNREACHABLE.to_owned(),
                effect: "NoExecute".to_owned(),
                time_added: Some(Time(at("01:00"))),
                value: None,
            };
            assert_eq!(eviction_time(&p, &[taint], at("02:00")), expect);
        };
        check(json!([]), Some(at("01:00")));
        check(
            json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]),
            Some(at("06:00")),
        );
        check(json!([{"operator": "Exists"}]), None);
    }
}
