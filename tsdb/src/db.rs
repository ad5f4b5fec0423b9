//! The database: opening, appending, closing series, facts about itself, and its one task.

mod append;
mod replay;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use signal::{Exemplar, Matcher, Metadata, MetricBatch, SinkError, stale_nan};
use tokio_util::sync::CancellationToken;
use wal::Wal;

use crate::block::Block;
use crate::config::Config;
use crate::error::Error;
use crate::exemplars::Exemplars;
use crate::head::{Frozen, Head};
use crate::tombstones::Tombstones;
pub use append::Columns;
use append::Refusal;
use replay::Replay;

/// Families whose metadata is kept; more are counted by nobody and would be a leak.
const FAMILIES: usize = 20_000;
/// Bytes of samples that a live series may have in the head, about a hundred samples, before it is written to a block:
/// a block of very many series would else hold a handful of each.
const SERIES_BYTES: usize = 256;
/// Bytes of samples that take a tenth of a second to read back.
const LONG_REPLAY: usize = 4 << 20;
/// How often the task looks whether there is something to flush, merge or drop.
const TICK: Duration = Duration::from_secs(30);
/// So many ended series are worth a small block of their own, which takes them out of memory: two megabytes of it.
const DEAD: usize = 2_000;

pub struct Tsdb {
    pub(crate) config: Config,
    pub(crate) wal: Wal,
    pub(crate) state: RwLock<State>,
    /// See the crate's front page.
    pub(crate) gate: tokio::sync::RwLock<()>,
    /// Held while an append numbers its series and queues its record; taken before `state`.
    order: Mutex<()>,
    pub(crate) tombstones: Tombstones,
    /// Held by a flush or a merge: one at a time.
    pub(crate) maintenance: tokio::sync::Mutex<()>,
    metadata: Mutex<BTreeMap<String, Metadata>>,
    exemplars: Mutex<Exemplars>,
    seq: AtomicU64,
    /// The number of the newest record in the log.
    record: AtomicU32,
    /// The newest sample ever taken.
    newest: AtomicI64,
    wake: tokio::sync::Notify,
    counters: Counters,
    opened: Opened,
    started: Instant,
    /// Of which namespace, when, in words: see [`append`].
    offenders: Mutex<Option<(String, Instant, String)>>,
}

pub(crate) struct State {
    pub(crate) head: Head,
    /// When the head's first sample came, in milliseconds of the clock: samples' own times may be older.
    head_since: i64,
    /// A head that is being written to a block.
    pub(crate) frozen: Option<Arc<Frozen>>,
    /// The log below this segment belongs to `frozen`.
    pub(crate) frozen_segment: u64,
    /// The log still has samples of ended series that are in blocks already.
    pub(crate) log_behind: bool,
    /// In ascending order of `meta.order`.
    pub(crate) blocks: Vec<Arc<Block>>,
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Counters {
    fn refuse(&self, by_reason: &[u64]) {
        for (counter, n) in self.refused.iter().zip(by_reason).filter(|(_, n)| **n > 0) {
            counter.fetch_add(*n, Ordering::Relaxed);
        }
    }
}

/// What opening found wrong, and what it took.
#[derive(Debug, Default)]
struct Opened {
    replay: Duration,
    samples: u64,
    /// Blocks and parts of the log that were set aside.
    quarantined: u64,
    lost: u64,
    torn_bytes: u64,
}

/// What the engine counts about itself while it works: cheap to ask for at any time.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Series with a number: live ones, and ended ones until the next flush.
    pub series: u64,
    pub dead_series: u64,
    pub series_opened: u64,
    pub series_dropped: u64,
    pub samples_appended: u64,
    /// By reason.
    pub samples_refused: Vec<(&'static str, u64)>,
    pub head_samples: u64,
    pub head_bytes: u64,
    /// Memory of the pages that they stand in.
    pub head_page_bytes: u64,
    pub blocks: u64,
    pub block_bytes: u64,
    pub wal: wal::Stats,
    /// Reading the log back when the database was opened.
    pub replay: Duration,
    pub replayed_samples: u64,
    /// Damaged blocks and parts of the log that were set aside then.
    pub quarantined: u64,
    /// Samples known to have been in them.
    pub samples_lost: u64,
    /// Bytes of an append that a crash cut short.
    pub torn_bytes: u64,
}

/// Facts for the status page and our own metrics.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Series in the head.
    pub series: u64,
    pub head_samples: u64,
    pub head_bytes: u64,
    /// Milliseconds; 0 if the head is empty.
    pub head_min_time: i64,
    pub head_max_time: i64,
    pub blocks: u64,
    pub block_bytes: u64,
    pub block_samples: u64,
    pub wal: wal::Stats,
    /// Since the process started.
    pub samples_accepted: u64,
    pub samples_rejected: u64,
    /// Largest first, ten each, of the head.
    pub series_by_metric: Vec<(String, u64)>,
    pub values_by_label: Vec<(String, u64)>,
    /// `name=value`.
    pub series_by_pair: Vec<(String, u64)>,
    /// What the label's values take, told in each series.
    pub bytes_by_label: Vec<(String, u64)>,
    pub label_pairs: u64,
}

impl Tsdb {
    /// Opens or makes the database and reads its log back.
    pub fn open(config: Config) -> Result<Arc<Tsdb>, Error> {
        fs::create_dir_all(&config.dir).map_err(Error::io(&config.dir))?;
        let started = config.clock.monotonic();
        let (blocks, bad_blocks) = open_blocks(&config.dir)?;
        let tombstones = Tombstones::load(&config.dir)?;
        let wal_config = wal::Config { sync: config.sync, ..wal::Config::new(config.dir.join("wal")) };
        let (replay, wal, found) = replay::read(wal_config, load_metadata(&config.dir)?)?;
        let Replay { head, metadata, exemplars, record, unreadable, lost, .. } = replay;
        if unreadable + lost > 0 || !found.damage.is_empty() {
            tracing::error!(
                unreadable,
                samples_lost = lost,
                damaged = found.damage.len(),
                "part of the metrics log was lost"
            );
        }
        let opened = Opened {
            replay: config.clock.monotonic().saturating_duration_since(started),
            samples: head.samples,
            quarantined: bad_blocks + unreadable + found.damage.len() as u64,
            lost,
            torn_bytes: found.torn_bytes,
        };
        tracing::info!(
            frames = found.frames,
            samples = head.samples,
            blocks = blocks.len(),
            "metrics opened"
        );
        let now = config.clock.now().millis();
        let newest = blocks.iter().map(|b| b.meta.max).chain(head.range.map(|(_, max)| max)).max();
        let seq = blocks.iter().map(|b| b.meta.seq.max(b.meta.order)).max().unwrap_or(0);
        // A new block must not be taken for one that a deletion holds for.
        let seq = seq.max(tombstones.newest_block());
        Ok(Arc::new(Tsdb {
            config,
            wal,
            state: RwLock::new(State {
                head,
                head_since: now,
                frozen: None,
                frozen_segment: 0,
                log_behind: false,
                blocks,
            }),
            gate: tokio::sync::RwLock::new(()),
            order: Mutex::new(()),
            tombstones,
            maintenance: tokio::sync::Mutex::new(()),
            metadata: Mutex::new(metadata),
            exemplars: Mutex::new(exemplars),
            seq: AtomicU64::new(seq),
            record: AtomicU32::new(record),
            newest: AtomicI64::new(newest.unwrap_or(i64::MIN)),
            wake: tokio::sync::Notify::new(),
            counters: Counters::default(),
            opened,
            started,
            offenders: Mutex::default(),
        }))
    }

    /// There is enough in the head to write it to a block.
    fn is_full(&self, head: &Head) -> bool {
        head.bytes >= self.config.head_bytes.max(SERIES_BYTES * (head.len() - head.dead))
    }

    /// Exemplars of series that match any of the selectors, with times in the range, series by series.
    pub fn exemplars(&self, selectors: &[Vec<Matcher>], start: i64, end: i64) -> Vec<Exemplar> {
        self.exemplars.lock().select(selectors, start, end)
    }

    /// Writes a stale marker to every live series that matches: who they belonged to is gone.
    /// Gives back how many were closed.
    pub async fn close_series(&self, matchers: &[Matcher]) -> Result<usize, SinkError> {
        let now = self.config.clock.now().millis();
        let mut batch = MetricBatch::default();
        {
            let state = self.state.read();
            let head = &state.head;
            for series in
                head.postings.select(matchers).into_iter().filter_map(|i| head.series.get(i as usize))
            {
                if !series.dead && series.newest > i64::MIN {
                    batch.push(series.labels.clone(), now.max(series.newest.saturating_add(1)), stale_nan());
                }
            }
        }
        let closed = batch.series.len();
        self.append(batch).await?;
        Ok(closed)
    }

    /// What is known of a metric family.
    pub fn metadata(&self, family: &str) -> Option<Metadata> {
        self.metadata.lock().get(family).cloned()
    }

    /// All families known, by name.
    pub fn all_metadata(&self) -> Vec<Metadata> {
        self.metadata.lock().values().cloned().collect()
    }

    fn new_metadata(&self, offered: Vec<Metadata>) -> Vec<Metadata> {
        let known = self.metadata.lock();
        let mut room = FAMILIES.saturating_sub(known.len());
        offered
            .into_iter()
            .filter(|m| match known.get(&m.family) {
                Some(k) => k != m,
                None => {
                    room = room.saturating_sub(1);
                    room > 0
                }
            })
            .collect()
    }

    pub fn facts(&self) -> Facts {
        let refused = Refusal::ALL.iter().zip(&self.counters.refused);
        let samples_refused = refused.map(|((_, name), n)| (*name, n.load(Ordering::Relaxed))).collect();
        let state = self.state.read();
        let head = &state.head;
        Facts {
            series: head.len() as u64,
            dead_series: head.dead as u64,
            series_opened: head.opened,
            series_dropped: head.dropped,
            samples_appended: self.counters.accepted.load(Ordering::Relaxed),
            samples_refused,
            head_samples: head.samples,
            head_bytes: head.bytes as u64,
            head_page_bytes: head.cells.size() as u64,
            blocks: state.blocks.len() as u64,
            block_bytes: state.blocks.iter().map(|b| b.bytes).sum(),
            wal: self.wal.stats(),
            replay: self.opened.replay,
            replayed_samples: self.opened.samples,
            quarantined: self.opened.quarantined,
            samples_lost: self.opened.lost,
            torn_bytes: self.opened.torn_bytes,
        }
    }

    /// What was found damaged when the database was opened, in words, if anything was.
    pub fn damage(&self) -> Option<String> {
        let Opened { quarantined, lost, .. } = self.opened;
        (quarantined + lost > 0).then(|| {
            format!(
                "{quarantined} damaged parts of the metrics were set aside when they were opened and {lost} samples \
                 with them; the rest is served, the parts are *.bad under {}",
                self.config.dir.display()
            )
        })
    }

    pub fn stats(&self) -> Stats {
        let state = self.state.read();
        let (min, max) = state.head.range.unwrap_or((0, 0));
        let mut pairs = Top::default();
        let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
        let mut label_pairs = 0;
        for (name, value, n) in state.head.postings.pairs() {
            label_pairs += 1;
            *bytes.entry(name).or_default() += value.len() as u64 * n;
            pairs.offer(n, || format!("{name}={value}"));
        }
        let top = |all: &mut dyn Iterator<Item = (&str, u64)>| {
            let mut top = Top::default();
            all.for_each(|(name, n)| top.offer(n, || name.to_owned()));
            top.finish()
        };
        Stats {
            series: state.head.len() as u64,
            head_samples: state.head.samples,
            head_bytes: state.head.bytes as u64,
            head_min_time: min,
            head_max_time: max,
            blocks: state.blocks.len() as u64,
            block_bytes: state.blocks.iter().map(|b| b.bytes).sum(),
            block_samples: state.blocks.iter().map(|b| b.meta.samples).sum(),
            wal: self.wal.stats(),
            samples_accepted: self.counters.accepted.load(Ordering::Relaxed),
            samples_rejected: self.counters.refused.iter().map(|n| n.load(Ordering::Relaxed)).sum(),
            series_by_metric: top(&mut state.head.postings.value_counts(signal::METRIC_NAME)),
            values_by_label: top(&mut state.head.postings.name_counts()),
            series_by_pair: pairs.finish(),
            bytes_by_label: top(&mut bytes.into_iter()),
            label_pairs,
        }
    }

    /// Before a clean end: what a restart would have to read back for long goes into a block.
    pub async fn checkpoint(self: &Arc<Self>) -> Result<(), Error> {
        if self.state.read().head.bytes < LONG_REPLAY {
            return Ok(());
        }
        self.flush().await
    }

    /// Flushes, merges and drops until told to stop. The log keeps the head over a stop, see [`Tsdb::checkpoint`].
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
                () = self.wake.notified() => {}
            }
            let (due, many_dead) = {
                let state = self.state.read();
                let now = self.config.clock.now().millis();
                let age = if state.head.samples == 0 { 0 } else { now.saturating_sub(state.head_since) };
                let due = state.frozen.is_some()
                    || self.is_full(&state.head)
                    || u128::try_from(age).unwrap_or(0) >= self.config.head_span.as_millis();
                (due, state.head.dead >= DEAD)
            };
            let flushed = match (due, many_dead) {
                (true, _) => self.flush().await,
                (false, true) => self.flush_dead().await,
                (false, false) => Ok(()),
            };
            if let Err(e) = flushed {
                tracing::error!(error = %e, "metrics could not be flushed; the log keeps them and it is tried again");
                continue;
            }
            if let Err(e) = self.compact_and_retain().await {
                tracing::error!(error = %e, "metric blocks could not be merged or dropped");
            }
        }
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// No sample older than this can come any more, nor is one in the head.
    pub(crate) fn settled_before(&self) -> i64 {
        let window = i64::try_from(self.config.out_of_order.as_millis()).unwrap_or(i64::MAX);
        let open = self.newest.load(Ordering::Relaxed).saturating_sub(window);
        self.state.read().head.range.map_or(open, |(min, _)| open.min(min))
    }

    pub(crate) fn save_metadata(&self) -> Result<(), Error> {
        let all: Vec<(String, signal::MetricKind, String, String)> = self
            .metadata
            .lock()
            .values()
            .map(|m| (m.family.clone(), m.kind, m.help.clone(), m.unit.clone()))
            .collect();
        let path = self.config.dir.join("metadata.json");
        let temporary = self.config.dir.join("metadata.json.tmp");
        let text = serde_json::to_vec(&all).expect("plain data");
        fs::write(&temporary, text).map_err(Error::io(&temporary))?;
        fs::File::open(&temporary).and_then(|f| f.sync_all()).map_err(Error::io(&temporary))?;
        fs::rename(&temporary, &path).map_err(Error::io(&path))
    }
}

/// The ten largest, without a list of all.
#[derive(Default)]
struct Top(Vec<(u64, String)>);

impl Top {
    fn offer(&mut self, n: u64, name: impl FnOnce() -> String) {
        if self.0.len() < 10 || self.0.last().is_some_and(|(least, _)| n > *least) {
            let at = self.0.partition_point(|(m, _)| *m >= n);
            self.0.insert(at, (n, name()));
            self.0.truncate(10);
        }
    }

    fn finish(self) -> Vec<(String, u64)> {
        self.0.into_iter().map(|(n, name)| (name, n)).collect()
    }
}

fn load_metadata(dir: &std::path::Path) -> Result<BTreeMap<String, Metadata>, Error> {
    let path = dir.join("metadata.json");
    let raw = match fs::read(&path) {
        Ok(raw) => raw,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(Error::io(&path)(e)),
    };
    let all: Vec<(String, signal::MetricKind, String, String)> = serde_json::from_slice(&raw)
        .map_err(|e| Error::Damaged { path: path.clone(), what: e.to_string() })?;
    Ok(all
        .into_iter()
        .map(|(family, kind, help, unit)| (family.clone(), Metadata { family, kind, help, unit }))
        .collect())
}

/// Opens all blocks; removes leftovers of flushes and merges that a crash cut short.
/// Gives back how many were set aside, too.
fn open_blocks(dir: &std::path::Path) -> Result<(Vec<Arc<Block>>, u64), Error> {
    let (mut blocks, mut bad) = (Vec::new(), 0);
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("tmp") => fs::remove_file(&path).map_err(Error::io(&path))?,
            Some("blk") => match Block::open(path.clone()) {
                Ok(b) => blocks.push(Arc::new(b)),
                Err(e @ Error::Damaged { .. }) => {
                    // One bad file must not take all the others out of service.
                    let kept = path.with_extension("bad");
                    tracing::error!(error = %e, kept_in = %kept.display(), "a block was set aside");
                    fs::rename(&path, &kept).map_err(Error::io(&kept))?;
                    bad += 1;
                }
                Err(e) => return Err(e),
            },
            _ => {}
        }
    }
    let void: Vec<u64> = blocks.iter().flat_map(|b| b.meta.sources.clone()).collect();
    for b in blocks.extract_if(.., |b| void.contains(&b.meta.seq)) {
        fs::remove_file(&b.path).map_err(Error::io(&b.path))?;
    }
    blocks.sort_by_key(|b| b.meta.order);
    Ok((blocks, bad))
}

#[cfg(test)]
mod tests;
