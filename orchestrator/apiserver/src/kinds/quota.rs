//! ResourceQuota and LimitRange: how much a namespace may use, and each thing in it.

use std::collections::HashSet;

use apimachinery::name;
use serde_json::{Value, json};
use signal::Timestamp;

use super::check::At;
use super::{AGE, BASE, Kind, NAME, column, resources};
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
    validate_update: quota_stays,
    columns: &[NAME, column("Request"), column("Limit"), AGE],
    row: quota_row,
    validate_status: super::status::quota,
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

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

fn validate_quota(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    for (name, amount) in spec.entries("hard") {
        resources::quota_name(name, &amount, errors);
        resources::amount(name, &amount, errors);
    }
    let mut hard: Vec<&str> = spec.entries("hard").map(|(name, _)| name).collect();
    hard.sort_unstable();
    let misplaced = |scope: &str| {
        let out = |name: &&&str| resources::is_standard_in_quota(name) && !resources::in_scope(scope, name);
        hard.iter().filter(out).count()
    };
    let scopes = spec.of("scopes");
    for scope in spec.each("scopes") {
        if !SCOPES.contains(&scope.str()) {
            scopes.invalid("unsupported scope", errors);
        }
        (0..misplaced(scope.str())).for_each(|_| {
            scopes.invalid("unsupported scope applied to resource", errors);
        });
    }
    conflicts(spec.each("scopes").map(|s| s.str()).collect(), &scopes, scopes.v, errors);
    let selector = spec.of("scopeSelector");
    // Upstream does not say which.
    let at = selector.of("matchExpressions");
    for e in selector.each("matchExpressions") {
        let e = e.renamed(at.path.as_str());
        let (scope, operator, values) = (e.of("scopeName"), e.of("operator"), e.of("values"));
        if !SCOPES.contains(&scope.str()) {
            errors.invalid(scope.path.as_str(), scope.str(), "unsupported scope");
        }
        (0..misplaced(scope.str())).for_each(|_| {
            errors.invalid(at.path.as_str(), selector.v, "unsupported scope applied to resource");
        });
        if SCOPES.contains(&scope.str())
            && !matches!(scope.str(), "PriorityClass" | "VolumeAttributesClass")
            && operator.str() != "Exists"
        {
            errors.invalid(operator.path.as_str(), operator.str(), "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity");
        }
        match (operator.str(), e.len("values")) {
            ("In" | "NotIn", 0) => errors.required(
                values.path.as_str(),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            ("Exists" | "DoesNotExist", 1..) => values.invalid(
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
                errors,
            ),
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            (other, _) => errors.invalid(operator.path.as_str(), other, "not a valid selector operator"),
        }
    }
    let named = selector.each("matchExpressions").map(|e| e.text("scopeName")).collect();
    conflicts(named, &at, scopes.v, errors);
}

/// No pod is in both.
fn conflicts(scopes: Vec<&str>, at: &At<'_>, shown: &Value, errors: &mut Errors) {
    for [a, b] in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if scopes.contains(&a) && scopes.contains(&b) {
            errors.invalid(at.path.as_str(), shown, "conflicting scopes");
        }
    }
}

fn quota_stays(new: &Value, old: &Value, errors: &mut Errors) {
    let scopes = |o: &Value| {
        object::list(o, "spec.scopes")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<HashSet<_>>()
    };
    if scopes(new) != scopes(old) {
        At::root(new).of("spec.scopes").invalid("field is immutable", errors);
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
    const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];
    let mut types = HashSet::new();
    for limit in At::root(o).each("spec.limits") {
        let kind = limit.of("type");
        kind.name(name::qualified_name, errors);
        if !kind.str().is_empty() && !kind.str().contains('/') && !TYPES.contains(&kind.str()) {
            kind.invalid("must be a standard limit type or fully qualified", errors);
        }
        if !types.insert(kind.str()) {
            errors.duplicate(kind.path.as_str(), kind.str());
        }
        let names_of = |field: &str, errors: &mut Errors| {
            for (name, at) in limit.entries(field) {
                resources::range_name(kind.str(), name, &at, errors);
            }
        };
        names_of("max", errors);
        names_of("min", errors);
        for field in ["default", "defaultRequest"] {
            if kind.str() != "Pod" {
                names_of(field, errors);
            } else if limit.len(field) > 0 {
                limit.of(field).forbidden("may not be specified when `type` is 'Pod'", errors);
            }
        }
        if kind.str() == "PersistentVolumeClaim"
            && !["min.storage", "max.storage"].iter().any(|f| limit.of(f).given())
        {
            errors.required(
                limit.of("limits").path,
                "either minimum or maximum storage value is required, but neither was provided",
            );
        }
        names_of("maxLimitRequestRatio", errors);
        let mut names: Vec<&str> = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"]
            .into_iter()
            .flat_map(|field| limit.entries(field).map(|(name, _)| name))
            .collect();
        names.sort_unstable();
        names.dedup();
        names.iter().for_each(|name| validate_bounds(&limit, name, errors));
    }
}

/// Of one resource: what must not be above what, and the field and the value that upstream tells.
fn validate_bounds(limit: &At<'_>, name: &str, errors: &mut Errors) {
    let of = |field: &str| {
        let skipped = limit.text("type") == "Pod" && field.starts_with("default");
        let (_, at) = limit.entries(field).find(|(n, _)| *n == name && !skipped)?;
        at.quantity().map(|q| (at, q))
    };
    const RULES: [(&str, &str, &str, &str, &str, &str); 6] = [
        ("min", "max", "min", "min", "min", "max"),
        ("min", "defaultRequest", "defaultRequest", "defaultRequest", "min", "default request"),
        ("defaultRequest", "max", "defaultRequest", "defaultRequest", "default request", "max"),
        ("defaultRequest", "default", "defaultRequest", "defaultRequest", "default request", "default limit"),
        ("min", "default", "default", "min", "min", "default"),
        ("default", "max", "default", "max", "default", "max"),
    ];
    for (low, high, told_at, told, low_word, high_word) in RULES {
        if let (Some((_, a)), Some((_, b))) = (of(low), of(high))
            && a > b
            && let (Some((at, _)), Some((value, _))) = (of(told_at), of(told))
        {
            let detail = format!("{low_word} value {a} is greater than {high_word} value {b}");
            errors.invalid(at.path.as_str(), value.v, &detail);
        }
    }
    if let Some((at, ratio)) = of("maxLimitRequestRatio") {
        if ratio.milli() < 1000 {
            at.invalid(&format!("ratio {ratio} is less than 1"), errors);
        }
        if let (Some((_, min)), Some((_, max))) = (of("min"), of("max")) {
            let most = max.to_f64() / min.to_f64();
            if ratio.to_f64() > most {
                at.invalid(&format!("ratio {ratio} is greater than max/min = {most:.6}"), errors);
            }
        }
    }
    if let (Some((_, limit)), Some((at, request))) = (of("default"), of("defaultRequest"))
        && !resources::overcommits(name)
        && limit != request
    {
        let detail = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
        at.invalid(&detail, errors);
    }
}
