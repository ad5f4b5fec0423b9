//! NodeAffinity: `nodeSelector` and the required terms of `affinity.nodeAffinity`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec};

use crate::snapshot::{NodeInfo, Resources};

pub(super) fn filter(_: &Pod, spec: &PodSpec, _: &Resources, node: &NodeInfo) -> Vec<String> {
    let empty = BTreeMap::new();
    let labels = node.node.metadata.labels.as_ref().unwrap_or(&empty);
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let fits = required.is_none_or(|r| r.node_selector_terms.iter().any(|t| matches(t, labels, &node.name)));
    if selected && fits {
        Vec::new()
    } else {
        vec!["node(s) didn't match Pod's node affinity/selector".to_owned()]
    }
}

/// All requirements of a term must hold; a term without any matches nothing.
fn matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|r| holds(r, labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| r.key == "metadata.name" && holds(r, Some(name)))
}

fn holds(r: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = r.values.as_deref().unwrap_or_default();
    let number = |s: Option<&str>| s.and_then(|s| s.parse::<i64>().ok());
    let bound = number(values.first().map(String::as_str));
    match r.operator.as_str() {
        "In" => value.is_some_and(|v| values.iter().any(|w| w == v)),
        "NotIn" => value.is_none_or(|v| values.iter().all(|w| w != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(bound).is_some_and(|(a, b)| a > b),
        "Lt" => number(value).zip(bound).is_some_and(|(a, b)| a < b),
        _ => false,
    }
}
