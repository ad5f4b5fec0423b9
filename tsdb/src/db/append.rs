//! Appending: admit, write to the log, wait, make visible.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use signal::{
    Accepted, HistogramSeries, Labels, Matcher, MetricBatch, Sample, SinkError, StartTimes, TimeSeries,
};

use super::{State, Tsdb};
use crate::error::sink_error;
use crate::head::{Head, NAMESPACE};
use crate::key::Key;
use crate::limits::Ask;
use crate::record::{Floats, Record};

/// How long the list of a namespace's largest metrics holds.
const OFFENDERS_HOLD: Duration = Duration::from_secs(5);

/// Why samples are refused, as our metrics name it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    TooOld,
    TooNew,
    Invalid,
    SeriesLimit,
    Rate,
}

impl Refusal {
    pub(super) const ALL: [(Refusal, &str); 5] = [
        (Refusal::TooOld, "too_old"),
        (Refusal::TooNew, "too_new"),
        (Refusal::Invalid, "invalid"),
        (Refusal::SeriesLimit, "series_limit"),
        (Refusal::Rate, "rate_limit"),
    ];

    /// In Prometheus' words where it has some.
    fn words(self) -> &'static str {
        match self {
            Refusal::TooOld => {
                "too old sample: older than the out-of-order window of its series, or than the retention"
            }
            Refusal::TooNew => "out of bounds: samples too far in the future",
            Refusal::Invalid => "invalid sample",
            Refusal::SeriesLimit => "too many live series",
            Refusal::Rate => "rate limit",
        }
    }
}

/// What becomes of a batch, with refusals by reason.
#[derive(Default)]
pub(super) struct Tally {
    done: Accepted,
    refused: [u64; Refusal::ALL.len()],
}

impl Tally {
    fn refuse(&mut self, n: usize, why: Refusal) {
        self.refuse_for(n, why, || why.words().to_owned());
    }

    fn refuse_for(&mut self, n: usize, why: Refusal, words: impl FnOnce() -> String) {
        self.done.rejected += n;
        self.refused[why as usize] += n as u64;
        self.done.reason.get_or_insert_with(words);
    }
}

/// Floats of many series in columns, each series named by the key of whatever bytes its sender names it with.
#[derive(Debug, Default)]
pub struct Columns {
    /// Key, and how many of `samples` are the series'.
    pub series: Vec<(Key, u32)>,
    /// One series after the other; each in order of time.
    pub samples: Vec<Sample>,
}

impl Columns {
    /// Room stays for the next batch.
    pub fn clear(&mut self) {
        self.series.clear();
        self.samples.clear();
    }
}

/// Times between which samples are taken.
#[derive(Clone, Copy)]
struct Bounds {
    /// Of series that have no newer sample.
    oldest: i64,
    latest: i64,
    /// How far behind its series' newest sample one may be.
    window: i64,
}

/// An append on its way to the log. Its anchors are given up if it does not come through, also when its future is
/// dropped; the gate must outlive it.
struct UnderWay<'a> {
    db: &'a Tsdb,
    record: Record,
    floats: Floats,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.floats.anchors.is_empty() {
            return;
        }
        let mut state = self.db.state.write();
        for (id, _) in &self.floats.anchors {
            if let Some(s) = state.head.series.get_mut(*id as usize) {
                s.anchor.give_up();
            }
        }
    }
}

impl Tsdb {
    /// Returns once the samples are in the log and can be queried. Samples outside the time window and series over
    /// the limit are counted as rejected; the rest is taken.
    pub async fn append(&self, batch: MetricBatch) -> Result<Accepted, SinkError> {
        let _gate = self.gate.read().await;
        let bounds = self.bounds();
        let mut result = Tally::default();
        let mut record = Record { metadata: self.new_metadata(batch.metadata), ..Record::default() };
        let (pending, mut under_way) = {
            let _order = self.order.lock();
            let mut state = self.state.write();
            let head = &mut state.head;
            if self.config.limits.rates() {
                let floats = batch.series.iter().map(|s| (&s.labels, s.samples.len()));
                let all = floats.chain(batch.histograms.iter().map(|s| (&s.labels, s.samples.len())));
                let asks = all.map(|(l, n)| (l.get(NAMESPACE).unwrap_or(""), n, head.find(l).is_none()));
                let asks = sum(asks);
                self.spend(head, &asks)?;
            }
            let mut floats = self.floats(batch.series.len(), batch.series.len());
            for TimeSeries { labels, samples } in &batch.series {
                if let Some(id) = self.number(head, labels, samples.len(), &mut result) {
                    define(head, id, &mut record);
                    admit(head, id, samples, bounds, &mut floats, &mut result);
                }
            }
            for HistogramSeries { labels, samples } in batch.histograms {
                if let Some(id) = self.number(head, &labels, samples.len(), &mut result) {
                    define(head, id, &mut record);
                    let newest = head.series.get(id as usize).map_or(i64::MIN, |s| s.newest);
                    let kept = admit_histograms(newest, samples, bounds, &mut result);
                    record.histograms.push((id, kept));
                }
            }
            for StartTimes { labels, times } in batch.starts {
                // Series that were refused have none.
                if let Some(id) = head.find(&labels) {
                    record.starts.push((id, times));
                }
            }
            record.exemplars =
                batch.exemplars.into_iter().filter(|e| head.find(&e.series).is_some()).collect();
            drop(state);
            self.counters.refuse(&result.refused);
            if record.is_empty() && floats.series.is_empty() {
                return Ok(result.done);
            }
            self.send(record, floats)?
        };
        pending.await.map_err(sink_error)?;
        self.show(&mut under_way);
        self.counters.accepted.fetch_add(result.done.accepted as u64, Ordering::Relaxed);
        Ok(result.done)
    }

    /// As [`Tsdb::append`], for floats whose series were most likely named by the same bytes before. `labels` tells,
    /// by the place in `columns.series`, what those of an unknown key say, or why they are refused.
    pub async fn append_columns(
        &self,
        columns: &Columns,
        labels: impl Fn(usize) -> Result<Labels, String>,
    ) -> Result<Accepted, SinkError> {
        let _gate = self.gate.read().await;
        let bounds = self.bounds();
        let mut result = Tally::default();
        let (mut ids, unknown) = self.known(columns);
        // Reading labels takes its time: not under a lock.
        let unknown: Vec<(usize, Result<Labels, String>)> =
            unknown.into_iter().map(|i| (i, labels(i))).collect();
        let mut record = Record::default();
        let (pending, mut under_way) = {
            let _order = self.order.lock();
            let mut state = self.state.write();
            let head = &mut state.head;
            if self.config.limits.rates() {
                let known = columns.series.iter().zip(&ids).filter_map(|((_, n), id)| {
                    let s = head.series.get((*id)? as usize)?;
                    Some((head.namespaces.name(s.namespace), *n as usize, false))
                });
                let opened = unknown.iter().filter_map(|(i, labels)| {
                    let (labels, (_, n)) = (labels.as_ref().ok()?, columns.series.get(*i)?);
                    Some((labels.get(NAMESPACE).unwrap_or(""), *n as usize, head.find(labels).is_none()))
                });
                let asks = sum(known.chain(opened));
                self.spend(head, &asks)?;
            }
            let mut floats = self.floats(columns.series.len(), columns.samples.len());
            for (i, labels) in unknown {
                let Some((key, n)) = columns.series.get(i).copied() else { continue };
                match labels {
                    Ok(labels) => {
                        let id = self.number(head, &labels, n as usize, &mut result);
                        if let (Some(id), Some(slot)) = (id, ids.get_mut(i)) {
                            *slot = Some(id);
                            head.set_key(id, key);
                        }
                    }
                    Err(why) => result.refuse_for(n as usize, Refusal::Invalid, || why),
                }
            }
            let mut rest = columns.samples.as_slice();
            for ((_, n), id) in columns.series.iter().zip(&ids) {
                let Some((samples, others)) = rest.split_at_checked(*n as usize) else { break };
                rest = others;
                let Some(id) = *id else { continue };
                define(head, id, &mut record);
                admit(head, id, samples, bounds, &mut floats, &mut result);
            }
            drop(state);
            self.counters.refuse(&result.refused);
            if floats.series.is_empty() {
                return Ok(result.done);
            }
            self.send(record, floats)?
        };
        pending.await.map_err(sink_error)?;
        self.show(&mut under_way);
        self.counters.accepted.fetch_add(result.done.accepted as u64, Ordering::Relaxed);
        Ok(result.done)
    }

    /// Numbers of the series that are known by their keys, and the places of those that are not.
    fn known(&self, columns: &Columns) -> (Vec<Option<u32>>, Vec<usize>) {
        let state = self.state.read();
        let ids: Vec<Option<u32>> = columns.series.iter().map(|(key, _)| state.head.find_key(*key)).collect();
        let unknown = ids.iter().enumerate().filter(|(_, id)| id.is_none()).map(|(i, _)| i).collect();
        (ids, unknown)
    }

    fn bounds(&self) -> Bounds {
        let now = self.config.clock.now();
        let millis = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        Bounds {
            oldest: now.millis().saturating_sub(millis(self.config.retention)),
            latest: now.saturating_add(self.config.future).millis(),
            window: millis(self.config.out_of_order),
        }
    }

    /// Called under `order`, so that records stand in the log in the order of their numbers.
    fn floats(&self, series: usize, samples: usize) -> Floats {
        let mut record = self.record.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if record == 0 {
            record = self.record.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        }
        Floats::new(record, series, samples)
    }

    fn send(&self, record: Record, floats: Floats) -> Result<(wal::Pending, UnderWay<'_>), SinkError> {
        let under_way = UnderWay { db: self, record, floats };
        let pending = self.wal.enqueue(under_way.record.encode(&under_way.floats)).map_err(sink_error)?;
        Ok((pending, under_way))
    }

    /// The number of the series that `n` samples go to, if they may be taken.
    fn number(&self, head: &mut Head, labels: &Labels, n: usize, result: &mut Tally) -> Option<u32> {
        if n == 0 {
            return None;
        }
        if labels.is_empty() {
            result.refuse_for(n, Refusal::Invalid, || "a series without labels".to_owned());
            return None;
        }
        let id = match head.find(labels) {
            Some(id) => id,
            None if head.len() >= self.config.series_limit => {
                result.refuse(n, Refusal::SeriesLimit);
                return None;
            }
            None if head.namespaces.is_full(labels.get(NAMESPACE).unwrap_or(""), &self.config.limits) => {
                let namespace = labels.get(NAMESPACE).unwrap_or("");
                result.refuse_for(n, Refusal::SeriesLimit, || {
                    let limit = self.config.limits.series;
                    format!(
                        "namespace {namespace:?} has its limit of {limit} live series{}",
                        self.offenders(head, namespace)
                    )
                });
                return None;
            }
            None => head.get_or_create(labels),
        };
        Some(id)
    }

    /// Takes what a batch asks from its namespaces' rates, or refuses all of it.
    fn spend(&self, head: &mut Head, asks: &BTreeMap<String, Ask>) -> Result<(), SinkError> {
        let asks = asks.iter().map(|(name, ask)| (name.as_str(), *ask));
        let now = self.config.clock.monotonic().saturating_duration_since(self.started);
        head.namespaces.take(asks.clone(), &self.config.limits, now).map_err(|e| {
            let refused: u64 = asks.map(|(_, ask)| ask.samples).sum();
            self.counters.refused[Refusal::Rate as usize].fetch_add(refused, Ordering::Relaxed);
            let what = format!(
                "namespace {:?} is over its limit of {}{}",
                e.namespace,
                e.limit,
                self.offenders(head, &e.namespace)
            );
            SinkError::Overloaded { what: what.into(), retry_after: e.wait }
        })
    }

    /// Which metrics have the most series of a namespace, in words that end an error. Looking takes a while: what was
    /// found holds for some seconds.
    fn offenders(&self, head: &Head, namespace: &str) -> String {
        let now = self.config.clock.monotonic();
        let mut found = self.offenders.lock();
        if let Some((name, at, words)) = &*found
            && name == namespace
            && now.saturating_duration_since(*at) < OFFENDERS_HOLD
        {
            return words.clone();
        }
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for id in head.postings.select(&[Matcher::equal(NAMESPACE, namespace)]) {
            if let Some(s) = head.series.get(id as usize) {
                *counts.entry(s.labels.metric_name()).or_default() += 1;
            }
        }
        let mut top: Vec<(&str, u64)> = counts.into_iter().collect();
        top.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        top.truncate(3);
        let list: Vec<String> = top.iter().map(|(name, n)| format!("{name} with {n}")).collect();
        let words =
            if list.is_empty() { String::new() } else { format!("; most series have {}", list.join(", ")) };
        *found = Some((namespace.to_owned(), now, words.clone()));
        words
    }

    /// Makes visible what is in the log now.
    fn show(&self, under_way: &mut UnderWay<'_>) {
        let record = std::mem::take(&mut under_way.record);
        let floats = std::mem::take(&mut under_way.floats);
        let mut guard = self.state.write();
        let State { head, head_since, .. } = &mut *guard;
        if head.samples == 0 {
            *head_since = self.config.clock.now().millis();
        }
        for (id, _) in &record.series {
            if let Some(s) = head.series.get_mut(*id as usize) {
                s.logged = true;
            }
        }
        for (id, value) in &floats.anchors {
            if let Some(s) = head.series.get_mut(*id as usize) {
                s.anchor.confirm(floats.record, *value);
            }
        }
        let mut rest = floats.samples.as_slice();
        for (id, n) in &floats.series {
            let Some((samples, others)) = rest.split_at_checked(*n as usize) else { break };
            rest = others;
            samples.iter().for_each(|s| head.insert(*id, *s));
        }
        for (id, samples) in record.histograms {
            samples.into_iter().for_each(|s| head.insert_histogram(id, s));
        }
        for (id, times) in record.starts {
            times.into_iter().for_each(|(t, start)| head.insert_start(id, t, start));
        }
        let newest = head.range.map_or(i64::MIN, |(_, max)| max);
        let due = self.is_full(head) || head.dead >= super::DEAD;
        drop(guard);
        self.newest.fetch_max(newest, Ordering::Relaxed);
        if !record.metadata.is_empty() {
            self.metadata.lock().extend(record.metadata.into_iter().map(|m| (m.family.clone(), m)));
        }
        if !record.exemplars.is_empty() {
            let mut kept = self.exemplars.lock();
            record.exemplars.into_iter().for_each(|e| kept.push(e));
        }
        if due {
            self.wake.notify_one();
        }
    }
}

/// What is asked of each namespace: `(namespace, samples, opens a series)`.
fn sum<'a>(all: impl Iterator<Item = (&'a str, usize, bool)>) -> BTreeMap<String, Ask> {
    let mut asks: BTreeMap<String, Ask> = BTreeMap::new();
    for (name, samples, new) in all {
        if !asks.contains_key(name) {
            asks.insert(name.to_owned(), Ask::default());
        }
        if let Some(ask) = asks.get_mut(name) {
            ask.samples += samples as u64;
            ask.new_series += u64::from(new);
        }
    }
    asks
}

/// A series is defined in every record until one that defines it is known to be synced: then no order of failures
/// leaves samples without a definition.
#[inline]
fn define(head: &Head, id: u32, record: &mut Record) {
    if let Some(s) = head.series.get(id as usize)
        && !s.logged
    {
        record.series.push((id, s.labels.clone()));
    }
}

/// Takes those of the samples that lie in the bounds.
#[inline]
fn admit(
    head: &mut Head,
    id: u32,
    samples: &[Sample],
    bounds: Bounds,
    floats: &mut Floats,
    result: &mut Tally,
) {
    let Some(series) = head.series.get_mut(id as usize) else { return };
    if let [s] = samples
        && s.timestamp > series.newest
        && s.timestamp <= bounds.latest
        && s.timestamp >= bounds.oldest
    {
        floats.push(id, &mut series.anchor, samples);
        result.done.accepted += 1;
        return;
    }
    let mut newest = series.newest;
    let kept: Vec<Sample> = samples
        .iter()
        .copied()
        .filter(|s| match fits(s.timestamp, &mut newest, bounds) {
            Ok(()) => true,
            Err(why) => {
                result.refuse(1, why);
                false
            }
        })
        .collect();
    result.done.accepted += kept.len();
    floats.push(id, &mut series.anchor, &kept);
}

/// As Prometheus' `out_of_order_time_window` has it, but for each series by itself: what is newer than the series'
/// newest sample is in order, and what is older may be so by the window.
fn fits(timestamp: i64, newest: &mut i64, bounds: Bounds) -> Result<(), Refusal> {
    if timestamp > bounds.latest {
        return Err(Refusal::TooNew);
    }
    if timestamp < bounds.oldest || timestamp < newest.saturating_sub(bounds.window) {
        return Err(Refusal::TooOld);
    }
    *newest = timestamp.max(*newest);
    Ok(())
}

fn admit_histograms(
    mut newest: i64,
    mut samples: Vec<signal::HistogramSample>,
    bounds: Bounds,
    result: &mut Tally,
) -> Vec<signal::HistogramSample> {
    samples.retain(|s| match fits(s.timestamp, &mut newest, bounds) {
        Ok(()) if s.histogram.is_stale() || s.histogram.validate().is_ok() => true,
        Ok(()) => {
            result.refuse_for(1, Refusal::Invalid, || "a histogram that contradicts itself".to_owned());
            false
        }
        Err(why) => {
            result.refuse(1, why);
            false
        }
    });
    result.done.accepted += samples.len();
    samples
}
