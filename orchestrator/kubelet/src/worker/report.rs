//! Sends a pod's status to the API: off the critical path, merged, the latest wins.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::metrics::METRICS;

/// Before a patch that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Reporter {
    latest: watch::Sender<Option<PodStatus>>,
    task: JoinHandle<()>,
}

impl Reporter {
    pub(crate) fn start(client: Client, pod: &Pod) -> Self {
        let (latest, receiver) = watch::channel(None);
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let sender = Sender {
            api: Api::namespaced(client, &namespace),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            sent: value(pod.status.as_ref()),
            receiver,
        };
        let task = telemetry::task::spawn("pod-status", sender.run());
        Reporter { latest, task }
    }

    pub(crate) fn send(&self, status: PodStatus) {
        self.latest.send_if_modified(|s| {
            let new = s.as_ref() != Some(&status);
            *s = Some(status);
            new
        });
    }

    /// Sends what is not sent yet and ends; not longer than a while.
    pub(crate) async fn finish(&mut self) {
        // The task ends when its sender is gone and all is sent.
        let (gone, _) = watch::channel(None);
        drop(std::mem::replace(&mut self.latest, gone));
        // A tear-down that failed is tried again, and comes here again.
        if self.task.is_finished() {
            return;
        }
        if tokio::time::timeout(Duration::from_secs(5), &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Sender {
    api: Api<Pod>,
    name: String,
    uid: String,
    /// What the API has, as far as we know.
    sent: Value,
    receiver: watch::Receiver<Option<PodStatus>>,
}

fn value(s: Option<&PodStatus>) -> Value {
    s.and_then(|s| serde_json::to_value(s).ok()).unwrap_or_else(|| json!({}))
}

/// A merge patch that makes `old` into `new`: what is no more becomes null.
fn difference(old: &Value, new: &Value) -> Map<String, Value> {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut out: Map<String, Value> =
        new.iter().filter(|(k, v)| old.get(*k) != Some(v)).map(|(k, v)| (k.clone(), v.clone())).collect();
    out.extend(old.keys().filter(|k| !new.contains_key(*k)).map(|k| (k.clone(), Value::Null)));
    out
}

impl Sender {
    async fn run(mut self) {
        while self.receiver.changed().await.is_ok() {
            loop {
                let status = self.receiver.borrow_and_update().clone();
                let new = value(status.as_ref());
                let patch = difference(&self.sent, &new);
                if patch.is_empty() {
                    break;
                }
                let body = json!({"metadata": {"uid": self.uid}, "status": patch});
                match self.api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(body)).await {
                    Ok(_) => {
                        METRICS.status_patches.inc();
                        self.sent = new;
                        break;
                    }
                    Err(e) if client::error::is_not_found(&e) || client::error::is_conflict(&e) => {
                        tracing::debug!(pod = self.name, error = %e, "the pod of this status is gone");
                        break;
                    }
                    Err(e) => {
                        tracing::warn!(pod = self.name, error = %e, "sending a pod's status; trying again");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_becomes_null() {
        let d = difference(&json!({"a": 1, "b": 2, "c": 3}), &json!({"a": 1, "b": 4}));
        assert_eq!(Value::Object(d), json!({"b": 4, "c": null}));
    }
}
