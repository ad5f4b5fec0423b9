//! The watch cache: every object as bytes ready to serve, and the last changes of each kind.
//!
//! One task follows the store and writes here; lists and watches read here and never touch the disk.
//! A read that must be current waits until the cache has reached the store's revision.
//! Watchers are cursors into a kind's ring of changes: a slow one is told "too old" and lists again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use store::{Range, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::{ApiError, Result};
use crate::kinds::{ALL, Kind};
use crate::object;

pub(crate) const PREFIX: &str = "/registry/";
/// Changes remembered per kind, and the bytes of their objects.
const RING: usize = 1000;
const RING_BYTES: usize = 2 << 20;
/// How long a read waits for the cache before it gives up.
const FRESH_WITHIN: Duration = Duration::from_secs(3);

/// An object as it is served in its storage version, with what selectors ask for.
#[derive(Debug)]
pub(crate) struct Object {
    /// `namespace/name`, or `name`.
    pub(crate) key: Box<str>,
    pub(crate) revision: u64,
    /// The whole JSON, with its resourceVersion.
    pub(crate) bytes: Bytes,
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
    /// In the order of the kind's `fields`.
    pub(crate) fields: Box<[Box<str>]>,
}

impl Object {
    fn new(kind: &Kind, key: &str, revision: u64, stored: &[u8]) -> Option<Object> {
        let mut o: Value = serde_json::from_slice(stored).ok()?;
        object::metadata(&mut o).insert("resourceVersion".to_owned(), revision.to_string().into());
        Some(Object::from_value(kind, key, revision, &o))
    }

    pub(crate) fn from_value(kind: &Kind, key: &str, revision: u64, o: &Value) -> Object {
        let labels = object::get(o, "metadata.labels").and_then(Value::as_object);
        let labels = labels.into_iter().flatten();
        Object {
            key: key.into(),
            revision,
            bytes: Bytes::from(o.to_string()),
            labels: labels.map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into())).collect(),
            fields: kind.fields.iter().map(|f| field_text(o, f).into()).collect(),
        }
    }

    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("the cache holds only what it serialized itself")
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.key.split_once('/').map(|(ns, _)| ns)
    }

    pub(crate) fn name(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, n)| n)
    }

    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| &**k == name).map(|(_, v)| &**v)
    }
}

fn field_text(o: &Value, path: &str) -> String {
    match object::get(o, path) {
        Some(Value::String(s)) => s.clone(),
        Some(v @ (Value::Bool(_) | Value::Number(_))) => v.to_string(),
        // Absent flags and numbers read as Go's zero values.
        _ if path == "spec.unschedulable" || path == "spec.hostNetwork" => "false".to_owned(),
        _ if path == "status.replicas" => "0".to_owned(),
        _ => String::new(),
    }
}

/// What happened to one object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) old: Option<Arc<Object>>,
    pub(crate) new: Option<Arc<Object>>,
}

impl Change {
    /// What this change alone keeps in memory, about: the old object is the new one of a change before.
    fn bytes(&self) -> usize {
        self.new.as_ref().or(self.old.as_ref()).map_or(0, |o| o.bytes.len())
    }
}

#[derive(Default)]
struct KindState {
    objects: BTreeMap<Box<str>, Arc<Object>>,
    ring: VecDeque<Change>,
    ring_bytes: usize,
    /// Changes after this revision are all in the ring.
    floor: u64,
    /// The revision of the last change.
    changed: u64,
}

/// What a list sees.
pub(crate) struct Snapshot {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) revision: u64,
    /// No change of this kind came after this revision.
    pub(crate) changed: u64,
}

pub(crate) struct Cache {
    kinds: Vec<Mutex<KindState>>,
    revision: watch::Sender<u64>,
    store: Arc<Store>,
}

/// The key of an object in the store.
pub(crate) fn store_key(kind: &Kind, key: &str) -> String {
    format!("{PREFIX}{}/{key}", kind.resource)
}

/// `namespace/name`, or `name`.
pub(crate) fn object_key(kind: &Kind, namespace: &str, name: &str) -> String {
    if kind.namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
}

impl Cache {
    /// Reads everything and then follows the store until `stop`.
    pub(crate) async fn open(
        store: Arc<Store>,
        stop: CancellationToken,
    ) -> std::result::Result<Arc<Cache>, store::Error> {
        let kinds = ALL.iter().map(|_| Mutex::default()).collect();
        let cache = Arc::new(Cache { kinds, revision: watch::Sender::new(0), store });
        let revision = cache.load().await?;
        let follower = cache.clone();
        telemetry::task::spawn("apiserver-cache", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follower.follow(revision) => {}
            }
        });
        Ok(cache)
    }

    async fn load(&self) -> std::result::Result<u64, store::Error> {
        let all = self.store.range(Range::prefix(PREFIX)).await?;
        let mut fresh: Vec<BTreeMap<Box<str>, Arc<Object>>> = ALL.iter().map(|_| BTreeMap::new()).collect();
        for item in &all.items {
            let Some((index, key)) = locate(&item.key) else { continue };
            match Object::new(ALL[index], key, item.mod_revision, &item.value) {
                Some(o) => drop(fresh[index].insert(key.into(), Arc::new(o))),
                None => tracing::error!(key, "an object in the store is not JSON"),
            }
        }
        for (state, objects) in self.kinds.iter().zip(fresh) {
            let mut state = state.lock();
            *state = KindState {
                objects,
                ring: VecDeque::new(),
                ring_bytes: 0,
                floor: all.revision,
                changed: all.revision,
            };
        }
        self.revision.send_replace(all.revision);
        Ok(all.revision)
    }

    async fn follow(&self, mut revision: u64) {
        loop {
            let mut watch = self.store.watch(PREFIX, revision);
            loop {
                match watch.next().await {
                    Ok(events) => {
                        for e in events {
                            self.apply(&e);
                        }
                        revision = watch.revision();
                        self.revision.send_replace(revision);
                    }
                    Err(store::Error::Closed) => return,
                    Err(e) => {
                        tracing::warn!(error = %e, "the watch cache lost the store's history, loading again");
                        break;
                    }
                }
            }
            match self.load().await {
                Ok(r) => revision = r,
                Err(e) => {
                    tracing::error!(error = %e, "the watch cache cannot load");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn apply(&self, e: &store::Event) {
        let Some((index, key)) = locate(&e.key) else { return };
        let new = e.value.as_ref().and_then(|v| Object::new(ALL[index], key, e.revision, v)).map(Arc::new);
        let mut state = self.kinds[index].lock();
        let old = match &new {
            Some(o) => state.objects.insert(key.into(), o.clone()),
            None => state.objects.remove(key),
        };
        let change = Change { revision: e.revision, old, new };
        state.ring_bytes += change.bytes();
        while (state.ring.len() >= RING || state.ring_bytes > RING_BYTES)
            && let Some(out) = state.ring.pop_front()
        {
            state.ring_bytes -= out.bytes();
            state.floor = out.revision;
        }
        state.ring.push_back(change);
        state.changed = e.revision;
    }

    pub(crate) fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Waits until everything up to `revision` is here.
    pub(crate) async fn reach(&self, revision: u64) -> Result<()> {
        let mut r = self.revision.subscribe();
        match tokio::time::timeout(FRESH_WITHIN, r.wait_for(|r| *r >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ApiError::unavailable("the server is shutting down")),
            Err(_) => {
                let message = format!("Too large resource version: {revision}, current: {}", self.revision());
                let mut e = ApiError::new(504, "Timeout", message);
                e.details = Some(serde_json::json!({
                    "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                    "retryAfterSeconds": 1,
                }));
                e.retry_after_s = Some(1);
                Err(e)
            }
        }
    }

    /// Waits until everything acknowledged before this call is here.
    pub(crate) async fn fresh(&self) -> Result<()> {
        let now = self.store.revision();
        if self.revision() >= now { Ok(()) } else { self.reach(now).await }
    }

    pub(crate) fn get(&self, index: usize, key: &str) -> Option<Arc<Object>> {
        self.kinds[index].lock().objects.get(key).cloned()
    }

    /// All objects of a kind, or those of one namespace, in order of their keys.
    pub(crate) fn list(&self, index: usize, namespace: Option<&str>) -> Snapshot {
        // The revision is read first: objects may be newer than it says, never older.
        let revision = self.revision();
        let state = self.kinds[index].lock();
        let objects = match namespace {
            None => state.objects.values().cloned().collect(),
            Some(ns) => {
                let prefix = format!("{ns}/");
                let from = state
                    .objects
                    .range::<str, _>((std::ops::Bound::Included(&*prefix), std::ops::Bound::Unbounded));
                from.take_while(|(k, _)| k.starts_with(&prefix)).map(|(_, o)| o.clone()).collect()
            }
        };
        Snapshot { objects, revision: revision.max(state.changed), changed: state.changed }
    }

    /// Whether there is no object of a kind.
    pub(crate) fn is_empty(&self, index: usize) -> bool {
        self.kinds[index].lock().objects.is_empty()
    }

    /// The revision of the last change of a kind.
    pub(crate) fn changed(&self, index: usize) -> u64 {
        self.kinds[index].lock().changed
    }

    /// Changes of a kind after a revision.
    pub(crate) fn changes(&self, index: usize, after: u64) -> Result<Vec<Change>> {
        let state = self.kinds[index].lock();
        if after < state.floor {
            return Err(ApiError::too_old(after, state.floor));
        }
        let skip = state.ring.partition_point(|c| c.revision <= after);
        Ok(state.ring.iter().skip(skip).cloned().collect())
    }
}

/// A store key → the kind's number and the object's key.
pub(crate) fn locate(key: &[u8]) -> Option<(usize, &str)> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?;
    let (resource, key) = rest.split_once('/')?;
    Some((ALL.iter().position(|k| k.resource == resource)?, key))
}

/// An object as it stood at an old revision, for lists that continue.
pub(crate) fn from_store(index: usize, kv: &store::KeyValue) -> Option<Object> {
    let (_, key) = locate(&kv.key)?;
    Object::new(ALL[index], key, kv.mod_revision, &kv.value)
}
