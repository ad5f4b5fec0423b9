//! CustomResourceDefinition: a kind made by an object (apiextensions.k8s.io/v1).

use serde_json::{Value, json};
use signal::Timestamp;

use super::{Column, Kind, NAME};
use crate::custom::check;
use crate::object;

/// Holds a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

pub(crate) static DEFINITION: Kind = Kind {
    group: "apiextensions.k8s.io",
    resource: "customresourcedefinitions",
    singular: "customresourcedefinition",
    kind: "CustomResourceDefinition",
    short: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    generation: true,
    status: true,
    default,
    prepare_create,
    prepare_update: |new, _| prepare_versions(new),
    validate: check::definition,
    validate_update: check::definition_update,
    columns: &[NAME, Column { name: "Created At", kind: "date", format: "", priority: 0 }],
    row: |o: &Value, _: Timestamp| {
        let created = object::text(o, "metadata.creationTimestamp").unwrap_or_default();
        vec![object::name(o).into(), created.into()]
    },
    ..super::BASE
};

fn default(o: &mut Value) {
    let spec = object::child(o, "spec");
    let names = object::child(spec, "names");
    if let Some(kind) = names["kind"].as_str().map(str::to_owned) {
        object::default_text(names, "singular", &kind.to_lowercase());
        object::default_text(names, "listKind", &format!("{kind}List"));
    }
    let conversion = object::child(spec, "conversion");
    object::default_text(conversion, "strategy", "None");
    if let Some(service) = conversion.get_mut("webhook").and_then(|w| w["clientConfig"].get_mut("service"))
        && service.is_object()
    {
        object::default(service, "port", 443);
    }
}

/// Nobody but the server says what a definition's status is.
fn prepare_create(o: &mut Value) {
    o["status"] =
        json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []});
    let finalizers = object::list(o, "metadata.finalizers");
    if !finalizers.iter().any(|f| f == CLEANUP) {
        let mut all = finalizers.to_vec();
        all.push(CLEANUP.into());
        object::metadata(o).insert("finalizers".to_owned(), all.into());
    }
    prepare_versions(o);
}

/// What is written in a version is remembered.
fn prepare_versions(o: &mut Value) {
    let storage = object::list(o, "spec.versions").iter().find(|v| v["storage"] == true);
    let Some(name) = storage.and_then(|v| v["name"].as_str()).map(str::to_owned) else { return };
    let status = object::child(o, "status");
    let stored = object::list(status, "storedVersions");
    if !stored.iter().any(|v| *v == *name) {
        let mut all = stored.to_vec();
        all.push(name.into());
        status["storedVersions"] = all.into();
    }
}
