//! RuntimeClass: how a pod's containers are run (kubernetes: pkg/apis/node).

use serde_json::Value;
use signal::Timestamp;

use super::check::At;
use super::{AGE, BASE, Kind, NAME, column, pod_validation, resources};
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
    let o = At::root(o);
    o.of("handler").name(apimachinery::name::dns_label, errors);
    let overhead = o.of("overhead");
    for (name, amount) in overhead.entries("podFixed") {
        let amount = amount.renamed(format!("{}.limits[{name}]", overhead.path));
        resources::container_name(name, &amount, errors);
        resources::amount(name, &amount, errors);
    }
    let scheduling = o.of("scheduling");
    scheduling.of("nodeSelector").labels(errors);
    pod_validation::tolerations(&scheduling, errors);
}
