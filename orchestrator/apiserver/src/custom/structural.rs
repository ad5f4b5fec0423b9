//! Whether a schema is structural: every field is specified outside of logic, and nothing contradicts itself
//! (apiextensions-apiserver: pkg/apiserver/schema/{validation,complete}.go).

use serde_json::{Value, json};

use super::rules;
use super::schema::Schema;
use super::{shape, values};
use crate::object;
use crate::validation::Errors;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What is known of the place a node stands at.
#[derive(Clone, Default)]
struct Place {
    /// Why no default may stand here.
    no_default: Option<String>,
    in_metadata: bool,
}

const ROOT_FIELDS: [&str; 22] = [
    "description",
    "type",
    "format",
    "title",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];
const ROOT_WORDS: &str = "only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource is enabled";

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_default()
}

fn fields<'a>(v: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    v[key].as_object().into_iter().flatten()
}

/// Judges the schema of a version; `at` is where its `openAPIV3Schema` stands.
pub(crate) fn check(schema: &Value, at: &str, status: bool, errors: &mut Errors) {
    let root = format!("{at}.openAPIV3Schema");
    if status {
        if schema.get("type").is_some_and(|t| t != "object") {
            let words = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            errors.invalid(format!("{root}.type"), text(schema, "type"), words);
        } else if fields_outside(schema) {
            errors.invalid(&*root, schema, ROOT_WORDS);
        }
    }
    if schema["nullable"] == true {
        errors.forbidden(format!("{root}.nullable"), "nullable cannot be true at the root");
    }
    let mut found = Errors::default();
    invariants(schema, Level::Root, &root, &mut found);
    complete(schema, &root, &mut found);
    if found.is_empty() {
        defaults(schema, &root, true, &mut found);
    }
    openapi(schema, true, &root, &Place::default(), &mut found);
    if found.is_empty() {
        rules::check(schema, &root, &mut found);
    }
    errors.append(found);
}

fn fields_outside(schema: &Value) -> bool {
    schema.as_object().into_iter().flatten().any(|(k, _)| !ROOT_FIELDS.contains(&k.as_str()))
}

fn invariants(s: &Value, level: Level, at: &str, errors: &mut Errors) {
    let ty = text(s, "type");
    let embedded = s["x-kubernetes-embedded-resource"] == true;
    let preserve = s["x-kubernetes-preserve-unknown-fields"] == true;
    let int_or_string = s["x-kubernetes-int-or-string"] == true;
    if ty == "array" && !s["items"].is_object() {
        errors.required(format!("{at}.items"), "must be specified");
    }
    if s["items"].is_object() {
        invariants(&s["items"], Level::Item, &format!("{at}.items"), errors);
    }
    for (k, v) in fields(s, "properties") {
        invariants(v, Level::Field, &format!("{at}.properties[{k}]"), errors);
    }
    if let Some(additional) = s.get("additionalProperties") {
        let at = format!("{at}.additionalProperties");
        if level == Level::Root {
            errors.forbidden(&*at, "must not be used at the root");
        }
        if additional.is_object() {
            invariants(additional, Level::Field, &at, errors);
        }
        if embedded {
            errors.forbidden(at, "must not be used if x-kubernetes-embedded-resource is set");
        }
    }
    if int_or_string && preserve {
        errors.invalid(
            format!("{at}.x-kubernetes-preserve-unknown-fields"),
            &json!(true),
            "must be false if x-kubernetes-int-or-string is true",
        );
    }
    if int_or_string && embedded {
        errors.invalid(
            format!("{at}.x-kubernetes-embedded-resource"),
            &json!(true),
            "must be false if x-kubernetes-int-or-string is true",
        );
    }
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let any_of = int_or_string && s["anyOf"] == either;
    let first_all_of = int_or_string && s["allOf"][0]["anyOf"] == either;
    logic(s, any_of, first_all_of, at, errors);
    root_type(s, ty, level, at, errors);
    if level == Level::Root || embedded {
        for key in ["kind", "apiVersion"] {
            if let Some(p) = s["properties"].get(key).filter(|p| text(p, "type") != "string") {
                errors.invalid(format!("{at}.properties[{key}].type"), text(p, "type"), "must be string");
            }
        }
    }
    if let Some(meta) = s["properties"].get("metadata") {
        metadata(meta, level, embedded, &format!("{at}.properties[metadata]"), errors);
    }
    if embedded && !preserve && fields(s, "properties").next().is_none() {
        errors.required(format!("{at}.properties"), "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields");
    }
}

fn root_type(s: &Value, ty: &str, level: Level, at: &str, errors: &mut Errors) {
    let at = format!("{at}.type");
    let free = s["x-kubernetes-int-or-string"] == true || s["x-kubernetes-preserve-unknown-fields"] == true;
    if s["x-kubernetes-embedded-resource"] == true && ty != "object" {
        let words = "must be object if x-kubernetes-embedded-resource is true";
        if ty.is_empty() { errors.required(&*at, words) } else { errors.invalid(&*at, ty, words) }
    } else if ty.is_empty() && !free {
        let words = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.required(&*at, words);
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        errors.invalid(at, ty, "must be object at the root");
    }
}

fn metadata(meta: &Value, level: Level, embedded: bool, at: &str, errors: &mut Errors) {
    if (level == Level::Root || embedded) && text(meta, "type") != "object" {
        errors.invalid(format!("{at}.type"), text(meta, "type"), "must be object");
    }
    if level != Level::Root {
        return;
    }
    let known = |k: &str| matches!(k, "name" | "generateName");
    let more = meta.as_object().into_iter().flatten().any(|(k, v)| match k.as_str() {
        "type" | "default" | "description" => false,
        "properties" => v.as_object().is_some_and(|p| !p.keys().all(|k| known(k))),
        _ => true,
    });
    if more {
        errors.forbidden(at, "must not specify anything other than name and generateName, but metadata is implicitly specified");
    }
}

/// The logic of a node may only judge values.
fn logic(s: &Value, skip_any_of: bool, skip_first_all_of: bool, at: &str, errors: &mut Errors) {
    for key in ["anyOf", "allOf", "oneOf"] {
        if key == "anyOf" && skip_any_of {
            continue;
        }
        for (i, inner) in object::list(s, key).iter().enumerate() {
            let skip = key == "allOf" && i == 0 && skip_first_all_of;
            nested(inner, skip, &format!("{at}.{key}[{i}]"), errors);
        }
    }
    if s["not"].is_object() {
        nested(&s["not"], false, &format!("{at}.not"), errors);
    }
    if let Some(p) = s["pattern"].as_str()
        && let Err(e) = regex::Regex::new(p)
    {
        let words = format!("must be a valid regular expression, but isn't: {e}");
        errors.invalid(format!("{at}.pattern"), p, &words);
    }
}

fn nested(v: &Value, skip_any_of: bool, at: &str, errors: &mut Errors) {
    logic(v, skip_any_of, false, at, errors);
    if v["items"].is_object() {
        nested(&v["items"], false, &format!("{at}.items"), errors);
    }
    for (k, p) in fields(v, "properties") {
        nested(p, false, &format!("{at}.properties[{k}]"), errors);
    }
    for (key, words) in [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("externalDocs", "must be undefined to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        let set = match v.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::String(s)) => !s.is_empty(),
            Some(Value::Array(l)) => !l.is_empty(),
            Some(_) => true,
        };
        if set {
            errors.forbidden(format!("{at}.{key}"), words);
        }
    }
    if v["properties"].get("metadata").is_some() {
        errors.forbidden(format!("{at}.properties[metadata]"), "must not be specified in a nested context");
    }
}

/// What logic speaks of is specified outside of it.
fn complete(s: &Value, at: &str, errors: &mut Errors) {
    let branches = ["anyOf", "allOf", "oneOf"].iter().flat_map(|k| object::list(s, k)).chain(s.get("not"));
    for inner in branches.collect::<Vec<_>>() {
        complete_nested(inner, s, at, errors);
    }
    for (k, v) in fields(s, "properties") {
        complete(v, &format!("{at}.properties[{k}]"), errors);
    }
    for key in ["items", "additionalProperties"] {
        if s[key].is_object() {
            complete(&s[key], &format!("{at}.{key}"), errors);
        }
    }
}

fn complete_nested(v: &Value, s: &Value, at: &str, errors: &mut Errors) {
    if v["items"].is_object() {
        if s["items"].is_object() {
            complete_nested(&v["items"], &s["items"], &format!("{at}.items"), errors);
        } else {
            errors.required(format!("{at}.items"), "because it is defined in a value validation");
        }
    }
    for (k, p) in fields(v, "properties") {
        let at = format!("{at}.properties[{k}]");
        match s["properties"].get(k) {
            Some(outside) => complete_nested(p, outside, &at, errors),
            None => errors.required(at, "because it is defined in a value validation"),
        }
    }
    for inner in ["anyOf", "allOf", "oneOf"].iter().flat_map(|k| object::list(v, k)).chain(v.get("not")) {
        complete_nested(inner, s, at, errors);
    }
}

/// A default is pruned and valid (apiextensions-apiserver: pkg/apiserver/schema/defaulting/validation.go).
fn defaults(s: &Value, at: &str, resource: bool, errors: &mut Errors) {
    if let Some(d) = s.get("default").filter(|d| !d.is_null()) {
        let at = format!("{at}.default");
        let schema = Schema::read(s);
        let mut pruned = d.clone();
        // What only looks like a resource to the pruner loses its names' fields too.
        if schema.embedded || !resource {
            let mut holder = json!({"x": pruned});
            let outer = Schema { properties: [("x".to_owned(), schema.clone())].into(), ..Schema::default() };
            let gone = shape::prune(&outer, &mut holder);
            pruned = holder["x"].take();
            if !gone.is_empty() {
                errors.invalid(&*at, d, "must not have unknown fields");
            }
        }
        shape::default(&schema, &mut pruned);
        let mut found = Errors::default();
        values::validate(&schema, &pruned, None, &mut found);
        errors.append_under(&at, found);
    }
    for (k, v) in fields(s, "properties") {
        if !(resource && k == "metadata") {
            defaults(v, &format!("{at}.properties[{k}]"), false, errors);
        }
    }
    for key in ["items", "additionalProperties"] {
        if s[key].is_object() {
            defaults(&s[key], &format!("{at}.{key}"), false, errors);
        }
    }
}

/// The rules every node of a v1 schema follows.
fn openapi(s: &Value, root: bool, at: &str, place: &Place, errors: &mut Errors) {
    const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
    let ty = text(s, "type");
    if ty == "null" {
        errors.forbidden(format!("{at}.type"), "type cannot be set to null, use nullable as an alternative");
    } else if !ty.is_empty() && !TYPES.contains(&ty) {
        errors.not_supported(format!("{at}.type"), ty, &TYPES);
    }
    if let Some(why) = place.no_default.as_ref().filter(|_| s.get("default").is_some()) {
        errors.forbidden(format!("{at}.default"), &format!("must not be set {why}"));
    }
    for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if s.get(key).is_some() {
            errors.forbidden(format!("{at}.{key}"), &format!("{key} is not supported"));
        }
    }
    if s["items"].is_array() {
        errors.forbidden(format!("{at}.items"), "items must be a schema object and not an array");
    }
    if place.in_metadata && s["x-kubernetes-embedded-resource"] == true {
        errors.forbidden(
            format!("{at}.x-kubernetes-embedded-resource"),
            "must not be used inside of resource meta",
        );
    }
    if s["uniqueItems"] == true {
        let words = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(format!("{at}.uniqueItems"), words);
    }
    if let Some(a) = s.get("additionalProperties") {
        let at = format!("{at}.additionalProperties");
        if fields(s, "properties").next().is_some() && *a != true {
            errors.forbidden(&*at, "additionalProperties and properties are mutual exclusive");
        }
        if a.is_object() {
            let mut inner = place.clone();
            if place.in_metadata {
                inner.no_default = Some("inside additionalProperties applying to object metadata".to_owned());
            }
            openapi(a, false, &at, &inner, errors);
        }
    }
    let embedded = s["x-kubernetes-embedded-resource"] == true;
    for (k, v) in fields(s, "properties") {
        let mut inner = place.clone();
        if (root || embedded) && matches!(k.as_str(), "metadata" | "kind" | "apiVersion") {
            inner.in_metadata = true;
            if root {
                inner.no_default = Some(format!("in top-level {k}"));
            }
        }
        openapi(v, false, &format!("{at}.properties[{k}]"), &inner, errors);
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        for (i, v) in object::list(s, key).iter().enumerate() {
            openapi(v, false, &format!("{at}.{key}[{i}]"), place, errors);
        }
    }
    for key in ["not", "items"] {
        if s[key].is_object() {
            openapi(&s[key], false, &format!("{at}.{key}"), place, errors);
        }
    }
    if s["x-kubernetes-preserve-unknown-fields"] == false {
        errors.invalid(
            format!("{at}.x-kubernetes-preserve-unknown-fields"),
            &json!(false),
            "must be true or undefined",
        );
    }
    extensions(s, ty, at, errors);
}

fn extensions(s: &Value, ty: &str, at: &str, errors: &mut Errors) {
    let wants = |key: &str, wanted: &str, errors: &mut Errors| {
        let words = format!("must be {wanted} if {key} is specified");
        match ty {
            t if t == wanted => {}
            "" => errors.required(format!("{at}.type"), &words),
            t => errors.invalid(format!("{at}.type"), t, &words),
        }
    };
    if let Some(m) = s["x-kubernetes-map-type"].as_str() {
        wants("x-kubernetes-map-type", "object", errors);
        if !matches!(m, "atomic" | "granular") {
            errors.not_supported(format!("{at}.x-kubernetes-map-type"), m, &["atomic", "granular"]);
        }
    }
    let list = s["x-kubernetes-list-type"].as_str();
    if let Some(l) = list {
        wants("x-kubernetes-list-type", "array", errors);
        if !matches!(l, "atomic" | "set" | "map") {
            errors.not_supported(format!("{at}.x-kubernetes-list-type"), l, &["atomic", "set", "map"]);
        }
    }
    let items = &s["items"];
    if list == Some("set") && ty == "array" {
        let inner = |key: &str| format!("{at}.items.{key}");
        let words = "must be atomic as item of a list with x-kubernetes-list-type=set";
        match text(items, "type") {
            "array" if items.get("x-kubernetes-list-type").is_some_and(|t| t != "atomic") => {
                errors.invalid(inner("x-kubernetes-list-type"), &items["x-kubernetes-list-type"], words);
            }
            "object" if items["x-kubernetes-map-type"] != "atomic" => {
                errors.invalid(inner("x-kubernetes-map-type"), &items["x-kubernetes-map-type"], words);
            }
            _ => {}
        }
    }
    list_keys(s, list, at, errors);
    if matches!(list, Some("set" | "map")) && items["nullable"] == true {
        let words = format!("cannot be nullable when x-kubernetes-list-type is {}", list.unwrap_or_default());
        errors.forbidden(format!("{at}.items.nullable"), &words);
    }
}

fn list_keys(s: &Value, list: Option<&str>, at: &str, errors: &mut Errors) {
    let keys = object::list(s, "x-kubernetes-list-map-keys");
    let field = format!("{at}.x-kubernetes-list-map-keys");
    if !keys.is_empty() && list != Some("map") {
        let words = "must be map if x-kubernetes-list-map-keys is non-empty";
        let at = format!("{at}.x-kubernetes-list-type");
        match list {
            None => errors.required(at, words),
            Some(l) => errors.invalid(at, l, words),
        }
    }
    if list != Some("map") {
        return;
    }
    if keys.is_empty() {
        errors.required(&*field, "must not be empty if x-kubernetes-list-type is map");
    }
    let items = &s["items"];
    if !items.is_object() {
        errors.required(format!("{at}.items"), "must have a schema if x-kubernetes-list-type is map");
        return;
    }
    if text(items, "type") != "object" {
        let words = "must be object if parent array's x-kubernetes-list-type is map";
        errors.invalid(format!("{at}.items.type"), text(items, "type"), words);
        return;
    }
    for (i, k) in keys.iter().filter_map(Value::as_str).enumerate() {
        let at = format!("{at}.items.properties[{k}]");
        let Some(p) = items["properties"].get(k) else {
            errors.invalid(
                &*field,
                &s["x-kubernetes-list-map-keys"],
                "entries must all be names of item properties",
            );
            continue;
        };
        if matches!(text(p, "type"), "array" | "object") {
            let words = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.invalid(format!("{at}.type"), text(items, "type"), words);
        }
        if keys[..i].iter().any(|b| *b == *k) {
            errors.invalid(&*field, &s["x-kubernetes-list-map-keys"], "must not contain duplicate entries");
        }
        let required = object::list(items, "required").iter().any(|r| *r == *k);
        if !required && p.get("default").is_none() {
            errors.required(format!("{at}.default"), "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property");
        }
        if p["nullable"] == true {
            errors.forbidden(
                format!("{at}.nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            );
        }
    }
}
