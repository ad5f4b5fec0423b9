//! Annotations `binnacle.io/logs-…` of namespaces and pods, told to whoever processes lines.

use std::sync::Arc;

use client::Informers;
use collector::process::{Rules, Settings};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;

pub(super) fn watch(rules: Arc<Rules>, informers: &Informers) {
    let of_namespaces = rules.clone();
    informers.of::<Namespace>().on_change(move |c| {
        let whose = c.object().name_any();
        of_namespaces.annotate(&whose, c.new.as_ref().and_then(|n| said(&whose, &**n)));
    });
    informers.of::<Pod>().on_change(move |c| {
        let pod = c.object();
        let whose = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        rules.annotate(&whose, c.new.as_ref().and_then(|p| said(&whose, &**p)));
    });
}

/// What is wrong is told and has no effect: lines are stored as if nothing had been said.
fn said(whose: &str, object: &impl ResourceExt) -> Option<Settings> {
    let all = object.annotations().iter().map(|(n, v)| (n.as_str(), v.as_str()));
    match Settings::from_annotations(all) {
        Ok(settings) => settings,
        Err(e) => {
            tracing::warn!(whose, error = %e, "annotations of log processing that cannot be used");
            None
        }
    }
}
