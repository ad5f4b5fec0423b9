//! Watching: a ring of recent events in memory, and history on disk for those who fell behind it.
//!
//! A watch is a cursor, not a queue: a slow watcher costs nothing, and reads what it missed from the log.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::embedded::{self, Shared};
use crate::{Error, Event};

/// How many revisions a watch that lags reads from disk at once.
const CHUNK: usize = 512;

/// Where committed events become visible.
pub(crate) struct Hub {
    ring: Mutex<VecDeque<Arc<Event>>>,
    capacity: usize,
    /// The newest published revision; `u64::MAX` once closed.
    published: watch::Sender<u64>,
}

impl Hub {
    pub(crate) fn new(capacity: usize) -> Self {
        Hub { ring: Mutex::default(), capacity: capacity.max(1), published: watch::Sender::new(0) }
    }

    pub(crate) fn start(&self, revision: u64) {
        self.published.send_replace(revision);
    }

    pub(crate) fn revision(&self) -> u64 {
        *self.published.borrow()
    }

    pub(crate) fn close(&self) {
        self.published.send_replace(u64::MAX);
    }

    /// Events in order, each one revision after the other.
    pub(crate) fn publish(&self, events: Vec<Arc<Event>>) {
        let Some(last) = events.last().map(|e| e.revision) else { return };
        let mut ring = self.ring.lock();
        for e in events {
            if ring.len() == self.capacity {
                ring.pop_front();
            }
            ring.push_back(e);
        }
        drop(ring);
        self.published.send_replace(last);
    }

    /// Events after `after`, or `None` if memory no longer holds them all.
    fn after(&self, after: u64) -> Option<Vec<Arc<Event>>> {
        let ring = self.ring.lock();
        let first = ring.front()?.revision;
        let skip = usize::try_from((after + 1).checked_sub(first)?).ok()?;
        Some(ring.iter().skip(skip).cloned().collect())
    }
}

/// A place in the stream of changes to keys with one prefix.
pub struct Watch {
    shared: Arc<Shared>,
    published: watch::Receiver<u64>,
    prefix: Bytes,
    cursor: u64,
}

impl Watch {
    pub(crate) fn new(shared: Arc<Shared>, prefix: Bytes, after: u64) -> Self {
        let published = shared.hub.published.subscribe();
        Watch { shared, published, prefix, cursor: after }
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
        let events = match self.shared.hub.after(cursor) {
            Some(events) => events,
            None => {
                if cursor < self.shared.compacted() {
                    return Err(Error::Compacted { requested: cursor, compacted: self.shared.compacted() });
                }
                let shared = self.shared.clone();
                let read = tokio::task::spawn_blocking(move || embedded::history(&shared, cursor, CHUNK));
                let events = read.await.map_err(|e| Error::Unavailable(e.to_string()))??;
                // What is on disk but not published yet comes later.
                events.into_iter().filter(|e| e.revision <= published).map(Arc::new).collect()
            }
        };
        if let Some(last) = events.last() {
            self.cursor = last.revision;
        }
        Ok(events.into_iter().filter(|e| e.key.starts_with(&self.prefix)).collect())
    }
}
