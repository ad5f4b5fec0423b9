//! Namespace: the room of names. Its deletion waits for `spec.finalizers` to empty.

use serde_json::{Value, json};
use signal::Timestamp;

use super::check::At;
use super::{AGE, BASE, Kind, NAME, column};
use crate::{object, table};

pub(crate) static KIND: Kind = Kind {
    resource: "namespaces",
    singular: "namespace",
    kind: "Namespace",
    short: &["ns"],
    namespaced: false,
    status: true,
    status_metadata: true,
    name_rule: apimachinery::name::dns_label,
    prepare_create,
    prepare_update,
    default,
    validate: |o, errors| {
        for f in At::root(o).each("spec.finalizers") {
            let f = f.renamed("spec.finalizers");
            f.name(apimachinery::name::qualified_name, errors);
            if !f.str().contains('/') && !matches!(f.str(), "kubernetes" | "orphan" | "foregroundDeletion") {
                let detail = "name is neither a standard finalizer name nor is it fully qualified";
                f.invalid(detail, errors);
            }
        }
    },
    fields: &["status.phase"],
    columns: &[NAME, column("Status"), AGE],
    row,
    validate_status: super::status::namespace,
    ..BASE
};

/// Upstream labels each namespace with its name, so that selectors can name one.
fn default(o: &mut Value) {
    let name = object::name(o).to_owned();
    if !name.is_empty() {
        let meta = object::child(o, "metadata");
        object::child(meta, "labels")["kubernetes.io/metadata.name"] = name.into();
    }
}

fn prepare_create(o: &mut Value) {
    let spec = object::child(o, "spec");
    let finalizers = spec.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    if !finalizers.iter().any(|f| f == "kubernetes") {
        let mut all = finalizers;
        all.push("kubernetes".into());
        spec["finalizers"] = all.into();
    }
    o["status"] = json!({"phase": "Active"});
}

fn prepare_update(new: &mut Value, old: &Value) {
    // Finalizers change only through /finalize.
    match old.get("spec") {
        Some(s) => new["spec"] = s.clone(),
        None => drop(object::remove(new, "spec")),
    }
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), table::or_none(object::text(o, "status.phase")), table::age(o, now)]
}
