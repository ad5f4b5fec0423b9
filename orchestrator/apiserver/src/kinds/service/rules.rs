//! What a Service must be, and what of it stays
//! (kubernetes: pkg/apis/core/validation/validation.go ValidateService).

use std::collections::HashSet;
use std::net::IpAddr;

use apimachinery::name;
use serde_json::{Value, json};

use super::super::check::At;
use super::{kind_of, wants_health_check};
use crate::object;
use crate::validation::Errors;

const BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";
const ONCE: &str = "may not change once set";
/// A balancer in front of it would open every node's kubelet.
const KUBELET_PORT: i64 = 10250;

pub(super) fn service(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    let kind = kind_of(o);
    let headless = spec.text("clusterIP") == "None";
    if spec.len("ports") == 0 && !headless && kind != "ExternalName" {
        errors.required("spec.ports", "");
    }
    by_type(&spec, kind, headless, errors);
    let mut names = HashSet::new();
    for port in spec.each("ports") {
        service_port(&port, spec.len("ports") > 1, &mut names, errors);
    }
    spec.of("selector").labels(errors);
    affinity(&spec, errors);
    if kind != "ExternalName" {
        addresses(&spec, errors);
    }
    for ip in spec.each("externalIPs") {
        if let Some(address) = ip.address(errors) {
            if address.is_loopback() {
                let detail = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
                ip.invalid(detail, errors);
            }
            ordinary(&ip, address, errors);
        }
    }
    spec.of("type").must_be_one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    unique_ports(&spec, kind, errors);
    balancer(&At::root(o), &spec, kind, errors);
    traffic(o, &spec, kind, errors);
}

fn by_type(spec: &At<'_>, kind: &str, headless: bool, errors: &mut Errors) {
    match kind {
        "LoadBalancer" | "NodePort" => {
            for port in spec.each("ports").filter(|_| kind == "LoadBalancer") {
                if port.int("port") == Some(KUBELET_PORT) {
                    let detail = "may not expose port 10250 externally since it is used by kubelet";
                    errors.invalid(port.path.as_str(), KUBELET_PORT, detail);
                }
            }
            if headless {
                let detail = format!("may not be set to 'None' for {kind} services");
                errors.invalid("spec.clusterIPs[0]", "None", &detail);
            }
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if spec.len(field) > 0 || spec.of(field).v.is_string() {
                    spec.of(field).forbidden("may not be set for ExternalName services", errors);
                }
            }
            let target = spec.of("externalName");
            let plain = target.str().strip_suffix('.').unwrap_or(target.str());
            if plain.is_empty() {
                errors.required(target.path.as_str(), "");
            } else if let Err(why) = name::dns_subdomain(plain) {
                errors.invalid(target.path.as_str(), plain, &why);
            }
        }
        _ => {}
    }
}

fn service_port<'a>(port: &At<'a>, named: bool, names: &mut HashSet<&'a str>, errors: &mut Errors) {
    let name = port.of("name");
    if !name.str().is_empty() {
        name.name(name::dns_label, errors);
        if !names.insert(name.str()) {
            errors.duplicate(name.path.as_str(), name.str());
        }
    } else if named {
        errors.required(name.path.as_str(), "");
    }
    port.of("port").port_number(errors);
    port.of("protocol").must_be_one_of(&["SCTP", "TCP", "UDP"], errors);
    port.of("targetPort").port(errors);
    if let Some(protocol) = port.get("appProtocol") {
        protocol.name(name::qualified_name, errors);
    }
}

fn affinity(spec: &At<'_>, errors: &mut Errors) {
    let affinity = spec.of("sessionAffinity");
    affinity.must_be_one_of(&["ClientIP", "None"], errors);
    let config = spec.of("sessionAffinityConfig");
    match affinity.str() {
        "None" if config.given() => {
            config.forbidden("must not be set when session affinity is None", errors);
        }
        "ClientIP" => {
            let seconds = config.of("clientIP.timeoutSeconds");
            if !seconds.given() {
                let detail = "when session affinity type is ClientIP";
                errors.required(config.path.as_str(), detail);
            } else if !seconds.v.as_i64().is_some_and(|n| (1..=86400).contains(&n)) {
                seconds.invalid("must be greater than 0 and less than 86400", errors);
            }
        }
        _ => {}
    }
}

fn addresses(spec: &At<'_>, errors: &mut Errors) {
    let (ip, ips, families) = (spec.text("clusterIP"), spec.of("clusterIPs"), spec.of("ipFamilies"));
    let first = ips.v.get(0).and_then(Value::as_str);
    match (ip.is_empty(), first) {
        (false, None) => errors.required(ips.path.as_str(), ""),
        (false, Some(first)) if first != ip => ips.invalid("first value must match `clusterIP`", errors),
        (true, Some(_)) => ips.invalid("must be empty when `clusterIP` is not specified", errors),
        _ => {}
    }
    let mut seen = HashSet::new();
    for family in families.clone().items() {
        family.one_of(&["IPv4", "IPv6"], errors);
        if !seen.insert(family.str()) {
            errors.duplicate(family.path.as_str(), family.str());
        }
        // Addresses are given out of one range.
        if family.str() == "IPv6" {
            family.invalid("not configured on this cluster", errors);
        }
    }
    let policy = spec.of("ipFamilyPolicy");
    policy.one_of(&["PreferDualStack", "RequireDualStack", "SingleStack"], errors);
    if policy.str() == "RequireDualStack" {
        policy.invalid("this cluster is not configured for dual-stack services", errors);
    }
    let mut all = HashSet::new();
    for (i, ip) in ips.clone().items().enumerate() {
        match ip.str() {
            "None" if i == 0 => {}
            "None" => {
                ip.invalid("'None' must be the first and only value", errors);
            }
            "" => errors.required(ip.path.as_str(), ""),
            text => {
                ip.address(errors);
                if !all.insert(text) {
                    ips.invalid("must be unique", errors);
                }
            }
        }
    }
    if spec.len("clusterIPs") > 2 {
        ips.invalid("may only hold up to 2 values", errors);
    }
}

/// An address that means the same thing on every node. Upstream refuses loopback addresses of endpoints too; here a cluster
/// may be one machine whose servers are reached so.
pub(in crate::kinds) fn ordinary(at: &At<'_>, address: IpAddr, errors: &mut Errors) {
    let (link, multicast) = match address {
        IpAddr::V4(a) => (a.is_link_local(), a.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(a) => (a.is_unicast_link_local(), a.segments()[0] & 0xff0f == 0xff02),
    };
    for (bad, detail) in [
        (address.is_unspecified(), format!("may not be unspecified ({})", at.str())),
        (link, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()),
    ] {
        if bad {
            at.invalid(&detail, errors);
        }
    }
}

fn unique_ports(spec: &At<'_>, kind: &str, errors: &mut Errors) {
    let node_port = |p: &At<'_>| p.int("nodePort").filter(|n| *n != 0);
    for port in spec.each("ports").filter(|p| kind == "ClusterIP" && node_port(p).is_some()) {
        port.of("nodePort").forbidden("may not be used when `type` is 'ClusterIP'", errors);
    }
    let (mut nodes, mut ports) = (HashSet::new(), HashSet::new());
    for port in spec.each("ports") {
        if let Some(n) = node_port(&port)
            && !nodes.insert((port.text("protocol"), n))
        {
            errors.duplicate(port.of("nodePort").path, n);
        }
    }
    for port in spec.each("ports") {
        let (protocol, n) = (port.text("protocol"), port.int("port").unwrap_or(0));
        if !ports.insert((protocol, n)) {
            // Upstream's own view of its struct.
            let shown = json!({"Name": "", "Protocol": protocol, "AppProtocol": null, "Port": n, "TargetPort": 0, "NodePort": 0});
            errors.duplicate(port.path.as_str(), &shown);
        }
    }
}

fn balancer(o: &At<'_>, spec: &At<'_>, kind: &str, errors: &mut Errors) {
    let balanced = kind == "LoadBalancer";
    let ranges = spec.of("loadBalancerSourceRanges").renamed("spec.LoadBalancerSourceRanges");
    let annotation = "service.beta.kubernetes.io/load-balancer-source-ranges";
    if spec.len("loadBalancerSourceRanges") > 0 {
        if !balanced {
            ranges.forbidden(BALANCED, errors);
        }
        for range in ranges.items() {
            trimmed_range(range.str(), &range.path, errors);
        }
    } else if let Some(text) = o.of("metadata.annotations").v.get(annotation).and_then(Value::as_str) {
        let at = format!("metadata.annotations[{annotation}]");
        if !balanced {
            errors.forbidden(at.as_str(), BALANCED);
        }
        for range in text.trim().split(',').filter(|_| !text.trim().is_empty()) {
            trimmed_range(range, &at, errors);
        }
    }
    let allocates = spec.of("allocateLoadBalancerNodePorts");
    if allocates.given() && !balanced {
        allocates.forbidden(BALANCED, errors);
    }
    if let Some(class) = spec.get("loadBalancerClass") {
        if balanced {
            class.name(name::qualified_name, errors);
        } else {
            class.forbidden(BALANCED, errors);
        }
    }
}

/// Ranges may stand among spaces, as they did in an annotation.
fn trimmed_range(range: &str, at: &str, errors: &mut Errors) {
    At::new(&Value::from(range.trim()), at).cidr(errors);
}

fn traffic(o: &Value, spec: &At<'_>, kind: &str, errors: &mut Errors) {
    let policy = spec.of("externalTrafficPolicy");
    let outside =
        matches!(kind, "NodePort" | "LoadBalancer") || kind == "ClusterIP" && spec.len("externalIPs") > 0;
    if outside {
        policy.must_be_one_of(&["Cluster", "Local"], errors);
    } else if !policy.str().is_empty() {
        policy.invalid("may only be set for externally-accessible services", errors);
    }
    let health = spec.of("healthCheckNodePort");
    if health.v.as_i64().is_some_and(|n| n != 0) {
        if wants_health_check(o) {
            health.port_number(errors);
        } else {
            health.invalid(
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
                errors,
            );
        }
    }
    spec.of("internalTrafficPolicy").one_of(&["Cluster", "Local"], errors);
    spec.of("trafficDistribution").one_of(&["PreferClose", "PreferSameZone", "PreferSameNode"], errors);
}

/// The addresses of a service stay, but for the second, unless it is or was another's name.
pub(super) fn stays(new: &Value, old: &Value, errors: &mut Errors) {
    let (is, was) = (At::root(new).of("spec"), At::root(old).of("spec"));
    if kind_of(old) != "ExternalName" && kind_of(new) != "ExternalName" {
        for field in ["clusterIPs", "ipFamilies"] {
            let first = |o: &At<'_>| o.of(field).v.get(0).cloned();
            if first(&was).is_some() && first(&was) != first(&is) {
                errors.invalid(format!("spec.{field}[0]"), is.of(field).v, ONCE);
            }
        }
    }
    let class = is.of("loadBalancerClass");
    if kind_of(old) == "LoadBalancer"
        && kind_of(new) == "LoadBalancer"
        && class.v != was.of("loadBalancerClass").v
    {
        class.invalid(ONCE, errors);
    }
    let health = "healthCheckNodePort";
    if wants_health_check(old)
        && wants_health_check(new)
        && object::int(is.v, health).unwrap_or(0) != object::int(was.v, health).unwrap_or(0)
    {
        is.of(health).forbidden("field is immutable", errors);
    }
}
