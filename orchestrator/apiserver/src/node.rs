//! What nodes may do: the Node authorizer. A kubelet reads only what pods bound to its node name, and writes only
//! its own Node, its lease and the statuses of its pods; [`crate::admission`] looks at what it writes
//! (kubernetes: plugin/pkg/auth/authorizer/node, plugin/pkg/auth/authorizer/rbac/bootstrappolicy NodeRules).
//!
//! There is no graph to keep: a question walks the pods of one namespace on one node, a hundred or so.

use std::sync::LazyLock;

use apimachinery::selector::FieldSelector;
use apimachinery::user::UserInfo;
use serde_json::{Value, json};

use crate::cache::Cache;
use crate::kinds;
use crate::object;
use crate::rbac::Rule;
use crate::server::Access;

pub(crate) const GROUP: &str = "system:nodes";
const USER: &str = "system:node:";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The node that a user is, if it is one.
pub(crate) fn identity(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix(USER).filter(|n| !n.is_empty() && user.in_group(GROUP))
}

/// What an authorizer says: yes, or why it has nothing to say.
pub(crate) type Opinion = Result<(), String>;

/// What all nodes may do, beside what depends on the node.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rule = |verbs: &[&str], groups: &[&str], resources: &[&str]| {
        Rule::parse(&json!({"verbs": verbs, "apiGroups": groups, "resources": resources}))
    };
    let read = ["get", "list", "watch"];
    vec![
        rule(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
        rule(&["create"], &["authorization.k8s.io"], &["localsubjectaccessreviews", "subjectaccessreviews"]),
        rule(&read, &[""], &["services"]),
        rule(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]),
        rule(&["get"], &[""], &["endpoints"]),
        rule(&["create", "get", "list", "watch"], &["certificates.k8s.io"], &["certificatesigningrequests"]),
        rule(&["create"], &["certificates.k8s.io"], &["certificatesigningrequests/selfnodeclient"]),
        rule(&read, &["storage.k8s.io"], &["csidrivers"]),
        rule(&read, &["node.k8s.io"], &["runtimeclasses"]),
    ]
});

/// Whether a node may do something. `fields` are those of a list or watch.
pub(crate) fn authorize(cache: &Cache, node: &str, a: &Access, fields: Option<&FieldSelector>) -> Opinion {
    let no = |why: &str| Err(why.to_owned());
    let verb = a.verb.as_str();
    match (a.group.as_str(), a.resource.as_str()) {
        ("", "secrets" | "configmaps") => {
            if !matches!(verb, "get" | "list" | "watch") {
                return no("can only read resources of this type");
            }
            if !a.subresource.is_empty() {
                return no("cannot read subresource");
            }
            if a.namespace.is_empty() {
                return no("can only read namespaced object of this type");
            }
            related(cache, node, a, fields)
        }
        ("", "persistentvolumeclaims") if a.subresource == "status" => match verb {
            "update" | "patch" => related(cache, node, a, fields),
            _ => no("can only get/update/patch this type"),
        },
        ("", "persistentvolumeclaims" | "persistentvolumes") | ("storage.k8s.io", "volumeattachments") => {
            if verb != "get" {
                return no("can only get individual resources of this type");
            }
            if !a.subresource.is_empty() {
                return no("cannot get subresource");
            }
            related(cache, node, a, fields)
        }
        ("", "serviceaccounts") => {
            if verb != "create" || a.name.is_empty() {
                return no("can only create tokens for individual service accounts");
            }
            if a.subresource != "token" {
                return no("can only create token subresource of serviceaccount");
            }
            related(cache, node, a, fields)
        }
        ("coordination.k8s.io", "leases") => lease(node, a),
        ("storage.k8s.io", "csinodes") => match verb {
            _ if !a.subresource.is_empty() => no("cannot authorize CSINode subresources"),
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" if a.name == node => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                no("can only access CSINode with the same name as the requesting node")
            }
            _ => no("can only get, create, update, patch, or delete a CSINode"),
        },
        ("", "nodes") => match (a.subresource.as_str(), verb) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
            ("", "get" | "list" | "watch") => match named(a, fields) {
                n if n == node => Ok(()),
                "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
                other => Err(format!("node '{node}' cannot read '{other}', only its own Node object")),
            },
            _ => no(""),
        },
        ("", "pods") => match (a.subresource.as_str(), verb) {
            ("", "get") => related(cache, node, a, fields),
            ("", "list" | "watch") => {
                if fields.and_then(|f| f.required("spec.nodeName")) == Some(node) {
                    return Ok(());
                }
                if !named(a, fields).is_empty() {
                    return related(cache, node, a, fields);
                }
                no("can only list/watch pods with spec.nodeName field selector")
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => no(""),
        },
        _ if RULES.iter().any(|r| r.allows(a)) => Ok(()),
        _ => no(""),
    }
}

/// The one object that is meant: by the path, or by a list's field selector.
fn named<'a>(a: &'a Access, fields: Option<&'a FieldSelector>) -> &'a str {
    if !a.name.is_empty() {
        return &a.name;
    }
    fields.and_then(|f| f.required("metadata.name")).unwrap_or_default()
}

fn lease(node: &str, a: &Access) -> Opinion {
    if !matches!(a.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".to_owned());
    }
    if a.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    // A lease that is created is looked at by NodeRestriction: its name is in the body.
    if a.verb != "create" && a.name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

/// Whether a pod of the node needs the object.
fn related(cache: &Cache, node: &str, a: &Access, fields: Option<&FieldSelector>) -> Opinion {
    let name = named(a, fields);
    if name.is_empty() {
        return Err("No Object name found".to_owned());
    }
    let nodes = kinds::by_resource("", "nodes").expect("nodes are a kind");
    let known = cache.get(nodes.index, node).is_some();
    let found = known
        && match a.resource.as_str() {
            "pods" => {
                let pods = kinds::by_resource("", "pods").expect("pods are a kind");
                let pod = cache.get(pods.index, &format!("{}/{name}", a.namespace));
                pod.is_some_and(|p| object::text(&p.value(), "spec.nodeName") == Some(node))
            }
            "secrets" => {
                pods_on(cache, node, &a.namespace).iter().any(|p| {
                    secrets(p).contains(&name)
                        || claims_of(cache, p)
                            .iter()
                            .any(|c| c.secrets.iter().any(|s| *s == (a.namespace.clone(), name.to_owned())))
                }) || volume_secrets_elsewhere(cache, node, &a.namespace, name)
            }
            "configmaps" => pods_on(cache, node, &a.namespace).iter().any(|p| config_maps(p).contains(&name)),
            "persistentvolumeclaims" => {
                pods_on(cache, node, &a.namespace).iter().any(|p| claims(p).iter().any(|c| c == name))
            }
            "persistentvolumes" => {
                let volumes = kinds::by_resource("", "persistentvolumes").expect("volumes are a kind");
                let claim = cache.get(volumes.index, name).map(|v| v.value());
                claim.as_ref().and_then(|v| object::get(v, "spec.claimRef")).is_some_and(|r| {
                    let (ns, claim) = (r["namespace"].as_str(), r["name"].as_str());
                    pods_on(cache, node, ns.unwrap_or_default())
                        .iter()
                        .any(|p| claims(p).iter().any(|c| Some(c.as_str()) == claim))
                })
            }
            "serviceaccounts" => pods_on(cache, node, &a.namespace)
                .iter()
                .any(|p| object::text(p, "spec.serviceAccountName") == Some(name)),
            "volumeattachments" => false,
            _ => false,
        };
    if found {
        return Ok(());
    }
    Err(format!("no relationship found between node '{node}' and this object"))
}

/// The pods of a namespace that are bound to a node. Mirror pods are the node's own word: they name nothing.
fn pods_on(cache: &Cache, node: &str, namespace: &str) -> Vec<Value> {
    let pods = kinds::by_resource("", "pods").expect("pods are a kind");
    let at = pods.kind.fields.iter().position(|f| *f == "spec.nodeName").expect("pods are found by node");
    let all = cache.list(pods.index, (!namespace.is_empty()).then_some(namespace)).objects;
    let bound = all.iter().filter(|p| p.fields.get(at).is_some_and(|n| **n == *node));
    let values = bound.map(|p| p.value());
    values
        .filter(|p| object::get(p, "metadata.annotations").is_none_or(|a| a.get(MIRROR).is_none()))
        .collect()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["spec.initContainers", "spec.containers", "spec.ephemeralContainers"]
        .into_iter()
        .flat_map(|l| object::list(pod, l))
}

/// Names that a pod gives for one kind of source: in the environment, and in volumes.
fn names<'a>(pod: &'a Value, env: &str, from: &str, volume: &[&str], projected: &str) -> Vec<&'a str> {
    let mut out = Vec::new();
    for c in containers(pod) {
        out.extend(object::list(c, "env").iter().filter_map(|e| object::text(e, env)));
        out.extend(object::list(c, "envFrom").iter().filter_map(|e| object::text(e, from)));
    }
    for v in object::list(pod, "spec.volumes") {
        out.extend(volume.iter().filter_map(|p| object::text(v, p)));
        let sources = object::list(v, "projected.sources").iter();
        out.extend(sources.filter_map(|s| object::text(s, projected)));
    }
    out
}

/// The secrets a pod names.
pub(crate) fn secrets(pod: &Value) -> Vec<&str> {
    const VOLUMES: [&str; 9] = [
        "secret.secretName",
        "azureFile.secretName",
        "cephfs.secretRef.name",
        "cinder.secretRef.name",
        "csi.nodePublishSecretRef.name",
        "flexVolume.secretRef.name",
        "iscsi.secretRef.name",
        "rbd.secretRef.name",
        "scaleIO.secretRef.name",
    ];
    let mut out = names(pod, "valueFrom.secretKeyRef.name", "secretRef.name", &VOLUMES, "secret.name");
    out.extend(object::list(pod, "spec.imagePullSecrets").iter().filter_map(|s| s["name"].as_str()));
    out
}

/// The config maps a pod names.
pub(crate) fn config_maps(pod: &Value) -> Vec<&str> {
    names(pod, "valueFrom.configMapKeyRef.name", "configMapRef.name", &["configMap.name"], "configMap.name")
}

/// The claims a pod has: named, or made for one of its volumes.
pub(crate) fn claims(pod: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for v in object::list(pod, "spec.volumes") {
        if let Some(n) = object::text(v, "persistentVolumeClaim.claimName") {
            out.push(n.to_owned());
        }
        if object::get(v, "ephemeral").is_some() {
            out.push(format!("{}-{}", object::name(pod), v["name"].as_str().unwrap_or_default()));
        }
    }
    out
}

/// The secrets that the volume behind a claim names, as (namespace, name).
struct Bound {
    secrets: Vec<(String, String)>,
}

fn claims_of(cache: &Cache, pod: &Value) -> Vec<Bound> {
    let claims_kind = kinds::by_resource("", "persistentvolumeclaims").expect("claims are a kind");
    let volumes = kinds::by_resource("", "persistentvolumes").expect("volumes are a kind");
    let namespace = object::namespace(pod);
    let of = |claim: String| -> Option<Bound> {
        let claim = cache.get(claims_kind.index, &format!("{namespace}/{claim}"))?.value();
        let volume = cache.get(volumes.index, object::text(&claim, "spec.volumeName")?)?.value();
        let mut secrets = Vec::new();
        for (_, source) in volume["spec"].as_object().into_iter().flatten() {
            for (key, r) in source.as_object().into_iter().flatten() {
                if key.ends_with("ecretRef") && r["name"].is_string() {
                    let ns = r["namespace"].as_str().unwrap_or(namespace);
                    secrets.push((ns.to_owned(), r["name"].as_str().unwrap_or_default().to_owned()));
                }
            }
        }
        Some(Bound { secrets })
    };
    claims(pod).into_iter().filter_map(of).collect()
}

/// A volume's secret may lie in another namespace than the pod that mounts it.
fn volume_secrets_elsewhere(cache: &Cache, node: &str, namespace: &str, name: &str) -> bool {
    let volumes = kinds::by_resource("", "persistentvolumes").expect("volumes are a kind");
    if cache.is_empty(volumes.index) {
        return false;
    }
    let wanted = (namespace.to_owned(), name.to_owned());
    pods_on(cache, node, "").iter().any(|p| claims_of(cache, p).iter().any(|c| c.secrets.contains(&wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pod_names() {
        let pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "env"}}}]}],
            "containers": [{"envFrom": [{"secretRef": {"name": "from"}}, {"configMapRef": {"name": "map-from"}}],
                "env": [{"name": "B", "valueFrom": {"configMapKeyRef": {"name": "map-env"}}}]}],
            "volumes": [
                {"name": "v", "secret": {"secretName": "volume"}},
                {"name": "w", "configMap": {"name": "map-volume"}},
                {"name": "x", "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "map-projected"}}]}},
                {"name": "y", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "z", "ephemeral": {}}]}});
        let sorted = |mut v: Vec<&str>| {
            v.sort_unstable();
            v.join(" ")
        };
        assert_eq!(sorted(secrets(&pod)), "env from projected pull volume");
        assert_eq!(sorted(config_maps(&pod)), "map-env map-from map-projected map-volume");
        assert_eq!(claims(&pod), ["claim", "p-z"]);
    }

    #[test]
    fn only_nodes_are_nodes() {
        assert_eq!(identity(&UserInfo::new("system:node:a", &[GROUP])), Some("a"));
        assert_eq!(identity(&UserInfo::new("system:node:a", &[])), None);
        assert_eq!(identity(&UserInfo::new("system:node:", &[GROUP])), None);
        assert_eq!(identity(&UserInfo::new("a", &[GROUP])), None);
    }
}
