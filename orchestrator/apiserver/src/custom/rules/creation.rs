//! Rules before they are taken: whether they can be read, and what they can cost.

use expression::Type;
use serde_json::{Value, json};

use super::{ESTIMATE, ESTIMATE_ALL, MAX_REQUEST, min_size, names, type_of};
use crate::custom::schema::{ListType, Rule, Schema};
use crate::validation::Errors;

/// Judges the rules of a schema before it is taken; `at` is where the schema stands.
pub(crate) fn check(raw: &Value, at: &str, errors: &mut Errors) {
    let schema = Schema::read(raw);
    if !schema.any(&|s| !s.rules.is_empty()) {
        return;
    }
    let mut total = Total { sum: 0, dearest: Vec::new() };
    node(&schema, raw, at, &Place { resource: true, times: 1, uncorrelated: None }, &mut total, errors);
    if total.sum > ESTIMATE_ALL {
        total.dearest.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        for (path, _) in total.dearest.iter().take(4) {
            errors.forbidden(
                &**path,
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
            );
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.forbidden(at, &too_dear(what, total.sum, ESTIMATE_ALL));
    }
}

struct Total {
    sum: u64,
    dearest: Vec<(String, u64)>,
}

#[derive(Clone)]
struct Place {
    resource: bool,
    /// How often a value stands here at most.
    times: u64,
    /// The list whose elements have no memory of what they were.
    uncorrelated: Option<String>,
}

fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

fn node(s: &Schema, raw: &Value, at: &str, place: &Place, total: &mut Total, errors: &mut Errors) {
    let ty = type_of(s, place.resource, "object");
    for (i, r) in s.rules.iter().enumerate() {
        rule(
            r,
            &raw["x-kubernetes-validations"][i],
            &ty,
            s,
            &format!("{at}.x-kubernetes-validations[{i}]"),
            place,
            total,
            errors,
        );
    }
    let inside = |inner: &Schema| Place { resource: inner.embedded, ..place.clone() };
    for (k, p) in &s.properties {
        node(p, &raw["properties"][k], &format!("{at}.properties[{k}]"), &inside(p), total, errors);
    }
    if let Some(a) = &s.additional {
        let times = s.max_properties.unwrap_or(MAX_REQUEST / (min_size(a) + 5)).saturating_mul(place.times);
        let place = Place { times, ..inside(a) };
        node(a, &raw["additionalProperties"], &format!("{at}.additionalProperties"), &place, total, errors);
    }
    if let Some(items) = &s.items {
        let times = s.max_items.unwrap_or(MAX_REQUEST / (min_size(items) + 1)).saturating_mul(place.times);
        let mut place = Place { times, ..inside(items) };
        if !matches!(s.list, ListType::Map(_)) {
            place.uncorrelated.get_or_insert_with(|| at.to_owned());
        }
        node(items, &raw["items"], &format!("{at}.items"), &place, total, errors);
    }
}

#[expect(clippy::too_many_arguments, reason = "one rule and where it stands")]
fn rule(
    r: &Rule,
    raw: &Value,
    ty: &Type,
    schema: &Schema,
    at: &str,
    place: &Place,
    total: &mut Total,
    errors: &mut Errors,
) {
    const REASONS: [&str; 4] =
        ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let (text, message) = (r.rule.trim(), r.message.trim());
    let lines = |s: &str| s.contains(['\n', '\r']);
    if text.is_empty() {
        errors.required(format!("{at}.rule"), "rule is not specified");
        return;
    }
    if !r.message.is_empty() && message.is_empty() {
        errors.invalid(format!("{at}.message"), r.message.as_str(), "must be non-empty if specified");
    } else if lines(message) {
        errors.invalid(format!("{at}.message"), r.message.as_str(), "must not contain line breaks");
    } else if lines(text) && message.is_empty() {
        errors.required(format!("{at}.message"), "message must be specified if rule contains line breaks");
    }
    if !r.message_expression.is_empty() && r.message_expression.trim().is_empty() {
        errors
            .required(format!("{at}.messageExpression"), "messageExpression must be non-empty if specified");
    }
    if let Some(reason) = r.reason.as_deref().filter(|x| !REASONS.contains(x)) {
        errors.not_supported(format!("{at}.reason"), reason, &REASONS);
    }
    if !r.field_path.is_empty() && !is_path(schema, r.field_path.trim()) {
        errors.invalid(format!("{at}.fieldPath"), r.field_path.as_str(), "must be a valid path");
    }
    let shown = json!({"Rule": r.rule, "Message": r.message, "MessageExpression": r.message_expression,
        "Reason": r.reason, "FieldPath": r.field_path, "OptionalOldSelf": r.optional_old_self});
    let names = names(r, ty);
    let program = match expression::compile(&r.rule, &names) {
        Ok(p) if p.is_bool() => p,
        Ok(_) => {
            errors.invalid(format!("{at}.rule"), &shown, "cel expression must evaluate to a bool");
            return;
        }
        Err(e) => {
            errors.invalid(format!("{at}.rule"), &shown, &format!("compilation failed: {e}"));
            return;
        }
    };
    let mut spend = |field: &str, what: &str, cost: u64, errors: &mut Errors| {
        let cost = cost.saturating_mul(place.times);
        let path = format!("{at}.{field}");
        if cost > ESTIMATE {
            errors.forbidden(&*path, &too_dear(what, cost, ESTIMATE));
        }
        total.sum = total.sum.saturating_add(cost);
        total.dearest.push((path, cost));
    };
    spend("rule", "estimated rule cost", program.max_cost, errors);
    if !r.message_expression.trim().is_empty() {
        match expression::compile(&r.message_expression, &names) {
            Ok(p) if p.is_string() => {
                spend("messageExpression", "estimated messageExpression cost", p.max_cost, errors);
            }
            Ok(_) => errors.invalid(
                format!("{at}.messageExpression"),
                &shown,
                "messageExpression must evaluate to a string",
            ),
            Err(e) => errors.invalid(
                format!("{at}.messageExpression"),
                &shown,
                &format!("messageExpression compilation failed: {e}"),
            ),
        }
    }
    match (&place.uncorrelated, program.uses("oldSelf")) {
        (Some(path), true) => {
            let words =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {path}");
            errors.invalid(format!("{at}.rule"), r.rule.as_str(), &words);
        }
        (_, false) if r.optional_old_self.is_some() => {
            errors.invalid(
                format!("{at}.optionalOldSelf"),
                &raw["optionalOldSelf"],
                "may not be set if oldSelf is not used in rule",
            );
        }
        _ => {}
    }
}

/// Whether a path such as `.a.b['c']` leads to a field of the schema.
fn is_path(schema: &Schema, path: &str) -> bool {
    let mut at = schema;
    let mut rest = path;
    while !rest.is_empty() {
        let (name, tail) = if let Some(inside) = rest.strip_prefix("['") {
            let Some((name, tail)) = inside.split_once("']") else { return false };
            (name, tail)
        } else if let Some(inside) = rest.strip_prefix('.') {
            let end = inside.find(['.', '[']).unwrap_or(inside.len());
            inside.split_at(end)
        } else {
            return false;
        };
        match at.properties.get(name).or(at.additional.as_deref()) {
            Some(next) if !name.is_empty() => at = next,
            _ => return false,
        }
        rest = tail;
    }
    true
}
