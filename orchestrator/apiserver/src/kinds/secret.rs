//! Secret: data for pods that not everyone may read.

use base64::Engine as _;
use serde_json::{Map, Value};
use signal::Timestamp;

use super::configmap::{MAX_DATA_BYTES, validate_keys};
use super::{AGE, BASE, Kind, NAME, column};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static KIND: Kind = Kind {
    resource: "secrets",
    singular: "secret",
    kind: "Secret",
    default,
    validate,
    validate_update,
    fields: &["type"],
    columns: &[NAME, column("Type"), column("Data"), AGE],
    row,
    ..BASE
};

fn default(o: &mut Value) {
    object::default_text(o, "type", "Opaque");
    // stringData is write-only: it ends up in data.
    if let Some(Value::Object(text)) = object::remove(o, "stringData") {
        let mut data = match object::remove(o, "data") {
            Some(Value::Object(m)) => m,
            _ => Map::new(),
        };
        for (k, v) in text {
            let encoded = base64::engine::general_purpose::STANDARD.encode(v.as_str().unwrap_or_default());
            data.insert(k, encoded.into());
        }
        o["data"] = Value::Object(data);
    }
    unbroken(o, "data");
}

/// Base64 may come with line breaks, as files of it have; what is kept has none (Go: encoding/base64).
pub(super) fn unbroken(o: &mut Value, field: &str) {
    for v in o.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(|m| m.values_mut()) {
        if let Value::String(s) = v
            && s.contains(['\n', '\r'])
        {
            s.retain(|c| !matches!(c, '\n' | '\r'));
        }
    }
}

fn validate(o: &Value, errors: &mut Errors) {
    validate_keys(o, "data", errors);
    let data = o.get("data").and_then(Value::as_object);
    let mut size = 0;
    for (k, v) in data.into_iter().flatten() {
        let v = v.as_str().unwrap_or_default();
        size += v.len() / 4 * 3;
        if base64::engine::general_purpose::STANDARD.decode(v).is_err() {
            errors.invalid(format!("data[{k}]"), "<secret contents redacted>", "must be base64");
        }
    }
    if size > MAX_DATA_BYTES {
        errors.invalid("data", "", "Too long: may not be more than 1048576 bytes");
    }
    let needed: &[&str] = match object::text(o, "type") {
        Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
        Some("kubernetes.io/dockerconfigjson") => &[".dockerconfigjson"],
        Some("kubernetes.io/ssh-auth") => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needed {
        if data.is_none_or(|d| !d.contains_key(*key)) {
            errors.required(format!("data[{key}]"), "");
        }
    }
}

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    errors.immutable("type", new.get("type"), old.get("type"));
    if object::flag(old, "immutable") {
        if !object::flag(new, "immutable") {
            errors.forbidden("immutable", "field is immutable when `immutable` is set");
        }
        if new.get("data") != old.get("data") {
            errors.forbidden("data", "field is immutable when `immutable` is set");
        }
    }
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    let n = o.get("data").and_then(Value::as_object).map_or(0, Map::len);
    vec![
        object::name(o).into(),
        object::text(o, "type").unwrap_or_default().into(),
        n.to_string().into(),
        table::age(o, now),
    ]
}
