//! VolumeBinding: the node must reach the pod's volumes; those that wait for their pod are chosen, or made, on the node
//! it gets, before it is bound (kubernetes: pkg/scheduler/framework/plugins/volumebinding).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::volume as rules;
use client::{Informers, Key};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::Notify;

pub(crate) const NAME: &str = "VolumeBinding";
/// How long a pod waits for its volumes before it is scheduled anew (`bindTimeoutSeconds`).
const BOUND_WITHIN: Duration = Duration::from_secs(600);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a pod's claims are about, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    /// Of the pod's namespace, by name.
    pub claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
    pub volumes: Vec<Arc<PersistentVolume>>,
    pub classes: BTreeMap<String, Arc<StorageClass>>,
    /// Volumes that pods whose binding is on its way have chosen.
    pub taken: BTreeSet<String>,
}

/// What a pod asks of a node.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    bound: Vec<Arc<PersistentVolume>>,
    open: Vec<(Arc<PersistentVolumeClaim>, Arc<StorageClass>)>,
}

/// How a claim gets its volume, once its pod's node is known.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    Take(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>),
    /// The claim's provisioner makes one there.
    Make(Arc<PersistentVolumeClaim>),
}

impl Choice {
    /// The volume that nobody else may take.
    pub(crate) fn taken(&self) -> Option<String> {
        match self {
            Choice::Take(v, _) => Some(v.name_any()),
            Choice::Make(_) => None,
        }
    }

    fn claim(&self) -> &PersistentVolumeClaim {
        match self {
            Choice::Take(_, c) | Choice::Make(c) => c,
        }
    }
}

impl Volumes {
    /// As the informers know it; nothing for a pod without claims.
    pub(crate) fn of(pod: &Pod, informers: &Informers, taken: BTreeSet<String>) -> Self {
        if rules::claims(pod).is_empty() {
            return Volumes::default();
        }
        let namespace = pod.namespace().unwrap_or_default();
        let claims = informers.of::<PersistentVolumeClaim>().list_in(&namespace);
        let classes = informers.of::<StorageClass>().list();
        Volumes {
            claims: claims.into_iter().map(|c| (c.name_any(), c)).collect(),
            volumes: informers.of::<PersistentVolume>().list(),
            classes: classes.into_iter().map(|c| (c.name_any(), c)).collect(),
            taken,
        }
    }

    /// What the pod wants, or why no node will do.
    pub(crate) fn wants(&self, pod: &Pod) -> Result<Wants, String> {
        let mut wants = Wants::default();
        for name in rules::claims(pod) {
            let Some(claim) = self.claims.get(&name) else {
                return Err(format!("persistentvolumeclaim {name:?} not found"));
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            if rules::is_bound(claim) {
                let volume = rules::volume_name(claim);
                match self.volumes.iter().find(|v| v.metadata.name.as_deref() == Some(volume)) {
                    Some(v) => wants.bound.push(v.clone()),
                    None => {
                        return Err(format!(
                            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                        ));
                    }
                }
                continue;
            }
            match self.classes.get(rules::class_of(claim)).filter(|c| rules::waits_for_consumer(c)) {
                Some(class) if rules::volume_name(claim).is_empty() => {
                    wants.open.push((claim.clone(), class.clone()));
                }
                _ => return Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
            }
        }
        Ok(wants)
    }

    /// How each open claim gets its volume on a node, or why it cannot.
    pub(crate) fn choose(&self, wants: &Wants, node: &Node) -> Result<Vec<Choice>, String> {
        if !wants.bound.iter().all(|v| rules::reachable(v, node)) {
            return Err("node(s) didn't match PersistentVolume's node affinity".to_owned());
        }
        let mut taken = self.taken.clone();
        let mut out = Vec::new();
        for (claim, class) in &wants.open {
            let none = || "node(s) didn't find available persistent volumes to bind".to_owned();
            let elsewhere = rules::claim_annotation(claim, rules::SELECTED_NODE)
                .is_some_and(|n| Some(n) != node.metadata.name.as_deref());
            if elsewhere {
                return Err(none());
            }
            match rules::find(claim, &self.volumes, Some(node), false, |v| taken.contains(v)) {
                Some(v) => {
                    taken.insert(v.name_any());
                    out.push(Choice::Take(v.clone(), claim.clone()));
                }
                None if class.provisioner != rules::NO_PROVISIONER && rules::is_allowed(class, node) => {
                    out.push(Choice::Make(claim.clone()));
                }
                None => return Err(none()),
            }
        }
        Ok(out)
    }
}

/// Says what was chosen and waits until the claims are bound. Whether they are; not if the pod goes meanwhile.
pub(crate) async fn bind(
    informers: &Informers,
    changed: &Notify,
    pod: &Pod,
    node: &str,
    choices: &[Choice],
) -> kube::Result<bool> {
    let client = informers.client();
    let params = PatchParams::default();
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    for choice in choices {
        match choice {
            Choice::Take(v, c) => {
                let patch = json!({
                    "metadata": {"resourceVersion": v.metadata.resource_version,
                        "annotations": {rules::BOUND_BY_CONTROLLER: "yes"}},
                    "spec": {"claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                        "name": c.metadata.name, "namespace": c.metadata.namespace, "uid": c.metadata.uid}}});
                let volumes: Api<PersistentVolume> = Api::all(client.clone());
                volumes.patch(&v.name_any(), &params, &Patch::Merge(patch)).await?;
            }
            Choice::Make(c) => {
                let patch = json!({"metadata": {"annotations": {rules::SELECTED_NODE: node}}});
                api.patch(&c.name_any(), &params, &Patch::Merge(patch)).await?;
            }
        }
    }
    let (claims, pods) = (informers.of::<PersistentVolumeClaim>(), informers.of::<Pod>());
    let key = Key::of(pod);
    let waiting = async {
        loop {
            let next = changed.notified();
            let there = |c: &Choice| claims.get(&Key::of(c.claim())).is_some_and(|c| rules::is_bound(&c));
            if choices.iter().all(there) {
                return true;
            }
            if pods.get(&key).is_none_or(|p| p.metadata.deletion_timestamp.is_some()) {
                return false;
            }
            // A notification that came between is made up for.
            drop(tokio::time::timeout(LOOK_AGAIN, next).await);
        }
    };
    Ok(tokio::time::timeout(BOUND_WITHIN, waiting).await.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn from<T: serde::de::DeserializeOwned>(o: Value) -> T {
        serde_json::from_value(o).expect("an object of its type")
    }

    fn pod() -> Pod {
        from(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}))
    }

    fn node(name: &str) -> Node {
        from(json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}))
    }

    fn volumes(claim: Value, volume: Value, class: Value) -> Volumes {
        let mut all = Volumes::default();
        if claim.is_object() {
            all.claims.insert("c".to_owned(), Arc::new(from(claim)));
        }
        if volume.is_object() {
            all.volumes.push(Arc::new(from(volume)));
        }
        if class.is_object() {
            all.classes.insert("late".to_owned(), Arc::new(from(class)));
        }
        all
    }

    #[test]
    fn a_pod_waits_for_what_it_needs_and_follows_its_volume() {
        let claim = |spec: Value, annotations: Value| json!({"metadata": {"name": "c", "namespace": "n", "uid": "u", "annotations": annotations}, "spec": spec});
        let on_a = json!({"metadata": {"name": "v"}, "status": {"phase": "Available"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "late", "local": {"path": "/x"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]}]}}}});
        let late = |by: &str| json!({"metadata": {"name": "late"}, "provisioner": by, "volumeBindingMode": "WaitForFirstConsumer"});
        let check = |all: &Volumes, node_name: &str, expect: &str| {
            let got = all.wants(&pod()).and_then(|w| all.choose(&w, &node(node_name)));
            let got = match got {
                Err(why) => why,
                Ok(choices) => {
                    choices.iter().map(|c| c.taken().unwrap_or_else(|| "make".to_owned())).collect()
                }
            };
            assert_eq!(got, expect);
        };
        check(&volumes(Value::Null, Value::Null, Value::Null), "a", "persistentvolumeclaim \"c\" not found");
        let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "late", "resources": {"requests": {"storage": "1Gi"}}});
        let open = claim(spec.clone(), json!({}));
        check(
            &volumes(open.clone(), Value::Null, Value::Null),
            "a",
            "pod has unbound immediate PersistentVolumeClaims",
        );
        let none = "node(s) didn't find available persistent volumes to bind";
        let fixed = volumes(open.clone(), on_a.clone(), late(rules::NO_PROVISIONER));
        check(&fixed, "a", "v");
        check(&fixed, "b", none);
        let made = volumes(open, on_a.clone(), late("somebody"));
        check(&made, "a", "v");
        check(&made, "b", "make");
        let mut bound = spec;
        bound["volumeName"] = "v".into();
        let bound = volumes(claim(bound, json!({rules::BIND_COMPLETED: "yes"})), on_a, Value::Null);
        check(&bound, "a", "");
        check(&bound, "b", "node(s) didn't match PersistentVolume's node affinity");
    }
}
