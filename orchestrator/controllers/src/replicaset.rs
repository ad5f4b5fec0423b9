//! ReplicaSet: keeps as many pods as asked for.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::selector::Selector;
use apimachinery::trace::TRACEPARENT_ANNOTATION;
use client::{Change, Key, Reconcile, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::context::{Context, Error};
use crate::owner::{controller_of, controller_ref, is_controlled_by};
use crate::pod;
use crate::podcontrol::{self, PodControl};

/// Most pods created or deleted in one reconcile (kubernetes: BurstReplicas).
const BURST: usize = 500;

/// What to do about one ReplicaSet.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) create: usize,
    /// Names of pods.
    pub(crate) delete: Vec<String>,
    /// Names of pods without a controller that match the selector.
    pub(crate) adopt: Vec<String>,
    pub(crate) status: ReplicaSetStatus,
    /// When the status changes by itself, because a pod has then been ready long enough.
    pub(crate) look_again: Option<Timestamp>,
}

/// `pods` are those of the namespace that the selector matches or that name this set as controller.
pub(crate) fn plan(rs: &ReplicaSet, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let spec = rs.spec.clone().unwrap_or_default();
    let mut plan = Plan::default();
    let deleting = rs.metadata.deletion_timestamp.is_some();
    if !deleting {
        plan.adopt = pods
            .iter()
            .filter(|p| controller_of(&p.metadata).is_none() && pod::is_active(p))
            .map(|p| p.name_any())
            .collect();
    }
    let mut owned: Vec<&Arc<Pod>> =
        pods.iter().filter(|p| is_controlled_by(&p.metadata, rs) && pod::is_active(p)).collect();
    let want = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if !deleting {
        if owned.len() + plan.adopt.len() < want {
            plan.create = (want - owned.len() - plan.adopt.len()).min(BURST);
        } else if owned.len() > want {
            owned.sort_by(|a, b| pod::deletion_order(a, b));
            plan.delete = owned.iter().take((owned.len() - want).min(BURST)).map(|p| p.name_any()).collect();
        }
    }
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template = spec.template.and_then(|t| t.metadata).and_then(|m| m.labels).unwrap_or_default();
    let template = Selector::from_map(&template);
    let mut available = 0;
    for p in &owned {
        match pod::availability(p, min_ready, now) {
            Ok(true) => available += 1,
            Ok(false) => {}
            Err(due) => plan.look_again = Some(plan.look_again.map_or(due, |t| t.min(due))),
        }
    }
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    plan.status = ReplicaSetStatus {
        replicas: count(owned.len()),
        fully_labeled_replicas: Some(count(
            owned.iter().filter(|p| template.matches_labels(p.metadata.labels.as_ref())).count(),
        )),
        ready_replicas: Some(count(owned.iter().filter(|p| pod::is_ready(p)).count())),
        available_replicas: Some(available),
        observed_generation: rs.metadata.generation,
        conditions: rs.status.as_ref().and_then(|s| s.conditions.clone()),
        terminating_replicas: None,
    };
    plan
}

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("replicaset");
    let sets = context.informers.of::<ReplicaSet>();
    let pods = context.informers.of::<Pod>();
    let control = PodControl::new(context, "replicaset-controller");
    let (q, c) = (queue.clone(), control.clone());
    sets.on_change(move |change| {
        let key = Key::of(&**change.object());
        if change.new.is_none() {
            c.forget(&key);
        }
        q.add(key);
    });
    let (q, c, s) = (queue.clone(), control.clone(), sets.clone());
    pods.on_change(move |change| on_pod(change, &q, &c, &s));
    sets.synced().await;
    pods.synced().await;
    queue.run(2, stop, move |key| reconcile(control.clone(), key)).await;
}

fn on_pod(
    change: &Change<Pod>,
    queue: &Arc<WorkQueue<Key>>,
    control: &PodControl,
    sets: &client::Informer<ReplicaSet>,
) {
    let p = change.object();
    if let Some(owner) = control.observe(change, "ReplicaSet") {
        queue.add(owner);
    } else if change.new.is_some() && controller_of(&p.metadata).is_none() {
        for rs in sets.list_in(&p.namespace().unwrap_or_default()) {
            if selector(&rs).is_ok_and(|s| s.matches_labels(p.metadata.labels.as_ref())) {
                queue.add(Key::of(&*rs));
            }
        }
    }
}

fn selector(rs: &ReplicaSet) -> Result<Selector, Error> {
    Ok(Selector::from_label_selector(rs.spec.as_ref().map(|s| &s.selector))?)
}

async fn reconcile(c: Arc<PodControl>, key: Key) -> Result<Reconcile, Error> {
    let sets = c.context.informers.of::<ReplicaSet>();
    let Some(rs) = sets.get(&key) else { return Ok(Reconcile::Done) };
    let selector = selector(&rs)?;
    let pods: Vec<Arc<Pod>> = c
        .context
        .informers
        .of::<Pod>()
        .list_in(&key.namespace)
        .into_iter()
        .filter(|p| {
            is_controlled_by(&p.metadata, &*rs)
                || (!selector.is_nothing() && selector.matches_labels(p.metadata.labels.as_ref()))
        })
        .collect();
    let plan = plan(&rs, &pods, c.context.now());
    let work = plan.create > 0 || !plan.delete.is_empty() || !plan.adopt.is_empty();
    if work && c.satisfied(&key) {
        let span = tracing::info_span!("replicaset scale", namespace = %key.namespace, name = %key.name,
            create = plan.create, delete = plan.delete.len());
        if let Some(parent) = rs.annotations().get(TRACEPARENT_ANNOTATION) {
            telemetry::propagation::set_parent_from(&span, parent);
        }
        scale(&c, &rs, &key, &plan).instrument(span).await?;
    }
    update_status(&c.context, &rs, plan.status).await?;
    Ok(match plan.look_again {
        Some(at) => Reconcile::After(until(at, c.context.now())),
        None => Reconcile::Done,
    })
}

pub(crate) fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO) + Duration::from_millis(10)
}

async fn scale(c: &PodControl, rs: &ReplicaSet, key: &Key, plan: &Plan) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(c.context.client(), &key.namespace);
    for name in &plan.adopt {
        let patch = json!({"metadata": {"ownerReferences": [controller_ref(rs)]}});
        api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    }
    let template = rs.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    c.create(rs, key, vec![podcontrol::from_template(rs, template); plan.create]).await?;
    c.delete(rs, key, &plan.delete).await
}

async fn update_status(context: &Context, rs: &ReplicaSet, status: ReplicaSetStatus) -> Result<(), Error> {
    if rs.status.as_ref() == Some(&status) || rs.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let api: Api<ReplicaSet> = Api::namespaced(context.client(), &rs.namespace().unwrap_or_default());
    let patch = json!({"status": status});
    client::error::optional(
        api.patch_status(&rs.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "rs1", "generation": 3},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}}}
        }))
        .expect("a replica set")
    }

    fn a_pod(name: &str, ready: bool, owner: Option<&str>) -> Arc<Pod> {
        let owners: Vec<_> = owner
            .map(|u| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": u, "controller": true}))
            .into_iter()
            .collect();
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}, "ownerReferences": owners},
            "spec": {"containers": [], "nodeName": "n"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready {"True"} else {"False"}}]}
        }));
        Arc::new(pod.expect("a pod"))
    }

    fn at(s: &str) -> Timestamp {
        s.parse().expect("a time")
    }

    #[test]
    fn creates_what_is_missing_and_counts() {
        let p = plan(&set(3), &[a_pod("a", true, Some("rs1"))], at("2026-01-01T00:00:00Z"));
        assert_eq!((p.create, p.delete.len(), p.status.ready_replicas), (2, 0, Some(1)));
        assert_eq!(p.status.observed_generation, Some(3));
    }

    #[test]
    fn deletes_the_unready_first() {
        let pods =
            [a_pod("a", true, Some("rs1")), a_pod("b", false, Some("rs1")), a_pod("c", true, Some("rs1"))];
        let p = plan(&set(2), &pods, at("2026-01-01T00:00:00Z"));
        assert_eq!(p.delete, ["b"]);
    }

    #[test]
    fn adopts_orphans_instead_of_creating_and_leaves_foreign_pods_alone() {
        let pods = [a_pod("a", true, None), a_pod("b", true, Some("other"))];
        let p = plan(&set(1), &pods, at("2026-01-01T00:00:00Z"));
        assert_eq!((p.create, p.adopt, p.delete.len()), (0, vec!["a".to_owned()], 0));
    }

    #[test]
    fn a_set_that_is_being_deleted_does_nothing() {
        let mut rs = set(3);
        rs.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at("2026-01-01T00:00:00Z")));
        assert_eq!(plan(&rs, &[], at("2026-01-01T00:00:00Z")).create, 0);
    }
}
