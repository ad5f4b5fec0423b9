//! A structural schema, read once from a CustomResourceDefinition
//! (apiextensions-apiserver: pkg/apiserver/schema/structural.go).

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

/// `type` of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub(crate) fn parse(s: &str) -> Option<Type> {
        Some(match s {
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            _ => return None,
        })
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
        }
    }
}

/// How elements of a list are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// A bound of a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) value: f64,
    pub(crate) exclusive: bool,
}

/// A CEL rule as written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    pub(crate) rule: String,
    pub(crate) message: String,
    pub(crate) message_expression: String,
    pub(crate) reason: Option<String>,
    pub(crate) field_path: String,
    pub(crate) optional_old_self: Option<bool>,
}

/// One node of a schema.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schema {
    pub(crate) ty: Option<Type>,
    pub(crate) format: String,
    pub(crate) nullable: bool,
    pub(crate) preserve: bool,
    pub(crate) embedded: bool,
    pub(crate) int_or_string: bool,
    pub(crate) default: Option<Value>,
    pub(crate) properties: BTreeMap<String, Schema>,
    /// `additionalProperties` with a schema.
    pub(crate) additional: Option<Box<Schema>>,
    /// `additionalProperties: true`.
    pub(crate) additional_any: bool,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) list: ListType,
    pub(crate) required: Vec<String>,
    pub(crate) enumeration: Vec<Value>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) minimum: Option<Bound>,
    pub(crate) maximum: Option<Bound>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Box<Schema>>,
    pub(crate) rules: Vec<Rule>,
}

impl Schema {
    /// Reads a schema that was checked before; what is not understood counts as absent.
    pub(crate) fn read(v: &Value) -> Schema {
        let text = |k: &str| v[k].as_str().unwrap_or_default().to_owned();
        let flag = |k: &str| v[k].as_bool().unwrap_or(false);
        let number = |k: &str| v[k].as_u64();
        let list = |k: &str| v[k].as_array().into_iter().flatten().map(Schema::read).collect::<Vec<_>>();
        let texts = |k: &str| -> Vec<String> {
            v[k].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let bound =
            |k: &str, exclusive: &str| v[k].as_f64().map(|value| Bound { value, exclusive: flag(exclusive) });
        let one = |k: &str| v[k].is_object().then(|| Box::new(Schema::read(&v[k])));
        let properties = v["properties"].as_object().into_iter().flatten();
        Schema {
            ty: v["type"].as_str().and_then(Type::parse),
            format: text("format"),
            nullable: flag("nullable"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            default: v.get("default").filter(|d| !d.is_null()).cloned(),
            properties: properties.map(|(k, v)| (k.clone(), Schema::read(v))).collect(),
            additional: one("additionalProperties"),
            additional_any: flag("additionalProperties"),
            items: one("items"),
            list: match v["x-kubernetes-list-type"].as_str() {
                Some("set") => ListType::Set,
                Some("map") => ListType::Map(texts("x-kubernetes-list-map-keys")),
                _ => ListType::Atomic,
            },
            required: texts("required"),
            enumeration: v["enum"].as_array().cloned().unwrap_or_default(),
            pattern: v["pattern"].as_str().filter(|p| !p.is_empty()).and_then(|p| Regex::new(p).ok()),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: v["multipleOf"].as_f64(),
            min_length: number("minLength"),
            max_length: number("maxLength"),
            min_items: number("minItems"),
            max_items: number("maxItems"),
            unique_items: flag("uniqueItems"),
            min_properties: number("minProperties"),
            max_properties: number("maxProperties"),
            all_of: list("allOf"),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            not: one("not"),
            rules: v["x-kubernetes-validations"].as_array().into_iter().flatten().map(rule).collect(),
        }
    }

    /// Whether this or a schema inside is like that.
    pub(crate) fn any(&self, is: &dyn Fn(&Schema) -> bool) -> bool {
        is(self)
            || self.properties.values().any(|s| s.any(is))
            || self.additional.as_ref().is_some_and(|s| s.any(is))
            || self.items.as_ref().is_some_and(|s| s.any(is))
            || self.all_of.iter().any(|s| s.any(is))
    }
}

fn rule(v: &Value) -> Rule {
    let text = |k: &str| v[k].as_str().unwrap_or_default().to_owned();
    Rule {
        rule: text("rule"),
        message: text("message"),
        message_expression: text("messageExpression"),
        reason: v["reason"].as_str().map(str::to_owned),
        field_path: text("fieldPath"),
        optional_old_self: v["optionalOldSelf"].as_bool(),
    }
}
