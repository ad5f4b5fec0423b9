//! Watching: a ring of recent events in memory, and history on disk for those who fell behind it.
//!
//! A watch is a cursor, not a queue: a slow watcher costs nothing, and reads what it missed from the log.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::embedded;
use crate::etcd;
use crate::seal::Sealer;
use crate::{Error, Event};

/// How many revisions a watch that lags reads from disk at once.
const CHUNK: usize = 512;

/// Where committed events become visible.
pub(crate) struct Hub {
    ring: Mutex<Ring>,
    capacity: usize,
    /// The newest published revision; `u64::MAX` once closed.
    published: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    /// Every event after this revision is in `events`.
    floor: u64,
}

impl Hub {
    pub(crate) fn new(capacity: usize) -> Self {
        Hub { ring: Mutex::default(), capacity: capacity.max(1), published: watch::Sender::new(0) }
    }

    pub(crate) fn start(&self, revision: u64) {
        self.ring.lock().floor = revision;
        self.published.send_replace(revision);
    }

    /// Begins anew behind a gap: what happened between is not known.
    pub(crate) fn restart(&self, revision: u64) {
        let mut ring = self.ring.lock();
        ring.events.clear();
        ring.floor = revision;
        drop(ring);
        self.published.send_replace(revision);
    }

    pub(crate) fn revision(&self) -> u64 {
        *self.published.borrow()
    }

    pub(crate) fn close(&self) {
        self.published.send_replace(u64::MAX);
    }

    /// Events in order.
    pub(crate) fn publish(&self, events: Vec<Arc<Event>>) {
        let Some(last) = events.last().map(|e| e.revision) else { return };
        let mut ring = self.ring.lock();
        for e in events {
            if ring.events.len() == self.capacity
                && let Some(out) = ring.events.pop_front()
            {
                ring.floor = out.revision;
            }
            ring.events.push_back(e);
        }
        drop(ring);
        self.published.send_replace(last);
    }

    /// Events after `after`, or `None` if memory no longer holds them all.
    fn after(&self, after: u64) -> Option<Vec<Arc<Event>>> {
        let ring = self.ring.lock();
        if after < ring.floor {
            return None;
        }
        let skip = ring.events.partition_point(|e| e.revision <= after);
        Some(ring.events.range(skip..).cloned().collect())
    }
}

/// What a watch reads, in memory and beyond.
#[derive(Clone)]
pub(crate) enum Source {
    Embedded(Arc<embedded::Shared>),
    Etcd(Arc<etcd::Shared>),
}

impl Source {
    fn hub(&self) -> &Hub {
        match self {
            Source::Embedded(s) => &s.hub,
            Source::Etcd(s) => &s.hub,
        }
    }

    fn compacted(&self) -> u64 {
        match self {
            Source::Embedded(s) => s.compacted(),
            Source::Etcd(s) => s.compacted(),
        }
    }

    /// Changes that memory no longer holds.
    async fn history(&self, after: u64) -> Result<Vec<Event>, Error> {
        match self {
            Source::Embedded(s) => {
                let s = s.clone();
                let read = tokio::task::spawn_blocking(move || embedded::history(&s, after, CHUNK));
                read.await.map_err(|e| Error::Unavailable(e.to_string()))?
            }
            Source::Etcd(s) => etcd::history(s, after).await,
        }
    }
}

/// A place in the stream of changes to keys with one prefix.
pub struct Watch {
    source: Source,
    sealer: Sealer,
    published: watch::Receiver<u64>,
    prefix: Bytes,
    cursor: u64,
}

impl Watch {
    pub(crate) fn new(source: Source, prefix: Bytes, after: u64) -> Self {
        let published = source.hub().published.subscribe();
        Watch { source, sealer: Sealer::default(), published, prefix, cursor: after }
    }

    /// With what sealed values are opened.
    pub(crate) fn with(mut self, sealer: Sealer) -> Self {
        self.sealer = sealer;
        self
    }

    /// Everything up to this revision has been given.
    pub fn revision(&self) -> u64 {
        self.cursor
    }

    /// Waits for the next changes. The list may be empty: then only [`Watch::revision`] moved on.
    /// Safe to drop while waiting.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, Error> {
        let cursor = self.cursor;
        let published = *self.published.wait_for(|r| *r > cursor).await.map_err(|_| Error::Closed)?;
        if published == u64::MAX {
            return Err(Error::Closed);
        }
        let events = match self.source.hub().after(cursor) {
            Some(events) => events,
            None => {
                let compacted = self.source.compacted();
                if cursor < compacted {
                    return Err(Error::Compacted { requested: cursor, compacted });
                }
                let events = self.source.history(cursor).await?;
                // What is written but not published yet comes later.
                events.into_iter().filter(|e| e.revision <= published).map(Arc::new).collect()
            }
        };
        let last = events.last().map(|e| e.revision);
        let wanted = events.into_iter().filter(|e| e.key.starts_with(&self.prefix));
        let opened = wanted.map(|e| self.open(e)).collect::<Result<_, _>>()?;
        self.cursor = last.unwrap_or(self.cursor);
        Ok(opened)
    }

    fn open(&self, e: Arc<Event>) -> Result<Arc<Event>, Error> {
        let Some(value) = &e.value else { return Ok(e) };
        let opened = self.sealer.open(&e.key, value.clone())?;
        if opened.as_ptr() == value.as_ptr() {
            return Ok(e);
        }
        Ok(Arc::new(Event { value: Some(opened), ..Event::clone(&e) }))
    }
}
