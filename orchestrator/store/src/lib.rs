//! The cluster's memory: a revisioned key-value store with watch.
//!
//! Promises: one revision counter that only grows, one change per revision; a write is acknowledged after
//! it is synced to disk (invariant 1); a watch gives every change once and in order, or ends with
//! [`Error::Compacted`] (invariant 2); an event is published only after its commit.
//! Does not know: objects, kinds, HTTP. Keys and values are bytes.
//!
//! The road of a write: [`Store::update`] → the queue → `embedded/writer.rs` batches what waits into one
//! transaction and one fsync → `watch.rs` publishes → the caller is answered. A read goes through
//! `embedded/read.rs`; what lies on disk is in `embedded/format.rs` and FORMAT.md.
//!
//! Tasks: one thread, the writer, owns every write and compaction. Readers use redb's own snapshots.
//! Locks: the database handle (replaced after an I/O error), then the ring of recent events; never both.
//!
//! The backend is an enum: etcd will be its second variant.

mod embedded;
mod error;
mod metrics;
mod model;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use signal::time::SharedClock;

pub use embedded::Stats;
pub use error::Error;
pub use model::{Event, KeyValue, Range, RangeResult};
pub use watch::Watch;

/// How to open an embedded store.
#[derive(Clone)]
pub struct Config {
    /// A directory of its own; made if missing.
    pub dir: PathBuf,
    /// redb's page cache.
    pub cache_bytes: usize,
    /// History younger than this is kept…
    pub keep_age: Duration,
    /// …unless there is more than this many revisions of it.
    pub keep_revisions: u64,
    /// How many recent events are kept in memory for watchers.
    pub ring_events: usize,
    pub clock: SharedClock,
}

impl Config {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Config {
            dir: dir.into(),
            cache_bytes: 4 << 20,
            keep_age: Duration::from_secs(300),
            keep_revisions: 50_000,
            ring_events: 1024,
            clock: signal::time::system_clock(),
        }
    }
}

/// A store. Cheap to share behind an `Arc`; dropping it waits for the writer to end.
pub struct Store {
    backend: Backend,
}

enum Backend {
    Embedded(embedded::Embedded),
}

impl Store {
    /// Opens or creates the embedded store.
    pub fn open(config: Config) -> Result<Self, Error> {
        Ok(Store { backend: Backend::Embedded(embedded::Embedded::open(config)?) })
    }

    /// The newest revision that is durable and published.
    pub fn revision(&self) -> u64 {
        match &self.backend {
            Backend::Embedded(e) => e.revision(),
        }
    }

    /// Writes a key that must not exist. Gives the new revision.
    pub async fn create(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<u64, Error> {
        match &self.backend {
            Backend::Embedded(e) => e.create(key.into(), value.into()).await,
        }
    }

    /// Writes a key that must stand at `expected`. Gives the new revision.
    pub async fn update(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        expected: u64,
    ) -> Result<u64, Error> {
        match &self.backend {
            Backend::Embedded(e) => e.update(key.into(), value.into(), expected).await,
        }
    }

    /// Deletes a key, if `expected` is given only where it stands at that revision. Gives the new revision.
    pub async fn delete(&self, key: impl Into<Bytes>, expected: Option<u64>) -> Result<u64, Error> {
        match &self.backend {
            Backend::Embedded(e) => e.delete(key.into(), expected).await,
        }
    }

    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, Error> {
        match &self.backend {
            Backend::Embedded(e) => e.get(key.into()).await,
        }
    }

    /// Keys in order, on one snapshot.
    pub async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        match &self.backend {
            Backend::Embedded(e) => e.range(range).await,
        }
    }

    /// Every change to keys with this prefix after revision `after`.
    pub fn watch(&self, prefix: impl Into<Bytes>, after: u64) -> Watch {
        match &self.backend {
            Backend::Embedded(e) => e.watch(prefix.into(), after),
        }
    }

    /// Forgets history at and before `revision`: what was overwritten or deleted by then.
    pub async fn compact(&self, revision: u64) -> Result<(), Error> {
        match &self.backend {
            Backend::Embedded(e) => e.compact(revision).await,
        }
    }

    /// Counters since the store was opened.
    pub fn stats(&self) -> Stats {
        match &self.backend {
            Backend::Embedded(e) => e.stats(),
        }
    }
}
