//! A cache of all objects of one kind, kept true by a watch, with handlers called at each change.
//!
//! Objects are kept without what only few ask for ([`crate::slim`]): who changes one asks the API for it.
//! One task per informer owns the watch. Handlers run on that task, in order, and must be quick: they put
//! keys on a [`crate::WorkQueue`]. Lock order: `handlers` before `objects`.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::slim::slim;

/// Names an object of a known kind. The namespace is empty for cluster-scoped kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key { namespace: namespace.into(), name: name.into() }
    }

    pub fn of<K: Resource>(object: &K) -> Self {
        Key { namespace: object.meta().namespace.clone().unwrap_or_default(), name: object.name_any() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What happened to an object. `old` is missing for a new one, `new` for one that is gone.
pub struct Change<K> {
    pub old: Option<Arc<K>>,
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The newest state known: for a deletion the last one.
    pub fn object(&self) -> &Arc<K> {
        self.new.as_ref().or(self.old.as_ref()).expect("a change has an old or a new state")
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

struct Inner<K> {
    objects: RwLock<BTreeMap<Key, Arc<K>>>,
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

/// All objects of one kind. Cloning shares it.
pub struct Informer<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer { inner: self.inner.clone() }
    }
}

impl<K> Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Lists and watches until `stop`.
    pub fn start(api: Api<K>, config: watcher::Config, stop: CancellationToken) -> Self {
        let inner = Arc::new(Inner {
            objects: RwLock::default(),
            handlers: Mutex::default(),
            synced: watch::Sender::new(false),
        });
        let informer = Informer { inner };
        let run = informer.clone().run(api, config);
        telemetry::task::spawn("informer", async move { stop.run_until_cancelled(run).await });
        informer
    }

    async fn run(self, api: Api<K>, config: watcher::Config) {
        let stream = watcher(api, config).modify(slim).default_backoff();
        let mut stream = pin!(stream);
        let mut listed: Option<BTreeSet<Key>> = None;
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = Some(BTreeSet::new()),
                Ok(watcher::Event::InitApply(o)) => {
                    if let Some(keys) = &mut listed {
                        keys.insert(Key::of(&o));
                    }
                    self.apply(o);
                }
                Ok(watcher::Event::InitDone) => {
                    // What was deleted while we were not watching.
                    let listed = listed.take().unwrap_or_default();
                    let gone: Vec<Key> =
                        self.inner.objects.read().keys().filter(|k| !listed.contains(k)).cloned().collect();
                    gone.iter().for_each(|k| self.delete(k));
                    self.inner.synced.send_replace(true);
                }
                Ok(watcher::Event::Apply(o)) => self.apply(o),
                Ok(watcher::Event::Delete(o)) => self.delete(&Key::of(&o)),
                Err(e) => {
                    tracing::warn!(kind = %K::kind(&()), error = %e, "watch failed, trying again");
                }
            }
        }
    }

    fn apply(&self, object: K) {
        let key = Key::of(&object);
        let new = Arc::new(object);
        let handlers = self.inner.handlers.lock();
        let old = self.inner.objects.write().insert(key, new.clone());
        if old.as_ref().is_some_and(|o| o.resource_version() == new.resource_version()) {
            return;
        }
        let change = Change { old, new: Some(new) };
        handlers.iter().for_each(|h| h(&change));
    }

    fn delete(&self, key: &Key) {
        let handlers = self.inner.handlers.lock();
        let Some(old) = self.inner.objects.write().remove(key) else { return };
        let change = Change { old: Some(old), new: None };
        handlers.iter().for_each(|h| h(&change));
    }

    /// Calls `handler` for every object there is, then at each change. It must not block.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = self.inner.handlers.lock();
        for object in self.list() {
            handler(&Change { old: None, new: Some(object) });
        }
        handlers.push(Box::new(handler));
    }

    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.inner.objects.read().get(key).cloned()
    }

    /// All objects, in order of key.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.inner.objects.read().values().cloned().collect()
    }

    /// Objects of one namespace, in order of name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.inner
            .objects
            .read()
            .range(Key::new(namespace, "")..)
            .take_while(|(k, _)| k.namespace == namespace)
            .map(|(_, o)| o.clone())
            .collect()
    }

    pub fn len(&self) -> usize {
        self.inner.objects.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        let mut synced = self.inner.synced.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        drop(synced.wait_for(|s| *s).await);
    }
}

/// The informers of one process: one per kind, started when first asked for.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    stop: CancellationToken,
    by_kind: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send + Sync>>>>,
}

impl Informers {
    /// Informers that run until `stop`.
    pub fn new(client: Client, stop: CancellationToken) -> Self {
        Informers { client, stop, by_kind: Arc::default() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The informer of all objects of a kind in all namespaces.
    pub fn of<K>(&self) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.by_kind
            .lock()
            .entry(TypeId::of::<K>())
            .or_insert_with(|| {
                let api = Api::<K>::all(self.client.clone());
                let config = watcher::Config::default().any_semantic();
                Box::new(Informer::start(api, config, self.stop.clone()))
            })
            .downcast_ref::<Informer<K>>()
            .expect("the map holds an Informer<K> under K's id")
            .clone()
    }
}
