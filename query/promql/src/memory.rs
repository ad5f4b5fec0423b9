//! Series in memory: the source of test scripts, and of anyone who wants PromQL over a few series.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use signal::{
    FloatHistogram, HistogramSample, Labels, Select, Selected, SeriesColumns, SeriesIter, SeriesSource,
    SourceError,
};

#[derive(Clone, Debug, Default)]
pub struct MemorySeries {
    series: BTreeMap<Labels, Samples>,
}

#[derive(Clone, Debug, Default)]
struct Samples {
    t: Vec<i64>,
    v: Vec<f64>,
    /// Start times of the floats; empty while none is known.
    starts: Vec<i64>,
    h: Vec<HistogramSample>,
}

impl MemorySeries {
    /// Adds a sample; of two of the same time the last stays.
    pub fn push(&mut self, labels: &Labels, timestamp: i64, value: f64) {
        self.push_started(labels, timestamp, value, 0);
    }

    /// Adds a sample with the time its counting began; 0 if that is not known.
    pub fn push_started(&mut self, labels: &Labels, timestamp: i64, value: f64, start: i64) {
        let s = self.series.entry(labels.clone()).or_default();
        if start != 0 && s.starts.is_empty() {
            s.starts = vec![0; s.t.len()];
        }
        let tracked = !s.starts.is_empty() || start != 0;
        match s.t.binary_search(&timestamp) {
            Ok(at) => {
                s.v[at] = value;
                if tracked {
                    s.starts[at] = start;
                }
            }
            Err(at) => {
                s.t.insert(at, timestamp);
                s.v.insert(at, value);
                if tracked {
                    s.starts.insert(at, start);
                }
            }
        }
    }

    /// Adds a native histogram. What it says of resets is turned into what a store could say of it.
    pub fn push_histogram(&mut self, labels: &Labels, timestamp: i64, mut h: FloatHistogram, start: i64) {
        let s = self.series.entry(labels.clone()).or_default();
        let at = s.h.partition_point(|x| x.timestamp < timestamp);
        let before = at.checked_sub(1).map(|i| &s.h[i]);
        let float_between =
            s.t.iter()
                .rev()
                .find(|t| **t < timestamp)
                .is_some_and(|t| before.is_none_or(|b| *t > b.timestamp));
        h.hint = h.stored_hint(before.filter(|_| !float_between).map(|b| &*b.histogram));
        let sample = HistogramSample { timestamp, start, histogram: Arc::new(h) };
        match s.h.get_mut(at) {
            Some(x) if x.timestamp == timestamp => *x = sample,
            _ => s.h.insert(at, sample),
        }
    }

    fn matching<'a>(&'a self, select: &Select) -> impl Iterator<Item = (&'a Labels, &'a Samples)> + use<'a> {
        let select = select.clone();
        self.series.iter().filter(move |(l, s)| {
            let inside = |t: i64| (select.start..=select.end).contains(&t);
            let first = s.t.partition_point(|t| *t < select.start);
            select.matchers.iter().all(|m| m.matches(l.get(&m.name).unwrap_or("")))
                && (s.t.get(first).is_some_and(|t| inside(*t)) || s.h.iter().any(|h| inside(h.timestamp)))
        })
    }
}

impl SeriesSource for MemorySeries {
    fn select_within<'a>(&'a self, select: &Select, _: usize) -> Result<Selected<'a>, SourceError> {
        let (start, end) = (select.start, select.end);
        // Nothing is held: series are looked at one by one.
        let series: SeriesIter<'a> = Box::new(self.matching(select).map(move |(labels, s)| {
            let range = s.t.partition_point(|t| *t < start)..s.t.partition_point(|t| *t <= end);
            let histograms = s.h.iter().filter(|h| (start..=end).contains(&h.timestamp));
            Ok(SeriesColumns {
                labels: labels.clone(),
                timestamps: Arc::new(s.t[range.clone()].to_vec()),
                values: s.v[range.clone()].to_vec(),
                starts: s.starts.get(range).unwrap_or(&[]).to_vec(),
                histograms: histograms.cloned().collect(),
            })
        }));
        Ok(Selected { series, count: 0, held: 0, labels: 0 })
    }

    fn series(&self, select: &Select) -> Result<Vec<Labels>, SourceError> {
        Ok(self.matching(select).map(|(l, _)| l.clone()).collect())
    }

    fn label_names(&self, select: &Select) -> Result<Vec<String>, SourceError> {
        let names: BTreeSet<&str> =
            self.matching(select).flat_map(|(l, _)| l.iter().map(|(n, _)| n)).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn label_values(&self, name: &str, select: &Select) -> Result<Vec<String>, SourceError> {
        let values: BTreeSet<&str> = self.matching(select).filter_map(|(l, _)| l.get(name)).collect();
        Ok(values.into_iter().map(str::to_owned).collect())
    }
}
