//! Keys that stand twice in one object: the last one counts, and the client is told of it
//! (sigs.k8s.io/json: DisallowDuplicateFields).

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Deeper than the parser goes nobody gets here.
struct Walk<'a> {
    path: &'a str,
    seen: &'a mut Vec<Seen>,
}

/// What stands twice in a document.
#[derive(Clone, Debug, Default)]
pub(crate) struct Twice {
    /// Every key of it, if one stands twice.
    seen: Vec<Seen>,
    /// What a reader of YAML says of it.
    yaml: Option<String>,
}

impl Twice {
    pub(crate) fn in_json(bytes: &[u8], parsed: &Value) -> Twice {
        Twice { seen: find(bytes, parsed), yaml: None }
    }

    pub(crate) fn in_yaml(why: &str) -> Twice {
        Twice { seen: Vec::new(), yaml: Some(format!("yaml: unmarshal errors: {why}")) }
    }

    /// What is said of it and of the fields that nobody knows.
    pub(crate) fn told(&self, unknown: Vec<String>) -> Vec<String> {
        self.yaml.iter().cloned().chain(told(&self.seen, unknown)).collect()
    }
}

/// A key of the document, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    path: String,
    again: bool,
}

/// The keys of a document if one of them stands twice; nothing if none does, as almost always.
fn find(bytes: &[u8], parsed: &Value) -> Vec<Seen> {
    if members_written(bytes) == members(parsed) {
        return Vec::new();
    }
    let mut seen = Vec::new();
    let mut document = serde_json::Deserializer::from_slice(bytes);
    // The document was parsed before.
    match (Walk { path: "", seen: &mut seen }).deserialize(&mut document) {
        Ok(()) => seen,
        Err(_) => Vec::new(),
    }
}

/// What is said of the fields that nobody knows, and of those that stand twice, in the order of the document.
fn told(seen: &[Seen], mut unknown: Vec<String>) -> Vec<String> {
    let say_unknown = |path: &str| format!("unknown field \"{path}\"");
    if seen.is_empty() {
        return unknown.iter().map(|u| say_unknown(u)).collect();
    }
    let mut out = Vec::new();
    let mut said = HashSet::new();
    let mut nowhere: Option<&str> = None;
    for key in seen {
        let inside = |of: &str| key.path.strip_prefix(of).is_some_and(|r| r.starts_with(['.', '[']));
        if nowhere.is_some_and(|of| of == key.path || inside(of)) {
            continue;
        }
        if let Some(at) = unknown.iter().position(|u| *u == key.path) {
            out.push(say_unknown(&unknown.remove(at)));
            nowhere = Some(&key.path);
        } else if key.again && said.insert(key.path.as_str()) {
            out.push(format!("duplicate field \"{}\"", key.path));
        }
    }
    out.extend(unknown.iter().map(|u| say_unknown(u)));
    out
}

/// How many members the objects of a document have: colons outside of strings.
fn members_written(bytes: &[u8]) -> usize {
    let (mut n, mut quoted, mut escaped) = (0, false, false);
    for b in bytes {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b':' if !quoted => n += 1,
            _ => {}
        }
    }
    n
}

fn members(v: &Value) -> usize {
    match v {
        Value::Object(m) => m.len() + m.values().map(members).sum::<usize>(),
        Value::Array(l) => l.iter().map(members).sum(),
        _ => 0,
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let sep = if self.path.is_empty() { "" } else { "." };
            let path = format!("{}{sep}{key}", self.path);
            self.seen.push(Seen { path: path.clone(), again: !keys.insert(key) });
            map.next_value_seed(Walk { path: &path, seen: self.seen })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut i = 0;
        loop {
            let path = format!("{}[{i}]", self.path);
            if list.next_element_seed(Walk { path: &path, seen: self.seen })?.is_none() {
                return Ok(());
            }
            i += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_stands_twice() {
        let check = |text: &str, unknown: &[&str], expect: &[&str]| {
            let parsed = serde_json::from_str(text).expect("JSON");
            let unknown = unknown.iter().map(|u| (*u).to_owned()).collect();
            assert_eq!(told(&find(text.as_bytes(), &parsed), unknown), expect, "{text}");
        };
        check(r#"{"a": "b:c\":", "d": [{"e": 1}]}"#, &[], &[]);
        check(r#"{"a": 1, "b": {"c": 1, "c": 2, "c": 3}}"#, &[], &[r#"duplicate field "b.c""#]);
        check(
            r#"{"spec": {"x": 1, "y": 1, "y": 2, "paused": true, "paused": false, "l": [{"n": 1}, {"p": 1, "p": 2}]}}"#,
            &["spec.x", "spec.y", "spec.l[0].n"],
            &[
                r#"unknown field "spec.x""#,
                r#"unknown field "spec.y""#,
                r#"duplicate field "spec.paused""#,
                r#"unknown field "spec.l[0].n""#,
                r#"duplicate field "spec.l[1].p""#,
            ],
        );
        check(r#"{"z": {"y": 1}, "b": 1}"#, &["z", "b"], &[r#"unknown field "z""#, r#"unknown field "b""#]);
    }
}
