//! The head: live series in memory, each a few compressed runs of samples.
//!
//! A series costs its labels, one stream buffer and about 200 bytes. Runs of [`RUN`] samples are closed and
//! shared, so that a query copies at most one open run. Samples out of order wait in a short list of their own.
//! Native histograms and start times stand apart, in a box that few series have.

mod extra;

use std::collections::HashMap;
use std::sync::Arc;

use signal::{HistogramSample, Labels, Sample, stale_nan};

use crate::codec::{StreamState, decode_stream};
use crate::index::Postings;
pub(crate) use extra::{Extra, HistogramRun, Merged, starts_of};

/// Samples in a closed run: a query for the newest minutes decodes little, and the run's header costs little.
const RUN: u32 = 120;

#[derive(Default)]
pub(crate) struct Head {
    pub(crate) series: Vec<MemSeries>,
    by_labels: HashMap<Labels, u32, ahash::RandomState>,
    pub(crate) postings: Postings,
    /// Time range of the samples, if any.
    pub(crate) range: Option<(i64, i64)>,
    pub(crate) samples: u64,
    /// Bytes of sample data.
    pub(crate) bytes: usize,
}

pub(crate) struct MemSeries {
    pub(crate) labels: Labels,
    /// True once a synced log record defines the series.
    pub(crate) logged: bool,
    closed: Vec<Run>,
    open: Vec<u8>,
    open_min: i64,
    state: StreamState,
    /// Samples that were not newer than their predecessor, in order of arrival.
    late: Vec<Sample>,
    pub(crate) extra: Option<Box<Extra>>,
}

/// Samples in ascending order, compressed.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) min: i64,
    pub(crate) max: i64,
    count: u32,
    data: Arc<[u8]>,
}

impl Run {
    pub(crate) fn decode(&self, mut each: impl FnMut(Sample)) {
        decode_stream(&self.data, self.count, |timestamp, value| each(Sample { timestamp, value }))
            .expect("a run is written by this process and never leaves memory");
    }
}

impl Head {
    pub(crate) fn get_or_create(&mut self, labels: &Labels) -> u32 {
        if let Some(id) = self.by_labels.get(labels) {
            return *id;
        }
        let id = self.postings.add(labels);
        self.by_labels.insert(labels.clone(), id);
        self.series.push(MemSeries {
            labels: labels.clone(),
            logged: false,
            closed: Vec::new(),
            open: Vec::new(),
            open_min: 0,
            state: StreamState::default(),
            late: Vec::new(),
            extra: None,
        });
        id
    }

    pub(crate) fn has(&self, labels: &Labels) -> bool {
        self.by_labels.contains_key(labels)
    }

    pub(crate) fn find(&self, labels: &Labels) -> Option<u32> {
        self.by_labels.get(labels).copied()
    }

    pub(crate) fn insert(&mut self, id: u32, sample: Sample) {
        let Some(series) = self.series.get_mut(id as usize) else { return };
        self.bytes += series.insert(sample);
        self.samples += 1;
        self.reach(sample.timestamp);
    }

    pub(crate) fn insert_histogram(&mut self, id: u32, sample: HistogramSample) {
        let Some(series) = self.series.get_mut(id as usize) else { return };
        let t = sample.timestamp;
        let newest_float = series.newest().map(|(t, _)| t);
        self.bytes += series.extra.get_or_insert_default().insert(sample, newest_float);
        self.samples += 1;
        self.reach(t);
    }

    /// A start time holds for samples from its own time on, until another is told.
    pub(crate) fn insert_start(&mut self, id: u32, t: i64, start: i64) {
        let Some(series) = self.series.get_mut(id as usize) else { return };
        self.bytes += series.extra.get_or_insert_default().insert_start(t, start);
    }

    fn reach(&mut self, t: i64) {
        self.range = Some(self.range.map_or((t, t), |(a, b)| (a.min(t), b.max(t))));
    }
}

impl MemSeries {
    /// Gives back by how many bytes the series grew.
    fn insert(&mut self, s: Sample) -> usize {
        if let Some((t, v)) = self.newest() {
            // A late sample of the same time may stand for another value; then this one must win over it.
            if s.timestamp == t
                && s.value.to_bits() == v.to_bits()
                && !self.late.iter().any(|l| l.timestamp == t)
            {
                return 0;
            }
            if s.timestamp <= t {
                self.late.push(s);
                return size_of::<Sample>();
            }
        }
        let before = self.open.len();
        if self.state.count == 0 {
            self.open_min = s.timestamp;
        }
        self.state.push(&mut self.open, s.timestamp, s.value);
        let grown = self.open.len() - before;
        if self.state.count == RUN {
            let run = self.open_run();
            self.closed.push(run);
            self.open = Vec::new();
            self.state = StreamState::default();
        }
        grown
    }

    /// The newest sample that came in order.
    fn newest(&self) -> Option<(i64, f64)> {
        if self.state.count > 0 {
            return Some((self.state.last_t, self.state.last_v));
        }
        self.closed.last().map(|r| {
            let mut v = 0.0;
            r.decode(|s| v = s.value);
            (r.max, v)
        })
    }

    /// The newest sample's time and value, for closing a series.
    pub(crate) fn last(&self) -> Option<(i64, f64)> {
        let late = self.late.iter().map(|s| (s.timestamp, s.value)).max_by_key(|(t, _)| *t);
        let histogram = self.extra.as_ref().and_then(|e| e.newest());
        let histogram = histogram
            .map(|h| (h.timestamp, if h.histogram.is_stale() { stale_nan() } else { h.histogram.sum }));
        // Of equal times the later named wins.
        [self.newest(), late, histogram].into_iter().flatten().max_by_key(|(t, _)| *t)
    }

    fn open_run(&self) -> Run {
        Run {
            min: self.open_min,
            max: self.state.last_t,
            count: self.state.count,
            data: self.open.as_slice().into(),
        }
    }

    /// Runs and late samples that may lie in the range.
    pub(crate) fn read(&self, start: i64, end: i64) -> (Vec<Run>, Vec<Sample>) {
        let mut runs: Vec<Run> =
            self.closed.iter().filter(|r| r.max >= start && r.min <= end).cloned().collect();
        if self.state.count > 0 && self.state.last_t >= start && self.open_min <= end {
            runs.push(self.open_run());
        }
        let late = self.late.iter().filter(|s| s.timestamp >= start && s.timestamp <= end).copied().collect();
        (runs, late)
    }
}

/// Samples from several places made one ascending list; of equal times the one added last wins.
#[derive(Default)]
pub(crate) struct Merge {
    samples: Vec<Sample>,
    sorted: bool,
}

impl Merge {
    pub(crate) fn new() -> Self {
        Merge { samples: Vec::new(), sorted: true }
    }

    pub(crate) fn push(&mut self, s: Sample) {
        self.sorted &= self.samples.last().is_none_or(|l| l.timestamp < s.timestamp);
        self.samples.push(s);
    }

    pub(crate) fn finish(mut self) -> Vec<Sample> {
        if !self.sorted {
            // Stable, so that among equals the order of adding stays and the last can be kept.
            self.samples.sort_by_key(|s| s.timestamp);
            self.samples.dedup_by(|next, kept| {
                let same = next.timestamp == kept.timestamp;
                if same {
                    *kept = *next;
                }
                same
            });
        }
        self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn a_series_keeps_the_last_value_of_each_time(samples in proptest::collection::vec((0..300i64, any::<u64>()), 0..600)) {
            let mut head = Head::default();
            let id = head.get_or_create(&Labels::from_pairs([("a", "b")]));
            let mut model = BTreeMap::new();
            for (t, v) in samples {
                head.insert(id, Sample { timestamp: t, value: f64::from_bits(v) });
                model.insert(t, v);
            }
            let (runs, late) = head.series[0].read(i64::MIN, i64::MAX);
            let mut m = Merge::new();
            runs.iter().for_each(|r| r.decode(|s| m.push(s)));
            late.into_iter().for_each(|s| m.push(s));
            let got: Vec<_> = m.finish().into_iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
            prop_assert_eq!(got, model.into_iter().collect::<Vec<_>>());
        }
    }
}
