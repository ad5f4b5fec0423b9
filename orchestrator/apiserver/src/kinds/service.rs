//! Service: a name and an address for pods. Addresses and node ports are given out in `allocator.rs`.

use std::collections::HashSet;

use apimachinery::name;
use serde_json::{Value, json};
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column, pod_parts, wide};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static KIND: Kind = Kind {
    resource: "services",
    singular: "service",
    kind: "Service",
    short: &["svc"],
    categories: &["all"],
    status: true,
    name_rule: name::dns1035_label,
    default,
    prepare_create: |o| o["status"] = json!({"loadBalancer": {}}),
    prepare_update,
    validate,
    validate_update,
    fields: &["spec.clusterIP", "spec.type"],
    columns: &[
        NAME,
        column("Type"),
        column("Cluster-IP"),
        column("External-IP"),
        column("Port(s)"),
        AGE,
        wide("Selector"),
    ],
    row,
    ..BASE
};

pub(crate) fn kind_of(o: &Value) -> &str {
    object::text(o, "spec.type").unwrap_or("ClusterIP")
}

/// Whether a service has an address of its own (not headless, not external).
pub(crate) fn wants_ip(o: &Value) -> bool {
    kind_of(o) != "ExternalName" && object::text(o, "spec.clusterIP") != Some("None")
}

pub(crate) fn wants_node_ports(o: &Value) -> bool {
    match kind_of(o) {
        "NodePort" => true,
        "LoadBalancer" => object::get(o, "spec.allocateLoadBalancerNodePorts").is_none_or(|v| v != false),
        _ => false,
    }
}

fn default(o: &mut Value) {
    let spec = object::child(o, "spec");
    object::default_text(spec, "type", "ClusterIP");
    object::default_text(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" {
        let config = object::child(object::child(spec, "sessionAffinityConfig"), "clientIP");
        object::default(config, "timeoutSeconds", 10800);
    }
    for p in object::list_mut(spec, "ports") {
        object::default_text(p, "protocol", "TCP");
        let port = p["port"].clone();
        let empty = matches!(&p["targetPort"], Value::Number(n) if n.as_i64() == Some(0))
            || p["targetPort"].as_str() == Some("");
        if empty {
            p["targetPort"] = port.clone();
        }
        object::default(p, "targetPort", port);
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if kind == "ExternalName" {
        return;
    }
    object::default_text(spec, "internalTrafficPolicy", "Cluster");
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        object::default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        object::default(spec, "allocateLoadBalancerNodePorts", true);
    }
    object::default(spec, "ipFamilies", json!(["IPv4"]));
    object::default_text(spec, "ipFamilyPolicy", "SingleStack");
    match object::text(spec, "clusterIP").map(str::to_owned) {
        Some(ip) if !ip.is_empty() => object::default(spec, "clusterIPs", json!([ip])),
        _ => {
            if let Some(first) = object::list(spec, "clusterIPs").first().cloned() {
                spec["clusterIP"] = first;
            }
        }
    }
}

/// What the server gave stays where an update does not name it.
fn prepare_update(new: &mut Value, old: &Value) {
    if wants_ip(new)
        && kind_of(old) != "ExternalName"
        && object::text(new, "spec.clusterIP").is_none_or(str::is_empty)
    {
        let spec = object::child(new, "spec");
        for key in ["clusterIP", "clusterIPs"] {
            if let Some(v) = object::get(&old["spec"], key) {
                spec[key] = v.clone();
            }
        }
    }
    if kind_of(new) == "ExternalName" && kind_of(old) != "ExternalName" {
        let spec = object::child(new, "spec");
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            drop(object::remove(spec, key));
        }
    }
    // Of the old type, and not asked for anew (kubernetes: pkg/registry/core/service dropTypeDependentFields).
    let outside = |o: &Value| matches!(kind_of(o), "NodePort" | "LoadBalancer");
    for (key, goes) in [
        ("externalTrafficPolicy", outside(old) && !outside(new)),
        ("allocateLoadBalancerNodePorts", kind_of(old) == "LoadBalancer" && kind_of(new) != "LoadBalancer"),
    ] {
        let spec = object::child(new, "spec");
        if goes && object::get(spec, key) == object::get(&old["spec"], key) {
            drop(object::remove(spec, key));
        }
    }
    if !wants_node_ports(new) && wants_node_ports(old) {
        let old_ports = object::list(old, "spec.ports").to_vec();
        for p in object::list_mut(new, "spec.ports") {
            // Only a port that was carried over, not one that the user asks for now.
            if old_ports.iter().any(|o| o["nodePort"] == p["nodePort"]) {
                drop(object::remove(p, "nodePort"));
            }
        }
    }
    if wants_node_ports(new) && wants_node_ports(old) {
        let old_ports = object::list(old, "spec.ports").to_vec();
        for p in object::list_mut(new, "spec.ports") {
            let same = old_ports.iter().find(|o| o["port"] == p["port"] && o["protocol"] == p["protocol"]);
            if let Some(n) = same.and_then(|o| object::get(o, "nodePort")) {
                object::default(p, "nodePort", n.clone());
            }
        }
    }
}

fn validate(o: &Value, errors: &mut Errors) {
    let spec = &o["spec"];
    let kind = kind_of(o);
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
        errors.not_supported("spec.type", kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    }
    let ports = object::list(spec, "ports");
    let headless = object::text(spec, "clusterIP") == Some("None");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.required("spec.ports", "");
    }
    if kind == "ExternalName" {
        match object::text(spec, "externalName") {
            None | Some("") => errors.required("spec.externalName", ""),
            Some(n) => {
                if let Err(e) = name::dns_subdomain(n.trim_end_matches('.')) {
                    errors.invalid("spec.externalName", n, &e);
                }
            }
        }
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        errors.invalid(
            "spec.clusterIPs[0]",
            "None",
            &format!("may not be set to 'None' for {kind} services"),
        );
    }
    if !matches!(object::text(spec, "sessionAffinity"), None | Some("None" | "ClientIP")) {
        errors.not_supported(
            "spec.sessionAffinity",
            object::text(spec, "sessionAffinity").unwrap_or_default(),
            &["ClientIP", "None"],
        );
    }
    if let Some(n) = object::int(spec, "sessionAffinityConfig.clientIP.timeoutSeconds")
        && !(1..=86400).contains(&n)
    {
        let detail = "must be greater than 0 and less than 86400";
        errors.invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds", n, detail);
    }
    for (k, v) in spec["selector"].as_object().into_iter().flatten() {
        if let Err(e) = name::qualified_name(k) {
            errors.invalid("spec.selector", k.as_str(), &e);
        }
        if let Some(Err(e)) = v.as_str().map(name::label_value) {
            errors.invalid("spec.selector", v, &e);
        }
    }
    for (i, ip) in object::list(spec, "externalIPs").iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        if ip.parse::<std::net::IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.invalid(format!("spec.externalIPs[{i}]"), ip, detail);
        }
    }
    pod_parts::one_of(spec, "spec", "internalTrafficPolicy", &["Cluster", "Local"], errors);
    if let Some(policy) = object::text(spec, "externalTrafficPolicy") {
        let outside = matches!(kind, "NodePort" | "LoadBalancer")
            || kind == "ClusterIP" && !object::list(spec, "externalIPs").is_empty();
        if !outside {
            let detail = "may only be set for externally-accessible services";
            errors.invalid("spec.externalTrafficPolicy", policy, detail);
        }
        pod_parts::one_of(spec, "spec", "externalTrafficPolicy", &["Cluster", "Local"], errors);
    }
    let mut names = HashSet::new();
    let mut seen = HashSet::new();
    for (i, p) in ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        let n = p["name"].as_str().unwrap_or_default();
        if n.is_empty() {
            if ports.len() > 1 {
                errors.required(format!("{at}.name"), "");
            }
        } else if let Err(e) = name::dns_label(n) {
            errors.invalid(format!("{at}.name"), n, &e);
        } else if !names.insert(n) {
            errors.duplicate(format!("{at}.name"), n);
        }
        let number = p["port"].as_i64().unwrap_or(0);
        if !(1..=65535).contains(&number) {
            errors.invalid(format!("{at}.port"), number, "must be between 1 and 65535, inclusive");
        }
        pod_parts::port(&p["targetPort"], &format!("{at}.targetPort"), errors);
        let protocol = p["protocol"].as_str().unwrap_or_default();
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            errors.not_supported(format!("{at}.protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        }
        if !seen.insert((number, protocol)) {
            errors.duplicate(at.as_str(), &json!({"port": number, "protocol": protocol}));
        }
        if matches!(kind, "ClusterIP" | "ExternalName") && p["nodePort"].as_i64().is_some_and(|n| n != 0) {
            errors.forbidden(format!("{at}.nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
}

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (a, b) = (
        object::text(old, "spec.clusterIP").unwrap_or_default(),
        object::text(new, "spec.clusterIP").unwrap_or_default(),
    );
    if kind_of(old) != "ExternalName" && kind_of(new) != "ExternalName" && !a.is_empty() && a != b {
        errors.invalid("spec.clusterIPs[0]", b, "may not change once set");
    }
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    let kind = kind_of(o);
    let ip = match kind {
        "ExternalName" => "<none>",
        _ => object::text(o, "spec.clusterIP").filter(|i| !i.is_empty()).unwrap_or("<none>"),
    };
    let mut external: Vec<&str> =
        object::list(o, "spec.externalIPs").iter().filter_map(Value::as_str).collect();
    let external = match kind {
        "ExternalName" => object::text(o, "spec.externalName").unwrap_or_default().to_owned(),
        "LoadBalancer" => {
            let ingress = object::list(o, "status.loadBalancer.ingress");
            external.extend(ingress.iter().filter_map(|i| i["ip"].as_str().or(i["hostname"].as_str())));
            if external.is_empty() { "<pending>".to_owned() } else { external.join(",") }
        }
        _ if external.is_empty() => "<none>".to_owned(),
        _ => external.join(","),
    };
    let ports: Vec<String> = object::list(o, "spec.ports")
        .iter()
        .map(|p| match p["nodePort"].as_i64() {
            Some(n) if n > 0 => format!("{}:{n}/{}", p["port"], p["protocol"].as_str().unwrap_or_default()),
            _ => format!("{}/{}", p["port"], p["protocol"].as_str().unwrap_or_default()),
        })
        .collect();
    vec![
        object::name(o).into(),
        kind.into(),
        ip.into(),
        external.into(),
        table::or_none(Some(&ports.join(","))),
        table::age(o, now),
        table::pairs(object::get(o, "spec.selector")),
    ]
}
