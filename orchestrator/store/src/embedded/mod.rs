//! The backend on redb, for one machine.

mod format;
mod read;
pub(crate) mod restore;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::RwLock;
use redb::{Database, ReadableDatabase};
use tokio::sync::{mpsc, oneshot};

use crate::watch::{Hub, Source, Watch};
use crate::{Config, Error, KeyValue, Range, RangeResult};
use writer::{Op, Request};

/// The database in a store's directory.
pub(crate) const FILE: &str = "store.redb";
/// How many writes may wait; more make their callers wait.
const QUEUE: usize = 1024;

/// What the store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub writes: u64,
    /// Commits, each one fsync: `writes / commits` is how well grouping works.
    pub commits: u64,
    pub failed_commits: u64,
    pub commit_nanos: u64,
    pub revision: u64,
    pub compacted: u64,
}

/// What the writer, readers and watches share.
pub(crate) struct Shared {
    path: PathBuf,
    cache_bytes: usize,
    /// `None` after an I/O error, until the writer could open it again.
    db: RwLock<Option<Arc<Database>>>,
    pub(crate) hub: Hub,
    compacted: AtomicU64,
    writes: AtomicU64,
    commits: AtomicU64,
    failed_commits: AtomicU64,
    commit_nanos: AtomicU64,
}

impl Shared {
    pub(crate) fn db(&self) -> Result<Arc<Database>, Error> {
        self.db.read().clone().ok_or_else(|| Error::Unavailable("recovering from an I/O error".to_owned()))
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted.load(Ordering::Acquire)
    }

    fn open_db(&self) -> Result<Database, Error> {
        Ok(Database::builder().set_cache_size(self.cache_bytes).create(&self.path)?)
    }
}

pub(crate) struct Embedded {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    pub(crate) fn open(config: Config) -> Result<Self, Error> {
        let io = |e: std::io::Error| Error::Unavailable(format!("{}: {e}", config.dir.display()));
        std::fs::create_dir_all(&config.dir).map_err(io)?;
        let shared = Arc::new(Shared {
            path: config.dir.join(FILE),
            cache_bytes: config.cache_bytes,
            db: RwLock::new(None),
            hub: Hub::new(config.ring_events),
            compacted: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            failed_commits: AtomicU64::new(0),
            commit_nanos: AtomicU64::new(0),
        });
        let db = shared.open_db()?;
        let meta = writer::initialize(&db)?;
        shared.compacted.store(meta.compacted, Ordering::Release);
        shared.hub.start(meta.revision);
        *shared.db.write() = Some(Arc::new(db));
        let (queue, requests) = mpsc::channel(QUEUE);
        let writer = writer::Writer::new(shared.clone(), &config, meta);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(requests))
            .map_err(io)?;
        Ok(Embedded { shared, queue: Some(queue), writer: Some(writer) })
    }

    pub(crate) fn revision(&self) -> u64 {
        self.shared.hub.revision()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.shared.db().map(drop)
    }

    pub(crate) fn size(&self) -> Result<u64, Error> {
        let found = std::fs::metadata(&self.shared.path);
        found.map(|f| f.len()).map_err(|e| Error::Unavailable(e.to_string()))
    }

    async fn submit(&self, op: Op) -> Result<u64, Error> {
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        queue.send(Request { op, reply }).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// `expected` 0: the key must not exist.
    pub(crate) async fn put(&self, key: Bytes, value: Bytes, expected: u64) -> Result<u64, Error> {
        self.submit(Op::Put { key, value, expected }).await
    }

    pub(crate) async fn delete(&self, key: Bytes, expected: Option<u64>) -> Result<u64, Error> {
        self.submit(Op::Delete { key, expected }).await
    }

    pub(crate) async fn compact(&self, revision: u64) -> Result<(), Error> {
        self.submit(Op::Compact { revision }).await.map(|_| ())
    }

    pub(crate) async fn get(&self, key: Bytes) -> Result<Option<KeyValue>, Error> {
        self.blocking(move |s| read::get(&s.db()?.begin_read()?, &key)).await
    }

    pub(crate) async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        self.blocking(move |s| read::range(&s.db()?.begin_read()?, &range)).await
    }

    pub(crate) fn watch(&self, prefix: Bytes, after: u64) -> Watch {
        Watch::new(Source::Embedded(self.shared.clone()), prefix, after)
    }

    pub(crate) fn stats(&self) -> Stats {
        let s = &self.shared;
        Stats {
            writes: s.writes.load(Ordering::Relaxed),
            commits: s.commits.load(Ordering::Relaxed),
            failed_commits: s.failed_commits.load(Ordering::Relaxed),
            commit_nanos: s.commit_nanos.load(Ordering::Relaxed),
            revision: s.hub.revision(),
            compacted: s.compacted(),
        }
    }

    /// Reads touch the disk: they run off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = self.shared.clone();
        match tokio::task::spawn_blocking(move || f(&shared)).await {
            Ok(r) => r,
            Err(e) => Err(Error::Unavailable(e.to_string())),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(w) = self.writer.take()
            && w.join().is_err()
        {
            tracing::error!("the store's writer ended in a panic");
        }
        self.shared.hub.close();
    }
}

/// History between two revisions, for a watch that fell behind memory.
pub(crate) fn history(shared: &Shared, after: u64, limit: usize) -> Result<Vec<crate::Event>, Error> {
    read::history(&shared.db()?.begin_read()?, after, limit)
}
