//! Deployment: rolls a template out through ReplicaSets.
//!
//! The pure part is in [`rollout`]; this file reads the cache, carries out the plan and tells of it.

mod rollout;

use std::sync::Arc;

use apimachinery::selector::Selector;
use apimachinery::trace::TRACEPARENT_ANNOTATION;
use client::{EventRecorder, Key, Reconcile, WorkQueue};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::context::{Context, Error};
use crate::owner::{controller_of, is_controlled_by};
use crate::replicaset::until;
pub(crate) use rollout::template_hash;
use rollout::{Action, plan};

struct Controller {
    context: Context,
    recorder: EventRecorder,
}

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("deployment");
    let deployments = context.informers.of::<Deployment>();
    let sets = context.informers.of::<ReplicaSet>();
    let q = queue.clone();
    deployments.on_change(move |c| q.add(Key::of(&**c.object())));
    let q = queue.clone();
    sets.on_change(move |c| {
        let rs = c.object();
        if let Some(o) = controller_of(&rs.metadata).filter(|o| o.kind == "Deployment") {
            q.add(Key::new(rs.namespace().unwrap_or_default(), &o.name));
        }
    });
    deployments.synced().await;
    sets.synced().await;
    let controller = Arc::new(Controller { recorder: context.recorder("deployment-controller"), context });
    queue.run(2, stop, move |key| reconcile(controller.clone(), key)).await;
}

async fn reconcile(c: Arc<Controller>, key: Key) -> Result<Reconcile, Error> {
    let Some(d) = c.context.informers.of::<Deployment>().get(&key) else { return Ok(Reconcile::Done) };
    if d.metadata.deletion_timestamp.is_some() {
        return Ok(Reconcile::Done);
    }
    let selector = Selector::from_label_selector(d.spec.as_ref().map(|s| &s.selector))?;
    let sets: Vec<Arc<ReplicaSet>> = c
        .context
        .informers
        .of::<ReplicaSet>()
        .list_in(&key.namespace)
        .into_iter()
        .filter(|rs| {
            is_controlled_by(&rs.metadata, &*d)
                || (controller_of(&rs.metadata).is_none()
                    && !selector.is_nothing()
                    && selector.matches_labels(rs.metadata.labels.as_ref()))
        })
        .collect();
    let plan = plan(&d, &sets, c.context.now())?;
    if !plan.actions.is_empty() {
        let span = tracing::info_span!("deployment roll out", namespace = %key.namespace, name = %key.name,
            actions = plan.actions.len());
        // Keeping the status true is no station of the change that was asked for.
        let only_status = plan.actions.iter().all(|a| matches!(a, Action::Status(_)));
        let parent = d.annotations().get(TRACEPARENT_ANNOTATION).filter(|_| !only_status);
        if let Some(parent) = parent {
            telemetry::propagation::set_parent_from(&span, parent);
        }
        let span = if only_status { tracing::Span::none() } else { span };
        c.carry_out(&d, &key, plan.actions).instrument(span).await?;
    }
    Ok(match plan.look_again {
        Some(at) => Reconcile::After(until(at, c.context.now())),
        None => Reconcile::Done,
    })
}

impl Controller {
    async fn carry_out(&self, d: &Deployment, key: &Key, actions: Vec<Action>) -> Result<(), Error> {
        let client = self.context.client();
        let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), &key.namespace);
        let deployments: Api<Deployment> = Api::namespaced(client, &key.namespace);
        let params = PatchParams::default();
        for action in actions {
            match action {
                Action::Create(mut rs) => {
                    if let Some(trace) = telemetry::propagation::current_traceparent() {
                        rs.annotations_mut().insert(TRACEPARENT_ANNOTATION.to_owned(), trace);
                    }
                    let replicas = rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
                    match sets.create(&PostParams::default(), &rs).await {
                        Ok(made) => self.scaled(d, "up", &made.name_any(), 0, replicas).await,
                        // The cache is behind: the next reconcile sees the set, or the hash collides with
                        // another template's and the count in the status makes the next one differ.
                        Err(e) if client::error::is_already_exists(&e) => {
                            let there = sets.get(&rs.name_any()).await?;
                            if !is_controlled_by(&there.metadata, d) || !rollout::same_template(d, &there)? {
                                let n = d.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0) + 1;
                                let patch = json!({"status": {"collisionCount": n}});
                                deployments.patch_status(&key.name, &params, &Patch::Merge(patch)).await?;
                            }
                        }
                        Err(e) => return Err(e.into()),
                    }
                }
                Action::Scale { name, from, to } => {
                    let patch = json!({"spec": {"replicas": to}});
                    let there = sets.patch(&name, &params, &Patch::Merge(patch)).await;
                    if client::error::optional(there)?.is_some() {
                        self.scaled(d, if to > from { "up" } else { "down" }, &name, from, to).await;
                    }
                }
                Action::PatchSet { name, patch } => {
                    client::error::optional(sets.patch(&name, &params, &Patch::Merge(patch)).await)?;
                }
                Action::Delete { name } => {
                    client::error::optional(sets.delete(&name, &DeleteParams::background()).await)?;
                }
                Action::PatchDeployment(patch) => {
                    client::error::optional(
                        deployments.patch(&key.name, &params, &Patch::Merge(patch)).await,
                    )?;
                }
                Action::Status(status) => {
                    let patch = json!({"status": *status});
                    client::error::optional(
                        deployments.patch_status(&key.name, &params, &Patch::Merge(patch)).await,
                    )?;
                }
            }
        }
        Ok(())
    }

    async fn scaled(&self, d: &Deployment, direction: &str, name: &str, from: i32, to: i32) {
        let note = format!("Scaled {direction} replica set {name} from {from} to {to}");
        self.recorder.normal(d, "ScalingReplicaSet", "Scale", note).await;
    }
}
