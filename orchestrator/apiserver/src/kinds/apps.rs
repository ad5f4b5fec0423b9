//! Deployment, ReplicaSet, ReplicationController and ControllerRevision: pods in numbers.

use serde_json::{Value, json};
use signal::Timestamp;

use super::{AGE, BASE, Column, Kind, NAME, column, pod, pod_parts, pod_validation, wide};
use crate::validation::Errors;
use crate::{object, table};

const GROUP: &str = "apps";

pub(crate) static DEPLOYMENT: Kind = Kind {
    group: GROUP,
    resource: "deployments",
    singular: "deployment",
    kind: "Deployment",
    short: &["deploy"],
    categories: &["all"],
    generation: true,
    status: true,
    scale: true,
    default: default_deployment,
    prepare_create: |o| o["status"] = json!({}),
    validate: validate_deployment,
    validate_update: selector_stays,
    columns: &[
        NAME,
        column("Ready"),
        column("Up-to-date"),
        column("Available"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    row: deployment_row,
    ..BASE
};

pub(crate) static REPLICASET: Kind = Kind {
    group: GROUP,
    resource: "replicasets",
    singular: "replicaset",
    kind: "ReplicaSet",
    short: &["rs"],
    categories: &["all"],
    generation: true,
    status: true,
    scale: true,
    default: default_replicaset,
    prepare_create: |o| o["status"] = json!({"replicas": 0}),
    validate: validate_workload,
    validate_update: selector_stays,
    fields: &["status.replicas"],
    columns: REPLICASET_COLUMNS,
    row: replicaset_row,
    ..BASE
};

pub(crate) static REPLICATION_CONTROLLER: Kind = Kind {
    resource: "replicationcontrollers",
    singular: "replicationcontroller",
    kind: "ReplicationController",
    short: &["rc"],
    categories: &["all"],
    generation: true,
    status: true,
    scale: true,
    default: default_replication_controller,
    prepare_create: |o| o["status"] = json!({"replicas": 0}),
    validate: validate_replication_controller,
    fields: &["status.replicas"],
    columns: REPLICASET_COLUMNS,
    row: replicaset_row,
    ..BASE
};

pub(crate) static CONTROLLER_REVISION: Kind = Kind {
    group: GROUP,
    resource: "controllerrevisions",
    singular: "controllerrevision",
    kind: "ControllerRevision",
    validate_update: |new, old, errors| errors.immutable("data", new.get("data"), old.get("data")),
    columns: &[NAME, column("Controller"), column("Revision"), AGE],
    row: revision_row,
    ..BASE
};

const REPLICASET_COLUMNS: &[Column] = &[
    NAME,
    column("Desired"),
    column("Current"),
    column("Ready"),
    AGE,
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

/// `template` within `spec`.
pub(super) fn default_template(spec: &mut Value) {
    let template = object::child(spec, "template");
    object::child(template, "metadata");
    pod::default_spec(object::child(template, "spec"));
}

fn default_deployment(o: &mut Value) {
    let spec = object::child(o, "spec");
    object::default(spec, "replicas", 1);
    default_template(spec);
    object::default(spec, "strategy", json!({}));
    let strategy = &mut spec["strategy"];
    object::default_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = object::child(strategy, "rollingUpdate");
        object::default(rolling, "maxUnavailable", "25%");
        object::default(rolling, "maxSurge", "25%");
    }
    object::default(spec, "revisionHistoryLimit", 10);
    object::default(spec, "progressDeadlineSeconds", 600);
}

fn default_replicaset(o: &mut Value) {
    let spec = object::child(o, "spec");
    object::default(spec, "replicas", 1);
    default_template(spec);
}

/// The template's labels are the selector, and the controller's own labels, unless others are given.
fn default_replication_controller(o: &mut Value) {
    let spec = object::child(o, "spec");
    object::default(spec, "replicas", 1);
    default_template(spec);
    let labels = object::get(spec, "template.metadata.labels").cloned();
    if let Some(labels) = labels {
        object::default(spec, "selector", labels.clone());
        object::default(object::child(o, "metadata"), "labels", labels);
    }
}

fn validate_replication_controller(o: &Value, errors: &mut Errors) {
    not_negative(o, "replicas", errors);
    let selector = object::get(o, "spec.selector").and_then(Value::as_object);
    if selector.is_none_or(serde_json::Map::is_empty) {
        return errors.required("spec.selector", "");
    }
    validate_template(o, &json!({"matchLabels": o["spec"]["selector"]}), errors);
}

fn validate_deployment(o: &Value, errors: &mut Errors) {
    validate_workload(o, errors);
    let strategy = &o["spec"]["strategy"];
    match strategy["type"].as_str() {
        Some("RollingUpdate") => {
            let rolling = &strategy["rollingUpdate"];
            let zero = |v: &Value| {
                matches!(v, Value::Number(n) if n.as_i64() == Some(0)) || matches!(v.as_str(), Some("0%"))
            };
            for field in ["maxUnavailable", "maxSurge"] {
                validate_int_or_percent(
                    &rolling[field],
                    &format!("spec.strategy.rollingUpdate.{field}"),
                    errors,
                );
            }
            if zero(&rolling["maxUnavailable"]) && zero(&rolling["maxSurge"]) {
                errors.invalid(
                    "spec.strategy.rollingUpdate.maxUnavailable",
                    &rolling["maxUnavailable"],
                    "may not be 0 when `maxSurge` is 0",
                );
            }
        }
        Some("Recreate") => {
            if object::get(strategy, "rollingUpdate").is_some() {
                errors.forbidden(
                    "spec.strategy.rollingUpdate",
                    "may not be specified when strategy `type` is 'Recreate'",
                );
            }
        }
        Some(other) => errors.not_supported("spec.strategy.type", other, &["Recreate", "RollingUpdate"]),
        None => errors.required("spec.strategy", ""),
    }
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        not_negative(o, field, errors);
    }
    let (deadline, ready) =
        (object::int(o, "spec.progressDeadlineSeconds"), object::int(o, "spec.minReadySeconds").unwrap_or(0));
    if let Some(d) = deadline
        && d <= ready
    {
        errors.invalid("spec.progressDeadlineSeconds", d, "must be greater than minReadySeconds");
    }
}

pub(super) fn not_negative(o: &Value, field: &str, errors: &mut Errors) {
    if let Some(n) = object::int(o, &format!("spec.{field}"))
        && n < 0
    {
        errors.invalid(format!("spec.{field}"), n, "must be greater than or equal to 0");
    }
}

pub(super) fn validate_int_or_percent(v: &Value, field: &str, errors: &mut Errors) {
    match v {
        Value::Number(n) if n.as_i64().is_some_and(|n| n < 0) => {
            errors.invalid(field, v, "must be greater than or equal to 0");
        }
        Value::String(s) => {
            let percent = s.strip_suffix('%').and_then(|p| p.parse::<u32>().ok());
            match percent {
                None => errors.invalid(field, v, "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"),
                Some(p) if p > 100 && field.ends_with("maxUnavailable") => {
                    errors.invalid(field, v, "must not be greater than 100%");
                }
                Some(_) => {}
            }
        }
        _ => {}
    }
}

/// What workloads share: selector, template, replicas.
pub(super) fn validate_workload(o: &Value, errors: &mut Errors) {
    not_negative(o, "replicas", errors);
    let selector = object::get(o, "spec.selector");
    match selector {
        None => errors.required("spec.selector", ""),
        Some(s) => match apimachinery::selector::Selector::from_json(Some(s)) {
            Err(_) => {
                pod_parts::selector(s, "spec.selector", errors);
                if errors.is_empty() {
                    errors.invalid("spec.selector", s, "invalid label selector");
                }
            }
            Ok(parsed) if parsed.is_everything() => {
                errors.invalid("spec.selector", s, "empty selector is invalid for deployment");
            }
            Ok(_) => return validate_template(o, s, errors),
        },
    }
    validate_template(o, &json!({}), errors);
}

/// A pod template whose labels a selector must match.
fn validate_template(o: &Value, selector: &Value, errors: &mut Errors) {
    let labels = object::get(o, "spec.template.metadata.labels");
    if let Ok(parsed) = apimachinery::selector::Selector::from_json(Some(selector))
        && !parsed.matches_json(labels)
    {
        errors.invalid(
            "spec.template.metadata.labels",
            labels.unwrap_or(&Value::Null),
            "`selector` does not match template `labels`",
        );
    }
    let template = &o["spec"]["template"];
    crate::registry::validate_labels(&template["metadata"], "spec.template.metadata", errors);
    pod_validation::validate_spec(&template["spec"], "spec.template.spec", errors);
    match object::text(template, "spec.restartPolicy") {
        Some("Always") | None => {}
        Some(other) => {
            errors.not_supported("spec.template.spec.restartPolicy", other, &["Always"]);
        }
    }
    if object::get(template, "spec.activeDeadlineSeconds").is_some() {
        errors.forbidden(
            "spec.template.spec.activeDeadlineSeconds",
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

pub(super) fn selector_stays(new: &Value, old: &Value, errors: &mut Errors) {
    errors.immutable("spec.selector", object::get(new, "spec.selector"), object::get(old, "spec.selector"));
}

fn deployment_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let n = |path: &str| object::int(o, path).unwrap_or(0);
    let (names, images) = table::containers(object::get(o, "spec.template.spec"));
    vec![
        object::name(o).into(),
        format!("{}/{}", n("status.readyReplicas"), n("spec.replicas")).into(),
        n("status.updatedReplicas").to_string().into(),
        n("status.availableReplicas").to_string().into(),
        table::age(o, now),
        names,
        images,
        table::selector(object::get(o, "spec.selector")),
    ]
}

fn replicaset_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let n = |path: &str| Value::from(object::int(o, path).unwrap_or(0).to_string());
    let (names, images) = table::containers(object::get(o, "spec.template.spec"));
    vec![
        object::name(o).into(),
        n("spec.replicas"),
        n("status.replicas"),
        n("status.readyReplicas"),
        table::age(o, now),
        names,
        images,
        match o["spec"]["selector"].get("matchLabels").or(o["spec"]["selector"].get("matchExpressions")) {
            // A replication controller's selector is a plain map.
            None => table::pairs(object::get(o, "spec.selector")),
            Some(_) => table::selector(object::get(o, "spec.selector")),
        },
    ]
}

fn revision_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let owner = object::list(o, "metadata.ownerReferences").iter().find(|r| r["controller"] == true);
    let controller = owner.map(|r| {
        let kind = r["kind"].as_str().unwrap_or_default().to_lowercase();
        let group = r["apiVersion"]
            .as_str()
            .and_then(|v| v.split_once('/'))
            .map_or(String::new(), |(g, _)| format!(".{g}"));
        format!("{kind}{group}/{}", r["name"].as_str().unwrap_or_default())
    });
    vec![
        object::name(o).into(),
        table::or_none(controller.as_deref()),
        object::int(o, "revision").unwrap_or(0).to_string().into(),
        table::age(o, now),
    ]
}
