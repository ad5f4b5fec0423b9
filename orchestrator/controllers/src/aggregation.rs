//! ClusterRole aggregation: writes the rules that a role collects from others into it, so that `kubectl describe`
//! shows them (kubernetes: pkg/controller/clusterroleaggregation).

use std::sync::Arc;

use apimachinery::selector::Selector;
use client::{Key, Reconcile, WorkQueue};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Error};

/// The rules `role` should have: those of all others that it selects, each once, in order of their names.
fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_ref()?;
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors.iter().filter_map(|s| Selector::from_label_selector(Some(s)).ok()) {
        let chosen = all.iter().filter(|r| {
            r.name_any() != role.name_any() && selector.matches_labels(r.metadata.labels.as_ref())
        });
        for rule in chosen.flat_map(|r| r.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    (role.rules.as_deref().unwrap_or_default() != rules).then_some(rules)
}

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("clusterrole_aggregation");
    let roles = context.informers.of::<ClusterRole>();
    let (q, r) = (queue.clone(), roles.clone());
    roles.on_change(move |_| {
        // Any role may be collected by any other; there are few that collect.
        for role in r.list().iter().filter(|r| r.aggregation_rule.is_some()) {
            q.add(Key::of(&**role));
        }
    });
    roles.synced().await;
    queue
        .run(1, stop, move |key| {
            let context = context.clone();
            async move {
                let roles = context.informers.of::<ClusterRole>();
                let Some(role) = roles.get(&key) else { return Ok(Reconcile::Done) };
                if let Some(rules) = plan(&role, &roles.list()) {
                    let api: Api<ClusterRole> = Api::all(context.client());
                    let patch = Patch::Merge(json!({"rules": rules}));
                    client::error::optional(api.patch(&key.name, &PatchParams::default(), &patch).await)?;
                }
                Ok::<_, Error>(Reconcile::Done)
            }
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, label: &str, verbs: &[&str], selects: Option<&str>) -> Arc<ClusterRole> {
        let aggregation = selects.map(|s| json!({"clusterRoleSelectors": [{"matchLabels": {s: "true"}}]}));
        let r = json!({"metadata": {"name": name, "labels": {label: "true"}}, "aggregationRule": aggregation,
            "rules": verbs.iter().map(|v| json!({"verbs": [v], "apiGroups": [""], "resources": ["pods"]})).collect::<Vec<_>>()});
        Arc::new(serde_json::from_value(r).expect("a role"))
    }

    #[test]
    fn rules_are_collected_once() {
        let all = [
            role("a", "to-view", &["get", "list"], None),
            role("b", "to-view", &["get"], None),
            role("c", "other", &["delete"], None),
            role("view", "to-edit", &[], Some("to-view")),
        ];
        let rules = plan(&all[3], &all).expect("a change");
        assert_eq!(rules.iter().flat_map(|r| r.verbs.clone()).collect::<Vec<_>>(), ["get", "list"]);
        assert_eq!(plan(&role("view", "to-edit", &["get", "list"], Some("to-view")), &all), None);
        assert_eq!(plan(&all[0], &all), None);
    }
}
