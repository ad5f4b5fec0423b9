//! Pod GC: deletes pods that no node will end (kubernetes: pkg/controller/podgc).

use std::sync::Arc;
use std::time::Duration;

use client::{Key, Reconcile, WorkQueue};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::DeleteParams;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Error};
use crate::pod;

/// How often the finished pods are counted.
const PERIOD: Duration = Duration::from_secs(20);

/// Keys of pods to delete at once: those bound to a node that is not there, those being deleted that never
/// had a node, and the oldest finished ones above the threshold.
fn plan(pods: &[Arc<Pod>], node_exists: impl Fn(&str) -> bool, threshold: usize) -> Vec<Key> {
    let node = |p: &Pod| p.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty());
    let mut gone: Vec<Key> = pods
        .iter()
        .filter(|p| match node(p) {
            Some(n) => !node_exists(&n),
            None => p.metadata.deletion_timestamp.is_some(),
        })
        .map(|p| Key::of(&**p))
        .collect();
    let mut finished: Vec<&Arc<Pod>> =
        pods.iter().filter(|p| matches!(pod::phase(p), "Succeeded" | "Failed")).collect();
    if finished.len() > threshold {
        finished.sort_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0));
        gone.extend(finished.iter().take(finished.len() - threshold).map(|p| Key::of(&***p)));
    }
    gone.sort();
    gone.dedup();
    gone
}

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("podgc");
    let nodes = context.informers.of::<Node>();
    let pods = context.informers.of::<Pod>();
    nodes.synced().await;
    pods.synced().await;
    let q = queue.clone();
    nodes.on_change(move |c| {
        if c.new.is_none() {
            q.add("all");
        }
    });
    queue.add("all");
    queue
        .run(1, stop, move |_| {
            let context = context.clone();
            async move {
                let nodes = context.informers.of::<Node>();
                let pods = context.informers.of::<Pod>().list();
                let threshold = context.config.terminated_pod_gc_threshold;
                for key in plan(&pods, |n| nodes.get(&Key::new("", n)).is_some(), threshold) {
                    let api: Api<Pod> = Api::namespaced(context.client(), &key.namespace);
                    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                    client::error::optional(api.delete(&key.name, &now).await.map(drop))?;
                    tracing::info!(namespace = %key.namespace, pod = %key.name, "deleted a pod that no node will end");
                }
                Ok::<_, Error>(Reconcile::After(PERIOD))
            }
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn a_pod(name: &str, node: &str, phase: &str, created: &str) -> Arc<Pod> {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "creationTimestamp": created},
            "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase}
        }));
        Arc::new(pod.expect("a pod"))
    }

    #[test]
    fn lost_and_surplus_pods_go() {
        let pods = [
            a_pod("lost", "gone", "Running", "2026-01-01T00:00:00Z"),
            a_pod("kept", "here", "Running", "2026-01-01T00:00:00Z"),
            a_pod("old", "here", "Succeeded", "2026-01-01T00:00:00Z"),
            a_pod("new", "here", "Failed", "2026-01-02T00:00:00Z"),
        ];
        let names: Vec<_> = plan(&pods, |n| n == "here", 1).into_iter().map(|k| k.name).collect();
        assert_eq!(names, ["lost", "old"]);
    }
}
