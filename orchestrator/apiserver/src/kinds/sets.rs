//! StatefulSet and DaemonSet: pods with names of their own, and one pod on each node.

use serde_json::{Value, json};
use signal::Timestamp;

use super::apps::{
    default_template, not_negative, selector_stays, validate_int_or_percent, validate_workload,
};
use super::{AGE, BASE, Kind, NAME, column, storage, wide};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static STATEFUL_SET: Kind = Kind {
    group: "apps",
    resource: "statefulsets",
    singular: "statefulset",
    kind: "StatefulSet",
    short: &["sts"],
    categories: &["all"],
    generation: true,
    status: true,
    scale: true,
    default: default_stateful,
    prepare_create: |o| o["status"] = json!({"replicas": 0, "availableReplicas": 0}),
    validate: validate_stateful,
    validate_update: stateful_stays,
    columns: &[NAME, column("Ready"), AGE, wide("Containers"), wide("Images")],
    row: stateful_row,
    ..BASE
};

pub(crate) static DAEMON_SET: Kind = Kind {
    group: "apps",
    resource: "daemonsets",
    singular: "daemonset",
    kind: "DaemonSet",
    short: &["ds"],
    categories: &["all"],
    generation: true,
    status: true,
    default: default_daemon,
    prepare_create: |o| {
        o["status"] = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0,
            "desiredNumberScheduled": 0, "numberReady": 0});
    },
    validate: validate_daemon,
    validate_update: selector_stays,
    columns: &[
        NAME,
        column("Desired"),
        column("Current"),
        column("Ready"),
        column("Up-to-date"),
        column("Available"),
        column("Node Selector"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    row: daemon_row,
    ..BASE
};

fn default_stateful(o: &mut Value) {
    let spec = object::child(o, "spec");
    object::default(spec, "replicas", 1);
    object::default(spec, "revisionHistoryLimit", 10);
    object::default_text(spec, "podManagementPolicy", "OrderedReady");
    let strategy = object::child(spec, "updateStrategy");
    object::default_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        object::default(object::child(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = object::child(spec, "persistentVolumeClaimRetentionPolicy");
    object::default_text(retention, "whenDeleted", "Retain");
    object::default_text(retention, "whenScaled", "Retain");
    for claim in object::list_mut(spec, "volumeClaimTemplates") {
        object::default(claim, "apiVersion", "v1");
        object::default(claim, "kind", "PersistentVolumeClaim");
        storage::default_claim(claim);
        claim["status"] = json!({"phase": "Pending"});
    }
    default_template(spec);
}

fn validate_stateful(o: &Value, errors: &mut Errors) {
    validate_workload(o, errors);
    not_negative(o, "minReadySeconds", errors);
    not_negative(o, "revisionHistoryLimit", errors);
    match object::text(o, "spec.podManagementPolicy") {
        Some("OrderedReady" | "Parallel") => {}
        other => {
            let given = other.unwrap_or_default();
            errors.not_supported("spec.podManagementPolicy", given, &["OrderedReady", "Parallel"]);
        }
    }
    let partition = "spec.updateStrategy.rollingUpdate";
    match object::text(o, "spec.updateStrategy.type") {
        Some("RollingUpdate") => {
            if let Some(n) = object::int(o, &format!("{partition}.partition")).filter(|n| *n < 0) {
                errors.invalid(format!("{partition}.partition"), n, "must be greater than or equal to 0");
            }
        }
        Some("OnDelete") => {
            if let Some(r) = object::get(o, partition) {
                errors.invalid(partition, r, "only allowed for updateStrategy 'RollingUpdate'");
            }
        }
        other => {
            let given = other.unwrap_or_default();
            errors.not_supported("spec.updateStrategy", given, &["RollingUpdate", "OnDelete"]);
        }
    }
}

/// Everything else would need new pods or new claims under old names.
fn stateful_stays(new: &Value, old: &Value, errors: &mut Errors) {
    const MAY_CHANGE: [&str; 8] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
        "status",
    ];
    let rest = |o: &Value| {
        let mut spec = o["spec"].clone();
        for field in MAY_CHANGE {
            drop(object::remove(&mut spec, field));
        }
        spec
    };
    if rest(new) != rest(old) {
        errors.forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

fn stateful_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let n = |path: &str| object::int(o, path).unwrap_or(0);
    let (names, images) = table::containers(object::get(o, "spec.template.spec"));
    vec![
        object::name(o).into(),
        format!("{}/{}", n("status.readyReplicas"), n("spec.replicas")).into(),
        table::age(o, now),
        names,
        images,
    ]
}

fn default_daemon(o: &mut Value) {
    let spec = object::child(o, "spec");
    object::default(spec, "revisionHistoryLimit", 10);
    let strategy = object::child(spec, "updateStrategy");
    object::default_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = object::child(strategy, "rollingUpdate");
        object::default(rolling, "maxUnavailable", 1);
        object::default(rolling, "maxSurge", 0);
    }
    default_template(spec);
}

fn validate_daemon(o: &Value, errors: &mut Errors) {
    validate_workload(o, errors);
    not_negative(o, "minReadySeconds", errors);
    not_negative(o, "revisionHistoryLimit", errors);
    let rolling = "spec.updateStrategy.rollingUpdate";
    match object::text(o, "spec.updateStrategy.type") {
        Some("RollingUpdate") => {
            let of = |f: &str| object::get(o, &format!("{rolling}.{f}")).cloned().unwrap_or(Value::Null);
            let (unavailable, surge) = (of("maxUnavailable"), of("maxSurge"));
            for (f, v) in [("maxUnavailable", &unavailable), ("maxSurge", &surge)] {
                validate_int_or_percent(v, &format!("{rolling}.{f}"), errors);
            }
            let zero = |v: &Value| *v == 0 || v == "0%";
            if zero(&unavailable) && zero(&surge) {
                errors.required(format!("{rolling}.maxUnavailable"), "cannot be 0 when maxSurge is 0");
            } else if !zero(&unavailable) && !zero(&surge) {
                errors.invalid(
                    format!("{rolling}.maxSurge"),
                    &surge,
                    "may not be set when maxUnavailable is non-zero",
                );
            }
        }
        Some("OnDelete") => {}
        other => {
            let given = other.unwrap_or_default();
            errors.not_supported("spec.updateStrategy", given, &["RollingUpdate", "OnDelete"]);
        }
    }
}

fn daemon_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let n = |field: &str| Value::from(object::int(o, &format!("status.{field}")).unwrap_or(0).to_string());
    let (names, images) = table::containers(object::get(o, "spec.template.spec"));
    vec![
        object::name(o).into(),
        n("desiredNumberScheduled"),
        n("currentNumberScheduled"),
        n("numberReady"),
        n("updatedNumberScheduled"),
        n("numberAvailable"),
        table::pairs(object::get(o, "spec.template.spec.nodeSelector")),
        table::age(o, now),
        names,
        images,
        table::selector(object::get(o, "spec.selector")),
    ]
}
