//! APIService: a group-version, served here or by a server behind a Service
//! (kubernetes: staging/src/k8s.io/kube-aggregator/pkg/apis/apiregistration).

use apimachinery::name;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) const GROUP: &str = "apiregistration.k8s.io";
const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;

pub(crate) static API_SERVICE: Kind = Kind {
    group: GROUP,
    resource: "apiservices",
    singular: "apiservice",
    kind: "APIService",
    categories: &["api-extensions"],
    namespaced: false,
    status: true,
    name_rule: name::path_segment,
    default: |o| {
        if let Some(service) = o["spec"].get_mut("service").filter(|s| s.is_object()) {
            object::default(service, "port", 443);
        }
    },
    prepare_create,
    validate,
    fields: &["spec.group", "spec.version"],
    columns: &[NAME, column("Service"), column("Available"), AGE],
    row,
    ..BASE
};

/// Nobody but the server says what its status is; what is served here is available at once.
fn prepare_create(o: &mut Value) {
    o["status"] = if object::get(o, "spec.service").is_some() {
        json!({})
    } else {
        json!({"conditions": [{
            "type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available",
            "lastTransitionTime": o["metadata"]["creationTimestamp"],
        }]})
    };
}

fn validate(o: &Value, e: &mut Errors) {
    let spec = &o["spec"];
    let text = |key: &str| object::text(spec, key).unwrap_or_default();
    let (group, version) = (text("group"), text("version"));
    let wanted = format!("{version}.{group}");
    if object::name(o) != wanted {
        let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        e.invalid("metadata.name", object::name(o), &why);
    }
    if group.is_empty() && version != "v1" {
        e.required("spec.group", "only v1 may have an empty group and it better be legacy kube");
    }
    if !group.is_empty()
        && let Err(why) = name::dns_subdomain(group)
    {
        e.invalid("spec.group", group, &why);
    }
    if let Err(why) = name::dns1035_label(version) {
        e.invalid("spec.version", version, &why);
    }
    for (key, max, why) in [
        ("groupPriorityMinimum", GROUP_PRIORITY_MAX, "must be positive and less than 20000"),
        ("versionPriority", VERSION_PRIORITY_MAX, "must be positive and less than 1000"),
    ] {
        let n = object::int(spec, key).unwrap_or(0);
        if !(1..=max).contains(&n) {
            e.invalid(format!("spec.{key}"), n, why);
        }
    }
    validate_reach(spec, e);
}

/// Where it is, and why it is trusted.
fn validate_reach(spec: &Value, e: &mut Errors) {
    let insecure = object::flag(spec, "insecureSkipTLSVerify");
    let bundle = object::text(spec, "caBundle").filter(|b| !b.is_empty());
    let Some(service) = object::get(spec, "service") else {
        if let Some(bundle) = bundle {
            let bytes = STANDARD.decode(bundle).map_or(bundle.len(), |b| b.len());
            let why = "local APIServices may not have a caBundle";
            e.invalid("spec.caBundle", format!("{bytes} bytes").as_str(), why);
        }
        if insecure {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            e.invalid("spec.insecureSkipTLSVerify", &Value::Bool(true), why);
        }
        return;
    };
    if insecure && bundle.is_some() {
        let why = "may not be true if caBundle is present";
        e.invalid("spec.insecureSkipTLSVerify", &Value::Bool(true), why);
    }
    for key in ["namespace", "name"] {
        if object::text(service, key).is_none_or(str::is_empty) {
            e.required(format!("spec.service.{key}"), "");
        }
    }
    let port = object::int(service, "port").unwrap_or(0);
    if !(1..=65535).contains(&port) {
        e.invalid("spec.service.port", port, "port is not valid: must be between 1 and 65535, inclusive");
    }
}

/// The condition `Available`.
pub(crate) fn available(o: &Value) -> Option<&Value> {
    object::list(o, "status.conditions").iter().find(|c| c["type"] == "Available")
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    let service = match object::get(o, "spec.service") {
        Some(s) => {
            let text = |k: &str| object::text(s, k).unwrap_or_default();
            format!("{}/{}", text("namespace"), text("name"))
        }
        None => "Local".to_owned(),
    };
    let available = match available(o) {
        Some(c) => {
            let (status, reason) = (c["status"].as_str().unwrap_or_default(), c["reason"].as_str());
            match reason {
                Some(r) if status != "True" && !r.is_empty() => format!("{status} ({r})"),
                _ => status.to_owned(),
            }
        }
        None => "Unknown".to_owned(),
    };
    vec![object::name(o).into(), service.into(), available.into(), table::age(o, now)]
}
