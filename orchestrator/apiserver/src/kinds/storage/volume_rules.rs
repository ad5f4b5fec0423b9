//! What a PersistentVolume must be, and what of it stays
//! (kubernetes: pkg/apis/core/validation/validation.go ValidatePersistentVolumeSpec).

use apimachinery::name;
use serde_json::Value;

use super::super::check::At;
use super::super::{differ, pod_parts};
use super::claim_rules::access_modes;
use crate::object;
use crate::validation::Errors;

/// The sources in the order upstream looks at them.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

pub(super) fn spec(spec: &At<'_>, errors: &mut Errors) {
    if spec.len("accessModes") == 0 {
        errors.required(spec.of("accessModes").path, "");
    }
    access_modes(spec, errors);
    let capacity = spec.of("capacity");
    if spec.len("capacity") == 0 {
        errors.required(capacity.path.as_str(), "");
    }
    if !capacity.of("storage").given() || spec.len("capacity") > 1 {
        errors.not_supported_value(capacity.path.as_str(), capacity.v, &["storage"]);
    }
    for (_, amount) in spec.entries("capacity") {
        amount.quantity_positive(errors);
    }
    spec.of("persistentVolumeReclaimPolicy").one_of(&["Delete", "Recycle", "Retain"], errors);
    let affinity = spec.of("nodeAffinity");
    if affinity.given() {
        match affinity.get("required") {
            Some(required) => pod_parts::node_selector(required.v, &required.path, errors),
            None => errors.required(affinity.of("required").path, "must specify required node constraints"),
        }
    }
    sources(spec, errors);
    if spec.text("hostPath.path").trim_end_matches('/').is_empty()
        && spec.of("hostPath").given()
        && spec.text("persistentVolumeReclaimPolicy") == "Recycle"
    {
        let at = spec.of("persistentVolumeReclaimPolicy");
        at.forbidden("may not be 'recycle' for a hostPath mount of '/'", errors);
    }
    spec.of("storageClassName").name_if(name::dns_subdomain, errors);
    spec.of("volumeMode").one_of(&["Block", "Filesystem"], errors);
    if let Some(class) = spec.get("volumeAttributesClassName") {
        if class.required_for("an empty string is disallowed", errors) {
            class.name(name::dns_subdomain, errors);
        }
        if !spec.of("csi").given() {
            let detail = "has to be specified when using volumeAttributesClassName";
            errors.required(spec.of("csi").path, detail);
        }
    }
}

/// Exactly one source, and it whole.
fn sources(spec: &At<'_>, errors: &mut Errors) {
    let mut found = false;
    for name in SOURCES {
        let Some(source) = spec.get(name) else { continue };
        if found {
            source.forbidden("may not specify more than 1 volume type", errors);
            continue;
        }
        found = true;
        match name {
            "csi" => csi(&source, errors),
            // Upstream's path, which is not the field's.
            "gcePersistentDisk" => {
                pod_parts::source(name, &source.renamed(format!("{}.persistentDisk", spec.path)), errors);
            }
            _ => pod_parts::source(name, &source, errors),
        }
        if name == "local" && !spec.of("nodeAffinity.required").given() {
            errors.required(spec.of("nodeAffinity").path, "Local volume requires node affinity");
        }
    }
    if !found {
        errors.required(spec.path.as_str(), "must specify a volume type");
    }
}

fn csi(source: &At<'_>, errors: &mut Errors) {
    pod_parts::driver_name(&source.of("driver"), errors);
    source.of("volumeHandle").required(errors);
    for secret in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
        "nodeStageSecretRef",
    ] {
        if let Some(secret) = source.get(secret) {
            secret.of("name").must_be_name(name::dns_subdomain, errors);
            secret.of("namespace").must_be_name(name::dns_label, errors);
        }
    }
}

/// Where a volume lies stays.
pub(super) fn stays(new: &Value, old: &Value, errors: &mut Errors) {
    let source = |o: &Value| {
        let mut all = serde_json::Map::new();
        SOURCES.iter().for_each(|name| object::copy(&mut all, &o["spec"], name));
        Value::Object(all)
    };
    let (was, mut is) = (source(old), source(new));
    if let Some(csi) =
        is.get_mut("csi").filter(|_| object::get(&was, "csi.controllerExpandSecretRef").is_none())
    {
        drop(object::remove(csi, "controllerExpandSecretRef"));
    }
    if was != is {
        let diff = differ::text("core.PersistentVolumeSource", &was, &is);
        let detail = format!("spec.persistentvolumesource is immutable after creation\n{diff}");
        errors.forbidden("spec.persistentvolumesource", &detail);
    }
    let (was, is) = (At::root(old).of("spec"), At::root(new).of("spec"));
    is.of("volumeMode").renamed("volumeMode").immutable(&was.of("volumeMode"), errors);
    let affinity = is.of("nodeAffinity");
    if was.of("nodeAffinity").given() && affinity.v != was.of("nodeAffinity").v {
        let detail = "field is immutable, except for updating from beta label to GA";
        errors.invalid("nodeAffinity", affinity.v, detail);
    }
    let class = is.of("volumeAttributesClassName");
    if was.of("volumeAttributesClassName").given() && !class.given() {
        class.forbidden("update from non-nil value to nil is forbidden", errors);
    }
}
