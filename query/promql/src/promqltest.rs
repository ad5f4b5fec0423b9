//! Runs test scripts in Prometheus' promqltest language (promql/promqltest/README.md there).
//!
//! Every instant query is evaluated again as the middle step of a range query, and, if its result cannot depend on
//! the time of evaluation once every selector has an `@`, that way at several other times too.

mod compare;
mod nhcb;
mod script;
mod series;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::ast::{At, Expr, Kind};
use crate::engine::{Engine, Limits};
use crate::error::Error;
use crate::memory::MemorySeries;
use crate::parse::parse;
use crate::value::{Point, QueryResult, Sample, Value};
use compare::{check_annotations, check_failure, check_value};
use script::{Command, Eval, When, parse_script};
use signal::FloatHistogram;

use series::Item;
pub use series::{describe, describe_labels};

/// What a script gave.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub passed: usize,
    pub failed: usize,
    /// `line N: query: why`, one for each failed evaluation.
    pub failures: Vec<String>,
}

/// One value of a described series.
#[derive(Clone, Debug)]
pub enum Described {
    Omitted,
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

/// Runs a file. Errors: it cannot be read, or its commands are not understood.
pub fn run_file(path: &Path) -> Result<Report, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    run(&text)
}

/// Runs a script.
pub fn run(text: &str) -> Result<Report, String> {
    let mut report = Report::default();
    let mut storage = Arc::new(MemorySeries::default());
    for command in parse_script(text)? {
        match command {
            Command::Clear => storage = Arc::default(),
            Command::Load { step, series, with_custom } => {
                load(Arc::make_mut(&mut storage), step, &series, with_custom)?;
            }
            Command::Eval(eval) => match check(&eval, &storage) {
                Ok(()) => report.passed += 1,
                Err(why) => {
                    report.failed += 1;
                    report.failures.push(format!("line {}: {}: {why}", eval.line, eval.query));
                }
            },
        }
    }
    Ok(report)
}

fn load(
    storage: &mut MemorySeries,
    step: i64,
    all: &[series::Described],
    with_custom: bool,
) -> Result<(), String> {
    for s in all {
        for (i, item) in s.items.iter().enumerate() {
            let t = step * i as i64;
            let start = s.starts.get(i).copied().flatten().map_or(0, |offset| t + offset);
            match item {
                Item::Omitted => {}
                Item::Float(v) => storage.push_started(&s.labels, t, *v, start),
                Item::Histogram { histogram, .. } => {
                    storage.push_histogram(&s.labels, t, (**histogram).clone(), start);
                }
            }
        }
    }
    if with_custom {
        for (labels, t, h) in nhcb::convert(step, all)? {
            storage.push_histogram(&labels, t, h, 0);
        }
    }
    Ok(())
}

fn check(eval: &Eval, storage: &Arc<MemorySeries>) -> Result<(), String> {
    let limits = Limits { timeout: Duration::from_secs(100), ..Limits::default() };
    let engine = Engine::new(storage.clone(), limits);
    let When::Instant(time) = eval.when else {
        let When::Range(start, end, step) = eval.when else {
            return Err("neither instant nor range".to_owned());
        };
        return outcome(eval, engine.range(&eval.query, start, end, step)).map(|_| ());
    };
    // A range vector is asked for at its end.
    let time = eval.vector_grid.map_or(time, |(_, end, _)| end);
    instant(&engine, eval, &eval.query, time)?;
    if let Some(pinned) = pinned(&eval.query, time) {
        let times =
            if time == 0 { vec![-1000, 0, 1000] } else { vec![-10 * time, 0, time / 5, time, 10 * time] };
        for t in times {
            instant(&engine, eval, &pinned, t).map_err(|e| format!("as {pinned} at {t} ms: {e}"))?;
        }
    }
    Ok(())
}

/// What a query gave, if it was to succeed.
fn outcome(eval: &Eval, result: Result<QueryResult, Error>) -> Result<Option<QueryResult>, String> {
    match result {
        Err(e) if eval.fails() => check_failure(eval, &e.to_string()).map(|()| None),
        Err(e) => Err(format!("failed: {e}")),
        Ok(_) if eval.fails() => Err("should have failed".to_owned()),
        Ok(r) => {
            check_annotations(eval, &r)?;
            check_value(eval, &r.value)?;
            Ok(Some(r))
        }
    }
}

fn instant(engine: &Engine, eval: &Eval, query: &str, time: i64) -> Result<(), String> {
    let Some(result) = outcome(eval, engine.instant(query, time))? else { return Ok(()) };
    if eval.vector_grid.is_some()
        || eval.string.is_some()
        || matches!(result.value, Value::String(_) | Value::Matrix(_))
        || ["start()", "end()", "range()", "step()"].iter().any(|w| query.contains(w))
    {
        return Ok(());
    }
    let step = 60_000;
    let again = engine
        .range(query, time - step, time + step, step)
        .map_err(|e| format!("failed as a range query: {e}"))?;
    if eval.is_ordered() {
        return Ok(());
    }
    let Value::Matrix(series) = again.value else { return Err("a range query gave no matrix".to_owned()) };
    let mut here: Vec<_> = Vec::new();
    for s in series {
        let float = s.samples.iter().find(|p| p.timestamp == time).map(|p| (p.value, None));
        let histogram = s.histograms.iter().find(|p| p.timestamp == time);
        let histogram = histogram.map(|p| (f64::NAN, Some(p.histogram.clone())));
        for (value, histogram) in float.into_iter().chain(histogram) {
            here.push((s.labels.clone(), Point { timestamp: time, value, histogram }));
        }
    }
    let value = match (&result.value, here.first()) {
        (Value::Scalar(_), Some((_, p))) => Value::Scalar(Sample { timestamp: time, value: p.value }),
        (Value::Scalar(_), None) => return Err("a range query gave no value".to_owned()),
        _ => Value::Vector(here),
    };
    check_value(eval, &value).map_err(|e| format!("as a range query: {e}"))
}

/// Functions whose result can depend on the time of evaluation even if their arguments do not.
const TIMELY: [&str; 16] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
    "holt_winters",
];

/// The query with `@` at every selector, or at the outermost subquery around it; `None` if that does not pin it.
fn pinned(query: &str, time: i64) -> Option<String> {
    // What does not parse has failed already, as it may have been expected to.
    let mut e = parse(query).ok()?;
    pin(&mut e, At::Time(time), false).then(|| e.to_string())
}

fn pin(e: &mut Expr, time: At, inside: bool) -> bool {
    match &mut e.kind {
        Kind::Number(_) | Kind::String(_) | Kind::Bytes(_) => true,
        Kind::Selector(s) | Kind::Matrix { selector: s, .. } => {
            if !inside {
                s.at.get_or_insert(time);
            }
            true
        }
        Kind::Subquery { expr, at, .. } => {
            if !inside {
                at.get_or_insert(time);
            }
            pin(expr, time, true)
        }
        Kind::Unary { expr, .. } | Kind::Paren(expr) => pin(expr, time, inside),
        Kind::Binary { lhs, rhs, .. } => pin(lhs, time, inside) & pin(rhs, time, inside),
        Kind::Call { name, args } => {
            // What stands inside a pinned subquery is not looked at, as in Prometheus.
            let timely = !inside && TIMELY.contains(&name.as_str());
            args.iter_mut().fold(!timely, |ok, a| pin(a, time, inside) & ok)
        }
        Kind::Aggregate(a) => {
            let param = a.param.as_deref_mut().is_none_or(|p| pin(p, time, inside));
            pin(&mut a.expr, time, inside) & param
        }
    }
}

#[cfg(test)]
mod tests;
