//! Lease: who leads, who lives.

use serde_json::Value;
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static LEASE: Kind = Kind {
    group: "coordination.k8s.io",
    resource: "leases",
    singular: "lease",
    kind: "Lease",
    validate,
    columns: &[NAME, column("Holder"), AGE],
    row,
    ..BASE
};

fn validate(o: &Value, errors: &mut Errors) {
    for field in ["leaseDurationSeconds", "leaseTransitions"] {
        if let Some(v) = object::int(o, &format!("spec.{field}")) {
            let least = i64::from(field == "leaseDurationSeconds");
            if v < least {
                let detail =
                    if least == 1 { "must be greater than 0" } else { "must be greater than or equal to 0" };
                errors.invalid(format!("spec.{field}"), v, detail);
            }
        }
    }
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        object::name(o).into(),
        object::text(o, "spec.holderIdentity").unwrap_or_default().into(),
        table::age(o, now),
    ]
}
