//! Whether counting began anew between two histograms of a series (Prometheus: FloatHistogram.DetectReset).

use std::borrow::Cow;

use super::{Bucket, FloatHistogram, ResetHint, bound};

impl FloatHistogram {
    /// True if this one cannot continue `previous`: a count fell, or the resolution grew.
    pub fn is_reset_after(&self, previous: &FloatHistogram) -> bool {
        match self.hint {
            ResetHint::Reset => return true,
            ResetHint::NotReset => return false,
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.is_custom() {
            if !previous.is_custom() {
                return true;
            }
            if self.bounds != previous.bounds {
                return self.rolled_up_fell(previous);
            }
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        if previous.is_custom() && !self.is_custom() {
            return true;
        }
        let (zero, threshold) = previous.zero_count_within(self.zero_threshold);
        // A populated bucket of the previous histogram lies half inside the new zero bucket.
        if threshold != self.zero_threshold || self.zero_count < zero {
            return true;
        }
        [(&self.positive, &previous.positive), (&self.negative, &previous.negative)].into_iter().any(
            |(now, before)| {
                fell(&self.beyond_zero(now, self.schema), &self.beyond_zero(before, previous.schema))
            },
        )
    }

    /// Buckets of another schema in this one's, without those inside this one's zero bucket.
    fn beyond_zero<'a>(&self, buckets: &'a [Bucket], schema: i32) -> Cow<'a, [Bucket]> {
        let mut merged = coarser(buckets, schema, self.schema);
        if self.zero_threshold > 0.0 && !self.is_custom() {
            let inside =
                merged.iter().take_while(|b| bound(b.index, self.schema, &[]) <= self.zero_threshold).count();
            if inside > 0 {
                merged.to_mut().drain(..inside);
            }
        }
        merged
    }

    /// Custom buckets of different bounds are compared at the bounds they share.
    fn rolled_up_fell(&self, previous: &FloatHistogram) -> bool {
        let at = |h: &FloatHistogram, from: f64, to: f64| -> f64 {
            h.above().filter(|b| b.upper > from && b.upper <= to).map(|b| b.count).sum()
        };
        let mut from = f64::NEG_INFINITY;
        let shared = self.bounds.iter().filter(|b| previous.bounds.contains(b)).copied();
        for to in shared.chain([f64::INFINITY]) {
            if at(self, from, to) < at(previous, from, to) {
                return true;
            }
            from = to;
        }
        false
    }
}

/// Buckets of schema `from` merged into those of `to`, which has at most its resolution.
pub(super) fn coarser(buckets: &[Bucket], from: i32, to: i32) -> Cow<'_, [Bucket]> {
    if from <= to {
        return Cow::Borrowed(buckets);
    }
    let shift = (from - to).unsigned_abs().min(31);
    let mut out: Vec<Bucket> = Vec::with_capacity(buckets.len());
    for b in buckets {
        let index = ((b.index - 1) >> shift) + 1;
        match out.last_mut() {
            Some(l) if l.index == index => l.count += b.count,
            _ => out.push(Bucket { index, count: b.count }),
        }
    }
    Cow::Owned(out)
}

/// Any bucket of `before` that is missing or smaller in `now`.
fn fell(now: &[Bucket], before: &[Bucket]) -> bool {
    let mut at = 0;
    before.iter().any(|b| {
        while now.get(at).is_some_and(|n| n.index < b.index) {
            at += 1;
        }
        match now.get(at) {
            Some(n) if n.index == b.index => n.count < b.count,
            _ => b.count != 0.0,
        }
    })
}

/// Any count that fell between two histograms of one layout.
pub(super) fn counts_fell(now: &FloatHistogram, before: &FloatHistogram) -> bool {
    now.count < before.count
        || now.zero_count < before.zero_count
        || fell(&now.positive, &before.positive)
        || fell(&now.negative, &before.negative)
}
