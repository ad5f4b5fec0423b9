//! Records Events as `kubectl describe` shows them.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

/// Records events for one component. Repeated ones are counted up, not written again.
#[derive(Clone)]
pub struct EventRecorder {
    recorder: Recorder,
}

impl EventRecorder {
    /// `component` is what `kubectl describe` prints under "From".
    pub fn new(client: Client, component: &str, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: component.to_owned(), instance };
        EventRecorder { recorder: Recorder::new(client, reporter) }
    }

    /// A `Normal` event about `object`. Failures are logged: an event is never worth failing for.
    pub async fn normal<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        reason: &str,
        action: &str,
        note: String,
    ) {
        self.publish(object.object_ref(&()), EventType::Normal, reason, action, note).await;
    }

    /// A `Warning` event about `object`.
    pub async fn warning<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        reason: &str,
        action: &str,
        note: String,
    ) {
        self.publish(object.object_ref(&()), EventType::Warning, reason, action, note).await;
    }

    async fn publish(
        &self,
        object: ObjectReference,
        type_: EventType,
        reason: &str,
        action: &str,
        note: String,
    ) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(e) = self.recorder.publish(&event, &object).await {
            tracing::warn!(reason, object = ?object.name, error = %e, "event not recorded");
        }
    }
}
