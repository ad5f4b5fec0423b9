//! The door: a query and a source in, a typed result out, within limits.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal::{Matcher, SeriesSource};

use crate::ast::{Expr, ValueType};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::parse::parse;
use crate::value::{
    Cell, Column, Grid, HistogramPoint, Out, Point, QueryResult, Sample, Series, Value, is_absent,
    merge_equal, without_name,
};

/// What one query may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How far an instant selector looks back for a sample.
    pub lookback: Duration,
    pub timeout: Duration,
    /// Bytes of columns held at once, about.
    pub bytes: usize,
    /// Steps of a range query.
    pub steps: usize,
    /// The step of subqueries that name none.
    pub default_step: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            lookback: Duration::from_secs(300),
            timeout: Duration::from_secs(120),
            bytes: 512 << 20,
            steps: 11_000,
            default_step: Duration::from_secs(60),
        }
    }
}

/// What one caller asks on top of the query.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Added to every selector: what the caller may see.
    pub enforce: Vec<Matcher>,
    pub lookback: Option<Duration>,
    pub timeout: Option<Duration>,
    /// Set to true to stop the query.
    pub cancel: Option<Arc<AtomicBool>>,
}

#[derive(Clone)]
pub struct Engine {
    source: Arc<dyn SeriesSource>,
    limits: Limits,
}

impl Engine {
    pub fn new(source: Arc<dyn SeriesSource>, limits: Limits) -> Self {
        Engine { source, limits }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Evaluates at one time, in milliseconds.
    pub fn instant(&self, query: &str, time: i64) -> Result<QueryResult, Error> {
        self.instant_with(query, time, &Options::default())
    }

    pub fn instant_with(&self, query: &str, time: i64, options: &Options) -> Result<QueryResult, Error> {
        let expr = parse(query)?;
        let grid = Grid { start: time, step: 1, n: 1 };
        let ev = Evaluator::new(&*self.source, &self.limits, options, query, grid, 0);
        let value = match expr.value_type() {
            ValueType::Matrix => Value::Matrix(ev.raw_matrix(&expr, time)?),
            _ => match ev.eval(&expr, grid)? {
                Out::Scalar(v) => {
                    Value::Scalar(Sample { timestamp: time, value: v.first().copied().unwrap_or(f64::NAN) })
                }
                Out::String(s) => Value::String(s),
                Out::Vector(columns) => Value::Vector(
                    finish(columns)?
                        .into_iter()
                        .filter_map(|c| {
                            let (value, histogram) = match c.cell(0)? {
                                Cell::Float(v) => (v, None),
                                Cell::Histogram(h) => (f64::NAN, Some(h)),
                            };
                            Some((c.labels, Point { timestamp: time, value, histogram }))
                        })
                        .collect(),
                ),
            },
        };
        Ok(ev.result(value))
    }

    /// Evaluates at `start`, `start + step`, … up to `end`, in milliseconds.
    pub fn range(&self, query: &str, start: i64, end: i64, step: i64) -> Result<QueryResult, Error> {
        self.range_with(query, start, end, step, &Options::default())
    }

    pub fn range_with(
        &self,
        query: &str,
        start: i64,
        end: i64,
        step: i64,
        options: &Options,
    ) -> Result<QueryResult, Error> {
        let expr = parse(query)?;
        self.range_expr(&expr, query, start, end, step, options)
    }

    fn range_expr(
        &self,
        expr: &Expr,
        query: &str,
        start: i64,
        end: i64,
        step: i64,
        options: &Options,
    ) -> Result<QueryResult, Error> {
        if step <= 0 || end < start {
            return Err(Error::Execution(
                "the step must be positive and the end not before the start".to_owned(),
            ));
        }
        let t = expr.value_type();
        if t != ValueType::Scalar && t != ValueType::Vector {
            return Err(Error::Execution(format!(
                "invalid expression type {:?} for range query, must be Scalar or instant Vector",
                t.describe()
            )));
        }
        let n = usize::try_from((end - start) / step + 1).unwrap_or(usize::MAX);
        if n > self.limits.steps.saturating_add(1) {
            return Err(Error::Limit(format!("{n} steps, the limit is {}", self.limits.steps)));
        }
        let grid = Grid { start, step, n };
        let ev = Evaluator::new(&*self.source, &self.limits, options, query, grid, step);
        let columns = match ev.eval(expr, grid)? {
            Out::Vector(c) => finish(c)?,
            Out::Scalar(values) => vec![Column::floats(signal::Labels::empty(), false, values)],
            Out::String(_) => Vec::new(),
        };
        let mut series: Vec<Series> = columns
            .into_iter()
            .map(|c| Series {
                samples: grid
                    .times()
                    .zip(c.values)
                    .filter(|(_, v)| !is_absent(*v))
                    .map(|(timestamp, value)| Sample { timestamp, value })
                    .collect(),
                histograms: grid
                    .times()
                    .zip(c.histograms.unwrap_or_default())
                    .filter_map(|(timestamp, h)| Some(HistogramPoint { timestamp, histogram: h? }))
                    .collect(),
                labels: c.labels,
            })
            .filter(|s: &Series| !s.samples.is_empty() || !s.histograms.is_empty())
            .collect();
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(ev.result(Value::Matrix(series)))
    }
}

/// Removes the names that were marked for it, and sees to it that no two series are the same.
fn finish(mut columns: Vec<Column>) -> Result<Vec<Column>, Error> {
    for c in &mut columns {
        if c.drop_name {
            c.labels = without_name(&c.labels);
        }
    }
    merge_equal(columns)
        .ok_or_else(|| Error::Execution("vector cannot contain metrics with the same labelset".to_owned()))
}
