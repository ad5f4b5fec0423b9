//! Samples of one series in memory: an open run that grows, closed ones, and what came late.
//!
//! A run is closed after [`RUN`] samples, so that a query for the newest of a busy series decodes little. Samples out
//! of order wait in a short list of their own. Native histograms and start times stand apart, in a box that few have.

use signal::Sample;

use super::cells::{Cells, Chain};
use super::extra::Extra;
use crate::codec::{StreamState, decode_stream};

/// Samples in a closed run. What is scraped every 15 s is flushed before it has as many.
const RUN: u32 = 240;

#[derive(Default)]
pub(crate) struct Data {
    open: Chain,
    /// All by which the series grew.
    pub(super) bytes: u32,
    open_min: i64,
    state: StreamState,
    rest: Option<Box<Rest>>,
}

/// What a young series with floats in order has not.
#[derive(Default)]
struct Rest {
    closed: Vec<Closed>,
    /// Samples that were not newer than their predecessor, in order of arrival.
    late: Vec<Sample>,
    extra: Option<Box<Extra>>,
}

struct Closed {
    min: i64,
    max: i64,
    count: u32,
    data: Chain,
}

/// Samples in ascending order, compressed.
#[derive(Clone)]
pub(crate) struct Run {
    count: u32,
    data: Vec<u8>,
}

impl Run {
    /// Bytes of memory.
    pub(crate) fn size(&self) -> usize {
        size_of::<Run>() + self.data.capacity()
    }

    pub(crate) fn decode(&self, mut each: impl FnMut(Sample)) {
        decode_stream(&self.data, self.count, |timestamp, value| each(Sample { timestamp, value }))
            .expect("a run is written by this process and never leaves memory");
    }
}

impl Data {
    /// Gives back by how many bytes the series grew. `scratch` is room for one sample.
    #[inline]
    pub(super) fn insert(&mut self, cells: &mut Cells, scratch: &mut Vec<u8>, s: Sample) -> usize {
        if self.state.count == 0 {
            if let Some(last) = self.rest.as_ref().and_then(|r| r.closed.last())
                && s.timestamp <= last.max
            {
                return self.insert_late(cells, s);
            }
            self.open_min = s.timestamp;
        } else if s.timestamp <= self.state.last_t {
            return self.insert_late(cells, s);
        }
        scratch.clear();
        self.state.push(scratch, s.timestamp, s.value);
        cells.push(&mut self.open, scratch);
        if self.state.count == RUN {
            self.close();
        }
        scratch.len()
    }

    #[cold]
    fn close(&mut self) {
        let closed = Closed {
            min: self.open_min,
            max: self.state.last_t,
            count: self.state.count,
            data: std::mem::take(&mut self.open),
        };
        self.rest.get_or_insert_default().closed.push(closed);
        self.state = StreamState::default();
    }

    #[cold]
    fn insert_late(&mut self, cells: &Cells, s: Sample) -> usize {
        let newest = self.newest(cells);
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
    pub(super) fn newest(&self, cells: &Cells) -> Option<Sample> {
        if self.state.count > 0 {
            return Some(Sample { timestamp: self.state.last_t, value: self.state.last_v });
        }
        let closed = self.rest.as_ref()?.closed.last()?;
        let mut last = None;
        Run { count: closed.count, data: cells.read(closed.data) }.decode(|s| last = Some(s));
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

    /// The same samples in other cells; nothing is left in these.
    pub(super) fn move_out(&mut self, from: &mut Cells, to: &mut Cells) -> Data {
        let mut data = std::mem::take(self);
        let closed = data.rest.iter_mut().flat_map(|r| r.closed.iter_mut().map(|c| &mut c.data));
        for chain in std::iter::once(&mut data.open).chain(closed).filter(|c| !c.is_empty()) {
            let bytes = from.read(*chain);
            from.give_back(std::mem::take(chain));
            to.push(chain, &bytes);
        }
        data
    }

    /// Runs and late samples that may lie in the range.
    pub(crate) fn read(&self, cells: &Cells, start: i64, end: i64) -> (Vec<Run>, Vec<Sample>) {
        let (closed, late) =
            self.rest.as_ref().map_or((&[][..], &[][..]), |r| (r.closed.as_slice(), r.late.as_slice()));
        let inside = closed.iter().filter(|r| r.max >= start && r.min <= end);
        let mut runs: Vec<Run> = inside.map(|r| Run { count: r.count, data: cells.read(r.data) }).collect();
        if self.state.count > 0 && self.state.last_t >= start && self.open_min <= end {
            runs.push(Run { count: self.state.count, data: cells.read(self.open) });
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
            let (mut data, mut cells, mut scratch) = (Data::default(), Cells::default(), Vec::new());
            let mut model = BTreeMap::new();
            for (t, v) in samples {
                data.insert(&mut cells, &mut scratch, Sample { timestamp: t, value: f64::from_bits(v) });
                model.insert(t, v);
            }
            let mut others = Cells::default();
            let data = data.move_out(&mut cells, &mut others);
            let (runs, late) = data.read(&others, i64::MIN, i64::MAX);
            let mut m = crate::merge::Columns::default();
            runs.iter().for_each(|r| r.decode(|s| m.push(s.timestamp, s.value)));
            late.into_iter().for_each(|s| m.push(s.timestamp, s.value));
            m.settle();
            let got: Vec<_> = m.times.into_iter().zip(m.values.into_iter().map(f64::to_bits)).collect();
            prop_assert_eq!(got, model.into_iter().collect::<Vec<_>>());
        }
    }
}
