//! Range vectors: the samples of a series cut into one window for each step.

use std::cell::OnceCell;
use std::sync::Arc;

use signal::{HistogramSample, Labels, is_stale_nan};

use super::{Evaluator, Raw};
use crate::ast::{Edges, Expr, Kind};
use crate::error::Error;
use crate::value::{ABSENT, Cell, Column, Grid, HistogramPoint, Sample, Series, without_name};
use crate::window::{Stretch, Window};

/// The range vector of one series: the samples of all windows, and how to cut them.
pub(crate) struct Range<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) drop_name: bool,
    t: &'a [i64],
    v: &'a [f64],
    starts: &'a [i64],
    h: &'a [HistogramSample],
    /// The right edge of each step's window.
    ends: &'a [i64],
    /// Which floats lie in each step's window, if its edges are plain.
    cuts: &'a Cut,
    length: i64,
    /// How far a window's samples reach beyond its edges, for `anchored` and `smoothed`.
    back: i64,
    ahead: i64,
    pub(crate) edges: Edges,
    /// True once the query's time is up or nobody waits for it.
    stopped: &'a dyn Fn() -> bool,
}

/// So many samples may be looked at between two questions whether the query goes on.
const UNASKED: usize = 1 << 20;

impl<'a> Range<'a> {
    /// Counts the samples of one more window. True if the query is over: its error is told once the series is done.
    fn over(&self, work: &mut usize, samples: usize) -> bool {
        *work += samples;
        if *work < UNASKED {
            return false;
        }
        *work = 0;
        (self.stopped)()
    }

    /// True if there is nothing but floats without start times between plain edges: the common case.
    pub(crate) fn is_plain(&self) -> bool {
        self.h.is_empty() && self.starts.is_empty() && self.edges == Edges::Plain
    }

    /// The value of each step, by a function of the window's floats. Windows without floats are absent.
    pub(crate) fn map(&self, mut f: impl FnMut(usize, Window<'a>) -> Option<f64>) -> Vec<f64> {
        let mut work = 0;
        let mut out = Vec::with_capacity(self.ends.len());
        for (i, (end, (lo, hi))) in self.ends.iter().zip(&self.cuts.windows).enumerate() {
            let (lo, hi) = (*lo as usize, *hi as usize);
            if self.over(&mut work, hi - lo) {
                out.resize(self.ends.len(), ABSENT);
                return out;
            }
            let value = if lo == hi {
                None
            } else {
                let (t, v) = (&self.t[lo..hi], &self.v[lo..hi]);
                f(i, Window { t, v, starts: &[], h: &[], start: end - self.length, end: *end })
            };
            out.push(value.unwrap_or(ABSENT));
        }
        out
    }

    /// `rate` and `increase`: only where a counter fell is looked at besides the ends of a window.
    pub(crate) fn rates(&self, per_second: bool) -> Vec<f64> {
        let falls: Vec<usize> = (1..self.v.len()).filter(|i| self.v[*i] < self.v[i - 1]).collect();
        let (mut from, mut to) = (0, 0);
        let stretches = self.cuts.stretches.get_or_init(|| self.stretches());
        let values = self.cuts.windows.iter().zip(stretches).map(|((lo, hi), stretch)| {
            let (lo, hi) = (*lo as usize, *hi as usize);
            // Edges only move forward, so the falls between them do too.
            while falls.get(from).is_some_and(|i| *i <= lo) {
                from += 1;
            }
            while falls.get(to).is_some_and(|i| *i < hi) {
                to += 1;
            }
            if hi - lo < 2 {
                return ABSENT;
            }
            let first = self.v[lo];
            let mut delta = self.v[hi - 1] - first;
            for i in falls.get(from..to).unwrap_or(&[]) {
                delta += self.v[i - 1];
            }
            let seconds = if per_second { self.length as f64 / 1000.0 } else { 1.0 };
            delta * (stretch.factor(delta, first, true) / seconds)
        });
        values.collect()
    }

    fn stretches(&self) -> Vec<Stretch> {
        let windows = self.cuts.windows.iter().zip(self.ends);
        let of = |((lo, hi), end): (&(u32, u32), &i64)| {
            let t = self.t.get(*lo as usize..*hi as usize).unwrap_or(&[]);
            Stretch::of(t, end - self.length, *end)
        };
        windows.map(of).collect()
    }

    /// Windows with everything in them, also beyond their edges if the selector says so. Empty ones are skipped.
    pub(crate) fn windows(&self, mut f: impl FnMut(usize, Window<'a>)) {
        let (mut lo, mut hi, mut h_lo, mut h_hi, mut work) = (0, 0, 0, 0, 0);
        for (i, end) in self.ends.iter().enumerate() {
            let (from, to) = (end - self.length - self.back, end + self.ahead);
            while self.t.get(hi).is_some_and(|t| *t <= to) {
                hi += 1;
            }
            while lo < hi && self.t[lo] <= from {
                lo += 1;
            }
            while self.h.get(h_hi).is_some_and(|h| h.timestamp <= to) {
                h_hi += 1;
            }
            while h_lo < h_hi && self.h[h_lo].timestamp <= from {
                h_lo += 1;
            }
            if self.over(&mut work, hi - lo + 100 * (h_hi - h_lo)) {
                return;
            }
            if lo < hi || h_lo < h_hi {
                let w = Window {
                    t: &self.t[lo..hi],
                    v: &self.v[lo..hi],
                    starts: self.starts.get(lo..hi).unwrap_or(&[]),
                    h: &self.h[h_lo..h_hi],
                    start: end - self.length,
                    end: *end,
                };
                f(i, w);
            }
        }
    }

    /// A column from a function of whole windows.
    pub(crate) fn cells(&self, mut f: impl FnMut(usize, Window<'a>) -> Option<Cell>) -> Column {
        let mut c = Column::floats(self.labels.clone(), self.drop_name, vec![ABSENT; self.ends.len()]);
        self.windows(|i, w| {
            if let Some(cell) = f(i, w) {
                c.put(i, cell);
            }
        });
        c
    }
}

/// For the last few timestamp columns which of their samples lie in each window. Series that were scraped together
/// share a column, and so the work.
pub(crate) struct Cuts<'a> {
    ends: &'a [i64],
    length: i64,
    known: Vec<(Arc<Vec<i64>>, Cut)>,
    next: usize,
    /// Of a column that nobody shares.
    own: Cut,
}

/// What is known of the windows over one timestamp column.
#[derive(Default)]
pub(crate) struct Cut {
    /// The first sample of each window, and the one after its last.
    pub(crate) windows: Vec<(u32, u32)>,
    /// How each window's samples lie in it, once somebody asked.
    stretches: OnceCell<Vec<Stretch>>,
}

/// Timestamp columns that are remembered.
const COLUMNS: usize = 64;

impl<'a> Cuts<'a> {
    pub(crate) fn new(ends: &'a [i64], length: i64) -> Self {
        Cuts { ends, length, known: Vec::new(), next: 0, own: Cut::default() }
    }

    pub(crate) fn of(&mut self, times: &[i64], shared: Option<&Arc<Vec<i64>>>) -> &Cut {
        let Some(shared) = shared else {
            let mut own = std::mem::take(&mut self.own);
            self.cut(times, &mut own);
            self.own = own;
            return &self.own;
        };
        // The newest first: neighbours are most alike.
        let n = self.known.len();
        let found = (0..n)
            .map(|i| (self.next + n - 1 - i) % n)
            .find(|i| self.known.get(*i).is_some_and(|(t, _)| Arc::ptr_eq(t, shared)));
        let at = found.unwrap_or_else(|| {
            let at = self.next;
            self.next = (at + 1) % COLUMNS;
            let mut cuts = self.known.get_mut(at).map(|(_, c)| std::mem::take(c)).unwrap_or_default();
            self.cut(times, &mut cuts);
            match self.known.get_mut(at) {
                Some(slot) => *slot = (shared.clone(), cuts),
                None => self.known.push((shared.clone(), cuts)),
            }
            at
        });
        &self.known[at].1
    }

    fn cut(&self, times: &[i64], out: &mut Cut) {
        out.windows.clear();
        out.stretches.take();
        let (mut lo, mut hi) = (0, 0);
        for end in self.ends {
            // Edges only move forward, so both ends of the window do too.
            while times.get(hi).is_some_and(|t| t <= end) {
                hi += 1;
            }
            while lo < hi && times[lo] <= end - self.length {
                lo += 1;
            }
            out.windows.push((lo as u32, hi as u32));
        }
    }
}

/// Samples of a series without its stale markers, which end a series and are no samples.
#[derive(Default)]
struct Living {
    t: Vec<i64>,
    v: Vec<f64>,
    starts: Vec<i64>,
    h: Vec<HistogramSample>,
}

impl Living {
    fn refill(&mut self, raw: Raw<'_>) {
        self.t.clear();
        self.v.clear();
        self.starts.clear();
        self.h.clear();
        for (i, (t, v)) in raw.t.iter().zip(raw.v).enumerate().filter(|(_, (_, v))| !is_stale_nan(**v)) {
            self.t.push(*t);
            self.v.push(*v);
            self.starts.extend(raw.starts.get(i));
        }
        self.h.extend(raw.h.iter().filter(|h| !h.histogram.is_stale()).cloned());
    }

    /// The samples without stale markers; copied only if there are any.
    fn of<'a>(&'a mut self, raw: Raw<'a>) -> Raw<'a> {
        let stale = raw.v.iter().any(|v| is_stale_nan(*v)) || raw.h.iter().any(|h| h.histogram.is_stale());
        if !stale {
            return raw;
        }
        self.refill(raw);
        Raw { labels: raw.labels, shared: None, t: &self.t, v: &self.v, starts: &self.starts, h: &self.h }
    }
}

impl Evaluator<'_> {
    /// Series of a range vector one after the other.
    pub(crate) fn each_range(
        &self,
        e: &Expr,
        grid: Grid,
        f: &mut dyn FnMut(&Range<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let stopped = || self.charge(0).is_err();
        match &e.unwrap_parens().kind {
            Kind::Matrix { selector, range } => {
                let length = self.range_length(range)?;
                let ends = self.reference_times(selector.at, selector.offset.as_ref(), grid)?;
                let (back, ahead) = match selector.edges {
                    Edges::Plain => (0, 0),
                    Edges::Anchored => (self.lookback, 0),
                    Edges::Smoothed => (self.lookback, self.lookback),
                };
                let mut living = Living::default();
                let mut cuts = Cuts::new(&ends, length);
                self.select(&selector.matchers, &ends, length + back, ahead, &mut |raw| {
                    let raw = living.of(raw);
                    f(&Range {
                        labels: raw.labels,
                        drop_name: false,
                        t: raw.t,
                        v: raw.v,
                        starts: raw.starts,
                        h: raw.h,
                        ends: &ends,
                        cuts: cuts.of(raw.t, raw.shared),
                        length,
                        back,
                        ahead,
                        edges: selector.edges,
                        stopped: &stopped,
                    })?;
                    self.charge(0)
                })
            }
            Kind::Subquery { expr, range, step, offset, at } => {
                let length = self.range_length(range)?;
                let step = match step {
                    Some(s) => self.range_length(s)?,
                    None => self.limits.default_step.as_millis() as i64,
                };
                let ends = self.reference_times(*at, offset.as_ref(), grid)?;
                let (Some(first), Some(last)) = (ends.first(), ends.last()) else { return Ok(()) };
                // Steps of a subquery lie at multiples of its step, whatever the outer query's times are.
                let from = first - length;
                let start = from.div_euclid(step) * step + step;
                if start > *last {
                    return Ok(());
                }
                let n = usize::try_from((last - start) / step + 1).unwrap_or(usize::MAX);
                if n > 1_000_000 {
                    return Err(Error::Limit(format!("{n} steps in a subquery")));
                }
                let inner = Grid { start, step, n };
                let mut s = Living::default();
                let mut cuts = Cuts::new(&ends, length);
                self.with_buckets(true, || {
                    self.each(expr, inner, &mut |c| {
                        flatten(&c, inner, &mut s);
                        f(&Range {
                            labels: &c.labels,
                            drop_name: c.drop_name,
                            t: &s.t,
                            v: &s.v,
                            starts: &[],
                            h: &s.h,
                            ends: &ends,
                            cuts: cuts.of(&s.t, None),
                            length,
                            back: 0,
                            ahead: 0,
                            edges: Edges::Plain,
                            stopped: &stopped,
                        })?;
                        self.charge(0)
                    })
                })
            }
            _ => Err(Error::Execution("expected a range vector".to_owned())),
        }
    }

    /// The samples of a range vector at one time: the result of an instant query for it.
    pub(crate) fn raw_matrix(&self, e: &Expr, time: i64) -> Result<Vec<Series>, Error> {
        let mut out = Vec::new();
        let mut failed = None;
        self.each_range(e, Grid { start: time, step: 1, n: 1 }, &mut |r| {
            let mut s = Series {
                labels: if r.drop_name { without_name(r.labels) } else { r.labels.clone() },
                ..Series::default()
            };
            r.windows(|_, w| {
                if r.edges == Edges::Plain {
                    s.samples.extend(w.t.iter().zip(w.v).map(|(t, v)| Sample { timestamp: *t, value: *v }));
                    let points = w
                        .h
                        .iter()
                        .map(|h| HistogramPoint { timestamp: h.timestamp, histogram: h.histogram.clone() });
                    s.histograms.extend(points);
                } else if !w.h.is_empty() {
                    let word = if r.edges == Edges::Anchored { "anchored" } else { "smoothed" };
                    failed = Some(format!("{word} modifier is not supported with histograms"));
                } else {
                    let points = crate::window::extended_points(w, r.edges == Edges::Smoothed);
                    s.samples
                        .extend(points.into_iter().map(|(timestamp, value)| Sample { timestamp, value }));
                }
            });
            if !s.samples.is_empty() || !s.histograms.is_empty() {
                self.charge(
                    s.samples.len() * 16 + s.histograms.iter().map(|h| h.histogram.size()).sum::<usize>(),
                )?;
                out.push(s);
            }
            Ok(())
        })?;
        if let Some(message) = failed {
            return Err(Error::Execution(message));
        }
        out.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(out)
    }
}

/// A column of a subquery as samples. Hints about resets no longer hold, since samples between are not seen.
fn flatten(c: &Column, grid: Grid, out: &mut Living) {
    use signal::histogram::ResetHint;
    out.t.clear();
    out.v.clear();
    out.h.clear();
    for (i, t) in grid.times().enumerate() {
        match c.cell(i) {
            Some(Cell::Float(v)) => {
                out.t.push(t);
                out.v.push(v);
            }
            Some(Cell::Histogram(mut h)) => {
                if matches!(h.hint, ResetHint::Reset | ResetHint::NotReset) {
                    std::sync::Arc::make_mut(&mut h).hint = ResetHint::Unknown;
                }
                out.h.push(HistogramSample { timestamp: t, start: 0, histogram: h });
            }
            None => {}
        }
    }
}
