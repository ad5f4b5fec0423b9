//! NodeRestriction: a node writes only its own objects, and nothing of them that would bring it pods or rights
//! (kubernetes: plugin/pkg/admission/noderestriction).

use std::collections::BTreeSet;

use serde_json::Value;

use super::attributes::{Attributes, Operation};
use crate::error::{ApiError, Result};
use crate::kinds;
use crate::node;
use crate::object;
use crate::server::ApiServer;

const MIRROR: &str = "kubernetes.io/config.mirror";
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Labels below kubernetes.io that kubelets know of themselves.
const KUBELET_LABELS: [&str; 14] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];

impl ApiServer {
    /// `o` is the object of the resource, or what a subresource takes.
    pub(super) fn restrict_node(&self, a: &Attributes<'_>, o: Option<&Value>) -> Result<()> {
        let Some(user) = a.user.filter(|u| u.in_group(node::GROUP)) else { return Ok(()) };
        let Some(node) = node::identity(user) else {
            let why = format!("could not determine node from user {:?}", user.name);
            return Err(ApiError::forbidden(a.served, a.name, &why));
        };
        let verdict = match (a.served.kind.group, a.served.kind.resource, a.subresource) {
            ("", "pods", "") => self.node_pod(node, a, o),
            ("", "pods", "status") => node_pod_status(node, a, o),
            ("", "pods", "eviction") => self.node_eviction(node, a),
            ("", "pods", sub) => {
                Err(format!("unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed"))
            }
            ("", "nodes", _) => node_node(node, a, o),
            ("", "persistentvolumeclaims", "status") => claim_status(node, a, o),
            ("", "persistentvolumeclaims", _) => Err("may only update PVC status".to_owned()),
            ("", "serviceaccounts", "token") if a.operation == Operation::Create => {
                self.node_token(node, a, o)
            }
            ("coordination.k8s.io", "leases", _) => node_lease(node, a, o),
            _ => Ok(()),
        };
        verdict.map_err(|why| {
            let name = if a.name.is_empty() { o.map(object::name).unwrap_or_default() } else { a.name };
            ApiError::forbidden(a.served, name, &why)
        })
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Value> {
        let pods = kinds::by_resource("", "pods").expect("pods are a kind");
        self.cache.get(pods.index, &format!("{namespace}/{name}")).map(|p| p.value())
    }

    fn node_pod(&self, node: &str, a: &Attributes<'_>, o: Option<&Value>) -> std::result::Result<(), String> {
        match (a.operation, o, a.old) {
            (Operation::Create, Some(pod), _) => self.mirror_pod(node, pod),
            (Operation::Delete, _, Some(old)) => {
                if object::text(old, "spec.nodeName") == Some(node) {
                    return Ok(());
                }
                Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
            }
            _ => Err(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                a.operation.text()
            )),
        }
    }

    fn mirror_pod(&self, node: &str, pod: &Value) -> std::result::Result<(), String> {
        if object::get(pod, "metadata.annotations").is_none_or(|m| m.get(MIRROR).is_none()) {
            return Err(format!(
                "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
            ));
        }
        if object::text(pod, "spec.nodeName") != Some(node) {
            return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
        }
        let owner = match object::list(pod, "metadata.ownerReferences") {
            [one] => one,
            [] => {
                return Err(format!(
                    "node {node:?} can only create pods with an owner reference set to itself"
                ));
            }
            _ => {
                return Err(format!(
                    "node {node:?} can only create pods with a single owner reference set to itself"
                ));
            }
        };
        if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
            return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
        if owner["controller"] != true {
            return Err(format!(
                "node {node:?} can only create pods with a controller owner reference set to itself"
            ));
        }
        if owner["blockOwnerDeletion"] == true {
            return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        let nodes = kinds::by_resource("", "nodes").expect("nodes are a kind");
        let own = self.cache.get(nodes.index, node).map(|n| n.value()).unwrap_or_default();
        let (uid, given) = (
            object::text(&own, "metadata.uid").unwrap_or_default(),
            owner["uid"].as_str().unwrap_or_default(),
        );
        if uid != given {
            return Err(format!("node {node} UID mismatch: expected {given} got {uid}"));
        }
        // What a pod names, its node may read.
        if object::text(pod, "spec.serviceAccountName").is_some_and(|s| !s.is_empty()) {
            return Err(format!("node {node:?} can not create pods that reference a service account"));
        }
        if !node::secrets(pod).is_empty() {
            return Err(format!("node {node:?} can not create pods that reference secrets"));
        }
        if !node::config_maps(pod).is_empty() {
            return Err(format!("node {node:?} can not create pods that reference configmaps"));
        }
        if !node::claims(pod).is_empty() {
            return Err(format!("node {node:?} can not create pods that reference persistentvolumeclaims"));
        }
        Ok(())
    }

    fn node_eviction(&self, node: &str, a: &Attributes<'_>) -> std::result::Result<(), String> {
        // A pod that is gone is told of by whoever evicts it.
        let Some(pod) = self.pod(a.namespace, a.name) else { return Ok(()) };
        if object::text(&pod, "spec.nodeName") == Some(node) {
            return Ok(());
        }
        Err(format!("node {node} can only evict pods with spec.nodeName set to itself"))
    }

    /// Tokens for a node are bound to a pod that runs there.
    fn node_token(
        &self,
        node: &str,
        a: &Attributes<'_>,
        o: Option<&Value>,
    ) -> std::result::Result<(), String> {
        let bound = o.and_then(|o| object::get(o, "spec.boundObjectRef"));
        let text = |k: &str| bound.and_then(|b| b[k].as_str()).unwrap_or_default();
        if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
            return Err("node requested token not bound to a pod".to_owned());
        }
        if text("uid").is_empty() {
            return Err("node requested token with a pod binding without a uid".to_owned());
        }
        let pod = self.pod(a.namespace, text("name"));
        let pod = pod.ok_or_else(|| format!("pods {:?} not found", text("name")))?;
        if object::text(&pod, "metadata.uid") != Some(text("uid")) {
            return Err(format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                text("uid")
            ));
        }
        if object::text(&pod, "spec.nodeName") != Some(node) {
            return Err("node requested token bound to a pod scheduled on a different node".to_owned());
        }
        Ok(())
    }
}

fn node_pod_status(node: &str, a: &Attributes<'_>, o: Option<&Value>) -> std::result::Result<(), String> {
    let (Some(new), Some(old)) = (o, a.old) else {
        return Err(format!("unexpected operation {:?}", a.operation.text()));
    };
    if object::text(old, "spec.nodeName") != Some(node) {
        return Err(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if object::get(new, "metadata.labels") != object::get(old, "metadata.labels") {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    if object::get(new, "status.resourceClaimStatuses") != object::get(old, "status.resourceClaimStatuses") {
        return Err(format!("node {node:?} cannot update resource claim statues"));
    }
    Ok(())
}

fn node_node(node: &str, a: &Attributes<'_>, o: Option<&Value>) -> std::result::Result<(), String> {
    let name = match (a.name, o) {
        ("", Some(o)) => object::name(o),
        (name, _) => name,
    };
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = o else { return Ok(()) };
    let config = |o: &Value| object::get(o, "spec.configSource").cloned();
    match a.old {
        None => {
            if config(new).is_some() {
                return Err(format!(
                    "node {node:?} is not allowed to create pods with a non-nil configSource"
                ));
            }
            let forbidden = forbidden_labels(new, &Value::Null);
            if !forbidden.is_empty() {
                return Err(format!(
                    "node {node:?} is not allowed to set the following labels: {}",
                    forbidden.join(", ")
                ));
            }
        }
        Some(old) => {
            if config(new).is_some() && config(new) != config(old) {
                return Err(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            if object::list(new, "spec.taints") != object::list(old, "spec.taints") {
                return Err(format!("node {node:?} is not allowed to modify taints"));
            }
            let forbidden = forbidden_labels(new, old);
            if !forbidden.is_empty() {
                return Err(format!("is not allowed to modify labels: {}", forbidden.join(", ")));
            }
        }
    }
    Ok(())
}

/// The labels that differ and are not a node's to set.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let labels = |o: &Value| object::get(o, "metadata.labels").and_then(Value::as_object).cloned();
    let (new, old) = (labels(new).unwrap_or_default(), labels(old).unwrap_or_default());
    let keys: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let changed = keys.into_iter().filter(|k| new.get(*k) != old.get(*k));
    changed.filter(|k| is_forbidden_label(k)).cloned().collect()
}

fn is_forbidden_label(key: &str) -> bool {
    let Some((namespace, _)) = key.split_once('/') else { return false };
    let below = |of: &str| namespace == of || namespace.ends_with(&format!(".{of}"));
    if below(RESTRICTED) {
        return true;
    }
    let kubelets =
        KUBELET_LABELS.contains(&key) || below("kubelet.kubernetes.io") || below("node.kubernetes.io");
    (below("kubernetes.io") || below("k8s.io")) && !kubelets
}

fn claim_status(node: &str, a: &Attributes<'_>, o: Option<&Value>) -> std::result::Result<(), String> {
    let (Some(new), Some(old)) = (o, a.old) else {
        return Err(format!("unexpected operation {:?}", a.operation.text()));
    };
    let rest = |o: &Value| {
        let mut o = o.clone();
        for key in ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"] {
            drop(object::remove(object::child(&mut o, "status"), key));
        }
        for key in ["resourceVersion", "managedFields"] {
            object::metadata(&mut o).shift_remove(key);
        }
        o
    };
    if rest(new) == rest(old) {
        return Ok(());
    }
    Err(format!(
        "node {node:?} is not allowed to update fields other than status.capacity and status.conditions"
    ))
}

fn node_lease(node: &str, a: &Attributes<'_>, o: Option<&Value>) -> std::result::Result<(), String> {
    if a.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    let name = match (a.operation, o) {
        (Operation::Create, Some(o)) => object::name(o),
        _ => a.name,
    };
    if name == node {
        return Ok(());
    }
    Err("can only access node lease with the same name as the requesting node".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_steer_pods_are_not_the_nodes() {
        for (key, forbidden) in [
            ("rack", false),
            ("example.com/rack", false),
            ("kubernetes.io/hostname", false),
            ("node.kubernetes.io/anything", false),
            ("x.node.kubernetes.io/anything", false),
            ("kubelet.kubernetes.io/anything", false),
            ("node-restriction.kubernetes.io/tier", true),
            ("x.node-restriction.kubernetes.io/tier", true),
            ("node-role.kubernetes.io/control-plane", true),
            ("foo.k8s.io/x", true),
        ] {
            assert_eq!(is_forbidden_label(key), forbidden, "{key}");
        }
    }
}
