//! `promql('expr')`, `promql('expr', '1h')`, `promql('expr', '1h', '30s')`: a PromQL result as rows of a table like
//! `metrics`, now or over a time that ends now.

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use promql::{Engine, Error, Limits, Options, Value};
use signal::Labels;

use super::metrics::write;
use super::{Scan, Table, What, World};
use crate::column::Out;
use crate::error::ScanError;

/// Steps of a range without one.
const STEPS: i64 = 240;
/// Bytes that an evaluation may hold: it does not see the pool of the operators above it.
const BYTES: usize = 128 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Question {
    query: String,
    /// Milliseconds: how far back, and the step. `None` asks for now.
    range: Option<(i64, i64)>,
}

pub(crate) struct PromqlFunction(pub(crate) World);

impl std::fmt::Debug for PromqlFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("promql")
    }
}

impl TableFunctionImpl for PromqlFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let usage = || {
            DataFusionError::Plan(
                "write promql('expr'), promql('expr', '1h') or promql('expr', '1h', '30s')".to_owned(),
            )
        };
        let texts: Option<Vec<&str>> = args
            .exprs()
            .iter()
            .map(|e| match e {
                Expr::Literal(v, _) => v.try_as_str().flatten(),
                _ => None,
            })
            .collect();
        let millis = |text: &str| promql::parse_duration(text).filter(|ms| *ms > 0).ok_or_else(usage);
        let (query, range) = match texts.as_deref() {
            Some([query]) => (query, None),
            Some([query, back]) => {
                let back = millis(back)?;
                (query, Some((back, (back / STEPS).max(1000))))
            }
            Some([query, back, step]) => (query, Some((millis(back)?, millis(step)?))),
            _ => return Err(usage()),
        };
        // A mistake in the expression is told before anything runs.
        promql::parse(query).map_err(|e| DataFusionError::Plan(format!("promql: {e}")))?;
        let question = Question { query: (*query).to_owned(), range };
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
        Some((back, step)) => engine.range_with(&q.query, now - back, now, step, &options),
    };
    let result = result.map_err(|e| match e {
        Error::Storage(m) => ScanError::Storage(m.clone()),
        e => ScanError::Query(format!("promql: {e}")),
    })?;
    scan.world.notes.lock().extend(result.warnings.iter().map(|w| format!("promql: {w}")));
    let flow = match result.value {
        Value::Scalar(s) => write(out, &Labels::empty(), &[s.timestamp], &[s.value]),
        Value::String(_) => return Err(ScanError::Query("promql: the expression gives a string".to_owned())),
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
