//! The service proxy's plan: which address and port leads to which endpoints. Pure (invariant 4).
//!
//! Words as kube-proxy has them: a service port is programmed at its cluster IP and, if it has one, at its node
//! port on every local address; one without ready endpoints is rejected, so that clients fail at once.

mod render;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::Protocol;

/// Marks packets whose source must become the node's. The pods' table acts on it.
pub(crate) const MASQUERADE_MARK: u32 = 0x4000;

/// The label that ties an EndpointSlice to its Service.
pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// One port of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `namespace/service:port name`.
    pub name: String,
    pub protocol: Protocol,
    pub cluster_ips: Vec<Ipv4Addr>,
    pub port: u16,
    pub node_port: Option<u16>,
    /// Seconds a client stays with its endpoint, if it does.
    pub affinity: Option<u32>,
    /// True if only endpoints of this node serve traffic from outside.
    pub local_external: bool,
    /// The same for traffic from within the cluster.
    pub local_internal: bool,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: Ipv4Addr,
    pub port: u16,
    pub local: bool,
}

/// What becomes of a packet to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToEndpoints,
    /// No endpoint at all: the client hears so at once.
    Refuse,
    /// Endpoints, but none on this node, and no other may serve.
    Drop,
}

impl ServicePort {
    fn way(&self, local_only: bool) -> Way {
        if self.endpoints.is_empty() {
            Way::Refuse
        } else if local_only && !self.endpoints.iter().any(|e| e.local) {
            Way::Drop
        } else {
            Way::ToEndpoints
        }
    }

    /// For traffic to the cluster IP.
    fn internal(&self) -> Way {
        self.way(self.local_internal)
    }

    /// For traffic to the node port.
    fn external(&self) -> Way {
        self.way(self.local_external)
    }

    fn chosen(&self, local_only: bool) -> Vec<&Endpoint> {
        self.endpoints.iter().filter(|e| e.local || !local_only).collect()
    }
}

/// What the service table says; equal rulesets need no write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub ports: Vec<ServicePort>,
}

/// Computes the table. Services without a cluster IP, of type ExternalName and those at `except` (cluster DNS,
/// which answers itself) are left out.
pub fn plan<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    node: &str,
    except: Ipv4Addr,
) -> Ruleset {
    let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let service = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME_LABEL));
        if let (Some(ns), Some(service)) = (&slice.metadata.namespace, service) {
            by_service.entry((ns, service)).or_default().push(slice);
        }
    }
    let mut ports: Vec<ServicePort> = services
        .into_iter()
        .flat_map(|s| {
            let key =
                (s.metadata.namespace.as_deref().unwrap_or(""), s.metadata.name.as_deref().unwrap_or(""));
            plan_service(s, by_service.get(&key).map_or(&[][..], Vec::as_slice), node, except)
        })
        .collect();
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    Ruleset { ports }
}

fn plan_service(
    service: &Service,
    slices: &[&EndpointSlice],
    node: &str,
    except: Ipv4Addr,
) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let one = spec.cluster_ip.iter();
    let cluster_ips: Vec<Ipv4Addr> = match &spec.cluster_ips {
        Some(ips) if !ips.is_empty() => ips.iter().filter_map(|i| i.parse().ok()).collect(),
        _ => one.filter_map(|i| i.parse().ok()).collect(),
    };
    if cluster_ips.is_empty() || cluster_ips.contains(&except) {
        return Vec::new();
    }
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let seconds = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        seconds.and_then(|c| c.timeout_seconds).and_then(|s| u32::try_from(s).ok()).unwrap_or(10_800)
    });
    let local_internal = spec.internal_traffic_policy.as_deref() == Some("Local");
    let local_external = spec.external_traffic_policy.as_deref() == Some("Local");
    let (ns, name) = (
        service.metadata.namespace.as_deref().unwrap_or_default(),
        service.metadata.name.as_deref().unwrap_or_default(),
    );
    let ports = spec.ports.as_deref().unwrap_or_default();
    ports
        .iter()
        .filter_map(|p| {
            let port_name = p.name.as_deref().unwrap_or("");
            Some(ServicePort {
                name: format!("{ns}/{name}:{port_name}"),
                protocol: Protocol::parse(p.protocol.as_deref()),
                cluster_ips: cluster_ips.clone(),
                port: u16::try_from(p.port).ok()?,
                node_port: p.node_port.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0),
                affinity,
                local_external,
                local_internal,
                endpoints: endpoints(slices, port_name, node),
            })
        })
        .collect()
}

/// Ready endpoints for a port; if none is ready, those that still serve while they terminate (KEP-1669).
fn endpoints(slices: &[&EndpointSlice], port_name: &str, node: &str) -> Vec<Endpoint> {
    let (mut ready, mut serving) = (Vec::new(), Vec::new());
    for slice in slices.iter().filter(|s| s.address_type == "IPv4") {
        let port = slice
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref().unwrap_or("") == port_name)
            .and_then(|p| p.port)
            .and_then(|p| u16::try_from(p).ok());
        let Some(port) = port else { continue };
        for e in &slice.endpoints {
            let conditions = e.conditions.as_ref();
            let is_ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let still =
                conditions.is_some_and(|c| c.serving.unwrap_or(false) && c.terminating.unwrap_or(false));
            let local = e.node_name.as_deref() == Some(node);
            for ip in e.addresses.iter().filter_map(|a| a.parse().ok()) {
                let endpoint = Endpoint { ip, port, local };
                if is_ready {
                    ready.push(endpoint);
                } else if still {
                    serving.push(endpoint);
                }
            }
        }
    }
    let mut chosen = if ready.is_empty() { serving } else { ready };
    chosen.sort();
    chosen.dedup();
    chosen
}

#[cfg(test)]
mod tests;
