//! Disruption: how many pods of each budget may be away now (kubernetes: pkg/controller/disruption).

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::selector::Selector;
use apimachinery::workload::scaled;
use client::{Key, Reconcile, WorkQueue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Error};
use crate::pod;
use crate::replicaset::until;

/// An eviction whose pod is still there after this long did not happen.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);

/// `pods` are those the budget selects; `expected` is how many their controllers want.
fn plan(
    pdb: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: i32,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Timestamp>) {
    let spec = pdb.spec.clone().unwrap_or_default();
    let old = pdb.status.clone().unwrap_or_default();
    let (mut disrupted, mut look_again) = (BTreeMap::new(), None::<Timestamp>);
    for (name, since) in old.disrupted_pods.iter().flatten() {
        let due = since.0 + DELETION_TIMEOUT;
        let there = pods.iter().any(|p| p.name_any() == *name && p.metadata.deletion_timestamp.is_none());
        if there && due > now {
            disrupted.insert(name.clone(), since.clone());
            look_again = Some(look_again.map_or(due, |t| t.min(due)));
        }
    }
    let healthy = pods.iter().filter(|p| {
        p.metadata.deletion_timestamp.is_none() && !disrupted.contains_key(&p.name_any()) && pod::is_ready(p)
    });
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let current = count(healthy.count());
    let (expected, desired) = match (&spec.min_available, &spec.max_unavailable) {
        (_, Some(max)) => (expected, expected - scaled(max, expected, true)),
        // A number needs no controller to be compared with.
        (Some(IntOrString::Int(n)), None) => (count(pods.len()), *n),
        (Some(min), None) => (expected, scaled(min, expected, true)),
        (None, None) => (count(pods.len()), 0),
    };
    let desired = desired.max(0);
    let allowed = (current - desired).max(0);
    let allowed = if expected <= 0 { 0 } else { allowed };
    let mut conditions = old.conditions.unwrap_or_default();
    let (word, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let known = conditions.iter().position(|c| c.type_ == "DisruptionAllowed");
    let changed = known.is_none_or(|i| conditions[i].status != word);
    let since = match known {
        Some(i) if !changed => conditions[i].last_transition_time.clone(),
        _ => Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
    };
    conditions.retain(|c| c.type_ != "DisruptionAllowed");
    conditions.push(Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: word.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        last_transition_time: since,
        observed_generation: pdb.metadata.generation,
    });
    let status = PodDisruptionBudgetStatus {
        conditions: Some(conditions),
        current_healthy: current,
        desired_healthy: desired,
        disrupted_pods: Some(disrupted).filter(|d| !d.is_empty()),
        disruptions_allowed: allowed,
        expected_pods: expected,
        observed_generation: pdb.metadata.generation,
    };
    (status, look_again)
}

fn selects(pdb: &PodDisruptionBudget, p: &Pod) -> bool {
    let selector = pdb.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_some()
        && Selector::from_label_selector(selector).is_ok_and(|s| s.matches_labels(p.metadata.labels.as_ref()))
}

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("disruption");
    let pdbs = context.informers.of::<PodDisruptionBudget>();
    let pods = context.informers.of::<Pod>();
    let q = queue.clone();
    pdbs.on_change(move |c| q.add(Key::of(&**c.object())));
    let (q, b) = (queue.clone(), pdbs.clone());
    pods.on_change(move |c| {
        let p = c.object();
        for pdb in b.list_in(&p.namespace().unwrap_or_default()) {
            if selects(&pdb, p) || c.old.as_ref().is_some_and(|old| selects(&pdb, old)) {
                q.add(Key::of(&*pdb));
            }
        }
    });
    pdbs.synced().await;
    pods.synced().await;
    queue
        .run(1, stop, move |key| {
            let context = context.clone();
            async move { reconcile(&context, key).await }
        })
        .await;
}

async fn reconcile(context: &Context, key: Key) -> Result<Reconcile, Error> {
    let Some(pdb) = context.informers.of::<PodDisruptionBudget>().get(&key) else {
        return Ok(Reconcile::Done);
    };
    let mut pods = context.informers.of::<Pod>().list_in(&key.namespace);
    pods.retain(|p| selects(&pdb, p) && !matches!(pod::phase(p), "Succeeded" | "Failed"));
    let expected = expected(context, &pods);
    let (status, look_again) = plan(&pdb, &pods, expected, context.now());
    if pdb.status.as_ref() != Some(&status) {
        let api: Api<PodDisruptionBudget> = Api::namespaced(context.client(), &key.namespace);
        // With the revision it was computed from: an eviction in between must not be forgotten.
        let mut new = (*pdb).clone();
        new.status = Some(status);
        client::error::unless_newer(api.replace_status(&key.name, &PostParams::default(), &new).await)?;
    }
    Ok(match look_again {
        Some(at) => Reconcile::After(until(at, context.now())),
        None => Reconcile::Done,
    })
}

/// What the pods' controllers want in sum; a pod without one counts for itself.
fn expected(context: &Context, pods: &[Arc<Pod>]) -> i32 {
    use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
    let mut wanted: BTreeMap<String, i32> = BTreeMap::new();
    for p in pods {
        let namespace = p.namespace().unwrap_or_default();
        let own = || (p.uid().unwrap_or_default(), 1);
        let (uid, n) = match crate::owner::controller_of(&p.metadata) {
            None => own(),
            Some(o) => {
                let key = Key::new(&namespace, &o.name);
                let replicas = match o.kind.as_str() {
                    "ReplicaSet" => {
                        let set = context.informers.of::<ReplicaSet>().get(&key);
                        set.and_then(|s| s.spec.as_ref()?.replicas)
                    }
                    "StatefulSet" => {
                        let set = context.informers.of::<StatefulSet>().get(&key);
                        set.and_then(|s| s.spec.as_ref()?.replicas)
                    }
                    _ => None,
                };
                replicas.map_or_else(own, |n| (o.uid.clone(), n))
            }
        };
        wanted.insert(uid, n);
    }
    wanted.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pdb(spec: Value, status: Value) -> PodDisruptionBudget {
        let p = json!({"metadata": {"name": "p", "generation": 1}, "spec": spec, "status": status});
        serde_json::from_value(p).expect("a budget")
    }

    fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
        let one = |i: usize| {
            let is = if i < ready { "True" } else { "False" };
            let p = json!({"metadata": {"name": format!("p{i}")}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": is}]}});
            Arc::new(serde_json::from_value(p).expect("a pod"))
        };
        (0..ready + unready).map(one).collect()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    #[test]
    fn allowances() {
        let check = |spec: Value, ready: usize, unready: usize, expect: (i32, i32, i32)| {
            let all = pods(ready, unready);
            let (s, _) = plan(&pdb(spec.clone(), json!(null)), &all, all.len() as i32, now());
            assert_eq!((s.disruptions_allowed, s.current_healthy, s.desired_healthy), expect, "{spec}");
        };
        check(json!({"minAvailable": 2}), 3, 0, (1, 3, 2));
        check(json!({"minAvailable": 2}), 2, 1, (0, 2, 2));
        check(json!({"minAvailable": "50%"}), 3, 0, (1, 3, 2));
        check(json!({"maxUnavailable": 1}), 3, 0, (1, 3, 2));
        check(json!({"maxUnavailable": "50%"}), 3, 0, (2, 3, 1));
        check(json!({"minAvailable": 1}), 0, 0, (0, 0, 1));
    }

    #[test]
    fn evicted_pods_count_as_gone_until_they_are_or_are_not() {
        let status = |since: &str| {
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
            "disruptedPods": {"p0": since, "gone": since}})
        };
        let (s, again) =
            plan(&pdb(json!({"minAvailable": 1}), status("2025-12-31T23:59:30Z")), &pods(2, 0), 2, now());
        assert_eq!(
            (s.disruptions_allowed, s.disrupted_pods.map(|d| d.len()), again.is_some()),
            (0, Some(1), true)
        );
        let (s, _) =
            plan(&pdb(json!({"minAvailable": 1}), status("2025-12-31T23:50:00Z")), &pods(2, 0), 2, now());
        assert_eq!((s.disruptions_allowed, s.disrupted_pods), (1, None));
    }
}
