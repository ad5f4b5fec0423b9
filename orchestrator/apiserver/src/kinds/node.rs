//! Node: a machine that runs pods.

use std::collections::HashSet;

use apimachinery::name;
use serde_json::{Value, json};
use signal::Timestamp;

use super::check::At;
use super::{AGE, BASE, Kind, NAME, column, resources, wide};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static KIND: Kind = Kind {
    resource: "nodes",
    singular: "node",
    kind: "Node",
    short: &["no"],
    namespaced: false,
    status: true,
    status_metadata: true,
    default,
    validate,
    validate_update: stays,
    fields: &["spec.unschedulable"],
    columns: &[
        NAME,
        column("Status"),
        column("Roles"),
        AGE,
        column("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    row,
    ..BASE
};

fn default(o: &mut Value) {
    object::child(o, "spec");
    if let Some(capacity) = object::get(o, "status.capacity").cloned()
        && object::get(o, "status.allocatable").is_none()
    {
        o["status"]["allocatable"] = capacity;
    }
    object::default(o, "status", json!({}));
}

/// kubernetes: pkg/apis/core/validation/validation.go ValidateNode
fn validate(o: &Value, errors: &mut Errors) {
    let o = At::root(o);
    let mut seen = HashSet::new();
    // Upstream's path, which is not the field's.
    for taint in o.of("spec.taints").renamed("metadata.taints").items() {
        taint.of("key").name(name::qualified_name, errors);
        taint.of("value").name_if(name::label_value, errors);
        let effect = taint.of("effect");
        effect.must_be_one_of(&["NoSchedule", "PreferNoSchedule", "NoExecute"], errors);
        if !seen.insert((taint.text("key"), effect.str())) {
            errors.duplicate_for(
                taint.path.as_str(),
                taint.v,
                "taints must be unique by key and effect pair",
            );
        }
    }
    for field in ["status.capacity", "status.allocatable"] {
        for (name, amount) in o.entries(field) {
            resources::amount(name, &amount.renamed(format!("{field}.{name}")), errors);
        }
    }
    let cidrs = o.of("spec.podCIDRs");
    let families: Vec<bool> =
        o.each("spec.podCIDRs").filter_map(|c| c.cidr(errors)).map(|(ip, _)| ip.is_ipv4()).collect();
    if families.len() > 2 || matches!(families.as_slice(), [a, b] if a == b) {
        cidrs.invalid("may specify no more than one CIDR for each IP family", errors);
    }
}

/// What a cloud or an allocator said once stays.
fn stays(new: &Value, old: &Value, errors: &mut Errors) {
    let (is, was) = (At::root(new).of("spec"), At::root(old).of("spec"));
    if was.len("podCIDRs") > 0 && is.of("podCIDRs").v != was.of("podCIDRs").v {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        is.of("podCIDRs").forbidden(detail, errors);
    }
    let provider = was.text("providerID");
    if !provider.is_empty() && provider != is.text("providerID") {
        let detail = "node updates may not change providerID except from \"\" to valid";
        is.of("providerID").forbidden(detail, errors);
    }
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    let ready = object::list(o, "status.conditions").iter().find(|c| c["type"] == "Ready");
    let mut status = match ready.and_then(|c| c["status"].as_str()) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if object::flag(o, "spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let labels = object::get(o, "metadata.labels").and_then(Value::as_object);
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| match k.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => Some(role),
            _ => (k == "kubernetes.io/role").then(|| v.as_str()).flatten(),
        })
        .collect();
    roles.sort_unstable();
    let address = |kind: &str| {
        let all = object::list(o, "status.addresses");
        table::or_none(all.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str()))
    };
    let info = |key: &str| match object::text(o, &format!("status.nodeInfo.{key}")) {
        Some(v) if !v.is_empty() => v.into(),
        _ => Value::from("<unknown>"),
    };
    vec![
        object::name(o).into(),
        status.into(),
        table::or_none(Some(&roles.join(","))),
        table::age(o, now),
        object::text(o, "status.nodeInfo.kubeletVersion").unwrap_or_default().into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}
