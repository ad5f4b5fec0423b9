//! The door: a query and a source in, a typed result out, within limits.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal::{Matcher, SeriesSource};

use crate::ast::{Expr, ValueType};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::pace::{Pace, Turn};
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
    /// The same for all queries of the engine together.
    pub all_bytes: usize,
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
            all_bytes: 1 << 30,
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
    pace: Arc<Pace>,
}

impl Engine {
    pub fn new(source: Arc<dyn SeriesSource>, limits: Limits) -> Self {
        Engine { source, limits, pace: Arc::new(Pace::new()) }
    }

    fn turn(&self) -> Turn {
        Turn::new(self.pace.clone(), signal::time::monotonic())
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
        let ev = Evaluator::new(&*self.source, &self.limits, self.turn(), options, query, grid, 0, time);
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
        let ev = Evaluator::new(&*self.source, &self.limits, self.turn(), options, query, grid, step, end);
        let columns = match ev.eval(expr, grid)? {
            Out::Vector(c) => finish(c)?,
            Out::Scalar(values) => vec![Column::floats(signal::Labels::empty(), false, values)],
            Out::String(_) => Vec::new(),
        };
        let mut series: Vec<Series> = Vec::with_capacity(columns.len());
        for c in columns {
            let one = listed(c, grid);
            if !one.samples.is_empty() || !one.histograms.is_empty() {
                ev.charge(one.samples.len() * size_of::<Sample>() + size_of::<Series>())?;
                series.push(one);
            }
        }
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(ev.result(Value::Matrix(series)))
    }
}

/// A column's points, of which there may be fewer than steps.
fn listed(c: Column, grid: Grid) -> Series {
    let points = grid.times().zip(&c.values).filter(|(_, v)| !is_absent(**v));
    let mut samples = Vec::with_capacity(c.values.iter().filter(|v| !is_absent(**v)).count());
    samples.extend(points.map(|(timestamp, value)| Sample { timestamp, value: *value }));
    let histograms = grid
        .times()
        .zip(c.histograms.unwrap_or_default())
        .filter_map(|(timestamp, h)| Some(HistogramPoint { timestamp, histogram: h? }));
    Series { samples, histograms: histograms.collect(), labels: c.labels }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use signal::Labels;
    use signal::time::monotonic;

    use super::*;
    use crate::memory::MemorySeries;

    const SAMPLES: i64 = 20_000;

    fn engine(limits: Limits) -> Engine {
        let mut source = MemorySeries::default();
        let labels = Labels::from_pairs([("__name__", "m")]);
        (0..SAMPLES).for_each(|t| source.push(&labels, t * 1000, (t * 7919 % 1000) as f64));
        Engine::new(Arc::new(source), limits)
    }

    /// Hours of work on one series: only what looks at the clock within a series ends in time.
    const ENDLESS: &str = "quantile_over_time(0.5, m[20000s])";

    fn endless(engine: &Engine, options: &Options) -> Result<QueryResult, Error> {
        engine.range_with(ENDLESS, 10_000_000, SAMPLES * 1000, 1000, options)
    }

    /// What stands for the end of the query is what was asked for, also where no step falls on it.
    #[test]
    fn the_end_is_not_the_last_step() {
        let engine = engine(Limits::default());
        let check = |query: &str, expect: f64| {
            let r = engine.range(query, 1_000_000, 1_025_000, 10_000).expect("evaluates");
            let Value::Matrix(series) = r.value else { panic!("no matrix") };
            let values: Vec<f64> = series.iter().flat_map(|s| s.samples.iter().map(|p| p.value)).collect();
            assert_eq!(values, [expect; 3], "{query}");
        };
        check("timestamp(m @ end())", 1025.0);
        check("timestamp(m @ start())", 1000.0);
        check("count_over_time(m[range()])", 25.0);
    }

    #[test]
    fn one_long_series_ends_at_its_deadline() {
        let began = monotonic();
        let options = Options { timeout: Some(Duration::from_millis(50)), ..Options::default() };
        assert!(matches!(endless(&engine(Limits::default()), &options), Err(Error::Timeout)));
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_query_nobody_waits_for_is_stopped() {
        let cancel = Arc::new(AtomicBool::new(false));
        let options = Options { cancel: Some(cancel.clone()), ..Options::default() };
        let engine = engine(Limits::default());
        let query = std::thread::spawn(move || endless(&engine, &options));
        cancel.store(true, Ordering::Relaxed);
        assert!(matches!(query.join().expect("no panic"), Err(Error::Canceled)));
    }

    #[test]
    fn all_queries_together_have_so_many_bytes() {
        let engine = engine(Limits { all_bytes: 1 << 20, ..Limits::default() });
        // Told in pieces of a megabyte: a query beyond two is certain to be seen.
        let query = "m or label_replace(m, \"n\", \"1\", \"\", \".*\")";
        assert!(engine.range(query, 0, SAMPLES * 1000 / 2, 1000).is_ok());
        let many = (0..30)
            .fold("m".to_owned(), |q, i| format!("{q} or label_replace(m, \"n\", \"{i}\", \"\", \".*\")"));
        let refused = engine.range(&many, 0, SAMPLES * 1000 / 2, 1000);
        assert!(matches!(refused, Err(Error::Overloaded(..))), "{refused:?}");
        assert!(engine.range(query, 0, SAMPLES * 1000 / 2, 1000).is_ok());
    }

    #[test]
    fn a_query_has_so_many_bytes() {
        let engine = engine(Limits { bytes: 100_000, ..Limits::default() });
        assert!(matches!(engine.instant("sum_over_time(m[20000s])", SAMPLES * 1000), Err(Error::Limit(_))));
        assert!(engine.instant("sum_over_time(m[200s])", SAMPLES * 1000).is_ok());
    }
}
