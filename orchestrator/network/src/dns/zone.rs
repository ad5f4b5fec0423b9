//! The cluster's zone as a value: names to addresses and services. Pure.
//!
//! Source: "Kubernetes DNS-Based Service Discovery", schema 1.1.0. Names are kept in lower case without the final
//! dot. A name that has something below it exists (NODATA), one that has nothing does not (NXDOMAIN): resolvers go
//! on through a search path only after NXDOMAIN or NODATA, and cache both for the SOA's minimum.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use hickory_server::proto::rr::rdata::{A, CNAME, PTR, SOA, SRV, TXT};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::proxy::SERVICE_NAME_LABEL;

/// Seconds an answer may be kept: short, because endpoints move.
const TTL: u32 = 5;

/// What a question comes to.
pub(crate) enum Answer {
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// The name exists, without such records.
    NoData,
    NoName,
    /// Not a name of the cluster.
    Elsewhere,
}

#[derive(Default)]
struct Node {
    a: Vec<Ipv4Addr>,
    /// Port and target.
    srv: Vec<(u16, String)>,
    cname: Option<String>,
    txt: Option<&'static str>,
}

pub(crate) struct Zone {
    domain: String,
    nodes: HashMap<String, Node>,
    /// Reverse names within the cluster's own networks.
    ptr: BTreeMap<Ipv4Addr, Vec<String>>,
    /// Namespaces that have services: pods' names are answered within any of them.
    serial: u32,
}

impl Zone {
    pub(crate) fn build<'a>(
        services: impl IntoIterator<Item = &'a Service>,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
        domain: &str,
        dns_ip: Ipv4Addr,
    ) -> Zone {
        let mut zone = Zone {
            domain: domain.trim_end_matches('.').to_ascii_lowercase(),
            nodes: HashMap::new(),
            ptr: BTreeMap::new(),
            serial: 1,
        };
        let d = zone.domain.clone();
        zone.node(&d);
        zone.node(&format!("svc.{d}"));
        zone.node(&format!("pod.{d}"));
        zone.node(&format!("dns-version.{d}")).txt = Some("1.1.0");
        zone.node(&format!("ns.dns.{d}")).a.push(dns_ip);
        let mut by_service: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
        for slice in slices {
            let service = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME_LABEL));
            if let (Some(ns), Some(service)) = (&slice.metadata.namespace, service) {
                by_service.entry((ns, service)).or_default().push(slice);
            }
        }
        for s in services {
            let (Some(ns), Some(name)) = (s.metadata.namespace.as_deref(), s.metadata.name.as_deref()) else {
                continue;
            };
            let slices = by_service.get(&(ns, name)).map_or(&[][..], Vec::as_slice);
            zone.add_service(s, ns, name, slices);
        }
        zone
    }

    fn add_service(&mut self, s: &Service, ns: &str, name: &str, slices: &[&EndpointSlice]) {
        let Some(spec) = &s.spec else { return };
        let fqdn = format!("{name}.{ns}.svc.{}", self.domain);
        if spec.type_.as_deref() == Some("ExternalName") {
            self.node(&fqdn).cname = spec.external_name.as_deref().map(lower);
            return;
        }
        let ip = spec.cluster_ip.as_deref().unwrap_or("");
        if let Ok(ip) = ip.parse::<Ipv4Addr>() {
            self.node(&fqdn).a.push(ip);
            self.ptr.entry(ip).or_default().push(fqdn.clone());
            for p in spec.ports.iter().flatten() {
                let port = u16::try_from(p.port).unwrap_or(0);
                self.add_srv(&fqdn, p.name.as_deref(), p.protocol.as_deref(), port, &fqdn);
            }
            return;
        }
        // Headless: the addresses of its endpoints, each also under a name of its own.
        let publish_all = spec.publish_not_ready_addresses == Some(true);
        self.node(&fqdn);
        for slice in slices.iter().filter(|s| s.address_type == "IPv4") {
            for e in &slice.endpoints {
                let ready = e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
                if !(ready || publish_all) {
                    continue;
                }
                for ip in e.addresses.iter().filter_map(|a| a.parse::<Ipv4Addr>().ok()) {
                    let host = match &e.hostname {
                        Some(h) if !h.is_empty() => lower(h),
                        _ => ip.to_string().replace('.', "-"),
                    };
                    let endpoint = format!("{host}.{fqdn}");
                    push_once(&mut self.node(&fqdn).a, ip);
                    push_once(&mut self.node(&endpoint).a, ip);
                    push_once(self.ptr.entry(ip).or_default(), endpoint.clone());
                    for p in slice.ports.iter().flatten() {
                        let port = p.port.and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
                        self.add_srv(&fqdn, p.name.as_deref(), p.protocol.as_deref(), port, &endpoint);
                    }
                }
            }
        }
    }

    fn add_srv(
        &mut self,
        service: &str,
        name: Option<&str>,
        protocol: Option<&str>,
        port: u16,
        target: &str,
    ) {
        push_once(&mut self.node(service).srv, (port, target.to_owned()));
        let Some(name) = name.filter(|n| !n.is_empty()) else { return };
        let protocol = protocol.unwrap_or("TCP").to_ascii_lowercase();
        let node = self.node(&format!("_{}._{protocol}.{service}", lower(name)));
        push_once(&mut node.srv, (port, target.to_owned()));
    }

    /// The node of a name, made with all nodes above it within the zone.
    fn node(&mut self, name: &str) -> &mut Node {
        let mut parent = name;
        while let Some((_, up)) = parent.split_once('.') {
            if !up.ends_with(&self.domain) || self.nodes.contains_key(up) {
                break;
            }
            self.nodes.insert(up.to_owned(), Node::default());
            parent = up;
        }
        self.nodes.entry(name.to_owned()).or_default()
    }

    pub(crate) fn answer(&self, query: &Name, kind: RecordType) -> Answer {
        let text = lower(query.to_ascii().trim_end_matches('.'));
        if let Some(ip) = reverse(&text) {
            return match self.ptr.get(&ip) {
                Some(names) if matches!(kind, RecordType::PTR | RecordType::ANY) => {
                    records(query, names.iter().filter_map(|n| Some(RData::PTR(PTR(fqdn(n)?)))))
                }
                Some(_) => Answer::NoData,
                None => Answer::Elsewhere,
            };
        }
        let below = text.strip_suffix(&self.domain);
        if !below.is_some_and(|b| b.is_empty() || b.ends_with('.')) {
            return Answer::Elsewhere;
        }
        if let Some(node) = self.nodes.get(&text) {
            return self.answer_node(query, node, kind);
        }
        match self.pod_name(&text) {
            Some(ip) if matches!(kind, RecordType::A | RecordType::ANY) => records(query, [RData::A(A(ip))]),
            Some(_) => Answer::NoData,
            None => Answer::NoName,
        }
    }

    fn answer_node(&self, query: &Name, node: &Node, kind: RecordType) -> Answer {
        if let Some(target) = node.cname.as_deref().and_then(fqdn) {
            return records(query, [RData::CNAME(CNAME(target))]);
        }
        match kind {
            RecordType::A | RecordType::ANY if !node.a.is_empty() => {
                records(query, node.a.iter().map(|ip| RData::A(A(*ip))))
            }
            RecordType::TXT if node.txt.is_some() => {
                records(query, node.txt.iter().map(|t| RData::TXT(TXT::new(vec![(*t).to_owned()]))))
            }
            RecordType::SOA if query.to_ascii().trim_end_matches('.').eq_ignore_ascii_case(&self.domain) => {
                Answer::Records { answers: vec![self.soa()], additionals: Vec::new() }
            }
            RecordType::SRV if !node.srv.is_empty() => {
                let srv = node
                    .srv
                    .iter()
                    .filter_map(|(port, target)| Some(RData::SRV(SRV::new(0, 100, *port, fqdn(target)?))));
                let mut additionals = Vec::new();
                let mut targets: Vec<&String> = node.srv.iter().map(|(_, t)| t).collect();
                targets.dedup();
                for target in targets {
                    let (Some(n), Some(name)) = (self.nodes.get(target), fqdn(target)) else { continue };
                    additionals
                        .extend(n.a.iter().map(|ip| Record::from_rdata(name.clone(), TTL, RData::A(A(*ip)))));
                }
                match records(query, srv) {
                    Answer::Records { answers, .. } => Answer::Records { answers, additionals },
                    other => other,
                }
            }
            _ => Answer::NoData,
        }
    }

    /// `1-2-3-4.namespace.pod.domain`: the address is in the name.
    fn pod_name(&self, text: &str) -> Option<Ipv4Addr> {
        let rest = text.strip_suffix(&self.domain)?.strip_suffix(".pod.")?;
        let (dashed, namespace) = rest.split_once('.')?;
        (!namespace.is_empty() && !namespace.contains('.')).then_some(())?;
        dashed.replace('-', ".").parse().ok()
    }

    /// Says how long a "no" may be kept.
    pub(crate) fn soa(&self) -> Record {
        let domain = fqdn(&self.domain).unwrap_or_else(Name::root);
        let ns = fqdn(&format!("ns.dns.{}", self.domain)).unwrap_or_else(Name::root);
        let mail = fqdn(&format!("hostmaster.{}", self.domain)).unwrap_or_else(Name::root);
        let soa = SOA::new(ns, mail, self.serial, 7200, 1800, 86400, TTL);
        Record::from_rdata(domain, TTL, RData::SOA(soa))
    }
}

fn records(name: &Name, data: impl IntoIterator<Item = RData>) -> Answer {
    let answers: Vec<Record> = data.into_iter().map(|d| Record::from_rdata(name.clone(), TTL, d)).collect();
    if answers.is_empty() {
        return Answer::NoData;
    }
    Answer::Records { answers, additionals: Vec::new() }
}

fn push_once<T: PartialEq>(list: &mut Vec<T>, value: T) {
    if !list.contains(&value) {
        list.push(value);
    }
}

fn lower(s: &str) -> String {
    s.to_ascii_lowercase()
}

fn fqdn(s: &str) -> Option<Name> {
    let mut name = Name::from_ascii(s).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The address in `4.3.2.1.in-addr.arpa`.
fn reverse(text: &str) -> Option<Ipv4Addr> {
    let octets: Vec<&str> = text.strip_suffix(".in-addr.arpa")?.split('.').rev().collect();
    (octets.len() == 4).then(|| octets.join(".").parse().ok())?
}

#[cfg(test)]
mod tests;
