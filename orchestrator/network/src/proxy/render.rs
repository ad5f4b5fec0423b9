//! The service table as nft text. Pure.
//!
//! ```text
//! prerouting, output (nat) → services → map service_ips / node_ports → svc_<hash> → endpoint chain → dnat
//! prerouting, forward, input, output (filter) → map no_endpoints → reject
//! ```
//! A rewrite keeps the affinity sets of services that stay: their elements are the memory of which client is
//! with which endpoint.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use super::{Endpoint, MASQUERADE_MARK, Ruleset, ServicePort, Way};

impl Ruleset {
    /// The transaction that makes the table say this, given what it said before (`None`: nothing known).
    pub(crate) fn render(&self, table: &str, before: Option<&Ruleset>) -> String {
        let mut out = String::with_capacity(1024 + self.ports.len() * 512);
        self.write(&mut out, table, before).expect("writing to a string does not fail");
        out
    }

    fn write(&self, out: &mut String, table: &str, before: Option<&Ruleset>) -> fmt::Result {
        let (chains, sets) = self.names();
        match before {
            None => writeln!(out, "table ip {table}\ndelete table ip {table}")?,
            Some(before) => {
                let (old_chains, old_sets) = before.names();
                writeln!(out, "flush table ip {table}")?;
                for map in ["service_ips", "node_ports", "no_endpoints", "no_node_endpoints"] {
                    writeln!(out, "flush map ip {table} {map}")?;
                }
                for chain in old_chains.difference(&chains) {
                    writeln!(out, "delete chain ip {table} {chain}")?;
                }
                for set in old_sets.difference(&sets) {
                    writeln!(out, "delete set ip {table} {set}")?;
                }
            }
        }
        writeln!(out, "table ip {table} {{")?;
        out.push_str(FRAME);
        for port in &self.ports {
            self.write_port(out, port)?;
        }
        for (map, ready, node) in [
            ("service_ips", true, false),
            ("node_ports", true, true),
            ("no_endpoints", false, false),
            ("no_node_endpoints", false, true),
        ] {
            self.write_map(out, map, ready, node)?;
        }
        out.push_str("}\n");
        Ok(())
    }

    /// Chains and sets that belong to services.
    fn names(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut chains, mut sets) = (BTreeSet::new(), BTreeSet::new());
        for port in self.ports.iter().filter(|p| !p.endpoints.is_empty()) {
            chains.insert(service_chain(port));
            if port.node_port.is_some() {
                chains.insert(external_chain(port));
            }
            for e in &port.endpoints {
                chains.insert(endpoint_chain(port, e));
                if port.affinity.is_some() {
                    sets.insert(affinity_set(port, e));
                }
            }
        }
        (chains, sets)
    }

    fn write_map(&self, out: &mut String, map: &str, ready: bool, node: bool) -> fmt::Result {
        let key = if node { "inet_proto . inet_service" } else { "ipv4_addr . inet_proto . inet_service" };
        writeln!(out, "  map {map} {{\n    type {key} : verdict")?;
        let mut elements = Vec::new();
        let target = |way: Way, chain: String| match way {
            Way::ToEndpoints => ready.then_some(chain),
            Way::Refuse => (!ready).then(|| "refuse".to_owned()),
            Way::Drop => (!ready).then(|| "ignore".to_owned()),
        };
        for p in &self.ports {
            let proto = p.protocol.as_str();
            if node {
                if let (Some(n), Some(to)) = (p.node_port, target(p.external(), external_chain(p))) {
                    elements.push(format!("{proto} . {n} : goto {to}"));
                }
            } else if let Some(to) = target(p.internal(), service_chain(p)) {
                for ip in &p.cluster_ips {
                    elements.push(format!("{ip} . {proto} . {} : goto {to}", p.port));
                }
            }
        }
        if !elements.is_empty() {
            writeln!(out, "    elements = {{ {} }}", elements.join(", "))?;
        }
        writeln!(out, "  }}")
    }

    fn write_port(&self, out: &mut String, p: &ServicePort) -> fmt::Result {
        if p.endpoints.is_empty() {
            return Ok(());
        }
        for e in &p.endpoints {
            if let Some(seconds) = p.affinity {
                let set = affinity_set(p, e);
                writeln!(
                    out,
                    "  set {set} {{\n    type ipv4_addr\n    flags dynamic,timeout\n    timeout {seconds}s\n  }}"
                )?;
            }
            writeln!(out, "  chain {} {{", endpoint_chain(p, e))?;
            // Hairpin: a pod that reaches itself must see the answer come from the service.
            writeln!(out, "    ip saddr {} meta mark set meta mark or {MASQUERADE_MARK:#x}", e.ip)?;
            if p.affinity.is_some() {
                writeln!(out, "    update @{} {{ ip saddr }}", affinity_set(p, e))?;
            }
            writeln!(out, "    meta l4proto {} dnat to {}:{}\n  }}", p.protocol.as_str(), e.ip, e.port)?;
        }
        writeln!(out, "  chain {} {{", service_chain(p))?;
        write_choice(out, p, &p.chosen(p.local_internal))?;
        writeln!(out, "  }}")?;
        if p.node_port.is_some() {
            writeln!(out, "  chain {} {{", external_chain(p))?;
            if !p.local_external {
                writeln!(out, "    meta mark set meta mark or {MASQUERADE_MARK:#x}")?;
            }
            write_choice(out, p, &p.chosen(p.local_external))?;
            writeln!(out, "  }}")?;
        }
        Ok(())
    }
}

/// First the endpoint a client is with, else the next in turn.
fn write_choice(out: &mut String, p: &ServicePort, endpoints: &[&Endpoint]) -> fmt::Result {
    if p.affinity.is_some() {
        for e in endpoints {
            writeln!(out, "    ip saddr @{} goto {}", affinity_set(p, e), endpoint_chain(p, e))?;
        }
    }
    match endpoints {
        [] => Ok(()),
        [one] => writeln!(out, "    goto {}", endpoint_chain(p, one)),
        many => {
            let turns: Vec<String> = many
                .iter()
                .enumerate()
                .map(|(i, e)| format!("{i} : goto {}", endpoint_chain(p, e)))
                .collect();
            writeln!(out, "    numgen inc mod {} vmap {{ {} }}", many.len(), turns.join(", "))
        }
    }
}

/// A TCP client hears a reset: unlike ICMP's messages the kernel sends as many of those as are due.
const FRAME: &str = "  chain refuse { meta l4proto tcp reject with tcp reset; reject; }
  chain ignore { drop; }
  chain services {
    ip daddr . meta l4proto . th dport vmap @service_ips
    fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @node_ports
  }
  chain refusals {
    ip daddr . meta l4proto . th dport vmap @no_endpoints
    fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @no_node_endpoints
  }
  chain nat_prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
  chain nat_output { type nat hook output priority -100; policy accept; jump services; }
  chain filter_input { type filter hook input priority -10; policy accept; ct state new jump refusals; }
  chain filter_forward { type filter hook forward priority -10; policy accept; ct state new jump refusals; }
  chain filter_output { type filter hook output priority -10; policy accept; ct state new jump refusals; }
";

fn hash(s: &str) -> u64 {
    s.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fn port_hash(p: &ServicePort) -> u64 {
    hash(&format!("{} {}", p.name, p.protocol.as_str()))
}

fn service_chain(p: &ServicePort) -> String {
    format!("svc_{:016x}", port_hash(p))
}

fn external_chain(p: &ServicePort) -> String {
    format!("ext_{:016x}", port_hash(p))
}

fn endpoint_chain(p: &ServicePort, e: &Endpoint) -> String {
    format!("ep_{:016x}", hash(&format!("{} {} {}:{}", p.name, p.protocol.as_str(), e.ip, e.port)))
}

fn affinity_set(p: &ServicePort, e: &Endpoint) -> String {
    format!("aff_{:016x}", hash(&format!("{} {} {}:{}", p.name, p.protocol.as_str(), e.ip, e.port)))
}
