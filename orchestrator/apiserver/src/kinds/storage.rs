//! PersistentVolume, PersistentVolumeClaim, StorageClass: what pods keep, and where it may come from.

pub(super) mod claim_rules;
mod volume_rules;

use apimachinery::name;
use serde_json::{Value, json};
use signal::Timestamp;

use super::check::At;
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
    validate: |o, errors| volume_rules::spec(&At::root(o).of("spec"), errors),
    validate_update: volume_rules::stays,
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
        settle_sources(object::child(o, "spec"));
        hold(o, "kubernetes.io/pvc-protection");
    },
    validate: |o, errors| claim_rules::claim_spec(&At::root(o).of("spec"), errors),
    validate_update: claim_rules::stays,
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

/// A claim's two names of where its content comes from say the same
/// (kubernetes: pkg/api/persistentvolumeclaim/util.go).
fn settle_sources(spec: &mut Value) {
    if let Some(old) = object::get(spec, "dataSource") {
        let kind = (object::text(old, "kind"), object::text(old, "apiGroup").unwrap_or_default());
        let known = matches!(
            kind,
            (Some("PersistentVolumeClaim"), "") | (Some("VolumeSnapshot"), "snapshot.storage.k8s.io")
        );
        // Others may only be named by the newer field.
        if !known {
            drop(object::remove(spec, "dataSource"));
        }
    }
    match (object::get(spec, "dataSource").cloned(), object::get(spec, "dataSourceRef").cloned()) {
        (Some(old), None) => spec["dataSourceRef"] = old,
        (None, Some(new)) if object::text(&new, "namespace").is_none_or(str::is_empty) => {
            let mut old = new;
            drop(object::remove(&mut old, "namespace"));
            spec["dataSource"] = old;
        }
        _ => {}
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

fn validate_class(o: &Value, errors: &mut Errors) {
    let o = At::root(o);
    let provisioner = o.of("provisioner");
    if provisioner.required(errors)
        && let Err(why) = name::qualified_name(&provisioner.str().to_lowercase())
    {
        errors.invalid("provisioner", provisioner.str(), &why);
    }
    let parameters = o.of("parameters");
    if o.len("parameters") > PARAMETERS {
        errors.too_long("provisioner", PARAMETERS as u64);
    } else if o.len("parameters") > 0 {
        parameter_sizes(&parameters, errors);
    }
    let policy = o.of("reclaimPolicy");
    policy.one_of(&["Delete", "Retain"], errors);
    if !o.of("volumeBindingMode").given() {
        errors.required("volumeBindingMode", "");
    }
    o.of("volumeBindingMode").one_of(&["Immediate", "WaitForFirstConsumer"], errors);
    allowed_topologies(&o.of("allowedTopologies"), errors);
}

/// Entries, and bytes of all of them, that a class may hand its driver.
const PARAMETERS: usize = 512;
const PARAMETERS_SIZE: usize = 256 << 10;

pub(super) fn parameter_sizes(parameters: &At<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (k, v) in parameters.v.as_object().into_iter().flatten() {
        if k.is_empty() {
            errors.invalid(parameters.path.as_str(), k.as_str(), "field can not be empty.");
        }
        size += k.len() + v.as_str().map_or(0, str::len);
    }
    if size > PARAMETERS_SIZE {
        errors.too_long(parameters.path.as_str(), PARAMETERS_SIZE as u64);
    }
}

fn allowed_topologies(all: &At<'_>, errors: &mut Errors) {
    let mut terms: Vec<&Value> = Vec::new();
    for term in all.clone().items() {
        let expressions = term.of("matchLabelExpressions");
        let mut keys: Vec<&str> = Vec::new();
        for e in expressions.clone().items() {
            let values = e.of("values");
            if e.len("values") == 0 {
                errors.required(values.path.as_str(), "");
            }
            let mut seen: Vec<&str> = Vec::new();
            for v in values.items() {
                if seen.contains(&v.str()) {
                    errors.duplicate(v.path.as_str(), v.str());
                }
                seen.push(v.str());
            }
            let key = e.of("key");
            key.name(name::qualified_name, errors);
            if keys.contains(&key.str()) {
                errors.duplicate(key.path.as_str(), key.str());
            }
            keys.push(key.str());
        }
        if terms.contains(&expressions.v) {
            errors.duplicate(expressions.path.as_str(), "");
        }
        terms.push(expressions.v);
    }
}

fn class_stays(new: &Value, old: &Value, errors: &mut Errors) {
    let (new, old) = (At::root(new), At::root(old));
    for field in ["parameters", "provisioner", "reclaimPolicy"] {
        let at = new.of(field);
        if at.v != old.of(field).v {
            at.forbidden(&format!("updates to {field} are forbidden."), errors);
        }
    }
    new.of("volumeBindingMode").immutable(&old.of("volumeBindingMode"), errors);
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
