//! Ingress, IngressClass, NetworkPolicy: who may come in, and how.

mod rules;

use serde_json::Value;
use signal::Timestamp;

use super::check::At;
use super::{AGE, BASE, Kind, NAME, column};
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
    validate: rules::ingress,
    validate_create: rules::new_ingress,
    columns: &[NAME, column("Class"), column("Hosts"), column("Address"), column("Ports"), AGE],
    row: ingress_row,
    validate_status: super::status::ingress,
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
    validate: rules::class,
    validate_update: |new, old, errors| {
        let at = "spec.controller";
        At::root(new).of(at).immutable(&At::root(old).of(at), errors);
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
    validate: rules::policy,
    columns: &[NAME, column("Pod-Selector"), AGE],
    row: policy_row,
    ..BASE
};

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

fn policy_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), table::selector(object::get(o, "spec.podSelector")), table::age(o, now)]
}
