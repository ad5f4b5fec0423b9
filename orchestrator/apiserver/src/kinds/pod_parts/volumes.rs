//! Sources of volumes.

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::{IN_FILES, descending, field_ref, no_backsteps, one_of, required, resource_ref, text};
use crate::object;
use crate::validation::Errors;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

fn mode(v: &Value, at: &str, key: &str, errors: &mut Errors) {
    if let Some(n) = v[key].as_i64()
        && !(0..=0o777).contains(&n)
    {
        errors.invalid(format!("{at}.{key}"), n, MODE);
    }
}

/// Keys as files.
fn items(v: &Value, at: &str, errors: &mut Errors) {
    for (i, item) in object::list(v, "items").iter().enumerate() {
        let at = format!("{at}.items[{i}]");
        required(item, &at, "key", errors);
        required(item, &at, "path", errors);
        descending(text(item, "path"), &format!("{at}.path"), errors);
        mode(item, &at, "mode", errors);
    }
}

fn downward(v: &Value, at: &str, errors: &mut Errors) {
    // Upstream does not say which.
    for item in object::list(v, "items") {
        required(item, at, "path", errors);
        descending(text(item, "path"), &format!("{at}.path"), errors);
        mode(item, at, "mode", errors);
        match (object::get(item, "fieldRef"), object::get(item, "resourceFieldRef")) {
            (Some(f), None) => field_ref(f, &format!("{at}.fieldRef"), &IN_FILES, errors),
            (None, Some(f)) => {
                let at = format!("{at}.resourceFieldRef");
                required(f, &at, "containerName", errors);
                resource_ref(f, &at, errors);
            }
            (Some(_), Some(_)) => {
                errors.invalid(
                    at,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
            (None, None) => errors.required(at, "one of fieldRef and resourceFieldRef is required"),
        }
    }
}

/// The source of a volume.
pub(in crate::kinds) fn volume(v: &Value, at: &str, errors: &mut Errors) {
    if let Some(d) = object::get(v, "emptyDir")
        && let Some(limit) = d["sizeLimit"].as_str().and_then(|s| s.parse::<Quantity>().ok())
        && limit < Quantity::ZERO
    {
        let detail = "SizeLimit field must be a valid resource quantity";
        errors.forbidden(format!("{at}.emptyDir.sizeLimit"), detail);
    }
    if let Some(h) = object::get(v, "hostPath") {
        let at = format!("{at}.hostPath");
        no_backsteps(text(h, "path"), &format!("{at}.path"), errors);
        const TYPES: [&str; 8] = [
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ];
        one_of(h, &at, "type", &TYPES, errors);
    }
    for source in ["configMap", "secret"] {
        if let Some(s) = object::get(v, source) {
            let at = format!("{at}.{source}");
            mode(s, &at, "defaultMode", errors);
            items(s, &at, errors);
        }
    }
    if let Some(d) = object::get(v, "downwardAPI") {
        mode(d, &format!("{at}.downwardAPI"), "defaultMode", errors);
        downward(d, &format!("{at}.downwardAPI"), errors);
    }
    if let Some(c) = object::get(v, "persistentVolumeClaim") {
        required(c, &format!("{at}.persistentVolumeClaim"), "claimName", errors);
    }
    if let Some(n) = object::get(v, "nfs") {
        let at = format!("{at}.nfs");
        required(n, &at, "server", errors);
        required(n, &at, "path", errors);
        if !text(n, "path").starts_with('/') {
            errors.invalid(format!("{at}.path"), text(n, "path"), "must be an absolute path");
        }
    }
    if let Some(c) = object::get(v, "csi") {
        required(c, &format!("{at}.csi"), "driver", errors);
    }
    if let Some(p) = object::get(v, "projected") {
        projected(p, &format!("{at}.projected"), errors);
    }
}

fn projected(p: &Value, at: &str, errors: &mut Errors) {
    mode(p, at, "defaultMode", errors);
    for (i, s) in object::list(p, "sources").iter().enumerate() {
        let at = format!("{at}.sources[{i}]");
        let given: Vec<&String> =
            s.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
        if let [_, second, ..] = given.as_slice() {
            errors.forbidden(format!("{at}.{second}"), "may not specify more than 1 volume type");
        }
        for source in ["configMap", "secret"] {
            if let Some(s) = object::get(s, source) {
                let at = format!("{at}.{source}");
                required(s, &at, "name", errors);
                items(s, &at, errors);
            }
        }
        if let Some(d) = object::get(s, "downwardAPI") {
            downward(d, &format!("{at}.downwardAPI"), errors);
        }
        if let Some(t) = object::get(s, "serviceAccountToken") {
            let at = format!("{at}.serviceAccountToken");
            match t["expirationSeconds"].as_i64() {
                Some(n) if n < 600 => errors.invalid(
                    format!("{at}.expirationSeconds"),
                    n,
                    "may not specify a duration less than 10 minutes",
                ),
                Some(n) if n > 1 << 32 => errors.invalid(
                    format!("{at}.expirationSeconds"),
                    n,
                    "may not specify a duration larger than 2^32 seconds",
                ),
                _ => {}
            }
            required(t, &at, "path", errors);
            descending(text(t, "path"), &format!("{at}.path"), errors);
        }
    }
}
