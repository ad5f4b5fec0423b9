//! Quantiles, fractions and spread of native histograms (Prometheus: promql/quantile.go, functions.go).

use signal::FloatHistogram;
use signal::histogram::Bounded;

use crate::window::kahan;

/// What must be said about NaNs among the observations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NanNote {
    ResultIsNan,
    Skewed,
}

/// The zero bucket ends at zero on the side that has no buckets.
fn one_sided(h: &FloatHistogram, mut b: Bounded) -> Bounded {
    if h.negative.is_empty() && !h.positive.is_empty() {
        b.lower = 0.0;
    } else if h.positive.is_empty() && !h.negative.is_empty() {
        b.upper = 0.0;
    }
    b
}

pub(super) fn quantile(q: f64, h: &FloatHistogram) -> (f64, Option<NanNote>) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, None);
    }
    // NaNs are counted but lie in no bucket, as if above all: then only counting from below is right.
    let nans = h.sum.is_nan();
    let forwards = nans || q < 0.5;
    let mut rank = if forwards { q * h.count } else { (1.0 - q) * h.count };
    let mut b = Bounded { lower: 0.0, upper: 0.0, count: 0.0 };
    let mut count = 0.0;
    let mut rest = 0.0;
    let mut found = false;
    let mut visit = |x: Bounded| {
        if found {
            rest += x.count;
        } else if x.count != 0.0 {
            b = x;
            count += x.count;
            found = count >= rank;
        }
    };
    if forwards {
        h.all().for_each(&mut visit)
    } else {
        h.all().rev().for_each(&mut visit)
    }
    if h.is_custom() {
        if b.lower == f64::NEG_INFINITY {
            if b.upper <= 0.0 {
                return (b.upper, None);
            }
            b.lower = 0.0;
        } else if b.upper == f64::INFINITY {
            return (b.lower, None);
        }
    } else if b.lower < 0.0 && b.upper > 0.0 {
        b = one_sided(h, b);
    }
    // Rounding may have given more than there is.
    count = count.min(h.count);
    if count < rank {
        return if nans { (f64::NAN, Some(NanNote::ResultIsNan)) } else { (b.upper, None) };
    }
    rank = if forwards { rank - (count - b.count) } else { count - rank };
    let note = (nans && count + rest < h.count).then_some(NanNote::Skewed);
    let share = rank / b.count;
    if h.is_custom() || b.lower <= 0.0 && b.upper >= 0.0 {
        return (b.lower + (b.upper - b.lower) * share, note);
    }
    // On a logarithmic scale exponential buckets are equally wide.
    let (low, high) = (b.lower.abs().log2(), b.upper.abs().log2());
    let v = if b.lower > 0.0 {
        (low + (high - low) * share).exp2()
    } else {
        -(high + (low - high) * (1.0 - share)).exp2()
    };
    (v, note)
}

/// The share of a bucket that lies below a value inside it.
pub(crate) fn share_below(b: Bounded, v: f64, linear: bool) -> f64 {
    if linear {
        return (v - b.lower) / (b.upper - b.lower);
    }
    let (low, high, at) = (b.lower.abs().log2(), b.upper.abs().log2(), v.abs().log2());
    if v > 0.0 { (at - low) / (high - low) } else { 1.0 - (at - high) / (low - high) }
}

/// The share of observations between two values; true if NaNs were left out of account.
pub(super) fn fraction(lower: f64, upper: f64, h: &FloatHistogram) -> (f64, bool) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, false);
    }
    if lower >= upper {
        return (0.0, false);
    }
    let rank_of = |v: f64| {
        let mut rank = 0.0;
        for b in h.all() {
            let zero = b.lower <= 0.0 && b.upper >= 0.0;
            let b = if zero { one_sided(h, b) } else { b };
            if b.lower >= v {
                return Some(rank);
            }
            if b.upper > v {
                let linear = zero || h.is_custom();
                return Some(if linear && b.lower == f64::NEG_INFINITY {
                    b.count
                } else {
                    rank + b.count * share_below(b, v, linear)
                });
            }
            rank += b.count;
        }
        None
    };
    let (mut count, mut left_out) = (h.count, false);
    if h.sum.is_nan() {
        count = h.all().map(|b| b.count).sum();
        left_out = count < h.count;
    }
    let rank = |v| rank_of(v).map_or(count, |r| r.min(count));
    ((rank(upper) - rank(lower)) / h.count, left_out)
}

/// The variance, each observation taken to lie in the middle of its bucket.
pub(super) fn variance(h: &FloatHistogram) -> f64 {
    let mean = h.sum / h.count;
    let (mut sum, mut c) = (0.0, 0.0);
    for b in h.all() {
        let middle = if h.is_custom() {
            (b.upper + b.lower) / 2.0
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            0.0
        } else {
            (b.upper * b.lower).sqrt().copysign(b.upper)
        };
        let d = middle - mean;
        (sum, c) = kahan(b.count * d * d, sum, c);
    }
    (sum + c) / h.count
}
