//! Functions of a range vector where there are native histograms among the samples.

use std::sync::Arc;

use signal::FloatHistogram;
use signal::histogram::{HistogramMean, HistogramSum, Incompatible};

use super::rate::{Rate, instant, started_anew};
use crate::annotations::{
    Doing, bounds_reconciled, ignored_in_range, mixed_kinds, mixed_schemas, reset_conflict,
};
use crate::ast::{Edges, Expr};
use crate::eval::Evaluator;
use crate::value::Cell;
use crate::window::{self, Window};

/// One window of one series, and what its notes point at.
pub(crate) struct Mixed<'a> {
    pub(crate) ev: &'a Evaluator<'a>,
    pub(crate) arg: &'a Expr,
    pub(crate) metric: &'a str,
    pub(crate) edges: Edges,
}

/// One sample of either kind.
#[derive(Clone, Copy)]
struct Either<'a> {
    start: i64,
    t: i64,
    float: f64,
    histogram: Option<&'a Arc<FloatHistogram>>,
}

impl Mixed<'_> {
    /// The value of a window. `floats` is the function of its floats alone, for those that have no use for
    /// histograms.
    pub(crate) fn value(
        &self,
        name: &str,
        w: Window<'_>,
        floats: impl FnOnce(Window<'_>) -> Option<f64>,
    ) -> Option<Cell> {
        let rate = |counter, per_second| Rate {
            counter,
            per_second,
            arg: self.arg,
            metric: self.metric,
            edges: self.edges,
        };
        let seconds = |t: i64| Some(Cell::Float(t as f64 / 1000.0));
        match name {
            "rate" => rate(true, true).extrapolated(self.ev, w),
            "increase" => rate(true, false).extrapolated(self.ev, w),
            "delta" => rate(false, false).extrapolated(self.ev, w),
            "irate" | "idelta" => instant(self.ev, self.arg, self.metric, w, name == "irate"),
            "count_over_time" => Some(Cell::Float((w.t.len() + w.h.len()) as f64)),
            "present_over_time" | "absent_over_time" => Some(Cell::Float(1.0)),
            "first_over_time" => first(w).map(cell),
            "last_over_time" => last(w).map(cell),
            "ts_of_first_over_time" => first(w).and_then(|s| seconds(s.t)),
            "ts_of_last_over_time" => last(w).and_then(|s| seconds(s.t)),
            "changes" => self.steps(w, |a, b| match (a.histogram, b.histogram) {
                (None, None) => b.float != a.float && !(a.float.is_nan() && b.float.is_nan()),
                (Some(a), Some(b)) => a != b,
                _ => true,
            }),
            "resets" => self.steps(w, |a, b| match (a.histogram, b.histogram) {
                (None, None) => b.float < a.float || started_anew((a.start, a.t), (b.start, b.t)),
                (Some(x), Some(y)) => started_anew((a.start, a.t), (b.start, b.t)) || y.is_reset_after(x),
                _ => true,
            }),
            "sum_over_time" | "avg_over_time" if !w.h.is_empty() => {
                if !w.t.is_empty() {
                    self.ev.warn(self.arg, mixed_kinds(self.metric));
                    return None;
                }
                self.total(w, name == "avg_over_time").map(Cell::from)
            }
            _ => {
                if w.t.is_empty() {
                    return None;
                }
                if !w.h.is_empty() {
                    self.ev.inform(self.arg, ignored_in_range(self.metric));
                }
                floats(w).map(Cell::Float)
            }
        }
    }

    /// How many of the steps from one sample to the next fulfil a condition.
    fn steps(&self, w: Window<'_>, f: impl Fn(Either<'_>, Either<'_>) -> bool) -> Option<Cell> {
        let (from, h_from) = match self.edges {
            Edges::Anchored => window::anchor(w)?,
            _ => (0, 0),
        };
        let all = merged(w, from, h_from);
        Some(Cell::Float(all.windows(2).filter(|p| f(p[0], p[1])).count() as f64))
    }

    fn total(&self, w: Window<'_>, mean: bool) -> Option<FloatHistogram> {
        let (first, rest) = w.h.split_first()?;
        let rest = rest.iter().map(|h| &*h.histogram);
        let note = |done: Result<bool, Incompatible>, reconciled: &mut bool| match done {
            Ok(r) => {
                *reconciled |= r;
                Some(())
            }
            Err(_) => {
                self.ev.warn(self.arg, mixed_schemas(self.metric));
                None
            }
        };
        let mut reconciled = false;
        let (out, conflict) = if mean {
            let mut m = HistogramMean::new(&first.histogram);
            for h in rest {
                note(m.add(h), &mut reconciled)?;
            }
            let conflict = m.reset_conflict();
            (m.finish(), conflict)
        } else {
            let mut s = HistogramSum::new(&first.histogram);
            for h in rest {
                note(s.add(h), &mut reconciled)?;
            }
            let conflict = s.reset_conflict();
            (s.finish(), conflict)
        };
        if conflict {
            self.ev.warn(self.arg, reset_conflict(Doing::Aggregation));
        }
        if reconciled {
            self.ev.inform(self.arg, bounds_reconciled(Doing::Aggregation));
        }
        Some(out)
    }
}

fn cell(s: Either<'_>) -> Cell {
    s.histogram.map_or(Cell::Float(s.float), |h| Cell::Histogram(h.clone()))
}

fn float<'a>(w: Window<'a>, i: usize) -> Option<Either<'a>> {
    let start = w.starts.get(i).copied().unwrap_or(0);
    Some(Either { start, t: *w.t.get(i)?, float: *w.v.get(i)?, histogram: None })
}

fn histogram<'a>(w: Window<'a>, i: usize) -> Option<Either<'a>> {
    let h = w.h.get(i)?;
    Some(Either { start: h.start, t: h.timestamp, float: 0.0, histogram: Some(&h.histogram) })
}

fn first(w: Window<'_>) -> Option<Either<'_>> {
    [float(w, 0), histogram(w, 0)].into_iter().flatten().min_by_key(|s| s.t)
}

fn last(w: Window<'_>) -> Option<Either<'_>> {
    let back = |n: usize| n.checked_sub(1);
    let floats = back(w.t.len()).and_then(|i| float(w, i));
    let histograms = back(w.h.len()).and_then(|i| histogram(w, i));
    floats.into_iter().chain(histograms).max_by_key(|s| s.t)
}

/// Samples of both kinds in order of time.
fn merged<'a>(w: Window<'a>, from: usize, h_from: usize) -> Vec<Either<'a>> {
    let mut all: Vec<Either<'a>> = (from..w.t.len()).filter_map(|i| float(w, i)).collect();
    all.extend((h_from..w.h.len()).filter_map(|i| histogram(w, i)));
    if !w.h.is_empty() {
        all.sort_by_key(|s| s.t);
    }
    all
}
