//! Events about pods, as `kubectl describe` shows them, off every critical path.
//!
//! What was said before of the same object in the same words is counted, not said again; who says too much of one pod
//! is not heard (kubernetes: client-go tools/record, events_cache.go).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use signal::Timestamp;
use signal::time::SharedClock;
use tokio::sync::mpsc;

use crate::metrics::METRICS;
use crate::status;

/// Events that may wait to be written; more are dropped and counted.
const QUEUE: usize = 1024;
/// Events remembered, to count their repetitions.
const REMEMBERED: usize = 4096;
/// Of one pod at once, and how often one more is heard after that.
const BURST: f64 = 25.0;
const ONE_MORE_AFTER: Duration = Duration::from_secs(300);

/// Records events in order, by one task. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<Said>,
}

/// What is said of a pod or its container. Equal ones are one event that happened several times.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Said {
    namespace: String,
    pod: String,
    uid: String,
    field: Option<String>,
    warning: bool,
    reason: String,
    note: String,
}

impl Events {
    pub(crate) fn new(client: Client, node: &str, clock: SharedClock) -> Self {
        let (queue, mut said) = mpsc::channel::<Said>(QUEUE);
        let mut recorder = Recorder {
            client,
            node: node.to_owned(),
            clock,
            sent: HashMap::new(),
            budgets: HashMap::new(),
            last: 0,
        };
        telemetry::task::spawn("kubelet-events", async move {
            while let Some(s) = said.recv().await {
                let (reason, pod) = (s.reason.clone(), s.pod.clone());
                if let Err(e) = recorder.record(s).await {
                    tracing::debug!(reason, pod, error = %e, "event not recorded");
                }
            }
        });
        Events { queue }
    }

    fn send(&self, warning: bool, pod: &Pod, container: Option<&str>, reason: &str, note: String) {
        let meta = &pod.metadata;
        let said = Said {
            namespace: meta.namespace.clone().unwrap_or_default(),
            pod: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            field: container.map(|c| field(pod, c)),
            warning,
            reason: reason.to_owned(),
            // The API takes at most a kilobyte.
            note: note.chars().take(1000).collect(),
        };
        if self.queue.try_send(said).is_err() {
            METRICS.events_dropped.inc();
            tracing::warn!(reason, "an event was dropped: too many wait");
        }
    }

    pub(crate) fn normal(&self, pod: &Arc<Pod>, container: Option<&str>, reason: &str, note: String) {
        self.send(false, pod, container, reason, note);
    }

    pub(crate) fn warning(&self, pod: &Arc<Pod>, container: Option<&str>, reason: &str, note: String) {
        self.send(true, pod, container, reason, note);
    }
}

/// Where a container stands in its pod.
fn field(pod: &Pod, container: &str) -> String {
    let init = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
    let list = if init.into_iter().any(|c| c.name == container) { "initContainers" } else { "containers" };
    format!("spec.{list}{{{container}}}")
}

/// An event that is in the API.
struct Sent {
    name: String,
    count: i32,
    at: Timestamp,
}

/// How much more may be said of a pod.
struct Budget {
    left: f64,
    at: Timestamp,
}

struct Recorder {
    client: Client,
    node: String,
    clock: SharedClock,
    sent: HashMap<Said, Sent>,
    /// By pod uid.
    budgets: HashMap<String, Budget>,
    /// The time in the name of the last event: no two have the same.
    last: i64,
}

impl Recorder {
    async fn record(&mut self, said: Said) -> Result<(), kube::Error> {
        let now = self.clock.now();
        if !spend(&mut self.budgets, &said.uid, now) {
            METRICS.events_dropped.inc();
            return Ok(());
        }
        let api = Api::<Event>::namespaced(self.client.clone(), &said.namespace);
        if let Some(sent) = self.sent.get_mut(&said) {
            (sent.count, sent.at) = (sent.count.saturating_add(1), now);
            let body = json!({"count": sent.count, "lastTimestamp": status::time(now)});
            match api.patch(&sent.name, &PatchParams::default(), &Patch::Merge(body)).await {
                // Events do not live long: said again, it is a new one.
                Err(e) if client::error::is_not_found(&e) => {}
                r => return r.map(|_| ()),
            }
        }
        self.last = now.nanos().max(self.last + 1);
        let name = format!("{}.{:x}", said.pod, self.last);
        api.create(&PostParams::default(), &self.event(&said, &name, status::time(now))).await?;
        if self.sent.len() >= REMEMBERED {
            forget_older_half(&mut self.sent);
        }
        self.sent.insert(said, Sent { name, count: 1, at: now });
        Ok(())
    }

    fn event(&self, said: &Said, name: &str, now: Time) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(said.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(Pod::api_version(&()).into_owned()),
                kind: Some(Pod::kind(&()).into_owned()),
                name: Some(said.pod.clone()),
                namespace: Some(said.namespace.clone()),
                uid: Some(said.uid.clone()),
                field_path: said.field.clone(),
                ..ObjectReference::default()
            },
            type_: Some(if said.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(said.reason.clone()),
            message: Some(said.note.clone()),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node.clone()),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            count: Some(1),
            ..Event::default()
        }
    }
}

/// Takes one event from a pod's budget, which refills slowly; false if nothing is left.
fn spend(budgets: &mut HashMap<String, Budget>, uid: &str, now: Timestamp) -> bool {
    let refilled =
        |b: &Budget| (b.left + now.since(b.at).as_secs_f64() / ONE_MORE_AFTER.as_secs_f64()).min(BURST);
    if budgets.len() >= REMEMBERED {
        // A full budget is what an unknown pod has.
        budgets.retain(|_, b| refilled(b) < BURST);
    }
    let b = budgets.entry(uid.to_owned()).or_insert(Budget { left: BURST, at: now });
    (b.left, b.at) = (refilled(b), now);
    if b.left < 1.0 {
        return false;
    }
    b.left -= 1.0;
    true
}

fn forget_older_half(sent: &mut HashMap<Said, Sent>) {
    let mut times: Vec<i64> = sent.values().map(|s| s.at.nanos()).collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    sent.retain(|_, s| s.at.nanos() > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_heard_so_often_and_then_rarely() {
        let mut budgets = HashMap::new();
        let at = Timestamp::from_secs;
        let heard = (0..100).filter(|_| spend(&mut budgets, "a", at(1000))).count();
        assert_eq!(heard, 25);
        assert!(spend(&mut budgets, "b", at(1000)));
        assert!(!spend(&mut budgets, "a", at(1200)));
        assert!(spend(&mut budgets, "a", at(1301)));
        assert!(!spend(&mut budgets, "a", at(1302)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let said = |n: i64| Said {
            namespace: "n".to_owned(),
            pod: "p".to_owned(),
            uid: n.to_string(),
            field: None,
            warning: false,
            reason: "R".to_owned(),
            note: String::new(),
        };
        let sent = |n| Sent { name: String::new(), count: 1, at: Timestamp::from_secs(n) };
        let mut all: HashMap<Said, Sent> = (0..100).map(|n| (said(n), sent(n))).collect();
        forget_older_half(&mut all);
        assert_eq!(all.len(), 49);
        assert!(all.contains_key(&said(99)) && !all.contains_key(&said(0)));
    }
}
