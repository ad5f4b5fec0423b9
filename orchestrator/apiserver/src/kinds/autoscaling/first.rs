//! autoscaling/v1: what it has no fields for it keeps in annotations, in the words of its own types
//! (kubernetes: pkg/apis/autoscaling/v1/conversion.go).

use serde_json::{Map, Value, json};

use crate::object;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// A field of a metric here and there.
enum Field {
    /// Kept under another name: v1, v2.
    Plain(&'static str, &'static str),
    /// The type of the target follows from it.
    Target(&'static str, &'static str, &'static str),
}

use Field::{Plain, Target};

const UTILIZATION: Field = Target("targetAverageUtilization", "target.averageUtilization", "Utilization");
const AVERAGE: Field = Target("targetAverageValue", "target.averageValue", "AverageValue");
const WHOLE: Field = Target("targetValue", "target.value", "Value");
const NAMED: Field = Plain("metricName", "metric.name");
const SELECTED: Field = Plain("selector", "metric.selector");

/// Type, its field, the fields in it, in v1's order.
const SPECS: [(&str, &str, &[Field]); 5] = [
    (
        "Object",
        "object",
        &[
            Plain("target", "describedObject"),
            NAMED,
            WHOLE,
            SELECTED,
            Target("averageValue", "target.averageValue", "AverageValue"),
        ],
    ),
    ("Pods", "pods", &[NAMED, AVERAGE, SELECTED]),
    ("Resource", "resource", &[Plain("name", "name"), UTILIZATION, AVERAGE]),
    (
        "ContainerResource",
        "containerResource",
        &[Plain("name", "name"), UTILIZATION, AVERAGE, Plain("container", "container")],
    ),
    ("External", "external", &[NAMED, Plain("metricSelector", "metric.selector"), WHOLE, AVERAGE]),
];

const NOW_UTILIZATION: Field = Plain("currentAverageUtilization", "current.averageUtilization");
const NOW_AVERAGE: Field = Plain("currentAverageValue", "current.averageValue");
const NOW: Field = Plain("currentValue", "current.value");

const STATUSES: [(&str, &str, &[Field]); 5] = [
    (
        "Object",
        "object",
        &[
            Plain("target", "describedObject"),
            NAMED,
            NOW,
            SELECTED,
            Plain("averageValue", "current.averageValue"),
        ],
    ),
    ("Pods", "pods", &[NAMED, NOW_AVERAGE, SELECTED]),
    ("Resource", "resource", &[Plain("name", "name"), NOW_UTILIZATION, NOW_AVERAGE]),
    (
        "ContainerResource",
        "containerResource",
        &[Plain("name", "name"), NOW_UTILIZATION, NOW_AVERAGE, Plain("container", "container")],
    ),
    ("External", "external", &[NAMED, Plain("metricSelector", "metric.selector"), NOW, NOW_AVERAGE]),
];

type Table = [(&'static str, &'static str, &'static [Field]); 5];

/// Metrics of v2 in the words of v1.
fn older(metrics: &[Value], table: &Table) -> Value {
    let each = metrics.iter().map(|m| {
        let Some((kind, key, fields)) = table.iter().find(|(kind, ..)| m["type"] == *kind) else {
            return m.clone();
        };
        let mut inner = Map::new();
        for field in *fields {
            let (Plain(old, new) | Target(old, new, _)) = field;
            if let Some(v) = object::get(&m[key], new) {
                inner.insert((*old).to_owned(), v.clone());
            }
        }
        let required = match (*kind, table[0].2.iter().any(|f| matches!(f, Target(..)))) {
            ("Object", true) => Some("targetValue"),
            ("Pods", true) => Some("targetAverageValue"),
            ("Object" | "External", false) => Some("currentValue"),
            ("Pods" | "Resource" | "ContainerResource", false) => Some("currentAverageValue"),
            _ => None,
        };
        if let Some(required) = required {
            // Quantities that v1 always has.
            inner.entry(required.to_owned()).or_insert_with(|| "0".into());
        }
        json!({"type": kind, *key: inner})
    });
    each.collect()
}

/// And back.
fn newer(metrics: &[Value], table: &Table) -> Vec<Value> {
    let each = metrics.iter().map(|m| {
        let Some((kind, key, fields)) = table.iter().find(|(kind, ..)| m["type"] == *kind) else {
            return m.clone();
        };
        let mut inner = json!({});
        for field in *fields {
            let (Plain(old, new) | Target(old, new, _)) = field;
            let Some(v) = object::get(&m[key], old) else { continue };
            // A quantity that v1 always has says nothing where another is given.
            let filler = *v == "0"
                && fields.iter().any(|f| {
                    let (Plain(other, _) | Target(other, ..)) = f;
                    other != old && amount(other) && object::get(&m[key], other).is_some()
                });
            if filler && amount(old) {
                continue;
            }
            if let Target(_, _, kind) = field {
                object::child(&mut inner, "target")["type"] = (*kind).into();
            }
            put(&mut inner, new, v.clone());
        }
        json!({"type": kind, *key: inner})
    });
    each.collect()
}

/// Whether a field of v1 holds how much there is or shall be.
fn amount(field: &str) -> bool {
    field.starts_with("target") && field != "target"
        || field.starts_with("current")
        || field == "averageValue"
}

fn put(o: &mut Value, path: &str, v: Value) {
    match path.split_once('.') {
        Some((first, rest)) => put(object::child(o, first), rest, v),
        None => o[path] = v,
    }
}

fn is_cpu(m: &Value) -> bool {
    m["type"] == "Resource"
        && m["resource"]["name"] == "cpu"
        && object::get(&m["resource"], "target.averageUtilization").is_some()
}

pub(super) fn from_storage(o: &mut Value) {
    let (cpu, others): (Vec<Value>, Vec<Value>) =
        object::list(o, "spec.metrics").iter().cloned().partition(is_cpu);
    let mut behavior = None;
    if let Some(spec) = o.get_mut("spec") {
        drop(object::remove(spec, "metrics"));
        behavior = object::remove(spec, "behavior");
        if let Some(m) = cpu.first() {
            spec["targetCPUUtilizationPercentage"] = m["resource"]["target"]["averageUtilization"].clone();
        }
    }
    let metrics = (!others.is_empty()).then(|| older(&others, &SPECS));
    let now = object::list(o, "status.currentMetrics");
    let current = (!now.is_empty()).then(|| older(now, &STATUSES));
    let used = now
        .iter()
        .filter(|m| m["type"] == "Resource" && m["resource"]["name"] == "cpu")
        .find_map(|m| object::get(&m["resource"], "current.averageUtilization").cloned());
    let conditions =
        object::get(o, "status.conditions").filter(|c| c.as_array().is_some_and(|c| !c.is_empty()));
    let kept =
        [(METRICS, metrics), (CURRENT, current), (CONDITIONS, conditions.cloned()), (BEHAVIOR, behavior)];
    for (key, kept) in kept {
        if let Some(kept) = kept {
            let meta = object::child(o, "metadata");
            object::child(meta, "annotations")[key] = kept.to_string().into();
        }
    }
    if let Some(status) = o.get_mut("status") {
        drop(object::remove(status, "currentMetrics"));
        drop(object::remove(status, "conditions"));
        object::default(status, "currentReplicas", 0);
        if let Some(u) = used {
            status["currentCPUUtilizationPercentage"] = u;
        }
    }
}

pub(super) fn to_storage(o: &mut Value) {
    let mut annotation = |key: &str| {
        let all = o.get_mut("metadata").and_then(|m| m.get_mut("annotations"))?;
        let text = object::remove(all, key)?;
        serde_json::from_str::<Value>(text.as_str().unwrap_or_default()).ok()
    };
    let [metrics, current, conditions, behavior] =
        [METRICS, CURRENT, CONDITIONS, BEHAVIOR].map(&mut annotation);
    let list = |v: Option<Value>| match v {
        Some(Value::Array(all)) => all,
        _ => Vec::new(),
    };
    let mut metrics = newer(&list(metrics), &SPECS);
    if let Some(u) = o.get_mut("spec").and_then(|s| object::remove(s, "targetCPUUtilizationPercentage")) {
        metrics.push(json!({
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": u}},
        }));
    }
    if !metrics.is_empty() {
        object::child(o, "spec")["metrics"] = metrics.into();
    }
    if let Some(behavior @ Value::Object(_)) = behavior {
        object::child(o, "spec")["behavior"] = behavior;
    }
    let current = newer(&list(current), &STATUSES);
    if let Some(status) = o.get_mut("status") {
        let used = object::remove(status, "currentCPUUtilizationPercentage");
        if !current.is_empty() {
            status["currentMetrics"] = current.into();
        } else if let Some(u) = used {
            status["currentMetrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": u}}}]);
        }
        if let Some(conditions @ Value::Array(_)) = conditions {
            status["conditions"] = conditions;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu() -> Value {
        json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}})
    }

    #[test]
    fn what_it_has_no_fields_for_is_kept() {
        let stored = json!({
            "metadata": {"name": "a", "annotations": {"x": "y"}},
            "spec": {"maxReplicas": 3, "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
                {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "m"}, "target": {"type": "Value", "value": "2"}}},
                {"type": "External", "external": {"metric": {"name": "q", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "30"}}},
                {"type": "ContainerResource", "containerResource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 60}, "container": "c"}},
                cpu(),
            ], "behavior": {"scaleDown": {"selectPolicy": "Max"}}},
            "status": {"currentReplicas": 1,
                "currentMetrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 20, "averageValue": "200m"}}},
                    {"type": "Pods", "pods": {"metric": {"name": "hits"}, "current": {"averageValue": "8"}}},
                ],
                "conditions": [{"type": "AbleToScale", "status": "True"}]},
        });
        let mut o = stored.clone();
        from_storage(&mut o);
        assert_eq!(o["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(o["status"], json!({"currentReplicas": 1, "currentCPUUtilizationPercentage": 20}));
        let kept = |key: &str| o["metadata"]["annotations"][key].as_str().unwrap_or_default().to_owned();
        assert_eq!(kept(CONDITIONS), r#"[{"type":"AbleToScale","status":"True"}]"#);
        assert_eq!(
            kept(METRICS),
            r#"[{"type":"Pods","pods":{"metricName":"hits","targetAverageValue":"10"}},{"type":"Object","object":{"target":{"kind":"Service","name":"s"},"metricName":"m","targetValue":"2"}},{"type":"External","external":{"metricName":"q","metricSelector":{"matchLabels":{"a":"b"}},"targetAverageValue":"30"}},{"type":"ContainerResource","containerResource":{"name":"memory","targetAverageUtilization":60,"container":"c"}}]"#
        );
        assert_eq!(
            kept(CURRENT),
            r#"[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":20,"currentAverageValue":"200m"}},{"type":"Pods","pods":{"metricName":"hits","currentAverageValue":"8"}}]"#
        );
        to_storage(&mut o);
        assert_eq!(o, stored);
    }

    #[test]
    fn a_quantity_that_is_not_there_is_zero_and_goes_again() {
        let object = |target: Value| json!([{"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "m"}, "target": target}}]);
        let metrics = object(json!({"type": "AverageValue", "averageValue": "5"}));
        let first = older(metrics.as_array().expect("a list"), &SPECS);
        assert_eq!(
            first,
            json!([{"type": "Object", "object": {"target": {"kind": "Service", "name": "s"}, "metricName": "m", "averageValue": "5", "targetValue": "0"}}])
        );
        assert_eq!(Value::from(newer(first.as_array().expect("a list"), &SPECS)), metrics);
    }
}
