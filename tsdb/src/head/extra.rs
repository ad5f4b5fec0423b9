//! What few series have beside floats: native histograms, and the times at which counting began.

use std::sync::Arc;

use signal::HistogramSample;

use crate::codec::{HistogramState, decode_histograms};

/// Histograms in a closed run.
const RUN: u32 = 60;

#[derive(Default)]
pub(crate) struct Extra {
    closed: Vec<HistogramRun>,
    open: Vec<u8>,
    open_min: i64,
    state: HistogramState,
    /// Histograms that were not newer than their predecessor, in order of arrival.
    late: Vec<HistogramSample>,
    /// `(time, start)`: what holds from the time on. In order of time.
    starts: Vec<(i64, i64)>,
}

/// Histograms in ascending order, compressed.
#[derive(Clone)]
pub(crate) struct HistogramRun {
    min: i64,
    max: i64,
    count: u32,
    data: Arc<[u8]>,
}

impl HistogramRun {
    pub(crate) fn decode(&self, each: impl FnMut(HistogramSample)) {
        decode_histograms(&self.data, self.count, each)
            .expect("a run is written by this process and never leaves memory");
    }
}

impl Extra {
    /// The newest histogram that came in order, or a late one of the same time.
    pub(crate) fn newest(&self) -> Option<HistogramSample> {
        let open = self.state.last().cloned();
        let in_order = open.or_else(|| {
            let mut last = None;
            self.closed.last()?.decode(|s| last = Some(s));
            last
        });
        let late = self.late.iter().max_by_key(|s| s.timestamp).cloned();
        in_order.into_iter().chain(late).max_by_key(|s| s.timestamp)
    }

    /// Gives back by how many bytes the series grew. What a histogram says of resets becomes what a query may
    /// believe, which hangs from the sample before it: `newest_float` is the time of the newest float.
    pub(super) fn insert(&mut self, mut s: HistogramSample, newest_float: Option<i64>) -> usize {
        let before = self.newest();
        let late = before.as_ref().is_some_and(|b| s.timestamp <= b.timestamp);
        let follows = before
            .as_ref()
            .filter(|b| !late && newest_float.is_none_or(|f| f < b.timestamp || f > s.timestamp));
        let hint = s.histogram.stored_hint(follows.map(|b| &*b.histogram));
        if hint != s.histogram.hint {
            Arc::make_mut(&mut s.histogram).hint = hint;
        }
        if late {
            // The same sample again is no news.
            if before.is_some_and(|b| b.timestamp == s.timestamp && b.histogram == s.histogram) {
                return 0;
            }
            let size = s.histogram.size();
            self.late.push(s);
            return size;
        }
        let old = self.open.len();
        if self.state.count == 0 {
            self.open_min = s.timestamp;
        }
        self.state.push(&mut self.open, &s);
        let grown = self.open.len() - old;
        if self.state.count == RUN {
            self.closed.extend(self.open_run());
            self.open = Vec::new();
            self.state = HistogramState::default();
        }
        grown
    }

    fn open_run(&self) -> Option<HistogramRun> {
        let max = self.state.last()?.timestamp;
        Some(HistogramRun {
            min: self.open_min,
            max,
            count: self.state.count,
            data: self.open.as_slice().into(),
        })
    }

    pub(super) fn insert_start(&mut self, t: i64, start: i64) -> usize {
        let at = self.starts.partition_point(|(x, _)| *x <= t);
        let holds = at.checked_sub(1).and_then(|i| self.starts.get(i));
        match holds {
            Some((_, s)) if *s == start => return 0,
            Some((x, _)) if *x == t => {
                if let Some(slot) = self.starts.get_mut(at - 1) {
                    slot.1 = start;
                }
                return 0;
            }
            None if start == 0 => return 0,
            _ => {}
        }
        self.starts.insert(at, (t, start));
        size_of::<(i64, i64)>()
    }

    /// Runs and late histograms that may lie in the range.
    pub(crate) fn read(&self, start: i64, end: i64) -> (Vec<HistogramRun>, Vec<HistogramSample>) {
        let all = self.closed.iter().cloned().chain(self.open_run());
        let runs = all.filter(|r| r.max >= start && r.min <= end).collect();
        let inside = |s: &&HistogramSample| (start..=end).contains(&s.timestamp);
        (runs, self.late.iter().filter(inside).cloned().collect())
    }

    pub(crate) fn starts(&self) -> &[(i64, i64)] {
        &self.starts
    }
}
