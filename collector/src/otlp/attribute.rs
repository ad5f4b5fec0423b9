//! OTLP's values as ours.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use signal::{AttributeValue, Attributes};

pub(super) fn attributes(pairs: &[KeyValue]) -> Attributes {
    pairs.iter().filter_map(|kv| Some((kv.key.clone(), value(kv.value.as_ref()?)?))).collect()
}

pub(super) fn value(v: &AnyValue) -> Option<AttributeValue> {
    Some(match v.value.as_ref()? {
        Value::StringValue(s) => AttributeValue::String(s.clone()),
        Value::BoolValue(b) => AttributeValue::Bool(*b),
        Value::IntValue(n) => AttributeValue::Int(*n),
        Value::DoubleValue(n) => AttributeValue::Double(*n),
        _ => AttributeValue::String(json(v).to_string()),
    })
}

/// Arrays and maps as JSON; bytes as hex.
fn json(v: &AnyValue) -> serde_json::Value {
    match &v.value {
        None => serde_json::Value::Null,
        Some(Value::StringValue(s)) => s.clone().into(),
        Some(Value::BoolValue(b)) => (*b).into(),
        Some(Value::IntValue(n)) => (*n).into(),
        Some(Value::DoubleValue(n)) => (*n).into(),
        Some(Value::BytesValue(b)) => hex::encode(b).into(),
        Some(Value::ArrayValue(a)) => a.values.iter().map(json).collect(),
        Some(Value::KvlistValue(l)) => l
            .values
            .iter()
            .map(|kv| (kv.key.clone(), kv.value.as_ref().map_or(serde_json::Value::Null, json)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Some(other) => format!("{other:?}").into(),
    }
}
