//! Lease: who leads, who lives (kubernetes: pkg/apis/coordination/validation/validation.go).

use serde_json::Value;
use signal::Timestamp;

use super::check::At;
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
    let spec = At::root(o).of("spec");
    spec.of("leaseDurationSeconds").at_least(1, "must be greater than 0", errors);
    spec.of("leaseTransitions").not_negative(errors);
    let strategy = spec.of("strategy");
    if strategy.given() {
        // The path is upstream's.
        let at = strategy.of("strategy").path;
        if strategy.str().contains('/') {
            strategy.clone().renamed(at).name(apimachinery::name::qualified_name, errors);
        } else {
            strategy.clone().renamed(at).one_of(&["OldestEmulationVersion"], errors);
        }
    }
    if !spec.text("preferredHolder").is_empty() && strategy.str().is_empty() {
        spec.of("preferredHolder").forbidden("may only be specified if `strategy` is defined", errors);
    }
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        object::name(o).into(),
        object::text(o, "spec.holderIdentity").unwrap_or_default().into(),
        table::age(o, now),
    ]
}
