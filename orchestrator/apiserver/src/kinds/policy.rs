//! PodDisruptionBudget: how many pods may be away on purpose.

use serde_json::{Value, json};
use signal::Timestamp;

use super::check::At;
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
    validate_status: super::status::budget,
    ..BASE
};

fn validate(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    let (min, max) = (spec.of("minAvailable"), spec.of("maxUnavailable"));
    if min.given() && max.given() {
        spec.invalid("minAvailable and maxUnavailable cannot be both set", errors);
    }
    for amount in [min, max] {
        amount.amount(errors);
        amount.at_most_all(errors);
    }
    spec.of("selector").selector(errors);
    spec.of("unhealthyPodEvictionPolicy").one_of(&["AlwaysAllow", "IfHealthyBudget"], errors);
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
