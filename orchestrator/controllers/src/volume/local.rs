//! The class `local-path`: a directory of the pod's node, made when the pod comes, gone with its claim. What single
//! machines expect of a cluster; the directory is made and removed by the node's kubelet.

use apimachinery::volume as rules;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::{Context, Error};

/// The provisioner's name.
pub(super) const NAME: &str = "binnacle.io/local-path";
/// On a Node: where it keeps such directories.
const DIRECTORY: &str = "binnacle.io/local-volumes";
/// On a volume: the node of its directory.
const NODE: &str = "binnacle.io/node";
const CLASS: &str = "local-path";

/// Makes the class, unless it is there.
pub(super) async fn ensure_class(context: &Context) -> Result<(), Error> {
    let api: Api<StorageClass> = Api::all(context.client());
    if api.get_opt(CLASS).await?.is_some() {
        return Ok(());
    }
    let class: StorageClass = serde_json::from_value(json!({
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": NAME, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
    }))?;
    match api.create(&PostParams::default(), &class).await {
        Err(e) if !client::error::is_already_exists(&e) => Err(e.into()),
        _ => Ok(()),
    }
}

fn directory(node: &Node) -> Option<&String> {
    node.metadata.annotations.as_ref()?.get(DIRECTORY)
}

/// A volume for a claim, or why there can be none. Pure.
pub(super) fn make(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    nodes: &[std::sync::Arc<Node>],
) -> Result<PersistentVolume, String> {
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("volumeMode Block is not supported".to_owned());
    }
    let modes = spec.access_modes.unwrap_or_default();
    if modes.iter().any(|m| !matches!(m.as_str(), "ReadWriteOnce" | "ReadWriteOncePod")) {
        return Err("Only support ReadWriteOnce access mode".to_owned());
    }
    if spec.selector.is_some() {
        return Err("claim.Spec.Selector is not supported".to_owned());
    }
    let wanted = rules::claim_annotation(claim, rules::SELECTED_NODE);
    let node = match wanted {
        Some(name) => nodes.iter().find(|n| n.metadata.name.as_deref() == Some(name)),
        None => nodes.iter().find(|n| directory(n).is_some() && rules::is_allowed(class, n)),
    };
    let node = node.ok_or_else(|| "there is no node to make the volume on".to_owned())?;
    let node_name = node.name_any();
    let dir = directory(node).ok_or_else(|| format!("node {node_name} keeps no local volumes"))?;
    let name = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
    let namespace = claim.namespace().unwrap_or_default();
    let path = format!("{dir}/{name}_{namespace}_{}", claim.name_any());
    let host = node.labels().get("kubernetes.io/hostname").cloned().unwrap_or_else(|| node_name.clone());
    let o = json!({
        "metadata": {"name": name, "annotations": {rules::PROVISIONED_BY: NAME, NODE: node_name}},
        "spec": {
            "capacity": spec.resources.and_then(|r| r.requests),
            "accessModes": modes,
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class.name_any(),
            "volumeMode": "Filesystem",
            "hostPath": {"path": path, "type": "DirectoryOrCreate"},
            "claimRef": super::reference(claim),
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}},
        },
    });
    serde_json::from_value(o).map_err(|e| e.to_string())
}

/// Removes a volume's directory. The directory of a node that is gone is gone.
pub(super) async fn remove(context: &Context, v: &PersistentVolume) -> Result<(), Error> {
    let node = rules::volume_annotation(v, NODE).unwrap_or_default();
    let nodes: Api<Node> = Api::all(context.client());
    if nodes.get_opt(node).await?.is_none() {
        return Ok(());
    }
    let path =
        v.spec.as_ref().and_then(|s| s.host_path.as_ref()).map(|h| h.path.as_str()).unwrap_or_default();
    let dir = path.rsplit('/').next().unwrap_or_default();
    let request = http::Request::delete(format!("/api/v1/nodes/{node}/proxy/localVolumes/{dir}"))
        .body(Vec::new())
        .map_err(|e| Error::Volume(e.to_string()))?;
    context.client().request_text(request).await.map(drop).map_err(Error::from)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_volume_lies_on_the_node_of_its_pod() {
        let class: StorageClass =
            serde_json::from_value(json!({"metadata": {"name": "local-path"}, "provisioner": NAME}))
                .expect("a class");
        let node = |name: &str, dir: serde_json::Value| -> Arc<Node> {
            let o = json!({"metadata": {"name": name, "annotations": dir, "labels": {"kubernetes.io/hostname": name}}});
            Arc::new(serde_json::from_value(o).expect("a node"))
        };
        let nodes = [node("a", json!({})), node("b", json!({DIRECTORY: "/data/volumes"}))];
        let claim = |modes: &str, on: &str| -> PersistentVolumeClaim {
            serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u", "annotations": {rules::SELECTED_NODE: on}},
                "spec": {"accessModes": [modes], "resources": {"requests": {"storage": "1Gi"}}}})).expect("a claim")
        };
        let made = make(&claim("ReadWriteOnce", "b"), &class, &nodes).expect("made");
        let spec = made.spec.expect("a spec");
        assert_eq!(spec.host_path.expect("a path").path, "/data/volumes/pvc-u_n_c");
        assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Delete"));
        let refused = |modes: &str, on: &str| make(&claim(modes, on), &class, &nodes).expect_err("refused");
        assert_eq!(refused("ReadWriteMany", "b"), "Only support ReadWriteOnce access mode");
        assert_eq!(refused("ReadWriteOnce", "a"), "node a keeps no local volumes");
        assert_eq!(refused("ReadWriteOnce", "gone"), "there is no node to make the volume on");
        assert!(make(&claim("ReadWriteOnce", ""), &class, &nodes).is_ok(), "any node will do at once");
    }
}
