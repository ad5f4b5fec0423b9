//! What one object counts for.

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::{Amounts, amounts};
use crate::kinds::Kind;
use crate::object;

const LEGACY: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

fn one() -> Quantity {
    "1".parse().expect("one is a quantity")
}

/// `count/deployments.apps`
fn count_key(kind: &Kind) -> String {
    match kind.group {
        "" => format!("count/{}", kind.resource),
        g => format!("count/{}.{g}", kind.resource),
    }
}

/// Whether objects of a kind can count for this key.
pub(super) fn counts(kind: &Kind, key: &str) -> bool {
    if key == kind.resource && kind.group.is_empty() || *key == count_key(kind) {
        return true;
    }
    match (kind.group, kind.resource) {
        ("", "services") => key.starts_with("services."),
        ("", "persistentvolumeclaims") => key == "requests.storage",
        ("", "pods") => {
            !key.contains('/')
                && !LEGACY.contains(&key)
                && key != "requests.storage"
                && !key.starts_with("services.")
        }
        _ => false,
    }
}

fn is_over(pod: &Value) -> bool {
    matches!(object::text(pod, "status.phase"), Some("Succeeded" | "Failed"))
}

/// Requests or limits of a pod: of all its containers together, or of its greediest init container.
fn of_pod(pod: &Value, which: &str) -> Amounts {
    let of = |c: &Value| amounts(c, &format!("resources.{which}"));
    let mut sum = Amounts::new();
    for c in object::list(pod, "spec.containers") {
        for (k, v) in of(c) {
            *sum.entry(k).or_default() += v;
        }
    }
    for c in object::list(pod, "spec.initContainers") {
        for (k, v) in of(c) {
            let most = sum.entry(k).or_default();
            *most = (*most).max(v);
        }
    }
    sum
}

/// Everything an object counts for.
pub(super) fn of(kind: &Kind, o: &Value) -> Amounts {
    let mut out = Amounts::from([(count_key(kind), one())]);
    if !kind.group.is_empty() {
        return out;
    }
    if LEGACY.contains(&kind.resource) && !(kind.builtin() == "pods" && is_over(o)) {
        out.insert(kind.resource.to_owned(), one());
    }
    match kind.builtin() {
        "pods" if !is_over(o) => {
            for (k, v) in of_pod(o, "requests") {
                if matches!(k.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                    out.insert(k.clone(), v);
                }
                out.insert(format!("requests.{k}"), v);
            }
            out.extend(of_pod(o, "limits").into_iter().map(|(k, v)| (format!("limits.{k}"), v)));
        }
        "services" => {
            let ty = object::text(o, "spec.type").unwrap_or("ClusterIP");
            if ty == "LoadBalancer" {
                out.insert("services.loadbalancers".to_owned(), one());
            }
            if matches!(ty, "LoadBalancer" | "NodePort") {
                let ports = object::list(o, "spec.ports").len().to_string();
                out.insert("services.nodeports".to_owned(), ports.parse().unwrap_or_default());
            }
        }
        "persistentvolumeclaims" => {
            if let Some(v) = amounts(o, "spec.resources.requests").get("storage") {
                out.insert("requests.storage".to_owned(), *v);
            }
        }
        _ => {}
    }
    out
}

/// `cpu for: a,b`: amounts a quota limits and containers do not say.
pub(super) fn lacking<'a>(kind: &Kind, o: &Value, hard: impl Iterator<Item = &'a String>) -> Vec<String> {
    if kind.builtin() != "pods" {
        return Vec::new();
    }
    let lacks = |key: &String| -> Option<String> {
        let (which, name) = match key.split_once('.') {
            Some((w @ ("requests" | "limits"), n)) => (w, n),
            None => ("requests", key.as_str()),
            _ => return None,
        };
        if !matches!(name, "cpu" | "memory") {
            return None;
        }
        let without = object::list(o, "spec.containers")
            .iter()
            .filter(|c| object::get(c, &format!("resources.{which}")).is_none_or(|r| r.get(name).is_none()));
        let names: Vec<&str> = without.filter_map(|c| c["name"].as_str()).collect();
        (!names.is_empty()).then(|| format!("{key} for: {}", names.join(",")))
    };
    hard.filter_map(lacks).collect()
}

/// Whether a quota with scopes is about this object.
pub(super) fn is_in_scope(quota: &Value, kind: &Kind, o: &Value) -> bool {
    let scopes = object::list(quota, "spec.scopes").iter().filter_map(Value::as_str);
    let selectors = object::list(quota, "spec.scopeSelector.matchExpressions");
    let is_pod = kind.builtin() == "pods";
    let plain = |scope: &str| {
        let terminating = object::get(o, "spec.activeDeadlineSeconds").is_some();
        let best_effort = of_pod(o, "requests").is_empty() && of_pod(o, "limits").is_empty();
        is_pod
            && match scope {
                "Terminating" => terminating,
                "NotTerminating" => !terminating,
                "BestEffort" => best_effort,
                "NotBestEffort" => !best_effort,
                _ => true,
            }
    };
    let selected = |s: &Value| {
        let scope = object::text(s, "scopeName").unwrap_or_default();
        if scope != "PriorityClass" {
            return plain(scope);
        }
        let class = object::text(o, "spec.priorityClassName").unwrap_or_default();
        let named = object::list(s, "values").iter().any(|v| v == class);
        is_pod
            && match object::text(s, "operator") {
                Some("In") => named,
                Some("NotIn") => !named,
                Some("Exists") => !class.is_empty(),
                Some("DoesNotExist") => class.is_empty(),
                _ => false,
            }
    };
    scopes.into_iter().all(plain) && selectors.iter().all(selected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use serde_json::json;

    fn pod() -> Value {
        json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}},
            {"name": "b", "resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}}}],
            "initContainers": [{"name": "i", "resources": {"requests": {"memory": "2Gi"}}}]}})
    }

    #[test]
    fn pods_count_for_what_they_ask() {
        let kind = kinds::by_resource("", "pods").expect("pods").kind;
        let used = of(kind, &pod());
        let words: Vec<String> = used.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            words.join(" "),
            "count/pods=1 cpu=1500m limits.cpu=1 memory=2Gi pods=1 requests.cpu=1500m requests.memory=2Gi"
        );
        let mut over = pod();
        over["status"] = json!({"phase": "Succeeded"});
        assert_eq!(of(kind, &over).len(), 1);
        let hard = ["limits.cpu".to_owned(), "memory".to_owned(), "pods".to_owned()];
        assert_eq!(lacking(kind, &pod(), hard.iter()), ["limits.cpu for: a", "memory for: b"]);
    }

    #[test]
    fn scopes_choose() {
        let kind = kinds::by_resource("", "pods").expect("pods").kind;
        let quota = |scope: &str| json!({"spec": {"scopes": [scope]}});
        assert!(is_in_scope(&quota("NotBestEffort"), kind, &pod()));
        assert!(!is_in_scope(&quota("BestEffort"), kind, &pod()));
        assert!(is_in_scope(&json!({"spec": {}}), kind, &pod()));
    }
}
