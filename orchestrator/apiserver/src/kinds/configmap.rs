//! ConfigMap: data for pods.

use apimachinery::name;
use serde_json::Value;
use signal::Timestamp;

use super::check::At;
use super::{AGE, BASE, Column, Kind, NAME, column};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static KIND: Kind = Kind {
    resource: "configmaps",
    singular: "configmap",
    kind: "ConfigMap",
    default: |o| super::secret::unbroken(o, "binaryData"),
    short: &["cm"],
    validate,
    validate_update,
    columns: COLUMNS,
    row,
    ..BASE
};

const COLUMNS: &[Column] = &[NAME, column("Data"), AGE];
/// Upstream's bound on the sum of all values.
pub(super) const MAX_DATA_BYTES: usize = 1 << 20;

fn size(o: &Value, key: &str) -> usize {
    let data = o.get(key).and_then(Value::as_object);
    data.into_iter().flatten().map(|(_, v)| v.as_str().map_or(0, str::len)).sum()
}

fn count(o: &Value, key: &str) -> usize {
    o.get(key).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

/// Keys of ConfigMaps and Secrets are file names.
pub(super) fn validate_keys(o: &Value, field: &str, errors: &mut Errors) {
    for (k, at) in At::root(o).entries(field) {
        if let Err(why) = name::config_key(k) {
            errors.invalid(at.path.as_str(), k, &why);
        }
        if field == "data" && o["binaryData"].get(k).is_some() {
            errors.invalid(at.path.as_str(), k, "duplicate of key present in binaryData");
        }
    }
}

fn validate(o: &Value, errors: &mut Errors) {
    validate_keys(o, "data", errors);
    validate_keys(o, "binaryData", errors);
    if size(o, "data") + size(o, "binaryData") / 4 * 3 > MAX_DATA_BYTES {
        errors.too_long("", MAX_DATA_BYTES as u64);
    }
}

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    if object::flag(old, "immutable") {
        if !object::flag(new, "immutable") {
            errors.forbidden("immutable", "field is immutable when `immutable` is set");
        }
        for field in ["data", "binaryData"] {
            if new.get(field) != old.get(field) {
                errors.forbidden(field, "field is immutable when `immutable` is set");
            }
        }
    }
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    let n = count(o, "data") + count(o, "binaryData");
    vec![object::name(o).into(), n.to_string().into(), table::age(o, now)]
}
