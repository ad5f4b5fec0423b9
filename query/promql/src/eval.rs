//! The evaluator: expressions into columns.

mod range;
mod smoothed;

use std::cell::{Cell as Slot, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use signal::histogram::ResetHint;
use signal::{
    FloatHistogram, HistogramSample, Labels, METRIC_NAME, Matcher, Select, SeriesSource, is_stale_nan,
};

pub(crate) use range::{Cuts, Range};

use crate::annotations::Annotations;
use crate::ast::{At, BinaryOp, Edges, Expr, Kind, Length, Selector};
use crate::engine::{Limits, Options};
use crate::error::Error;
use crate::meter::{Held, Meter};
use crate::pace::Turn;
use crate::value::{ABSENT, Cell, Column, Grid, Out, QueryResult, Value};

pub(crate) struct Evaluator<'a> {
    source: &'a dyn SeriesSource,
    limits: &'a Limits,
    options: &'a Options,
    text: &'a str,
    /// The whole query's steps: what `start()` and `step()` mean.
    query: Grid,
    /// Zero for an instant query.
    query_step: i64,
    /// What `end()` and `range()` mean. The last step need not fall on it.
    query_end: i64,
    pub(crate) lookback: i64,
    deadline: Instant,
    pub(crate) meter: Rc<Meter>,
    turn: Turn,
    samples: Slot<u64>,
    pub(crate) notes: RefCell<Annotations>,
    /// Only counts and sums of native histograms are looked at, so their buckets need not be kept.
    counts_only: Slot<bool>,
    /// Somebody further out needs buckets all the same.
    buckets_needed: Slot<bool>,
}

/// Samples of one series as the source gave them, stale markers included.
#[derive(Clone, Copy)]
pub(crate) struct Raw<'a> {
    pub(crate) labels: &'a Labels,
    /// The column that `t` is, if other series may have the same one.
    pub(crate) shared: Option<&'a Arc<Vec<i64>>>,
    pub(crate) t: &'a [i64],
    pub(crate) v: &'a [f64],
    /// Start times of the floats; may be empty.
    pub(crate) starts: &'a [i64],
    pub(crate) h: &'a [HistogramSample],
}

/// Takes a series and the reference times of the steps.
pub(crate) type EachSeries<'a> = &'a mut dyn FnMut(Raw<'_>, &[i64]) -> Result<(), Error>;

/// The newest sample at or before a time.
pub(crate) struct Newest<'a> {
    pub(crate) timestamp: i64,
    pub(crate) start: i64,
    pub(crate) float: f64,
    pub(crate) histogram: Option<&'a Arc<FloatHistogram>>,
}

impl<'a> Raw<'a> {
    /// The newest sample for each of the ascending times, if it is younger than `lookback` and not stale.
    pub(crate) fn newest(self, ends: &[i64], lookback: i64, mut f: impl FnMut(usize, Newest<'a>)) {
        let (mut at, mut h_at) = (0, 0);
        for (i, end) in ends.iter().enumerate() {
            while self.t.get(at).is_some_and(|t| t <= end) {
                at += 1;
            }
            while self.h.get(h_at).is_some_and(|h| h.timestamp <= *end) {
                h_at += 1;
            }
            let float = at.checked_sub(1).map(|i| (self.t[i], self.v[i], self.starts.get(i).copied()));
            let histogram = h_at.checked_sub(1).map(|i| &self.h[i]);
            let newest = match (float, histogram) {
                (f, Some(h)) if f.is_none_or(|f| f.0 < h.timestamp) => {
                    if h.histogram.is_stale() {
                        continue;
                    }
                    Newest {
                        timestamp: h.timestamp,
                        start: h.start,
                        float: ABSENT,
                        histogram: Some(&h.histogram),
                    }
                }
                (Some((timestamp, float, start)), _) if !is_stale_nan(float) => {
                    Newest { timestamp, start: start.unwrap_or(0), float, histogram: None }
                }
                _ => continue,
            };
            if newest.timestamp > end - lookback {
                f(i, newest);
            }
        }
    }
}

impl<'a> Evaluator<'a> {
    #[expect(clippy::too_many_arguments, reason = "what a query is made of, put together in one place")]
    pub(crate) fn new(
        source: &'a dyn SeriesSource,
        limits: &'a Limits,
        turn: Turn,
        options: &'a Options,
        text: &'a str,
        query: Grid,
        query_step: i64,
        query_end: i64,
    ) -> Self {
        Evaluator {
            source,
            limits,
            options,
            text,
            query,
            query_step,
            query_end,
            lookback: options.lookback.unwrap_or(limits.lookback).as_millis() as i64,
            deadline: signal::time::monotonic()
                + options.timeout.unwrap_or(limits.timeout).min(limits.timeout),
            meter: Rc::default(),
            turn,
            samples: Slot::new(0),
            notes: RefCell::default(),
            counts_only: Slot::new(false),
            buckets_needed: Slot::new(false),
        }
    }

    pub(crate) fn result(self, value: Value) -> QueryResult {
        let (warnings, infos) = self.notes.into_inner().finish(self.text);
        QueryResult {
            value,
            warnings,
            infos,
            samples_read: self.samples.get(),
            peak_bytes: self.meter.peak() as u64,
        }
    }

    pub(crate) fn warn(&self, e: &Expr, message: impl Into<String>) {
        self.notes.borrow_mut().warn(e.span.0, message.into());
    }

    pub(crate) fn inform(&self, e: &Expr, message: impl Into<String>) {
        self.notes.borrow_mut().inform(e.span.0, message.into());
    }

    /// Called for every series: the query's deadline, cancellation and budget.
    pub(crate) fn charge(&self, bytes: usize) -> Result<(), Error> {
        self.go_on()?;
        self.meter.add(bytes);
        let (used, limit) = (self.meter.used(), self.limits.bytes);
        if used > limit {
            return Err(Error::Limit(format!("{used} bytes, the limit is {limit}")));
        }
        let all = self.turn.tell(used);
        if all > self.limits.all_bytes {
            return Err(Error::Overloaded(all, self.limits.all_bytes));
        }
        Ok(())
    }

    /// Returns when the query may go on; an error says that it should not.
    fn go_on(&self) -> Result<(), Error> {
        loop {
            if self.options.cancel.as_ref().is_some_and(|c| c.load(Ordering::Relaxed)) {
                return Err(Error::Canceled);
            }
            let now = signal::time::monotonic();
            if now > self.deadline {
                return Err(Error::Timeout);
            }
            if self.turn.mine(now) {
                return Ok(());
            }
        }
    }

    /// Charges for a column for as long as it is there.
    pub(crate) fn hold(&self, c: &mut Column) -> Result<(), Error> {
        c.held = Held::default();
        c.held = Held::new(&self.meter, c.size());
        self.charge(0)
    }

    /// Charges for something for as long as what is given back is there.
    pub(crate) fn held(&self, bytes: usize) -> Result<Held, Error> {
        let held = Held::new(&self.meter, bytes);
        self.charge(0).map(|()| held)
    }

    pub(crate) fn eval(&self, e: &Expr, grid: Grid) -> Result<Out, Error> {
        match &e.kind {
            Kind::Number(v) => Ok(Out::Scalar(vec![*v; grid.n])),
            Kind::String(s) => Ok(Out::String(s.clone())),
            Kind::Bytes(s) => Err(Error::Execution(format!("string is not UTF-8: {s}"))),
            Kind::Paren(inner) => self.eval(inner, grid),
            Kind::Unary { negate, expr } => Ok(match self.eval(expr, grid)? {
                Out::Scalar(v) if *negate => Out::Scalar(v.into_iter().map(|v| -v).collect()),
                Out::Vector(c) if *negate => Out::Vector(c.into_iter().map(negated).collect()),
                out => out,
            }),
            Kind::Binary { op, .. } => {
                let trims = matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper);
                self.with_buckets(trims, || self.binary(e, grid))
            }
            Kind::Aggregate(a) => self.aggregate(e, a, grid).map(Out::Vector),
            Kind::Call { name, args } => self.call(e, name, args, grid),
            Kind::Selector(_) => {
                let mut columns = Vec::new();
                self.each(e, grid, &mut |mut c| {
                    self.hold(&mut c)?;
                    columns.push(c);
                    Ok(())
                })?;
                Ok(Out::Vector(columns))
            }
            Kind::Matrix { .. } | Kind::Subquery { .. } => {
                Err(Error::Execution("a range vector has no value at one time".to_owned()))
            }
        }
    }

    pub(crate) fn vector(&self, e: &Expr, grid: Grid) -> Result<Vec<Column>, Error> {
        match self.eval(e, grid)? {
            Out::Vector(c) => Ok(c),
            _ => Err(Error::Execution("expected an instant vector".to_owned())),
        }
    }

    pub(crate) fn scalar(&self, e: &Expr, grid: Grid) -> Result<Vec<f64>, Error> {
        match self.eval(e, grid)? {
            Out::Scalar(v) => Ok(v),
            _ => Err(Error::Execution("expected a scalar".to_owned())),
        }
    }

    /// Evaluates what needs only counts and sums of native histograms.
    pub(crate) fn with_counts_only<T>(&self, f: impl FnOnce() -> T) -> T {
        let before = self.counts_only.replace(true);
        let out = f();
        self.counts_only.set(before);
        out
    }

    /// Evaluates what needs whole native histograms, if so.
    pub(crate) fn with_buckets<T>(&self, needed: bool, f: impl FnOnce() -> T) -> T {
        let before = self.buckets_needed.get();
        self.buckets_needed.set(before || needed);
        let out = f();
        self.buckets_needed.set(before);
        out
    }

    /// Series of an instant vector one after the other; what can stream is never held together.
    pub(crate) fn each(
        &self,
        e: &Expr,
        grid: Grid,
        f: &mut dyn FnMut(Column) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match &e.kind {
            Kind::Paren(inner) => self.each(inner, grid, f),
            Kind::Selector(s) if s.edges == Edges::Smoothed => self.smoothed(e, s, grid, f),
            Kind::Selector(s) => {
                let ends = self.reference_times(s.at, s.offset.as_ref(), grid)?;
                let mut cuts = Cuts::new(&ends, self.lookback);
                self.select(&s.matchers, &ends, self.lookback, 0, &mut |raw| {
                    let mut c = Column::floats(raw.labels.clone(), false, vec![ABSENT; grid.n]);
                    if raw.h.is_empty() {
                        // Absent and stale are the same bits: the newest sample is what the step holds.
                        let cut = cuts.of(raw.t, raw.shared);
                        for (value, (lo, hi)) in c.values.iter_mut().zip(&cut.windows) {
                            if lo < hi {
                                *value = raw.v[*hi as usize - 1];
                            }
                        }
                    } else {
                        raw.newest(&ends, self.lookback, |i, n| match n.histogram {
                            Some(h) => c.put(i, Cell::Histogram(h.clone())),
                            None => c.values[i] = n.float,
                        });
                    }
                    if c.is_empty() { Ok(()) } else { f(c) }
                })
            }
            Kind::Call { name, args } if crate::functions::is_range_function(name) => {
                self.range_call(e, name, args, grid, f)
            }
            _ => {
                for c in self.vector(e, grid)? {
                    f(c)?;
                }
                Ok(())
            }
        }
    }

    /// The samples that an instant selector needs, with the reference time of each step.
    pub(crate) fn instants(&self, s: &Selector, grid: Grid, f: EachSeries<'_>) -> Result<(), Error> {
        let ends = self.reference_times(s.at, s.offset.as_ref(), grid)?;
        self.select(&s.matchers, &ends, self.lookback, 0, &mut |raw| f(raw, &ends))
    }

    /// Series with their samples from `back` before the first of `ends` (exclusively) to `ahead` after the last.
    pub(crate) fn select(
        &self,
        matchers: &[Matcher],
        ends: &[i64],
        back: i64,
        ahead: i64,
        f: &mut dyn FnMut(Raw<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (Some(first), Some(last)) = (ends.first(), ends.last()) else { return Ok(()) };
        let select = Select { matchers: self.enforced(matchers), start: first - back + 1, end: last + ahead };
        let counts_only = self.counts_only.get() && !self.buckets_needed.get();
        let found = self.source.select_within(&select, self.room())?;
        self.charge(found.labels)?;
        let share = found.held / found.count.max(1);
        let mut list = self.held(found.held)?;
        for series in found.series {
            list.shrink(share);
            let mut series = series?;
            let histograms: usize = series.histograms.iter().map(|h| h.histogram.size()).sum();
            let _series = self.held(series.timestamps.len() * 16 + histograms)?;
            let samples = series.timestamps.len() + series.histograms.len();
            self.count_samples(samples as u64);
            if counts_only {
                strip(&mut series.histograms);
            }
            f(Raw {
                labels: &series.labels,
                shared: Some(&series.timestamps),
                t: &series.timestamps,
                v: &series.values,
                starts: &series.starts,
                h: &series.histograms,
            })?;
        }
        Ok(())
    }

    pub(crate) fn source(&self) -> &dyn SeriesSource {
        self.source
    }

    /// With those that the caller must not go without.
    pub(crate) fn enforced(&self, matchers: &[Matcher]) -> Vec<Matcher> {
        matchers.iter().chain(&self.options.enforce).cloned().collect()
    }

    /// Bytes that the query may still take.
    pub(crate) fn room(&self) -> usize {
        self.limits.bytes.saturating_sub(self.meter.used())
    }

    pub(crate) fn count_samples(&self, n: u64) {
        self.samples.set(self.samples.get() + n);
    }

    /// For each step the time a selector looks at.
    pub(crate) fn reference_times(
        &self,
        at: Option<At>,
        offset: Option<&Length>,
        grid: Grid,
    ) -> Result<Vec<i64>, Error> {
        let offset = offset.map_or(Ok(0), |l| self.length(l))?;
        let fixed = at.map(|a| self.fixed_time(a));
        Ok(grid.times().map(|t| fixed.unwrap_or(t) - offset).collect())
    }

    pub(crate) fn fixed_time(&self, at: At) -> i64 {
        match at {
            At::Time(t) => t,
            At::Start => self.query.start,
            At::End => self.query_end,
        }
    }

    pub(crate) fn length(&self, l: &Length) -> Result<i64, Error> {
        l.resolve(self.query_step, self.query_end - self.query.start)
            .ok_or_else(|| Error::Execution("division by zero in duration expression".to_owned()))
    }

    pub(crate) fn range_length(&self, l: &Length) -> Result<i64, Error> {
        match self.length(l)? {
            ms if ms > 0 => Ok(ms),
            _ => Err(Error::Execution("duration must be greater than 0".to_owned())),
        }
    }

    /// A counter's function on something that is not named like a counter.
    pub(crate) fn check_counter_name(&self, arg: &Expr, labels: &Labels) {
        let name = labels.get(METRIC_NAME).unwrap_or("");
        if !name.is_empty() && !["_total", "_sum", "_count", "_bucket"].iter().any(|s| name.ends_with(s)) {
            self.inform(
                arg,
                format!(
                    "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name:?}"
                ),
            );
        }
    }

    pub(crate) fn is_range_query(&self) -> bool {
        self.query_step > 0
    }

    pub(crate) fn query_grid(&self) -> Grid {
        self.query
    }
}

/// Leaves only counts and sums, and says of each whether it was a reset while the buckets are still there to tell.
fn strip(histograms: &mut [HistogramSample]) {
    let mut last: Option<Arc<FloatHistogram>> = None;
    for s in histograms {
        let h = s.histogram.clone();
        let mut hint = h.hint;
        if !h.is_stale() {
            if hint == ResetHint::Unknown
                && let Some(l) = &last
            {
                hint = if h.is_reset_after(l) { ResetHint::Reset } else { ResetHint::NotReset };
            }
            last = Some(h.clone());
        }
        let (schema, count, sum) = (h.schema, h.count, h.sum);
        s.histogram = Arc::new(FloatHistogram { hint, schema, count, sum, ..FloatHistogram::default() });
    }
}

fn negated(c: Column) -> Column {
    let histograms = c.histograms.clone();
    let mut out = c.map(|v| -v);
    out.histograms = histograms;
    for h in out.histograms.iter_mut().flatten().flatten() {
        Arc::make_mut(h).scale(-1.0);
    }
    out
}
