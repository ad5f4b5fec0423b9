//! What a HorizontalPodAutoscaler must be (kubernetes: pkg/apis/autoscaling/validation/validation.go).

use apimachinery::name;
use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::super::check::At;
use super::super::resources;
use crate::validation::Errors;

const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;
/// The kinds of metrics and the fields that hold them, as upstream looks at them.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

pub(super) fn autoscaler(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    let (min, max) = (spec.of("minReplicas"), spec.of("maxReplicas"));
    // Metrics that are there without pods may wake a workload that has none.
    let elastic = spec.each("metrics").any(|m| matches!(m.text("type"), "Object" | "External"));
    let least = i64::from(!elastic);
    min.at_least(least, &format!("must be greater than or equal to {least}"), errors);
    let most = max.v.as_i64().unwrap_or(0);
    if most < 1 {
        errors.invalid(max.path.as_str(), most, "must be greater than 0");
    }
    if min.v.as_i64().is_some_and(|min| most < min) {
        errors.invalid(max.path.as_str(), most, "must be greater than or equal to `minReplicas`");
    }
    object_reference(&spec.of("scaleTargetRef"), errors);
    for metric in spec.each("metrics") {
        metric_spec(&metric, errors);
    }
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec.get(&format!("behavior.{direction}")) {
            scaling_rules(&rules, errors);
        }
    }
}

fn object_reference(r: &At<'_>, errors: &mut Errors) {
    r.of("kind").must_be_name(name::path_segment, errors);
    r.of("name").must_be_name(name::path_segment, errors);
}

fn scaling_rules(rules: &At<'_>, errors: &mut Errors) {
    let window = rules.of("stabilizationWindowSeconds");
    window.at_least(0, "must be greater than or equal to zero", errors);
    at_most(&window, WINDOW_MAX, errors);
    rules.of("selectPolicy").one_of(&["Disabled", "Max", "Min"], errors);
    if rules.len("policies") == 0 {
        errors.required(rules.of("policies").path, "must specify at least one Policy");
    }
    for policy in rules.each("policies") {
        let kind = policy.of("type");
        if !matches!(kind.str(), "Pods" | "Percent") {
            errors.not_supported(kind.path.as_str(), kind.str(), &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            let n = policy.int(field).unwrap_or(0);
            if n <= 0 {
                errors.invalid(policy.of(field).path, n, "must be greater than zero");
            }
        }
        at_most(&policy.of("periodSeconds"), PERIOD_MAX, errors);
    }
    if let Some(tolerance) = rules.get("tolerance") {
        tolerance.quantity_not_negative(errors);
    }
}

fn at_most(at: &At<'_>, max: i64, errors: &mut Errors) {
    if at.v.as_i64().is_some_and(|n| n > max) {
        at.invalid(&format!("must be less than or equal to {max}"), errors);
    }
}

fn metric_spec(metric: &At<'_>, errors: &mut Errors) {
    const MISSING: &str = "must populate information for the given metric source";
    let kind = metric.of("type");
    if kind.required_for("must specify a metric source type", errors) {
        kind.one_of(&TYPES, errors);
    } else {
        errors.not_supported(kind.path.as_str(), "", &TYPES);
    }
    let present: Vec<&str> =
        SOURCES.iter().map(|(_, field)| *field).filter(|field| metric.of(field).given()).collect();
    if let Some(first) = present.first() {
        source(first, &metric.of(first), errors);
    }
    let expected = SOURCES.iter().find(|(k, _)| *k == kind.str()).map(|(_, field)| *field);
    if let Some(field) = expected.filter(|field| !present.contains(field)) {
        errors.required(metric.of(field).path, MISSING);
    }
    if present.len() != 1 {
        for field in present.iter().filter(|field| Some(**field) != expected) {
            metric.of(field).forbidden("must populate the given metric source only", errors);
        }
    }
}

fn source(kind: &str, s: &At<'_>, errors: &mut Errors) {
    let target = s.of("target");
    let has = |field: &str| target.of(field).given();
    match kind {
        "object" => {
            object_reference(&s.of("describedObject"), errors);
            identifier(&s.of("metric"), errors);
            metric_target(&target, errors);
            if !has("value") && !has("averageValue") {
                let detail = "must set either a target value or averageValue";
                errors.required(target.of("averageValue").path, detail);
            }
        }
        "external" => {
            identifier(&s.of("metric"), errors);
            metric_target(&target, errors);
            if !has("value") && !has("averageValue") {
                let detail = "must set either a target value for metric or a per-pod target";
                errors.required(target.of("averageValue").path, detail);
            }
            if has("value") && has("averageValue") {
                let detail = "may not set both a target value for metric and a per-pod target";
                target.of("value").forbidden(detail, errors);
            }
        }
        "pods" => {
            identifier(&s.of("metric"), errors);
            metric_target(&target, errors);
            if !has("averageValue") {
                let detail = "must specify a positive target averageValue";
                errors.required(target.of("averageValue").path, detail);
            }
        }
        _ => {
            let name = s.of("name");
            if name.required_for("must specify a resource name", errors) && kind == "containerResource" {
                resources::container_name(name.str(), &name, errors);
            }
            if kind == "containerResource" {
                let container = s.of("container");
                if container.required_for("must specify a container", errors) {
                    container.name(name::dns_label, errors);
                }
            }
            metric_target(&target, errors);
            if !has("averageUtilization") && !has("averageValue") {
                let detail = "must set either a target raw value or a target utilization";
                errors.required(target.of("averageUtilization").path, detail);
            }
            if has("averageUtilization") && has("averageValue") {
                let detail = "may not set both a target raw value and a target utilization";
                target.of("averageValue").forbidden(detail, errors);
            }
        }
    }
}

fn identifier(metric: &At<'_>, errors: &mut Errors) {
    let name = metric.of("name");
    if name.required_for("must specify a metric name", errors) {
        name.name(name::path_segment, errors);
    }
}

fn metric_target(target: &At<'_>, errors: &mut Errors) {
    let kind = target.of("type");
    kind.required_for("must specify a metric target type", errors);
    if !matches!(kind.str(), "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.invalid(kind.path.as_str(), kind.str(), detail);
    }
    for field in ["value", "averageValue"] {
        if let Some(at) = target.get(field)
            && at.quantity().is_none_or(|q| q <= Quantity::ZERO)
        {
            at.invalid("must be positive", errors);
        }
    }
    target.of("averageUtilization").at_least(1, "must be greater than 0", errors);
}
