//! `promql('expr')`, `promql('expr', '1h')`, `promql('expr', '1h', '30s')`, `promql('expr', start, end, '30s')`: a PromQL
//! result as rows of a table like `metrics`, now, over a time that ends now, or between two times.

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use promql::{Engine, Error, Limits, Options, Value};
use signal::Labels;

use super::metrics::write;
use super::{Scan, Table, What, World};
use crate::column::Out;
use crate::error::ScanError;
use crate::filter::nanos;

/// Steps of a range without one.
const STEPS: i64 = 240;
/// Bytes that an evaluation may hold: it does not see the pool of the operators above it.
const BYTES: usize = 128 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(super) query: String,
    /// From when to when, and the step in milliseconds. `None` asks for now.
    pub(super) range: Option<(When, When, i64)>,
}

impl Question {
    /// What a function of this name was called with.
    pub(super) fn of(name: &str, args: &TableFunctionArgs<'_, '_>) -> Result<Question> {
        let usage = || {
            DataFusionError::Plan(format!(
                "write {name}('expr'), {name}('expr', '1h'), {name}('expr', '1h', '30s') or \
                 {name}('expr', now() - interval '1 hour', now(), '30s')"
            ))
        };
        let literals: Option<Vec<&ScalarValue>> = args
            .exprs()
            .iter()
            .map(|e| match e {
                Expr::Literal(v, _) => Some(v),
                _ => None,
            })
            .collect();
        let length = |v: &ScalarValue| length(v).ok_or_else(usage);
        let when = |v: &ScalarValue| When::of(v).ok_or_else(usage);
        let (query, range) = match literals.as_deref() {
            Some([query]) => (query, None),
            Some([query, back]) => {
                let back = length(back)?;
                (query, Some((When::Ago(back), When::Ago(0), (back / STEPS).max(1000))))
            }
            Some([query, back, step]) => {
                (query, Some((When::Ago(length(back)?), When::Ago(0), length(step)?)))
            }
            Some([query, start, end, step]) => (query, Some((when(start)?, when(end)?, length(step)?))),
            _ => return Err(usage()),
        };
        Ok(Question { query: text(query).ok_or_else(usage)?.to_owned(), range })
    }
}

/// A time in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    Ago(i64),
    At(i64),
}

impl When {
    pub(super) fn millis(self, now: i64) -> i64 {
        match self {
            When::Ago(ms) => now.saturating_sub(ms),
            When::At(ms) => ms,
        }
    }

    /// `'now'`, `'1h'` (so long ago), a timestamp, RFC 3339, or seconds since 1970.
    pub(super) fn of(v: &ScalarValue) -> Option<When> {
        if let Some(text) = text(v) {
            let ago = || promql::parse_duration(text).map(When::Ago);
            let at = || text.parse::<jiff::Timestamp>().ok().map(|t| When::At(t.as_millisecond()));
            return if text == "now" { Some(When::Ago(0)) } else { ago().or_else(at) };
        }
        nanos(v).map(|n| n.div_euclid(1_000_000)).or_else(|| seconds(v)).map(When::At)
    }
}

fn text(v: &ScalarValue) -> Option<&str> {
    v.try_as_str().flatten()
}

/// A number of seconds, in milliseconds.
fn seconds(v: &ScalarValue) -> Option<i64> {
    match v {
        ScalarValue::Int64(Some(s)) => s.checked_mul(1000),
        ScalarValue::Float64(Some(s)) if s.abs() < 9e12 => Some((s * 1000.0) as i64),
        _ => None,
    }
}

/// A length of time: `'30s'`, or seconds.
fn length(v: &ScalarValue) -> Option<i64> {
    text(v).map_or_else(|| seconds(v), promql::parse_duration).filter(|ms| *ms > 0)
}

pub(crate) struct PromqlFunction(pub(crate) World);

impl std::fmt::Debug for PromqlFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("promql")
    }
}

impl TableFunctionImpl for PromqlFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let question = Question::of("promql", &args)?;
        // A mistake in the expression is told before anything runs.
        promql::parse(&question.query).map_err(|e| DataFusionError::Plan(format!("promql: {e}")))?;
        Ok(Arc::new(Table { what: What::Promql(question), world: self.0.clone() }))
    }
}

pub(super) fn read(scan: &Scan, q: &Question, out: &mut Out) -> Result<(), ScanError> {
    let engine = Engine::new(scan.world.sources.tsdb.clone(), Limits { bytes: BYTES, ..Limits::default() });
    let options = Options {
        enforce: scan.world.enforce.clone(),
        timeout: Some(scan.world.config.timeout.max(Duration::from_millis(1))),
        ..Options::default()
    };
    let now = scan.world.sources.clock.now().millis();
    let result = match q.range {
        None => engine.instant_with(&q.query, now, &options),
        Some((start, end, step)) => {
            engine.range_with(&q.query, start.millis(now), end.millis(now), step, &options)
        }
    };
    let result = result.map_err(|e| match e {
        Error::Storage(m) => ScanError::Storage(m.clone()),
        e => ScanError::Query(format!("promql: {e}")),
    })?;
    write_result("promql", scan, result.value, &result.warnings, out)
}

/// Samples as rows of a table like `metrics`.
pub(super) fn write_result(
    name: &str,
    scan: &Scan,
    value: Value,
    warnings: &[String],
    out: &mut Out,
) -> Result<(), ScanError> {
    scan.world.notes.lock().extend(warnings.iter().map(|w| format!("{name}: {w}")));
    let flow = match value {
        Value::Scalar(s) => write(out, &Labels::empty(), &[s.timestamp], &[s.value]),
        Value::String(_) => return Err(ScanError::Query(format!("{name}: the expression gives a string"))),
        Value::Vector(all) => all.iter().try_for_each(|(l, s)| write(out, l, &[s.timestamp], &[s.value])),
        Value::Matrix(all) => all.iter().try_for_each(|s| {
            let (t, v): (Vec<i64>, Vec<f64>) = s.samples.iter().map(|s| (s.timestamp, s.value)).unzip();
            write(out, &s.labels, &t, &v)
        }),
    };
    if flow.is_continue() {
        // Nobody reading any more is no failure.
        let _ = out.flush();
    }
    Ok(())
}
