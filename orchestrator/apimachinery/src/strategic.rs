//! Strategic merge patch: lists merge by a key that the schema names
//! (apimachinery: pkg/util/strategicpatch/patch.go).

use serde_json::{Map, Value};

use crate::schema::{Field, Schemas, Type};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// Applies a patch to an object of type `ty`.
pub fn merge(schemas: &Schemas, ty: &Type, original: &Value, patch: &Value) -> Result<Value, String> {
    let (Value::Object(o), Value::Object(p)) = (original, patch) else {
        return Err("a strategic merge patch and what it patches must be objects".to_owned());
    };
    let mut out = o.clone();
    merge_map(schemas, ty, &mut out, p)?;
    Ok(Value::Object(out))
}

fn field_of<'s>(schemas: &'s Schemas, ty: &Type, key: &str) -> Option<&'s Field> {
    match ty {
        Type::Struct(n) => schemas.get(*n).field(key),
        _ => None,
    }
}

fn type_of<'a>(field: Option<&'a Field>, parent: &'a Type) -> &'a Type {
    match (field, parent) {
        (Some(f), _) => &f.ty,
        (None, Type::Map(inner)) => inner,
        _ => &Type::Any,
    }
}

fn merge_map(
    schemas: &Schemas,
    ty: &Type,
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), String> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => {
            *original = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            original.clear();
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(format!("Unknown patch directive {other:?}")),
    }
    if let Some(Value::Array(keep)) = patch.get(RETAIN) {
        original.retain(|k, _| keep.iter().any(|x| x == k));
    }
    for (key, gone) in patch.iter().filter_map(|(k, v)| k.strip_prefix(DELETE).map(|k| (k, v))) {
        if let (Some(Value::Array(list)), Value::Array(gone)) = (original.get_mut(key), gone) {
            list.retain(|x| !gone.contains(x));
        }
    }
    for (key, p) in patch {
        if key.starts_with('$') {
            continue;
        }
        let field = field_of(schemas, ty, key);
        let inner = type_of(field, ty);
        match (original.get_mut(key), p) {
            (_, Value::Null) => drop(original.shift_remove(key)),
            (Some(Value::Object(o)), Value::Object(p)) => merge_map(schemas, inner, o, p)?,
            (Some(Value::Array(o)), Value::Array(p)) if field.is_some_and(|f| f.merge) => {
                let key = field.and_then(|f| f.merge_key.as_deref());
                let element = match inner {
                    Type::List(e, _) => e,
                    _ => &Type::Any,
                };
                *o = merge_list(schemas, element, key, std::mem::take(o), p)?;
            }
            _ => drop(original.insert(key.clone(), strip(p, field))),
        }
    }
    for (key, order) in patch.iter().filter_map(|(k, v)| k.strip_prefix(ORDER).map(|k| (k, v))) {
        let merge_key = field_of(schemas, ty, key).and_then(|f| f.merge_key.clone());
        if let (Some(Value::Array(list)), Value::Array(order)) = (original.get_mut(key), order) {
            let server: Vec<Value> = list.clone();
            *list = reorder(std::mem::take(list), order, &server, merge_key.as_deref());
        }
    }
    Ok(())
}

fn merge_list(
    schemas: &Schemas,
    element: &Type,
    key: Option<&str>,
    original: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, String> {
    let Some(key) = key else {
        // Scalars: a union, the patch's order first.
        let mut merged = original.clone();
        for p in patch {
            if !merged.contains(p) {
                merged.push(p.clone());
            }
        }
        return Ok(reorder(merged, patch, &original, None));
    };
    let directive = |p: &Value, word: &str| p.get(DIRECTIVE).is_some_and(|d| d == word);
    if patch.iter().any(|p| directive(p, "replace")) {
        let rest =
            patch.iter().filter(|p| p.get(DIRECTIVE).is_none() || p.as_object().is_some_and(|m| m.len() > 1));
        return Ok(rest.map(|p| strip(p, None)).collect());
    }
    let mut merged = original.clone();
    let mut named = Vec::new();
    for p in patch {
        let id = p.get(key).ok_or_else(|| format!("map: {p} does not contain declared merge key: {key}"))?;
        if directive(p, "delete") {
            merged.retain(|o| o.get(key) != Some(id));
            continue;
        }
        named.push(p.clone());
        match merged.iter_mut().find(|o| o.get(key) == Some(id)) {
            Some(Value::Object(o)) => {
                if let Value::Object(p) = p {
                    merge_map(schemas, element, o, p)?;
                }
            }
            _ => merged.push(strip(p, None)),
        }
    }
    Ok(reorder(merged, &named, &original, Some(key)))
}

/// Elements that the patch names stand in its order; the others keep their places between them.
fn reorder(merged: Vec<Value>, order: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let id = |v: &Value| match key {
        Some(k) => v.get(k).cloned().unwrap_or(Value::Null),
        None => v.clone(),
    };
    let place = |list: &[Value], v: &Value| {
        let wanted = id(v);
        list.iter().position(|x| id(x) == wanted)
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|v| place(order, v).is_some());
    named.sort_by_key(|v| place(order, v));
    others.sort_by_key(|v| place(server, v));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(n), Some(o)) = (named.peek(), others.peek()) {
        let other_first = match (place(server, n), place(server, o)) {
            (Some(n), Some(o)) => n > o,
            _ => false,
        };
        out.extend(if other_first { others.next() } else { named.next() });
    }
    out.extend(named);
    out.extend(others);
    out
}

/// What a patch adds where nothing was: without its directives and nulls.
fn strip(p: &Value, field: Option<&Field>) -> Value {
    match p {
        Value::Object(m) => Value::Object(without_directives(m)),
        Value::Array(l) => {
            let kept = l.iter().filter(|v| v.get(DIRECTIVE).is_none_or(|d| d != "delete") || field.is_none());
            Value::Array(
                kept.filter(|v| v.as_object().is_none_or(|m| m.len() != 1 || !m.contains_key(DIRECTIVE)))
                    .map(|v| strip(v, None))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

fn without_directives(m: &Map<String, Value>) -> Map<String, Value> {
    m.iter()
        .filter(|(k, v)| !is_directive(k) && !v.is_null())
        .map(|(k, v)| (k.clone(), strip(v, None)))
        .collect()
}

fn is_directive(k: &str) -> bool {
    k == DIRECTIVE || k == RETAIN || k.starts_with(ORDER) || k.starts_with(DELETE)
}

/// JSON merge patch (RFC 7386).
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(p) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(t) = target {
        for (k, v) in p {
            if v.is_null() {
                t.shift_remove(k);
            } else {
                merge_patch(t.entry(k.clone()).or_insert(Value::Null), v);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::schemas;
    use serde_json::json;

    fn check(original: Value, patch: Value, expect: Value) {
        let s = schemas();
        let ty = s.kind("apps", "v1", "Deployment").expect("deployments are a kind");
        assert_eq!(merge(s, &ty, &original, &patch).expect("a good patch"), expect, "{patch}");
    }

    fn pod(spec: Value) -> Value {
        json!({"spec": {"template": {"spec": spec}}})
    }

    #[test]
    fn lists_merge_by_key() {
        check(
            pod(json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]})),
            pod(json!({"containers": [{"name": "b", "image": "2"}]})),
            pod(json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]})),
        );
        check(
            pod(json!({"containers": [{"name": "a"}, {"name": "b"}]})),
            pod(json!({"containers": [{"name": "a", "$patch": "delete"}]})),
            pod(json!({"containers": [{"name": "b"}]})),
        );
        check(
            pod(json!({"containers": [{"name": "a", "image": "1"}]})),
            pod(
                json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "b", "image": "2"}]}),
            ),
            pod(json!({"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}]})),
        );
        check(
            pod(json!({"tolerations": [{"key": "a"}]})),
            pod(json!({"tolerations": [{"key": "b"}]})),
            pod(json!({"tolerations": [{"key": "b"}]})),
        );
    }

    #[test]
    fn directives() {
        check(
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        );
        check(
            json!({"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1"}}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"], "labels": {"x": null, "y": "2"}}}),
            json!({"metadata": {"finalizers": ["c", "b"], "labels": {"y": "2"}}}),
        );
        check(
            json!({"spec": {"replicas": 1, "paused": true}}),
            json!({"spec": {"$patch": "replace", "replicas": 2}}),
            json!({"spec": {"replicas": 2}}),
        );
    }

    #[test]
    fn merge_patch_as_the_rfc_says() {
        let check = |mut target: Value, patch: Value, expect: Value| {
            merge_patch(&mut target, &patch);
            assert_eq!(target, expect);
        };
        check(json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"}));
        check(json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"}));
        check(json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}}));
        check(json!(["a"]), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}}));
    }
}
