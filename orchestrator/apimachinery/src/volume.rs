//! Which volume a claim may have, and where it can be used. Asked by the volume controller, and by the scheduler for
//! claims that wait for their pod (kubernetes: staging/src/k8s.io/component-helpers/storage/volume).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, TopologySelectorTerm,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::placement;
use crate::quantity::Quantity as Amount;
use crate::selector::Selector;

/// On a claim: it and its volume know each other.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or volume: the other one was chosen for it, not named by whoever made it.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: the node of its pod, where the volume is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// What no volume is made by.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

fn annotation<'a>(of: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    of.and_then(|a| a.get(key)).map(String::as_str)
}

/// A claim's annotation, if it is not empty.
pub fn claim_annotation<'a>(claim: &'a PersistentVolumeClaim, key: &str) -> Option<&'a str> {
    annotation(claim.metadata.annotations.as_ref(), key).filter(|v| !v.is_empty())
}

pub fn volume_annotation<'a>(volume: &'a PersistentVolume, key: &str) -> Option<&'a str> {
    annotation(volume.metadata.annotations.as_ref(), key).filter(|v| !v.is_empty())
}

/// The class a claim asks for; empty is none.
pub fn class_of(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()).unwrap_or_default()
}

/// The volume a claim names; empty is none.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default()
}

/// Whether a claim and its volume know each other.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_name(claim).is_empty() && claim_annotation(claim, BIND_COMPLETED).is_some()
}

/// `volumeBindingMode: WaitForFirstConsumer`
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// The claims of a pod by name: those it names, and those made for its volumes.
pub fn claims(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let named = volumes.filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(c), _) => Some(c.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), v.name)),
        (None, None) => None,
    });
    named.collect()
}

/// Whether a volume says it is for this claim, by uid or, before a uid is known, by name.
pub fn is_for(reference: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && reference.uid.as_ref().is_none_or(|u| u.is_empty() || Some(u) == claim.metadata.uid.as_ref())
}

/// Whether a node can use a volume.
pub fn reachable(volume: &PersistentVolume, node: &Node) -> bool {
    let spec = volume.spec.as_ref();
    let required = spec.and_then(|s| s.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
    required.is_none_or(|r| placement::selects(r, node))
}

/// Whether a class makes volumes for a node.
pub fn is_allowed(class: &StorageClass, node: &Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let term = |t: &TopologySelectorTerm| {
        let all = t.match_label_expressions.iter().flatten();
        all.into_iter().all(|e| labels.get(&e.key).is_some_and(|v| e.values.contains(v)))
    };
    class.allowed_topologies.as_ref().is_none_or(|all| all.is_empty() || all.iter().any(term))
}

fn bytes(map: Option<&BTreeMap<String, Quantity>>) -> i64 {
    let text = map.and_then(|m| m.get("storage"));
    // What is no quantity has been refused before.
    text.and_then(|q| q.0.parse::<Amount>().ok()).map_or(0, |a| a.value())
}

/// Bytes a claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> i64 {
    bytes(claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref()))
}

/// Bytes of a volume.
pub fn capacity(volume: &PersistentVolume) -> i64 {
    bytes(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()))
}

/// The smallest volume that suits a claim, or the one that is kept for it. `node`: it must be usable there.
/// `kept_only`: the claim waits for its pod, and takes nothing but what is kept for it.
pub fn find<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [Arc<PersistentVolume>],
    node: Option<&Node>,
    kept_only: bool,
    taken: impl Fn(&str) -> bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let spec = claim.spec.as_ref()?;
    let selector = spec.selector.as_ref().map(|s| Selector::from_label_selector(Some(s)));
    let mode = |m: &Option<String>| m.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let wanted = requested(claim);
    let mut best: Option<&Arc<PersistentVolume>> = None;
    for volume in volumes {
        let Some(v) = volume.spec.as_ref() else { continue };
        let has = v.access_modes.as_deref().unwrap_or_default();
        let fits = spec.access_modes.iter().flatten().all(|m| has.contains(m))
            && mode(&v.volume_mode) == mode(&spec.volume_mode)
            && capacity(volume) >= wanted
            && volume.metadata.deletion_timestamp.is_none();
        if !fits {
            continue;
        }
        let usable = node.is_none_or(|n| reachable(volume, n));
        match &v.claim_ref {
            Some(reference) if is_for(reference, claim) => {
                if usable {
                    return Some(volume);
                }
                continue;
            }
            Some(_) => continue,
            None if kept_only => continue,
            None => {}
        }
        let free = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available");
        let chosen = match &selector {
            Some(Ok(s)) => s.matches_labels(volume.metadata.labels.as_ref()),
            Some(Err(_)) => false,
            None => true,
        };
        let same = v.storage_class_name.as_deref().unwrap_or_default() == class_of(claim)
            && v.volume_attributes_class_name.as_deref().unwrap_or_default()
                == spec.volume_attributes_class_name.as_deref().unwrap_or_default();
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        if free && usable && chosen && same && !taken(name) {
            let smaller = best
                .is_none_or(|b| (capacity(volume), &volume.metadata.name) < (capacity(b), &b.metadata.name));
            if smaller {
                best = Some(volume);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut all =
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        if let (Some(all), Some(spec)) = (all.as_object_mut(), spec.as_object()) {
            all.extend(spec.clone());
        }
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": all}))
            .expect("a claim")
    }

    fn volume(name: &str, size: &str, spec: Value) -> Arc<PersistentVolume> {
        let mut all = json!({"accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "capacity": {"storage": size},
            "hostPath": {"path": "/x"}});
        if let (Some(all), Some(spec)) = (all.as_object_mut(), spec.as_object()) {
            all.extend(spec.clone());
        }
        let o = json!({"metadata": {"name": name, "labels": {"disk": name}}, "spec": all, "status": {"phase": "Available"}});
        Arc::new(serde_json::from_value(o).expect("a volume"))
    }

    #[test]
    fn the_smallest_that_suits_or_the_one_that_is_kept() {
        let check = |claim: PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>], expect: &str| {
            let found = find(&claim, volumes, None, false, |_| false);
            assert_eq!(found.and_then(|v| v.metadata.name.as_deref()).unwrap_or("none"), expect);
        };
        let plain = json!({});
        let sizes = [
            volume("big", "5Gi", plain.clone()),
            volume("fit", "1Gi", plain.clone()),
            volume("small", "500Mi", plain.clone()),
        ];
        check(claim(plain.clone()), &sizes, "fit");
        check(claim(json!({"selector": {"matchLabels": {"disk": "big"}}})), &sizes, "big");
        check(claim(json!({"accessModes": ["ReadWriteMany"]})), &sizes, "none");
        check(claim(json!({"volumeMode": "Block"})), &sizes, "none");
        check(claim(json!({"storageClassName": "fast"})), &sizes, "none");
        let fast = [volume("fast", "2Gi", json!({"storageClassName": "fast"}))];
        check(claim(json!({"storageClassName": "fast"})), &fast, "fast");
        check(claim(plain.clone()), &fast, "none");
        let kept = |uid: Value| {
            let r =
                json!({"claimRef": {"namespace": "n", "name": "c", "uid": uid}, "storageClassName": "any"});
            [volume("fit", "1Gi", json!({})), volume("kept", "9Gi", r)]
        };
        check(claim(plain.clone()), &kept(Value::Null), "kept");
        check(claim(plain.clone()), &kept("u".into()), "kept");
        check(claim(plain), &kept("other".into()), "fit");
    }
}
