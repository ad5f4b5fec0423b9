//! StatefulSet: pods with names of their own, made and replaced in order (kubernetes: pkg/controller/statefulset).

mod plan;

use std::sync::Arc;

use client::{Key, Reconcile, WorkQueue};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Error};
use crate::owner::is_controlled_by;
use crate::podcontrol::{self, PodControl};
use crate::replicaset::until;
use crate::revisions;
use plan::{Revisions, plan};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("statefulset");
    let sets = context.informers.of::<StatefulSet>();
    let pods = context.informers.of::<Pod>();
    let revisions = context.informers.of::<ControllerRevision>();
    let control = PodControl::new(context, "statefulset-controller");
    control.queue_owners(&sets, &pods, &queue);
    sets.synced().await;
    pods.synced().await;
    revisions.synced().await;
    queue.run(2, stop, move |key| reconcile(control.clone(), key)).await;
}

async fn reconcile(c: Arc<PodControl>, key: Key) -> Result<Reconcile, Error> {
    let Some(set) = c.context.informers.of::<StatefulSet>().get(&key) else { return Ok(Reconcile::Done) };
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(Reconcile::Done);
    }
    let mut pods = c.context.informers.of::<Pod>().list_in(&key.namespace);
    pods.retain(|p| is_controlled_by(&p.metadata, &*set));
    let spec = set.spec.clone().unwrap_or_default();
    let limit = spec.revision_history_limit.unwrap_or(10);
    let update = revisions::sync(&c.context, &*set, &spec.template, &pods, limit).await?;
    let plan = plan(&set, &update, &pods, c.context.now());
    if (!plan.create.is_empty() || !plan.delete.is_empty()) && c.satisfied(&key) {
        let mut made = Vec::new();
        for (ordinal, revision) in &plan.create {
            claims(&c, &set, *ordinal).await?;
            made.push(pod_of(&c.context, &set, *ordinal, *revision, &plan.revisions)?);
        }
        c.create(&*set, &key, made).await?;
        c.delete(&*set, &key, &plan.delete).await?;
    }
    if set.status.as_ref() != Some(&plan.status) {
        let api: Api<StatefulSet> = Api::namespaced(c.context.client(), &key.namespace);
        let patch = Patch::Merge(json!({"status": plan.status}));
        client::error::optional(api.patch_status(&key.name, &PatchParams::default(), &patch).await)?;
    }
    Ok(match plan.look_again {
        Some(at) => Reconcile::After(until(at, c.context.now())),
        None => Reconcile::Done,
    })
}

/// `TEMPLATE-SET-ORDINAL`: the same claim for every pod that ever has this place.
fn claim_name(template: &PersistentVolumeClaim, set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.name_any(), set.name_any())
}

/// Makes the claims of a place that are not there yet.
async fn claims(c: &PodControl, set: &StatefulSet, ordinal: i32) -> Result<(), Error> {
    let namespace = set.namespace().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(c.context.client(), &namespace);
    for template in set.spec.iter().flat_map(|s| s.volume_claim_templates.iter().flatten()) {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(template, set, ordinal));
        claim.metadata.namespace = Some(namespace.clone());
        let labels = set.spec.as_ref().and_then(|s| s.selector.match_labels.clone()).unwrap_or_default();
        claim.metadata.labels.get_or_insert_default().extend(labels);
        claim.status = None;
        match api.create(&PostParams::default(), &claim).await {
            Ok(made) => {
                let note = format!(
                    "create Claim {} Pod {}-{ordinal} in StatefulSet {} success",
                    made.name_any(),
                    set.name_any(),
                    set.name_any()
                );
                c.recorder.normal(set, "SuccessfulCreate", "Create", note).await;
            }
            Err(e) if client::error::is_already_exists(&e) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The pod of a place, by the template of the revision it is to have.
fn pod_of(
    context: &Context,
    set: &StatefulSet,
    ordinal: i32,
    is_update: bool,
    revisions: &Revisions,
) -> Result<Pod, Error> {
    let spec = set.spec.clone().unwrap_or_default();
    let (revision, template) = if is_update {
        (&revisions.update, spec.template.clone())
    } else {
        let key = Key::new(set.namespace().unwrap_or_default(), &revisions.current);
        let kept = context.informers.of::<ControllerRevision>().get(&key);
        let data = kept.and_then(|r| r.data.as_ref().map(|d| d.0["spec"]["template"].clone()));
        // A revision that is gone leaves the present template.
        let template = match data {
            Some(t) => serde_json::from_value(t)?,
            None => spec.template.clone(),
        };
        (&revisions.current, template)
    };
    let mut pod = podcontrol::from_template(set, template);
    let name = format!("{}-{ordinal}", set.name_any());
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.labels_mut();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    // The whole name of the revision, as upstream has it for StatefulSets.
    labels.insert(revisions::HASH.to_owned(), revision.clone());
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(name);
    pod_spec.subdomain = spec.service_name.clone().filter(|s| !s.is_empty());
    for template in spec.volume_claim_templates.iter().flatten() {
        let volumes = pod_spec.volumes.get_or_insert_default();
        let own = template.name_any();
        volumes.retain(|v| v.name != own);
        volumes.push(Volume {
            name: own,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(template, set, ordinal),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    Ok(pod)
}
