//! Deployment, ReplicaSet, ReplicationController and ControllerRevision: pods in numbers.

use apimachinery::selector::Selector;
use serde_json::{Value, json};
use signal::Timestamp;

use super::check::At;
use super::{AGE, BASE, Column, Kind, NAME, column, pod, wide, workload};
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
    validate_status: super::status::deployment,
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
    validate: validate_replicaset,
    validate_update: selector_stays,
    fields: &["status.replicas"],
    columns: REPLICASET_COLUMNS,
    row: replicaset_row,
    validate_status: super::status::replica_set,
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
    validate_status: super::status::replica_set,
    ..BASE
};

pub(crate) static CONTROLLER_REVISION: Kind = Kind {
    group: GROUP,
    resource: "controllerrevisions",
    singular: "controllerrevision",
    kind: "ControllerRevision",
    validate: |o, errors| {
        let o = At::root(o);
        if !o.of("data").given() {
            errors.required("data", "data is mandatory");
        }
        o.of("revision").not_negative(errors);
    },
    validate_update: |new, old, errors| At::root(new).of("data").immutable(&At::root(old).of("data"), errors),
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
    let spec = At::root(o).of("spec");
    spec.of("minReadySeconds").not_negative(errors);
    let selector = spec.of("selector");
    if spec.len("selector") == 0 {
        errors.required(selector.path.as_str(), "");
    }
    spec.of("replicas").not_negative(errors);
    let parsed = Selector::from_map(
        selector.v.as_object().into_iter().flatten().filter_map(|(k, v)| Some((k, v.as_str()?))),
    );
    workload::matching_template(&spec, &parsed, "ReplicationController", errors);
}

fn validate_replicaset(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    spec.of("replicas").not_negative(errors);
    spec.of("minReadySeconds").not_negative(errors);
    workload::selected_template(&spec, &REPLICATED, errors);
}

const REPLICATED: workload::Rules =
    workload::Rules { empty: "deployment", deadline: "ReplicaSet", required: true };

fn validate_deployment(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    spec.of("replicas").not_negative(errors);
    workload::selected_template(&spec, &REPLICATED, errors);
    validate_strategy(&spec.of("strategy"), errors);
    spec.of("minReadySeconds").not_negative(errors);
    spec.of("revisionHistoryLimit").not_negative(errors);
    let deadline = spec.of("progressDeadlineSeconds");
    deadline.not_negative(errors);
    deadline.at_least(
        spec.int("minReadySeconds").unwrap_or(0) + 1,
        "must be greater than minReadySeconds",
        errors,
    );
}

fn validate_strategy(strategy: &At<'_>, errors: &mut Errors) {
    let rolling = strategy.of("rollingUpdate");
    match strategy.text("type") {
        "Recreate" => {
            if rolling.given() {
                rolling.forbidden("may not be specified when strategy `type` is 'Recreate'", errors);
            }
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.of("maxUnavailable"), rolling.of("maxSurge"));
            unavailable.amount(errors);
            surge.amount(errors);
            if unavailable.amount_value() == 0 && surge.amount_value() == 0 {
                unavailable.invalid("may not be 0 when `maxSurge` is 0", errors);
            }
            unavailable.at_most_all(errors);
        }
        // Upstream tells the whole strategy, in the words of its own code.
        other => errors.not_supported_value(
            strategy.path.as_str(),
            &json!({"Type": other, "RollingUpdate": null}),
            &["Recreate", "RollingUpdate"],
        ),
    }
}

pub(super) fn selector_stays(new: &Value, old: &Value, errors: &mut Errors) {
    let at = "spec.selector";
    At::root(new).of(at).immutable(&At::root(old).of(at), errors);
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
