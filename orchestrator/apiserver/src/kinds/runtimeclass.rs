//! RuntimeClass: how a pod's containers are run (kubernetes: pkg/apis/node).

use serde_json::Value;
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static KIND: Kind = Kind {
    group: "node.k8s.io",
    resource: "runtimeclasses",
    singular: "runtimeclass",
    kind: "RuntimeClass",
    namespaced: false,
    validate,
    validate_update: |new, old, errors| errors.immutable("handler", new.get("handler"), old.get("handler")),
    columns: &[NAME, column("Handler"), AGE],
    row: |o, now: Timestamp| {
        vec![object::name(o).into(), table::or_none(object::text(o, "handler")), table::age(o, now)]
    },
    ..BASE
};

fn validate(o: &Value, errors: &mut Errors) {
    let handler = object::text(o, "handler").unwrap_or_default();
    if let Err(e) = apimachinery::name::dns_label(handler) {
        errors.invalid("handler", handler, &e);
    }
}
