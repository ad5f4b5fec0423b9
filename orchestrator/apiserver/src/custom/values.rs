//! Whether values are what a schema says, in upstream's words (kube-openapi: pkg/validation/validate, and
//! apiextensions-apiserver: pkg/apiserver/validation). What an update leaves as it was is not judged again (KEP-4008).

use serde_json::Value;

use super::format;
use super::schema::{Bound, ListType, Schema, Type};
use crate::validation::Errors;

/// Where errors of logic stand, which upstream gives no path.
pub(crate) const NOWHERE: &str = "<nil>";

/// Judges an object. What equals its correlated part of `old` passes.
pub(crate) fn validate(schema: &Schema, v: &Value, old: Option<&Value>, errors: &mut Errors) {
    node(schema, v, old, "", errors);
}

fn type_of(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn has_type(schema: &Schema, v: &Value) -> bool {
    if schema.int_or_string {
        return matches!(v, Value::String(_)) || v.is_i64() || v.is_u64();
    }
    match (schema.ty, v) {
        (None, _)
        | (Some(Type::Object), Value::Object(_))
        | (Some(Type::Array), Value::Array(_))
        | (Some(Type::String), Value::String(_))
        | (Some(Type::Boolean), Value::Bool(_))
        | (Some(Type::Number), Value::Number(_)) => true,
        (Some(Type::Integer), Value::Number(n)) => n.as_f64().is_some_and(|f| f.fract() == 0.0),
        _ => false,
    }
}

fn child(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// How a float is printed by Go's %v.
fn float(f: f64) -> String {
    if f.fract() == 0.0 && f.abs() < 1e21 { format!("{f:.0}") } else { f.to_string() }
}

fn node(schema: &Schema, v: &Value, old: Option<&Value>, at: &str, errors: &mut Errors) {
    if old.is_some_and(|o| o == v) {
        return;
    }
    if v.is_null() {
        if !schema.nullable && (schema.ty.is_some() || schema.int_or_string) {
            wrong_type(schema, v, at, errors);
        }
        enumeration(schema, v, at, errors);
        return;
    }
    if !has_type(schema, v) {
        wrong_type(schema, v, at, errors);
    }
    logic(schema, v, at, errors);
    match v {
        Value::String(s) => text(schema, s, at, errors),
        Value::Number(n) => number(schema, v, n.as_f64().unwrap_or(0.0), at, errors),
        Value::Array(l) => list(schema, v, l, old, at, errors),
        _ => {}
    }
    enumeration(schema, v, at, errors);
    if let Value::Object(m) = v {
        object(schema, m, old, at, errors);
    }
}

fn wrong_type(schema: &Schema, v: &Value, at: &str, errors: &mut Errors) {
    let wanted = if schema.int_or_string { "integer,string" } else { schema.ty.map_or("", Type::as_str) };
    let found = type_of(v);
    errors.type_invalid(at, found, &format!("{at} in body must be of type {wanted}: {found:?}"));
}

fn enumeration(schema: &Schema, v: &Value, at: &str, errors: &mut Errors) {
    if schema.enumeration.is_empty() || schema.enumeration.contains(v) {
        return;
    }
    let all: Vec<String> =
        schema.enumeration.iter().map(|e| e.as_str().map_or_else(|| e.to_string(), str::to_owned)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    errors.not_supported_value(at, v, &all);
}

fn text(schema: &Schema, s: &str, at: &str, errors: &mut Errors) {
    let length = s.chars().count() as u64;
    if let Some(max) = schema.max_length.filter(|m| length > *m) {
        errors.too_long(at, max);
    }
    if let Some(min) = schema.min_length.filter(|m| length < *m) {
        errors.invalid(at, s, &format!("{at} in body should be at least {min} chars long"));
    }
    if let Some(p) = schema.pattern.as_ref().filter(|p| !p.is_match(s)) {
        errors.invalid(at, s, &format!("{at} in body should match '{p}'"));
    }
    if !schema.format.is_empty() && !format::matches(&schema.format, s) {
        errors.type_invalid(at, s, &format!("{at} in body must be of type {}: {s:?}", schema.format));
    }
}

fn number(schema: &Schema, v: &Value, f: f64, at: &str, errors: &mut Errors) {
    if let Some(m) = schema.multiple_of {
        let q = f / m;
        if (q - q.round()).abs() > 1e-9 {
            errors.invalid(at, v, &format!("{at} in body should be a multiple of {}", float(m)));
        }
    }
    match schema.maximum {
        Some(Bound { value, exclusive: true }) if f >= value => {
            errors.invalid(at, v, &format!("{at} in body should be less than {}", float(value)));
        }
        Some(Bound { value, exclusive: false }) if f > value => {
            errors.invalid(at, v, &format!("{at} in body should be less than or equal to {}", float(value)));
        }
        _ => {}
    }
    match schema.minimum {
        Some(Bound { value, exclusive: true }) if f <= value => {
            errors.invalid(at, v, &format!("{at} in body should be greater than {}", float(value)));
        }
        Some(Bound { value, exclusive: false }) if f < value => {
            errors.invalid(
                at,
                v,
                &format!("{at} in body should be greater than or equal to {}", float(value)),
            );
        }
        _ => {}
    }
}

fn list(schema: &Schema, v: &Value, l: &[Value], old: Option<&Value>, at: &str, errors: &mut Errors) {
    let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if let Some(items) = &schema.items {
        for (i, e) in l.iter().enumerate() {
            let was = match &schema.list {
                ListType::Map(keys) => before.iter().find(|b| keys.iter().all(|k| b.get(k) == e.get(k))),
                _ => None,
            };
            node(items, e, was, &format!("{at}[{i}]"), errors);
        }
    }
    let count = l.len() as u64;
    if let Some(min) = schema.min_items.filter(|m| count < *m) {
        errors.invalid(at, count as i64, &format!("{at} in body should have at least {min} items"));
    }
    if let Some(max) = schema.max_items.filter(|m| count > *m) {
        errors.too_many(at, count, max);
    }
    if schema.unique_items && (1..l.len()).any(|i| l[..i].contains(&l[i])) {
        errors.invalid(at, v, &format!("{at} in body shouldn't contain duplicates"));
    }
}

fn object(
    schema: &Schema,
    m: &serde_json::Map<String, Value>,
    old: Option<&Value>,
    at: &str,
    errors: &mut Errors,
) {
    let count = m.len() as u64;
    if let Some(min) = schema.min_properties.filter(|n| count < *n) {
        errors.invalid(at, count as i64, &format!("{at} in body should have at least {min} properties"));
        return;
    }
    if let Some(max) = schema.max_properties.filter(|n| count > *n) {
        errors.too_many(at, count, max);
        return;
    }
    for (k, v) in m {
        if let Some(inner) = schema.properties.get(k).or(schema.additional.as_deref()) {
            node(inner, v, old.and_then(|o| o.get(k)), &child(at, k), errors);
        }
    }
    for k in schema.required.iter().filter(|k| !m.contains_key(*k)) {
        errors.required(child(at, k), "");
    }
}

/// `anyOf`, `oneOf`, `allOf` and `not`.
fn logic(schema: &Schema, v: &Value, at: &str, errors: &mut Errors) {
    let judge = |s: &Schema| {
        let mut found = Errors::default();
        node(s, v, None, at, &mut found);
        found
    };
    let fail = |errors: &mut Errors, what: String| {
        errors.invalid(NOWHERE, "", &format!("{at:?} must {what}"));
    };
    if !schema.any_of.is_empty() {
        let all: Vec<Errors> = schema.any_of.iter().map(judge).collect();
        if !all.iter().any(Errors::is_empty) {
            fail(errors, "validate at least one schema (anyOf)".to_owned());
            errors.append_best(all);
        }
    }
    if !schema.one_of.is_empty() {
        let all: Vec<Errors> = schema.one_of.iter().map(judge).collect();
        match all.iter().filter(|e| e.is_empty()).count() {
            1 => {}
            0 => {
                fail(errors, "validate one and only one schema (oneOf). Found none valid".to_owned());
                errors.append_best(all);
            }
            n => fail(
                errors,
                format!("validate one and only one schema (oneOf). Found {n} valid alternatives"),
            ),
        }
    }
    if !schema.all_of.is_empty() {
        let all: Vec<Errors> = schema.all_of.iter().map(judge).collect();
        let good = all.iter().filter(|e| e.is_empty()).count();
        let whole = good == all.len();
        all.into_iter().for_each(|e| errors.append(e));
        if !whole {
            let none = if good == 0 { ". None validated" } else { "" };
            fail(errors, format!("validate all the schemas (allOf){none}"));
        }
    }
    if schema.not.as_ref().is_some_and(|s| judge(s).is_empty()) {
        fail(errors, "not validate the schema (not)".to_owned());
    }
}

/// Sets have no element twice, keyed lists no key (apiextensions-apiserver: pkg/apiserver/schema/listtype).
pub(crate) fn validate_lists(schema: &Schema, v: &Value, at: &str, errors: &mut Errors) {
    match v {
        Value::Object(m) => {
            for (k, v) in m {
                if let Some(inner) = schema.properties.get(k).or(schema.additional.as_deref()) {
                    validate_lists(inner, v, &child(at, k), errors);
                }
            }
        }
        Value::Array(l) => {
            let Some(items) = &schema.items else { return };
            match &schema.list {
                ListType::Atomic => {}
                ListType::Set => {
                    for (i, e) in l.iter().enumerate().filter(|(i, e)| l[..*i].contains(e)) {
                        errors.duplicate(format!("{at}[{i}]"), e);
                    }
                }
                ListType::Map(keys) => {
                    let key = |e: &Value| -> Vec<Option<Value>> {
                        keys.iter().map(|k| e.get(k).cloned()).collect()
                    };
                    for (i, e) in l.iter().enumerate() {
                        if l[..i].iter().any(|b| key(b) == key(e)) {
                            let shown: serde_json::Map<String, Value> =
                                keys.iter().filter_map(|k| Some((k.clone(), e.get(k)?.clone()))).collect();
                            errors.duplicate(format!("{at}[{i}]"), &Value::Object(shown));
                        }
                    }
                }
            }
            for (i, e) in l.iter().enumerate() {
                validate_lists(items, e, &format!("{at}[{i}]"), errors);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(x: Value, v: Value, expect: &str) {
        let schema = Schema::read(&json!({"type": "object", "properties": {"x": x}}));
        let mut errors = Errors::default();
        validate(&schema, &json!({"x": v}), None, &mut errors);
        let got = if errors.is_empty() { String::new() } else { errors.to_string() };
        assert_eq!(got, expect);
    }

    #[test]
    fn values() {
        check(
            json!({"type": "integer"}),
            json!("a"),
            "x: Invalid value: \"string\": x in body must be of type integer: \"string\"",
        );
        check(json!({"type": "integer"}), json!(1.0), "");
        check(
            json!({"type": "integer"}),
            json!(1.5),
            "x: Invalid value: \"number\": x in body must be of type integer: \"number\"",
        );
        check(
            json!({"type": "string"}),
            json!(null),
            "x: Invalid value: \"null\": x in body must be of type string: \"null\"",
        );
        check(json!({"type": "string", "nullable": true}), json!(null), "");
        check(
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "x: Invalid value: 0: x in body should be greater than or equal to 1",
        );
        check(
            json!({"type": "integer", "maximum": 10, "exclusiveMaximum": true}),
            json!(10),
            "x: Invalid value: 10: x in body should be less than 10",
        );
        check(
            json!({"type": "number", "multipleOf": 0.5}),
            json!(0.7),
            "x: Invalid value: 0.7: x in body should be a multiple of 0.5",
        );
        check(
            json!({"type": "string", "pattern": "^a$"}),
            json!("b"),
            "x: Invalid value: \"b\": x in body should match '^a$'",
        );
        check(
            json!({"type": "string", "minLength": 2}),
            json!("b"),
            "x: Invalid value: \"b\": x in body should be at least 2 chars long",
        );
        check(
            json!({"type": "string", "maxLength": 2}),
            json!("bbb"),
            "x: Too long: may not be more than 2 bytes",
        );
        check(
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            "x: Unsupported value: \"c\": supported values: \"a\", \"b\"",
        );
        check(
            json!({"type": "string", "format": "date"}),
            json!("c"),
            "x: Invalid value: \"c\": x in body must be of type date: \"c\"",
        );
        check(
            json!({"type": "array", "maxItems": 1, "items": {"type": "string"}}),
            json!(["a", "b"]),
            "x: Too many: 2: must have at most 1 item",
        );
        check(
            json!({"type": "array", "items": {"type": "string"}}),
            json!([1]),
            "x[0]: Invalid value: \"integer\": x[0] in body must be of type string: \"integer\"",
        );
        check(
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
            json!({}),
            "x.a: Required value",
        );
        check(
            json!({"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}}),
            json!({"a": "", "b": ""}),
            "x: Too many: 2: must have at most 1 item",
        );
        check(
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "x: Invalid value: \"boolean\": x in body must be of type integer,string: \"boolean\"",
        );
        check(json!({"x-kubernetes-int-or-string": true}), json!("5%"), "");
        check(
            json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"a": 1, "b": 1}),
            "<nil>: Invalid value: \"\": \"x\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        );
        check(
            json!({"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({}),
            "[<nil>: Invalid value: \"\": \"x\" must validate at least one schema (anyOf), x.a: Required value]",
        );
        check(
            json!({"type": "string", "not": {"enum": ["a"]}}),
            json!("a"),
            "<nil>: Invalid value: \"\": \"x\" must not validate the schema (not)",
        );
    }

    #[test]
    fn what_did_not_change_passes() {
        let schema = Schema::read(&json!({"type": "object", "properties": {
            "a": {"type": "integer", "minimum": 5}, "b": {"type": "integer", "minimum": 5}}}));
        let mut errors = Errors::default();
        validate(&schema, &json!({"a": 1, "b": 1}), Some(&json!({"a": 1, "b": 2})), &mut errors);
        assert_eq!(errors.to_string(), "b: Invalid value: 1: b in body should be greater than or equal to 5");
    }

    #[test]
    fn lists() {
        let schema = Schema::read(&json!({"type": "object", "properties": {
            "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}}));
        let mut errors = Errors::default();
        validate_lists(
            &schema,
            &json!({"s": ["a", "a"], "m": [{"k": "1"}, {"k": "1", "v": 1}]}),
            "",
            &mut errors,
        );
        assert_eq!(
            errors.to_string(),
            "[s[1]: Duplicate value: \"a\", m[1]: Duplicate value: {\"k\":\"1\"}]"
        );
    }
}
