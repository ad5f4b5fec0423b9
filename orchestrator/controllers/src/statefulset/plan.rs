//! What to do about one stateful set. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::pod;
use crate::revisions::HASH;

/// Names of the revisions a set is between.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Revisions {
    pub(super) current: String,
    pub(super) update: String,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Ordinals, and whether by the new revision.
    pub(super) create: Vec<(i32, bool)>,
    /// Names of pods.
    pub(super) delete: Vec<String>,
    pub(super) status: StatefulSetStatus,
    pub(super) revisions: Revisions,
    pub(super) look_again: Option<Timestamp>,
}

fn ordinal(set: &str, p: &Pod) -> Option<i32> {
    p.name_any().strip_prefix(set)?.strip_prefix('-')?.parse().ok()
}

/// `pods` are those the set controls; `update` names the revision of its present template.
pub(super) fn plan(set: &StatefulSet, update: &str, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let spec = set.spec.clone().unwrap_or_default();
    let old = set.status.clone().unwrap_or_default();
    let current = old.current_revision.clone().filter(|r| !r.is_empty()).unwrap_or_else(|| update.to_owned());
    let want = spec.replicas.unwrap_or(1);
    let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    let places = start..start.saturating_add(want);
    let name = set.name_any();
    let mut by_ordinal: BTreeMap<i32, &Arc<Pod>> = BTreeMap::new();
    for p in pods {
        if let Some(n) = ordinal(&name, p) {
            by_ordinal.insert(n, p);
        }
    }
    let mut plan = Plan {
        revisions: Revisions { current: current.clone(), update: update.to_owned() },
        ..Plan::default()
    };
    let is_of = |p: &Pod, revision: &str| p.labels().get(HASH).is_some_and(|h| h == revision);
    let alive = |p: &Pod| p.metadata.deletion_timestamp.is_none();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let mut available: BTreeMap<i32, bool> = BTreeMap::new();
    for (n, p) in &by_ordinal {
        let is = match pod::availability(p, min_ready, now) {
            Ok(is) => is && alive(p),
            Err(due) => {
                plan.look_again = Some(plan.look_again.map_or(due, |t| t.min(due)));
                false
            }
        };
        available.insert(*n, is);
    }
    status(&mut plan, set, &by_ordinal, &available, (&current, update));
    let one_by_one = spec.pod_management_policy.as_deref() != Some("Parallel");
    let strategy = spec.update_strategy.as_ref();
    let on_delete = strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete");
    let partition = strategy.and_then(|s| s.rolling_update.as_ref()?.partition).unwrap_or(0);
    // What has its place: made from below, replaced where it failed.
    for n in places.clone() {
        match by_ordinal.get(&n) {
            None => {
                let is_update = current == update || !on_delete && n - start >= partition;
                plan.create.push((n, is_update));
            }
            Some(p) if alive(p) && matches!(pod::phase(p), "Failed" | "Succeeded") => {
                plan.delete.push(p.name_any())
            }
            Some(p) if alive(p) && available[&n] => continue,
            Some(_) => {}
        }
        if one_by_one {
            return plan;
        }
    }
    // What has none any more goes from above.
    for p in by_ordinal.iter().rev().filter(|(n, _)| !places.contains(n)).map(|(_, p)| p) {
        if alive(p) {
            plan.delete.push(p.name_any());
        }
        if one_by_one {
            return plan;
        }
    }
    if !plan.create.is_empty() || !plan.delete.is_empty() || on_delete {
        return plan;
    }
    // An update goes from above too, and waits for each pod.
    for (n, p) in by_ordinal.iter().rev() {
        if n - start < partition {
            break;
        }
        if !is_of(p, update) {
            if alive(p) {
                plan.delete.push(p.name_any());
            }
            break;
        }
        if !available[n] {
            break;
        }
    }
    plan
}

fn status(
    plan: &mut Plan,
    set: &StatefulSet,
    by_ordinal: &BTreeMap<i32, &Arc<Pod>>,
    available: &BTreeMap<i32, bool>,
    (current, update): (&str, &str),
) {
    let count = |keep: &dyn Fn(&Pod) -> bool| {
        i32::try_from(by_ordinal.values().filter(|p| keep(p)).count()).unwrap_or(i32::MAX)
    };
    let of = |p: &Pod, revision: &str| p.labels().get(HASH).is_some_and(|h| h == revision);
    let replicas = count(&|_| true);
    let updated = count(&|p| of(p, update) && p.metadata.deletion_timestamp.is_none());
    let ready = count(&pod::is_ready);
    let want = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    // Everyone has moved: the new revision is the current one.
    let moved = current != update && updated == replicas && replicas == want && ready == replicas;
    let current = if moved { update } else { current };
    plan.revisions.current = current.to_owned();
    plan.status = StatefulSetStatus {
        available_replicas: Some(
            i32::try_from(available.values().filter(|a| **a).count()).unwrap_or(i32::MAX),
        ),
        collision_count: Some(set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0)),
        conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
        current_replicas: Some(count(&|p| of(p, current))),
        current_revision: Some(current.to_owned()),
        observed_generation: set.metadata.generation,
        ready_replicas: Some(ready),
        replicas,
        update_revision: Some(update.to_owned()),
        updated_replicas: Some(updated),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(replicas: i32, spec: Value, current: &str) -> StatefulSet {
        let mut all = json!({"replicas": replicas, "selector": {}, "serviceName": "s", "template": {}});
        for (k, v) in spec.as_object().expect("fields") {
            all[k] = v.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "db", "uid": "u", "generation": 1}, "spec": all,
            "status": {"replicas": 0, "currentRevision": current}}))
        .expect("a set")
    }

    fn a_pod(n: i32, revision: &str, ready: bool) -> Arc<Pod> {
        let is = if ready { "True" } else { "False" };
        let p = json!({"metadata": {"name": format!("db-{n}"), "labels": {HASH: revision}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": is}]}});
        Arc::new(serde_json::from_value(p).expect("a pod"))
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    #[test]
    fn pods_are_made_in_order_each_behind_the_one_that_is_ready() {
        let s = set(3, json!({}), "r1");
        assert_eq!(plan(&s, "r1", &[], now()).create, [(0, true)]);
        assert_eq!(plan(&s, "r1", &[a_pod(0, "r1", false)], now()).create, []);
        assert_eq!(plan(&s, "r1", &[a_pod(0, "r1", true)], now()).create, [(1, true)]);
        let parallel = set(3, json!({"podManagementPolicy": "Parallel"}), "r1");
        assert_eq!(plan(&parallel, "r1", &[], now()).create.len(), 3);
    }

    #[test]
    fn fewer_go_from_above_one_by_one() {
        let pods = [a_pod(0, "r1", true), a_pod(1, "r1", true), a_pod(2, "r1", true)];
        assert_eq!(plan(&set(1, json!({}), "r1"), "r1", &pods, now()).delete, ["db-2"]);
    }

    #[test]
    fn updates_go_from_above_to_the_partition() {
        let s = set(3, json!({}), "r1");
        let all = [a_pod(0, "r1", true), a_pod(1, "r1", true), a_pod(2, "r1", true)];
        assert_eq!(plan(&s, "r2", &all, now()).delete, ["db-2"]);
        let some = [a_pod(0, "r1", true), a_pod(1, "r1", true), a_pod(2, "r2", true)];
        assert_eq!(plan(&s, "r2", &some, now()).delete, ["db-1"]);
        let part = set(
            3,
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}),
            "r1",
        );
        assert_eq!(plan(&part, "r2", &some, now()).delete, Vec::<String>::new());
        // A place below the partition that is empty gets the old template.
        assert_eq!(plan(&part, "r2", &some[1..], now()).create, [(0, false)]);
        let done = [a_pod(0, "r2", true), a_pod(1, "r2", true), a_pod(2, "r2", true)];
        assert_eq!(plan(&s, "r2", &done, now()).status.current_revision.as_deref(), Some("r2"));
    }
}
