//! PriorityClass: which pods matter more.

use serde_json::Value;
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column};
use crate::validation::Errors;
use crate::{object, table};

/// Above this only the system's own classes are.
const HIGHEST_USER: i64 = 1_000_000_000;

pub(crate) static PRIORITY_CLASS: Kind = Kind {
    group: "scheduling.k8s.io",
    resource: "priorityclasses",
    singular: "priorityclass",
    kind: "PriorityClass",
    short: &["pc"],
    namespaced: false,
    generation: true,
    default: |o| object::default_text(o, "preemptionPolicy", "PreemptLowerPriority"),
    validate: validate_priority,
    validate_update: |new, old, errors| {
        if new.get("value") != old.get("value") {
            errors.forbidden("value", "may not be changed in an update.");
        }
        errors.immutable("preemptionPolicy", new.get("preemptionPolicy"), old.get("preemptionPolicy"));
    },
    columns: &[NAME, column("Value"), column("Global-Default"), AGE, column("PreemptionPolicy")],
    row: priority_row,
    ..BASE
};

fn validate_priority(o: &Value, errors: &mut Errors) {
    let name = object::name(o);
    let value = object::int(o, "value").unwrap_or(0);
    let system = matches!(name, "system-cluster-critical" | "system-node-critical");
    if name.starts_with("system-") && !system {
        errors.forbidden(
            "metadata.name",
            "priority class names with 'system-' prefix are reserved for system use only",
        );
    }
    if value > HIGHEST_USER && !system {
        errors.forbidden("value", "maximum allowed value of a user defined priority is 1000000000");
    }
    match object::text(o, "preemptionPolicy") {
        Some("Never" | "PreemptLowerPriority") | None => {}
        Some(other) => {
            errors.not_supported("preemptionPolicy", other, &["Never", "PreemptLowerPriority"]);
        }
    }
}

fn priority_row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        object::name(o).into(),
        object::int(o, "value").unwrap_or(0).to_string().into(),
        object::flag(o, "globalDefault").to_string().into(),
        table::age(o, now),
        object::text(o, "preemptionPolicy").unwrap_or_default().into(),
    ]
}
