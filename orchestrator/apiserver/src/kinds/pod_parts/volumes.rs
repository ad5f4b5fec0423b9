//! Sources of volumes, of pods and of PersistentVolumes.

use std::collections::HashSet;

use apimachinery::name;
use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::super::check::At;
use super::super::storage::claim_rules;
use super::{IN_FILES, descending, field_ref, no_backsteps, one_of, required, resource_ref, text};
use crate::object;
use crate::validation::Errors;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const SECOND: &str = "may not specify more than 1 volume type";

/// The sources a pod's volume may have, in the order upstream looks at them.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "storageos",
    "photonPersistentDisk",
    "projected",
    "scaleIO",
    "portworxVolume",
    "csi",
    "ephemeral",
    "image",
];

/// Texts that a source must have.
fn needs(source: &str) -> &'static [&'static str] {
    match source {
        "hostPath" | "local" => &["path"],
        "gitRepo" => &["repository"],
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" | "cinder" | "portworxVolume" => &["volumeID"],
        "secret" => &["secretName"],
        "configMap" => &["name"],
        "nfs" => &["server", "path"],
        "iscsi" => &["targetPortal", "iqn"],
        "glusterfs" => &["endpoints", "path"],
        "persistentVolumeClaim" => &["claimName"],
        "rbd" => &["image"],
        "flexVolume" => &["driver"],
        "azureFile" => &["secretName", "shareName"],
        "vsphereVolume" => &["volumePath"],
        "quobyte" => &["registry", "volume"],
        "azureDisk" => &["diskName", "diskURI"],
        "storageos" => &["volumeName"],
        "photonPersistentDisk" => &["pdID"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        _ => &[],
    }
}

/// What a volume of a pod says: exactly one source.
pub(in crate::kinds) fn volume(v: &At<'_>, errors: &mut Errors) {
    let mut found = false;
    for name in SOURCES {
        let Some(at) = v.get(name) else { continue };
        if found {
            at.forbidden(SECOND, errors);
        } else {
            source(name, &at, errors);
        }
        found = true;
    }
    if !found {
        errors.required(v.path.as_str(), "must specify a volume type");
    }
}

/// One source.
pub(in crate::kinds) fn source(name: &str, s: &At<'_>, errors: &mut Errors) {
    if matches!(name, "rbd" | "cephfs") && s.len("monitors") == 0 {
        errors.required(s.of("monitors").path, "");
    }
    for field in needs(name) {
        s.of(field).required(errors);
    }
    match name {
        "emptyDir" if s.of("sizeLimit").quantity().is_some_and(|limit| limit < Quantity::ZERO) => {
            let detail = "SizeLimit field must be a valid resource quantity";
            s.of("sizeLimit").forbidden(detail, errors);
        }
        "hostPath" => host_path(s, errors),
        "local" => no_backsteps(s.text("path"), &format!("{}.path", s.path), errors),
        "configMap" | "secret" => {
            mode(&s.of("defaultMode"), errors);
            items(s, errors);
        }
        "downwardAPI" => {
            mode(&s.of("defaultMode"), errors);
            downward(s.v, &s.path, errors);
        }
        "nfs" if !s.text("path").starts_with('/') => {
            errors.invalid(format!("{}.path", s.path), s.text("path"), "must be an absolute path");
        }
        "iscsi" => {
            s.of("lun").between(0, 255, errors);
            let iqn = s.text("iqn");
            if !iqn.is_empty() && !["iqn", "eui", "naa"].iter().any(|p| iqn.starts_with(p)) {
                s.of("iqn").invalid("must be valid format starting with iqn, eui, or naa", errors);
            }
        }
        "gcePersistentDisk" | "awsElasticBlockStore" => s.of("partition").between(0, 255, errors),
        "fc" => fibre_channel(s, errors),
        "azureDisk" => {
            s.of("cachingMode").one_of(&["None", "ReadOnly", "ReadWrite"], errors);
            s.of("kind").one_of(&["Dedicated", "Managed", "Shared"], errors);
        }
        "csi" => {
            driver_name(&s.of("driver"), errors);
            if let Some(secret) = s.get("nodePublishSecretRef") {
                secret.of("name").required(errors);
            }
        }
        "ephemeral" => match s.get("volumeClaimTemplate") {
            None => errors.required(s.of("volumeClaimTemplate").path, ""),
            Some(template) => {
                template.of("metadata.annotations").annotations(errors);
                template.of("metadata.labels").labels(errors);
                claim_rules::claim_spec(&template.of("spec"), errors);
            }
        },
        "image" => {
            s.of("reference").required(errors);
            s.of("pullPolicy").one_of(&["Always", "IfNotPresent", "Never"], errors);
        }
        "projected" => projected(s, errors),
        _ => {}
    }
}

fn host_path(s: &At<'_>, errors: &mut Errors) {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if !s.text("path").is_empty() {
        no_backsteps(s.text("path"), &format!("{}.path", s.path), errors);
        one_of(s.v, &s.path, "type", &TYPES, errors);
    }
}

fn fibre_channel(s: &At<'_>, errors: &mut Errors) {
    let (names, ids) = (s.of("targetWWNs"), s.len("wwids"));
    match (s.len("targetWWNs"), ids) {
        (0, 0) => {
            let detail = "must specify either targetWWNs or wwids, but not both";
            errors.required(names.path.as_str(), detail);
        }
        (1.., 1..) => {
            names.invalid("targetWWNs and wwids can not be specified simultaneously", errors);
        }
        _ => {}
    }
    if s.len("targetWWNs") > 0 {
        if !s.of("lun").given() {
            errors.required(s.of("lun").path, "lun is required if targetWWNs is specified");
        }
        s.of("lun").between(0, 255, errors);
    }
}

/// The name of a storage driver.
pub(in crate::kinds) fn driver_name(at: &At<'_>, errors: &mut Errors) {
    let driver = at.str();
    at.required(errors);
    if driver.len() > 63 {
        errors.too_long(at.path.as_str(), 63);
    }
    if let Err(why) = name::dns_subdomain(&driver.to_lowercase()) {
        errors.invalid(at.path.as_str(), driver, &why);
    }
}

fn mode(at: &At<'_>, errors: &mut Errors) {
    if let Some(n) = at.v.as_i64().filter(|n| !(0..=0o777).contains(n)) {
        errors.invalid(at.path.as_str(), n, MODE);
    }
}

/// A path below a directory whose own files begin with two dots.
fn not_reserved(path: &str, at: &str, errors: &mut Errors) {
    descending(path, at, errors);
    if path.starts_with("..") && !path.starts_with("../") && path != ".." {
        errors.invalid(at, path, "must not start with '..'");
    }
}

/// Keys as files.
fn items(s: &At<'_>, errors: &mut Errors) {
    for item in s.each("items") {
        item.of("key").required(errors);
        item.of("path").required(errors);
        not_reserved(item.text("path"), &format!("{}.path", item.path), errors);
        mode(&item.of("mode"), errors);
    }
}

fn downward(v: &Value, at: &str, errors: &mut Errors) {
    // Upstream does not say which.
    for item in object::list(v, "items") {
        required(item, at, "path", errors);
        not_reserved(text(item, "path"), &format!("{at}.path"), errors);
        match (object::get(item, "fieldRef"), object::get(item, "resourceFieldRef")) {
            (Some(f), more) => {
                field_ref(f, &format!("{at}.fieldRef"), &IN_FILES, errors);
                if more.is_some() {
                    errors.invalid(
                        at,
                        "resource",
                        "fieldRef and resourceFieldRef can not be specified simultaneously",
                    );
                }
            }
            (None, Some(f)) => {
                let at = format!("{at}.resourceFieldRef");
                if text(f, "containerName").is_empty() {
                    errors.required(format!("{at}.containerName"), "");
                } else {
                    resource_ref(f, &at, errors);
                }
            }
            (None, None) => errors.required(at, "one of fieldRef and resourceFieldRef is required"),
        }
        mode(&At::new(item, at).of("mode"), errors);
    }
}

/// Several sources in one directory, where no two may put the same file.
fn projected(p: &At<'_>, errors: &mut Errors) {
    mode(&p.of("defaultMode"), errors);
    let mut paths = HashSet::new();
    let mut place = |path: &'_ str, value: &str, errors: &mut Errors| {
        if !path.is_empty() && !paths.insert(path.to_owned()) {
            errors.invalid(p.path.as_str(), value, "conflicting duplicate paths");
        }
    };
    for s in p.each("sources") {
        for kind in ["secret", "configMap"] {
            if let Some(source) = s.get(kind) {
                source.of("name").required(errors);
                items(&source, errors);
                for item in source.each("items") {
                    place(item.text("path"), source.text("name"), errors);
                }
            }
        }
        if let Some(d) = s.get("downwardAPI") {
            downward(d.v, &d.path, errors);
            for item in d.each("items") {
                place(item.text("path"), item.text("path"), errors);
            }
        }
        if let Some(t) = s.get("serviceAccountToken") {
            token(&t, &p.path, errors);
        }
        if let Some(b) = s.get("clusterTrustBundle") {
            if !b.of("name").given() && !b.of("signerName").given() {
                let at = format!("{}.clusterTrustBundlePEM", s.path);
                errors.required(at, "either name or signerName must be specified");
            }
            place(b.text("path"), b.text("path"), errors);
        }
        let given = s.v.as_object().map_or(0, |m| m.values().filter(|v| !v.is_null()).count());
        if given > 1 {
            errors.forbidden(s.path.as_str(), SECOND);
        }
    }
}

fn token(t: &At<'_>, projected: &str, errors: &mut Errors) {
    let seconds = t.of("expirationSeconds");
    seconds.at_least(600, "may not specify a duration less than 10 minutes", errors);
    if t.int("expirationSeconds").is_some_and(|n| n > 1 << 32) {
        seconds.invalid("may not specify a duration larger than 2^32 seconds", errors);
    }
    // Upstream tells of the path as if it were the volume's own.
    let path = t.of("path").renamed(format!("{projected}.path"));
    if path.required(errors) {
        not_reserved(path.str(), &path.path, errors);
    }
}
