//! The index: opening, appending, checkpoints, following, facts about itself, and its one task.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use signal::{
    Accepted, Attributes, Checkpoint, LogBatch, LogStream, Matcher, SinkError, SpanBatch, Timestamp,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wal::Wal;

use crate::codec::{encode_log, encode_span, is_record};
use crate::config::{Config, Kind};
use crate::error::{Error, sink_error};
use crate::frame::{Encoder, Frame};
use crate::head::Head;
use crate::partition::Partition;
use crate::progress::Progress;
use crate::tail::{Tail, Tails};

/// How often the task looks whether there is something to flush or drop.
const TICK: Duration = Duration::from_secs(30);
/// The next head takes no more than so many times its usual size while the one before is flushed.
const HEADS: usize = 4;
/// Records of more bytes are cut to this: one of them must not fill a block by itself.
const BODY_BYTES: usize = 256 << 10;

/// Checkpoints of sources that begin so are keys of single batches, not positions.
const ONCE: &str = "once/";
/// Damaged files that are named in the log.
const TOLD: usize = 1000;
/// So long a batch whose key is known is taken for a repetition.
const KEY_AGE: Duration = Duration::from_secs(2 * 3600);

pub struct LogIndex {
    pub(crate) config: Config,
    pub(crate) wal: Wal,
    pub(crate) state: RwLock<State>,
    pub(crate) gate: tokio::sync::RwLock<()>,
    pub(crate) maintenance: tokio::sync::Mutex<()>,
    /// Held by whoever makes partitions of partitions: merges and deletions.
    pub(crate) rewriting: Mutex<()>,
    /// Position and, in nanoseconds, when it was last moved.
    checkpoints: Mutex<HashMap<String, (u64, i64)>>,
    tails: Tails,
    seq: AtomicU64,
    wake: tokio::sync::Notify,
    /// A flush has ended: the head may have room.
    pub(crate) room: tokio::sync::Notify,
    accepted: AtomicU64,
    duplicates: AtomicU64,
    damaged: AtomicU64,
    /// Files of which it was told that they are damaged.
    told: Mutex<HashSet<PathBuf>>,
}

pub(crate) struct State {
    pub(crate) head: Head,
    /// When the first record of the head came, in nanoseconds of the clock.
    head_since: i64,
    /// A head that is being written to a partition.
    pub(crate) frozen: Option<Arc<Head>>,
    pub(crate) frozen_segment: u64,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

/// Facts for our own metrics and the status page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub head_records: u64,
    pub head_bytes: u64,
    pub streams: u64,
    pub partitions: u64,
    pub partition_bytes: u64,
    pub partition_records: u64,
    /// Bytes of records in partitions before compression.
    pub partition_raw_bytes: u64,
    pub wal: wal::Stats,
    /// Of [`Stats::partition_bytes`]: columns; and what finds blocks: words, filters, traces.
    pub partition_data_bytes: u64,
    pub partition_index_bytes: u64,
    /// Since the process started.
    pub accepted: u64,
    /// Records of batches that a checkpoint showed to be stored already.
    pub duplicates: u64,
    /// Records that slow tails did not get.
    pub tail_dropped: u64,
    /// Readings of blocks, partitions and what finds them that failed because those are damaged.
    pub damaged: u64,
}

impl LogIndex {
    /// Opens or makes the index and reads its log back.
    pub fn open(config: Config) -> Result<Arc<LogIndex>, Error> {
        fs::create_dir_all(&config.dir).map_err(Error::io(&config.dir))?;
        let partitions = open_partitions(&config.dir, config.kind)?;
        let mut head = Head::default();
        let mut checkpoints: HashMap<String, (u64, i64)> = HashMap::new();
        let now = config.clock.now().nanos();
        // A crash between writing a partition and deleting its log leaves both: those frames are stored already.
        let covered = partitions.iter().map(|p| p.meta.log_before).max().unwrap_or(0);
        let seq = partitions.iter().map(|p| p.meta.seq).max().unwrap_or(0);
        let mut unreadable = 0u64;
        let (wal, found) = Wal::open(wal::Config::new(config.dir.join("wal")), |segment, frame| {
            let Some(mut frame) = Frame::decode(frame) else {
                unreadable += 1;
                return;
            };
            for c in &frame.checkpoints {
                let e = checkpoints.entry(c.source.clone()).or_insert((0, now));
                e.0 = e.0.max(c.position);
            }
            if segment >= covered {
                let before = frame.records();
                frame.retain(|data| is_record(config.kind, data));
                unreadable += (before - frame.records()) as u64;
                head.insert(frame);
            }
        })?;
        if unreadable > 0 || !found.damage.is_empty() {
            tracing::error!(unreadable, damaged = found.damage.len(), "part of the log index's log was lost");
        }
        tracing::info!(kind = ?config.kind, frames = found.frames, records = head.records, partitions = partitions.len(), "log index opened");
        Ok(Arc::new(LogIndex {
            config,
            wal,
            state: RwLock::new(State { head, head_since: now, frozen: None, frozen_segment: 0, partitions }),
            gate: tokio::sync::RwLock::new(()),
            maintenance: tokio::sync::Mutex::new(()),
            rewriting: Mutex::new(()),
            checkpoints: Mutex::new(checkpoints),
            tails: Tails::default(),
            seq: AtomicU64::new(seq),
            wake: tokio::sync::Notify::new(),
            room: tokio::sync::Notify::new(),
            accepted: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            told: Mutex::default(),
        }))
    }

    /// Returns once the records and checkpoints are in the synced log, can be queried, and are on their way to
    /// tails. A batch whose checkpoints are all stored already is a repetition: it is accepted and dropped.
    pub async fn append_logs(&self, mut batch: LogBatch) -> Result<Accepted, SinkError> {
        if self.config.kind != Kind::Logs {
            return Err(SinkError::Invalid("this index holds spans".to_owned()));
        }
        let records = batch.records();
        for r in batch.streams.iter_mut().flat_map(|s| &mut s.records).filter(|r| r.body.len() > BODY_BYTES) {
            let end = (0..=BODY_BYTES).rev().find(|i| r.body.is_char_boundary(*i)).unwrap_or(0);
            r.body.truncate(end);
            r.attributes.set("binnacle.truncated", true);
        }
        self.wait_for_room().await?;
        let _gate = self.gate.read().await;
        if self.is_repetition(&batch.checkpoints) {
            self.duplicates.fetch_add(records as u64, Ordering::Relaxed);
            return Ok(Accepted { accepted: records, ..Accepted::default() });
        }
        let late = if batch.checkpoints.is_empty() { self.refuse_late(&mut batch) } else { 0 };
        let records = records - late;
        let streams = || batch.streams.iter().filter(|s| !s.records.is_empty());
        let bytes = streams().flat_map(|s| &s.records).map(|r| r.body.len() + 32).sum();
        let mut e = Encoder::new(streams().count(), bytes);
        for s in streams() {
            e.stream(s.labels.clone(), Attributes::default(), s.records.len());
            s.records.iter().for_each(|r| e.record(r.timestamp.nanos(), |out| encode_log(r, out)));
        }
        let frame = e.finish(std::mem::take(&mut batch.checkpoints));
        self.commit(frame, records).await?;
        if self.tails.wanted() {
            let streams: Vec<Arc<LogStream>> = batch.streams.into_iter().map(Arc::new).collect();
            self.tails.publish(&streams);
        }
        let reason = (late > 0).then(|| {
            format!(
                "{late} records are more than {:?} older than the newest of their stream",
                self.config.late
            )
        });
        Ok(Accepted { accepted: records, rejected: late, reason })
    }

    /// Takes out what is too old for its stream, and counts it. Files that are read later than they were written have
    /// checkpoints and are not asked.
    fn refuse_late(&self, batch: &mut LogBatch) -> usize {
        let now = self.config.clock.now().nanos();
        let late = i64::try_from(self.config.late.as_nanos()).unwrap_or(i64::MAX);
        let state = self.state.read();
        let mut refused = 0;
        for s in &mut batch.streams {
            let frozen = state.frozen.as_ref().and_then(|h| h.newest(&s.labels));
            let Some(newest) = state.head.newest(&s.labels).max(frozen) else { continue };
            let oldest = Timestamp(newest.min(now).saturating_sub(late));
            let before = s.records.len();
            s.records.retain(|r| r.timestamp >= oldest);
            refused += before - s.records.len();
        }
        refused
    }

    /// Returns once the spans are in the synced log and can be queried.
    pub async fn append_spans(&self, batch: SpanBatch) -> Result<Accepted, SinkError> {
        if self.config.kind != Kind::Spans {
            return Err(SinkError::Invalid("this index holds logs".to_owned()));
        }
        let records = batch.spans();
        self.wait_for_room().await?;
        let _gate = self.gate.read().await;
        let streams = || batch.streams.iter().filter(|s| !s.spans.is_empty());
        let mut e = Encoder::new(streams().count(), records * 128);
        for s in streams() {
            e.stream(s.labels.clone(), s.resource.clone(), s.spans.len());
            s.spans.iter().for_each(|s| e.record(s.start.nanos(), |out| encode_span(s, out)));
        }
        self.commit(e.finish(Vec::new()), records).await?;
        Ok(Accepted { accepted: records, ..Accepted::default() })
    }

    /// Waits while the head grows faster than it is flushed, so that it has a bound.
    async fn wait_for_room(&self) -> Result<(), SinkError> {
        let room = self.room.notified();
        tokio::pin!(room);
        let is_full = || {
            let s = self.state.read();
            s.frozen.is_some() && s.head.bytes >= self.config.head_bytes.saturating_mul(HEADS)
        };
        // Asked for before the question, so that a flush which ends in between is not missed.
        room.as_mut().enable();
        if !is_full() {
            return Ok(());
        }
        drop(tokio::time::timeout(self.config.patience, room).await);
        if is_full() {
            return Err(SinkError::Overloaded {
                what: "head of the log index".into(),
                retry_after: Duration::from_secs(1),
            });
        }
        Ok(())
    }

    async fn commit(&self, mut frame: Frame, records: usize) -> Result<(), SinkError> {
        if frame.streams.is_empty() && frame.checkpoints.is_empty() {
            return Ok(());
        }
        self.wal.append(frame.packed()).await.map_err(sink_error)?;
        let now = self.config.clock.now().nanos();
        let checkpoints = std::mem::take(&mut frame.checkpoints);
        let full = {
            let mut state = self.state.write();
            if state.head.records == 0 {
                state.head_since = now;
            }
            state.head.insert(frame);
            state.head.bytes >= self.config.head_bytes
        };
        let mut stored = self.checkpoints.lock();
        for c in checkpoints {
            let e = stored.entry(c.source).or_insert((0, now));
            *e = (e.0.max(c.position), now);
        }
        drop(stored);
        self.accepted.fetch_add(records as u64, Ordering::Relaxed);
        if full {
            self.wake.notify_one();
        }
        Ok(())
    }

    fn is_repetition(&self, checkpoints: &[Checkpoint]) -> bool {
        let stored = self.checkpoints.lock();
        !checkpoints.is_empty()
            && checkpoints.iter().all(|c| stored.get(&c.source).is_some_and(|(p, _)| c.position <= *p))
    }

    /// How far a source has been stored. `None` if it is not known.
    pub fn checkpoint(&self, source: &str) -> Option<u64> {
        self.checkpoints.lock().get(source).map(|(p, _)| *p)
    }

    /// Checkpoints that still matter: those of sources silent for longer than the retention are let go, and keys of
    /// batches whose senders have given up by now.
    pub(crate) fn live_checkpoints(&self) -> Vec<Checkpoint> {
        let now = self.config.clock.now();
        let oldest = now.saturating_sub(self.config.retention).nanos();
        let oldest_key = now.saturating_sub(KEY_AGE.min(self.config.retention)).nanos();
        let mut stored = self.checkpoints.lock();
        stored.retain(|source, (_, moved)| {
            *moved >= if source.starts_with(ONCE) { oldest_key } else { oldest }
        });
        stored
            .iter()
            .map(|(source, (position, _))| Checkpoint { source: source.clone(), position: *position })
            .collect()
    }

    /// New records of matching streams from now on.
    pub fn tail(&self, matchers: Vec<Matcher>) -> Tail {
        self.tails.subscribe(matchers, self.config.tail_batches)
    }

    pub fn kind(&self) -> Kind {
        self.config.kind
    }

    pub fn stats(&self) -> Stats {
        let s = self.state.read();
        Stats {
            head_records: s.head.records,
            head_bytes: s.head.bytes as u64,
            streams: s.head.streams.len() as u64,
            partitions: s.partitions.len() as u64,
            partition_bytes: s.partitions.iter().map(|p| p.bytes).sum(),
            partition_records: s.partitions.iter().map(|p| p.meta.records).sum(),
            partition_raw_bytes: s.partitions.iter().map(|p| p.meta.raw_bytes).sum(),
            partition_data_bytes: s.partitions.iter().map(|p| p.meta.data_bytes).sum(),
            partition_index_bytes: s.partitions.iter().map(|p| p.meta.index_bytes).sum(),
            wal: self.wal.stats(),
            accepted: self.accepted.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            tail_dropped: self.tails.dropped.load(Ordering::Relaxed),
            damaged: self.damaged.load(Ordering::Relaxed),
        }
    }

    /// What was read. Where it is damaged nothing, which the search counts: one bad block does not hide all others.
    pub(crate) fn sound<T>(&self, progress: &Progress, read: Result<T, Error>) -> Result<Option<T>, Error> {
        let read = self.help(read)?;
        if read.is_none() {
            progress.damage();
        }
        Ok(read)
    }

    /// As [`LogIndex::sound`], for what a search can do without. Either is counted, and told once for each file.
    pub(crate) fn help<T>(&self, read: Result<T, Error>) -> Result<Option<T>, Error> {
        let e = match read {
            Ok(read) => return Ok(Some(read)),
            Err(e) => e,
        };
        let Error::Damaged { path, .. } = &e else { return Err(e) };
        self.damaged.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock();
        if told.len() < TOLD && told.insert(path.clone()) {
            tracing::error!(error = %e, "a part of the log index is damaged and left out of what is read");
        }
        Ok(None)
    }

    /// Flushes and drops until told to stop. The log keeps the head over a stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut merging: Option<JoinHandle<()>> = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
                () = self.wake.notified() => {}
            }
            let due = {
                let s = self.state.read();
                let now = self.config.clock.now().nanos();
                let age = if s.head.records == 0 { 0 } else { now.saturating_sub(s.head_since) };
                s.frozen.is_some()
                    || s.head.bytes >= self.config.head_bytes
                    || u128::try_from(age).unwrap_or(0) >= self.config.head_age.as_nanos()
            };
            if due && let Err(e) = self.flush().await {
                tracing::error!(error = %e, "the log index could not be flushed; its log keeps the records and it is tried again");
                continue;
            }
            if let Err(e) = self.retain() {
                tracing::error!(error = %e, "old partitions could not be dropped");
            }
            // Beside flushes, which must not wait for it.
            if merging.as_ref().is_none_or(JoinHandle::is_finished) {
                let index = self.clone();
                merging = Some(tokio::task::spawn_blocking(move || {
                    if let Err(e) = index.merge() {
                        tracing::error!(error = %e, "partitions were not merged and stay as they are");
                    }
                }));
            }
        }
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn open_partitions(dir: &std::path::Path, kind: Kind) -> Result<Vec<Arc<Partition>>, Error> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("tmp") => fs::remove_file(&path).map_err(Error::io(&path))?,
            Some("part") => match Partition::open(path.clone(), kind) {
                Ok(p) => out.push(Arc::new(p)),
                Err(e @ Error::Damaged { .. }) => {
                    let kept = path.with_extension("bad");
                    tracing::error!(error = %e, kept_in = %kept.display(), "a partition was set aside");
                    fs::rename(&path, &kept).map_err(Error::io(&kept))?;
                }
                Err(e) => return Err(e),
            },
            _ => {}
        }
    }
    // A crash between writing a merged partition and deleting its parts leaves both.
    let void: HashSet<u64> =
        out.iter().flat_map(|p: &Arc<Partition>| p.meta.merged.iter().copied()).collect();
    for p in out.extract_if(.., |p| void.contains(&p.meta.seq)) {
        fs::remove_file(&p.path).map_err(Error::io(&p.path))?;
    }
    out.sort_by_key(|p| p.meta.seq);
    Ok(out)
}

#[cfg(test)]
mod tests;
