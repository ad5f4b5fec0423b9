//! StatefulSet and DaemonSet: pods with names of their own, and one pod on each node.

use apimachinery::name;
use serde_json::{Value, json};
use signal::Timestamp;

use super::apps::{default_template, selector_stays};
use super::check::At;
use super::storage::claim_rules;
use super::{AGE, BASE, Kind, NAME, column, storage, wide, workload};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static STATEFUL_SET: Kind = Kind {
    group: "apps",
    resource: "statefulsets",
    singular: "statefulset",
    kind: "StatefulSet",
    name_rule: name::dns_label,
    short: &["sts"],
    categories: &["all"],
    generation: true,
    status: true,
    scale: true,
    default: default_stateful,
    prepare_create: |o| o["status"] = json!({"replicas": 0, "availableReplicas": 0}),
    validate: validate_stateful,
    validate_create: validate_new_stateful,
    validate_update: stateful_stays,
    columns: &[NAME, column("Ready"), AGE, wide("Containers"), wide("Images")],
    row: stateful_row,
    validate_status: super::status::stateful_set,
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
    validate_status: super::status::daemon_set,
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
    const POLICIES: [&str; 2] = ["OrderedReady", "Parallel"];
    let spec = At::root(o).of("spec");
    let policy = spec.of("podManagementPolicy");
    if !POLICIES.contains(&policy.str()) {
        policy.invalid("must be 'OrderedReady' or 'Parallel'", errors);
    }
    let strategy = spec.of("updateStrategy");
    let rolling = strategy.of("rollingUpdate");
    match strategy.text("type") {
        "OnDelete" if rolling.given() => {
            rolling.invalid("only allowed for updateStrategy 'RollingUpdate'", errors);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.of("partition").not_negative(errors);
            if let Some(unavailable) = rolling.get("maxUnavailable") {
                unavailable.amount(errors);
                if unavailable.amount_value() == 0 {
                    unavailable.invalid("cannot be 0", errors);
                }
                unavailable.at_most_all(errors);
            }
        }
        other => errors.invalid(
            strategy.path.as_str(),
            &json!({"Type": other, "RollingUpdate": null}),
            "must be 'RollingUpdate' or 'OnDelete'",
        ),
    }
    for when in ["whenDeleted", "whenScaled"] {
        spec.of(&format!("persistentVolumeClaimRetentionPolicy.{when}"))
            .one_of(&["Retain", "Delete"], errors);
    }
    for field in ["replicas", "minReadySeconds", "ordinals.start"] {
        spec.of(field).not_negative(errors);
    }
    let rules = workload::Rules { empty: "statefulset", deadline: "StatefulSet", required: true };
    workload::selected_template(&spec, &rules, errors);
    spec.of("revisionHistoryLimit").not_negative(errors);
}

/// Older servers took any name and any claims, and what they took may still be changed.
fn validate_new_stateful(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    spec.of("serviceName").name_if(name::dns_label, errors);
    for claim in spec.each("volumeClaimTemplates") {
        claim_rules::claim_spec(&claim.of("spec"), errors);
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
    let spec = At::root(o).of("spec");
    let rules = workload::Rules { empty: "daemonset", deadline: "DaemonSet", required: false };
    workload::selected_template(&spec, &rules, errors);
    spec.of("minReadySeconds").not_negative(errors);
    let strategy = spec.of("updateStrategy");
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = strategy.of("rollingUpdate");
            let (unavailable, surge) = (rolling.of("maxUnavailable"), rolling.of("maxSurge"));
            for amount in [&unavailable, &surge] {
                amount.amount(errors);
            }
            for amount in [&unavailable, &surge] {
                amount.at_most_all(errors);
            }
            match (unavailable.amount_value() != 0, surge.amount_value() != 0) {
                (true, true) => surge.invalid("may not be set when maxUnavailable is non-zero", errors),
                (false, false) => {
                    errors.required(unavailable.path.as_str(), "cannot be 0 when maxSurge is 0");
                }
                _ => {}
            }
        }
        other => errors.not_supported_value(
            strategy.path.as_str(),
            &json!({"Type": other, "RollingUpdate": null}),
            &["RollingUpdate", "OnDelete"],
        ),
    }
    spec.of("revisionHistoryLimit").not_negative(errors);
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
