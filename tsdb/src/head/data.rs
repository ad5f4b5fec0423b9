//! Samples of one series in memory: an open run that grows, closed ones, and what came late.
//!
//! Runs of [`RUN`] samples are closed and shared, so that a query copies at most one open run. Samples out of
//! order wait in a short list of their own. Native histograms and start times stand apart, in a box that few have.

use std::sync::Arc;

use signal::Sample;

use super::extra::Extra;
use crate::codec::{StreamState, decode_stream};

/// Samples in a closed run: a query for the newest minutes decodes little, and the run's header costs little.
const RUN: u32 = 120;
/// The open run grows by this many bytes: doubling would leave a third of it empty.
const STEP: usize = 64;
/// The most bytes that one sample takes in a stream.
const SAMPLE: usize = 20;

#[derive(Default)]
pub(crate) struct Data {
    /// All by which the series grew.
    pub(super) bytes: u32,
    open: Vec<u8>,
    open_min: i64,
    state: StreamState,
    rest: Option<Box<Rest>>,
}

/// What a young series with floats in order has not.
#[derive(Default)]
struct Rest {
    closed: Vec<Run>,
    /// Samples that were not newer than their predecessor, in order of arrival.
    late: Vec<Sample>,
    extra: Option<Box<Extra>>,
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

impl Data {
    /// Gives back by how many bytes the series grew.
    #[inline]
    pub(super) fn insert(&mut self, s: Sample) -> usize {
        if self.state.count == 0 {
            if let Some(last) = self.rest.as_ref().and_then(|r| r.closed.last())
                && s.timestamp <= last.max
            {
                return self.insert_late(s);
            }
            self.open_min = s.timestamp;
        } else if s.timestamp <= self.state.last_t {
            return self.insert_late(s);
        }
        let before = self.open.len();
        if self.open.capacity() - before < SAMPLE {
            self.open.reserve_exact(STEP);
        }
        self.state.push(&mut self.open, s.timestamp, s.value);
        let grown = self.open.len() - before;
        if self.state.count == RUN {
            let run = self.open_run();
            let closed = &mut self.rest.get_or_insert_default().closed;
            if closed.len() == closed.capacity() {
                closed.reserve_exact(2);
            }
            closed.push(run);
            self.open.clear();
            self.open.shrink_to(STEP);
            self.state = StreamState::default();
        }
        grown
    }

    #[cold]
    fn insert_late(&mut self, s: Sample) -> usize {
        let newest = self.newest();
        let late = &mut self.rest.get_or_insert_default().late;
        // A late sample of the same time may stand for another value; then this one must win over it.
        if newest.is_some_and(|n| n.timestamp == s.timestamp && n.value.to_bits() == s.value.to_bits())
            && !late.iter().any(|l| l.timestamp == s.timestamp)
        {
            return 0;
        }
        late.push(s);
        size_of::<Sample>()
    }

    pub(super) fn extra(&mut self) -> &mut Extra {
        self.rest.get_or_insert_default().extra.get_or_insert_default()
    }

    pub(crate) fn extra_ref(&self) -> Option<&Extra> {
        self.rest.as_ref()?.extra.as_deref()
    }

    /// The newest sample that came in order.
    pub(super) fn newest(&self) -> Option<Sample> {
        if self.state.count > 0 {
            return Some(Sample { timestamp: self.state.last_t, value: self.state.last_v });
        }
        let mut last = None;
        self.rest.as_ref()?.closed.last()?.decode(|s| last = Some(s));
        last
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.count == 0 && self.rest.is_none()
    }

    /// Floats, those told twice counted twice.
    pub(super) fn samples(&self) -> u64 {
        let rest = self.rest.as_ref().map_or(0, |r| {
            r.late.len() as u64 + r.closed.iter().map(|run| u64::from(run.count)).sum::<u64>()
        });
        rest + u64::from(self.state.count)
    }

    /// Nothing more is expected: no room is kept for it.
    pub(super) fn shrink(&mut self) {
        self.open.shrink_to_fit();
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
        let (closed, late) =
            self.rest.as_ref().map_or((&[][..], &[][..]), |r| (r.closed.as_slice(), r.late.as_slice()));
        let mut runs: Vec<Run> = closed.iter().filter(|r| r.max >= start && r.min <= end).cloned().collect();
        if self.state.count > 0 && self.state.last_t >= start && self.open_min <= end {
            runs.push(self.open_run());
        }
        let late = late.iter().filter(|s| s.timestamp >= start && s.timestamp <= end).copied().collect();
        (runs, late)
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
            let mut data = Data::default();
            let mut model = BTreeMap::new();
            for (t, v) in samples {
                data.insert(Sample { timestamp: t, value: f64::from_bits(v) });
                model.insert(t, v);
            }
            let (runs, late) = data.read(i64::MIN, i64::MAX);
            let mut m = crate::merge::Columns::default();
            runs.iter().for_each(|r| r.decode(|s| m.push(s.timestamp, s.value)));
            late.into_iter().for_each(|s| m.push(s.timestamp, s.value));
            m.settle();
            let got: Vec<_> = m.times.into_iter().zip(m.values.into_iter().map(f64::to_bits)).collect();
            prop_assert_eq!(got, model.into_iter().collect::<Vec<_>>());
        }
    }
}
