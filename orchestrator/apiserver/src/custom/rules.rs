//! `x-kubernetes-validations`: rules of the schema in the Common Expression Language
//! (apiextensions-apiserver: pkg/apiserver/schema/cel).

mod creation;

use std::collections::BTreeMap;

use expression::{Failure, Program, Type, Value as Cel, Variables, escape};
use serde_json::Value;

use super::schema::{self, ListType, Rule, Schema};
use crate::validation::Errors;

pub(crate) use creation::check;

/// What all rules of one object may cost, and one of them (apiserver: pkg/apis/cel/config.go).
pub(crate) const BUDGET: u64 = 10_000_000;
pub(crate) const PER_CALL: u64 = 1_000_000;
/// What a rule may cost by estimate, and all of a schema.
const ESTIMATE: u64 = 10_000_000;
const ESTIMATE_ALL: u64 = 100_000_000;
const MAX_REQUEST: u64 = 3 << 20;
const MAX_MESSAGE: usize = 5 << 10;

/// A node of the schema that has rules, or has such below.
pub(crate) struct Judge {
    ty: Type,
    kind: &'static str,
    rules: Vec<Compiled>,
    properties: BTreeMap<String, Judge>,
    additional: Option<Box<Judge>>,
    items: Option<Box<Judge>>,
    list: ListType,
}

struct Compiled {
    rule: Rule,
    /// `Err`: upstream's words; definitions with such are refused, but old ones may be in the store.
    program: Result<Program, String>,
    message: Option<Program>,
    transition: bool,
}

/// The type of values of a schema. `resource`: it has apiVersion, kind and metadata.
pub(crate) fn type_of(s: &Schema, resource: bool, name: &str) -> Type {
    if s.int_or_string {
        return Type::Dyn;
    }
    match s.ty {
        Some(schema::Type::Object) => {
            if let Some(inner) = &s.additional {
                let bound = s.max_properties.unwrap_or(MAX_REQUEST / (min_size(inner) + 5));
                let value = type_of(inner, inner.embedded, &format!("{name}.@values"));
                return Type::Map(Box::new(Type::String(Some(MAX_REQUEST))), Box::new(value), Some(bound));
            }
            let mut fields: Vec<(String, Type)> = s
                .properties
                .iter()
                .filter_map(|(k, p)| Some((escape(k)?, type_of(p, p.embedded, &format!("{name}.{k}")))))
                .collect();
            if resource || s.embedded {
                let text = || Type::String(Some(253));
                fields.retain(|(k, _)| !matches!(k.as_str(), "apiVersion" | "kind" | "metadata"));
                fields.push(("apiVersion".to_owned(), text()));
                fields.push(("kind".to_owned(), text()));
                let meta = [("name".to_owned(), text()), ("generateName".to_owned(), text())];
                fields.push(("metadata".to_owned(), Type::object(format!("{name}.metadata"), meta)));
            } else if s.preserve && fields.is_empty() {
                return Type::Dyn;
            }
            Type::object(name, fields)
        }
        Some(schema::Type::Array) => {
            let Some(items) = &s.items else { return Type::Dyn };
            let bound = s.max_items.unwrap_or(MAX_REQUEST / (min_size(items) + 1));
            Type::List(Box::new(type_of(items, items.embedded, &format!("{name}.@items"))), Some(bound))
        }
        Some(schema::Type::String) => match s.format.as_str() {
            "date" | "date-time" => Type::Timestamp,
            "duration" => Type::Duration,
            "byte" => Type::Bytes(Some(s.max_length.unwrap_or(MAX_REQUEST))),
            _ => {
                let longest = s.enumeration.iter().filter_map(Value::as_str).map(|e| e.len() as u64).max();
                Type::String(Some(s.max_length.or(longest).unwrap_or(MAX_REQUEST - 2)))
            }
        },
        Some(schema::Type::Integer) => Type::Int,
        Some(schema::Type::Number) => Type::Double,
        Some(schema::Type::Boolean) => Type::Bool,
        None => Type::Dyn,
    }
}

/// Bytes a value takes at least in JSON.
fn min_size(s: &Schema) -> u64 {
    match s.ty {
        Some(schema::Type::Object) => {
            let required = s.required.iter().filter_map(|k| Some((k, s.properties.get(k)?)));
            required
                .filter(|(_, p)| p.default.is_none())
                .fold(2, |n, (k, p)| n + k.len() as u64 + 4 + min_size(p))
        }
        Some(schema::Type::Boolean) => 4,
        Some(schema::Type::Integer | schema::Type::Number) => 1,
        _ if s.int_or_string => 1,
        _ => 2,
    }
}

impl Judge {
    /// The rules of a schema; `None` if there are none.
    pub(crate) fn compile(s: &Schema, resource: bool) -> Option<Judge> {
        if !s.any(&|s| !s.rules.is_empty()) {
            return None;
        }
        let ty = type_of(s, resource, "object");
        Some(Judge {
            rules: s.rules.iter().map(|r| Compiled::new(r, &ty)).collect(),
            ty,
            kind: s.ty.map_or("", schema::Type::as_str),
            properties: s
                .properties
                .iter()
                .filter_map(|(k, p)| Some((k.clone(), Judge::compile(p, p.embedded)?)))
                .collect(),
            additional: s.additional.as_ref().and_then(|a| Judge::compile(a, a.embedded)).map(Box::new),
            items: s.items.as_ref().and_then(|i| Judge::compile(i, i.embedded)).map(Box::new),
            list: s.list.clone(),
        })
    }

    /// Judges an object beside what it was.
    pub(crate) fn judge(&self, v: &Value, old: Option<&Value>, errors: &mut Errors) {
        let mut budget = BUDGET;
        self.node(v, old, "", &mut budget, errors);
    }

    /// `None` once the budget is spent.
    fn node(
        &self,
        v: &Value,
        old: Option<&Value>,
        at: &str,
        budget: &mut u64,
        errors: &mut Errors,
    ) -> Option<()> {
        if v.is_null() {
            return Some(());
        }
        if !self.rules.is_empty() {
            self.apply(v, old, at, budget, errors)?;
        }
        let child = |k: &str| if at.is_empty() { k.to_owned() } else { format!("{at}.{k}") };
        match v {
            Value::Object(m) => {
                for (k, v) in m {
                    let was = old.and_then(|o| o.get(k));
                    if let Some(inner) = self.properties.get(k) {
                        inner.node(v, was, &child(k), budget, errors)?;
                    } else if let Some(inner) = &self.additional {
                        inner.node(v, was, &format!("{at}[{k}]"), budget, errors)?;
                    }
                }
            }
            Value::Array(l) => {
                let Some(items) = &self.items else { return Some(()) };
                let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                for (i, v) in l.iter().enumerate() {
                    let was = match &self.list {
                        ListType::Map(keys) => {
                            before.iter().find(|b| keys.iter().all(|k| b.get(k) == v.get(k)))
                        }
                        _ => None,
                    };
                    items.node(v, was, &format!("{at}[{i}]"), budget, errors)?;
                }
            }
            _ => {}
        }
        Some(())
    }

    fn apply(
        &self,
        v: &Value,
        old: Option<&Value>,
        at: &str,
        budget: &mut u64,
        errors: &mut Errors,
    ) -> Option<()> {
        let scope = Scope {
            this: Cel::of_json(v, &self.ty),
            old: old.filter(|o| !o.is_null()).map(|o| Cel::of_json(o, &self.ty)),
        };
        let same = old == Some(v);
        for c in &self.rules {
            let optional = c.rule.optional_old_self == Some(true);
            if c.transition && scope.old.is_none() && !optional {
                continue;
            }
            let program = match &c.program {
                Ok(p) => p,
                Err(e) => {
                    errors.invalid(at, self.kind, &format!("rule compile error: {e}"));
                    continue;
                }
            };
            let view = View { scope: &scope, optional };
            let (result, cost) = program.run(&view, PER_CALL);
            if cost > *budget {
                errors.invalid(at, self.kind, "validation failed due to running out of cost budget, no further validation rules will be run");
                return None;
            }
            *budget -= cost;
            let said = c.rule.said();
            match result {
                Ok(Cel::Bool(true)) => {}
                Ok(_) => {
                    // What was wrong before and did not change is let be.
                    if c.transition || !same {
                        self.refuse(c, v, at, &view, budget, errors)?;
                    }
                }
                Err(Failure::Cost) => {
                    let words = format!(
                        "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {said}",
                        Failure::Cost
                    );
                    errors.invalid(at, self.kind, &words);
                    return None;
                }
                Err(Failure::Error(e)) if e == "no such overload" => {
                    let words = format!(
                        "'{e}': call arguments did not match a supported operator, function or macro signature for rule: {said}"
                    );
                    errors.invalid(at, self.kind, &words);
                }
                Err(Failure::Error(e)) => {
                    errors.invalid(at, self.kind, &format!("{e} evaluating rule: {said}"));
                }
            }
        }
        Some(())
    }

    fn refuse(
        &self,
        c: &Compiled,
        v: &Value,
        at: &str,
        view: &View<'_>,
        budget: &mut u64,
        errors: &mut Errors,
    ) -> Option<()> {
        let path = c.rule.field_path.trim();
        let at = match (at, path.strip_prefix('.').unwrap_or(path)) {
            (at, "") => at.to_owned(),
            ("", inner) => inner.to_owned(),
            (at, inner) => format!("{at}.{inner}"),
        };
        let mut words = None;
        if let Some(m) = &c.message {
            let (made, cost) = m.run(view, PER_CALL);
            if cost > *budget {
                errors.invalid(&*at, self.kind, "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run");
                return None;
            }
            *budget -= cost;
            words = made.ok().and_then(|v| v.as_str().map(|s| s.trim().to_owned()));
            words = words.filter(|w| !w.is_empty() && w.len() <= MAX_MESSAGE && !w.contains('\n'));
        }
        let words = words.unwrap_or_else(|| match c.rule.message.trim() {
            "" => format!("failed rule: {}", c.rule.rule.trim()),
            m => m.to_owned(),
        });
        match c.rule.reason.as_deref() {
            Some("FieldValueForbidden") => errors.forbidden(at, &words),
            Some("FieldValueRequired") => errors.required(at, &words),
            Some("FieldValueDuplicate") => errors.duplicate(at, v),
            _ if v.is_object() || v.is_array() => errors.invalid_omitted(at, &words),
            _ => errors.invalid(at, v, &words),
        }
        Some(())
    }
}

impl Rule {
    /// How an error names it.
    fn said(&self) -> &str {
        match self.message.trim() {
            "" => self.rule.trim(),
            m => m,
        }
    }
}

impl Compiled {
    fn new(rule: &Rule, ty: &Type) -> Compiled {
        let names = names(rule, ty);
        let program = expression::compile(&rule.rule, &names);
        let message = match rule.message_expression.trim() {
            "" => None,
            m => expression::compile(m, &names).ok(),
        };
        let transition = program.as_ref().is_ok_and(|p| p.uses("oldSelf"));
        Compiled { rule: rule.clone(), program, message, transition }
    }
}

fn names(rule: &Rule, ty: &Type) -> [(&'static str, Type); 2] {
    let old =
        if rule.optional_old_self == Some(true) { Type::Optional(Box::new(ty.clone())) } else { ty.clone() };
    [("self", ty.clone()), ("oldSelf", old)]
}

struct Scope {
    this: Cel,
    old: Option<Cel>,
}

struct View<'a> {
    scope: &'a Scope,
    optional: bool,
}

impl Variables for View<'_> {
    fn get(&self, name: &str) -> Option<Result<Cel, Failure>> {
        match name {
            "self" => Some(Ok(self.scope.this.clone())),
            "oldSelf" if self.optional => {
                Some(Ok(Cel::Optional(self.scope.old.clone().map(std::sync::Arc::new))))
            }
            "oldSelf" => self.scope.old.clone().map(Ok),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(rules: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": rules, "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string", "maxLength": 20},
            "items": {"type": "array", "items": {"type": "string"}},
        }}}})
    }

    #[track_caller]
    fn judged(rules: Value, new: Value, old: Option<Value>, expect: &str) {
        let judge = Judge::compile(&Schema::read(&schema(rules)), true).expect("there are rules");
        let mut errors = Errors::default();
        let old = old.map(|o| json!({"spec": o}));
        judge.judge(&json!({"spec": new}), old.as_ref(), &mut errors);
        assert_eq!(if errors.is_empty() { String::new() } else { errors.to_string() }, expect);
    }

    #[test]
    fn rules_of_values() {
        let rule = json!([{"rule": "self.min <= self.max"}]);
        judged(rule.clone(), json!({"min": 1, "max": 2}), None, "");
        judged(
            rule.clone(),
            json!({"min": 3, "max": 2}),
            None,
            "spec: Invalid value: failed rule: self.min <= self.max",
        );
        judged(rule.clone(), json!({"min": 3, "max": 2}), Some(json!({"min": 3, "max": 2})), "");
        judged(
            rule,
            json!({"max": 2}),
            None,
            "spec: Invalid value: \"object\": no such key: min evaluating rule: self.min <= self.max",
        );
        let said = json!([{"rule": "self.min <= self.max", "messageExpression": "'%d is more than %d'.format([self.min, self.max])",
            "reason": "FieldValueForbidden", "fieldPath": ".min"}]);
        judged(said, json!({"min": 3, "max": 2}), None, "spec.min: Forbidden: 3 is more than 2");
    }

    #[test]
    fn rules_of_changes() {
        let fixed = json!([{"rule": "self.name == oldSelf.name", "message": "name is fixed"}]);
        judged(fixed.clone(), json!({"name": "a"}), None, "");
        judged(fixed, json!({"name": "b"}), Some(json!({"name": "a"})), "spec: Invalid value: name is fixed");
        let first = json!([{"rule": "oldSelf.hasValue() || self.name == 'first'", "optionalOldSelf": true}]);
        judged(
            first.clone(),
            json!({"name": "b"}),
            None,
            "spec: Invalid value: failed rule: oldSelf.hasValue() || self.name == 'first'",
        );
        judged(first, json!({"name": "b"}), Some(json!({"name": "a"})), "");
    }

    #[track_caller]
    fn checked(rules: Value, expect: &str) {
        let mut errors = Errors::default();
        check(&schema(rules), "s", &mut errors);
        let got = if errors.is_empty() { String::new() } else { errors.to_string() };
        assert!(got.contains(expect) && got.is_empty() == expect.is_empty(), "{got}");
    }

    #[test]
    fn rules_before_they_are_taken() {
        checked(json!([{"rule": "self.min < self.max"}]), "");
        checked(json!([{"rule": "self.nope < 1"}]), "undefined field 'nope'");
        checked(json!([{"rule": "self.min + 1"}]), "cel expression must evaluate to a bool");
        checked(
            json!([{"rule": "self.items.all(x, self.items.all(y, x == y))"}]),
            "estimated rule cost exceeds budget by factor of more than 100x",
        );
        checked(json!([{"rule": "self.min > 0", "fieldPath": ".nope"}]), "must be a valid path");
        checked(
            json!([{"rule": "self.min > 0", "optionalOldSelf": true}]),
            "may not be set if oldSelf is not used in rule",
        );
        checked(json!([{"rule": " "}]), "rule is not specified");
    }
}
