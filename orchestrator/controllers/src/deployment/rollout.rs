//! The plan of a rollout: which ReplicaSet to make, grow, shrink or forget.
//!
//! Rules: kubernetes pkg/controller/deployment (rolling.go, sync.go, progress.go) and
//! util/deployment_util.go (ResolveFenceposts, NewRSNewReplicas).

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::context::Error;
use crate::owner::{controller_ref, is_controlled_by};

pub(crate) const HASH_LABEL: &str = "pod-template-hash";
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[derive(Debug, PartialEq)]
pub(super) enum Action {
    Create(Box<ReplicaSet>),
    Scale {
        name: String,
        from: i32,
        to: i32,
    },
    /// A merge patch of a ReplicaSet.
    PatchSet {
        name: String,
        patch: Value,
    },
    Delete {
        name: String,
    },
    /// A merge patch of the deployment itself.
    PatchDeployment(Value),
    Status(Box<DeploymentStatus>),
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) actions: Vec<Action>,
    pub(super) look_again: Option<Timestamp>,
}

/// True if the set was made from the deployment's present template.
pub(super) fn same_template(d: &Deployment, rs: &ReplicaSet) -> Result<bool, Error> {
    Ok(template_of(d)? == template_without_hash(rs)?)
}

fn template_of(d: &Deployment) -> Result<Value, Error> {
    Ok(serde_json::to_value(d.spec.as_ref().map(|s| &s.template))?)
}

fn template_without_hash(rs: &ReplicaSet) -> Result<Value, Error> {
    let mut template = rs.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    Ok(serde_json::to_value(template)?)
}

/// FNV-1a of the template and the collision count, in the letters that upstream uses for it.
pub(crate) fn template_hash(template: &Value, collisions: i32) -> String {
    struct Fnv(u32);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0.into()
        }
        fn write(&mut self, bytes: &[u8]) {
            for b in bytes {
                self.0 = (self.0 ^ u32::from(*b)).wrapping_mul(0x0100_0193);
            }
        }
    }
    let mut h = Fnv(0x811c_9dc5);
    h.write(template.to_string().as_bytes());
    h.write(&collisions.to_le_bytes());
    // Kubernetes' safe alphabet: no vowels, no 0, 1 or 3, so that no word can arise.
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    h.finish().to_string().bytes().map(|b| char::from(LETTERS[usize::from(b) % LETTERS.len()])).collect()
}

fn replicas(rs: &ReplicaSet) -> i32 {
    rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0)
}

fn available(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

fn revision(annotations: &BTreeMap<String, String>) -> i64 {
    annotations.get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// `maxSurge` and `maxUnavailable` as pods; both zero would never move, so then one may be missing.
fn fenceposts(spec: &DeploymentSpec) -> (i32, i32) {
    if strategy(spec) == "Recreate" {
        return (0, 0);
    }
    let want = spec.replicas.unwrap_or(1);
    let rolling = spec.strategy.as_ref().and_then(|s| s.rolling_update.clone()).unwrap_or_default();
    let quarter = IntOrString::String("25%".to_owned());
    let amount = |v: Option<IntOrString>, up: bool| match v.unwrap_or_else(|| quarter.clone()) {
        IntOrString::Int(n) => n,
        IntOrString::String(s) => {
            let percent: f64 = s.trim_end_matches('%').parse().unwrap_or(25.0);
            let n = percent * f64::from(want) / 100.0;
            (if up { n.ceil() } else { n.floor() }) as i32
        }
    };
    let surge = amount(rolling.max_surge, true);
    let unavailable = amount(rolling.max_unavailable, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

fn strategy(spec: &DeploymentSpec) -> &str {
    spec.strategy.as_ref().and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate")
}

/// `sets` are those the deployment controls, and those without controller that its selector matches.
pub(super) fn plan(d: &Deployment, sets: &[Arc<ReplicaSet>], now: Timestamp) -> Result<Plan, Error> {
    let spec = d.spec.clone().unwrap_or_default();
    let mut plan = Plan::default();
    for orphan in sets.iter().filter(|rs| !is_controlled_by(&rs.metadata, d)) {
        plan.actions.push(Action::PatchSet {
            name: orphan.name_any(),
            patch: json!({"metadata": {"ownerReferences": [controller_ref(d)]}}),
        });
    }
    let mut owned: Vec<&Arc<ReplicaSet>> =
        sets.iter().filter(|rs| is_controlled_by(&rs.metadata, d)).collect();
    owned.sort_by_key(|rs| (rs.metadata.creation_timestamp.as_ref().map(|t| t.0), rs.name_any()));
    let template = template_of(d)?;
    let mut new = None;
    for rs in &owned {
        if template_without_hash(rs)? == template {
            new = Some(*rs);
            break;
        }
    }
    let old: Vec<&Arc<ReplicaSet>> =
        owned.iter().copied().filter(|rs| new.is_none_or(|n| n.uid() != rs.uid())).collect();
    let want = spec.replicas.unwrap_or(1);
    let (surge, unavailable) = fenceposts(&spec);
    let newest_old = old.iter().map(|rs| revision(rs.annotations())).max().unwrap_or(0);
    let paused = spec.paused.unwrap_or(false);

    let mut made = None;
    match new {
        Some(rs) => {
            let rev = revision(rs.annotations());
            let rev = if rev > newest_old { rev } else { newest_old + 1 };
            plan.annotate(d, rs, rev, want, surge);
        }
        None if !paused => {
            let collisions = d.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
            let rs = new_set(d, &template_hash(&template, collisions), newest_old + 1, want, surge);
            let total: i32 = old.iter().map(|rs| replicas(rs)).sum();
            let first = match strategy(&spec) {
                "Recreate" if total > 0 || old.iter().any(|rs| current(rs) > 0) => 0,
                "Recreate" => want,
                _ => want.min((want + surge - total).max(0)),
            };
            let mut rs = rs;
            if let Some(s) = rs.spec.as_mut() {
                s.replicas = Some(first);
            }
            plan.set_revision(d, newest_old + 1);
            made = Some(first);
            plan.actions.push(Action::Create(Box::new(rs)));
        }
        None => {}
    }

    let scaling = owned.iter().any(|rs| replicas(rs) > 0 && desired(rs).is_some_and(|n| n != want));
    if paused || scaling && old.iter().any(|rs| replicas(rs) > 0) && new.is_some() {
        plan.scale_in_proportion(&owned, new, want, surge);
    } else if strategy(&spec) == "Recreate" {
        plan.recreate(new, &old, want);
    } else if let Some(new) = new {
        plan.roll(new, &old, want, surge, unavailable);
    }
    if !paused && made.is_none() {
        plan.forget_history(&old, &spec, new, want);
    }
    plan.status(d, &owned, new, want, unavailable, now);
    Ok(plan)
}

fn current(rs: &ReplicaSet) -> i32 {
    rs.status.as_ref().map_or(0, |s| s.replicas)
}

fn desired(rs: &ReplicaSet) -> Option<i32> {
    rs.annotations().get(DESIRED)?.parse().ok()
}

fn new_set(d: &Deployment, hash: &str, rev: i64, want: i32, surge: i32) -> ReplicaSet {
    let spec = d.spec.clone().unwrap_or_default();
    let mut template = spec.template;
    let meta = template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.to_owned());
    let labels = meta.labels.clone();
    let mut selector: LabelSelector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.to_owned());
    let mut annotations = d.annotations().clone();
    annotations.remove(LAST_APPLIED);
    annotations.insert(REVISION.to_owned(), rev.to_string());
    annotations.insert(DESIRED.to_owned(), want.to_string());
    annotations.insert(MAX.to_owned(), (want + surge).to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", d.name_any())),
            namespace: d.namespace(),
            labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(d)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

impl Plan {
    fn scale(&mut self, rs: &ReplicaSet, to: i32) {
        let from = replicas(rs);
        if from != to {
            self.actions.push(Action::Scale { name: rs.name_any(), from, to });
        }
    }

    fn set_revision(&mut self, d: &Deployment, rev: i64) {
        if revision(d.annotations()) != rev {
            self.actions.push(Action::PatchDeployment(
                json!({"metadata": {"annotations": {REVISION: rev.to_string()}}}),
            ));
        }
    }

    /// Keeps the present set's revision, sizes and `minReadySeconds` true.
    fn annotate(&mut self, d: &Deployment, rs: &ReplicaSet, rev: i64, want: i32, surge: i32) {
        let mut wanted = BTreeMap::from([
            (REVISION, rev.to_string()),
            (DESIRED, want.to_string()),
            (MAX, (want + surge).to_string()),
        ]);
        wanted.retain(|k, v| rs.annotations().get(*k) != Some(v));
        let min_ready = d.spec.as_ref().and_then(|s| s.min_ready_seconds);
        let other_min =
            rs.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0) != min_ready.unwrap_or(0);
        if !wanted.is_empty() || other_min {
            let mut patch = json!({"metadata": {"annotations": wanted}});
            if other_min {
                patch["spec"] = json!({"minReadySeconds": min_ready});
            }
            self.actions.push(Action::PatchSet { name: rs.name_any(), patch });
        }
        self.set_revision(d, rev);
    }

    /// The deployment was resized in the middle of a rollout, or is paused: each set keeps its share.
    fn scale_in_proportion(
        &mut self,
        owned: &[&Arc<ReplicaSet>],
        new: Option<&Arc<ReplicaSet>>,
        want: i32,
        surge: i32,
    ) {
        let active: Vec<_> = owned.iter().filter(|rs| replicas(rs) > 0).collect();
        if active.len() <= 1 {
            if let Some(rs) = active.first().map(|rs| **rs).or(new) {
                self.scale(rs, want);
            }
            return;
        }
        let total: i32 = active.iter().map(|rs| replicas(rs)).sum();
        let allowed = if want > 0 { want + surge } else { 0 };
        let mut left = allowed - total;
        let mut shares: Vec<(&Arc<ReplicaSet>, i32)> = active
            .iter()
            .map(|rs| {
                let share = f64::from(replicas(rs)) * f64::from(allowed) / f64::from(total);
                let delta = (share.round() as i32) - replicas(rs);
                let delta = if left >= 0 { delta.clamp(0, left) } else { delta.clamp(left, 0) };
                left -= delta;
                (**rs, replicas(rs) + delta)
            })
            .collect();
        if let Some(last) = shares.last_mut() {
            last.1 = (last.1 + left).max(0);
        }
        for (rs, to) in shares {
            self.scale(rs, to);
            let patch = json!({"metadata": {"annotations":
                {DESIRED: want.to_string(), MAX: (want + surge).to_string()}}});
            self.actions.push(Action::PatchSet { name: rs.name_any(), patch });
        }
    }

    fn recreate(&mut self, new: Option<&Arc<ReplicaSet>>, old: &[&Arc<ReplicaSet>], want: i32) {
        old.iter().filter(|rs| replicas(rs) > 0).for_each(|rs| self.scale(rs, 0));
        let old_gone = old.iter().all(|rs| replicas(rs) == 0 && current(rs) == 0);
        if let Some(new) = new.filter(|_| old_gone) {
            self.scale(new, want);
        }
    }

    fn roll(
        &mut self,
        new: &Arc<ReplicaSet>,
        old: &[&Arc<ReplicaSet>],
        want: i32,
        surge: i32,
        unavailable: i32,
    ) {
        let total: i32 = replicas(new) + old.iter().map(|rs| replicas(rs)).sum::<i32>();
        // Up: as far as the surge allows.
        if replicas(new) > want {
            self.scale(new, want);
            return;
        }
        if replicas(new) < want {
            let room = want + surge - total;
            if room > 0 {
                self.scale(new, replicas(new) + room.min(want - replicas(new)));
                return;
            }
        }
        // Down: unhealthy old pods first, then as many as may be missing.
        let old_total: i32 = old.iter().map(|rs| replicas(rs)).sum();
        if old_total == 0 {
            return;
        }
        let least = want - unavailable;
        let new_unavailable = replicas(new) - available(new);
        let mut may_go = (total - least - new_unavailable).max(0);
        let mut left: Vec<(&Arc<ReplicaSet>, i32)> = old.iter().map(|rs| (*rs, replicas(rs))).collect();
        for (rs, n) in &mut left {
            let unhealthy = (*n - available(rs)).max(0).min(may_go);
            *n -= unhealthy;
            may_go -= unhealthy;
        }
        let all_available = available(new) + old.iter().map(|rs| available(rs)).sum::<i32>();
        let mut healthy_may_go = (all_available - least).max(0);
        for (_, n) in &mut left {
            let go = (*n).min(healthy_may_go);
            *n -= go;
            healthy_may_go -= go;
        }
        left.iter().for_each(|(rs, n)| self.scale(rs, *n));
    }

    /// Deletes the oldest finished sets beyond `revisionHistoryLimit`.
    fn forget_history(
        &mut self,
        old: &[&Arc<ReplicaSet>],
        spec: &DeploymentSpec,
        new: Option<&Arc<ReplicaSet>>,
        want: i32,
    ) {
        if new.is_none_or(|n| replicas(n) != want || available(n) < want) {
            return;
        }
        let keep = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        let mut done: Vec<_> = old
            .iter()
            .filter(|rs| replicas(rs) == 0 && current(rs) == 0 && rs.metadata.deletion_timestamp.is_none())
            .collect();
        done.sort_by_key(|rs| revision(rs.annotations()));
        for rs in done.iter().take(done.len().saturating_sub(keep)) {
            self.actions.push(Action::Delete { name: rs.name_any() });
        }
    }

    fn status(
        &mut self,
        d: &Deployment,
        owned: &[&Arc<ReplicaSet>],
        new: Option<&Arc<ReplicaSet>>,
        want: i32,
        unavailable: i32,
        now: Timestamp,
    ) {
        let before = d.status.clone().unwrap_or_default();
        let sum = |f: fn(&ReplicaSet) -> i32| owned.iter().map(|rs| f(rs)).sum::<i32>();
        let total = sum(current);
        let ready = sum(|rs| rs.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0));
        let avail = sum(available);
        let updated = new.map_or(0, |rs| current(rs));
        let mut status = DeploymentStatus {
            observed_generation: d.metadata.generation,
            replicas: Some(total),
            updated_replicas: Some(updated),
            ready_replicas: Some(ready),
            available_replicas: Some(avail),
            unavailable_replicas: Some((sum(replicas) - avail).max(0)),
            collision_count: before.collision_count,
            conditions: before.conditions.clone(),
            terminating_replicas: before.terminating_replicas,
        };
        let conditions = status.conditions.get_or_insert_default();
        if avail >= want - unavailable {
            set_condition(
                conditions,
                "Available",
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.".to_owned(),
                now,
            );
        } else {
            set_condition(
                conditions,
                "Available",
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.".to_owned(),
                now,
            );
        }
        let complete = updated == want
            && total == want
            && avail == want
            && before.observed_generation >= d.metadata.generation;
        let name = new.map(|rs| rs.name_any());
        let deadline = d.spec.as_ref().and_then(|s| s.progress_deadline_seconds).unwrap_or(600);
        let moved = before.replicas.unwrap_or(0) != total
            || before.updated_replicas.unwrap_or(0) != updated
            || before.ready_replicas.unwrap_or(0) != ready
            || before.available_replicas.unwrap_or(0) != avail;
        let set = |what: &str| {
            name.as_ref().map_or_else(
                || format!("Deployment {:?} {what}.", d.name_any()),
                |n| format!("ReplicaSet {n:?} {what}."),
            )
        };
        let progressing = conditions.iter().find(|c| c.type_ == "Progressing").cloned();
        if complete {
            set_condition(
                conditions,
                "Progressing",
                "True",
                "NewReplicaSetAvailable",
                set("has successfully progressed"),
                now,
            );
        } else if new.is_none()
            || moved
            || progressing.is_none()
            || progressing
                .as_ref()
                .is_some_and(|p| p.reason.as_deref() == Some("NewReplicaSetAvailable") && updated < want)
        {
            let (reason, what) = if new.is_none() {
                (
                    "NewReplicaSetCreated",
                    format!("Created new replica set for deployment {:?}.", d.name_any()),
                )
            } else {
                ("ReplicaSetUpdated", set("is progressing"))
            };
            set_condition(conditions, "Progressing", "True", reason, what, now);
            if moved && let Some(c) = conditions.iter_mut().find(|c| c.type_ == "Progressing") {
                c.last_update_time = Some(Time(now));
            }
        } else if let Some(p) =
            progressing.filter(|p| p.reason.as_deref() != Some("ProgressDeadlineExceeded"))
        {
            let since = p.last_update_time.or(p.last_transition_time).map_or(now, |t| t.0);
            let due = since + SignedDuration::from_secs(deadline.into());
            if due <= now {
                set_condition(
                    conditions,
                    "Progressing",
                    "False",
                    "ProgressDeadlineExceeded",
                    set("has timed out progressing"),
                    now,
                );
            } else {
                self.look_again = Some(due);
            }
        }
        if status != before {
            self.actions.push(Action::Status(Box::new(status)));
        }
    }
}

fn set_condition(
    conditions: &mut Vec<DeploymentCondition>,
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    // The API keeps whole seconds.
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(c) => {
            if c.status == status
                && c.reason.as_deref() == Some(reason)
                && c.message.as_deref() == Some(&message)
            {
                return;
            }
            if c.status != status {
                c.last_transition_time = Some(now.clone());
            }
            status.clone_into(&mut c.status);
            c.reason = Some(reason.to_owned());
            c.message = Some(message);
            c.last_update_time = Some(now);
        }
        None => conditions.push(DeploymentCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(now.clone()),
            last_update_time: Some(now),
        }),
    }
}

#[cfg(test)]
mod tests;
