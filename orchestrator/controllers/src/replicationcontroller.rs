//! ReplicationController: the ReplicaSet of old, by the same plan (kubernetes: pkg/controller/replication).

use std::sync::Arc;

use apimachinery::selector::Selector;
use client::{Key, Reconcile, WorkQueue};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, ReplicationController, ReplicationControllerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Error};
use crate::owner::{controller_ref, is_controlled_by};
use crate::podcontrol::{self, PodControl};
use crate::replicaset::{plan, until};

/// The same wish as a ReplicaSet.
fn as_set(rc: &ReplicationController) -> ReplicaSet {
    let spec = rc.spec.clone().unwrap_or_default();
    ReplicaSet {
        metadata: rc.metadata.clone(),
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: spec.replicas,
            selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
            template: spec.template,
        }),
        status: None,
    }
}

fn status(set: &ReplicaSetStatus, old: Option<&ReplicationControllerStatus>) -> ReplicationControllerStatus {
    ReplicationControllerStatus {
        available_replicas: set.available_replicas,
        conditions: old.and_then(|s| s.conditions.clone()),
        fully_labeled_replicas: set.fully_labeled_replicas,
        observed_generation: set.observed_generation,
        ready_replicas: set.ready_replicas,
        replicas: set.replicas,
    }
}

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("replicationmanager");
    let all = context.informers.of::<ReplicationController>();
    let pods = context.informers.of::<Pod>();
    let control = PodControl::new(context, "replication-controller");
    let (q, c) = (queue.clone(), control.clone());
    all.on_change(move |change| {
        let key = Key::of(&**change.object());
        if change.new.is_none() {
            c.forget(&key);
        }
        q.add(key);
    });
    let (q, c, a) = (queue.clone(), control.clone(), all.clone());
    pods.on_change(move |change| {
        let p = change.object();
        if let Some(owner) = c.observe(change, "ReplicationController") {
            q.add(owner);
        } else if change.new.is_some() && p.owner_references().is_empty() {
            for rc in a.list_in(&p.namespace().unwrap_or_default()) {
                let selector = rc.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
                if !selector.is_empty()
                    && Selector::from_map(&selector).matches_labels(p.metadata.labels.as_ref())
                {
                    q.add(Key::of(&*rc));
                }
            }
        }
    });
    all.synced().await;
    pods.synced().await;
    queue.run(2, stop, move |key| reconcile(control.clone(), key)).await;
}

async fn reconcile(c: Arc<PodControl>, key: Key) -> Result<Reconcile, Error> {
    let Some(rc) = c.context.informers.of::<ReplicationController>().get(&key) else {
        return Ok(Reconcile::Done);
    };
    let selector = rc.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
    let matching = Selector::from_map(&selector);
    let mut pods = c.context.informers.of::<Pod>().list_in(&key.namespace);
    pods.retain(|p| {
        is_controlled_by(&p.metadata, &*rc)
            || !selector.is_empty() && matching.matches_labels(p.metadata.labels.as_ref())
    });
    let plan = plan(&as_set(&rc), &pods, c.context.now());
    let work = plan.create > 0 || !plan.delete.is_empty() || !plan.adopt.is_empty();
    if work && c.satisfied(&key) {
        let api: Api<Pod> = Api::namespaced(c.context.client(), &key.namespace);
        for name in &plan.adopt {
            let patch = json!({"metadata": {"ownerReferences": [controller_ref(&*rc)]}});
            api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        }
        let template = rc.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
        c.create(&*rc, &key, vec![podcontrol::from_template(&*rc, template); plan.create]).await?;
        c.delete(&*rc, &key, &plan.delete).await?;
    }
    let status = status(&plan.status, rc.status.as_ref());
    if rc.status.as_ref() != Some(&status) && rc.metadata.deletion_timestamp.is_none() {
        let api: Api<ReplicationController> = Api::namespaced(c.context.client(), &key.namespace);
        let patch = Patch::Merge(json!({"status": status}));
        client::error::optional(api.patch_status(&key.name, &PatchParams::default(), &patch).await)?;
    }
    Ok(match plan.look_again {
        Some(at) => Reconcile::After(until(at, c.context.now())),
        None => Reconcile::Done,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_as_a_replica_set() {
        let rc: ReplicationController = serde_json::from_value(json!({"metadata": {"name": "rc", "uid": "u", "generation": 4},
            "spec": {"replicas": 2, "selector": {"a": "b"}, "template": {"metadata": {"labels": {"a": "b"}}}}}))
        .expect("a controller");
        let p = plan(&as_set(&rc), &[], "2026-01-01T00:00:00Z".parse().expect("a time"));
        assert_eq!((p.create, status(&p.status, None).observed_generation), (2, Some(4)));
    }
}
