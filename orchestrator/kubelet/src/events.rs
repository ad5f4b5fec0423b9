//! Events about pods, as `kubectl describe` shows them, off every critical path.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;

/// Events that may wait to be written; more are dropped and logged.
const QUEUE: usize = 1024;

/// Records events in order, by one task. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
}

impl Events {
    pub(crate) fn new(client: Client, node: &str) -> Self {
        let reporter = Reporter { controller: "kubelet".to_owned(), instance: Some(node.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        let (queue, mut events) = mpsc::channel::<(Event, ObjectReference)>(QUEUE);
        telemetry::task::spawn("kubelet-events", async move {
            while let Some((event, about)) = events.recv().await {
                if let Err(e) = recorder.publish(&event, &about).await {
                    tracing::debug!(reason = event.reason, pod = ?about.name, error = %e, "event not recorded");
                }
            }
        });
        Events { queue }
    }

    fn send(&self, type_: EventType, pod: &Pod, container: Option<&str>, reason: &str, note: String) {
        let mut about = pod.object_ref(&());
        about.field_path = container.map(|c| format!("spec.containers{{{c}}}"));
        let event = Event {
            type_,
            reason: reason.to_owned(),
            // The API takes at most a kilobyte.
            note: Some(note.chars().take(1000).collect()),
            action: reason.to_owned(),
            secondary: None,
        };
        if self.queue.try_send((event, about)).is_err() {
            tracing::warn!(reason, "an event was dropped: too many wait");
        }
    }

    pub(crate) fn normal(&self, pod: &Arc<Pod>, container: Option<&str>, reason: &str, note: String) {
        self.send(EventType::Normal, pod, container, reason, note);
    }

    pub(crate) fn warning(&self, pod: &Arc<Pod>, container: Option<&str>, reason: &str, note: String) {
        self.send(EventType::Warning, pod, container, reason, note);
    }
}
