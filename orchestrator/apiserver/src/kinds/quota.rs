//! ResourceQuota and LimitRange: how much a namespace may use, and each thing in it.

use apimachinery::quantity::Quantity;
use serde_json::{Value, json};
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column};
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static QUOTA: Kind = Kind {
    resource: "resourcequotas",
    singular: "resourcequota",
    kind: "ResourceQuota",
    short: &["quota"],
    status: true,
    prepare_create: |o| o["status"] = json!({}),
    validate: validate_quota,
    columns: &[NAME, column("Request"), column("Limit"), AGE],
    row: quota_row,
    ..BASE
};

pub(crate) static LIMIT_RANGE: Kind = Kind {
    resource: "limitranges",
    singular: "limitrange",
    kind: "LimitRange",
    short: &["limits"],
    default: default_limits,
    validate: validate_limits,
    columns: &[NAME, column("Created At")],
    row: |o, _| {
        vec![object::name(o).into(), object::text(o, "metadata.creationTimestamp").unwrap_or_default().into()]
    },
    ..BASE
};

fn quantity(v: &Value) -> Option<Quantity> {
    v.as_str()?.parse().ok()
}

fn validate_quota(o: &Value, errors: &mut Errors) {
    for (name, v) in object::get(o, "spec.hard").and_then(Value::as_object).into_iter().flatten() {
        let at = format!("spec.hard[{name}]");
        match quantity(v) {
            Some(q) if q < Quantity::default() => {
                errors.invalid(at, v, "must be greater than or equal to 0");
            }
            Some(_) => {}
            None => errors.invalid(at, v, "must be a quantity"),
        }
    }
}

fn quota_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let hard = object::get(o, "status.hard").and_then(Value::as_object);
    let mut names: Vec<&String> = hard.into_iter().flatten().map(|(k, _)| k).collect();
    names.sort();
    let text = |limits: bool| -> Value {
        let of = names.iter().filter(|n| n.starts_with("limits.") == limits);
        let words: Vec<String> = of
            .map(|n| {
                let at = |m: &str| {
                    let v = object::get(o, m).and_then(|v| v.get(n.as_str()));
                    v.and_then(Value::as_str).unwrap_or("0").to_owned()
                };
                format!("{n}: {}/{}", at("status.used"), at("status.hard"))
            })
            .collect();
        words.join(", ").into()
    };
    vec![object::name(o).into(), text(false), text(true), table::age(o, now)]
}

/// What a container gets by default follows from its limits (kubernetes: pkg/apis/core/v1/defaults.go).
fn default_limits(o: &mut Value) {
    let spec = object::child(o, "spec");
    for item in object::list_mut(spec, "limits").iter_mut().filter(|i| i["type"] == "Container") {
        for (field, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
            let source = object::get(item, from).and_then(Value::as_object).cloned().unwrap_or_default();
            for (k, v) in source {
                object::default(object::child(item, field), &k, v);
            }
        }
    }
}

fn validate_limits(o: &Value, errors: &mut Errors) {
    for (i, item) in object::list(o, "spec.limits").iter().enumerate() {
        let of =
            |field: &str, name: &str| object::get(item, field).and_then(|m| m.get(name)).and_then(quantity);
        let mut names: Vec<&String> = ["max", "min", "default", "defaultRequest"]
            .iter()
            .filter_map(|f| object::get(item, f).and_then(Value::as_object))
            .flat_map(|m| m.keys())
            .collect();
        names.sort();
        names.dedup();
        for name in names {
            let at = |f: &str| format!("spec.limits[{i}].{f}[{name}]");
            // Lower bound and what must not be below it.
            for (low, high) in [
                ("min", "max"),
                ("min", "defaultRequest"),
                ("defaultRequest", "max"),
                ("defaultRequest", "default"),
                ("min", "default"),
                ("default", "max"),
            ] {
                if let (Some(a), Some(b)) = (of(low, name), of(high, name))
                    && a > b
                {
                    let detail = format!("{low} value {a} is greater than {high} value {b}");
                    errors.invalid(at(low), a.to_string().as_str(), &detail);
                }
            }
        }
    }
}
