//! What a pod keeps: the volume behind its claim, as a directory of this node (kubernetes: pkg/kubelet/volumemanager,
//! pkg/volume/{hostpath,local}).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use apimachinery::volume as rules;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::{Api, Client};

use super::{give_to_group, host_path};
use crate::Error;

/// Who makes directories of this node for claims.
const OURS: &str = "binnacle.io/local-path";

/// The claim a volume names, or that was made for it.
pub(super) fn name(pod: &Pod, v: &Volume) -> Option<String> {
    match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(c), _) => Some(c.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), v.name)),
        (None, None) => None,
    }
}

pub(super) async fn locate(client: &Client, pod: &Pod, name: &str) -> Result<PathBuf, Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = claims.get_opt(name).await?;
    let claim = claim.ok_or_else(|| Error::Config(format!("persistentvolumeclaim {name:?} not found")))?;
    if !rules::is_bound(&claim) {
        return Err(Error::Config(format!("PVC {namespace}/{name} is not bound")));
    }
    let at = rules::volume_name(&claim);
    let volume = Api::<PersistentVolume>::all(client.clone()).get_opt(at).await?;
    let volume = volume.ok_or_else(|| Error::Config(format!("persistentvolume {at:?} not found")))?;
    let spec = volume.spec.clone().unwrap_or_default();
    if !spec.claim_ref.as_ref().is_some_and(|r| rules::is_for(r, &claim)) {
        return Err(Error::Config(format!("PVC {namespace}/{name} is not bound to PV {at}")));
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(Error::Config("volumes with volumeMode Block are not supported".to_owned()));
    }
    if let Some(h) = &spec.host_path {
        let fresh = rules::volume_annotation(&volume, rules::PROVISIONED_BY) == Some(OURS)
            && fs::metadata(&h.path).is_err();
        let path = host_path(h)?;
        if fresh {
            // Whoever the pod's user is, it is his.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))
                .map_err(Error::io(format!("open {path:?} to all")))?;
        }
        return Ok(path);
    }
    if let Some(l) = &spec.local {
        if fs::metadata(&l.path).is_err() {
            return Err(Error::Config(format!("path {:?} does not exist", l.path)));
        }
        let path = PathBuf::from(&l.path);
        give_to_group(pod, &path)?;
        return Ok(path);
    }
    Err(Error::Config("no volume plugin matched".to_owned()))
}
