//! HorizontalPodAutoscaler: stored as v2, served as v2 and v1.

mod rules;

use serde_json::{Value, json};
use signal::Timestamp;

use super::{AGE, Alias, BASE, Kind, NAME, WAY, column};
use crate::{object, table};

pub(crate) static HPA: Kind = Kind {
    group: "autoscaling",
    version: "v2",
    resource: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    kind: "HorizontalPodAutoscaler",
    short: &["hpa"],
    categories: &["all"],
    status: true,
    aliases: &[Alias { group: "autoscaling", from_storage, to_storage, ..WAY }],
    default,
    prepare_create: |o| o["status"] = json!({"currentMetrics": null, "desiredReplicas": 0}),
    validate: rules::autoscaler,
    columns: &[
        NAME,
        column("Reference"),
        column("Targets"),
        column("MinPods"),
        column("MaxPods"),
        column("Replicas"),
        AGE,
    ],
    row,
    ..BASE
};

/// Where v1 keeps the behavior.
const BEHAVIOR_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// Where v1 keeps the metrics it has no fields for.
const METRICS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/metrics";

/// Where v1 keeps the conditions (kubernetes: pkg/apis/autoscaling/v1/conversion.go).
const CONDITIONS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/conditions";

fn is_cpu(m: &Value) -> bool {
    m["type"] == "Resource"
        && m["resource"]["name"] == "cpu"
        && m["resource"]["target"]["type"] == "Utilization"
}

fn from_storage(o: &mut Value) {
    let metrics = object::list(o, "spec.metrics").to_vec();
    let cpu =
        metrics.iter().find(|m| is_cpu(m)).map(|m| m["resource"]["target"]["averageUtilization"].clone());
    let others: Vec<Value> = metrics.into_iter().filter(|m| !is_cpu(m)).collect();
    let mut behavior = None;
    if let Some(spec) = o.get_mut("spec") {
        drop(object::remove(spec, "metrics"));
        behavior = object::remove(spec, "behavior");
        if let Some(u) = cpu {
            spec["targetCPUUtilizationPercentage"] = u;
        }
    }
    let others = (!others.is_empty()).then(|| Value::Array(others));
    let conditions = object::get(o, "status.conditions").cloned();
    for (key, kept) in
        [(METRICS_ANNOTATION, others), (BEHAVIOR_ANNOTATION, behavior), (CONDITIONS_ANNOTATION, conditions)]
    {
        if let Some(kept) = kept {
            let meta = object::child(o, "metadata");
            object::child(meta, "annotations")[key] = kept.to_string().into();
        }
    }
    let current = object::list(o, "status.currentMetrics").iter().find(|m| m["resource"]["name"] == "cpu");
    let current = current.map(|m| m["resource"]["current"]["averageUtilization"].clone());
    if let Some(status) = o.get_mut("status") {
        drop(object::remove(status, "currentMetrics"));
        drop(object::remove(status, "conditions"));
        object::default(status, "currentReplicas", 0);
        if let Some(u) = current {
            status["currentCPUUtilizationPercentage"] = u;
        }
    }
}

fn to_storage(o: &mut Value) {
    let mut metrics = Vec::new();
    if let Some(spec) = o.get_mut("spec")
        && let Some(u) = object::remove(spec, "targetCPUUtilizationPercentage")
    {
        metrics.push(json!({
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": u}},
        }));
    }
    let annotation = o.get_mut("metadata").and_then(|m| m.get_mut("annotations"));
    if let Some(Value::String(text)) = annotation.and_then(|a| object::remove(a, METRICS_ANNOTATION))
        && let Ok(Value::Array(more)) = serde_json::from_str(&text)
    {
        metrics.extend(more);
    }
    if !metrics.is_empty() {
        object::child(o, "spec")["metrics"] = Value::Array(metrics);
    }
    let annotation = o.get_mut("metadata").and_then(|m| m.get_mut("annotations"));
    if let Some(Value::String(text)) = annotation.and_then(|a| object::remove(a, BEHAVIOR_ANNOTATION))
        && let Ok(behavior @ Value::Object(_)) = serde_json::from_str(&text)
    {
        object::child(o, "spec")["behavior"] = behavior;
    }
    let annotation = o.get_mut("metadata").and_then(|m| m.get_mut("annotations"));
    let conditions = annotation.and_then(|a| object::remove(a, CONDITIONS_ANNOTATION));
    if let Some(status) = o.get_mut("status") {
        drop(object::remove(status, "currentCPUUtilizationPercentage"));
        if let Some(Value::String(text)) = conditions
            && let Ok(conditions @ Value::Array(_)) = serde_json::from_str(&text)
        {
            status["conditions"] = conditions;
        }
    }
}

fn default(o: &mut Value) {
    let spec = object::child(o, "spec");
    object::default(spec, "minReplicas", 1);
    if object::list(spec, "metrics").is_empty() {
        spec["metrics"] = json!([{
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
        }]);
    }
    if object::get(spec, "behavior").is_some() {
        let up = json!([
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ]);
        let down = json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]);
        let behavior = object::child(spec, "behavior");
        for (name, policies, window) in [("scaleUp", up, Some(0)), ("scaleDown", down, None)] {
            let rules = object::child(behavior, name);
            if let Some(w) = window {
                object::default(rules, "stabilizationWindowSeconds", w);
            }
            object::default_text(rules, "selectPolicy", "Max");
            object::default(rules, "policies", policies);
        }
    }
}

/// One metric's `current/target`.
fn target(spec: &Value, current: Option<&Value>) -> String {
    let target = &spec["target"];
    let current = current.map(|c| &c["current"]);
    let text = |v: Option<&Value>| match v {
        Some(Value::String(s)) => Some(s.clone()),
        Some(Value::Number(n)) => Some(n.to_string()),
        _ => None,
    };
    if let Some(u) = text(target.get("averageUtilization")) {
        let now = text(current.and_then(|c| c.get("averageUtilization")))
            .map_or("<unknown>".to_owned(), |c| format!("{c}%"));
        return format!("{now}/{u}%");
    }
    for (field, suffix) in [("averageValue", " (avg)"), ("value", "")] {
        if let Some(t) = text(target.get(field)) {
            let now = text(current.and_then(|c| c.get(field))).unwrap_or("<unknown>".to_owned());
            return format!("{now}/{t}{suffix}");
        }
    }
    "<auto>".to_owned()
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    let current = object::list(o, "status.currentMetrics");
    for (i, m) in object::list(o, "spec.metrics").iter().enumerate() {
        let field = match m["type"].as_str() {
            Some("Resource") => "resource",
            Some("ContainerResource") => "containerResource",
            Some("Pods") => "pods",
            Some("Object") => "object",
            _ => "external",
        };
        let c = current.get(i).and_then(|c| c.get(field));
        let text = target(&m[field], c);
        all.push(match m["type"].as_str() {
            Some("Resource" | "ContainerResource") => {
                format!("{}: {text}", m[field]["name"].as_str().unwrap_or_default())
            }
            _ => text,
        });
    }
    if let Some(u) = object::int(o, "spec.targetCPUUtilizationPercentage") {
        let c = object::int(o, "status.currentCPUUtilizationPercentage");
        all.push(format!("cpu: {}/{u}%", c.map_or("<unknown>".to_owned(), |c| format!("{c}%"))));
    }
    let targets = match all.len() {
        0 => "<none>".to_owned(),
        1..=2 => all.join(", "),
        n => format!("{} + {} more...", all[..2].join(", "), n - 2),
    };
    let reference = format!(
        "{}/{}",
        object::text(o, "spec.scaleTargetRef.kind").unwrap_or_default(),
        object::text(o, "spec.scaleTargetRef.name").unwrap_or_default()
    );
    let n = |path: &str| object::int(o, path).map_or("<unset>".to_owned(), |n| n.to_string());
    vec![
        object::name(o).into(),
        reference.into(),
        targets.into(),
        n("spec.minReplicas").into(),
        object::int(o, "spec.maxReplicas").unwrap_or(0).to_string().into(),
        object::int(o, "status.currentReplicas").unwrap_or(0).to_string().into(),
        table::age(o, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_keeps_what_it_has_no_fields_for() {
        let stored = json!({
            "metadata": {"name": "a", "annotations": {"x": "y"}},
            "spec": {"maxReplicas": 3, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            ]},
            "status": {"currentReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}]},
        });
        let mut o = stored.clone();
        from_storage(&mut o);
        assert_eq!(o["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(o["status"], json!({"currentReplicas": 1}));
        assert_eq!(
            o["metadata"]["annotations"][CONDITIONS_ANNOTATION],
            r#"[{"type":"AbleToScale","status":"True"}]"#
        );
        to_storage(&mut o);
        assert_eq!(o, stored);
    }
}
