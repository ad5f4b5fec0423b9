//! PersistentVolume, PersistentVolumeClaim, StorageClass: what pods keep, and where it may come from.

use serde_json::{Value, json};
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column, volume, wide};
use crate::validation::Errors;
use crate::{object, table};

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

pub(crate) static VOLUME: Kind = Kind {
    resource: "persistentvolumes",
    singular: "persistentvolume",
    kind: "PersistentVolume",
    short: &["pv"],
    namespaced: false,
    status: true,
    default: default_volume,
    prepare_create: |o| {
        o["status"] = json!({"phase": "Pending"});
        hold(o, "kubernetes.io/pv-protection");
    },
    validate: validate_volume,
    columns: &[
        NAME,
        column("Capacity"),
        column("Access Modes"),
        column("Reclaim Policy"),
        column("Status"),
        column("Claim"),
        column("StorageClass"),
        column("VolumeAttributesClass"),
        column("Reason"),
        AGE,
        wide("VolumeMode"),
    ],
    row: volume_row,
    ..BASE
};

pub(crate) static CLAIM: Kind = Kind {
    resource: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    kind: "PersistentVolumeClaim",
    short: &["pvc"],
    status: true,
    default: default_claim,
    prepare_create: |o| {
        o["status"] = json!({"phase": "Pending"});
        hold(o, "kubernetes.io/pvc-protection");
    },
    validate: validate_claim,
    validate_update: claim_stays,
    columns: &[
        NAME,
        column("Status"),
        column("Volume"),
        column("Capacity"),
        column("Access Modes"),
        column("StorageClass"),
        column("VolumeAttributesClass"),
        AGE,
        wide("VolumeMode"),
    ],
    row: claim_row,
    ..BASE
};

pub(crate) static CLASS: Kind = Kind {
    group: "storage.k8s.io",
    resource: "storageclasses",
    singular: "storageclass",
    kind: "StorageClass",
    short: &["sc"],
    namespaced: false,
    default: |o| {
        object::default(o, "reclaimPolicy", "Delete");
        object::default(o, "volumeBindingMode", "Immediate");
    },
    validate: validate_class,
    validate_update: class_stays,
    columns: &[
        NAME,
        column("Provisioner"),
        column("ReclaimPolicy"),
        column("VolumeBindingMode"),
        column("AllowVolumeExpansion"),
        AGE,
    ],
    row: class_row,
    ..BASE
};

/// What is in use is not deleted (kubernetes: plugin/pkg/admission/storage/storageobjectinuseprotection).
fn hold(o: &mut Value, finalizer: &str) {
    let there = object::list(o, "metadata.finalizers");
    if !there.iter().any(|f| f == finalizer) {
        let mut all = there.to_vec();
        all.push(finalizer.into());
        object::metadata(o).insert("finalizers".to_owned(), all.into());
    }
}

/// True for the class that claims without one get.
pub(crate) fn is_default_class(o: &Value) -> bool {
    let annotations = object::get(o, "metadata.annotations");
    DEFAULT_CLASS.iter().any(|a| annotations.and_then(|m| m.get(*a)).is_some_and(|v| v == "true"))
}

fn default_volume(o: &mut Value) {
    let spec = object::child(o, "spec");
    object::default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    object::default(spec, "volumeMode", "Filesystem");
    volume::default_source(spec);
}

pub(super) fn default_claim(o: &mut Value) {
    let spec = object::child(o, "spec");
    object::default(spec, "volumeMode", "Filesystem");
}

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn validate_modes(o: &Value, errors: &mut Errors) {
    let modes = object::list(o, "spec.accessModes");
    if modes.is_empty() {
        errors.required("spec.accessModes", "at least 1 access mode is required");
    }
    for (i, m) in modes.iter().filter_map(Value::as_str).enumerate() {
        if !MODES.contains(&m) {
            errors.not_supported(format!("spec.accessModes[{i}]"), m, &MODES);
        }
    }
    if let Some(m) = object::text(o, "spec.volumeMode").filter(|m| !matches!(*m, "Block" | "Filesystem")) {
        errors.not_supported("spec.volumeMode", m, &["Block", "Filesystem"]);
    }
}

fn validate_volume(o: &Value, errors: &mut Errors) {
    validate_modes(o, errors);
    if object::get(o, "spec.capacity").and_then(|c| c.get("storage")).is_none() {
        errors.required("spec.capacity", "");
    }
    match object::text(o, "spec.persistentVolumeReclaimPolicy") {
        Some("Delete" | "Recycle" | "Retain") | None => {}
        Some(other) => errors.not_supported(
            "spec.persistentVolumeReclaimPolicy",
            other,
            &["Delete", "Recycle", "Retain"],
        ),
    }
    const SOURCES: [&str; 21] = [
        "awsElasticBlockStore",
        "azureDisk",
        "azureFile",
        "cephfs",
        "cinder",
        "csi",
        "fc",
        "flexVolume",
        "flocker",
        "gcePersistentDisk",
        "glusterfs",
        "hostPath",
        "iscsi",
        "local",
        "nfs",
        "photonPersistentDisk",
        "portworxVolume",
        "quobyte",
        "rbd",
        "scaleIO",
        "vsphereVolume",
    ];
    if !SOURCES.iter().any(|s| object::get(o, &format!("spec.{s}")).is_some()) {
        errors.required("spec", "must specify a volume type");
    }
    if object::get(o, "spec.local").is_some() && object::get(o, "spec.nodeAffinity").is_none() {
        errors.required("spec.nodeAffinity", "Local volume requires node affinity");
    }
}

fn validate_claim(o: &Value, errors: &mut Errors) {
    validate_modes(o, errors);
    if object::get(o, "spec.resources.requests").and_then(|r| r.get("storage")).is_none() {
        errors.required("spec.resources[storage]", "");
    }
}

/// A claim may grow and be bound; nothing else changes.
fn claim_stays(new: &Value, old: &Value, errors: &mut Errors) {
    let rest = |o: &Value| {
        let mut spec = o["spec"].clone();
        drop(object::remove(&mut spec, "volumeAttributesClassName"));
        if object::text(old, "spec.volumeName").is_none_or(str::is_empty) {
            drop(object::remove(&mut spec, "volumeName"));
        }
        if object::text(old, "spec.storageClassName").is_none() {
            drop(object::remove(&mut spec, "storageClassName"));
        }
        if let Some(r) = spec.get_mut("resources") {
            drop(object::remove(r, "requests"));
        }
        spec
    };
    if rest(new) != rest(old) {
        errors.forbidden("spec", "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims");
    }
    let size = |o: &Value| -> Option<apimachinery::quantity::Quantity> {
        object::get(o, "spec.resources.requests")?.get("storage")?.as_str()?.parse().ok()
    };
    if let (Some(a), Some(b)) = (size(new), size(old))
        && a < b
    {
        errors.forbidden("spec.resources.requests.storage", "field can not be less than previous value");
    }
}

fn validate_class(o: &Value, errors: &mut Errors) {
    if object::text(o, "provisioner").is_none_or(str::is_empty) {
        errors.required("provisioner", "");
    }
    match object::text(o, "reclaimPolicy") {
        Some("Delete" | "Retain") | None => {}
        Some(other) => errors.not_supported("reclaimPolicy", other, &["Delete", "Retain"]),
    }
    match object::text(o, "volumeBindingMode") {
        Some("Immediate" | "WaitForFirstConsumer") | None => {}
        Some(other) => {
            errors.not_supported("volumeBindingMode", other, &["Immediate", "WaitForFirstConsumer"]);
        }
    }
}

fn class_stays(new: &Value, old: &Value, errors: &mut Errors) {
    if new.get("parameters") != old.get("parameters") {
        errors.forbidden("parameters", "updates to parameters are forbidden.");
    }
    if new.get("provisioner") != old.get("provisioner") {
        errors.forbidden("provisioner", "updates to provisioner are forbidden.");
    }
    if new.get("reclaimPolicy") != old.get("reclaimPolicy") {
        errors.forbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden.");
    }
    errors.immutable("volumeBindingMode", new.get("volumeBindingMode"), old.get("volumeBindingMode"));
}

/// `RWO,ROX`, as printers shorten modes.
fn modes(o: &Value, path: &str) -> Value {
    let short = |m: &str| match m {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    let has: Vec<&str> = object::list(o, path).iter().filter_map(Value::as_str).collect();
    let order = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];
    order.iter().filter(|m| has.contains(m)).map(|m| short(m)).collect::<Vec<_>>().join(",").into()
}

fn capacity(o: &Value, path: &str) -> Value {
    object::get(o, path).and_then(|c| c.get("storage")).cloned().unwrap_or_else(|| "".into())
}

fn text(o: &Value, path: &str) -> Value {
    object::text(o, path).unwrap_or_default().into()
}

fn unset(o: &Value, path: &str) -> Value {
    object::text(o, path).unwrap_or("<unset>").into()
}

fn deleting_or(o: &Value, phase: &str) -> Value {
    if object::is_deleting(o) { "Terminating".into() } else { phase.into() }
}

fn volume_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let claim = match object::get(o, "spec.claimRef") {
        Some(c) => {
            let of = |k: &str| c[k].as_str().unwrap_or_default();
            format!("{}/{}", of("namespace"), of("name"))
        }
        None => String::new(),
    };
    vec![
        object::name(o).into(),
        capacity(o, "spec.capacity"),
        modes(o, "spec.accessModes"),
        text(o, "spec.persistentVolumeReclaimPolicy"),
        deleting_or(o, object::text(o, "status.phase").unwrap_or_default()),
        claim.into(),
        text(o, "spec.storageClassName"),
        unset(o, "spec.volumeAttributesClassName"),
        text(o, "status.reason"),
        table::age(o, now),
        unset(o, "spec.volumeMode"),
    ]
}

fn claim_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let bound = object::text(o, "spec.volumeName").is_some_and(|v| !v.is_empty());
    let when = |v: Value| if bound { v } else { "".into() };
    vec![
        object::name(o).into(),
        deleting_or(o, object::text(o, "status.phase").unwrap_or_default()),
        text(o, "spec.volumeName"),
        when(capacity(o, "status.capacity")),
        when(modes(o, "status.accessModes")),
        text(o, "spec.storageClassName"),
        unset(o, "spec.volumeAttributesClassName"),
        table::age(o, now),
        unset(o, "spec.volumeMode"),
    ]
}

fn class_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let default = if is_default_class(o) { " (default)" } else { "" };
    vec![
        format!("{}{default}", object::name(o)).into(),
        text(o, "provisioner"),
        text(o, "reclaimPolicy"),
        text(o, "volumeBindingMode"),
        object::flag(o, "allowVolumeExpansion").to_string().into(),
        table::age(o, now),
    ]
}
