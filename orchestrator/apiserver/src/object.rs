//! Reading and writing the common parts of an object that is plain JSON.

use bytes::Bytes;
use serde_json::{Map, Value};
use signal::Timestamp;

/// The text at a dotted path, if there is one.
pub(crate) fn text<'a>(o: &'a Value, path: &str) -> Option<&'a str> {
    get(o, path).and_then(Value::as_str)
}

pub(crate) fn int(o: &Value, path: &str) -> Option<i64> {
    get(o, path).and_then(Value::as_i64)
}

pub(crate) fn flag(o: &Value, path: &str) -> bool {
    get(o, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The value at a dotted path; null counts as absent.
pub(crate) fn get<'a>(o: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(o, |v, part| v.get(part)).filter(|v| !v.is_null())
}

pub(crate) fn list<'a>(o: &'a Value, path: &str) -> &'a [Value] {
    get(o, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(crate) fn list_mut<'a>(o: &'a mut Value, path: &str) -> &'a mut [Value] {
    let found = path.split('.').try_fold(o, |v, part| v.get_mut(part));
    found.and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

pub(crate) fn name(o: &Value) -> &str {
    text(o, "metadata.name").unwrap_or_default()
}

pub(crate) fn namespace(o: &Value) -> &str {
    text(o, "metadata.namespace").unwrap_or_default()
}

pub(crate) fn is_deleting(o: &Value) -> bool {
    get(o, "metadata.deletionTimestamp").is_some()
}

/// The object at `key` of `o`, made if it is absent or no object.
pub(crate) fn child<'a>(o: &'a mut Value, key: &str) -> &'a mut Value {
    if !o.is_object() {
        *o = Value::Object(Map::new());
    }
    let v = &mut o[key];
    if !v.is_object() {
        *v = Value::Object(Map::new());
    }
    v
}

/// Puts kind and version first, as everybody prints them.
pub(crate) fn head(o: &mut Value, kind: &str, version: String) {
    if let Value::Object(m) = o {
        m.shift_insert(0, "kind".to_owned(), kind.into());
        m.shift_insert(1, "apiVersion".to_owned(), version.into());
    }
}

/// `metadata` of an object, made if it is absent.
pub(crate) fn metadata(o: &mut Value) -> &mut Map<String, Value> {
    match child(o, "metadata") {
        Value::Object(m) => m,
        _ => unreachable!("child() gives an object"),
    }
}

/// Sets a field that is absent or null.
pub(crate) fn default(o: &mut Value, key: &str, value: impl Into<Value>) {
    if let Value::Object(m) = o
        && m.get(key).is_none_or(Value::is_null)
    {
        m.insert(key.to_owned(), value.into());
    }
}

/// As [`default`], where the empty string counts as absent too.
pub(crate) fn default_text(o: &mut Value, key: &str, value: &str) {
    if o.get(key).and_then(Value::as_str).is_none_or(str::is_empty)
        && let Value::Object(m) = o
    {
        m.insert(key.to_owned(), value.into());
    }
}

pub(crate) fn remove(o: &mut Value, key: &str) -> Option<Value> {
    o.as_object_mut().and_then(|m| m.shift_remove(key))
}

/// Copies `key` of `from`, absent as well as present.
pub(crate) fn copy(to: &mut Map<String, Value>, from: &Value, key: &str) {
    match from.get(key) {
        Some(v) => {
            to.insert(key.to_owned(), v.clone());
        }
        None => {
            to.shift_remove(key);
        }
    }
}

/// As JSON, in a buffer as long as it is.
pub(crate) fn to_bytes(o: &Value) -> Bytes {
    let mut out = Vec::with_capacity(2048);
    serde_json::to_writer(&mut out, o).expect("values are written without errors, and buffers take all");
    Bytes::from(out.into_boxed_slice())
}

/// Second precision, as upstream's metav1.Time.
pub(crate) fn rfc3339(t: Timestamp) -> String {
    let secs = t.nanos().div_euclid(1_000_000_000);
    jiff::Timestamp::from_second(secs).map(|t| t.to_string()).unwrap_or_default()
}

/// Seconds since the epoch of a metav1.Time or MicroTime.
pub(crate) fn parse_time(s: &str) -> Option<Timestamp> {
    let t: jiff::Timestamp = s.parse().ok()?;
    i64::try_from(t.as_nanosecond()).ok().map(Timestamp::from_nanos)
}
