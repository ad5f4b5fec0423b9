//! Range aggregations: samples over time, and what a window of them is worth at each step.

use signal::Timestamp;

use crate::ast::RangeAggregation;

/// The times a query is evaluated at, in milliseconds.
pub(super) struct Steps {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) step: i64,
}

impl Steps {
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.end.saturating_sub(self.start) / self.step + 1).unwrap_or(0)
    }

    pub(super) fn at(&self, n: usize) -> i64 {
        self.start + i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(self.step)
    }

    /// Where the window of a step ends, in nanoseconds.
    fn right(&self, n: usize, r: &RangeAggregation) -> i64 {
        self.at(n).saturating_mul(1_000_000).saturating_sub(r.offset)
    }

    /// The records that any window may hold.
    pub(super) fn covered(&self, r: &RangeAggregation) -> (Timestamp, Timestamp) {
        let left = self.right(0, r).saturating_sub(r.range);
        let last = self.right(self.count().saturating_sub(1), r);
        (Timestamp(left.saturating_add(1)), Timestamp(last.saturating_add(1)))
    }

    /// The steps whose window `(t - range, t]` holds a time, as a half-open range.
    fn holding(&self, time: i64, r: &RangeAggregation) -> (usize, usize) {
        let step = self.step.saturating_mul(1_000_000);
        let since = time.saturating_sub(self.right(0, r));
        let first = if since <= 0 { 0 } else { (since - 1) / step + 1 };
        let past = since.saturating_add(r.range);
        let end = if past <= 0 { 0 } else { (past - 1) / step + 1 };
        let n = |v: i64| usize::try_from(v).unwrap_or(0).min(self.count());
        (n(first), n(end))
    }
}

/// Samples of one series.
pub(super) enum Samples {
    /// Counts and bytes: how much each step has more than the one before. They are whole numbers, so nothing is
    /// lost by adding and taking away.
    Sums { changes: Vec<f64>, present: Vec<i32> },
    /// Time in nanoseconds, and value.
    All(Vec<(i64, f64)>),
}

/// What is a sum over whole numbers: a window needs no samples for it.
fn is_sum(r: &RangeAggregation) -> bool {
    !r.pipeline.unwraps()
        && matches!(
            r.op.as_str(),
            "count_over_time"
                | "rate"
                | "bytes_over_time"
                | "bytes_rate"
                | "absent_over_time"
                | "present_over_time"
        )
}

impl Samples {
    pub(super) fn new(r: &RangeAggregation, steps: &Steps) -> Self {
        if is_sum(r) {
            let n = steps.count() + 1;
            Samples::Sums { changes: vec![0.0; n], present: vec![0; n] }
        } else {
            Samples::All(Vec::new())
        }
    }

    pub(super) fn held(&self) -> usize {
        match self {
            Samples::Sums { changes, .. } => changes.len(),
            Samples::All(all) => all.len(),
        }
    }

    /// Adds a sample; says how many more are held now.
    pub(super) fn add(&mut self, r: &RangeAggregation, steps: &Steps, time: i64, value: f64) -> usize {
        match self {
            Samples::Sums { changes, present } => {
                let (first, end) = steps.holding(time, r);
                if first >= end {
                    return 0;
                }
                let v = if r.op.starts_with("bytes") { value } else { 1.0 };
                changes[first] += v;
                changes[end] -= v;
                present[first] += 1;
                present[end] -= 1;
                0
            }
            Samples::All(all) => {
                all.push((time, value));
                1
            }
        }
    }

    /// Takes in another's samples of the same query; says how many more are held now.
    pub(super) fn merge(&mut self, other: Samples) -> usize {
        match (self, other) {
            (Samples::Sums { changes, present }, Samples::Sums { changes: c, present: p }) => {
                changes.iter_mut().zip(c).for_each(|(to, v)| *to += v);
                present.iter_mut().zip(p).for_each(|(to, v)| *to += v);
                0
            }
            (Samples::All(all), Samples::All(more)) => {
                let n = more.len();
                all.extend(more);
                n
            }
            // Of one query all are of one kind.
            _ => 0,
        }
    }

    /// Gives the value at each step whose window holds a sample.
    pub(super) fn each_step(self, r: &RangeAggregation, steps: &Steps, mut each: impl FnMut(usize, f64)) {
        let seconds = r.range as f64 / 1e9;
        match self {
            Samples::Sums { changes, present } => {
                let per = if matches!(r.op.as_str(), "rate" | "bytes_rate") { seconds } else { 1.0 };
                let (mut sum, mut there) = (0.0, 0);
                for (n, (c, p)) in changes.iter().zip(&present).take(steps.count()).enumerate() {
                    sum += c;
                    there += p;
                    if there > 0 {
                        each(n, if r.op == "present_over_time" { 1.0 } else { sum / per });
                    }
                }
            }
            Samples::All(mut all) => {
                all.sort_by_key(|(t, _)| *t);
                let (mut low, mut high) = (0, 0);
                for n in 0..steps.count() {
                    let right = steps.right(n, r);
                    while all.get(high).is_some_and(|s| s.0 <= right) {
                        high += 1;
                    }
                    while low < high && all[low].0 <= right.saturating_sub(r.range) {
                        low += 1;
                    }
                    if low < high {
                        each(n, worth(r, &all[low..high]));
                    }
                }
            }
        }
    }
}

/// The window's value; `s` is not empty and in order of time.
fn worth(r: &RangeAggregation, s: &[(i64, f64)]) -> f64 {
    let n = s.len() as f64;
    let seconds = r.range as f64 / 1e9;
    let sum = || s.iter().map(|(_, v)| v).sum::<f64>();
    let variance = || {
        let mean = sum() / n;
        s.iter().map(|(_, v)| (v - mean).powi(2)).sum::<f64>() / n
    };
    match r.op.as_str() {
        "rate" => sum() / seconds,
        "rate_counter" => rate_counter(s, seconds),
        "sum_over_time" => sum(),
        "avg_over_time" => sum() / n,
        "min_over_time" => s.iter().map(|(_, v)| *v).fold(f64::INFINITY, f64::min),
        "max_over_time" => s.iter().map(|(_, v)| *v).fold(f64::NEG_INFINITY, f64::max),
        "stdvar_over_time" => variance(),
        "stddev_over_time" => variance().sqrt(),
        "first_over_time" => s.first().map_or(f64::NAN, |(_, v)| *v),
        "last_over_time" => s.last().map_or(f64::NAN, |(_, v)| *v),
        "quantile_over_time" => quantile(r.param.unwrap_or(0.5), s),
        _ => n,
    }
}

fn quantile(q: f64, s: &[(i64, f64)]) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    } else if q < 0.0 {
        return f64::NEG_INFINITY;
    } else if q > 1.0 {
        return f64::INFINITY;
    }
    let mut v: Vec<f64> = s.iter().map(|(_, v)| *v).collect();
    v.sort_by(f64::total_cmp);
    let rank = q * (v.len() as f64 - 1.0);
    let (low, high) = (rank.floor() as usize, rank.ceil() as usize);
    v[low] + (v[high] - v[low]) * (rank - rank.floor())
}

/// The increase of a counter per second of the range, each fall being a reset. As in Loki, the range is taken to
/// begin one range before the first sample and to end with the last (Loki: logql/range_vector.go
/// extrapolatedRate).
fn rate_counter(s: &[(i64, f64)], seconds: f64) -> f64 {
    let (Some(first), Some(last)) = (s.first(), s.last()) else { return 0.0 };
    if s.len() < 2 {
        return 0.0;
    }
    let resets: f64 = s.windows(2).filter(|w| w[1].1 < w[0].1).map(|w| w[0].1).sum();
    let grown = last.1 - first.1 + resets;
    let sampled = (last.0 - first.0) as f64 / 1e9;
    if sampled <= 0.0 {
        return 0.0;
    }
    let between = sampled / (s.len() - 1) as f64;
    let mut before = seconds;
    if grown > 0.0 && first.1 >= 0.0 {
        // A counter is not below zero: it cannot have grown for longer than from there.
        before = before.min(sampled * (first.1 / grown));
    }
    let before = if before < between * 1.1 { before } else { between / 2.0 };
    grown * (sampled + before) / sampled / seconds
}
