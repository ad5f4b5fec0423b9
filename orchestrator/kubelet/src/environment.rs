//! A container's environment: literals, references, service links, and `$(VAR)`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};
use kube::{Api, Client};

use crate::Error;
use crate::quantity;

/// What fields and resources of a pod can be asked for by name.
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) node_name: &'a str,
    pub(crate) host_ip: &'a str,
    pub(crate) pod_ip: &'a str,
    /// Allocatable milli-CPU and bytes, which stand in for limits that are not set.
    pub(crate) node_cpu: i64,
    pub(crate) node_memory: i64,
}

impl Facts<'_> {
    /// `fieldRef`. `None` for a path that is not supported.
    pub(crate) fn field(&self, path: &str) -> Option<String> {
        let meta = &self.pod.metadata;
        let key = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
        let lookup = |m: &Option<BTreeMap<String, String>>, k: &str| {
            m.as_ref().and_then(|m| m.get(k)).cloned().unwrap_or_default()
        };
        if let Some(k) = key("metadata.labels") {
            return Some(lookup(&meta.labels, k));
        }
        if let Some(k) = key("metadata.annotations") {
            return Some(lookup(&meta.annotations, k));
        }
        let all = |m: &Option<BTreeMap<String, String>>| {
            let lines: Vec<String> = m.iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
            lines.join("\n")
        };
        Some(match path {
            "metadata.name" => meta.name.clone().unwrap_or_default(),
            "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
            "metadata.uid" => meta.uid.clone().unwrap_or_default(),
            "metadata.labels" => all(&meta.labels),
            "metadata.annotations" => all(&meta.annotations),
            "spec.nodeName" => self.node_name.to_owned(),
            "spec.serviceAccountName" => {
                self.pod.spec.as_ref().and_then(|s| s.service_account_name.clone()).unwrap_or_default()
            }
            "status.hostIP" | "status.hostIPs" => self.host_ip.to_owned(),
            "status.podIP" | "status.podIPs" => self.pod_ip.to_owned(),
            _ => return None,
        })
    }

    /// `resourceFieldRef`, in units of `divisor`, rounded up.
    pub(crate) fn resource(
        &self,
        container: &Container,
        resource: &str,
        divisor: Option<&str>,
    ) -> Option<String> {
        let (kind, name) = resource.split_once('.')?;
        let amount = match kind {
            "limits" => quantity::limit(container, name),
            "requests" => quantity::request(container, name),
            _ => return None,
        };
        let nanos = match (amount, kind, name) {
            (Some(a), ..) => a.nanos(),
            (None, "limits", "cpu") => i128::from(self.node_cpu) * 1_000_000,
            (None, "limits", "memory") => i128::from(self.node_memory) * 1_000_000_000,
            (None, ..) => 0,
        };
        let divisor: apimachinery::quantity::Quantity =
            divisor.filter(|d| *d != "0").unwrap_or("1").parse().ok()?;
        let d = divisor.nanos().max(1);
        Some(((nanos + d - 1) / d).to_string())
    }

    /// The container that a `resourceFieldRef` means.
    pub(crate) fn container(&self, name: &str) -> Option<&Container> {
        self.pod.spec.as_ref()?.containers.iter().find(|c| c.name == name)
    }
}

/// ConfigMaps and Secrets of one namespace, each asked for once.
pub(crate) struct Sources<'a> {
    client: &'a Client,
    namespace: &'a str,
    config_maps: BTreeMap<String, Option<ConfigMap>>,
    secrets: BTreeMap<String, Option<Secret>>,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(client: &'a Client, namespace: &'a str) -> Self {
        Sources { client, namespace, config_maps: BTreeMap::new(), secrets: BTreeMap::new() }
    }

    /// `None` if it may be missing and is.
    pub(crate) async fn config_map(
        &mut self,
        name: &str,
        optional: bool,
    ) -> Result<Option<&ConfigMap>, Error> {
        if !self.config_maps.contains_key(name) {
            let api = Api::namespaced(self.client.clone(), self.namespace);
            self.config_maps.insert(name.to_owned(), api.get_opt(name).await?);
        }
        match self.config_maps.get(name) {
            Some(Some(m)) => Ok(Some(m)),
            _ if optional => Ok(None),
            _ => Err(Error::Config(format!("configmap \"{name}\" not found"))),
        }
    }

    /// `None` if it may be missing and is.
    pub(crate) async fn secret(&mut self, name: &str, optional: bool) -> Result<Option<&Secret>, Error> {
        if !self.secrets.contains_key(name) {
            let api = Api::namespaced(self.client.clone(), self.namespace);
            self.secrets.insert(name.to_owned(), api.get_opt(name).await?);
        }
        match self.secrets.get(name) {
            Some(Some(m)) => Ok(Some(m)),
            _ if optional => Ok(None),
            _ => Err(Error::Config(format!("secret \"{name}\" not found"))),
        }
    }
}

/// The environment in order: service links, `envFrom`, `env`. A later name wins.
pub(crate) async fn resolve(
    client: &Client,
    facts: &Facts<'_>,
    c: &Container,
) -> Result<BTreeMap<String, String>, Error> {
    let namespace = facts.pod.metadata.namespace.as_deref().unwrap_or("default");
    let links = facts.pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let mut env = service_links(client, namespace, links).await?;
    let mut sources = Sources::new(client, namespace);
    for from in c.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        if let Some(r) = &from.config_map_ref
            && let Some(m) = sources.config_map(&r.name, r.optional == Some(true)).await?
        {
            env.extend(m.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone())));
        }
        if let Some(r) = &from.secret_ref
            && let Some(s) = sources.secret(&r.name, r.optional == Some(true)).await?
        {
            let data = s.data.iter().flatten();
            env.extend(
                data.map(|(k, v)| (format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned())),
            );
        }
    }
    for e in c.env.iter().flatten() {
        let value = match &e.value_from {
            None => Some(expand(e.value.as_deref().unwrap_or(""), &env)),
            Some(from) => from_source(facts, c, from, namespace, &mut sources).await?,
        };
        if let Some(v) = value {
            env.insert(e.name.clone(), v);
        }
    }
    Ok(env)
}

async fn from_source(
    facts: &Facts<'_>,
    c: &Container,
    from: &k8s_openapi::api::core::v1::EnvVarSource,
    namespace: &str,
    sources: &mut Sources<'_>,
) -> Result<Option<String>, Error> {
    if let Some(f) = &from.field_ref {
        let value = facts.field(&f.field_path);
        return value
            .map(Some)
            .ok_or_else(|| Error::Config(format!("unsupported fieldPath: {}", f.field_path)));
    }
    if let Some(r) = &from.resource_field_ref {
        let target = r.container_name.as_deref().and_then(|n| facts.container(n)).unwrap_or(c);
        let value = facts.resource(target, &r.resource, r.divisor.as_ref().map(|q| q.0.as_str()));
        return value.map(Some).ok_or_else(|| Error::Config(format!("unsupported resource: {}", r.resource)));
    }
    if let Some(r) = &from.config_map_key_ref {
        let optional = r.optional == Some(true);
        let Some(m) = sources.config_map(&r.name, optional).await? else { return Ok(None) };
        return match m.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(v) => Ok(Some(v.clone())),
            None if optional => Ok(None),
            None => {
                let (key, name) = (&r.key, &r.name);
                Err(Error::Config(format!("couldn't find key {key} in ConfigMap {namespace}/{name}")))
            }
        };
    }
    if let Some(r) = &from.secret_key_ref {
        let optional = r.optional == Some(true);
        let Some(s) = sources.secret(&r.name, optional).await? else { return Ok(None) };
        return match s.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(v) => Ok(Some(String::from_utf8_lossy(&v.0).into_owned())),
            None if optional => Ok(None),
            None => {
                let (key, name) = (&r.key, &r.name);
                Err(Error::Config(format!("couldn't find key {key} in Secret {namespace}/{name}")))
            }
        };
    }
    Ok(None)
}

/// `{SVC}_SERVICE_HOST` and its kin for the namespace's services; `KUBERNETES_*` always.
async fn service_links(
    client: &Client,
    namespace: &str,
    links: bool,
) -> Result<BTreeMap<String, String>, Error> {
    let mut env = BTreeMap::new();
    let master: Option<Service> = Api::namespaced(client.clone(), "default").get_opt("kubernetes").await?;
    if let Some(s) = &master {
        link(s, &mut env);
    }
    if links {
        let api = Api::<Service>::namespaced(client.clone(), namespace);
        for s in api.list(&kube::api::ListParams::default()).await?.items {
            link(&s, &mut env);
        }
    }
    Ok(env)
}

fn link(s: &Service, env: &mut BTreeMap<String, String>) {
    let (Some(name), Some(spec)) = (s.metadata.name.as_deref(), &s.spec) else { return };
    let ip = match spec.cluster_ip.as_deref() {
        Some(ip) if !ip.is_empty() && ip != "None" => ip,
        _ => return,
    };
    let name = name.to_ascii_uppercase().replace('-', "_");
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    env.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
    env.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for p in ports {
        if let Some(n) = p.name.as_deref().filter(|n| !n.is_empty()) {
            let n = n.to_ascii_uppercase().replace('-', "_");
            env.insert(format!("{name}_SERVICE_PORT_{n}"), p.port.to_string());
        }
        let upper = p.protocol.as_deref().unwrap_or("TCP");
        let (port, lower) = (p.port, upper.to_ascii_lowercase());
        let prefix = format!("{name}_PORT_{port}_{upper}");
        env.insert(prefix.clone(), format!("{lower}://{ip}:{port}"));
        env.insert(format!("{prefix}_PROTO"), lower);
        env.insert(format!("{prefix}_PORT"), port.to_string());
        env.insert(format!("{prefix}_ADDR"), ip.to_owned());
    }
    let lower = first.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
    env.insert(format!("{name}_PORT"), format!("{lower}://{ip}:{}", first.port));
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar; an unknown name stays as it is
/// (kubernetes: third_party/forked/golang/expansion).
pub(crate) fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match env.get(name) {
                Some(v) => out.push_str(v),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expands_as_upstream_does() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let check = |text: &str, expect: &str| assert_eq!(expand(text, &env), expect);
        check("x$(A)y", "x1y");
        check("$(B)", "$(B)");
        check("$$(A)", "$(A)");
        check("$A $", "$A $");
        check("$(A", "$(A");
    }

    #[test]
    fn service_links_have_all_their_names() {
        let s: Service = serde_json::from_value(json!({"metadata": {"name": "my-db"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "sql", "port": 5432}]}}))
        .expect("service");
        let mut env = BTreeMap::new();
        link(&s, &mut env);
        assert_eq!(env["MY_DB_SERVICE_HOST"], "10.0.0.1");
        assert_eq!(env["MY_DB_SERVICE_PORT_SQL"], "5432");
        assert_eq!(env["MY_DB_PORT"], "tcp://10.0.0.1:5432");
        assert_eq!(env["MY_DB_PORT_5432_TCP_ADDR"], "10.0.0.1");
    }

    #[test]
    fn resources_round_up_to_the_divisor() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "10Mi"}}}]}}))
        .expect("pod");
        let f =
            Facts { pod: &pod, node_name: "n", host_ip: "h", pod_ip: "p", node_cpu: 2000, node_memory: 1 };
        let c = f.container("c").expect("container");
        assert_eq!(f.resource(c, "limits.cpu", None).as_deref(), Some("2"));
        assert_eq!(f.resource(c, "limits.cpu", Some("1m")).as_deref(), Some("1500"));
        assert_eq!(f.resource(c, "limits.memory", Some("1Mi")).as_deref(), Some("10"));
    }
}
