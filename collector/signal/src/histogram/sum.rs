//! Sums and means of many histograms with the rounding errors kept track of (Neumaier's correction, as in
//! Prometheus: FloatHistogram.KahanAdd).

use std::sync::Arc;

use super::combine::{beyond, shared_bounds, target};
use super::{Bucket, FloatHistogram, Incompatible, ResetHint, bound};

/// A number and what was lost by rounding it.
#[derive(Clone, Copy, Debug, Default)]
struct Exact {
    value: f64,
    lost: f64,
}

impl Exact {
    fn add(&mut self, v: f64) {
        let t = self.value + v;
        if t.is_infinite() {
            self.lost = 0.0;
        } else if self.value.abs() >= v.abs() {
            self.lost += (self.value - t) + v;
        } else {
            self.lost += (v - t) + self.value;
        }
        self.value = t;
    }

    fn join(&mut self, other: Exact) {
        self.add(other.value);
        self.add(other.lost);
    }
}

/// The sum of histograms that were added.
#[derive(Clone, Debug)]
pub struct HistogramSum {
    hint: ResetHint,
    schema: i32,
    zero_threshold: f64,
    zero: Exact,
    count: Exact,
    sum: Exact,
    positive: Vec<(i32, Exact)>,
    negative: Vec<(i32, Exact)>,
    bounds: Arc<[f64]>,
    saw_reset: bool,
    saw_no_reset: bool,
}

impl HistogramSum {
    pub fn new(first: &FloatHistogram) -> Self {
        let exact = |value| Exact { value, lost: 0.0 };
        let all = |b: &[Bucket]| b.iter().map(|b| (b.index, exact(b.count))).collect();
        let mut s = HistogramSum {
            hint: first.hint,
            schema: first.schema,
            zero_threshold: first.zero_threshold,
            zero: exact(first.zero_count),
            count: exact(first.count),
            sum: exact(first.sum),
            positive: all(&first.positive),
            negative: all(&first.negative),
            bounds: first.bounds.clone(),
            saw_reset: false,
            saw_no_reset: false,
        };
        s.see(first.hint);
        s
    }

    fn see(&mut self, hint: ResetHint) {
        self.saw_reset |= hint == ResetHint::Reset;
        self.saw_no_reset |= hint == ResetHint::NotReset;
    }

    /// Histograms with and without a reset were added.
    pub fn reset_conflict(&self) -> bool {
        self.saw_reset && self.saw_no_reset
    }

    /// True if custom bounds had to be reconciled.
    pub fn add(&mut self, other: &FloatHistogram) -> Result<bool, Incompatible> {
        self.see(other.hint);
        if (self.schema == super::CUSTOM_SCHEMA) != other.is_custom() {
            return Err(Incompatible);
        }
        let mut hint = FloatHistogram { hint: self.hint, ..FloatHistogram::default() };
        hint.join_hint(other.hint);
        self.hint = hint.hint;
        self.count.add(other.count);
        self.sum.add(other.sum);
        if other.is_custom() {
            let reconciled = self.bounds != other.bounds;
            if reconciled {
                let shared = shared_bounds(&self.bounds, &other.bounds);
                let old = std::mem::take(&mut self.positive);
                for (index, exact) in old {
                    slot(&mut self.positive, target(index, &self.bounds, &shared)).join(exact);
                }
                for b in &other.positive {
                    slot(&mut self.positive, target(b.index, &other.bounds, &shared)).add(b.count);
                }
                self.bounds = shared;
            } else {
                add_all(&mut self.positive, &other.positive);
            }
            return Ok(reconciled);
        }
        self.add_zero(other);
        self.reduce(other.schema);
        let t = self.zero_threshold;
        for (mine, theirs) in [(&mut self.positive, &other.positive), (&mut self.negative, &other.negative)] {
            let theirs = super::reset::coarser(theirs, other.schema, self.schema);
            add_all(mine, beyond(&theirs, self.schema, t));
        }
        Ok(false)
    }

    /// Makes the zero buckets equally wide and adds the other's.
    fn add_zero(&mut self, other: &FloatHistogram) {
        let (mut zero, mut threshold) = (other.zero_count, other.zero_threshold);
        while threshold != self.zero_threshold {
            if self.zero_threshold > threshold {
                (zero, threshold) = other.zero_count_within(self.zero_threshold);
            }
            if threshold > self.zero_threshold {
                let (_, wide) = self.plain().zero_count_within(threshold);
                self.zero_threshold = wide;
                let schema = self.schema;
                let mut inside = Vec::new();
                for side in [&mut self.positive, &mut self.negative] {
                    side.retain(|(index, exact)| {
                        let stays = bound(index - 1, schema, &[]) >= wide;
                        if !stays {
                            inside.push(*exact);
                        }
                        stays
                    });
                }
                inside.into_iter().for_each(|e| self.zero.join(e));
            }
        }
        self.zero.add(zero);
    }

    fn reduce(&mut self, schema: i32) {
        if schema >= self.schema {
            return;
        }
        let shift = (self.schema - schema).unsigned_abs().min(31);
        for side in [&mut self.positive, &mut self.negative] {
            for (index, exact) in std::mem::take(side) {
                slot(side, ((index - 1) >> shift) + 1).join(exact);
            }
        }
        self.schema = schema;
    }

    fn parts(&mut self) -> impl Iterator<Item = &mut Exact> {
        let buckets = self.positive.iter_mut().chain(&mut self.negative).map(|(_, e)| e);
        [&mut self.zero, &mut self.count, &mut self.sum].into_iter().chain(buckets)
    }

    fn overflows(&mut self) -> bool {
        self.parts().any(|e| e.value.is_infinite())
    }

    fn scale(&mut self, factor: f64) {
        self.parts().for_each(|e| {
            e.value *= factor;
            e.lost *= factor;
        });
    }

    fn divide(&mut self, by: f64) {
        self.parts().for_each(|e| {
            e.value /= by;
            e.lost /= by;
        });
    }

    fn plain(&self) -> FloatHistogram {
        let all = |side: &[(i32, Exact)]| {
            let buckets = side.iter().map(|(index, e)| Bucket { index: *index, count: e.value + e.lost });
            buckets.filter(|b| b.count != 0.0).collect()
        };
        FloatHistogram {
            hint: self.hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero.value + self.zero.lost,
            count: self.count.value + self.count.lost,
            sum: self.sum.value + self.sum.lost,
            positive: all(&self.positive),
            negative: all(&self.negative),
            bounds: self.bounds.clone(),
        }
    }

    pub fn finish(self) -> FloatHistogram {
        self.plain()
    }
}

/// The place of an index in a sorted list.
fn slot(side: &mut Vec<(i32, Exact)>, index: i32) -> &mut Exact {
    let at = match side.binary_search_by_key(&index, |(i, _)| *i) {
        Ok(at) => at,
        Err(at) => {
            side.insert(at, (index, Exact::default()));
            at
        }
    };
    &mut side[at].1
}

fn add_all(side: &mut Vec<(i32, Exact)>, buckets: &[Bucket]) {
    for b in buckets {
        match side.binary_search_by_key(&b.index, |(i, _)| *i) {
            Ok(at) => side[at].1.add(b.count),
            Err(at) => side.insert(at, (b.index, Exact { value: b.count, lost: 0.0 })),
        }
    }
}

/// The mean of histograms: their sum while that is finite, else moved step by step.
#[derive(Clone, Debug)]
pub struct HistogramMean {
    sum: HistogramSum,
    n: f64,
    moving: bool,
}

impl HistogramMean {
    pub fn new(first: &FloatHistogram) -> Self {
        HistogramMean { sum: HistogramSum::new(first), n: 1.0, moving: false }
    }

    pub fn reset_conflict(&self) -> bool {
        self.sum.reset_conflict()
    }

    /// True if custom bounds had to be reconciled.
    pub fn add(&mut self, h: &FloatHistogram) -> Result<bool, Incompatible> {
        self.n += 1.0;
        if !self.moving {
            let mut next = self.sum.clone();
            let reconciled = next.add(h)?;
            if !next.overflows() {
                self.sum = next;
                return Ok(reconciled);
            }
            self.moving = true;
            self.sum.divide(self.n - 1.0);
        }
        self.sum.scale((self.n - 1.0) / self.n);
        let mut share = h.clone();
        share.divide(self.n);
        self.sum.add(&share)
    }

    pub fn finish(mut self) -> FloatHistogram {
        if !self.moving {
            self.sum.divide(self.n);
        }
        self.sum.finish()
    }
}
