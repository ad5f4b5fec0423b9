//! `</` and `>/`: a native histogram without the observations above or below a value (Prometheus:
//! FloatHistogram.TrimBuckets).

use signal::FloatHistogram;
use signal::histogram::{Bounded, Bucket};

use crate::functions::share_below;

/// Which observations stay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Below,
    Above,
}

/// What is kept so far.
struct Kept {
    count: f64,
    sum: f64,
    changed: bool,
}

pub(super) fn trim(h: &FloatHistogram, at: f64, keep: Keep) -> FloatHistogram {
    let mut out = h.clone();
    let mut kept = Kept { count: 0.0, sum: 0.0, changed: false };
    let custom = h.is_custom();
    let mut side = |buckets: &mut [Bucket], bounds: Vec<Bounded>, positive: bool| {
        for (b, bounded) in buckets.iter_mut().zip(bounds) {
            let (count, middle) = share(bounded, at, keep, positive, custom);
            kept.changed |= count != b.count;
            b.count = count;
            kept.count += count;
            kept.sum += middle * count;
        }
    };
    side(&mut out.positive, h.above().collect(), true);
    side(&mut out.negative, h.below().collect(), false);
    if let Some(mut zero) = h.zero_bucket() {
        if h.positive.is_empty() && !h.negative.is_empty() {
            zero.upper = 0.0;
        } else if h.negative.is_empty() && !h.positive.is_empty() {
            zero.lower = 0.0;
        }
        let (count, middle) = linear(zero, at, keep);
        kept.changed |= count != out.zero_count;
        out.zero_count = count;
        kept.count += count;
        kept.sum += middle * count;
    }
    if kept.changed {
        (out.count, out.sum) = (kept.count, kept.sum);
        out.compact();
    }
    out
}

/// How many of a bucket stay, and where they lie on average.
fn share(b: Bounded, at: f64, keep: Keep, positive: bool, custom: bool) -> (f64, f64) {
    let middle = |low, high| midpoint(low, high, positive, custom);
    let (whole, part) = match keep {
        Keep::Below => (b.upper <= at, b.lower < at),
        Keep::Above => (b.lower >= at, b.upper > at),
    };
    if whole {
        return (b.count, middle(b.lower, b.upper));
    }
    if !part {
        return (0.0, 0.0);
    }
    if b.lower == f64::NEG_INFINITY || b.upper == f64::INFINITY {
        return endless(b, at, keep);
    }
    let below = if at <= b.lower {
        0.0
    } else if at >= b.upper {
        b.count
    } else {
        b.count * share_below(b, at, custom)
    };
    match keep {
        Keep::Below => (below, middle(b.lower, at)),
        Keep::Above => (b.count - below, middle(at, b.upper)),
    }
}

/// A bucket without an end: how observations lie in it is not known, save that a first custom bucket with a
/// positive bound is taken to begin at zero.
fn endless(b: Bounded, at: f64, keep: Keep) -> (f64, f64) {
    let finite = |v: f64| if v.is_infinite() { 0.0 } else { v };
    let from_zero = b.upper > 0.0 && b.upper.is_finite();
    match keep {
        Keep::Below if b.lower == f64::NEG_INFINITY => {
            if at > 0.0 && from_zero {
                (b.count * at / b.upper, at / 2.0)
            } else if b.upper <= 0.0 {
                (b.count, at)
            } else {
                (0.0, finite(b.upper))
            }
        }
        Keep::Above if b.lower == f64::NEG_INFINITY => {
            if at >= 0.0 && from_zero {
                (b.count * (1.0 - at / b.upper), (at + b.upper) / 2.0)
            } else {
                (0.0, finite(b.upper))
            }
        }
        Keep::Above if at >= b.lower => (b.count, at),
        _ => (0.0, finite(b.lower)),
    }
}

/// The zero bucket, in which observations lie evenly.
fn linear(b: Bounded, at: f64, keep: Keep) -> (f64, f64) {
    let whole = (b.count, (b.lower + b.upper) / 2.0);
    let width = b.upper - b.lower;
    match keep {
        Keep::Below if at <= b.lower => (0.0, 0.0),
        Keep::Below if at >= b.upper => whole,
        Keep::Below => (b.count * ((at - b.lower) / width), (b.lower + at) / 2.0),
        Keep::Above if at <= b.lower => whole,
        Keep::Above if at >= b.upper => (0.0, 0.0),
        Keep::Above => (b.count * ((b.upper - at) / width), (at + b.upper) / 2.0),
    }
}

fn midpoint(low: f64, high: f64, positive: bool, linear: bool) -> f64 {
    match (low.is_infinite(), high.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if high > 0.0 => high / 2.0,
        (true, false) => high,
        (false, true) => low,
        (false, false) if linear => (low + high) / 2.0,
        (false, false) => {
            let mean = (low * high).abs().sqrt();
            if positive { mean } else { -mean }
        }
    }
}
