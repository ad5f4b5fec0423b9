//! resource.k8s.io: what devices there are and who claims them. Kept as objects; nothing allocates them yet.

mod rules;

use serde_json::Value;
use signal::Timestamp;

use super::check::At;
use super::{AGE, BASE, Kind, NAME, column};
use crate::{object, table};

const RESOURCE: Kind = Kind { group: "resource.k8s.io", generation: true, ..BASE };

pub(crate) static CLASS: Kind = Kind {
    resource: "deviceclasses",
    singular: "deviceclass",
    kind: "DeviceClass",
    namespaced: false,
    validate: rules::class,
    ..RESOURCE
};

pub(crate) static CLAIM: Kind = Kind {
    resource: "resourceclaims",
    singular: "resourceclaim",
    kind: "ResourceClaim",
    generation: false,
    status: true,
    default: default_requests,
    validate_create: |o, errors| rules::claim(&At::root(o).of("spec"), errors),
    validate_update: |new, old, errors| {
        errors.immutable("spec", new.get("spec"), old.get("spec"));
    },
    validate_status: rules::claim_status,
    columns: &[NAME, column("State"), AGE],
    row: |o: &Value, now: Timestamp| vec![object::name(o).into(), state(o).into(), table::age(o, now)],
    ..RESOURCE
};

pub(crate) static TEMPLATE: Kind = Kind {
    resource: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
    kind: "ResourceClaimTemplate",
    generation: false,
    default: |o| {
        let spec = object::child(o, "spec");
        object::child(spec, "metadata");
        default_requests(spec);
    },
    validate_create: |o, errors| {
        let spec = At::root(o).of("spec");
        spec.of("metadata.labels").labels(errors);
        spec.of("metadata.annotations").annotations(errors);
        rules::claim(&spec.of("spec"), errors);
    },
    validate_update: |new, old, errors| {
        errors.immutable("spec", new.get("spec"), old.get("spec"));
    },
    ..RESOURCE
};

pub(crate) static SLICE: Kind = Kind {
    resource: "resourceslices",
    singular: "resourceslice",
    kind: "ResourceSlice",
    namespaced: false,
    validate: rules::slice,
    validate_update: rules::slice_stays,
    fields: &["spec.driver", "spec.nodeName"],
    columns: &[NAME, column("Node"), column("Driver"), column("Pool"), AGE],
    row: |o: &Value, now: Timestamp| {
        let text = |p: &str| object::text(o, p).unwrap_or_default().into();
        vec![
            object::name(o).into(),
            text("spec.nodeName"),
            text("spec.driver"),
            text("spec.pool.name"),
            table::age(o, now),
        ]
    },
    ..RESOURCE
};

/// One device of each class, unless more or all are asked for (kubernetes: pkg/apis/resource/v1/defaults.go).
fn default_requests(o: &mut Value) {
    let exact = |r: &mut Value| {
        object::default_text(r, "allocationMode", "ExactCount");
        if object::text(r, "allocationMode") == Some("ExactCount") {
            object::default(r, "count", 1);
        }
    };
    for request in object::list_mut(o, "spec.devices.requests") {
        if let Some(r) = request.get_mut("exactly").filter(|r| r.is_object()) {
            exact(r);
        }
        object::list_mut(request, "firstAvailable").iter_mut().for_each(exact);
    }
}

/// `pending`, or what has become of it (kubernetes: pkg/printers/internalversion/printers.go).
fn state(o: &Value) -> String {
    let mut all = Vec::new();
    if object::is_deleting(o) {
        all.push("deleted");
    }
    if object::get(o, "status.allocation").is_some() {
        all.push("allocated");
    }
    if !object::list(o, "status.reservedFor").is_empty() {
        all.push("reserved");
    }
    if all.is_empty() { "pending".to_owned() } else { all.join(",") }
}
