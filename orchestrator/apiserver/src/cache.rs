//! The watch cache: every object as bytes ready to serve, and the last changes of each kind.
//!
//! One task follows the store and writes here; lists and watches read here and never touch the disk.
//! A read that must be current waits until the cache has reached the store's revision.
//! Watchers are cursors into a kind's ring of changes: a slow one is told "too old" and lists again.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use store::{Range, Store};
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

use crate::custom::table::Effect;
use crate::custom::{Custom, Table};
use crate::error::{ApiError, Result};
use crate::kinds::apiextensions::DEFINITION;
use crate::kinds::{ALL, Kind, stored_as};
use crate::object;
use crate::pick::pick;
use crate::watch::Form;

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
    pub(crate) labels: Labels,
    /// In the order of the kind's `fields`.
    pub(crate) fields: Box<[Box<str>]>,
}

impl Object {
    fn new(kind: &Kind, custom: Option<&Custom>, key: &str, revision: u64, stored: &[u8]) -> Option<Object> {
        if custom.is_none()
            && let Some(o) = Object::spliced(kind, key, revision, stored)
        {
            return Some(o);
        }
        let mut o: Value = serde_json::from_slice(stored).ok()?;
        if let Some(custom) = custom {
            custom.on_read(&mut o);
        }
        object::metadata(&mut o).insert("resourceVersion".to_owned(), revision.to_string().into());
        Some(Object::from_value(kind, key, revision, &o))
    }

    /// The stored bytes with the resourceVersion put in: nothing is made of them but what selectors ask for.
    fn spliced(kind: &Kind, key: &str, revision: u64, stored: &[u8]) -> Option<Object> {
        const OWN: [&str; 2] = ["metadata.resourceVersion", "metadata.labels"];
        let paths: Vec<&str> = OWN.iter().chain(kind.fields).copied().collect();
        let picked = pick(stored, &paths)?;
        let [stale, labels, fields @ ..] = &*picked.values else { return None };
        if stale.is_some() {
            return None;
        }
        let (head, tail) = stored.split_at(picked.inside_metadata);
        let comma = if tail.first() == Some(&b'}') { "" } else { "," };
        let version = format!("\"resourceVersion\":\"{revision}\"{comma}");
        let bytes = [head, version.as_bytes(), tail].concat();
        let field = |(path, v): (&&str, &Option<Value>)| field_text(v.as_ref(), path).into();
        Some(Object {
            key: key.into(),
            revision,
            bytes: Bytes::from(bytes),
            labels: label_pairs(labels.as_ref()),
            fields: kind.fields.iter().zip(fields).map(field).collect(),
        })
    }

    pub(crate) fn from_value(kind: &Kind, key: &str, revision: u64, o: &Value) -> Object {
        Object {
            key: key.into(),
            revision,
            bytes: object::to_bytes(o),
            labels: label_pairs(object::get(o, "metadata.labels")),
            fields: kind.fields.iter().map(|f| field_text(object::get(o, f), f).into()).collect(),
        }
    }

    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("the cache holds only what it serialized itself")
    }

    /// Whether it is on its way out. What does not even hold the word is not read.
    pub(crate) fn is_deleting(&self) -> bool {
        memchr::memmem::find(&self.bytes, b"\"deletionTimestamp\"").is_some()
            && object::is_deleting(&self.value())
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

type Labels = Box<[(Box<str>, Box<str>)]>;

fn label_pairs(labels: Option<&Value>) -> Labels {
    let all = labels.and_then(Value::as_object).into_iter().flatten();
    all.map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into())).collect()
}

/// What selectors see of the value at a path.
fn field_text(value: Option<&Value>, path: &str) -> String {
    match value {
        Some(Value::String(s)) => s.clone(),
        Some(v @ (Value::Bool(_) | Value::Number(_))) => v.to_string(),
        // Absent flags and numbers read as Go's zero values.
        _ if path == "spec.unschedulable" || path == "spec.hostNetwork" => "false".to_owned(),
        _ if path == "status.replicas" => "0".to_owned(),
        _ => String::new(),
    }
}

/// What happened to one object.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) old: Option<Arc<Object>>,
    pub(crate) new: Option<Arc<Object>>,
    /// What watchers are told of it, where that is not what lies in the cache.
    pub(crate) told: Arc<Told>,
}

/// How many forms of a change are kept; watchers that want others write them for themselves.
const FORMS: usize = 8;

/// The forms in which a change was told, each written once.
#[derive(Default)]
pub(crate) struct Told(Mutex<Vec<(Form, Arc<OnceCell<Bytes>>)>>);

impl Told {
    /// Where the bytes of this form are, or come; `None` if there are too many forms.
    pub(crate) fn once(&self, form: &Form) -> Option<Arc<OnceCell<Bytes>>> {
        let mut all = self.0.lock();
        if let Some((_, once)) = all.iter().find(|(f, _)| f == form) {
            return Some(once.clone());
        }
        (all.len() < FORMS).then(|| {
            let once = Arc::<OnceCell<Bytes>>::default();
            all.push((form.clone(), once.clone()));
            once
        })
    }
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
    /// Wakes this kind's watchers: the same number, or where a fresh start is.
    tell: watch::Sender<u64>,
}

impl KindState {
    /// Begins anew with what was read at a revision; whoever watches is behind it.
    fn restart(&mut self, objects: BTreeMap<Box<str>, Arc<Object>>, revision: u64) {
        let tell = std::mem::take(&mut self.tell);
        *self = KindState { objects, floor: revision, changed: revision, tell, ..KindState::default() };
        self.tell.send_replace(revision);
    }

    fn apply(&mut self, key: &str, revision: u64, new: Option<Arc<Object>>) -> Change {
        let old = match &new {
            Some(o) => self.objects.insert(key.into(), o.clone()),
            None => self.objects.remove(key),
        };
        let change = Change { revision, old, new, told: Arc::default() };
        self.ring_bytes += change.bytes();
        while (self.ring.len() >= RING || self.ring_bytes > RING_BYTES)
            && let Some(out) = self.ring.pop_front()
        {
            self.ring_bytes -= out.bytes();
            self.floor = out.revision;
        }
        self.ring.push_back(change.clone());
        self.changed = revision;
        self.tell.send_replace(revision);
        change
    }
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
    /// Kinds that definitions made.
    pub(crate) customs: Table,
    /// Their objects, by number less that of the built-in kinds.
    custom_kinds: RwLock<Vec<Arc<Mutex<KindState>>>>,
    revision: watch::Sender<u64>,
    store: Arc<Store>,
}

/// The key of an object in the store.
pub(crate) fn store_key(kind: &Kind, key: &str) -> String {
    format!("{}{key}", store_prefix(kind))
}

/// What the keys of a kind begin with.
pub(crate) fn store_prefix(kind: &Kind) -> String {
    if kind.custom {
        format!("{PREFIX}{}/{}/", kind.group, kind.resource)
    } else {
        format!("{PREFIX}{}/", kind.resource)
    }
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
        let cache = Arc::new(Cache {
            kinds,
            customs: Table::default(),
            custom_kinds: RwLock::default(),
            revision: watch::Sender::new(0),
            store,
        });
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
            let Some(Place::Builtin(index, key)) = locate(&item.key) else { continue };
            match Object::new(ALL[index], None, key, item.mod_revision, &item.value) {
                Some(o) => drop(fresh[index].insert(key.into(), Arc::new(o))),
                None => tracing::error!(key, "an object in the store is not JSON"),
            }
        }
        // Definitions first: they say what the rest is.
        let definitions =
            ALL.iter().position(|k| std::ptr::eq(*k, &DEFINITION)).expect("definitions are a kind");
        let mut defined = HashSet::new();
        for o in fresh[definitions].values() {
            let o = o.value();
            defined.extend(object::text(&o, "metadata.name").map(str::to_owned));
            self.customs.define(&o, false);
        }
        // What was deleted while nobody looked.
        self.customs.keep(&defined);
        let mut customs: BTreeMap<usize, BTreeMap<Box<str>, Arc<Object>>> = BTreeMap::new();
        for item in &all.items {
            let Some(Place::Custom(path, key)) = locate(&item.key) else { continue };
            let Some(custom) = self.customs.named(path) else { continue };
            if let Some(o) = custom_object(&custom, key, item) {
                customs.entry(custom.index).or_default().insert(key.into(), Arc::new(o));
            }
        }
        for (kind, objects) in self.kinds.iter().zip(fresh) {
            kind.lock().restart(objects, all.revision);
        }
        for custom in self.customs.all() {
            let objects = customs.remove(&custom.index).unwrap_or_default();
            self.with(custom.index, |s| s.restart(objects, all.revision));
        }
        self.revision.send_replace(all.revision);
        Ok(all.revision)
    }

    /// Brings the objects of a custom kind in the form that its definition has at a revision.
    async fn load_custom(&self, index: usize, path: &str, revision: u64) {
        let Some(custom) = self.customs.at(index) else { return };
        let range = Range { revision: Some(revision), ..Range::prefix(format!("{PREFIX}{path}/")) };
        let all = match self.store.range(range).await {
            Ok(all) => all,
            Err(e) => return tracing::error!(path, error = %e, "custom resources cannot be loaded"),
        };
        let objects = all.items.iter().filter_map(|item| {
            let Some(Place::Custom(_, key)) = locate(&item.key) else { return None };
            Some((key.into(), Arc::new(custom_object(&custom, key, item)?)))
        });
        let objects = objects.collect();
        self.with(index, |state| {
            state.objects = objects;
            if state.changed == 0 {
                (state.floor, state.changed) = (revision, revision);
            }
        });
    }

    /// Does something with a kind's state.
    fn with<R>(&self, index: usize, act: impl FnOnce(&mut KindState) -> R) -> R {
        if let Some(kind) = self.kinds.get(index) {
            return act(&mut kind.lock());
        }
        let place = index - self.kinds.len();
        let found = self.custom_kinds.read().get(place).cloned();
        let state = found.unwrap_or_else(|| {
            let mut all = self.custom_kinds.write();
            while all.len() <= place {
                all.push(Arc::default());
            }
            all[place].clone()
        });
        act(&mut state.lock())
    }

    async fn follow(&self, mut revision: u64) {
        loop {
            let mut watch = self.store.watch(PREFIX, revision);
            loop {
                match watch.next().await {
                    Ok(events) => {
                        for e in events {
                            if let Effect::Load(index, path) = self.apply(&e) {
                                self.load_custom(index, &path, e.revision).await;
                            }
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

    fn apply(&self, e: &store::Event) -> Effect {
        let (index, key, custom) = match locate(&e.key) {
            Some(Place::Builtin(index, key)) => (index, key, None),
            // What nobody defines waits in the store.
            Some(Place::Custom(path, key)) => match self.customs.named(path) {
                Some(custom) => (custom.index, key, Some(custom)),
                None => return Effect::Nothing,
            },
            None => return Effect::Nothing,
        };
        let kind = custom.as_ref().map_or_else(|| ALL[index], |c| c.storage().kind);
        let new = e.value.as_ref().and_then(|v| Object::new(kind, custom.as_deref(), key, e.revision, v));
        let new = new.map(Arc::new);
        let change = self.with(index, |state| state.apply(key, e.revision, new));
        if !std::ptr::eq(kind, &DEFINITION) {
            return Effect::Nothing;
        }
        let gone = change.new.is_none();
        let Some(definition) = change.new.or(change.old) else { return Effect::Nothing };
        let effect = self.customs.define(&definition.value(), gone);
        if let Effect::Drop(index) = effect {
            self.with(index, |state| *state = KindState::default());
        }
        effect
    }

    pub(crate) fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Tells of every revision.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Tells of the revisions that changed a kind.
    pub(crate) fn subscribe_kind(&self, index: usize) -> watch::Receiver<u64> {
        self.with(index, |state| state.tell.subscribe())
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
        let now = self.store.latest().await?;
        if self.revision() >= now { Ok(()) } else { self.reach(now).await }
    }

    pub(crate) fn get(&self, index: usize, key: &str) -> Option<Arc<Object>> {
        self.with(index, |state| state.objects.get(key).cloned())
    }

    /// All objects of a kind, or those of one namespace, in order of their keys.
    pub(crate) fn list(&self, index: usize, namespace: Option<&str>) -> Snapshot {
        // The revision is read first: objects may be newer than it says, never older.
        let revision = self.revision();
        self.with(index, |state| {
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
        })
    }

    /// The objects of a kind as they were at a revision, if the changes since then are still known.
    pub(crate) fn list_at(
        &self,
        index: usize,
        namespace: Option<&str>,
        revision: u64,
    ) -> Option<Vec<Arc<Object>>> {
        let mut undone: BTreeMap<Box<str>, Option<Arc<Object>>> = BTreeMap::new();
        // The changes are read first: what comes between them and the list would be missing here.
        let changes = self.changes(index, revision).ok()?;
        let known = changes.last().map_or(revision, |c| c.revision);
        for c in changes.iter().rev() {
            let Some(o) = c.new.as_ref().or(c.old.as_ref()) else { continue };
            undone.insert(o.key.clone(), c.old.clone());
        }
        let now = self.list(index, namespace);
        if now.changed > known.max(revision) {
            return None;
        }
        let mut objects = now.objects;
        objects.retain(|o| !undone.contains_key(&o.key));
        let back = undone.into_values().flatten();
        objects.extend(back.filter(|o| namespace.is_none_or(|ns| o.namespace() == Some(ns))));
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Some(objects)
    }

    /// How many objects of a kind there are.
    pub(crate) fn count(&self, index: usize) -> usize {
        self.with(index, |state| state.objects.len())
    }

    /// Tells how many objects of each built-in kind there are.
    pub(crate) fn count_all(&self, tell: impl Fn(&'static Kind, usize)) {
        for (kind, state) in ALL.iter().zip(&self.kinds) {
            tell(kind, state.lock().objects.len());
        }
    }

    /// Whether there is no object of a kind.
    pub(crate) fn is_empty(&self, index: usize) -> bool {
        self.with(index, |state| state.objects.is_empty())
    }

    /// The revision of the last change of a kind.
    pub(crate) fn changed(&self, index: usize) -> u64 {
        self.with(index, |state| state.changed)
    }

    /// Changes of a kind after a revision.
    pub(crate) fn changes(&self, index: usize, after: u64) -> Result<Vec<Change>> {
        self.with(index, |state| {
            if after < state.floor {
                return Err(ApiError::too_old(after, state.floor));
            }
            let skip = state.ring.partition_point(|c| c.revision <= after);
            Ok(state.ring.iter().skip(skip).cloned().collect())
        })
    }

    /// An object as it stood at an old revision, for lists that continue.
    pub(crate) fn read_stored(&self, kv: &store::KeyValue) -> Option<Object> {
        match locate(&kv.key)? {
            Place::Builtin(index, key) => Object::new(ALL[index], None, key, kv.mod_revision, &kv.value),
            Place::Custom(path, key) => custom_object(&*self.customs.named(path)?, key, kv),
        }
    }
}

fn custom_object(custom: &Custom, key: &str, kv: &store::KeyValue) -> Option<Object> {
    let o = Object::new(custom.storage().kind, Some(custom), key, kv.mod_revision, &kv.value);
    if o.is_none() {
        tracing::error!(key, "a custom resource in the store is not JSON");
    }
    o
}

/// Where a store key belongs.
pub(crate) enum Place<'a> {
    /// A kind's number and the object's key.
    Builtin(usize, &'a str),
    /// `group/plural` and the object's key.
    Custom(&'a str, &'a str),
}

/// A store key → its kind and the object's key. Only groups of custom kinds have a dot where ours have their name.
pub(crate) fn locate(key: &[u8]) -> Option<Place<'_>> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?;
    let (first, key) = rest.split_once('/')?;
    if first.contains('.') {
        let end = first.len() + 1 + key.find('/')?;
        return Some(Place::Custom(&rest[..end], &rest[end + 1..]));
    }
    Some(Place::Builtin(stored_as(first)?, key))
}
