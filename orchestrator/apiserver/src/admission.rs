//! What the server adds to new objects on its own: service accounts and priorities for pods, classes for
//! claims, addresses for services. [`attributes`] says what admission is told.

pub(crate) mod attributes;
pub(crate) mod config;
pub(crate) mod metrics;
mod noderestriction;
mod plugins;
pub(crate) mod podsecurity;
pub(crate) mod reinvocation;
pub(crate) mod shown;

use std::collections::HashSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;

use attributes::{Attributes, Operation};
use metrics::Half;
use reinvocation::Rounds;

use crate::dispatch::Context;
use crate::error::{ApiError, Result};
use crate::kinds::{self, Served, service, storage};
use crate::registry::random_suffix;
use crate::server::ApiServer;
use crate::subresource::{scale_of, set_replicas};
use crate::validation::Errors;
use crate::webhook::Subject;
use crate::{addresses, object};

const SCALE: Subject = ("autoscaling", "v1", "Scale");
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

impl ApiServer {
    /// The admission that may change what is written: after defaulting, before validation. Says whether somebody
    /// outside changed it.
    pub(crate) async fn admit(&self, attributes: &Attributes<'_>, o: &mut Value) -> Result<bool> {
        self.step(Half::Admit, attributes, Box::pin(self.admit_all(attributes, o))).await
    }

    async fn admit_all(&self, attributes: &Attributes<'_>, o: &mut Value) -> Result<bool> {
        let mut rounds = Rounds::default();
        if attributes.subresource == "scale" {
            self.admit_defaults(attributes, o).await?;
            let of = |o: &Value| scale_of(attributes.served, o);
            let (mut scale, old) = (of(o), attributes.old.map(of));
            let asked = Attributes { old: old.as_ref(), ..*attributes };
            let before = scale.clone();
            self.call_mutating(&asked, Some(&mut scale), Some(SCALE), &mut rounds).await?;
            if rounds.another() {
                self.call_mutating(&asked, Some(&mut scale), Some(SCALE), &mut rounds).await?;
            }
            if scale != before {
                set_replicas(attributes.served, o, scale["spec"]["replicas"].clone());
            }
            return Ok(false);
        }
        let mut changed = false;
        loop {
            self.admit_defaults(attributes, o).await?;
            let work = self.mutate_by_policies(attributes, o, &mut rounds);
            changed |= self.plugin("MutatingAdmissionPolicy", Half::Admit, attributes, work).await?;
            let work = self.call_mutating(attributes, Some(&mut *o), None, &mut rounds);
            changed |= self.plugin("MutatingAdmissionWebhook", Half::Admit, attributes, work).await?;
            if !rounds.another() {
                return Ok(changed);
            }
        }
    }

    /// The admission that only says no: what is written is valid and will not change any more. A deletion has no
    /// new object.
    pub(crate) async fn admit_valid(&self, attributes: &Attributes<'_>, o: Option<&Value>) -> Result<()> {
        self.step(Half::Validate, attributes, Box::pin(self.judge_all(attributes, o))).await
    }

    async fn judge_all(&self, attributes: &Attributes<'_>, o: Option<&Value>) -> Result<()> {
        if self.config.admission.is_on("NodeRestriction") {
            self.restrict_node(attributes, o)?;
        }
        self.judge_by_plugins(attributes, o)?;
        if attributes.subresource == "scale" {
            let of = |o: &Value| scale_of(attributes.served, o);
            let (scale, old) = (o.map(of), attributes.old.map(of));
            let asked = Attributes { old: old.as_ref(), ..*attributes };
            return self.judge_by_others(&asked, scale.as_ref(), Some(SCALE)).await;
        }
        self.judge_by_others(attributes, o, None).await
    }

    /// Rules of administrators.
    async fn judge_by_others(
        &self,
        a: &Attributes<'_>,
        o: Option<&Value>,
        subject: Option<Subject>,
    ) -> Result<()> {
        let half = Half::Validate;
        let work = self.judge_by_policies(a, o, subject);
        self.plugin("ValidatingAdmissionPolicy", half, a, work).await?;
        self.plugin("RegoPolicy", half, a, self.judge_by_rego(a, o, subject)).await?;
        self.plugin("ValidatingAdmissionWebhook", half, a, self.call_validating(a, o, subject)).await
    }

    /// Both, for what a subresource takes and nobody stores: options of a connection, a binding, an eviction.
    pub(crate) async fn admit_subject(
        &self,
        operation: Operation,
        ctx: &Context,
        served: &Served,
        (group, version, kind): Subject,
        o: &mut Value,
    ) -> Result<()> {
        o["kind"] = kind.into();
        o["apiVersion"] = if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
        let write = ctx.write()?;
        let attributes = Attributes::new(operation, served, &ctx.info.namespace, &ctx.info.name, &write);
        let subject = Some((group, version, kind));
        let mut rounds = Rounds::default();
        self.call_mutating(&attributes, Some(&mut *o), subject, &mut rounds).await?;
        if rounds.another() {
            self.call_mutating(&attributes, Some(&mut *o), subject, &mut rounds).await?;
        }
        if self.config.admission.is_on("NodeRestriction") {
            self.restrict_node(&attributes, Some(&*o))?;
        }
        self.step(Half::Validate, &attributes, self.judge_by_others(&attributes, Some(o), subject)).await
    }

    /// A stream to a pod, a service or a node is asked for.
    pub(crate) async fn admit_connect(&self, ctx: &Context, served: &Served) -> Result<()> {
        let kind = match (served.kind.builtin(), ctx.info.subresource.as_str()) {
            ("pods", "exec") => "PodExecOptions",
            ("pods", "attach") => "PodAttachOptions",
            ("pods", "portforward") => "PodPortForwardOptions",
            ("pods", "proxy") => "PodProxyOptions",
            ("services", "proxy") => "ServiceProxyOptions",
            ("nodes", "proxy") => "NodeProxyOptions",
            _ => return Ok(()),
        };
        let mut o = json!({});
        for flag in ["stdin", "stdout", "stderr", "tty"] {
            if ctx.query.flag(flag) {
                o[flag] = true.into();
            }
        }
        if let Some(c) = ctx.query.get("container") {
            o["container"] = c.into();
        }
        let command: Vec<&str> = ctx.query.all("command").collect();
        if !command.is_empty() {
            o["command"] = json!(command);
        }
        if kind.ends_with("ProxyOptions") {
            o["path"] = ctx.info.rest.as_str().into();
        }
        self.admit_subject(Operation::Connect, ctx, served, ("", "v1", kind), &mut o).await
    }

    /// What the server itself adds to new objects.
    pub(crate) async fn admit_defaults(&self, attributes: &Attributes<'_>, o: &mut Value) -> Result<()> {
        let (served, namespace) = (attributes.served, attributes.namespace);
        match (attributes.operation, served.kind.builtin()) {
            (Operation::Create, "pods") => self.admit_pod(served, namespace, o).await,
            (Operation::Create, "persistentvolumeclaims") => {
                if self.config.admission.is_on("DefaultStorageClass") {
                    self.admit_claim(o);
                }
                Ok(())
            }
            _ => Ok(()),
        }?;
        self.mutate_by_plugins(attributes, o)
    }

    /// Every pod is some service account, and has its token at the known place
    /// (kubernetes: plugin/pkg/admission/serviceaccount).
    async fn admit_pod(&self, served: &Served, namespace: &str, o: &mut Value) -> Result<()> {
        let spec = object::child(o, "spec");
        object::default_text(spec, "serviceAccountName", "default");
        let name = spec["serviceAccountName"].as_str().unwrap_or_default().to_owned();
        spec["serviceAccount"] = name.clone().into();
        let accounts = kinds::by_resource("", "serviceaccounts").expect("service accounts are a kind");
        let Some(account) = self.cache.get(accounts.index, &format!("{namespace}/{name}")) else {
            let why = format!(
                "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
            );
            return Err(ApiError::forbidden(served, object::name(o), &why));
        };
        let account = account.value();
        let spec = object::child(o, "spec");
        if object::list(spec, "imagePullSecrets").is_empty()
            && !object::list(&account, "imagePullSecrets").is_empty()
        {
            spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
        }
        let wanted = object::get(spec, "automountServiceAccountToken")
            .or_else(|| object::get(&account, "automountServiceAccountToken"))
            .is_none_or(|v| v != false);
        if wanted {
            mount_token(spec);
        }
        self.admit_priority(served, o)?;
        if self.config.admission.is_on("LimitRanger") {
            self.admit_limits(served, namespace, o)?;
        }
        Ok(())
    }

    /// A pod's priority is that of its class, or of the class that all get
    /// (kubernetes: plugin/pkg/admission/priority).
    fn admit_priority(&self, served: &Served, o: &mut Value) -> Result<()> {
        let classes =
            kinds::by_resource("scheduling.k8s.io", "priorityclasses").expect("priority classes are a kind");
        let named = object::text(o, "spec.priorityClassName").unwrap_or_default().to_owned();
        let class = if named.is_empty() {
            let all = self.cache.list(classes.index, None).objects;
            let global = all.iter().map(|c| c.value()).filter(|c| object::flag(c, "globalDefault"));
            // Of several the smallest counts.
            global.min_by_key(|c| object::int(c, "value").unwrap_or(0))
        } else {
            let Some(class) = self.cache.get(classes.index, &named) else {
                let why = format!("no PriorityClass with name {named} was found");
                return Err(ApiError::forbidden(served, object::name(o), &why));
            };
            Some(class.value())
        };
        let Some(class) = class else { return Ok(()) };
        let value = object::int(&class, "value").unwrap_or(0);
        let spec = object::child(o, "spec");
        if let Some(given) = object::int(spec, "priority").filter(|g| *g != 0 && *g != value) {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            );
            return Err(ApiError::forbidden(served, object::name(o), &why));
        }
        spec["priorityClassName"] = object::name(&class).into();
        spec["priority"] = value.into();
        if let Some(policy) = object::text(&class, "preemptionPolicy") {
            spec["preemptionPolicy"] = policy.into();
        }
        Ok(())
    }

    /// A claim that names no class gets the default one, the newest if there are several
    /// (kubernetes: plugin/pkg/admission/storage/storageclass/setdefault).
    fn admit_claim(&self, o: &mut Value) {
        if object::get(o, "spec.storageClassName").is_some() {
            return;
        }
        let classes =
            kinds::by_resource("storage.k8s.io", "storageclasses").expect("storage classes are a kind");
        let all = self.cache.list(classes.index, None).objects;
        let defaults = all.iter().map(|c| c.value()).filter(storage::is_default_class);
        let created =
            |c: &Value| object::text(c, "metadata.creationTimestamp").unwrap_or_default().to_owned();
        if let Some(class) = defaults.max_by_key(created) {
            object::child(o, "spec")["storageClassName"] = object::name(&class).into();
        }
    }

    /// Gives a service its address and node ports. The guard is held until the write is done, so that no
    /// two services get the same.
    pub(crate) async fn allocate(
        &self,
        served: &Served,
        old: Option<&Value>,
        o: &mut Value,
        dry_run: bool,
    ) -> Result<Option<OwnedMutexGuard<()>>> {
        if served.kind.builtin() != "services" {
            return Ok(None);
        }
        let guard = self.allocating.clone().lock_owned().await;
        self.cache.fresh().await?;
        let (ips, ports) = self.allocated(served, object::namespace(o), object::name(o));
        let mut errors = Errors::default();
        if service::wants_ip(o) {
            self.allocate_ip(old, o, &ips, &mut errors);
        }
        if service::wants_node_ports(o) {
            self.allocate_ports(o, &ports, &mut errors);
        }
        if service::wants_health_check(o) {
            self.allocate_health_check(o, ports, &mut errors);
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(served, object::name(o), &errors));
        }
        Ok((!dry_run).then_some(guard))
    }

    /// Addresses and ports that other services have.
    fn allocated(
        &self,
        served: &Served,
        namespace: &str,
        name: &str,
    ) -> (HashSet<String>, HashSet<(i64, String)>) {
        let mut ips: HashSet<String> = addresses::reserved(self).into_iter().collect();
        let mut ports = HashSet::new();
        for s in self.cache.list(served.index, None).objects {
            if s.namespace() == Some(namespace) && s.name() == name {
                continue;
            }
            let v = s.value();
            ips.extend(
                object::list(&v, "spec.clusterIPs").iter().filter_map(|i| i.as_str().map(str::to_owned)),
            );
            for p in object::list(&v, "spec.ports") {
                if let Some(n) = p["nodePort"].as_i64() {
                    ports.insert((n, p["protocol"].as_str().unwrap_or("TCP").to_owned()));
                }
            }
            if let Some(n) = object::int(&v, "spec.healthCheckNodePort") {
                ports.insert((n, "TCP".to_owned()));
            }
        }
        (ips, ports)
    }

    fn allocate_ip(&self, old: Option<&Value>, o: &mut Value, used: &HashSet<String>, errors: &mut Errors) {
        let cidr = self.config.service_cidr;
        let wanted = object::text(o, "spec.clusterIP").unwrap_or_default().to_owned();
        let before = old.and_then(|v| object::text(v, "spec.clusterIP")).unwrap_or_default();
        let ip = if wanted.is_empty() {
            // The lower band is left to addresses that people choose, as upstream does.
            let size = cidr.size();
            let band = (size / 16).clamp(16, 256).min(size / 2);
            let start = rand::random_range(0..size);
            let upper = (0..size).map(|i| (start + i) % size).filter(|i| *i >= band && *i != size - 1);
            let lower = 2..band;
            let mut candidates = upper.chain(lower).map(|i| cidr.nth(i).to_string());
            match candidates.find(|ip| !used.contains(ip)) {
                Some(ip) => ip,
                None => {
                    errors.invalid("spec.clusterIPs", &json!([""]), "failed to allocate IP: range is full");
                    return;
                }
            }
        } else {
            let parsed = wanted.parse::<Ipv4Addr>();
            match parsed {
                _ if wanted == before => {}
                Err(_) => errors.invalid(
                    "spec.clusterIPs[0]",
                    wanted.as_str(),
                    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ),
                Ok(ip) if !cidr.contains(ip) => {
                    let detail = format!(
                        "failed to allocate IP {ip}: the provided IP is not in the valid range. The range of valid IPs is {cidr}"
                    );
                    errors.invalid("spec.clusterIPs", &json!([wanted]), &detail);
                }
                Ok(_) if used.contains(&wanted) => {
                    let detail = format!("failed to allocate IP {wanted}: provided IP is already allocated");
                    errors.invalid("spec.clusterIPs", &json!([wanted]), &detail);
                }
                Ok(_) => {}
            }
            wanted
        };
        let spec = object::child(o, "spec");
        spec["clusterIP"] = ip.clone().into();
        spec["clusterIPs"] = json!([ip]);
    }

    /// The port at which a balancer asks a node whether it has endpoints of the service.
    fn allocate_health_check(&self, o: &mut Value, mut taken: HashSet<(i64, String)>, errors: &mut Errors) {
        const AT: &str = "spec.healthCheckNodePort";
        let (low, high) =
            (i64::from(*self.config.node_ports.start()), i64::from(*self.config.node_ports.end()));
        let own = object::list(o, "spec.ports").iter().filter_map(|p| p["nodePort"].as_i64());
        taken.extend(own.map(|n| (n, "TCP".to_owned())));
        let is_taken = |n: i64| taken.contains(&(n, "TCP".to_owned()));
        match object::int(o, AT).filter(|n| *n != 0) {
            Some(n) if !(low..=high).contains(&n) => {
                let detail = format!(
                    "provided port is not in the valid range. The range of valid ports is {low}-{high}"
                );
                errors.invalid(AT, n, &detail);
            }
            Some(n) if is_taken(n) => errors.invalid(AT, n, "provided port is already allocated"),
            Some(_) => {}
            None => {
                let span = high - low + 1;
                let start = rand::random_range(0..span);
                match (0..span).map(|k| low + (start + k) % span).find(|n| !is_taken(*n)) {
                    Some(n) => object::child(o, "spec")["healthCheckNodePort"] = n.into(),
                    None => errors.invalid(AT, 0, "failed to allocate a nodePort: range is full"),
                }
            }
        }
    }

    fn allocate_ports(&self, o: &mut Value, used: &HashSet<(i64, String)>, errors: &mut Errors) {
        let range = self.config.node_ports.clone();
        let (low, high) = (i64::from(*range.start()), i64::from(*range.end()));
        let mut taken = used.clone();
        for (i, p) in object::list_mut(o, "spec.ports").iter_mut().enumerate() {
            let protocol = p["protocol"].as_str().unwrap_or("TCP").to_owned();
            match p["nodePort"].as_i64().filter(|n| *n != 0) {
                Some(n) => {
                    let at = format!("spec.ports[{i}].nodePort");
                    if !(low..=high).contains(&n) {
                        let detail = format!(
                            "provided port is not in the valid range. The range of valid ports is {low}-{high}"
                        );
                        errors.invalid(at, n, &detail);
                    } else if !taken.insert((n, protocol)) {
                        errors.invalid(at, n, "provided port is already allocated");
                    }
                }
                None => {
                    let span = high - low + 1;
                    let start = rand::random_range(0..span);
                    let free = (0..span)
                        .map(|k| low + (start + k) % span)
                        .find(|n| taken.insert((*n, protocol.clone())));
                    match free {
                        Some(n) => p["nodePort"] = n.into(),
                        None => errors.invalid(
                            format!("spec.ports[{i}].nodePort"),
                            0,
                            "failed to allocate a nodePort: range is full",
                        ),
                    }
                }
            }
        }
    }
}

/// The projected volume with token, CA and namespace, and its mount in every container that lacks one.
fn mount_token(spec: &mut Value) {
    let has = |c: &Value| object::list(c, "volumeMounts").iter().any(|m| m["mountPath"] == TOKEN_MOUNT);
    let lists = ["initContainers", "containers"];
    if lists.iter().flat_map(|l| object::list(spec, l)).all(has) {
        return;
    }
    let known = object::list(spec, "volumes").iter().filter_map(|v| v["name"].as_str());
    let volume = match known.into_iter().find(|n| n.starts_with("kube-api-access-")) {
        Some(n) => n.to_owned(),
        None => {
            let n = format!("kube-api-access-{}", random_suffix());
            let v = json!({
                "name": n,
                "projected": {
                    "defaultMode": 0o644,
                    "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                        {"downwardAPI": {"items": [{
                            "path": "namespace",
                            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                        }]}},
                    ],
                },
            });
            push(spec, "volumes", v);
            n
        }
    };
    for list in lists {
        for c in object::list_mut(spec, list) {
            if !has(c) {
                push(c, "volumeMounts", json!({"name": volume, "readOnly": true, "mountPath": TOKEN_MOUNT}));
            }
        }
    }
}

fn push(o: &mut Value, key: &str, v: Value) {
    match o.get_mut(key).and_then(Value::as_array_mut) {
        Some(l) => l.push(v),
        None => o[key] = json!([v]),
    }
}
