//! What the cluster was: every change as the store tells it, for whoever keeps it longer than the store does.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;
use signal::Timestamp;
use store::{Error, Event, Range, Watch};

use crate::cache::{Cache, PREFIX, Place, locate, store_prefix};
use crate::kinds::{ALL, Kind};
use crate::object;
use crate::pick;
use crate::server::ApiServer;

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Added,
    Modified,
    Deleted,
    /// Nothing happened: it was there when all objects were written down.
    Present,
}

impl Op {
    /// A watch's word for it, or `PRESENT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Added => "ADDED",
            Op::Modified => "MODIFIED",
            Op::Deleted => "DELETED",
            Op::Present => "PRESENT",
        }
    }
}

/// One object at one revision.
#[derive(Clone, Debug)]
pub struct Revision {
    pub revision: u64,
    pub op: Op,
    /// As `v1` or `apps/v1`.
    pub api_version: String,
    pub kind: &'static str,
    /// Empty for what has no namespace.
    pub namespace: String,
    pub name: String,
    /// Its JSON, without managed fields, and without a Secret's data. `None` once it is deleted.
    pub object: Option<String>,
    /// Empty once it is deleted.
    pub uid: String,
}

/// Which events somebody asks for, so that not all have to be looked at.
#[derive(Clone, Debug, Default)]
pub struct PastEvents {
    pub namespace: Option<String>,
    /// A text that stands in each of them, such as the uid of the object they are about.
    pub holds: Option<String>,
}

/// An event as it was written last.
#[derive(Clone, Debug)]
pub struct PastEvent {
    /// As core/v1 has it.
    pub object: Value,
    /// When it was deleted, by age or by somebody; a minute later at most.
    pub deleted: Option<Timestamp>,
}

/// Finds events that the API no longer keeps.
pub type EventArchive =
    Arc<dyn Fn(PastEvents) -> BoxFuture<'static, Result<Vec<PastEvent>, String>> + Send + Sync>;

/// A place in the stream of all changes.
pub struct Follow {
    watch: Watch,
    cache: Arc<Cache>,
}

impl Follow {
    /// Everything up to this revision has been given.
    pub fn revision(&self) -> u64 {
        self.watch.revision()
    }

    /// Waits for the next changes; [`Error::Compacted`] if the store has forgotten some of them. Safe to drop while waiting.
    pub async fn next(&mut self) -> Result<Vec<Revision>, Error> {
        let events = self.watch.next().await?;
        Ok(events.iter().filter_map(|e| changed(&self.cache, e)).collect())
    }
}

impl ApiServer {
    /// Every change after a revision.
    pub fn follow(&self, after: u64) -> Follow {
        Follow { watch: self.store.watch(PREFIX, after), cache: self.cache.clone() }
    }

    /// The revision now, for [`ApiServer::present`].
    pub fn revision(&self) -> u64 {
        self.store.revision()
    }

    /// The objects of the kinds of this number in order, at a revision. `None` behind the last kind.
    pub async fn present(&self, number: usize, revision: u64) -> Result<Option<Vec<Revision>>, Error> {
        let Some((_, kind)) = self.stored_kinds().into_iter().nth(number) else { return Ok(None) };
        let prefix = store_prefix(kind);
        let all = self.store.range(Range { revision: Some(revision), ..Range::prefix(prefix) }).await?;
        let row = |kv: &store::KeyValue| {
            let (_, key) = split(&self.cache, &kv.key)?;
            of(kind, key, Op::Present, kv.mod_revision, Some(&kv.value))
        };
        Ok(Some(all.items.iter().filter_map(row).collect()))
    }
}

/// A key's row and what stands behind it: `namespace/name`, or `name`.
fn split<'a>(cache: &Cache, key: &'a [u8]) -> Option<(&'static Kind, &'a str)> {
    match locate(key)? {
        Place::Builtin(index, key) => Some((ALL[index], key)),
        // A row is known as long as the server lives, for what comes late.
        Place::Custom(path, key) => Some((cache.customs.row(cache.customs.index(path)?)?, key)),
    }
}

fn changed(cache: &Cache, e: &Event) -> Option<Revision> {
    let (kind, key) = split(cache, &e.key)?;
    let op = match (&e.value, e.version) {
        (None, _) => Op::Deleted,
        (_, 1) => Op::Added,
        _ => Op::Modified,
    };
    of(kind, key, op, e.revision, e.value.as_deref())
}

fn of(kind: &'static Kind, key: &str, op: Op, revision: u64, stored: Option<&[u8]>) -> Option<Revision> {
    // A lease says every few seconds that somebody is alive: that is a metric's business.
    if kind.builtin() == "leases" {
        return None;
    }
    let (namespace, name) = if kind.namespaced { key.split_once('/')? } else { ("", key) };
    let told = match stored {
        None => None,
        Some(stored) if kind.builtin() == "secrets" => Some(without_secrets(stored, revision)?),
        Some(stored) => Some(pick::without_managers(std::str::from_utf8(stored).ok()?, revision)?),
    };
    let (object, uid) = told.map_or_else(Default::default, |(o, uid)| (Some(o), uid));
    let api_version = match kind.group {
        "" => kind.version.to_owned(),
        group => format!("{group}/{}", kind.version),
    };
    Some(Revision {
        revision,
        op,
        api_version,
        kind: kind.kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        object,
        uid,
    })
}

fn without_secrets(stored: &[u8], revision: u64) -> Option<(String, String)> {
    let mut o: Value = serde_json::from_slice(stored).ok()?;
    object::remove(&mut o, "data");
    // kubectl notes there what it sent, data and all.
    if let Some(Value::Object(notes)) = object::metadata(&mut o).get_mut("annotations") {
        notes.shift_remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    pick::without_managers(&o.to_string(), revision)
}
