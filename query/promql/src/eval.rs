//! The evaluator: expressions into columns.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Instant;

use signal::{Labels, METRIC_NAME, Matcher, Select, SeriesSource, is_stale_nan};

use crate::ast::{At, Edges, Expr, Kind, Length, Selector};
use crate::engine::{Limits, Options};
use crate::error::{Error, line_column};
use crate::value::{ABSENT, Column, Grid, Out, QueryResult, Sample, Series, Value};
use crate::window::Window;

pub(crate) struct Evaluator<'a> {
    source: &'a dyn SeriesSource,
    limits: &'a Limits,
    options: &'a Options,
    text: &'a str,
    /// The whole query's steps: what `start()`, `end()` and `step()` mean.
    query: Grid,
    /// Zero for an instant query.
    query_step: i64,
    pub(crate) lookback: i64,
    deadline: Instant,
    bytes: Cell<usize>,
    samples: Cell<u64>,
    warnings: RefCell<BTreeSet<String>>,
    infos: RefCell<BTreeSet<String>>,
}

/// The range vector of one series: the samples of all windows, and how to cut them.
pub(crate) struct Range<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) drop_name: bool,
    t: &'a [i64],
    v: &'a [f64],
    /// The right edge of each step's window.
    ends: &'a [i64],
    length: i64,
}

impl Range<'_> {
    /// The value of each step, by a function of the window's samples. Windows without samples are absent.
    pub(crate) fn map(&self, mut f: impl FnMut(usize, Window<'_>) -> Option<f64>) -> Vec<f64> {
        let (mut lo, mut hi) = (0, 0);
        let mut out = Vec::with_capacity(self.ends.len());
        for (i, end) in self.ends.iter().enumerate() {
            let start = end - self.length;
            // Edges only move forward, so both ends of the window do too.
            while self.t.get(hi).is_some_and(|t| t <= end) {
                hi += 1;
            }
            while lo < hi && self.t[lo] <= start {
                lo += 1;
            }
            let value = if lo == hi {
                None
            } else {
                f(i, Window { t: &self.t[lo..hi], v: &self.v[lo..hi], start, end: *end })
            };
            out.push(value.unwrap_or(ABSENT));
        }
        out
    }
}

impl<'a> Evaluator<'a> {
    pub(crate) fn new(
        source: &'a dyn SeriesSource,
        limits: &'a Limits,
        options: &'a Options,
        text: &'a str,
        query: Grid,
        query_step: i64,
    ) -> Self {
        Evaluator {
            source,
            limits,
            options,
            text,
            query,
            query_step,
            lookback: options.lookback.unwrap_or(limits.lookback).as_millis() as i64,
            deadline: signal::time::monotonic()
                + options.timeout.unwrap_or(limits.timeout).min(limits.timeout),
            bytes: Cell::new(0),
            samples: Cell::new(0),
            warnings: RefCell::default(),
            infos: RefCell::default(),
        }
    }

    pub(crate) fn result(self, value: Value) -> QueryResult {
        QueryResult {
            value,
            warnings: self.warnings.into_inner().into_iter().collect(),
            infos: self.infos.into_inner().into_iter().collect(),
            samples_read: self.samples.get(),
        }
    }

    fn place(&self, e: &Expr) -> String {
        let (line, column) = line_column(self.text, e.span.0);
        format!("({line}:{column})")
    }

    pub(crate) fn warn(&self, e: &Expr, message: &str) {
        self.warnings.borrow_mut().insert(format!("PromQL warning: {message} {}", self.place(e)));
    }

    pub(crate) fn inform(&self, e: &Expr, message: &str) {
        self.infos.borrow_mut().insert(format!("PromQL info: {message} {}", self.place(e)));
    }

    /// Called for every series: the query's deadline, cancellation and budget.
    pub(crate) fn charge(&self, bytes: usize) -> Result<(), Error> {
        if self.options.cancel.as_ref().is_some_and(|c| c.load(Ordering::Relaxed)) {
            return Err(Error::Canceled);
        }
        if signal::time::monotonic() > self.deadline {
            return Err(Error::Timeout);
        }
        let used = self.bytes.get() + bytes;
        if used > self.limits.bytes {
            return Err(Error::Limit(format!("{used} bytes, the limit is {}", self.limits.bytes)));
        }
        self.bytes.set(used);
        Ok(())
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
    }

    pub(crate) fn eval(&self, e: &Expr, grid: Grid) -> Result<Out, Error> {
        match &e.kind {
            Kind::Number(v) => Ok(Out::Scalar(vec![*v; grid.n])),
            Kind::String(s) => Ok(Out::String(s.clone())),
            Kind::Paren(inner) => self.eval(inner, grid),
            Kind::Unary { negate, expr } => Ok(match self.eval(expr, grid)? {
                Out::Scalar(v) if *negate => Out::Scalar(v.into_iter().map(|v| -v).collect()),
                Out::Vector(c) if *negate => Out::Vector(c.into_iter().map(|c| c.map(|v| -v)).collect()),
                out => out,
            }),
            Kind::Binary { op, lhs, rhs, bool_modifier, matching } => {
                self.binary(*op, lhs, rhs, *bool_modifier, matching.as_ref(), grid)
            }
            Kind::Aggregate(a) => self.aggregate(a, grid).map(Out::Vector),
            Kind::Call { name, args } => self.call(e, name, args, grid),
            Kind::Selector(_) => {
                let mut columns = Vec::new();
                self.each(e, grid, &mut |c| {
                    self.charge(c.values.len() * 8 + 64)?;
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

    /// Series of an instant vector one after the other; what can stream is never held together.
    pub(crate) fn each(
        &self,
        e: &Expr,
        grid: Grid,
        f: &mut dyn FnMut(Column) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match &e.kind {
            Kind::Paren(inner) => self.each(inner, grid, f),
            Kind::Selector(s) => self.instants(s, grid, &mut |labels, t, v, ends| {
                let mut at = 0;
                let values = ends.iter().map(|end| {
                    while t.get(at).is_some_and(|t| t <= end) {
                        at += 1;
                    }
                    match at.checked_sub(1) {
                        Some(i) if t[i] > end - self.lookback && !is_stale_nan(v[i]) => v[i],
                        _ => ABSENT,
                    }
                });
                let values: Vec<f64> = values.collect();
                if values.iter().all(|v| crate::value::is_absent(*v)) {
                    return Ok(());
                }
                f(Column { labels: labels.clone(), drop_name: false, values })
            }),
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
    pub(crate) fn instants(
        &self,
        s: &Selector,
        grid: Grid,
        f: &mut dyn FnMut(&Labels, &[i64], &[f64], &[i64]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let ends = self.reference_times(s.at, s.offset.as_ref(), grid)?;
        self.select(s, &ends, self.lookback, &mut |labels, t, v| f(labels, t, v, &ends))
    }

    fn select(
        &self,
        s: &Selector,
        ends: &[i64],
        back: i64,
        f: &mut dyn FnMut(&Labels, &[i64], &[f64]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (Some(first), Some(last)) = (ends.first(), ends.last()) else { return Ok(()) };
        let mut matchers: Vec<Matcher> = s.matchers.clone();
        matchers.extend(self.options.enforce.iter().cloned());
        let select = Select { matchers, start: first - back + 1, end: *last };
        for series in self.source.select(&select)? {
            let series = series?;
            let bytes = series.timestamps.len() * 16;
            self.charge(bytes)?;
            self.samples.set(self.samples.get() + series.timestamps.len() as u64);
            f(&series.labels, &series.timestamps, &series.values)?;
            self.release(bytes);
        }
        Ok(())
    }

    /// For each step the time a selector looks at.
    fn reference_times(
        &self,
        at: Option<At>,
        offset: Option<&Length>,
        grid: Grid,
    ) -> Result<Vec<i64>, Error> {
        let offset = offset.map_or(Ok(0), |l| self.length(l))?;
        let fixed = at.map(|a| match a {
            At::Time(t) => t,
            At::Start => self.query.start,
            At::End => self.query.time(self.query.n.saturating_sub(1)),
        });
        Ok(grid.times().map(|t| fixed.unwrap_or(t) - offset).collect())
    }

    fn length(&self, l: &Length) -> Result<i64, Error> {
        let range = self.query.step * (self.query.n as i64 - 1);
        let range = if self.query_step == 0 { 0 } else { range };
        l.resolve(self.query_step, range)
            .ok_or_else(|| Error::Execution("division by zero in duration expression".to_owned()))
    }

    fn range_length(&self, l: &Length) -> Result<i64, Error> {
        match self.length(l)? {
            ms if ms > 0 => Ok(ms),
            _ => Err(Error::Execution("duration must be greater than 0".to_owned())),
        }
    }

    /// Series of a range vector one after the other.
    pub(crate) fn each_range(
        &self,
        e: &Expr,
        grid: Grid,
        f: &mut dyn FnMut(&Range<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match &e.unwrap_parens().kind {
            Kind::Matrix { selector, range } => {
                if selector.edges != Edges::Plain {
                    return Err(Error::Execution("anchored and smoothed are not supported yet".to_owned()));
                }
                let length = self.range_length(range)?;
                let ends = self.reference_times(selector.at, selector.offset.as_ref(), grid)?;
                let (mut ts, mut vs) = (Vec::new(), Vec::new());
                self.select(selector, &ends, length, &mut |labels, t, v| {
                    // Stale markers end a series; they are no samples.
                    let stale = v.iter().any(|v| is_stale_nan(*v));
                    let (t, v) = if stale {
                        ts.clear();
                        vs.clear();
                        for (t, v) in t.iter().zip(v).filter(|(_, v)| !is_stale_nan(**v)) {
                            ts.push(*t);
                            vs.push(*v);
                        }
                        (ts.as_slice(), vs.as_slice())
                    } else {
                        (t, v)
                    };
                    f(&Range { labels, drop_name: false, t, v, ends: &ends, length })
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
                let (mut ts, mut vs) = (Vec::new(), Vec::new());
                self.each(expr, inner, &mut |c| {
                    ts.clear();
                    vs.clear();
                    for (t, v) in inner.times().zip(&c.values).filter(|(_, v)| !crate::value::is_absent(**v))
                    {
                        ts.push(t);
                        vs.push(*v);
                    }
                    self.charge(0)?;
                    f(&Range {
                        labels: &c.labels,
                        drop_name: c.drop_name,
                        t: &ts,
                        v: &vs,
                        ends: &ends,
                        length,
                    })
                })
            }
            _ => Err(Error::Execution("expected a range vector".to_owned())),
        }
    }

    /// The samples of a range vector at one time: the result of an instant query for it.
    pub(crate) fn raw_matrix(&self, e: &Expr, time: i64) -> Result<Vec<Series>, Error> {
        let mut out = Vec::new();
        self.each_range(e, Grid { start: time, step: 1, n: 1 }, &mut |r| {
            let mut samples = Vec::new();
            r.map(|_, w| {
                samples.extend(w.t.iter().zip(w.v).map(|(t, v)| Sample { timestamp: *t, value: *v }));
                None
            });
            if !samples.is_empty() {
                self.charge(samples.len() * 16)?;
                let labels =
                    if r.drop_name { crate::value::without_name(r.labels) } else { r.labels.clone() };
                out.push(Series { labels, samples });
            }
            Ok(())
        })?;
        out.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(out)
    }

    /// A counter's function on something that is not named like a counter.
    pub(crate) fn check_counter_name(&self, arg: &Expr, labels: &Labels) {
        let name = labels.get(METRIC_NAME).unwrap_or("");
        if !name.is_empty() && !["_total", "_sum", "_count", "_bucket"].iter().any(|s| name.ends_with(s)) {
            self.inform(
                arg,
                &format!(
                    "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name:?}"
                ),
            );
        }
    }
}

impl Evaluator<'_> {
    pub(crate) fn is_range_query(&self) -> bool {
        self.query_step > 0
    }

    pub(crate) fn query_grid(&self) -> Grid {
        self.query
    }
}
