//! Native histograms: a distribution in one sample, its buckets sparse and their bounds given by a rule.
//!
//! Schemas −4 to 8 are exponential: bucket `i` of schema `n` ends at 2^(i / 2^n), so the next schema up has twice
//! the buckets. Schema −53 has bounds of its own (classic histograms made native). Buckets without observations
//! are left out, so equal distributions have equal buckets.

mod combine;
mod reset;
mod spans;
mod sum;

use std::fmt;
use std::sync::Arc;

pub use combine::Combined;
pub use spans::Span;
pub use sum::{HistogramMean, HistogramSum};

use crate::{STALE_NAN_BITS, is_stale_nan};

/// The schema of histograms with bounds of their own.
pub const CUSTOM_SCHEMA: i32 = -53;

/// What is known of a histogram's relation to the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetHint {
    /// Must be found out by comparing.
    #[default]
    Unknown,
    /// Counting began anew.
    Reset,
    /// It continues the one before.
    NotReset,
    /// It is no counter: each stands for itself.
    Gauge,
}

/// One bucket with observations. Its bounds follow from the index and the schema.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    pub index: i32,
    pub count: f64,
}

/// A bucket with its bounds: `lower < v ≤ upper`, mirrored below zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounded {
    pub lower: f64,
    pub upper: f64,
    pub count: f64,
}

/// A histogram whose counts may be fractions, as rates are.
#[derive(Clone, Debug, Default)]
pub struct FloatHistogram {
    pub hint: ResetHint,
    /// −4 to 8, or [`CUSTOM_SCHEMA`].
    pub schema: i32,
    /// Observations of at most this size are counted in `zero_count`.
    pub zero_threshold: f64,
    pub zero_count: f64,
    pub count: f64,
    pub sum: f64,
    /// In ascending order of index.
    pub positive: Vec<Bucket>,
    pub negative: Vec<Bucket>,
    /// Upper bounds of custom buckets, ascending; the last bucket, up to +∞, has none.
    pub bounds: Arc<[f64]>,
}

/// One native histogram of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSample {
    /// Milliseconds.
    pub timestamp: i64,
    /// When counting began, in milliseconds; 0 if that is not known.
    pub start: i64,
    pub histogram: Arc<FloatHistogram>,
}

/// Two histograms of which one has exponential and the other custom buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot apply this operation on histograms with a mix of exponential and custom bucket schemas")]
pub struct Incompatible;

/// Compares data, not numbers: NaN equals the same NaN. Hints are not part of the data.
impl PartialEq for FloatHistogram {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let buckets = |a: &[Bucket], b: &[Bucket]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.index == b.index && same(a.count, b.count))
        };
        self.schema == other.schema
            && same(self.count, other.count)
            && same(self.sum, other.sum)
            && self.bounds == other.bounds
            && self.zero_threshold == other.zero_threshold
            && same(self.zero_count, other.zero_count)
            && buckets(&self.positive, &other.positive)
            && buckets(&self.negative, &other.negative)
    }
}

impl FloatHistogram {
    /// The marker that ends a series of histograms.
    pub fn stale() -> Self {
        FloatHistogram { sum: f64::from_bits(STALE_NAN_BITS), ..FloatHistogram::default() }
    }

    pub fn is_stale(&self) -> bool {
        is_stale_nan(self.sum)
    }

    pub fn is_custom(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// Buckets from a run of counts that begins at `first`; empty ones are left out.
    pub fn buckets(first: i32, counts: &[f64]) -> Vec<Bucket> {
        let all = (first..).zip(counts).map(|(index, count)| Bucket { index, count: *count });
        all.filter(|b| b.count != 0.0).collect()
    }

    /// Where bucket `index` ends, without its sign.
    pub fn bound(&self, index: i32) -> f64 {
        bound(index, self.schema, &self.bounds)
    }

    fn positive_bounds(&self, b: Bucket) -> Bounded {
        Bounded { lower: self.bound(b.index - 1), upper: self.bound(b.index), count: b.count }
    }

    fn negative_bounds(&self, b: Bucket) -> Bounded {
        Bounded { lower: -self.bound(b.index), upper: -self.bound(b.index - 1), count: b.count }
    }

    /// Positive buckets, ascending.
    pub fn above(&self) -> impl DoubleEndedIterator<Item = Bounded> + '_ {
        self.positive.iter().map(|b| self.positive_bounds(*b))
    }

    /// Negative buckets, away from zero.
    pub fn below(&self) -> impl DoubleEndedIterator<Item = Bounded> + '_ {
        self.negative.iter().map(|b| self.negative_bounds(*b))
    }

    pub fn zero_bucket(&self) -> Option<Bounded> {
        let t = self.zero_threshold;
        (self.zero_count > 0.0).then_some(Bounded { lower: -t, upper: t, count: self.zero_count })
    }

    /// All buckets from the lowest to the highest; none reaches into the zero bucket.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = Bounded> + '_ {
        let t = self.zero_threshold;
        let outside = move |mut b: Bounded| {
            if b.upper < 0.0 && b.upper > -t {
                b.upper = -t;
            } else if b.lower > 0.0 && b.lower < t {
                b.lower = t;
            }
            b
        };
        self.below().rev().map(outside).chain(self.zero_bucket()).chain(self.above().map(outside))
    }

    /// Drops buckets that have become empty.
    pub fn compact(&mut self) {
        self.positive.retain(|b| b.count != 0.0);
        self.negative.retain(|b| b.count != 0.0);
    }

    /// What a query must know of a stored histogram, given its predecessor in the same series, if that was a
    /// histogram too. Explicit resets become unknown, since the sample before them may be missing in a query.
    pub fn stored_hint(&self, previous: Option<&FloatHistogram>) -> ResetHint {
        if self.hint == ResetHint::Gauge {
            return ResetHint::Gauge;
        }
        let Some(p) = previous else { return ResetHint::Unknown };
        let follows = p.hint != ResetHint::Gauge
            && self.hint != ResetHint::Reset
            && !p.is_stale()
            && self.schema == p.schema
            && self.zero_threshold == p.zero_threshold
            && self.bounds == p.bounds
            && !reset::counts_fell(self, p);
        if follows { ResetHint::NotReset } else { ResetHint::Unknown }
    }

    /// Bytes of heap and of itself, about.
    pub fn size(&self) -> usize {
        size_of::<Self>() + (self.positive.len() + self.negative.len()) * size_of::<Bucket>()
    }

    /// Why a histogram from outside cannot be stored, if so.
    pub fn validate(&self) -> Result<(), String> {
        if !self.is_custom() && !(-4..=8).contains(&self.schema) {
            return Err(format!(
                "histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom buckets, got schema {}",
                self.schema
            ));
        }
        if self.is_custom() {
            if self.bounds.iter().any(|b| b.is_nan()) {
                return Err("custom buckets: histogram custom bounds must not be NaN".to_owned());
            }
            if self.bounds.windows(2).any(|w| w[0] >= w[1]) {
                return Err(
                    "custom buckets: histogram custom bounds must be in strictly increasing order".to_owned()
                );
            }
            if self.bounds.iter().any(|b| b.is_infinite()) {
                return Err("custom buckets: histogram custom bounds must be finite".to_owned());
            }
            if self.zero_count != 0.0 || self.zero_threshold != 0.0 || !self.negative.is_empty() {
                return Err("custom buckets: must have neither zero bucket nor negative buckets".to_owned());
            }
            let last = self.bounds.len() as i64;
            if self.positive.iter().any(|b| b.index < 0 || i64::from(b.index) > last) {
                return Err("custom buckets: histogram custom bounds are too few".to_owned());
            }
        } else if !self.bounds.is_empty() {
            return Err("histogram with exponential schema must not have custom bounds".to_owned());
        }
        let unordered = |b: &[Bucket]| b.windows(2).any(|w| w[0].index >= w[1].index);
        if unordered(&self.positive) || unordered(&self.negative) {
            return Err("histogram has a span whose offset is negative".to_owned());
        }
        if self.positive.iter().chain(&self.negative).any(|b| b.count < 0.0) || self.zero_count < 0.0 {
            return Err("histogram has a bucket whose observation count is negative".to_owned());
        }
        if self.count < 0.0 {
            return Err("histogram's observation count is negative".to_owned());
        }
        Ok(())
    }
}

/// 2^`exponent` exactly, also where the result is subnormal.
fn power_of_two(exponent: i32) -> f64 {
    match exponent {
        1024.. => f64::INFINITY,
        -1022..=1023 => f64::from_bits(((exponent + 1023) as u64) << 52),
        -1074..=-1023 => f64::from_bits(1 << (exponent + 1074)),
        _ => 0.0,
    }
}

pub(crate) fn bound(index: i32, schema: i32, bounds: &[f64]) -> f64 {
    if schema == CUSTOM_SCHEMA {
        return match usize::try_from(index) {
            Err(_) => f64::NEG_INFINITY,
            Ok(i) => bounds.get(i).copied().unwrap_or(f64::INFINITY),
        };
    }
    // The bucket that holds the largest finite float ends there; the one behind it holds the infinities.
    if schema < 0 {
        let exponent = i64::from(index) << -schema;
        return match i32::try_from(exponent) {
            Ok(1024) => f64::MAX,
            Ok(e) => power_of_two(e),
            Err(_) if exponent > 0 => f64::INFINITY,
            Err(_) => 0.0,
        };
    }
    let (whole, part) = (index >> schema, index & ((1 << schema) - 1));
    if part == 0 {
        return if whole == 1024 { f64::MAX } else { power_of_two(whole) };
    }
    let fraction = (f64::from(part) / f64::from(1 << schema)).exp2();
    // Scaled in two steps, so that a small result is rounded once.
    let half = whole.clamp(-1022, 1023);
    fraction * power_of_two(half) * power_of_two(whole - half)
}

impl fmt::Display for FloatHistogram {
    /// As Prometheus prints one: `{count:3, sum:4, (1,2]:3}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", general(self.count), general(self.sum))?;
        let custom = self.is_custom();
        for b in self.below().rev() {
            write!(f, ", [{},{}):{}", general(b.lower), general(b.upper), general(b.count))?;
        }
        if self.zero_count != 0.0 {
            let t = self.zero_threshold;
            write!(f, ", [{},{}]:{}", general(-t), general(t), general(self.zero_count))?;
        }
        for b in self.above() {
            let open = if custom && b.lower == f64::NEG_INFINITY { '[' } else { '(' };
            write!(f, ", {open}{},{}]:{}", general(b.lower), general(b.upper), general(b.count))?;
        }
        f.write_str("}")
    }
}

/// A float as Go's `%g` prints it: the shortest digits, with an exponent where it is below −4 or at least 6.
pub fn general(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if v == 0.0 {
        return if v.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let scientific = format!("{v:e}");
    let (digits, exponent) = scientific.split_once('e').expect("{:e} always writes an exponent");
    let exponent: i32 = exponent.parse().expect("{:e} writes an integer");
    if !(-4..6).contains(&exponent) {
        return format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    v.to_string()
}

#[cfg(test)]
mod tests;
