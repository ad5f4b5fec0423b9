//! PodDisruptionBudget: how many pods may be away on purpose.

use serde_json::{Value, json};
use signal::Timestamp;

use super::apps::validate_int_or_percent;
use super::{AGE, BASE, Kind, NAME, column};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static PDB: Kind = Kind {
    group: "policy",
    resource: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    kind: "PodDisruptionBudget",
    short: &["pdb"],
    generation: true,
    status: true,
    prepare_create: |o| {
        o["status"] =
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
    },
    validate,
    columns: &[NAME, column("Min Available"), column("Max Unavailable"), column("Allowed Disruptions"), AGE],
    row,
    ..BASE
};

fn validate(o: &Value, errors: &mut Errors) {
    let (min, max) = (object::get(o, "spec.minAvailable"), object::get(o, "spec.maxUnavailable"));
    if min.is_some() && max.is_some() {
        errors.invalid(
            "spec",
            object::get(o, "spec").unwrap_or(&Value::Null),
            "minAvailable and maxUnavailable cannot be both set",
        );
    }
    for (field, v) in [("minAvailable", min), ("maxUnavailable", max)] {
        if let Some(v) = v {
            validate_int_or_percent(v, &format!("spec.{field}"), errors);
        }
    }
    if let Some(s) = object::get(o, "spec.selector")
        && let Err(e) = apimachinery::selector::Selector::from_json(Some(s))
    {
        errors.invalid("spec.selector", s, &e.to_string());
    }
    match object::text(o, "spec.unhealthyPodEvictionPolicy") {
        Some("AlwaysAllow" | "IfHealthyBudget") | None => {}
        Some(other) => errors.not_supported(
            "spec.unhealthyPodEvictionPolicy",
            other,
            &["AlwaysAllow", "IfHealthyBudget"],
        ),
    }
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    let amount = |path: &str| match object::get(o, path) {
        None => Value::from("N/A"),
        Some(Value::String(s)) => s.as_str().into(),
        Some(v) => v.to_string().into(),
    };
    vec![
        object::name(o).into(),
        amount("spec.minAvailable"),
        amount("spec.maxUnavailable"),
        object::int(o, "status.disruptionsAllowed").unwrap_or(0).to_string().into(),
        table::age(o, now),
    ]
}
