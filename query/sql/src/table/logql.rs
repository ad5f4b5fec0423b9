//! `logql('query')`, and with times as `promql` takes them: a log query's lines, or a metric query's samples.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::{DataFusionError, Result};
use logql::{Engine, Error, Limits, LogResult, Options, Query};
use signal::Timestamp;

use super::promql::{Question, write_result};
use super::{Scan, Table, What, World};
use crate::column::{Out, map, nanos, text};
use crate::error::ScanError;

/// Lines that one call may give: they are held until they are sorted.
const LINES: usize = 100_000;

/// Of a log query; a metric query's rows are as those of `promql`.
pub(crate) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        nanos("time"),
        text("namespace"),
        text("pod"),
        text("container"),
        text("line"),
        map("labels"),
    ]))
});

pub(crate) struct LogqlFunction(pub(crate) World);

impl std::fmt::Debug for LogqlFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("logql")
    }
}

impl TableFunctionImpl for LogqlFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let question = Question::of("logql", &args)?;
        // A mistake in the query is told before anything runs.
        let query =
            logql::parse(&question.query).map_err(|e| DataFusionError::Plan(format!("logql: {e}")))?;
        let what = What::Logql { question, lines: matches!(query, Query::Log(_)) };
        Ok(Arc::new(Table { what, world: self.0.clone() }))
    }
}

pub(super) fn read(scan: &Scan, q: &Question, out: &mut Out) -> std::result::Result<(), ScanError> {
    let limits = Limits {
        lines: LINES,
        timeout: scan.world.config.timeout.max(Duration::from_millis(1)),
        ..Limits::default()
    };
    let engine = Engine::new(scan.world.sources.logs.clone(), limits);
    let options = Options { enforce: scan.world.enforce.clone(), limit: LINES, ..Options::default() };
    let now = scan.world.sources.clock.now().millis();
    let result = match q.range {
        None => engine.instant(&q.query, Timestamp::from_millis(now), &options),
        Some((start, end, step)) => {
            let at = |ms| Timestamp::from_millis(ms);
            let step = Duration::from_millis(step.unsigned_abs());
            engine.range(&q.query, at(start.millis(now)), at(end.millis(now)), step, &options)
        }
    };
    let (result, _) = result.map_err(|e| match e {
        Error::Index(e) => ScanError::Storage(e.to_string()),
        e => ScanError::Query(format!("logql: {e}")),
    })?;
    let streams = match result {
        LogResult::Metric(r) => return write_result("logql", scan, r.value, &r.warnings, out),
        LogResult::Streams(streams) => streams,
    };
    if streams.iter().map(|s| s.entries.len()).sum::<usize>() >= LINES {
        scan.world
            .notes
            .lock()
            .insert(format!("logql: the newest {LINES} lines; ask for less time or fewer streams"));
    }
    for s in &streams {
        let get = |name| s.labels.get(name).unwrap_or_default();
        for e in &s.entries {
            let full = out.add(1, |i, c| match i {
                0 => c.nanos(Some(e.timestamp.nanos())),
                1 => c.text(get("namespace")),
                2 => c.text(get("pod")),
                3 => c.text(get("container")),
                4 => c.text(&e.line),
                _ => c.maps(s.labels.iter(), 1),
            });
            if full && out.flush().is_break() {
                return Ok(());
            }
        }
    }
    // Nobody reading any more is no failure.
    let _ = out.flush();
    Ok(())
}
