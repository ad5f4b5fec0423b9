//! Where volumes come from, and what upstream fills in: the same in pods and in PersistentVolumes
//! (kubernetes: pkg/apis/core/v1/defaults.go).

use serde_json::{Value, json};

use super::{pod, storage};
use crate::object;

/// A volume of a pod.
pub(super) fn default_volume(v: &mut Value) {
    let sources = v.as_object().map_or(0, |m| m.iter().filter(|(k, v)| *k != "name" && !v.is_null()).count());
    if sources == 0 {
        v["emptyDir"] = json!({});
    }
    for kind in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(s) = v.get_mut(kind).filter(|s| s.is_object()) {
            object::default(s, "defaultMode", 0o644);
        }
    }
    default_source(v);
    if let Some(d) = v.get_mut("downwardAPI") {
        default_items(d);
    }
    for s in object::list_mut(v, "projected.sources") {
        if let Some(d) = s.get_mut("downwardAPI") {
            default_items(d);
        }
        if let Some(t) = s.get_mut("serviceAccountToken") {
            object::default(t, "expirationSeconds", 3600);
        }
    }
    if let Some(t) = v.get_mut("ephemeral").and_then(|e| e.get_mut("volumeClaimTemplate")) {
        object::child(t, "metadata");
        storage::default_claim(t);
    }
    if let Some(i) = v.get_mut("image").filter(|i| i.is_object()) {
        let policy = pod::pull_policy(object::text(i, "reference").unwrap_or_default());
        object::default_text(i, "pullPolicy", policy);
    }
}

/// What a volume of a pod and a PersistentVolume have in common.
pub(super) fn default_source(v: &mut Value) {
    let texts: [(&str, &[(&str, &str)]); 4] = [
        ("iscsi", &[("iscsiInterface", "default")]),
        ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
        ("azureDisk", &[("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")]),
        ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
    ];
    for (source, fields) in texts {
        if let Some(s) = v.get_mut(source).filter(|s| s.is_object()) {
            fields.iter().for_each(|(field, value)| object::default_text(s, field, value));
        }
    }
    if let Some(d) = v.get_mut("azureDisk").filter(|d| d.is_object()) {
        object::default(d, "readOnly", false);
    }
    if let Some(h) = v.get_mut("hostPath").filter(|h| h.is_object()) {
        object::default(h, "type", "");
    }
}

fn default_items(of: &mut Value) {
    for i in object::list_mut(of, "items") {
        if let Some(f) = i.get_mut("fieldRef") {
            object::default_text(f, "apiVersion", "v1");
        }
        if let Some(f) = i.get_mut("resourceFieldRef") {
            object::default(f, "divisor", "0");
        }
    }
}
