//! What an aggregated API adds to the one document that OpenAPI v2 is: its paths, and the definitions they lead to
//! (kube-openapi: pkg/aggregator). Definitions that differ from ours of the same name get another name, as upstream's.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

const PREFIX: &str = "#/definitions/";

#[derive(Debug, Default)]
pub(crate) struct Document {
    paths: Map<String, Value>,
    definitions: Map<String, Value>,
}

impl Document {
    /// The part of a server's document that is about one of its group-versions; `None` if it says nothing of it.
    pub(crate) fn of(v2: &Value, group: &str, version: &str) -> Option<Document> {
        let base = format!("/apis/{group}/{version}");
        let own =
            |p: &str| p.strip_prefix(&base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let paths: Map<String, Value> = v2["paths"]
            .as_object()?
            .iter()
            .filter(|(p, _)| own(p))
            .map(|(p, v)| (p.clone(), v.clone()))
            .collect();
        let mut names = BTreeSet::new();
        let mut look: Vec<&Value> = paths.values().collect();
        while let Some(v) = look.pop() {
            each_reference(v, &mut |name| {
                if names.insert(name.to_owned()) {
                    look.extend(v2["definitions"].get(name));
                }
            });
        }
        let definitions =
            names.into_iter().filter_map(|n| Some((n.clone(), v2["definitions"].get(&n)?.clone())));
        let definitions = definitions.collect();
        (!paths.is_empty()).then_some(Document { paths, definitions })
    }

    /// Adds it to ours; what we have stays.
    pub(crate) fn add_to(&self, paths: &mut Map<String, Value>, definitions: &mut Map<String, Value>) {
        let mut renamed: HashMap<&str, String> = HashMap::new();
        for (name, definition) in &self.definitions {
            if definitions.get(name).is_some_and(|d| d != definition) {
                let other = (2..).map(|n| format!("{name}_v{n}"));
                let free = |n: &String| !definitions.contains_key(n) && !self.definitions.contains_key(n);
                renamed.extend(other.into_iter().find(free).map(|n| (name.as_str(), n)));
            }
        }
        for (name, definition) in &self.definitions {
            let name = renamed.get(name.as_str()).unwrap_or(name);
            if !definitions.contains_key(name) {
                definitions.insert(name.clone(), pointed(definition, &renamed));
            }
        }
        for (path, item) in &self.paths {
            if !paths.contains_key(path) {
                paths.insert(path.clone(), pointed(item, &renamed));
            }
        }
    }
}

fn each_reference<'a>(v: &'a Value, found: &mut impl FnMut(&'a str)) {
    match v {
        Value::Object(m) => {
            for (k, v) in m {
                match v {
                    Value::String(r) if k == "$ref" => {
                        r.strip_prefix(PREFIX).into_iter().for_each(&mut *found)
                    }
                    v => each_reference(v, found),
                }
            }
        }
        Value::Array(l) => l.iter().for_each(|v| each_reference(v, found)),
        _ => {}
    }
}

/// With references to what has another name here.
fn pointed(v: &Value, renamed: &HashMap<&str, String>) -> Value {
    match v {
        Value::Object(m) => {
            let other = |k: &str, v: &Value| {
                let name = v.as_str().filter(|_| k == "$ref")?.strip_prefix(PREFIX)?;
                Some(Value::String(format!("{PREFIX}{}", renamed.get(name)?)))
            };
            m.iter().map(|(k, v)| (k.clone(), other(k, v).unwrap_or_else(|| pointed(v, renamed)))).collect()
        }
        Value::Array(l) => l.iter().map(|v| pointed(v, renamed)).collect(),
        v => v.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_part_brings_what_it_needs_and_takes_nothing_over() {
        let theirs = json!({
            "paths": {"/apis/a/v1/x": {"get": {"$ref": "#/definitions/X"}}, "/apis/a/v10/y": {"$ref": "#/definitions/Z"}},
            "definitions": {"X": {"properties": {"m": {"$ref": "#/definitions/Meta"}, "x": {"$ref": "#/definitions/X"}}},
                "Meta": {"description": "theirs"}, "Z": {}}
        });
        let part = Document::of(&theirs, "a", "v1").expect("it is there");
        let (mut paths, mut definitions) = (Map::new(), Map::new());
        definitions.insert("Meta".to_owned(), json!({"description": "ours"}));
        part.add_to(&mut paths, &mut definitions);
        assert_eq!(Value::Object(paths), json!({"/apis/a/v1/x": {"get": {"$ref": "#/definitions/X"}}}));
        assert_eq!(
            Value::Object(definitions),
            json!({"Meta": {"description": "ours"}, "Meta_v2": {"description": "theirs"},
                "X": {"properties": {"m": {"$ref": "#/definitions/Meta_v2"}, "x": {"$ref": "#/definitions/X"}}}})
        );
        assert!(Document::of(&theirs, "b", "v1").is_none());
        assert!(Document::of(&json!([]), "a", "v1").is_none());
    }
}
