//! `rate` and its like wherever there are native histograms, start times, or extended edges (Prometheus:
//! promql/functions.go extrapolatedRate, histogramRate, extendedHistogramRate, instantValue).

use std::borrow::Cow;

use signal::histogram::ResetHint;
use signal::{FloatHistogram, HistogramSample};

use crate::annotations::{Doing, bounds_reconciled, mixed_kinds, mixed_schemas, not_a_counter, not_a_gauge};
use crate::ast::{Edges, Expr};
use crate::eval::Evaluator;
use crate::value::Cell;
use crate::window::{self, Window, extent};

/// Which of the functions it is, and what its notes point at.
#[derive(Clone, Copy)]
pub(crate) struct Rate<'a> {
    pub(crate) counter: bool,
    pub(crate) per_second: bool,
    pub(crate) arg: &'a Expr,
    pub(crate) metric: &'a str,
    pub(crate) edges: Edges,
}

/// A start time says that counting began anew between two samples.
pub(crate) fn started_anew(before: (i64, i64), now: (i64, i64)) -> bool {
    let ((before_start, before_t), (start, t)) = (before, now);
    // Not known, clearly wrong, or OpenTelemetry's way to say that it is not known.
    if start == 0 || start >= t || start < before_t {
        return false;
    }
    // Equal times: a delta if the sample before has a sound start, else a cumulative of unknown start.
    start > before_t || before_start <= before_t && before_start != 0 && before_start != before_t
}

fn overlaps(before: (i64, i64), start: i64) -> bool {
    start != 0 && start < before.1 && start != before.0
}

impl Rate<'_> {
    pub(crate) fn extrapolated(self, ev: &Evaluator<'_>, w: Window<'_>) -> Option<Cell> {
        if !w.h.is_empty() && !w.t.is_empty() {
            ev.warn(self.arg, mixed_kinds(self.metric));
            return None;
        }
        if self.edges != Edges::Plain {
            let smoothed = self.edges == Edges::Smoothed;
            return if w.h.is_empty() {
                window::extended(w, smoothed, self.counter, self.per_second).map(Cell::Float)
            } else {
                self.extended_histograms(ev, w, smoothed).map(Cell::from)
            };
        }
        let n = w.t.len().max(w.h.len());
        // (start, time) of a sample.
        let times = |i: usize| match w.h.get(i) {
            Some(h) => (h.start, h.timestamp),
            None => (w.starts.get(i).copied().unwrap_or(0), w.t[i]),
        };
        let (first, last) = (times(0), times(n - 1));
        let mut float = 0.0;
        let mut histogram = None;
        if w.h.is_empty() {
            float = w.v[n - 1] - w.v[0];
            if self.counter {
                float += self.lost_to_resets(ev, w, times);
            }
        } else if n > 1 {
            histogram = Some(self.histograms(ev, w.h)?);
        }
        let mut to_start = (first.1 - w.start) as f64 / 1000.0;
        let mut to_end = (w.end - last.1) as f64 / 1000.0;
        let mut sampled = (last.1 - first.1) as f64 / 1000.0;
        let average = if n > 1 { sampled / (n - 1) as f64 } else { 0.0 };
        let threshold = average * 1.1;
        if self.counter && first.0 != 0 && first.0 > w.start && first.0 < first.1 {
            // Counting began inside the window: there it was zero, and nothing need be guessed.
            to_start = 0.0;
            sampled = (last.1 - first.0) as f64 / 1000.0;
            match (w.h.first(), &mut histogram) {
                (None, _) => float += w.v[0],
                (Some(h), None) => histogram = Some((*h.histogram).clone()),
                (Some(h), Some(sum)) => self.add(ev, sum, &h.histogram)?,
            }
        } else if n == 1 {
            return None;
        } else {
            if to_start >= threshold {
                to_start = average / 2.0;
            }
            if self.counter {
                // A counter cannot have been below zero: do not go past the time it would have been zero.
                let (now, grown) = match (w.h.first(), &histogram) {
                    (Some(h), Some(sum)) => (h.histogram.count, sum.count),
                    _ => (w.v[0], float),
                };
                if grown > 0.0 && now >= 0.0 {
                    to_start = to_start.min(sampled * (now / grown));
                }
            }
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        let mut factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
        if self.per_second {
            factor /= (w.end - w.start) as f64 / 1000.0;
        }
        Some(match histogram {
            None => Cell::Float(float * factor),
            Some(mut h) => {
                h.scale(factor);
                Cell::from(h)
            }
        })
    }

    /// What a float counter had reached before each reset.
    fn lost_to_resets(self, ev: &Evaluator<'_>, w: Window<'_>, times: impl Fn(usize) -> (i64, i64)) -> f64 {
        let (mut lost, mut overlap) = (0.0, false);
        for i in 1..w.v.len() {
            let (before, now) = (times(i - 1), times(i));
            if !overlap && overlaps(before, now.0) {
                ev.notes.borrow_mut().overlap(self.arg.span.0, self.metric);
                overlap = true;
            }
            if w.v[i] < w.v[i - 1] || started_anew(before, now) {
                lost += w.v[i - 1];
            }
        }
        lost
    }

    /// The growth from the first histogram to the last.
    fn histograms(self, ev: &Evaluator<'_>, points: &[HistogramSample]) -> Option<FloatHistogram> {
        let (first, last) = (&points[0].histogram, &points[points.len() - 1].histogram);
        let times = |i: usize| (points[i].start, points[i].timestamp);
        let mut before: Cow<'_, FloatHistogram> = Cow::Borrowed(first);
        if self.counter {
            if first.hint == ResetHint::Gauge || last.hint == ResetHint::Gauge {
                ev.warn(self.arg, not_a_counter(self.metric));
            }
            let second = &points[1].histogram;
            if started_anew(times(0), times(1)) || second.is_reset_after(first) {
                // The first is not looked at, so its layout must not matter either.
                let (schema, bounds) = (second.schema, second.bounds.clone());
                before = Cow::Owned(FloatHistogram { schema, bounds, ..FloatHistogram::default() });
            }
        }
        let custom = before.is_custom();
        let mut schema = last.schema.min(before.schema);
        let mut alike = last.is_custom() == custom;
        for p in points[1..points.len() - 1].iter().filter(|_| self.counter) {
            if !alike {
                break;
            }
            if p.histogram.hint == ResetHint::Gauge {
                ev.warn(self.arg, not_a_counter(self.metric));
            }
            schema = schema.min(p.histogram.schema);
            alike = p.histogram.is_custom() == custom;
        }
        if !alike {
            ev.warn(self.arg, mixed_schemas(self.metric));
            return None;
        }
        let mut out = (**last).clone();
        out.reduce(schema);
        self.subtract(ev, &mut out, &before)?;
        if self.counter {
            let mut overlap = false;
            for (i, point) in points.iter().enumerate().skip(1) {
                let now = &point.histogram;
                if !overlap && overlaps(times(i - 1), point.start) {
                    ev.notes.borrow_mut().overlap(self.arg.span.0, self.metric);
                    overlap = true;
                }
                if started_anew(times(i - 1), times(i)) || now.is_reset_after(&before) {
                    self.add(ev, &mut out, &before)?;
                }
                before = Cow::Borrowed(now);
            }
        } else if first.hint != ResetHint::Gauge || last.hint != ResetHint::Gauge {
            ev.warn(self.arg, not_a_gauge(self.metric));
        }
        out.hint = ResetHint::Gauge;
        Some(out)
    }

    fn add(self, ev: &Evaluator<'_>, to: &mut FloatHistogram, h: &FloatHistogram) -> Option<()> {
        self.noted(ev, to.add(h), Doing::Addition)
    }

    fn subtract(self, ev: &Evaluator<'_>, from: &mut FloatHistogram, h: &FloatHistogram) -> Option<()> {
        self.noted(ev, from.sub(h), Doing::Subtraction)
    }

    fn noted(
        self,
        ev: &Evaluator<'_>,
        done: Result<signal::histogram::Combined, signal::histogram::Incompatible>,
        doing: Doing,
    ) -> Option<()> {
        note(ev, self.arg, self.metric, done, doing)
    }

    fn extended_histograms(
        self,
        ev: &Evaluator<'_>,
        w: Window<'_>,
        smoothed: bool,
    ) -> Option<FloatHistogram> {
        let h = w.h;
        let (first, last) = extent(|i| h[i].timestamp, h.len(), w.start, w.end, smoothed)?;
        for p in &h[first..=last] {
            if p.histogram.is_custom() != h[first].histogram.is_custom() {
                ev.warn(self.arg, mixed_schemas(self.metric));
                return None;
            }
            if self.counter && p.histogram.hint == ResetHint::Gauge {
                ev.warn(self.arg, not_a_counter(self.metric));
            }
        }
        let on_line = |a: usize, at| self.interpolate(ev, &h[a], &h[a + 1], at);
        let left = if smoothed && h[first].timestamp < w.start {
            on_line(first, w.start)?
        } else {
            (*h[first].histogram).clone()
        };
        let right = if smoothed && last > 0 && h[last].timestamp > w.end {
            on_line(last - 1, w.end)?
        } else {
            (*h[last].histogram).clone()
        };
        if !self.counter && (left.hint != ResetHint::Gauge || right.hint != ResetHint::Gauge) {
            ev.warn(self.arg, not_a_gauge(self.metric));
        }
        let mut out = right.clone();
        self.subtract(ev, &mut out, &left)?;
        if self.counter {
            self.correct(ev, &mut out, w, (first, last), (&left, &right), smoothed)?;
        }
        if self.per_second {
            out.divide((w.end - w.start) as f64 / 1000.0);
        }
        out.hint = ResetHint::Gauge;
        Some(out)
    }

    /// Adds what was reached before each reset between the two edges.
    fn correct(
        self,
        ev: &Evaluator<'_>,
        out: &mut FloatHistogram,
        w: Window<'_>,
        (first, last): (usize, usize),
        (left, right): (&FloatHistogram, &FloatHistogram),
        smoothed: bool,
    ) -> Option<()> {
        let h = w.h;
        let mut from = first + 1;
        let mut before = left;
        let across = smoothed
            && h[first].timestamp < w.start
            && h.get(first + 1).is_some_and(|n| n.histogram.is_reset_after(&h[first].histogram));
        if across {
            // The left edge has seen to the reset that it lies across.
            before = &h[first + 1].histogram;
            from += 1;
        }
        // The last sample is the right edge itself, or lies behind it.
        if from > last {
            return Some(());
        }
        let mut lost: Option<FloatHistogram> = None;
        let inner = h[from..last].iter().map(|p| &*p.histogram);
        for now in inner.chain([right]) {
            if now.is_reset_after(before) {
                match &mut lost {
                    None => lost = Some(before.clone()),
                    Some(sum) => self.add(ev, sum, before)?,
                }
            }
            before = now;
        }
        lost.map_or(Some(()), |l| self.add(ev, out, &l))
    }

    /// A histogram on the straight line between two.
    fn interpolate(
        self,
        ev: &Evaluator<'_>,
        a: &HistogramSample,
        b: &HistogramSample,
        at: i64,
    ) -> Option<FloatHistogram> {
        if at == a.timestamp {
            return Some((*a.histogram).clone());
        }
        let mut out = (*b.histogram).clone();
        if at == b.timestamp {
            return Some(out);
        }
        let share = (at - a.timestamp) as f64 / (b.timestamp - a.timestamp) as f64;
        if self.counter && b.histogram.is_reset_after(&a.histogram) {
            out.scale(share);
            return Some(out);
        }
        self.subtract(ev, &mut out, &a.histogram)?;
        out.scale(share);
        self.add(ev, &mut out, &a.histogram)?;
        Some(out)
    }
}

/// A smoothed histogram at a time, from its neighbours.
pub(crate) fn between(
    ev: &Evaluator<'_>,
    arg: &Expr,
    metric: &str,
    before: Option<&HistogramSample>,
    next: Option<&HistogramSample>,
    at: i64,
) -> Option<FloatHistogram> {
    match (before, next) {
        (_, Some(n)) if n.timestamp == at => Some((*n.histogram).clone()),
        (Some(a), Some(b)) => {
            if a.histogram.is_custom() != b.histogram.is_custom() {
                ev.warn(arg, mixed_schemas(metric));
                return None;
            }
            let counter = a.histogram.hint != ResetHint::Gauge || b.histogram.hint != ResetHint::Gauge;
            let rate = Rate { counter, per_second: false, arg, metric, edges: Edges::Smoothed };
            rate.interpolate(ev, a, b, at)
        }
        (Some(a), None) => {
            let mut h = (*a.histogram).clone();
            // The hint is about two samples, not about this one's value.
            h.hint = ResetHint::Unknown;
            Some(h)
        }
        (None, _) => None,
    }
}

/// Says what had to be done to combine two histograms; `None` if it could not be done.
pub(crate) fn note(
    ev: &Evaluator<'_>,
    arg: &Expr,
    metric: &str,
    done: Result<signal::histogram::Combined, signal::histogram::Incompatible>,
    doing: Doing,
) -> Option<()> {
    match done {
        Ok(done) => {
            if done.bounds_reconciled {
                ev.inform(arg, bounds_reconciled(doing));
            }
            Some(())
        }
        Err(_) => {
            ev.warn(arg, mixed_schemas(metric));
            None
        }
    }
}

/// `irate` and `idelta`: the last two samples.
pub(crate) fn instant(
    ev: &Evaluator<'_>,
    arg: &Expr,
    metric: &str,
    w: Window<'_>,
    per_second: bool,
) -> Option<Cell> {
    // (time, start, float, histogram), newest first.
    let floats = (0..w.t.len()).rev().take(2);
    let mut all: Vec<(i64, i64, f64, Option<&FloatHistogram>)> =
        floats.map(|i| (w.t[i], w.starts.get(i).copied().unwrap_or(0), w.v[i], None)).collect();
    all.extend(w.h.iter().rev().take(2).map(|h| (h.timestamp, h.start, 0.0, Some(&*h.histogram))));
    all.sort_by_key(|p| std::cmp::Reverse(p.0));
    let [now, before, ..] = all.as_slice() else { return None };
    let seconds = (now.0 - before.0) as f64 / 1000.0;
    if seconds == 0.0 {
        return None;
    }
    let anew = started_anew((before.1, before.0), (now.1, now.0));
    match (now.3, before.3) {
        (None, None) => {
            let reset = per_second && (now.2 < before.2 || anew);
            let v = if reset { now.2 } else { now.2 - before.2 };
            Some(Cell::Float(if per_second { v / seconds } else { v }))
        }
        (Some(h), Some(b)) => {
            let gauges = (h.hint == ResetHint::Gauge, b.hint == ResetHint::Gauge);
            if per_second && (gauges.0 || gauges.1) {
                ev.warn(arg, not_a_counter(metric));
            } else if !(per_second || gauges.0 && gauges.1) {
                ev.warn(arg, not_a_gauge(metric));
            }
            let mut out = h.clone();
            if !per_second || !anew && !h.is_reset_after(b) {
                note(ev, arg, metric, out.sub(b), Doing::Subtraction)?;
            }
            out.hint = ResetHint::Gauge;
            if per_second {
                out.divide(seconds);
            }
            Some(Cell::from(out))
        }
        _ => {
            ev.warn(arg, mixed_kinds(metric));
            None
        }
    }
}
