//! Service: a name and an address for pods. Addresses and node ports are given out in `allocator.rs`.

pub(super) mod rules;

use apimachinery::name;
use serde_json::{Value, json};
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column, wide};
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
    validate: rules::service,
    validate_update: rules::stays,
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
    validate_status: super::status::service,
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

/// Whether each node tells a balancer of its own endpoints.
pub(crate) fn wants_health_check(o: &Value) -> bool {
    kind_of(o) == "LoadBalancer" && object::text(o, "spec.externalTrafficPolicy") == Some("Local")
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
    let external = !object::list(spec, "externalIPs").is_empty();
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || external {
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
    // One who changes the old field means the first of the new one (kubernetes: pkg/registry/core/service NormalizeClusterIPs).
    let (ip, before) = (object::get(new, "spec.clusterIP").cloned(), object::get(old, "spec.clusterIP"));
    if let Some(ip) = ip.filter(|ip| ip != "" && Some(ip) != before)
        && object::get(new, "spec.clusterIPs") == object::get(old, "spec.clusterIPs")
        && let Some(first) = object::list_mut(new, "spec.clusterIPs").first_mut()
    {
        *first = ip;
    }
    if kind_of(new) == "ExternalName" && kind_of(old) != "ExternalName" {
        let spec = object::child(new, "spec");
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            drop(object::remove(spec, key));
        }
    }
    // Of the old type, and not asked for anew (kubernetes: pkg/registry/core/service dropTypeDependentFields).
    let outside = |o: &Value| {
        matches!(kind_of(o), "NodePort" | "LoadBalancer") || !object::list(o, "spec.externalIPs").is_empty()
    };
    let balanced = |o: &Value| kind_of(o) == "LoadBalancer";
    let checked = wants_health_check;
    if checked(old) && checked(new) && object::int(new, "spec.healthCheckNodePort").unwrap_or(0) == 0 {
        object::child(new, "spec")["healthCheckNodePort"] = old["spec"]["healthCheckNodePort"].clone();
    }
    for (key, goes) in [
        ("externalTrafficPolicy", outside(old) && !outside(new)),
        ("allocateLoadBalancerNodePorts", balanced(old) && !balanced(new)),
        ("loadBalancerClass", balanced(old) && !balanced(new)),
        ("healthCheckNodePort", checked(old) && !checked(new)),
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
