//! What becomes of a custom resource before it is judged: unknown fields go, defaults come
//! (apiextensions-apiserver: pkg/apiserver/schema/{pruning,defaulting,objectmeta}).

use serde_json::{Map, Value};

use super::schema::{Schema, Type};
use crate::error::{ApiError, Result};

/// Fields every resource has.
const TYPE_META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes what the schema does not know, and gives the paths of it.
pub(crate) fn prune(schema: &Schema, o: &mut Value) -> Vec<String> {
    let mut gone = Vec::new();
    prune_at(schema, o, true, &mut String::new(), &mut gone);
    gone.sort();
    gone
}

fn prune_at(schema: &Schema, v: &mut Value, resource: bool, at: &mut String, gone: &mut Vec<String>) {
    let resource = resource || schema.embedded;
    match v {
        Value::Object(m) => {
            let len = at.len();
            let known = |k: &str| {
                schema.properties.contains_key(k)
                    || schema.additional.is_some()
                    || schema.additional_any
                    || resource && TYPE_META.contains(&k)
            };
            if !schema.preserve {
                m.retain(|k, _| {
                    let keep = known(k);
                    if !keep {
                        gone.push(join(at, k));
                    }
                    keep
                });
            }
            for (k, v) in m.iter_mut() {
                let inner = match schema.properties.get(k) {
                    _ if resource && k == "metadata" => None,
                    Some(s) => Some(s),
                    None => schema.additional.as_deref(),
                };
                if let Some(inner) = inner {
                    let path = join(at, k);
                    at.clear();
                    at.push_str(&path);
                    prune_at(inner, v, false, at, gone);
                    at.truncate(len);
                }
            }
        }
        Value::Array(l) => {
            let Some(items) = &schema.items else { return };
            let len = at.len();
            for (i, v) in l.iter_mut().enumerate() {
                at.push_str(&format!("[{i}]"));
                prune_at(items, v, false, at, gone);
                at.truncate(len);
            }
        }
        _ => {}
    }
}

fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// Puts defaults where there is nothing, and takes nulls away that may not be.
pub(crate) fn default(schema: &Schema, v: &mut Value) {
    match v {
        Value::Object(m) => {
            // Nulls that may not be count as absent.
            m.retain(|k, v| {
                let inner = schema.properties.get(k).or(schema.additional.as_deref());
                !v.is_null() || inner.is_none_or(|s| s.nullable || s.preserve && s.ty.is_none())
            });
            for (k, s) in &schema.properties {
                if let Some(d) = &s.default
                    && !m.contains_key(k)
                {
                    m.insert(k.clone(), d.clone());
                }
            }
            for (k, v) in m.iter_mut() {
                if let Some(inner) = schema.properties.get(k).or(schema.additional.as_deref()) {
                    default(inner, v);
                }
            }
        }
        Value::Array(l) => {
            let Some(items) = &schema.items else { return };
            for v in l {
                if v.is_null()
                    && !items.nullable
                    && let Some(d) = &items.default
                {
                    *v = d.clone();
                }
                default(items, v);
            }
        }
        _ => {}
    }
}

/// Numbers as Go's decoder leaves them: a whole float is an integer where an integer is wanted.
pub(crate) fn whole_numbers(schema: &Schema, v: &mut Value) {
    match v {
        Value::Object(m) => {
            for (k, v) in m.iter_mut() {
                if let Some(inner) = schema.properties.get(k).or(schema.additional.as_deref()) {
                    whole_numbers(inner, v);
                }
            }
        }
        Value::Array(l) => {
            if let Some(items) = &schema.items {
                l.iter_mut().for_each(|v| whole_numbers(items, v));
            }
        }
        Value::Number(n) if schema.ty == Some(Type::Integer) && n.is_f64() => {
            if let Some(f) = n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15) {
                *v = Value::from(f as i64);
            }
        }
        _ => {}
    }
}

/// Gives `metadata` the shape of an ObjectMeta, at the root and in embedded resources. Gives the unknown fields.
pub(crate) fn metadata(schema: &Schema, o: &mut Value) -> Result<Vec<String>> {
    let mut unknown = Vec::new();
    metadata_at(schema, o, true, "", &mut unknown)?;
    Ok(unknown)
}

fn metadata_at(
    schema: &Schema,
    v: &mut Value,
    resource: bool,
    at: &str,
    unknown: &mut Vec<String>,
) -> Result<()> {
    let resource = resource || schema.embedded;
    match v {
        Value::Object(m) => {
            if resource {
                conform_metadata(m, at, unknown)?;
            }
            if !schema.any(&|s| s.embedded) {
                return Ok(());
            }
            for (k, v) in m.iter_mut() {
                if let Some(inner) = schema.properties.get(k).or(schema.additional.as_deref()) {
                    metadata_at(inner, v, false, &join(at, k), unknown)?;
                }
            }
        }
        Value::Array(l) => {
            if let Some(items) = &schema.items {
                for (i, v) in l.iter_mut().enumerate() {
                    metadata_at(items, v, false, &format!("{at}[{i}]"), unknown)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn conform_metadata(m: &mut Map<String, Value>, at: &str, unknown: &mut Vec<String>) -> Result<()> {
    let Some(meta) = m.get_mut("metadata") else { return Ok(()) };
    let schemas = apimachinery::schema::schemas();
    let ty = schemas.metadata();
    let path = join(at, "metadata");
    let found = schemas
        .conform(&ty, meta)
        .map_err(|e| ApiError::bad_request(format!("error decoding {path}: {e}")))?;
    unknown.extend(found.into_iter().map(|f| format!("{path}.{f}")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prunes_what_is_unknown() {
        let check = |schema: Value, mut o: Value, expect: Value, gone: &[&str]| {
            assert_eq!(prune(&Schema::read(&schema), &mut o), gone);
            assert_eq!(o, expect);
        };
        let spec = |s: Value| json!({"type": "object", "properties": {"spec": s}});
        check(
            spec(json!({"type": "object", "properties": {"a": {"type": "string"}}})),
            json!({"kind": "K", "metadata": {"name": "x"}, "spec": {"a": "1", "b": 2}, "c": 3}),
            json!({"kind": "K", "metadata": {"name": "x"}, "spec": {"a": "1"}}),
            &["c", "spec.b"],
        );
        check(
            spec(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}}}})),
            json!({"spec": {"z": {"y": 1}, "a": {"b": "1", "c": 1}}}),
            json!({"spec": {"z": {"y": 1}, "a": {"b": "1"}}}),
            &["spec.a.c"],
        );
        check(
            spec(
                json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}}),
            ),
            json!({"spec": [{"a": "1"}, {"b": 1}]}),
            json!({"spec": [{"a": "1"}, {}]}),
            &["spec[1].b"],
        );
        check(
            spec(
                json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}),
            ),
            json!({"spec": {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}, "spec": {"x": 1}, "y": 1}}),
            json!({"spec": {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}, "spec": {}}}),
            &["spec.spec.x", "spec.y"],
        );
    }

    #[test]
    fn defaults_and_nulls() {
        let check = |schema: Value, mut o: Value, expect: Value| {
            default(&Schema::read(&schema), &mut o);
            assert_eq!(o, expect);
        };
        let s = json!({"type": "object", "properties": {
            "a": {"type": "object", "default": {}, "properties": {"b": {"type": "integer", "default": 3}}},
            "n": {"type": "string", "nullable": true, "default": "d"},
            "m": {"type": "string", "default": "d"},
            "o": {"type": "string"},
        }});
        check(s.clone(), json!({}), json!({"a": {"b": 3}, "m": "d", "n": "d"}));
        check(
            s,
            json!({"a": {"b": null}, "n": null, "m": null, "o": null}),
            json!({"a": {"b": 3}, "m": "d", "n": null}),
        );
    }
}
