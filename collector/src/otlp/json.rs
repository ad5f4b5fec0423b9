//! OTLP's JSON. What the protocol's own reader refuses although the specification allows it is mended first.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Fields that may stand in a value; others are to be ignored.
const VALUES: [&str; 7] =
    ["stringValue", "boolValue", "intValue", "doubleValue", "arrayValue", "kvlistValue", "bytesValue"];

pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let first = match serde_json::from_slice(bytes) {
        Ok(request) => return Ok(request),
        Err(e) => e,
    };
    // Seldom: read again without what a value must not hold. If that is not it, the first error says more.
    let mut all: Value = serde_json::from_slice(bytes)?;
    mend(&mut all);
    serde_json::from_value(all).map_err(|_| first)
}

/// An AnyValue's unknown fields go; everything else is the reader's own matter.
fn mend(v: &mut Value) {
    match v {
        Value::Array(items) => items.iter_mut().for_each(mend),
        Value::Object(o) => {
            if o.keys().any(|k| VALUES.contains(&k.as_str())) {
                o.retain(|k, _| VALUES.contains(&k.as_str()));
            }
            // A field that is null is one that is not there.
            let nulls = o.values().any(Value::is_null);
            if nulls {
                *o = std::mem::take(o).into_iter().filter(|(_, v)| !v.is_null()).collect::<Map<_, _>>();
            }
            o.values_mut().for_each(mend);
        }
        _ => {}
    }
}
