//! Quantiles and fractions of classic histograms: cumulative counts at upper bounds (Prometheus: promql/quantile.go).

use crate::annotations::Forced;

/// Bucket counts that differ by less than this share are taken for equal: float arithmetic made the difference.
const TOLERANCE: f64 = 1e-12;

#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    pub(super) upper: f64,
    pub(super) count: f64,
}

/// The bound in the label `le`, as Go's ParseFloat reads it.
pub(super) fn parse_bound(le: &str) -> Option<f64> {
    let digits = le.strip_prefix(['+', '-']).unwrap_or(le);
    let word = digits.to_ascii_lowercase();
    let sign = if le.starts_with('-') { -1.0 } else { 1.0 };
    match word.as_str() {
        "inf" | "infinity" => Some(sign * f64::INFINITY),
        "nan" => Some(f64::NAN),
        w if w.starts_with(|c: char| c.is_ascii_digit() || c == '.') => le.parse().ok(),
        _ => None,
    }
}

/// Sorted, equal bounds joined. False if there is no bucket for everything.
fn sorted(buckets: &mut Vec<Bucket>) -> bool {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    if buckets.last().is_none_or(|b| b.upper != f64::INFINITY) {
        return false;
    }
    buckets.dedup_by(|next, kept| {
        let same = next.upper == kept.upper;
        if same {
            kept.count += next.count;
        }
        same
    });
    true
}

/// Makes counts grow. Says where one had to be forced.
fn force_growth(buckets: &mut [Bucket]) -> Option<Forced> {
    let mut forced: Option<Forced> = None;
    let mut previous = buckets.first().map_or(0.0, |b| b.count);
    for b in buckets.iter_mut().skip(1) {
        let close = (b.count - previous).abs() <= TOLERANCE * (b.count.abs() + previous.abs());
        if b.count == previous || close {
            b.count = previous;
        } else if b.count < previous {
            let f = forced.get_or_insert(Forced { low: b.upper, high: b.upper, fall: 0.0 });
            f.low = f.low.min(b.upper);
            f.high = f.high.max(b.upper);
            f.fall = f.fall.max(previous - b.count);
            b.count = previous;
        } else {
            previous = b.count;
        }
    }
    forced
}

/// The φ-quantile on a straight line within its bucket.
pub(super) fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<Forced>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if !sorted(buckets) {
        return (f64::NAN, None);
    }
    let forced = force_growth(buckets);
    let n = buckets.len();
    let observations = buckets.last().map_or(0.0, |b| b.count);
    if n < 2 || observations == 0.0 {
        return (f64::NAN, forced);
    }
    let mut rank = q * observations;
    let at = buckets[..n - 1].iter().position(|b| b.count >= rank).unwrap_or(n - 1);
    if at == n - 1 {
        return (buckets[n - 2].upper, forced);
    }
    if at == 0 && buckets[0].upper <= 0.0 {
        return (buckets[0].upper, forced);
    }
    let end = buckets[at].upper;
    let (mut start, mut count) = (0.0, buckets[at].count);
    if at > 0 {
        start = buckets[at - 1].upper;
        count -= buckets[at - 1].count;
        rank -= buckets[at - 1].count;
    }
    (start + (end - start) * (rank / count), forced)
}

/// The share of observations between two values.
pub(super) fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if !sorted(buckets) {
        return f64::NAN;
    }
    let count = buckets.last().map_or(0.0, |b| b.count);
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    // Observations at or below a value. Within a bucket without an end nothing can be said.
    let rank_of = |v: f64| {
        let mut below = 0.0;
        let mut from = if buckets[0].upper > 0.0 { 0.0 } else { f64::NEG_INFINITY };
        for b in buckets.iter() {
            if from >= v {
                return below;
            }
            if b.upper > v {
                return if from == f64::NEG_INFINITY {
                    b.count
                } else {
                    below + (b.count - below) * (v - from) / (b.upper - from)
                };
            }
            below = b.count;
            from = b.upper;
        }
        count
    };
    (rank_of(upper).min(count) - rank_of(lower).min(count)) / count
}
