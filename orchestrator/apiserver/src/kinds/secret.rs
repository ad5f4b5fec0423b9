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
        errors.too_long("data", MAX_DATA_BYTES as u64);
    }
    validate_type(o, errors);
}

/// What a secret of a known type must hold.
fn validate_type(o: &Value, errors: &mut Errors) {
    const ACCOUNT: &str = "kubernetes.io/service-account.name";
    let has = |key: &str| o["data"].get(key).is_some();
    let mut need = |key: &str| errors.required(format!("data[{key}]"), "");
    match object::text(o, "type").unwrap_or_default() {
        "kubernetes.io/service-account-token"
            if o["metadata"]["annotations"][ACCOUNT].as_str().is_none_or(str::is_empty) =>
        {
            errors.required(format!("metadata.annotations[{ACCOUNT}]"), "");
        }
        "kubernetes.io/dockercfg" => docker_config(o, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => docker_config(o, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            ["username", "password"].into_iter().for_each(need);
        }
        "kubernetes.io/ssh-auth" if o["data"]["ssh-privatekey"].as_str().is_none_or(str::is_empty) => {
            need("ssh-privatekey");
        }
        "kubernetes.io/tls" => ["tls.crt", "tls.key"].into_iter().filter(|k| !has(k)).for_each(need),
        _ => {}
    }
}

/// Whose content is an object in JSON.
fn docker_config(o: &Value, key: &str, errors: &mut Errors) {
    let at = format!("data[{key}]");
    let Some(text) = o["data"].get(key).and_then(Value::as_str) else { return errors.required(at, "") };
    let content = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    if let Err(why) = serde_json::from_slice::<Map<String, Value>>(&content) {
        let why = match content.is_empty() {
            true => "unexpected end of JSON input".to_owned(),
            false => why.to_string(),
        };
        errors.invalid(at, "<secret contents redacted>", &why);
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
