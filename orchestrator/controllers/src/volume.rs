//! Volumes: claims find theirs, new ones are made and old ones go as their class says, and what is in use stays
//! (kubernetes: pkg/controller/volume/{persistentvolume,pvcprotection,pvprotection,ephemeral}).
//!
//! One worker, as upstream: two claims never look for a volume at once.

mod local;
mod plan;

use std::fmt;
use std::sync::Arc;

use apimachinery::volume::{self as rules, BIND_COMPLETED, BOUND_BY_CONTROLLER, NO_PROVISIONER};
use client::{EventRecorder, Key, Reconcile, WorkQueue};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Error};
use crate::owner::controller_ref;
use plan::{ForClaim, ForVolume, Note};

const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
const PROVISIONER: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Work {
    Claim(Key),
    Volume(String),
    /// Its claims of its own.
    Pod(Key),
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Claim(key) => write!(f, "claim {key}"),
            Work::Volume(name) => write!(f, "volume {name}"),
            Work::Pod(key) => write!(f, "pod {key}"),
        }
    }
}

#[derive(Clone)]
struct Room {
    context: Context,
    recorder: EventRecorder,
    queue: Arc<WorkQueue<Work>>,
}

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("volume");
    let recorder = context.recorder("persistentvolume-controller");
    let room = Room { context, recorder, queue: queue.clone() };
    watch(&room);
    let informers = &room.context.informers;
    informers.of::<PersistentVolumeClaim>().synced().await;
    informers.of::<PersistentVolume>().synced().await;
    informers.of::<StorageClass>().synced().await;
    informers.of::<Pod>().synced().await;
    if let Err(e) = local::ensure_class(&room.context).await {
        tracing::warn!(error = %e, "the storage class of local volumes could not be made");
    }
    queue.run(1, stop, move |work| reconcile(room.clone(), work)).await;
}

fn watch(room: &Room) {
    let informers = &room.context.informers;
    let q = room.queue.clone();
    informers.of::<PersistentVolumeClaim>().on_change(move |c| {
        let claim = c.object();
        q.add(Work::Claim(Key::of(&**claim)));
        let name = rules::volume_name(claim);
        if !name.is_empty() {
            q.add(Work::Volume(name.to_owned()));
        }
    });
    let (q, claims) = (room.queue.clone(), informers.of::<PersistentVolumeClaim>());
    informers.of::<PersistentVolume>().on_change(move |c| {
        let volume = c.object();
        q.add(Work::Volume(volume.name_any()));
        let own = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        match own {
            Some(r) => {
                let key =
                    Key::new(r.namespace.clone().unwrap_or_default(), r.name.clone().unwrap_or_default());
                q.add(Work::Claim(key));
            }
            // It may be what somebody waits for.
            None => {
                let waiting = claims.list().into_iter().filter(|c| !rules::is_bound(c));
                waiting.for_each(|c| q.add(Work::Claim(Key::of(&*c))));
            }
        }
    });
    let (q, claims) = (room.queue.clone(), informers.of::<PersistentVolumeClaim>());
    informers.of::<StorageClass>().on_change(move |_| {
        let waiting = claims.list().into_iter().filter(|c| !rules::is_bound(c));
        waiting.for_each(|c| q.add(Work::Claim(Key::of(&*c))));
    });
    let q = room.queue.clone();
    informers.of::<Pod>().on_change(move |c| {
        let pod = c.object();
        let names = rules::claims(pod);
        if names.is_empty() {
            return;
        }
        if c.old.is_none() {
            q.add(Work::Pod(Key::of(&**pod)));
        }
        // It may be the first that needs a claim, or the last.
        if c.old.is_none() || c.new.is_none() {
            let namespace = pod.namespace().unwrap_or_default();
            names.into_iter().for_each(|n| q.add(Work::Claim(Key::new(namespace.clone(), n))));
        }
    });
}

async fn reconcile(room: Room, work: Work) -> Result<Reconcile, Error> {
    match work {
        Work::Claim(key) => Box::pin(room.claim(&key)).await?,
        Work::Volume(name) => room.volume(&name).await?,
        Work::Pod(key) => room.pod(&key).await?,
    }
    Ok(Reconcile::Done)
}

/// What a volume says of its claim.
fn reference(claim: &PersistentVolumeClaim) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.metadata.name,
        "namespace": claim.metadata.namespace, "uid": claim.metadata.uid,
        "resourceVersion": claim.metadata.resource_version})
}

fn has_finalizer(of: Option<&Vec<String>>, name: &str) -> bool {
    of.is_some_and(|all| all.iter().any(|f| f == name))
}

fn without(of: Option<&Vec<String>>, name: &str) -> Vec<String> {
    of.into_iter().flatten().filter(|f| *f != name).cloned().collect()
}

impl Room {
    fn claims(&self, namespace: &str) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.context.client(), namespace)
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.context.client())
    }

    async fn tell(&self, claim: &PersistentVolumeClaim, note: Note) {
        let Note { warning, reason, message } = note;
        if warning {
            self.recorder.warning(claim, reason, "", message).await;
        } else {
            self.recorder.normal(claim, reason, "", message).await;
        }
    }

    async fn claim(&self, key: &Key) -> Result<(), Error> {
        let informers = &self.context.informers;
        let Some(claim) = informers.of::<PersistentVolumeClaim>().get(key) else { return Ok(()) };
        let pods = informers.of::<Pod>().list_in(&key.namespace);
        let mut users = pods.iter().filter(|p| rules::claims(p).contains(&key.name));
        if claim.metadata.deletion_timestamp.is_some() {
            let node = |p: &Pod| p.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
            let finalizers = claim.metadata.finalizers.as_ref();
            if has_finalizer(finalizers, CLAIM_PROTECTION) && !users.any(|p| !node(p).is_empty()) {
                let patch = json!({"metadata": {"resourceVersion": claim.metadata.resource_version,
                    "finalizers": without(finalizers, CLAIM_PROTECTION)}});
                let api = self.claims(&key.namespace);
                let written = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
                client::error::optional(written)?;
            }
            return Ok(());
        }
        let waiting = users.next().map(|p| p.name_any());
        let class = informers.of::<StorageClass>().get(&Key::new("", rules::class_of(&claim)));
        let volumes = informers.of::<PersistentVolume>().list();
        match plan::claim(&claim, class.as_deref(), &volumes, waiting.as_deref()) {
            ForClaim::Bind(volume) => self.bind(&claim, &volume).await,
            ForClaim::Make => Box::pin(self.make(&claim, class.as_deref())).await,
            ForClaim::Wait(note) => {
                if let Some(note) = note {
                    self.tell(&claim, note).await;
                }
                self.phase(&claim, "Pending").await
            }
            ForClaim::Lost(note) => {
                if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Lost") {
                    self.tell(&claim, note).await;
                }
                self.phase(&claim, "Lost").await
            }
        }
    }

    async fn phase(&self, claim: &PersistentVolumeClaim, phase: &str) -> Result<(), Error> {
        if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(phase) {
            return Ok(());
        }
        let patch = json!({"status": {"phase": phase, "accessModes": null, "capacity": null}});
        let api = self.claims(&claim.namespace().unwrap_or_default());
        let written =
            api.patch_status(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        client::error::optional(written)?;
        Ok(())
    }

    /// First the volume says for whom it is, so that no other claim takes it; then the claim. Each step is left out
    /// that was done before.
    async fn bind(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), Error> {
        let name = volume.name_any();
        let params = PatchParams::default();
        let says = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        if says.is_none_or(|r| r.uid.is_none() || r.uid != claim.metadata.uid) {
            let mut patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version},
                "spec": {"claimRef": reference(claim)}});
            if says.is_none() {
                patch["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
            }
            self.volumes().patch(&name, &params, &Patch::Merge(patch)).await?;
        }
        let phase = |s: Option<&str>| s == Some("Bound");
        if !phase(volume.status.as_ref().and_then(|s| s.phase.as_deref())) {
            let patch = json!({"status": {"phase": "Bound"}});
            self.volumes().patch_status(&name, &params, &Patch::Merge(patch)).await?;
        }
        let api = self.claims(&claim.namespace().unwrap_or_default());
        let mut annotations = json!({});
        if rules::claim_annotation(claim, BIND_COMPLETED).is_none() {
            annotations[BIND_COMPLETED] = "yes".into();
        }
        let mut patch = json!({"metadata": {"resourceVersion": claim.metadata.resource_version}});
        if rules::volume_name(claim).is_empty() {
            annotations[BOUND_BY_CONTROLLER] = "yes".into();
            patch["spec"] = json!({"volumeName": name});
        }
        if annotations.as_object().is_some_and(|a| !a.is_empty()) {
            patch["metadata"]["annotations"] = annotations;
            api.patch(&claim.name_any(), &params, &Patch::Merge(patch)).await?;
        }
        let (has, spec) = (claim.status.clone().unwrap_or_default(), volume.spec.clone().unwrap_or_default());
        if !phase(has.phase.as_deref())
            || has.capacity != spec.capacity
            || has.access_modes != spec.access_modes
        {
            let patch = json!({"status": {"phase": "Bound", "accessModes": spec.access_modes, "capacity": spec.capacity}});
            api.patch_status(&claim.name_any(), &params, &Patch::Merge(patch)).await?;
        }
        Ok(())
    }

    async fn make(&self, claim: &PersistentVolumeClaim, class: Option<&StorageClass>) -> Result<(), Error> {
        let failed = |message: String| Note { warning: true, reason: "ProvisioningFailed", message };
        self.phase(claim, "Pending").await?;
        let Some(class) = class else {
            let message = format!("storageclass.storage.k8s.io {:?} not found", rules::class_of(claim));
            self.tell(claim, failed(message)).await;
            return Ok(());
        };
        let by = class.provisioner.as_str();
        if by == NO_PROVISIONER {
            self.tell(claim, failed(format!("no volume plugin matched name: {by}"))).await;
            return Ok(());
        }
        let told = PROVISIONER.iter().all(|a| rules::claim_annotation(claim, a) == Some(by));
        if !told {
            let patch = json!({"metadata": {"annotations": {PROVISIONER[0]: by, PROVISIONER[1]: by}}});
            let api = self.claims(&claim.namespace().unwrap_or_default());
            let written = api.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
            // What was written brings the claim here again.
            return client::error::optional(written).map(drop).map_err(Error::from);
        }
        if by != local::NAME {
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner '{by}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
            );
            self.tell(claim, Note { warning: false, reason: "ExternalProvisioning", message }).await;
            return Ok(());
        }
        let mut nodes = self.context.informers.of::<Node>().list();
        nodes.sort_by_key(|n| n.name_any());
        let volume = match local::make(claim, class, &nodes) {
            Ok(volume) => volume,
            Err(why) => {
                let message =
                    format!("failed to provision volume with StorageClass {:?}: {why}", class.name_any());
                self.tell(claim, failed(message)).await;
                return Ok(());
            }
        };
        match self.volumes().create(&PostParams::default(), &volume).await {
            Ok(made) => {
                let message = format!("Successfully provisioned volume {}", made.name_any());
                self.tell(claim, Note { warning: false, reason: "ProvisioningSucceeded", message }).await;
                self.bind(claim, &made).await
            }
            // The claim will be looked at again when the volume is seen.
            Err(e) if client::error::is_already_exists(&e) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    async fn volume(&self, name: &str) -> Result<(), Error> {
        let informers = &self.context.informers;
        let Some(volume) = informers.of::<PersistentVolume>().get(&Key::new("", name)) else { return Ok(()) };
        let says = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        let mut claim = says.and_then(|r| {
            let key = Key::new(r.namespace.clone().unwrap_or_default(), r.name.clone().unwrap_or_default());
            informers.of::<PersistentVolumeClaim>().get(&key)
        });
        if let (None, Some(r)) = (&claim, says.filter(|r| r.uid.is_some())) {
            // Data is never deleted for a claim that the watch has not told of yet.
            let api = self.claims(r.namespace.as_deref().unwrap_or_default());
            claim = api.get_opt(r.name.as_deref().unwrap_or_default()).await?.map(Arc::new);
        }
        let now = plan::volume(&volume, claim.as_deref(), local::NAME);
        if volume.metadata.deletion_timestamp.is_some() {
            let finalizers = volume.metadata.finalizers.as_ref();
            let in_use = now == ForVolume::Phase("Bound") || now == ForVolume::Wait;
            if has_finalizer(finalizers, VOLUME_PROTECTION) && !in_use {
                let patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version,
                    "finalizers": without(finalizers, VOLUME_PROTECTION)}});
                let written = self.volumes().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
                client::error::optional(written)?;
            }
            return Ok(());
        }
        match now {
            ForVolume::Wait => Ok(()),
            ForVolume::Phase(phase) => self.volume_phase(&volume, phase, "").await,
            ForVolume::Keep | ForVolume::Leave => self.volume_phase(&volume, "Released", "").await,
            ForVolume::LetGo => {
                let patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version,
                    "annotations": {BOUND_BY_CONTROLLER: null}}, "spec": {"claimRef": null}});
                let written = self.volumes().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
                client::error::optional(written).map(drop).map_err(Error::from)
            }
            ForVolume::Fail(reason, why) => {
                if volume.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Failed") {
                    self.recorder.warning(&*volume, reason, "", why.clone()).await;
                }
                self.volume_phase(&volume, "Failed", &why).await
            }
            ForVolume::Delete => {
                self.volume_phase(&volume, "Released", "").await?;
                if let Err(e) = local::remove(&self.context, &volume).await {
                    self.recorder.warning(&*volume, "VolumeFailedDelete", "", e.to_string()).await;
                    return Err(e);
                }
                client::error::optional(self.volumes().delete(name, &DeleteParams::default()).await)?;
                Ok(())
            }
        }
    }

    async fn volume_phase(&self, volume: &PersistentVolume, phase: &str, why: &str) -> Result<(), Error> {
        if volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(phase) {
            return Ok(());
        }
        let message = if why.is_empty() { Value::Null } else { why.into() };
        let patch = json!({"status": {"phase": phase, "message": message}});
        let written = self
            .volumes()
            .patch_status(&volume.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await;
        client::error::optional(written)?;
        Ok(())
    }

    /// Makes the claims that a pod brings with it (KEP-1698); they go with the pod.
    async fn pod(&self, key: &Key) -> Result<(), Error> {
        let Some(pod) = self.context.informers.of::<Pod>().get(key) else { return Ok(()) };
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        for v in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            let Some(template) = v.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) else {
                continue;
            };
            let meta = template.metadata.clone().unwrap_or_default();
            let claim: PersistentVolumeClaim = serde_json::from_value(json!({
                "metadata": {"name": format!("{}-{}", key.name, v.name), "labels": meta.labels,
                    "annotations": meta.annotations, "ownerReferences": [controller_ref(&*pod)]},
                "spec": template.spec,
            }))?;
            match self.claims(&key.namespace).create(&PostParams::default(), &claim).await {
                Err(e) if !client::error::is_already_exists(&e) => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    }
}
