//! Samples of one series from several places made one ascending list; of equal times the one added last wins.

use std::sync::Arc;

use signal::HistogramSample;
use signal::histogram::ResetHint;

/// Floats, in columns of equal length.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    pub(crate) times: Vec<i64>,
    pub(crate) values: Vec<f64>,
    unsorted: bool,
}

impl Columns {
    pub(crate) fn push(&mut self, time: i64, value: f64) {
        self.unsorted |= self.times.last().is_some_and(|l| *l >= time);
        self.times.push(time);
        self.values.push(value);
    }

    /// Adds samples in ascending order of time.
    pub(crate) fn extend(&mut self, times: &[i64], values: &[f64]) {
        self.unsorted |= matches!((self.times.last(), times.first()), (Some(l), Some(f)) if l >= f);
        self.times.extend_from_slice(times);
        self.values.extend_from_slice(values);
    }

    /// Brings the samples in order.
    pub(crate) fn settle(&mut self) {
        if !std::mem::take(&mut self.unsorted) {
            return;
        }
        let mut all: Vec<(i64, f64)> = self.times.drain(..).zip(self.values.drain(..)).collect();
        // Stable, so that among equals the order of adding stays and the last can be kept.
        all.sort_by_key(|(t, _)| *t);
        for (t, v) in all {
            match (self.times.last(), self.values.last_mut()) {
                (Some(last), Some(kept)) if *last == t => *kept = v,
                _ => {
                    self.times.push(t);
                    self.values.push(v);
                }
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.unsorted = false;
    }
}

/// Histograms and start times.
#[derive(Default)]
pub(crate) struct Extras {
    histograms: Vec<HistogramSample>,
    starts: Vec<(i64, i64)>,
}

impl Extras {
    pub(crate) fn push(&mut self, s: HistogramSample) {
        self.histograms.push(s);
    }

    pub(crate) fn push_starts(&mut self, starts: &[(i64, i64)]) {
        self.starts.extend_from_slice(starts);
    }

    /// Histograms in order, and what start holds from which time on.
    pub(crate) fn finish(mut self) -> (Vec<HistogramSample>, Vec<(i64, i64)>) {
        let h = &mut self.histograms;
        if h.windows(2).any(|w| matches!(w, [a, b] if b.timestamp <= a.timestamp)) {
            // Stable, so that among equals the order of adding stays and the last can be kept.
            h.sort_by_key(|s| s.timestamp);
            h.dedup_by(|next, kept| {
                let same = next.timestamp == kept.timestamp;
                if same {
                    std::mem::swap(kept, next);
                }
                same
            });
            // Something may have come in between: nobody knows what follows what.
            for s in h.iter_mut().filter(|s| s.histogram.hint == ResetHint::NotReset) {
                Arc::make_mut(&mut s.histogram).hint = ResetHint::Unknown;
            }
        }
        let s = &mut self.starts;
        if s.windows(2).any(|w| matches!(w, [a, b] if b.0 <= a.0)) {
            s.sort_by_key(|(t, _)| *t);
            s.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                if same {
                    *kept = *next;
                }
                same
            });
        }
        (self.histograms, self.starts)
    }
}

/// The start time of each sample time; empty if none is known.
pub(crate) fn starts_of(times: &[i64], starts: &[(i64, i64)]) -> Vec<i64> {
    if starts.iter().all(|(_, s)| *s == 0) {
        return Vec::new();
    }
    let mut at = 0;
    let mut holds = 0;
    let all = times.iter().map(|t| {
        while let Some((_, s)) = starts.get(at).filter(|(x, _)| x <= t) {
            holds = *s;
            at += 1;
        }
        holds
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn the_last_value_of_each_time_stays(samples in proptest::collection::vec((0..50i64, any::<u64>()), 0..100)) {
            let (mut columns, mut model) = (Columns::default(), BTreeMap::new());
            for (t, v) in samples {
                columns.push(t, f64::from_bits(v));
                model.insert(t, v);
            }
            columns.settle();
            let got: Vec<(i64, u64)> =
                columns.times.iter().copied().zip(columns.values.iter().map(|v| v.to_bits())).collect();
            prop_assert_eq!(got, model.into_iter().collect::<Vec<_>>());
        }
    }
}
