//! Small admission plugins, one function each (kubernetes: plugin/pkg/admission).

use apimachinery::quantity::Quantity;
use serde_json::{Value, json};

use super::attributes::{Attributes, Operation};
use crate::error::{ApiError, Result};
use crate::kinds;
use crate::object;
use crate::server::{Access, ApiServer};

/// Namespaces that every cluster has for good.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

impl ApiServer {
    /// Plugins that change objects.
    pub(super) fn mutate_by_plugins(&self, a: &Attributes<'_>, o: &mut Value) -> Result<()> {
        let on = |plugin: &str| self.config.admission.is_on(plugin);
        let creating = a.operation == Operation::Create;
        match (a.served.kind.group, a.served.kind.resource, a.subresource) {
            ("", "pods", "") => {
                if creating && on("RuntimeClass") {
                    self.admit_runtime_class(a, o)?;
                }
                if creating && on("ExtendedResourceToleration") {
                    tolerate_extended(o);
                }
                if on("AlwaysPullImages") {
                    for list in CONTAINERS {
                        for c in object::list_mut(o, &format!("spec.{list}")) {
                            c["imagePullPolicy"] = "Always".into();
                        }
                    }
                }
            }
            ("networking.k8s.io", "ingresses", "") if creating && on("DefaultIngressClass") => {
                self.admit_ingress_class(a, o)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Plugins that only say no.
    pub(super) fn judge_by_plugins(&self, a: &Attributes<'_>, o: Option<&Value>) -> Result<()> {
        let on = |plugin: &str| self.config.admission.is_on(plugin);
        if a.operation == Operation::Delete {
            let namespace = a.served.kind.group.is_empty() && a.served.kind.resource == "namespaces";
            if namespace && a.subresource.is_empty() && IMMORTAL.contains(&a.name) {
                return Err(ApiError::forbidden(a.served, a.name, "this namespace may not be deleted"));
            }
            return Ok(());
        }
        let Some(o) = o else { return Ok(()) };
        match (a.served.kind.group, a.served.kind.resource, a.subresource) {
            ("", "services", "") if on("DenyServiceExternalIPs") => deny_external_ips(a, o)?,
            ("", "persistentvolumeclaims", "") if on("PersistentVolumeClaimResize") => {
                self.check_resize(a, o)?;
            }
            _ => {}
        }
        self.judge_certificate(a, o)?;
        if on("OwnerReferencesPermissionEnforcement") {
            self.check_owners(a, o)?;
        }
        if on("PodSecurity") {
            self.check_pod_security(a, o)?;
        }
        Ok(())
    }

    /// The class's overhead, and where such pods can run.
    fn admit_runtime_class(&self, a: &Attributes<'_>, o: &mut Value) -> Result<()> {
        let refuse = |o: &Value, why: &str| Err(ApiError::forbidden(a.served, object::name(o), why));
        let named = object::text(o, "spec.runtimeClassName").unwrap_or_default().to_owned();
        if named.is_empty() {
            let given = object::get(o, "spec.overhead").and_then(Value::as_object);
            return if given.is_some_and(|g| !g.is_empty()) {
                refuse(
                    o,
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
                )
            } else {
                Ok(())
            };
        }
        let classes =
            kinds::by_resource("node.k8s.io", "runtimeclasses").expect("runtime classes are a kind");
        let Some(class) = self.cache.get(classes.index, &named) else {
            return refuse(o, &format!("pod rejected: RuntimeClass {named:?} not found"));
        };
        let class = class.value();
        let (given, fixed) =
            (object::get(o, "spec.overhead").cloned(), object::get(&class, "overhead.podFixed").cloned());
        match (given, fixed) {
            (Some(g), Some(f)) if !same_amounts(&g, &f) => {
                return refuse(
                    o,
                    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
                );
            }
            (Some(g), None) if g.as_object().is_some_and(|g| !g.is_empty()) => {
                return refuse(
                    o,
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
                );
            }
            (None, Some(f)) => object::child(o, "spec")["overhead"] = f,
            _ => {}
        }
        let selector = object::get(&class, "scheduling.nodeSelector").and_then(Value::as_object).cloned();
        for (k, v) in selector.into_iter().flatten() {
            let own = object::child(object::child(o, "spec"), "nodeSelector");
            let had = own[&k].as_str().filter(|h| Some(*h) != v.as_str()).map(str::to_owned);
            if let Some(had) = had {
                let wanted = v.as_str().unwrap_or_default();
                return refuse(
                    o,
                    &format!(
                        "conflict: runtimeClass.scheduling.nodeSelector[{k}] = {wanted}; pod.spec.nodeSelector[{k}] = {had}"
                    ),
                );
            }
            own[&k] = v;
        }
        for t in object::list(&class, "scheduling.tolerations") {
            add_toleration(o, t.clone());
        }
        Ok(())
    }

    /// An ingress that names no class gets the default one.
    fn admit_ingress_class(&self, a: &Attributes<'_>, o: &mut Value) -> Result<()> {
        const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
        let annotated = object::get(o, "metadata.annotations")
            .is_some_and(|m| m.get("kubernetes.io/ingress.class").is_some());
        if annotated || object::get(o, "spec.ingressClassName").is_some() {
            return Ok(());
        }
        let classes = kinds::by_resource("networking.k8s.io", "ingressclasses").expect("classes are a kind");
        let all = self.cache.list(classes.index, None).objects;
        let mut defaults: Vec<Value> = all
            .iter()
            .map(|c| c.value())
            .filter(|c| object::get(c, "metadata.annotations").is_some_and(|m| m[DEFAULT] == "true"))
            .collect();
        if defaults.len() > 1 {
            let created = |c: &Value| object::text(c, "metadata.creationTimestamp").map(str::to_owned);
            defaults.sort_by_key(|c| std::cmp::Reverse(created(c)));
            if created(&defaults[0]) == created(&defaults[1]) {
                let why = format!("{} default IngressClasses were found, only 1 allowed", defaults.len());
                return Err(ApiError::forbidden(a.served, object::name(o), &why));
            }
        }
        if let Some(class) = defaults.first() {
            object::child(o, "spec")["ingressClassName"] = object::name(class).into();
        }
        Ok(())
    }

    /// A claim grows only where its class lets it.
    fn check_resize(&self, a: &Attributes<'_>, o: &Value) -> Result<()> {
        let Some(old) = a.old else { return Ok(()) };
        let size = |o: &Value| -> Quantity {
            let text = object::get(o, "spec.resources.requests").and_then(|r| r["storage"].as_str());
            text.and_then(|t| t.parse().ok()).unwrap_or_default()
        };
        if size(o) <= size(old) {
            return Ok(());
        }
        let refuse = |why: &str| Err(ApiError::forbidden(a.served, object::name(o), why));
        if object::text(old, "status.phase") != Some("Bound") {
            return refuse("Only bound persistent volume claims can be expanded");
        }
        let classes = kinds::by_resource("storage.k8s.io", "storageclasses").expect("classes are a kind");
        let class = object::text(o, "spec.storageClassName").and_then(|n| self.cache.get(classes.index, n));
        if class.is_some_and(|c| object::flag(&c.value(), "allowVolumeExpansion")) {
            return Ok(());
        }
        refuse(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        )
    }

    /// Whoever names an owner could have it deleted by that; so they must be allowed to delete this object, and to
    /// hold the owner's deletion up if they say so.
    fn check_owners(&self, a: &Attributes<'_>, o: &Value) -> Result<()> {
        let Some(user) = a.user else { return Ok(()) };
        if a.served.kind.group.is_empty() && a.served.kind.resource == "pods" && a.subresource == "status" {
            return Ok(());
        }
        let owners = |o: Option<&Value>| {
            o.map(|o| object::list(o, "metadata.ownerReferences").to_vec()).unwrap_or_default()
        };
        let (new, old) = (owners(Some(o)), owners(a.old));
        if new == old {
            return Ok(());
        }
        let mut access = Access {
            verb: "delete".to_owned(),
            group: a.served.kind.group.to_owned(),
            resource: a.served.kind.resource.to_owned(),
            namespace: a.namespace.to_owned(),
            name: a.name.to_owned(),
            ..Access::default()
        };
        // What is being created has no name yet that a rule could mean.
        if a.operation == Operation::Create {
            access.name.clear();
        }
        if !self.authorize(user, &access) {
            let why = "cannot set an ownerRef on a resource you can't delete: , <nil>";
            return Err(ApiError::forbidden(a.served, object::name(o), why));
        }
        for r in new.iter().filter(|r| r["blockOwnerDeletion"] == true) {
            let before = old.iter().find(|p| p["uid"] == r["uid"]);
            if before.is_some_and(|p| p["blockOwnerDeletion"] == true) {
                continue;
            }
            let text = |k: &str| r[k].as_str().unwrap_or_default();
            let (group, _) = text("apiVersion").split_once('/').unwrap_or_default();
            let Some(owner) =
                self.served().into_iter().find(|s| s.group == group && s.kind.kind == text("kind"))
            else {
                continue;
            };
            let access = Access {
                verb: "update".to_owned(),
                group: group.to_owned(),
                resource: owner.kind.resource.to_owned(),
                subresource: "finalizers".to_owned(),
                namespace: if owner.kind.namespaced { a.namespace.to_owned() } else { String::new() },
                name: text("name").to_owned(),
            };
            if !self.authorize(user, &access) {
                let why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>";
                return Err(ApiError::forbidden(a.served, object::name(o), why));
            }
        }
        Ok(())
    }
}

/// External addresses reach anybody's traffic: only those that were there may stay.
fn deny_external_ips(a: &Attributes<'_>, o: &Value) -> Result<()> {
    let before = a.old.map(|old| object::list(old, "spec.externalIPs")).unwrap_or_default();
    if object::list(o, "spec.externalIPs").iter().all(|ip| before.contains(ip)) {
        return Ok(());
    }
    Err(ApiError::forbidden(a.served, object::name(o), "Use of external IPs is denied by admission control"))
}

fn same_amounts(a: &Value, b: &Value) -> bool {
    let read = |v: &Value| -> Option<Vec<(String, Quantity)>> {
        let mut all: Vec<_> = v
            .as_object()?
            .iter()
            .map(|(k, v)| Some((k.clone(), v.as_str()?.parse().ok()?)))
            .collect::<Option<_>>()?;
        all.sort_by(|x: &(String, Quantity), y| x.0.cmp(&y.0));
        Some(all)
    };
    read(a) == read(b)
}

fn add_toleration(o: &mut Value, toleration: Value) {
    let spec = object::child(o, "spec");
    match spec.get_mut("tolerations").and_then(Value::as_array_mut) {
        Some(all) if all.contains(&toleration) => {}
        Some(all) => all.push(toleration),
        None => spec["tolerations"] = json!([toleration]),
    }
}

/// Nodes with special devices are tainted by these devices' names.
fn tolerate_extended(o: &mut Value) {
    let mut wanted: Vec<String> = Vec::new();
    for list in ["spec.initContainers", "spec.containers"] {
        for c in object::list(o, list) {
            let requests = object::get(c, "resources.requests").and_then(Value::as_object);
            wanted.extend(requests.into_iter().flatten().map(|(k, _)| k.clone()));
        }
    }
    wanted.retain(|k| k.contains('/') && !k.contains("kubernetes.io/") && !k.starts_with("requests."));
    wanted.sort();
    wanted.dedup();
    for key in wanted {
        add_toleration(o, json!({"key": key, "operator": "Exists"}));
    }
}
