//! Records Events as `kubectl describe` shows them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde_json::json;

/// Events whose repetitions are counted up.
const REMEMBERED: usize = 4096;

/// Records events for one component. The same about the same object is counted up, not written again.
#[derive(Clone)]
pub struct EventRecorder {
    client: Client,
    source: EventSource,
    written: Arc<Mutex<Written>>,
}

/// What an event says: uid of its object, kind, reason, words.
type Said = (String, &'static str, String, String);

/// Name and count of what was said, the oldest first forgotten.
#[derive(Default)]
struct Written {
    by_words: HashMap<Said, (String, i32)>,
    order: VecDeque<Said>,
}

impl Written {
    /// The event to count up and its new count, if this was said before.
    fn again(&mut self, said: &Said) -> Option<(String, i32)> {
        let (name, count) = self.by_words.get_mut(said)?;
        *count += 1;
        Some((name.clone(), *count))
    }

    fn remember(&mut self, said: Said, name: String) {
        if self.by_words.insert(said.clone(), (name, 1)).is_none() {
            self.order.push_back(said);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_words.remove(&oldest);
        }
    }
}

impl EventRecorder {
    /// `component` is what `kubectl describe` prints under "From".
    pub fn new(client: Client, component: &str, instance: Option<String>) -> Self {
        let source = EventSource { component: Some(component.to_owned()), host: instance };
        EventRecorder { client, source, written: Arc::default() }
    }

    /// A `Normal` event about `object`. Failures are logged: an event is never worth failing for.
    pub async fn normal<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        reason: &str,
        action: &str,
        note: String,
    ) {
        self.publish(object.object_ref(&()), "Normal", reason, action, note).await;
    }

    /// A `Warning` event about `object`.
    pub async fn warning<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        reason: &str,
        action: &str,
        note: String,
    ) {
        self.publish(object.object_ref(&()), "Warning", reason, action, note).await;
    }

    async fn publish(
        &self,
        object: ObjectReference,
        type_: &'static str,
        reason: &str,
        action: &str,
        note: String,
    ) {
        if let Err(e) = self.write(&object, type_, reason, action, note).await {
            tracing::warn!(reason, object = ?object.name, error = %e, "event not recorded");
        }
    }

    async fn write(
        &self,
        object: &ObjectReference,
        type_: &'static str,
        reason: &str,
        action: &str,
        note: String,
    ) -> kube::Result<()> {
        // Events about cluster-wide objects lie in `default`.
        let namespace = object.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let nanos = signal::time::now().nanos();
        let now = Time(Timestamp::from_second(nanos.div_euclid(1_000_000_000)).unwrap_or(Timestamp::MAX));
        let said = (object.uid.clone().unwrap_or_default(), type_, reason.to_owned(), note.clone());
        let again = self.written.lock().again(&said);
        if let Some((name, count)) = again {
            let patch = json!({"count": count, "lastTimestamp": now});
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                // It is over an hour old, and gone.
                Err(e) if crate::error::is_not_found(&e) => {}
                other => return other.map(drop),
            }
        }
        let name = format!("{}.{nanos:x}", object.name.as_deref().unwrap_or_default());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: object.clone(),
            reason: Some(reason.to_owned()),
            message: Some(note),
            type_: Some(type_.to_owned()),
            action: Some(action.to_owned()).filter(|a| !a.is_empty()),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            ..Event::default()
        };
        api.create(&PostParams::default(), &event).await?;
        self.written.lock().remember(said, name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(note: &str) -> Said {
        ("u".to_owned(), "Normal", "Scaled".to_owned(), note.to_owned())
    }

    #[test]
    fn only_the_same_words_are_counted_up() {
        let mut w = Written::default();
        assert_eq!(w.again(&said("up from 0 to 2")), None);
        w.remember(said("up from 0 to 2"), "e1".to_owned());
        assert_eq!(w.again(&said("up from 0 to 2")), Some(("e1".to_owned(), 2)));
        assert_eq!(w.again(&said("down from 2 to 0")), None);
        for i in 0..=REMEMBERED {
            w.remember(said(&i.to_string()), "e".to_owned());
        }
        assert_eq!((w.by_words.len(), w.order.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(w.again(&said("up from 0 to 2")), None);
    }
}
