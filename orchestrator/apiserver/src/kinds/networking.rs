//! Ingress, IngressClass, NetworkPolicy: who may come in, and how.

use serde_json::Value;
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column, pod_parts};
use crate::validation::Errors;
use crate::{object, table};

const GROUP: &str = "networking.k8s.io";

pub(crate) static INGRESS: Kind = Kind {
    group: GROUP,
    resource: "ingresses",
    singular: "ingress",
    kind: "Ingress",
    short: &["ing"],
    generation: true,
    status: true,
    prepare_create: |o| o["status"] = serde_json::json!({"loadBalancer": {}}),
    validate: validate_ingress,
    columns: &[NAME, column("Class"), column("Hosts"), column("Address"), column("Ports"), AGE],
    row: ingress_row,
    ..BASE
};

pub(crate) static INGRESS_CLASS: Kind = Kind {
    group: GROUP,
    resource: "ingressclasses",
    singular: "ingressclass",
    kind: "IngressClass",
    namespaced: false,
    generation: true,
    default: |o| {
        if let Some(p) = o["spec"].get_mut("parameters").filter(|p| p.is_object()) {
            object::default_text(p, "scope", "Cluster");
        }
    },
    validate: |o, errors| {
        if object::text(o, "spec.controller").is_none_or(str::is_empty) {
            errors.required("spec.controller", "");
        }
    },
    validate_update: |new, old, errors| {
        let at = "spec.controller";
        errors.immutable(at, object::get(new, at), object::get(old, at));
    },
    columns: &[NAME, column("Controller"), column("Parameters"), AGE],
    row: class_row,
    ..BASE
};

pub(crate) static NETWORK_POLICY: Kind = Kind {
    group: GROUP,
    resource: "networkpolicies",
    singular: "networkpolicy",
    kind: "NetworkPolicy",
    short: &["netpol"],
    generation: true,
    default: default_policy,
    validate: validate_policy,
    columns: &[NAME, column("Pod-Selector"), AGE],
    row: policy_row,
    ..BASE
};

fn validate_backend(b: &Value, at: &str, errors: &mut Errors) {
    match (object::get(b, "service"), object::get(b, "resource")) {
        (Some(_), Some(_)) => {
            errors.invalid(at, "", "cannot set both resource and service backends");
        }
        (Some(s), None) => {
            if object::text(s, "name").is_none_or(str::is_empty) {
                errors.required(format!("{at}.service.name"), "");
            }
            let named = object::text(s, "port.name").is_some_and(|n| !n.is_empty());
            let numbered = object::int(s, "port.number").is_some_and(|n| n != 0);
            match (named, numbered) {
                (true, true) => errors.invalid(at, "", "cannot set both port name & port number"),
                (false, false) => errors.required(at, "port name or number is required"),
                _ => {}
            }
        }
        (None, Some(_)) => {}
        (None, None) => errors.required(at, "resource or service backend is required"),
    }
}

fn validate_ingress(o: &Value, errors: &mut Errors) {
    let rules = object::list(o, "spec.rules");
    match object::get(o, "spec.defaultBackend") {
        Some(b) => validate_backend(b, "spec.defaultBackend", errors),
        None if rules.is_empty() => {
            errors.invalid(
                "spec",
                object::get(o, "spec").unwrap_or(&Value::Null),
                "either `defaultBackend` or `rules` must be specified",
            );
        }
        None => {}
    }
    for (i, rule) in rules.iter().enumerate() {
        if let Some(host) = object::text(rule, "host").filter(|h| !h.is_empty()) {
            let plain = host.strip_prefix("*.").unwrap_or(host);
            if let Err(e) = apimachinery::name::dns_subdomain(plain) {
                errors.invalid(format!("spec.rules[{i}].host"), host, &e);
            }
        }
        let Some(http) = object::get(rule, "http") else { continue };
        let paths = object::list(http, "paths");
        if paths.is_empty() {
            errors.required(format!("spec.rules[{i}].http.paths"), "");
        }
        for (j, p) in paths.iter().enumerate() {
            let at = format!("spec.rules[{i}].http.paths[{j}]");
            let path = object::text(p, "path").unwrap_or_default();
            match object::text(p, "pathType") {
                Some("Exact" | "Prefix") if !path.starts_with('/') => {
                    errors.invalid(format!("{at}.path"), path, "must be an absolute path");
                }
                Some("Exact" | "Prefix" | "ImplementationSpecific") => {}
                None => errors.required(format!("{at}.pathType"), "pathType must be specified"),
                Some(other) => errors.not_supported(
                    format!("{at}.pathType"),
                    other,
                    &["Exact", "ImplementationSpecific", "Prefix"],
                ),
            }
            validate_backend(&p["backend"], &format!("{at}.backend"), errors);
        }
    }
}

fn ingress_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let rules = object::list(o, "spec.rules");
    let hosts: Vec<&str> =
        rules.iter().filter_map(|r| r["host"].as_str()).filter(|h| !h.is_empty()).collect();
    let hosts = match hosts.len() {
        0 => "*".to_owned(),
        1..=3 => hosts.join(","),
        n => format!("{} + {} more...", hosts[..3].join(","), n - 3),
    };
    let addresses: Vec<&str> = object::list(o, "status.loadBalancer.ingress")
        .iter()
        .filter_map(|i| i["ip"].as_str().filter(|s| !s.is_empty()).or_else(|| i["hostname"].as_str()))
        .collect();
    let ports = if object::list(o, "spec.tls").is_empty() { "80" } else { "80, 443" };
    vec![
        object::name(o).into(),
        table::or_none(object::text(o, "spec.ingressClassName")),
        hosts.into(),
        addresses.join(",").into(),
        ports.into(),
        table::age(o, now),
    ]
}

fn class_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = match object::get(o, "spec.parameters") {
        None => "<none>".to_owned(),
        Some(p) => {
            let of = |k: &str| p[k].as_str().unwrap_or_default();
            match of("apiGroup") {
                "" => format!("{}/{}", of("kind"), of("name")),
                g => format!("{}.{g}/{}", of("kind"), of("name")),
            }
        }
    };
    vec![
        object::name(o).into(),
        object::text(o, "spec.controller").unwrap_or_default().into(),
        parameters.into(),
        table::age(o, now),
    ]
}

fn default_policy(o: &mut Value) {
    let spec = object::child(o, "spec");
    if object::list(spec, "policyTypes").is_empty() {
        let egress = spec.get("egress").is_some_and(|e| !e.is_null());
        spec["policyTypes"] =
            if egress { serde_json::json!(["Ingress", "Egress"]) } else { serde_json::json!(["Ingress"]) };
    }
    for rules in ["ingress", "egress"] {
        for rule in object::list_mut(spec, rules) {
            for port in object::list_mut(rule, "ports") {
                object::default_text(port, "protocol", "TCP");
            }
        }
    }
}

fn validate_selector(v: Option<&Value>, at: &str, errors: &mut Errors) {
    if let Some(v) = v {
        pod_parts::selector(v, at, errors);
    }
}

/// Ports of a policy (kubernetes: pkg/apis/networking/validation ValidateNetworkPolicyPort).
fn validate_port(p: &Value, at: &str, errors: &mut Errors) {
    pod_parts::one_of(p, at, "protocol", &["SCTP", "TCP", "UDP"], errors);
    let first = object::get(p, "port");
    if let Some(first) = first {
        pod_parts::port(first, &format!("{at}.port"), errors);
    }
    if let Some(last) = p["endPort"].as_i64() {
        let field = format!("{at}.endPort");
        match first.map(Value::as_i64) {
            None => errors.invalid(field, last, "may not be specified when `port` is not specified"),
            Some(None) => errors.invalid(field, last, "may not be specified when `port` is non-numeric"),
            Some(Some(first)) if last < first => {
                errors.invalid(field, last, "must be greater than or equal to `port`");
            }
            Some(Some(_)) if last > 65535 => errors.invalid(field, last, pod_parts::PORT),
            _ => {}
        }
    }
}

fn validate_policy(o: &Value, errors: &mut Errors) {
    validate_selector(object::get(o, "spec.podSelector"), "spec.podSelector", errors);
    let types = object::list(o, "spec.policyTypes");
    if types.len() > 2 {
        let given = Value::from(types.to_vec());
        return errors.invalid("spec.policyTypes", &given, "may not specify more than two policyTypes");
    }
    for (i, t) in types.iter().filter_map(Value::as_str).enumerate() {
        if !matches!(t, "Ingress" | "Egress") {
            errors.not_supported(format!("spec.policyTypes[{i}]"), t, &["Egress", "Ingress"]);
        }
    }
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in object::list(o, &format!("spec.{rules}")).iter().enumerate() {
            for (j, port) in object::list(rule, "ports").iter().enumerate() {
                validate_port(port, &format!("spec.{rules}[{i}].ports[{j}]"), errors);
            }
            for (j, peer) in object::list(rule, peers).iter().enumerate() {
                validate_peer(peer, &format!("spec.{rules}[{i}].{peers}[{j}]"), errors);
            }
        }
    }
}

fn validate_peer(peer: &Value, at: &str, errors: &mut Errors) {
    let selectors = ["podSelector", "namespaceSelector"];
    for s in selectors {
        validate_selector(object::get(peer, s), &format!("{at}.{s}"), errors);
    }
    let selects = selectors.iter().any(|s| object::get(peer, s).is_some());
    match object::get(peer, "ipBlock") {
        Some(_) if selects => {
            errors.forbidden(at, "may not specify both ipBlock and another peer");
        }
        Some(block) => {
            let cidr = object::text(block, "cidr").unwrap_or_default();
            let whole = cidr.split_once('/').is_some_and(|(ip, prefix)| {
                let most = match ip.parse::<std::net::IpAddr>() {
                    Ok(ip) if ip.is_ipv4() => 32,
                    Ok(_) => 128,
                    Err(_) => return false,
                };
                prefix.parse::<u8>().is_ok_and(|p| p <= most)
            });
            if cidr.is_empty() {
                errors.required(format!("{at}.ipBlock.cidr"), "");
            } else if !whole {
                errors.invalid(
                    format!("{at}.ipBlock.cidr"),
                    cidr,
                    "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                );
            }
        }
        None if !selects => errors.required(at, "must specify a peer"),
        None => {}
    }
}

fn policy_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), table::selector(object::get(o, "spec.podSelector")), table::age(o, now)]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies() {
        let check = |rule: Value, expect: &str| {
            let mut errors = Errors::default();
            validate_policy(&json!({"spec": {"podSelector": {}, "ingress": [rule]}}), &mut errors);
            assert_eq!(errors.to_string(), expect);
        };
        let at = "spec.ingress[0].ports[0]";
        let port = |p: Value| json!({"ports": [p]});
        check(
            port(json!({"port": 0})),
            &format!("{at}.port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        );
        check(
            port(json!({"protocol": "ICMP", "port": 1})),
            &format!(
                "{at}.protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\""
            ),
        );
        check(
            port(json!({"endPort": 2})),
            &format!("{at}.endPort: Invalid value: 2: may not be specified when `port` is not specified"),
        );
        check(
            port(json!({"port": "web", "endPort": 2})),
            &format!("{at}.endPort: Invalid value: 2: may not be specified when `port` is non-numeric"),
        );
        check(
            port(json!({"port": 3, "endPort": 2})),
            &format!("{at}.endPort: Invalid value: 2: must be greater than or equal to `port`"),
        );
        check(
            json!({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}]}),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        );
    }
}
