//! Deltas become totals: what each stream of points has brought since it was first seen is remembered, so that the
//! store holds counters as PromQL expects them.
//!
//! A point that ends before the last one ended, or begins before the stream did, cannot be added any more: it is
//! refused. A stream that is silent for an hour is forgotten; should it come back, it counts from nothing, and its start
//! time says so. (OpenTelemetry: metrics/data-model.md, "Sums: Delta-to-Cumulative".)

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use signal::{FloatHistogram, Labels, Timestamp};

/// Streams remembered, of about 0.5 kB each.
const STREAMS: usize = 50_000;
/// As long as a total is good for: a sender that is silent for longer begins anew.
const SILENCE: Duration = Duration::from_secs(3600);

/// What has been added up. A histogram's buckets are not cumulative here.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Total {
    Number(f64),
    Explicit { bounds: Vec<f64>, counts: Vec<f64>, count: f64, sum: Option<f64> },
    Native(Arc<FloatHistogram>),
}

impl Total {
    /// `false` if the two cannot be added: then counting begins anew with the other.
    fn add(&mut self, other: &Total) -> bool {
        match (self, other) {
            (Total::Number(a), Total::Number(b)) => *a += b,
            (
                Total::Explicit { bounds, counts, count, sum },
                Total::Explicit { bounds: b, counts: c, count: n, sum: s },
            ) if bounds == b && counts.len() == c.len() => {
                counts.iter_mut().zip(c).for_each(|(a, b)| *a += b);
                *count += n;
                *sum = sum.zip(*s).map(|(a, b)| a + b);
            }
            (Total::Native(a), Total::Native(b)) => return Arc::make_mut(a).add(b).is_ok(),
            _ => return false,
        }
        true
    }
}

/// One point: when it began and ended, in nanoseconds, and what it brings.
#[derive(Clone, Debug)]
pub(super) struct Delta {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) value: Total,
}

#[derive(Clone, Debug)]
struct Stream {
    start: u64,
    end: u64,
    total: Total,
    /// When its last point came, by our clock.
    seen: Timestamp,
}

/// All streams. One request after the other changes them.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    by_series: HashMap<Labels, Stream>,
    swept: Timestamp,
}

/// What one request changes: kept apart until its samples are stored, so that it may be sent again if they were not.
pub(super) struct Changes<'a> {
    streams: &'a mut Streams,
    changed: HashMap<Labels, Stream>,
    now: Timestamp,
}

impl Streams {
    pub(super) fn begin(&mut self, now: Timestamp) -> Changes<'_> {
        if now.since(self.swept) > SILENCE / 4 {
            self.by_series.retain(|_, s| now.since(s.seen) <= SILENCE);
            self.swept = now;
        }
        Changes { streams: self, changed: HashMap::new(), now }
    }
}

impl Changes<'_> {
    /// The stream's total after this point, and when its counting began.
    pub(super) fn add(&mut self, series: &Labels, point: Delta) -> Result<(Total, u64), &'static str> {
        let known = self.changed.get(series).or_else(|| self.streams.by_series.get(series));
        let next = match known {
            None if self.streams.by_series.len() + self.changed.len() >= STREAMS => {
                return Err("too many streams of delta temporality: send cumulative sums");
            }
            None => Stream { start: point.start, end: point.end, total: point.value, seen: self.now },
            Some(s) if point.end <= s.end => {
                return Err("a delta ends before the one before it did: it came out of order or twice");
            }
            Some(s) if point.start != 0 && point.start < s.start => {
                return Err("a delta begins before its stream did");
            }
            Some(s) => {
                let mut next = Stream { end: point.end, seen: self.now, ..s.clone() };
                if !next.total.add(&point.value) {
                    (next.start, next.total) = (point.start, point.value);
                }
                next
            }
        };
        let answer = (next.total.clone(), next.start);
        self.changed.insert(series.clone(), next);
        Ok(answer)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }

    /// The samples are stored: what they were made of is not needed again.
    pub(super) fn commit(self) {
        self.streams.by_series.extend(self.changed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(start: u64, end: u64, v: f64) -> Delta {
        Delta { start, end, value: Total::Number(v) }
    }

    #[test]
    fn totals_grow_and_latecomers_are_refused() {
        let series = Labels::from_pairs([("__name__", "a")]);
        let mut streams = Streams::default();
        let now = Timestamp::from_secs(100);
        let mut c = streams.begin(now);
        assert_eq!(c.add(&series, number(1, 10, 3.0)), Ok((Total::Number(3.0), 1)));
        assert_eq!(c.add(&series, number(10, 20, 4.0)), Ok((Total::Number(7.0), 1)));
        c.commit();
        let mut c = streams.begin(now);
        assert!(c.add(&series, number(10, 20, 4.0)).is_err());
        assert!(c.add(&series, number(0, 15, 4.0)).is_err());
        // A sender that was restarted begins later, and is added all the same.
        assert_eq!(c.add(&series, number(30, 40, 1.0)), Ok((Total::Number(8.0), 1)));
        // Not stored: so nothing has changed.
        drop(c);
        let mut c = streams.begin(now);
        assert_eq!(c.add(&series, number(20, 40, 2.0)), Ok((Total::Number(9.0), 1)));
    }

    #[test]
    fn new_bounds_begin_anew() {
        let series = Labels::from_pairs([("__name__", "h")]);
        let explicit = |bound: f64, counts: [f64; 2]| Total::Explicit {
            bounds: vec![bound],
            counts: counts.to_vec(),
            count: counts.iter().sum(),
            sum: Some(1.0),
        };
        let mut streams = Streams::default();
        let mut c = streams.begin(Timestamp::from_secs(0));
        let point = |start, end, value| Delta { start, end, value };
        c.add(&series, point(1, 10, explicit(1.0, [1.0, 2.0]))).expect("the first");
        let (total, start) = c.add(&series, point(10, 20, explicit(1.0, [1.0, 0.0]))).expect("fits");
        let Total::Explicit { counts, count, sum, .. } = total else { panic!("another kind") };
        assert_eq!((counts, count, sum, start), (vec![2.0, 2.0], 4.0, Some(2.0), 1));
        let (total, start) = c.add(&series, point(20, 30, explicit(5.0, [1.0, 0.0]))).expect("fits");
        assert_eq!((total, start), (explicit(5.0, [1.0, 0.0]), 20));
    }

    #[test]
    fn silent_streams_are_forgotten_and_there_are_not_too_many() {
        let mut streams = Streams::default();
        let series = |i: usize| Labels::from_pairs([("i", i.to_string())]);
        let mut c = streams.begin(Timestamp::from_secs(0));
        for i in 0..STREAMS {
            c.add(&series(i), number(1, 2, 1.0)).expect("there is room");
        }
        assert!(c.add(&series(STREAMS), number(1, 2, 1.0)).is_err());
        c.commit();
        let mut c = streams.begin(Timestamp::from_secs(2 * 3600));
        assert_eq!(c.add(&series(1), number(5, 6, 1.0)), Ok((Total::Number(1.0), 5)));
    }
}
