//! The cluster's memory: a revisioned key-value store with watch.
//!
//! Promises: one revision counter that only grows, one change per revision; a write is acknowledged after
//! it is synced to disk (invariant 1); a watch gives every change once and in order, or ends with
//! [`Error::Compacted`] (invariant 2); an event is published only after its commit.
//! Does not know: objects, kinds, HTTP. Keys and values are bytes; `seal.rs` encrypts some of them.
//!
//! The road of a write: [`Store::update`] → the queue → `embedded/writer.rs` batches what waits into one
//! transaction and one fsync → `watch.rs` publishes → the caller is answered. A read goes through
//! `embedded/read.rs`; what lies on disk is in `embedded/format.rs` and FORMAT.md.
//!
//! Tasks: one thread, the writer, owns every write and compaction. Readers use redb's own snapshots.
//! Locks: the database handle (replaced after an I/O error), then the ring of recent events; never both.
//!
//! The backend is an enum: the other one is etcd (`etcd.rs`), where several servers share one memory; there the
//! queue, the disk and the compaction are etcd's, and one task follows it.

mod backup;
mod embedded;
mod error;
mod etcd;
mod metrics;
mod model;
mod seal;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use signal::time::SharedClock;

pub use backup::{Backup, RestoreError, Restored, restore};
pub use embedded::Stats;
pub use error::Error;
pub use etcd::{EtcdConfig, EtcdTls};
pub use model::{Event, KeyValue, Range, RangeResult};
pub use seal::Keys;
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
    sealer: seal::Sealer,
}

enum Backend {
    Embedded(embedded::Embedded),
    Etcd(etcd::Etcd),
}

impl Store {
    /// Opens or creates the embedded store.
    pub fn open(config: Config) -> Result<Self, Error> {
        Ok(Store {
            backend: Backend::Embedded(embedded::Embedded::open(config)?),
            sealer: Default::default(),
        })
    }

    /// Connects to etcd, which must answer.
    pub async fn open_etcd(config: EtcdConfig) -> Result<Self, Error> {
        Ok(Store { backend: Backend::Etcd(etcd::Etcd::open(config).await?), sealer: Default::default() })
    }

    /// The newest revision that is durable and published in this process.
    pub fn revision(&self) -> u64 {
        match &self.backend {
            Backend::Embedded(e) => e.revision(),
            Backend::Etcd(e) => e.revision(),
        }
    }

    /// The newest revision that anybody may have been told of: a watch that has reached it has seen every write
    /// acknowledged before this call, by whichever server.
    pub async fn latest(&self) -> Result<u64, Error> {
        match &self.backend {
            Backend::Embedded(e) => Ok(e.revision()),
            Backend::Etcd(e) => e.latest().await,
        }
    }

    /// Whether other processes may write, too.
    pub fn is_shared(&self) -> bool {
        matches!(self.backend, Backend::Etcd(_))
    }

    /// From now on values below `prefixes` are encrypted by the first of `keys`, and those that are there are so too when
    /// this returns, with history before that forgotten. Without keys nothing is encrypted; then, and where a key is
    /// missing, what is encrypted already is an error. Gives how many values were written again.
    pub async fn protect(&mut self, keys: Option<Keys>, prefixes: Vec<Bytes>) -> Result<usize, Error> {
        self.sealer = seal::Sealer::new(keys, prefixes);
        let mut rewritten = 0;
        for prefix in self.sealer.prefixes() {
            let mut range = Range { limit: 500, ..Range::prefix(prefix.clone()) };
            loop {
                let page = self.stored(range.clone()).await?;
                for item in &page.items {
                    let value = self.sealer.open(&item.key, item.value.clone())?;
                    if !self.sealer.is_outdated(&item.key, &item.value) {
                        continue;
                    }
                    match self.put(item.key.clone(), value, item.mod_revision).await {
                        Ok(_) => rewritten += 1,
                        // Whoever wrote it meanwhile sealed it.
                        Err(Error::Conflict { .. } | Error::NotFound) => {}
                        Err(e) => return Err(e),
                    }
                }
                match page.items.last() {
                    Some(last) if page.more => range.after = Some(last.key.clone()),
                    _ => break,
                }
            }
        }
        if rewritten > 0 {
            self.compact(self.latest().await?).await?;
        }
        Ok(rewritten)
    }

    async fn put(&self, key: Bytes, value: Bytes, expected: u64) -> Result<u64, Error> {
        let value = self.sealer.seal(&key, value)?;
        match &self.backend {
            Backend::Embedded(e) => e.put(key, value, expected).await,
            Backend::Etcd(e) => e.put(key, value, expected).await,
        }
    }

    /// Writes a key that must not exist. Gives the new revision.
    pub async fn create(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<u64, Error> {
        self.put(key.into(), value.into(), 0).await
    }

    /// Writes a key that must stand at `expected`. Gives the new revision.
    pub async fn update(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        expected: u64,
    ) -> Result<u64, Error> {
        self.put(key.into(), value.into(), expected).await
    }

    /// Deletes a key, if `expected` is given only where it stands at that revision. Gives the new revision.
    pub async fn delete(&self, key: impl Into<Bytes>, expected: Option<u64>) -> Result<u64, Error> {
        match &self.backend {
            Backend::Embedded(e) => e.delete(key.into(), expected).await,
            Backend::Etcd(e) => e.delete(key.into(), expected).await,
        }
    }

    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, Error> {
        let found = match &self.backend {
            Backend::Embedded(e) => e.get(key.into()).await,
            Backend::Etcd(e) => e.get(key.into()).await,
        };
        found?.map(|kv| self.opened(kv)).transpose()
    }

    /// Keys in order, on one snapshot.
    pub async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        let RangeResult { items, more, revision } = self.stored(range).await?;
        let items = items.into_iter().map(|kv| self.opened(kv)).collect::<Result<_, _>>()?;
        Ok(RangeResult { items, more, revision })
    }

    /// A range as it lies in the backend: what is encrypted is encrypted.
    pub async fn stored(&self, range: Range) -> Result<RangeResult, Error> {
        match &self.backend {
            Backend::Embedded(e) => e.range(range).await,
            Backend::Etcd(e) => e.range(range).await,
        }
    }

    fn opened(&self, kv: KeyValue) -> Result<KeyValue, Error> {
        let value = self.sealer.open(&kv.key, kv.value)?;
        Ok(KeyValue { value, ..kv })
    }

    /// Every change to keys with this prefix after revision `after`.
    pub fn watch(&self, prefix: impl Into<Bytes>, after: u64) -> Watch {
        let watch = match &self.backend {
            Backend::Embedded(e) => e.watch(prefix.into(), after),
            Backend::Etcd(e) => e.watch(prefix.into(), after),
        };
        watch.with(self.sealer.clone())
    }

    /// Forgets history at and before `revision`: what was overwritten or deleted by then.
    pub async fn compact(&self, revision: u64) -> Result<(), Error> {
        match &self.backend {
            Backend::Embedded(e) => e.compact(revision).await,
            Backend::Etcd(e) => e.compact(revision).await,
        }
    }

    /// Whether the store can be read and, as far as it knows, written.
    pub async fn check(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Embedded(e) => e.check(),
            Backend::Etcd(e) => e.latest().await.map(drop),
        }
    }

    /// Bytes that the store takes on its disk.
    pub async fn size(&self) -> Result<u64, Error> {
        match &self.backend {
            Backend::Embedded(e) => e.size(),
            Backend::Etcd(e) => e.size().await,
        }
    }

    /// Counters since the store was opened.
    pub fn stats(&self) -> Stats {
        match &self.backend {
            Backend::Embedded(e) => e.stats(),
            Backend::Etcd(e) => e.stats(),
        }
    }
}
