//! Writes pods for the controllers that own them: created and deleted in bursts, each with its event, and not
//! again before the cache shows them.

use std::fmt::Debug;
use std::sync::Arc;

use apimachinery::trace::TRACEPARENT_ANNOTATION;
use client::{Change, EventRecorder, Informer, Key, WorkQueue};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::context::{Context, Error};
use crate::expectations::Expectations;
use crate::owner::{controller_of, controller_ref};

/// Writes on their way at once.
const PARALLEL: usize = 16;

pub(crate) struct PodControl {
    pub(crate) context: Context,
    pub(crate) recorder: EventRecorder,
    expectations: Expectations,
}

/// A pod of this owner. It carries its owner's trace, so that one trace tells the whole change.
pub(crate) fn from_template<K: Resource<DynamicType = ()>>(owner: &K, template: PodTemplateSpec) -> Pod {
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let trace = telemetry::propagation::current_traceparent()
        .or_else(|| owner.annotations().get(TRACEPARENT_ANNOTATION).cloned());
    if let Some(trace) = trace {
        annotations.insert(TRACEPARENT_ANNOTATION.to_owned(), trace);
    }
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name_any())),
            namespace: owner.namespace(),
            labels: meta.labels,
            annotations: Some(annotations),
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_ref(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

impl PodControl {
    pub(crate) fn new(context: Context, component: &str) -> Arc<Self> {
        Arc::new(PodControl {
            recorder: context.recorder(component),
            context,
            expectations: Expectations::default(),
        })
    }

    /// Whether the cache shows everything that was written for this owner.
    pub(crate) fn satisfied(&self, owner: &Key) -> bool {
        self.expectations.satisfied(owner)
    }

    pub(crate) fn forget(&self, owner: &Key) {
        self.expectations.forget(owner);
    }

    /// Queues the owners of this kind when they change, and when pods of theirs do.
    pub(crate) fn queue_owners<K>(
        self: &Arc<Self>,
        owners: &Informer<K>,
        pods: &Informer<Pod>,
        queue: &Arc<WorkQueue<Key>>,
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let (q, c) = (queue.clone(), self.clone());
        owners.on_change(move |change| {
            let key = Key::of(&**change.object());
            if change.new.is_none() {
                c.forget(&key);
            }
            q.add(key);
        });
        let (q, c) = (queue.clone(), self.clone());
        pods.on_change(move |change| {
            if let Some(owner) = c.observe(change, &K::kind(&())) {
                q.add(owner);
            }
        });
    }

    /// The owner of a changed pod, if it is of this kind.
    pub(crate) fn observe(&self, change: &Change<Pod>, kind: &str) -> Option<Key> {
        let pod = change.object();
        let owner = controller_of(&pod.metadata).filter(|o| o.kind == kind)?;
        let owner = Key::new(pod.namespace().unwrap_or_default(), &owner.name);
        let uid = pod.uid().unwrap_or_default();
        if change.new.is_none() || pod.metadata.deletion_timestamp.is_some() {
            self.expectations.deleted(&owner, &uid);
        } else {
            self.expectations.created(&owner, &uid);
        }
        Some(owner)
    }

    pub(crate) async fn create<K>(&self, owner: &K, key: &Key, pods: Vec<Pod>) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let api: Api<Pod> = Api::namespaced(self.context.client(), &key.namespace);
        let cache = self.context.informers.of::<Pod>();
        let mut writes = futures::stream::iter(pods)
            .map(|pod| {
                let api = api.clone();
                async move { api.create(&PostParams::default(), &pod).await }
            })
            .buffer_unordered(PARALLEL);
        let mut failed = None;
        while let Some(r) = writes.next().await {
            match r {
                Ok(p) => {
                    let uid = p.uid().unwrap_or_default();
                    let seen = || cache.get(&Key::of(&p)).is_some_and(|s| s.uid() == p.uid());
                    self.expectations.expect_creation(key, uid, seen);
                    let note = format!("Created pod: {}", p.name_any());
                    self.recorder.normal(owner, "SuccessfulCreate", "Create", note).await;
                }
                Err(e) => failed = Some(e),
            }
        }
        drop(writes);
        if let Some(e) = failed {
            self.recorder.warning(owner, "FailedCreate", "Create", format!("Error creating: {e}")).await;
            return Err(e.into());
        }
        Ok(())
    }

    pub(crate) async fn delete<K>(&self, owner: &K, key: &Key, names: &[String]) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let api: Api<Pod> = Api::namespaced(self.context.client(), &key.namespace);
        let cache = self.context.informers.of::<Pod>();
        for name in names {
            let pod_key = Key::new(&key.namespace, name);
            let Some(p) = cache.get(&pod_key) else { continue };
            let uid = p.uid().unwrap_or_default();
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: p.uid(), resource_version: None }),
                ..DeleteParams::background()
            };
            match api.delete(name, &params).await {
                Ok(_) => {
                    let still = || {
                        cache.get(&pod_key).is_some_and(|s| {
                            s.uid().as_deref() == Some(&uid) && s.metadata.deletion_timestamp.is_none()
                        })
                    };
                    self.expectations.expect_deletion(key, uid.clone(), still);
                    let note = format!("Deleted pod: {name}");
                    self.recorder.normal(owner, "SuccessfulDelete", "Delete", note).await;
                }
                Err(e) if client::error::is_not_found(&e) || client::error::is_conflict(&e) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}
