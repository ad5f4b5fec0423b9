//! The one thread that writes: takes all requests that wait, commits them in one transaction with one
//! fsync, publishes, answers.
//!
//! After a failed commit nothing in memory is trusted: the database is closed, opened again (redb rolls a
//! torn commit back), and what it then holds beyond the last published revision is published. Callers of
//! the failed batch are told that the outcome is unknown.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use signal::time::SharedClock;
use tokio::sync::{mpsc, oneshot};

use super::format::{CURRENT, FORMAT, Head, LOG, META, VERSIONS, decode, encode};
use super::{Shared, read};
use crate::metrics::METRICS;
use crate::{Config, Error, Event};

/// A batch ends at so many writes or bytes, so that the first in it does not wait for ever.
const BATCH_WRITES: usize = 512;
const BATCH_BYTES: usize = 8 << 20;
/// Compaction walks so many revisions per transaction, and begins when there are so many to forget.
const COMPACT_STEP: u64 = 2000;
const COMPACT_MIN: u64 = 1000;
/// How often the writer notes which revision belongs to which time.
const MARK_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Request {
    pub(super) op: Op,
    pub(super) reply: oneshot::Sender<Result<u64, Error>>,
}

pub(super) enum Op {
    /// `expected` 0: the key must not exist.
    Put {
        key: Bytes,
        value: Bytes,
        expected: u64,
    },
    Delete {
        key: Bytes,
        expected: Option<u64>,
    },
    Compact {
        revision: u64,
    },
}

/// The numbers that head the database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub(super) revision: u64,
    pub(super) compacted: u64,
}

/// Makes the tables of a new database, checks the format of an old one.
pub(super) fn initialize(db: &Database) -> Result<Meta, Error> {
    let txn = db.begin_write()?;
    let meta = {
        let mut meta = txn.open_table(META)?;
        let format = meta.get("format")?.map(|v| v.value());
        match format {
            None => {
                meta.insert("format", FORMAT)?;
            }
            Some(found) if found > FORMAT => return Err(Error::Format { found, known: FORMAT }),
            Some(_) => {}
        }
        txn.open_table(CURRENT)?;
        txn.open_table(LOG)?;
        txn.open_table(VERSIONS)?;
        Meta {
            revision: meta.get("revision")?.map_or(0, |v| v.value()),
            compacted: meta.get("compacted")?.map_or(0, |v| v.value()),
        }
    };
    txn.commit()?;
    Ok(meta)
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    clock: SharedClock,
    keep_age: Duration,
    keep_revisions: u64,
    revision: u64,
    /// Which revision was the newest when, oldest first.
    marks: VecDeque<(Instant, u64)>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, config: &Config, meta: Meta) -> Self {
        Writer {
            shared,
            clock: config.clock.clone(),
            keep_age: config.keep_age,
            keep_revisions: config.keep_revisions,
            revision: meta.revision,
            marks: VecDeque::new(),
        }
    }

    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut batch = Vec::new();
        while let Some(first) = requests.blocking_recv() {
            let mut bytes = first.op.size();
            batch.push(first);
            while batch.len() < BATCH_WRITES && bytes < BATCH_BYTES {
                match requests.try_recv() {
                    Ok(r) => {
                        bytes += r.op.size();
                        batch.push(r);
                    }
                    Err(_) => break,
                }
            }
            self.serve(&mut batch);
            if let Some(target) = self.due()
                && let Err(e) = self.compact(target)
            {
                tracing::warn!(error = %e, "compaction failed, will be tried again");
            }
        }
    }

    fn serve(&mut self, batch: &mut Vec<Request>) {
        let started = self.clock.monotonic();
        let done = self.recover().and_then(|db| self.commit(&db, batch));
        match done {
            Ok((results, events)) => {
                let s = &self.shared;
                s.commits.fetch_add(1, Ordering::Relaxed);
                s.writes.fetch_add(events.len() as u64, Ordering::Relaxed);
                let took = self.clock.monotonic().saturating_duration_since(started);
                s.commit_nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
                METRICS.commits.inc();
                METRICS.writes.inc_by(events.len() as u64);
                METRICS.commit.observe(took.as_secs_f64());
                METRICS.revision.set(self.revision as i64);
                self.shared.hub.publish(events);
                for (request, result) in batch.drain(..).zip(results) {
                    // A caller that went away does not want to know.
                    let _ = request.reply.send(result);
                }
            }
            Err(e) => {
                tracing::error!(error = %e, writes = batch.len(), "the store could not commit");
                self.shared.failed_commits.fetch_add(1, Ordering::Relaxed);
                METRICS.failed_commits.inc();
                *self.shared.db.write() = None;
                for request in batch.drain(..) {
                    let _ = request.reply.send(Err(e.clone()));
                }
            }
        }
    }

    /// The database, opened again if the last commit failed.
    fn recover(&mut self) -> Result<Arc<Database>, Error> {
        if let Ok(db) = self.shared.db() {
            return Ok(db);
        }
        let db = self.shared.open_db()?;
        let meta = initialize(&db)?;
        loop {
            let events = read::history(&db.begin_read()?, self.shared.hub.revision(), 1000)?;
            let events: Vec<_> = events.into_iter().map(Arc::new).collect();
            if events.is_empty() {
                break;
            }
            self.shared.hub.publish(events);
        }
        self.revision = meta.revision;
        let db = Arc::new(db);
        *self.shared.db.write() = Some(db.clone());
        tracing::info!(revision = self.revision, "the store recovered");
        Ok(db)
    }

    #[expect(clippy::type_complexity, reason = "one answer per request, and the events of those that wrote")]
    fn commit(
        &mut self,
        db: &Database,
        batch: &[Request],
    ) -> Result<(Vec<Result<u64, Error>>, Vec<Arc<Event>>), Error> {
        let mut results = Vec::with_capacity(batch.len());
        let mut events = Vec::new();
        let mut revision = self.revision;
        let mut compactions = Vec::new();
        let txn = db.begin_write()?;
        {
            let mut tables = Tables::open(&txn)?;
            for request in batch {
                let result = match &request.op {
                    Op::Put { key, value, expected } => tables.put(revision + 1, key, value, *expected)?,
                    Op::Delete { key, expected } => tables.delete(revision + 1, key, *expected)?,
                    Op::Compact { revision: at } => {
                        compactions.push((results.len(), *at));
                        results.push(Ok(revision));
                        continue;
                    }
                };
                results.push(match result {
                    Ok(event) => {
                        revision += 1;
                        events.push(Arc::new(event));
                        Ok(revision)
                    }
                    Err(e) => Err(e),
                });
            }
            if !events.is_empty() {
                txn.open_table(META)?.insert("revision", revision)?;
            }
        }
        if events.is_empty() {
            txn.abort()?;
        } else {
            txn.commit()?;
        }
        self.revision = revision;
        for (i, at) in compactions {
            if at > revision {
                results[i] = Err(Error::Future { requested: at, current: revision });
            } else {
                results[i] = self.compact(at).map(|()| revision);
            }
        }
        Ok((results, events))
    }

    /// Up to where history may be forgotten now, if that is worth a transaction.
    fn due(&mut self) -> Option<u64> {
        let now = self.clock.monotonic();
        if self.marks.back().is_none_or(|(t, _)| now.saturating_duration_since(*t) >= MARK_EVERY) {
            self.marks.push_back((now, self.revision));
        }
        let mut target = self.revision.saturating_sub(self.keep_revisions);
        while let Some((t, r)) = self.marks.front()
            && now.saturating_duration_since(*t) >= self.keep_age
        {
            target = target.max(*r);
            self.marks.pop_front();
        }
        (target >= self.shared.compacted() + COMPACT_MIN).then_some(target)
    }

    fn compact(&mut self, target: u64) -> Result<(), Error> {
        let mut from = self.shared.compacted();
        while from < target {
            let to = target.min(from + COMPACT_STEP);
            let db = self.shared.db()?;
            // Readers of the old state see the new bound first, so none reads what is going away.
            let txn = db.begin_write()?;
            compact_step(&txn, from, to)?;
            txn.commit()?;
            self.shared.compacted.store(to, Ordering::Release);
            METRICS.compacted.set(to as i64);
            from = to;
        }
        Ok(())
    }
}

/// Each revision of (from, to] makes the one it replaced forgettable, and a deletion itself.
fn compact_step(txn: &WriteTransaction, from: u64, to: u64) -> Result<(), Error> {
    let mut log = txn.open_table(LOG)?;
    let mut versions = txn.open_table(VERSIONS)?;
    let mut gone = Vec::new();
    for entry in log.range(from + 1..=to)? {
        let (revision, record) = entry?;
        let e = decode(revision.value(), record.value())?;
        if e.prev_revision != 0 {
            gone.push((e.key.clone(), e.prev_revision));
        }
        if e.value.is_none() {
            gone.push((e.key, e.revision));
        }
    }
    for (key, revision) in gone {
        log.remove(revision)?;
        versions.remove((key.as_ref(), revision))?;
    }
    txn.open_table(META)?.insert("compacted", to)?;
    Ok(())
}

impl Op {
    fn size(&self) -> usize {
        match self {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key, .. } => key.len(),
            Op::Compact { .. } => 0,
        }
    }
}

/// The tables of one write transaction. The outer error is the disk's, the inner the caller's.
struct Tables<'t> {
    current: redb::Table<'t, &'static [u8], &'static [u8]>,
    log: redb::Table<'t, u64, &'static [u8]>,
    versions: redb::Table<'t, (&'static [u8], u64), u8>,
}

impl<'t> Tables<'t> {
    fn open(txn: &'t WriteTransaction) -> Result<Self, Error> {
        Ok(Tables {
            current: txn.open_table(CURRENT)?,
            log: txn.open_table(LOG)?,
            versions: txn.open_table(VERSIONS)?,
        })
    }

    fn head(&self, key: &[u8]) -> Result<Option<Head>, Error> {
        self.current.get(key)?.map(|h| Head::decode(h.value())).transpose()
    }

    fn put(
        &mut self,
        revision: u64,
        key: &Bytes,
        value: &Bytes,
        expected: u64,
    ) -> Result<Result<Event, Error>, Error> {
        let old = self.head(key)?;
        match (old, expected) {
            (Some(h), 0) => return Ok(Err(Error::Exists { mod_revision: h.mod_revision })),
            (None, 1..) => return Ok(Err(Error::NotFound)),
            (Some(h), e) if h.mod_revision != e => {
                return Ok(Err(Error::Conflict { expected, actual: h.mod_revision }));
            }
            _ => {}
        }
        let event = Event {
            revision,
            key: key.clone(),
            value: Some(value.clone()),
            create_revision: old.map_or(revision, |h| h.create_revision),
            version: old.map_or(1, |h| h.version + 1),
            prev_revision: old.map_or(0, |h| h.mod_revision),
        };
        let head =
            Head { create_revision: event.create_revision, mod_revision: revision, version: event.version };
        self.current.insert(key.as_ref(), head.encode().as_slice())?;
        self.record(&event)?;
        Ok(Ok(event))
    }

    fn delete(
        &mut self,
        revision: u64,
        key: &Bytes,
        expected: Option<u64>,
    ) -> Result<Result<Event, Error>, Error> {
        let Some(old) = self.head(key)? else { return Ok(Err(Error::NotFound)) };
        if let Some(expected) = expected
            && expected != old.mod_revision
        {
            return Ok(Err(Error::Conflict { expected, actual: old.mod_revision }));
        }
        let event = Event {
            revision,
            key: key.clone(),
            value: None,
            create_revision: old.create_revision,
            version: old.version + 1,
            prev_revision: old.mod_revision,
        };
        self.current.remove(key.as_ref())?;
        self.record(&event)?;
        Ok(Ok(event))
    }

    fn record(&mut self, event: &Event) -> Result<(), Error> {
        self.log.insert(event.revision, encode(event).as_slice())?;
        self.versions.insert((event.key.as_ref(), event.revision), u8::from(event.value.is_some()))?;
        Ok(())
    }
}
