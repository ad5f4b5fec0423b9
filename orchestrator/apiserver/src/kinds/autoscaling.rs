//! HorizontalPodAutoscaler: stored as v2, served as v2 and v1.

mod first;
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
    aliases: &[Alias {
        group: "autoscaling",
        from_storage: first::from_storage,
        to_storage: first::to_storage,
        ..WAY
    }],
    default,
    prepare_create: |o| o["status"] = json!({"currentMetrics": null, "desiredReplicas": 0}),
    validate: rules::autoscaler,
    validate_status: super::status::autoscaler,
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
