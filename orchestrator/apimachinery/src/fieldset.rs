//! Server-side apply: sets of fields, who owns them, and merging by them (KEP-555).
//!
//! A set is a tree in the form of FieldsV1: a key is `f:NAME` for a field, `k:{KEYS}` for an element of a
//! keyed list, `v:VALUE` for an element of a set; an empty node is a member, `.` makes an inner node one.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::schema::{Field, Key, ListKind, Schemas, Type};

/// A set of fields.
pub type Set = Map<String, Value>;

const SELF: &str = ".";

fn leaf() -> Value {
    Value::Object(Map::new())
}

/// How a value with this schema is looked into; `None`: it is one value.
enum Inside<'a> {
    Fields(&'a Type),
    Keyed(&'a Type, &'a [Key]),
    Set,
}

fn inside<'a>(schemas: &'a Schemas, ty: &'a Type, field: Option<&'a Field>) -> Option<Inside<'a>> {
    match ty {
        _ if field.is_some_and(|f| f.atomic) => None,
        Type::Struct(n) if schemas.get(*n).atomic => None,
        Type::Struct(_) | Type::Map(_) | Type::Free => Some(Inside::Fields(ty)),
        Type::List(element, ListKind::Map(keys)) => Some(Inside::Keyed(element, keys)),
        Type::List(_, ListKind::Set) => Some(Inside::Set),
        _ => None,
    }
}

fn child<'a>(schemas: &'a Schemas, ty: &'a Type, name: &str) -> (&'a Type, Option<&'a Field>) {
    match ty {
        Type::Struct(n) => match schemas.get(*n).field(name) {
            Some(f) => (&f.ty, Some(f)),
            None => (&Type::Free, None),
        },
        Type::Map(inner) => (inner, None),
        _ => (&Type::Free, None),
    }
}

/// Makes an inner node a member, too.
fn with_self(mut node: Value) -> Value {
    if let Value::Object(m) = &mut node {
        m.insert(SELF.to_owned(), leaf());
        m.sort_keys();
    }
    node
}

/// What a key of an object has. One that is no field of a struct is a member itself, since it can come and go.
fn build_key(schemas: &Schemas, inner: &Type, field: Option<&Field>, value: &Value) -> Value {
    let node = build(schemas, inner, field, value);
    match node.as_object().is_some_and(|m| !m.is_empty()) && field.is_none() {
        true => with_self(node),
        false => node,
    }
}

/// `k:{…}` of an element of a keyed list, keys sorted.
fn element_key(element: &Value, keys: &[Key]) -> String {
    let mut pairs: Vec<(&str, Value)> = keys
        .iter()
        .filter_map(|k| Some((&*k.name, element.get(&*k.name).or(k.default.as_ref())?.clone())))
        .collect();
    pairs.sort_by(|a, b| a.0.cmp(b.0));
    let map: Map<String, Value> = pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    format!("k:{}", Value::Object(map))
}

fn is_empty(v: &Value) -> bool {
    match v {
        Value::Null => true,
        Value::Object(m) => m.is_empty(),
        Value::Array(l) => l.is_empty(),
        _ => false,
    }
}

/// The fields an object has.
pub fn of(schemas: &Schemas, ty: &Type, value: &Value) -> Set {
    build(schemas, ty, None, value).as_object().cloned().unwrap_or_default()
}

fn build(schemas: &Schemas, ty: &Type, field: Option<&Field>, value: &Value) -> Value {
    let Some(kind) = inside(schemas, ty, field).filter(|_| !is_empty(value)) else { return leaf() };
    let mut out = Map::new();
    match (kind, value) {
        (Inside::Fields(ty), Value::Object(m)) => {
            for (k, v) in m {
                let (inner, f) = child(schemas, ty, k);
                out.insert(format!("f:{k}"), build_key(schemas, inner, f, v));
            }
        }
        (Inside::Keyed(element, keys), Value::Array(l)) => {
            for e in l {
                out.insert(element_key(e, keys), with_self(build(schemas, element, None, e)));
            }
        }
        (Inside::Set, Value::Array(l)) => out.extend(l.iter().map(|e| (format!("v:{e}"), leaf()))),
        _ => {}
    }
    Value::Object(out)
}

/// The fields of `new` that `old` lacks or has differently.
pub fn changed(schemas: &Schemas, ty: &Type, old: &Value, new: &Value) -> Set {
    diff(schemas, ty, None, old, new).and_then(|v| v.as_object().cloned()).unwrap_or_default()
}

fn diff(schemas: &Schemas, ty: &Type, field: Option<&Field>, old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let Some(kind) = inside(schemas, ty, field).filter(|_| !is_empty(new) && !is_empty(old)) else {
        return Some(build(schemas, ty, field, new));
    };
    let mut out = Map::new();
    match (kind, old, new) {
        (Inside::Fields(ty), Value::Object(o), Value::Object(n)) => {
            for (k, v) in n {
                let (inner, f) = child(schemas, ty, k);
                let d = match o.get(k) {
                    Some(before) => diff(schemas, inner, f, before, v),
                    None => Some(build_key(schemas, inner, f, v)),
                };
                out.extend(d.map(|d| (format!("f:{k}"), d)));
            }
        }
        (Inside::Keyed(element, keys), Value::Array(o), Value::Array(n)) => {
            for e in n {
                let key = element_key(e, keys);
                let d = match o.iter().find(|x| element_key(x, keys) == key) {
                    Some(before) => diff(schemas, element, None, before, e),
                    None => Some(with_self(build(schemas, element, None, e))),
                };
                out.extend(d.map(|d| (key, d)));
            }
        }
        (Inside::Set, Value::Array(o), Value::Array(n)) => {
            out.extend(n.iter().filter(|e| !o.contains(e)).map(|e| (format!("v:{e}"), leaf())));
        }
        _ => return Some(build(schemas, ty, field, new)),
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn member(node: &Value) -> bool {
    node.as_object().is_none_or(|m| m.is_empty() || m.contains_key(SELF))
}

/// Everything in either.
pub fn union(a: &Set, b: &Set) -> Set {
    let mut out = a.clone();
    for (k, v) in b {
        let merged = match (out.get(k).and_then(Value::as_object), v.as_object()) {
            (Some(x), Some(y)) => {
                let mut m = union(x, y);
                // A leaf that gains children stays a member.
                if k != SELF && x.is_empty() != y.is_empty() {
                    m.insert(SELF.to_owned(), leaf());
                }
                Value::Object(m)
            }
            _ => v.clone(),
        };
        out.insert(k.clone(), merged);
    }
    out.sort_keys();
    out
}

/// What is in `a` and not in `b`.
pub fn difference(a: &Set, b: &Set) -> Set {
    let mut out = Map::new();
    for (k, v) in a {
        let Some(other) = b.get(k) else {
            out.insert(k.clone(), v.clone());
            continue;
        };
        let (Some(x), Some(y)) = (v.as_object(), other.as_object()) else { continue };
        let stays = member(v) && !member(other);
        let mut rest = difference(x, y);
        rest.shift_remove(SELF);
        if stays && !rest.is_empty() {
            rest.insert(SELF.to_owned(), leaf());
        }
        if stays || !rest.is_empty() {
            out.insert(k.clone(), Value::Object(rest));
        }
    }
    out
}

/// What is in both.
pub fn intersection(a: &Set, b: &Set) -> Set {
    let mut out = Map::new();
    for (k, v) in a {
        let Some(other) = b.get(k) else { continue };
        let (Some(x), Some(y)) = (v.as_object(), other.as_object()) else { continue };
        let both = member(v) && member(other);
        let mut inner = intersection(x, y);
        inner.shift_remove(SELF);
        if both && !inner.is_empty() {
            inner.insert(SELF.to_owned(), leaf());
        }
        if both || !inner.is_empty() {
            out.insert(k.clone(), Value::Object(inner));
        }
    }
    out
}

/// The members as readable paths: `.spec.replicas`, `.spec.containers[name="a"].image`.
pub fn paths(set: &Set) -> Vec<String> {
    let mut out = Vec::new();
    walk(set, &mut String::new(), &mut out);
    out
}

fn walk(set: &Set, at: &mut String, out: &mut Vec<String>) {
    for (k, v) in set.iter().filter(|(k, _)| *k != SELF) {
        let len = at.len();
        match k.split_once(':') {
            Some(("f", name)) => {
                at.push('.');
                at.push_str(name);
            }
            Some(("k", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let words: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                at.push_str(&format!("[{}]", words.join(",")));
            }
            Some(("v", value)) => at.push_str(&format!("[={value}]")),
            _ => {}
        }
        if member(v) {
            out.push(at.clone());
        }
        if let Value::Object(m) = v {
            walk(m, at, out);
        }
        at.truncate(len);
    }
}

/// `live` with everything `applied` says.
pub fn merge(schemas: &Schemas, ty: &Type, live: &Value, applied: &Value) -> Value {
    merge_at(schemas, ty, None, live, applied)
}

fn merge_at(schemas: &Schemas, ty: &Type, field: Option<&Field>, live: &Value, applied: &Value) -> Value {
    match (inside(schemas, ty, field), live, applied) {
        (Some(Inside::Fields(ty)), Value::Object(l), Value::Object(a)) => {
            let mut out = l.clone();
            for (k, v) in a {
                let (inner, f) = child(schemas, ty, k);
                let merged = match l.get(k) {
                    Some(before) => merge_at(schemas, inner, f, before, v),
                    None => v.clone(),
                };
                out.insert(k.clone(), merged);
            }
            Value::Object(out)
        }
        (Some(Inside::Keyed(element, keys)), Value::Array(l), Value::Array(a)) => {
            let merged = |l: Option<&Value>, a: Option<&Value>| match (l, a) {
                (Some(l), Some(a)) => merge_at(schemas, element, None, l, a),
                (one, other) => one.or(other).cloned().unwrap_or_default(),
            };
            Value::Array(merge_lists(l, a, |e| element_key(e, keys), merged))
        }
        (Some(Inside::Set), Value::Array(l), Value::Array(a)) => {
            let one = |l: Option<&Value>, a: Option<&Value>| a.or(l).cloned().unwrap_or_default();
            Value::Array(merge_lists(l, a, Value::to_string, one))
        }
        // Null has no opinion on what is inside.
        (Some(_), l, Value::Null) if !is_empty(l) => l.clone(),
        _ => applied.clone(),
    }
}

/// The elements of both: those applied in the order in which they are applied, and each of the others where it stood,
/// before what followed it (structured-merge-diff from v4.4 on).
fn merge_lists(
    live: &[Value],
    applied: &[Value],
    key: impl Fn(&Value) -> String,
    merged: impl Fn(Option<&Value>, Option<&Value>) -> Value,
) -> Vec<Value> {
    let keys = |l: &[Value]| l.iter().map(&key).collect::<Vec<String>>();
    let (live_keys, applied_keys) = (keys(live), keys(applied));
    let first = |l: &'_ [Value], keys: &[String]| {
        keys.iter().enumerate().rev().map(|(i, k)| (k.clone(), l[i].clone())).collect::<HashMap<_, _>>()
    };
    let (of_live, of_applied) = (first(live, &live_keys), first(applied, &applied_keys));
    // Keys of both, as they are applied: the next one that is due.
    let mut shared = applied_keys.iter().filter(|k| of_live.contains_key(*k)).peekable();
    let mut done: HashSet<&str> = HashSet::new();
    let mut out = Vec::with_capacity(live.len().max(applied.len()));
    let (mut l, mut a) = (0, 0);
    while l < live.len() || a < applied.len() {
        if let (Some(lk), Some(ak)) = (live_keys.get(l), applied_keys.get(a)) {
            if lk == ak {
                out.push(merged(of_live.get(lk), of_applied.get(ak)));
                done.insert(lk);
                (l, a) = (l + 1, a + 1);
                shared.next();
                continue;
            }
            if of_applied.contains_key(lk) && shared.peek().is_some_and(|due| *due != lk) {
                // It comes where it is applied.
                l += 1;
                continue;
            }
        }
        if let Some(lk) = live_keys.get(l) {
            if !of_applied.contains_key(lk) {
                out.push(merged(Some(&live[l]), None));
                l += 1;
                continue;
            }
            if done.contains(&**lk) {
                l += 1;
            }
        }
        if let Some(ak) = applied_keys.get(a) {
            out.push(merged(of_live.get(ak), of_applied.get(ak)));
            done.insert(ak);
            a += 1;
            if shared.peek().is_some_and(|due| *due == ak) {
                shared.next();
            }
        }
    }
    out
}

/// `value` without the fields in `set`.
pub fn remove(schemas: &Schemas, ty: &Type, value: &mut Value, set: &Set) {
    remove_at(schemas, ty, None, value, set);
}

fn remove_at(schemas: &Schemas, ty: &Type, field: Option<&Field>, value: &mut Value, set: &Set) {
    match (inside(schemas, ty, field), value) {
        (Some(Inside::Fields(ty)), Value::Object(m)) => {
            for (k, node) in set {
                let Some(name) = k.strip_prefix("f:") else { continue };
                let Some(inner) = node.as_object() else { continue };
                if member(node) {
                    m.shift_remove(name);
                } else if let Some(v) = m.get_mut(name) {
                    let (t, f) = child(schemas, ty, name);
                    remove_at(schemas, t, f, v, inner);
                    if is_empty(v) {
                        m.shift_remove(name);
                    }
                }
            }
        }
        (Some(Inside::Keyed(element, keys)), Value::Array(l)) => {
            l.retain_mut(|e| match set.get(&element_key(e, keys)).and_then(Value::as_object) {
                None => true,
                Some(node) if node.is_empty() || node.contains_key(SELF) => false,
                Some(node) => {
                    remove_at(schemas, element, None, e, node);
                    true
                }
            });
        }
        (Some(Inside::Set), Value::Array(l)) => l.retain(|e| !set.contains_key(&format!("v:{e}"))),
        _ => {}
    }
}

/// The members of `set` whose values differ between two objects.
pub fn differing(schemas: &Schemas, ty: &Type, set: &Set, a: &Value, b: &Value) -> Set {
    let either = union(&changed(schemas, ty, a, b), &changed(schemas, ty, b, a));
    intersection(set, &either)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::schemas;
    use serde_json::json;

    fn deployment() -> Type {
        schemas().kind("apps", "v1", "Deployment").expect("deployments are a kind")
    }

    fn set(v: Value) -> Set {
        v.as_object().cloned().expect("a set")
    }

    #[test]
    fn fields_of_an_object() {
        let o = json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["x"]}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}}});
        let expect = json!({
            "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x\"": {}}},
            "f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}, "f:ports": {
                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}},
        });
        assert_eq!(Value::Object(of(schemas(), &deployment(), &o)), expect);
    }

    #[test]
    fn algebra() {
        let a = set(json!({"f:a": {}, "f:b": {"f:c": {}, "f:d": {}}}));
        let b = set(json!({"f:b": {"f:d": {}}, "f:e": {}}));
        assert_eq!(Value::Object(difference(&a, &b)), json!({"f:a": {}, "f:b": {"f:c": {}}}));
        assert_eq!(Value::Object(intersection(&a, &b)), json!({"f:b": {"f:d": {}}}));
        assert_eq!(
            union(&difference(&a, &b), &union(&intersection(&a, &b), &difference(&b, &a))),
            union(&a, &b)
        );
        assert_eq!(paths(&a), [".a", ".b.c", ".b.d"]);
    }

    #[test]
    fn lists_are_merged_in_the_order_of_the_apply() {
        let merged = |live: &str, applied: &str| {
            let chars = |s: &str| s.chars().map(|c| c.to_string().into()).collect::<Vec<Value>>();
            let one = |l: Option<&Value>, a: Option<&Value>| a.or(l).cloned().unwrap_or_default();
            let out = merge_lists(&chars(live), &chars(applied), Value::to_string, one);
            out.iter().filter_map(Value::as_str).collect::<String>()
        };
        for (live, applied, expect) in [
            ("", "ab", "ab"),
            ("ab", "", "ab"),
            ("ac", "abcd", "abcd"),
            ("abcd", "adcb", "adcb"),
            ("xay", "a", "xay"),
            ("xayb", "ba", "xyba"),
            ("abxc", "cb", "axcb"),
            ("abcd", "aecf", "abecdf"),
        ] {
            assert_eq!(merged(live, applied), expect, "{live} with {applied}");
        }
    }

    #[test]
    fn merging_and_removing() {
        let s = schemas();
        let ty = deployment();
        let live = json!({"spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "side", "image": "1"}]}}}});
        let applied = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "2"}]}}}});
        let mut merged = merge(s, &ty, &live, &applied);
        assert_eq!(
            merged["spec"]["template"]["spec"]["containers"],
            json!([{"name": "a", "image": "2"}, {"name": "side", "image": "1"}])
        );
        let gone = set(
            json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"side\"}": {".": {}, "f:name": {}}}}}}}),
        );
        remove(s, &ty, &mut merged, &gone);
        assert_eq!(
            merged,
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "2"}]}}}})
        );
    }
}
