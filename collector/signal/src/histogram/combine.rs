//! Arithmetic: two histograms become one, after their zero buckets, resolutions and bounds were made the same.

use std::sync::Arc;

use super::reset::coarser;
use super::{Bounded, Bucket, FloatHistogram, Incompatible, ResetHint, bound};

/// What happened on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Combined {
    /// One said "reset", the other "not reset".
    pub reset_conflict: bool,
    /// Custom bounds differed; the shared ones were kept.
    pub bounds_reconciled: bool,
}

impl FloatHistogram {
    pub fn add(&mut self, other: &FloatHistogram) -> Result<Combined, Incompatible> {
        self.combine(other, 1.0)
    }

    pub fn sub(&mut self, other: &FloatHistogram) -> Result<Combined, Incompatible> {
        self.combine(other, -1.0)
    }

    fn combine(&mut self, other: &FloatHistogram, sign: f64) -> Result<Combined, Incompatible> {
        if self.is_custom() != other.is_custom() {
            return Err(Incompatible);
        }
        let mut done = Combined { reset_conflict: self.join_hint(other.hint), ..Combined::default() };
        self.count += sign * other.count;
        if self.is_custom() {
            self.sum += sign * other.sum;
            if self.bounds == other.bounds {
                merge(&mut self.positive, &other.positive, sign);
            } else {
                done.bounds_reconciled = true;
                let shared = shared_bounds(&self.bounds, &other.bounds);
                self.positive = onto(&self.positive, &self.bounds, &shared);
                merge(&mut self.positive, &onto(&other.positive, &other.bounds, &shared), sign);
                self.bounds = shared;
            }
            self.compact();
            return Ok(done);
        }
        self.zero_count += sign * self.reconcile_zero(other);
        self.sum += sign * other.sum;
        self.reduce(other.schema);
        let t = self.zero_threshold;
        for (mine, theirs) in [(&mut self.positive, &other.positive), (&mut self.negative, &other.negative)] {
            let theirs = coarser(theirs, other.schema, self.schema);
            merge(mine, beyond(&theirs, self.schema, t), sign);
        }
        self.compact();
        Ok(done)
    }

    /// Scales all counts and the sum. What was negated is no counter any more.
    pub fn scale(&mut self, factor: f64) {
        self.each(|v| *v *= factor);
        if factor < 0.0 {
            self.hint = ResetHint::Gauge;
        }
        self.compact();
    }

    /// Like [`FloatHistogram::scale`]; dividing by zero leaves no buckets.
    pub fn divide(&mut self, by: f64) {
        self.each(|v| *v /= by);
        if by == 0.0 {
            self.positive.clear();
            self.negative.clear();
        } else if by < 0.0 {
            self.hint = ResetHint::Gauge;
        }
        self.compact();
    }

    fn each(&mut self, f: impl Fn(&mut f64)) {
        f(&mut self.zero_count);
        f(&mut self.count);
        f(&mut self.sum);
        self.positive.iter_mut().chain(&mut self.negative).for_each(|b| f(&mut b.count));
    }

    /// Takes on a lower resolution; a higher one changes nothing.
    pub fn reduce(&mut self, schema: i32) {
        if schema < self.schema && !self.is_custom() {
            self.positive = coarser(&self.positive, self.schema, schema).into_owned();
            self.negative = coarser(&self.negative, self.schema, schema).into_owned();
            self.schema = schema;
        }
    }

    /// The hint of a combination; true if the two contradict each other.
    pub(super) fn join_hint(&mut self, other: ResetHint) -> bool {
        use ResetHint::{Gauge, Unknown};
        match (self.hint, other) {
            (a, b) if a == b => false,
            (Gauge, _) => false,
            (_, Gauge) => {
                self.hint = Gauge;
                false
            }
            (Unknown, _) => false,
            (_, Unknown) => {
                self.hint = Unknown;
                false
            }
            _ => {
                self.hint = Unknown;
                true
            }
        }
    }

    /// What the zero bucket would count if it were wider. A threshold inside a populated bucket moves to its far end.
    pub(super) fn zero_count_within(&self, mut threshold: f64) -> (f64, f64) {
        if threshold <= self.zero_threshold {
            return (self.zero_count, threshold);
        }
        'wider: loop {
            let mut zero = self.zero_count;
            // Both sides go away from zero, mirrored to be alike.
            let mirrored = |b: Bounded| Bounded { lower: -b.upper, upper: -b.lower, count: b.count };
            for b in self.above().take_while(|b| b.lower < threshold) {
                zero += b.count;
                if b.upper > threshold {
                    threshold = b.upper;
                    break;
                }
            }
            for b in self.below().map(mirrored).take_while(|b| b.lower < threshold) {
                zero += b.count;
                if b.upper > threshold {
                    // What was counted on the other side is too little now.
                    threshold = b.upper;
                    continue 'wider;
                }
            }
            return (zero, threshold);
        }
    }

    /// Widens this zero bucket until it fits both. Gives back what the other's would count then.
    fn reconcile_zero(&mut self, other: &FloatHistogram) -> f64 {
        let (mut zero, mut threshold) = (other.zero_count, other.zero_threshold);
        while threshold != self.zero_threshold {
            if self.zero_threshold > threshold {
                (zero, threshold) = other.zero_count_within(self.zero_threshold);
            }
            if threshold > self.zero_threshold {
                self.widen_zero(threshold);
            }
        }
        zero
    }

    fn widen_zero(&mut self, threshold: f64) {
        (self.zero_count, self.zero_threshold) = self.zero_count_within(threshold);
        let (schema, t) = (self.schema, self.zero_threshold);
        self.positive.retain(|b| bound(b.index - 1, schema, &[]) >= t);
        self.negative.retain(|b| bound(b.index - 1, schema, &[]) >= t);
    }
}

/// Buckets that do not end inside the zero bucket.
pub(super) fn beyond(buckets: &[Bucket], schema: i32, threshold: f64) -> &[Bucket] {
    let inside = buckets.iter().take_while(|b| bound(b.index, schema, &[]) <= threshold).count();
    buckets.get(inside..).unwrap_or(&[])
}

/// Adds sorted buckets to sorted buckets.
fn merge(mine: &mut Vec<Bucket>, theirs: &[Bucket], sign: f64) {
    let fits = theirs.iter().all(|b| mine.binary_search_by_key(&b.index, |m| m.index).is_ok());
    if fits {
        let mut at = 0;
        for b in theirs {
            while mine[at].index < b.index {
                at += 1;
            }
            mine[at].count += sign * b.count;
        }
        return;
    }
    let old = std::mem::take(mine);
    mine.reserve(old.len() + theirs.len());
    let (mut a, mut b) = (old.into_iter().peekable(), theirs.iter().peekable());
    loop {
        let next = match (a.peek(), b.peek()) {
            (None, None) => return,
            (Some(x), Some(y)) if x.index == y.index => {
                let (x, y) = (*x, **y);
                a.next();
                b.next();
                Bucket { index: x.index, count: x.count + sign * y.count }
            }
            (Some(x), y) if y.is_none_or(|y| x.index < y.index) => {
                let x = *x;
                a.next();
                x
            }
            (_, Some(y)) => {
                let y = **y;
                b.next();
                Bucket { index: y.index, count: sign * y.count }
            }
            (Some(_), None) => unreachable!("taken by the arm above"),
        };
        mine.push(next);
    }
}

pub(super) fn shared_bounds(a: &[f64], b: &[f64]) -> Arc<[f64]> {
    a.iter().filter(|x| b.contains(x)).copied().collect()
}

/// Where a custom bucket goes among fewer bounds: the first that is not below its own.
pub(super) fn target(index: i32, bounds: &[f64], shared: &[f64]) -> i32 {
    let upper = bound(index, super::CUSTOM_SCHEMA, bounds);
    shared.partition_point(|s| *s < upper) as i32
}

fn onto(buckets: &[Bucket], bounds: &[f64], shared: &[f64]) -> Vec<Bucket> {
    let mut out: Vec<Bucket> = Vec::new();
    for b in buckets {
        let index = target(b.index, bounds, shared);
        match out.last_mut() {
            Some(l) if l.index == index => l.count += b.count,
            _ => out.push(Bucket { index, count: b.count }),
        }
    }
    out
}
