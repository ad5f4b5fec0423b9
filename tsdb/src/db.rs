//! The database: opening, appending, closing series, facts about itself, and its one task.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use signal::{
    Accepted, Exemplar, HistogramSeries, Labels, Matcher, Metadata, MetricBatch, SinkError, StartTimes,
    TimeSeries, stale_nan,
};
use tokio_util::sync::CancellationToken;
use wal::Wal;

use crate::block::Block;
use crate::config::Config;
use crate::error::{Error, sink_error};
use crate::exemplars::Exemplars;
use crate::head::Head;
use crate::record::Record;

/// Families whose metadata is kept; more are counted by nobody and would be a leak.
const FAMILIES: usize = 20_000;
/// How often the task looks whether there is something to flush, merge or drop.
const TICK: Duration = Duration::from_secs(30);
const OUT_OF_BOUNDS: &str = "samples too old or too far in the future";

pub struct Tsdb {
    pub(crate) config: Config,
    pub(crate) wal: Wal,
    pub(crate) state: RwLock<State>,
    /// See the crate's front page.
    pub(crate) gate: tokio::sync::RwLock<()>,
    /// Held while an append numbers its series and queues its record; taken before `state`.
    order: Mutex<()>,
    /// Held by a flush or a merge: one at a time.
    pub(crate) maintenance: tokio::sync::Mutex<()>,
    metadata: Mutex<BTreeMap<String, Metadata>>,
    exemplars: Mutex<Exemplars>,
    seq: AtomicU64,
    /// The newest sample ever taken; the out-of-order window hangs from it.
    newest: std::sync::atomic::AtomicI64,
    wake: tokio::sync::Notify,
    counters: Counters,
}

pub(crate) struct State {
    pub(crate) head: Head,
    /// When the head's first sample came, in milliseconds of the clock: samples' own times may be older.
    head_since: i64,
    /// A head that is being written to a block.
    pub(crate) frozen: Option<Arc<Head>>,
    /// The log below this segment belongs to `frozen`.
    pub(crate) frozen_segment: u64,
    /// In ascending order of `meta.order`.
    pub(crate) blocks: Vec<Arc<Block>>,
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    rejected: AtomicU64,
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
}

impl Tsdb {
    /// Opens or makes the database and reads its log back.
    pub fn open(config: Config) -> Result<Arc<Tsdb>, Error> {
        fs::create_dir_all(&config.dir).map_err(Error::io(&config.dir))?;
        let blocks = open_blocks(&config.dir)?;
        let mut head = Head::default();
        let mut metadata = load_metadata(&config.dir)?;
        let mut ids: HashMap<u32, u32> = HashMap::new();
        let mut exemplars = Exemplars::default();
        let (mut unreadable, mut unknown) = (0u64, 0u64);
        let wal_config = wal::Config { sync: config.sync, ..wal::Config::new(config.dir.join("wal")) };
        let (wal, found) = Wal::open(wal_config, |_, frame| {
            let Some(record) = Record::decode(frame) else {
                unreadable += 1;
                return;
            };
            for (id, labels) in &record.series {
                ids.insert(*id, head.get_or_create(labels));
            }
            for m in record.metadata {
                metadata.insert(m.family.clone(), m);
            }
            for (id, samples) in record.samples {
                match ids.get(&id) {
                    Some(id) => samples.into_iter().for_each(|s| head.insert(*id, s)),
                    None => unknown += samples.len() as u64,
                }
            }
            for (id, samples) in record.histograms {
                match ids.get(&id) {
                    Some(id) => samples.into_iter().for_each(|s| head.insert_histogram(*id, s)),
                    None => unknown += samples.len() as u64,
                }
            }
            for (id, times) in record.starts {
                if let Some(id) = ids.get(&id) {
                    times.into_iter().for_each(|(t, start)| head.insert_start(*id, t, start));
                }
            }
            record.exemplars.into_iter().for_each(|e| exemplars.push(e));
        })?;
        if unreadable + unknown > 0 || !found.damage.is_empty() {
            tracing::error!(
                unreadable,
                unknown,
                damaged = found.damage.len(),
                "part of the metrics log was lost"
            );
        }
        tracing::info!(
            frames = found.frames,
            samples = head.samples,
            blocks = blocks.len(),
            "metrics opened"
        );
        let now = config.clock.now().millis();
        let newest = blocks.iter().map(|b| b.meta.max).chain(head.range.map(|(_, max)| max)).max();
        let seq = blocks.iter().map(|b| b.meta.seq.max(b.meta.order)).max().unwrap_or(0);
        Ok(Arc::new(Tsdb {
            config,
            wal,
            state: RwLock::new(State { head, head_since: now, frozen: None, frozen_segment: 0, blocks }),
            gate: tokio::sync::RwLock::new(()),
            order: Mutex::new(()),
            maintenance: tokio::sync::Mutex::new(()),
            metadata: Mutex::new(metadata),
            exemplars: Mutex::new(exemplars),
            seq: AtomicU64::new(seq),
            newest: std::sync::atomic::AtomicI64::new(newest.unwrap_or(i64::MIN)),
            wake: tokio::sync::Notify::new(),
            counters: Counters::default(),
        }))
    }

    /// Returns once the samples are in the synced log and can be queried. Samples outside the time window and
    /// series over the limit are counted as rejected; the rest is taken.
    pub async fn append(&self, batch: MetricBatch) -> Result<Accepted, SinkError> {
        let _gate = self.gate.read().await;
        let now = self.config.clock.now();
        let latest = now.saturating_add(self.config.future).millis();
        let window = i64::try_from(self.config.out_of_order.as_millis()).unwrap_or(i64::MAX);
        let mut result = Accepted::default();
        let mut record = Record { metadata: self.new_metadata(batch.metadata), ..Record::default() };
        let pending = {
            // Records stand in the log in the order in which series got their numbers. Queries need only wait for
            // the numbers, not for the packing.
            let _order = self.order.lock();
            let mut state = self.state.write();
            let head = &mut state.head;
            let fits = |timestamp: i64, newest: &mut i64| {
                let fits = timestamp <= latest && timestamp >= newest.saturating_sub(window);
                if fits {
                    *newest = timestamp.max(*newest);
                }
                fits
            };
            for TimeSeries { labels, mut samples } in batch.series {
                let before = samples.len();
                let mut newest = self.newest.load(Ordering::Relaxed);
                samples.retain(|s| fits(s.timestamp, &mut newest));
                if before > samples.len() {
                    result.reject(before - samples.len(), OUT_OF_BOUNDS);
                }
                let n = samples.len();
                if let Some(id) = self.admit(head, &labels, n, newest, &mut record, &mut result) {
                    record.samples.push((id, samples));
                }
            }
            for HistogramSeries { labels, mut samples } in batch.histograms {
                let before = samples.len();
                let mut newest = self.newest.load(Ordering::Relaxed);
                samples.retain(|s| fits(s.timestamp, &mut newest));
                if before > samples.len() {
                    result.reject(before - samples.len(), OUT_OF_BOUNDS);
                }
                let valid = samples.len();
                samples.retain(|s| s.histogram.is_stale() || s.histogram.validate().is_ok());
                if valid > samples.len() {
                    result.reject(valid - samples.len(), "a histogram that contradicts itself");
                }
                let n = samples.len();
                if let Some(id) = self.admit(head, &labels, n, newest, &mut record, &mut result) {
                    record.histograms.push((id, samples));
                }
            }
            for StartTimes { labels, times } in batch.starts {
                // Series that were refused have none.
                if let Some(id) = head.find(&labels) {
                    record.starts.push((id, times));
                }
            }
            record.exemplars = batch.exemplars.into_iter().filter(|e| head.has(&e.series)).collect();
            drop(state);
            self.counters.rejected.fetch_add(result.rejected as u64, Ordering::Relaxed);
            if record == Record::default() {
                return Ok(result);
            }
            self.wal.enqueue(record.encode()).map_err(sink_error)?
        };
        pending.await.map_err(sink_error)?;
        let mut state = self.state.write();
        if state.head.samples == 0 {
            state.head_since = now.millis();
        }
        let head = &mut state.head;
        for (id, _) in &record.series {
            if let Some(s) = head.series.get_mut(*id as usize) {
                s.logged = true;
            }
        }
        for (id, samples) in record.samples {
            samples.into_iter().for_each(|s| head.insert(id, s));
        }
        for (id, samples) in record.histograms {
            samples.into_iter().for_each(|s| head.insert_histogram(id, s));
        }
        for (id, times) in record.starts {
            times.into_iter().for_each(|(t, start)| head.insert_start(id, t, start));
        }
        let full = head.bytes >= self.config.head_bytes;
        drop(state);
        self.counters.accepted.fetch_add(result.accepted as u64, Ordering::Relaxed);
        self.metadata.lock().extend(record.metadata.into_iter().map(|m| (m.family.clone(), m)));
        if !record.exemplars.is_empty() {
            let mut kept = self.exemplars.lock();
            record.exemplars.into_iter().for_each(|e| kept.push(e));
        }
        if full {
            self.wake.notify_one();
        }
        Ok(result)
    }

    /// The number of the series that `n` samples go to, if they may be taken.
    fn admit(
        &self,
        head: &mut Head,
        labels: &Labels,
        n: usize,
        newest: i64,
        record: &mut Record,
        result: &mut Accepted,
    ) -> Option<u32> {
        if n == 0 {
            return None;
        }
        if labels.is_empty() {
            result.reject(n, "a series without labels");
            return None;
        }
        if head.series.len() >= self.config.series_limit && !head.has(labels) {
            result.reject(n, "too many live series");
            return None;
        }
        self.newest.fetch_max(newest, Ordering::Relaxed);
        let id = head.get_or_create(labels);
        // A series is defined in every record until one that defines it is known to be synced:
        // then no order of failures leaves samples without a definition.
        if head.series.get(id as usize).is_some_and(|s| !s.logged) {
            record.series.push((id, labels.clone()));
        }
        result.accepted += n;
        Some(id)
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
            let mut last: BTreeMap<Labels, (i64, f64)> = BTreeMap::new();
            // A head that is being flushed may hold the last samples of a series; the newer head has the last word.
            for head in state.frozen.as_deref().into_iter().chain([&state.head]) {
                for series in
                    head.postings.select(matchers).into_iter().filter_map(|i| head.series.get(i as usize))
                {
                    last.extend(series.last().map(|l| (series.labels.clone(), l)));
                }
            }
            for (labels, (t, _)) in last.into_iter().filter(|(_, (_, v))| !signal::is_stale_nan(*v)) {
                batch.push(labels, now.max(t + 1), stale_nan());
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

    pub fn stats(&self) -> Stats {
        let state = self.state.read();
        let (min, max) = state.head.range.unwrap_or((0, 0));
        let top = |mut v: Vec<(String, u64)>| {
            v.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            v.truncate(10);
            v
        };
        Stats {
            series: state.head.series.len() as u64,
            head_samples: state.head.samples,
            head_bytes: state.head.bytes as u64,
            head_min_time: min,
            head_max_time: max,
            blocks: state.blocks.len() as u64,
            block_bytes: state.blocks.iter().map(|b| b.bytes).sum(),
            block_samples: state.blocks.iter().map(|b| b.meta.samples).sum(),
            wal: self.wal.stats(),
            samples_accepted: self.counters.accepted.load(Ordering::Relaxed),
            samples_rejected: self.counters.rejected.load(Ordering::Relaxed),
            series_by_metric: top(state
                .head
                .postings
                .value_counts(signal::METRIC_NAME)
                .map(|(v, n)| (v.to_owned(), n))
                .collect()),
            values_by_label: top(state
                .head
                .postings
                .name_counts()
                .map(|(n, v)| (n.to_owned(), v as u64))
                .collect()),
        }
    }

    /// Flushes, merges and drops until told to stop. The log keeps the head over a stop, so that ending is quick.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
                () = self.wake.notified() => {}
            }
            let due = {
                let state = self.state.read();
                let now = self.config.clock.now().millis();
                let age = if state.head.samples == 0 { 0 } else { now.saturating_sub(state.head_since) };
                state.frozen.is_some()
                    || state.head.bytes >= self.config.head_bytes
                    || u128::try_from(age).unwrap_or(0) >= self.config.head_span.as_millis()
            };
            if due && let Err(e) = self.flush().await {
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

trait Reject {
    fn reject(&mut self, n: usize, why: &str);
}

impl Reject for Accepted {
    fn reject(&mut self, n: usize, why: &str) {
        self.rejected += n;
        self.reason.get_or_insert_with(|| why.to_owned());
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
fn open_blocks(dir: &std::path::Path) -> Result<Vec<Arc<Block>>, Error> {
    let mut blocks = Vec::new();
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
    Ok(blocks)
}

#[cfg(test)]
mod tests;
