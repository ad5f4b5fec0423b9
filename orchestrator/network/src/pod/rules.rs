//! The pods' own nftables table: masquerade towards the world, and host ports. Pure.

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::HostPort;
use crate::Config;
use crate::proxy::MASQUERADE_MARK;

/// The whole table, as one script that replaces what was there.
pub(crate) fn render(config: &Config, pods: &[(Ipv4Addr, Vec<HostPort>)]) -> String {
    let (table, pod_cidr) = (config.pod_table(), config.pod_cidr);
    let mut ports = String::new();
    for (ip, list) in pods {
        for p in list {
            let proto = p.protocol.as_str();
            let to = p.host_ip.filter(|i| !i.is_unspecified()).map(|i| format!("ip daddr {i} "));
            let head = format!("    {}{proto} dport {}", to.unwrap_or_default(), p.host_port);
            writeln!(ports, "{head} ip saddr {ip} meta mark set meta mark or {MASQUERADE_MARK:#x}")
                .expect("writing to a string does not fail");
            writeln!(ports, "{head} dnat to {ip}:{}", p.container_port)
                .expect("writing to a string does not fail");
        }
    }
    format!(
        "table ip {table}
delete table ip {table}
table ip {table} {{
  chain host_ports {{
{ports}  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat + 5; policy accept;
    fib daddr type local jump host_ports
  }}
  chain output {{
    type nat hook output priority -95; policy accept;
    fib daddr type local jump host_ports
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark and {MASQUERADE_MARK:#x} != 0 masquerade
    ip saddr {pod_cidr} ip daddr != {pod_cidr} oifname != \"{bridge}\" masquerade
  }}
}}
",
        bridge = config.bridge
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    #[test]
    fn a_host_port_leads_to_its_pod() {
        let config = Config::new("d".into(), "n".to_owned(), Ipv4Addr::LOCALHOST);
        let port = HostPort { host_ip: None, host_port: 8080, container_port: 80, protocol: Protocol::Tcp };
        let text = render(&config, &[(Ipv4Addr::new(10, 42, 0, 2), vec![port])]);
        assert!(text.contains("tcp dport 8080 dnat to 10.42.0.2:80"), "{text}");
        assert!(text.contains("ip saddr 10.42.0.0/16 ip daddr != 10.42.0.0/16"), "{text}");
    }
}
