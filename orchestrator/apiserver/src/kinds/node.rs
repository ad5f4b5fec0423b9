//! Node: a machine that runs pods.

use serde_json::{Value, json};
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column, wide};
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
