//! Runs test scripts in Prometheus' promqltest language (promql/promqltest/README.md there).
//!
//! Every instant query is evaluated again as one step of a range query and must give the same.

mod script;
mod series;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use signal::Labels;

use crate::engine::{Engine, Limits};
use crate::memory::MemorySeries;
use crate::value::{QueryResult, Value};
use script::{Command, Eval, Expect, When, parse_script};

/// What a script gave.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub passed: usize,
    pub failed: usize,
    /// `line: query: why`, one for each failed evaluation.
    pub failures: Vec<String>,
}

/// Runs a file. Errors: it cannot be read, or its commands are not understood.
pub fn run_file(path: &Path) -> Result<Report, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    run(&text)
}

/// Runs a script.
pub fn run(text: &str) -> Result<Report, String> {
    let mut report = Report::default();
    let mut storage = MemorySeries::default();
    for command in parse_script(text)? {
        match command {
            Command::Clear => storage = MemorySeries::default(),
            Command::Load { step, series } => {
                for (labels, values) in series {
                    for (i, v) in values.iter().enumerate() {
                        if let Some(v) = v {
                            storage.push(&labels, step * i as i64, *v);
                        }
                    }
                }
            }
            Command::Eval(eval) => match check(&eval, &storage) {
                Ok(()) => report.passed += 1,
                Err(why) => {
                    report.failed += 1;
                    report.failures.push(format!("{}: {}: {why}", eval.line, eval.query));
                }
            },
        }
    }
    Ok(report)
}

fn check(eval: &Eval, storage: &MemorySeries) -> Result<(), String> {
    let limits = Limits { timeout: Duration::from_secs(100), ..Limits::default() };
    let engine = Engine::new(Arc::new(storage.clone()), limits);
    let result = match eval.when {
        When::Instant(t) => engine.instant(&eval.query, t),
        When::Range(start, end, step) => engine.range(&eval.query, start, end, step),
    };
    let result = match (result, &eval.fail) {
        (Err(e), Some(wanted)) => return wanted.check(&[e.to_string()], "error"),
        (Err(e), None) => return Err(format!("failed: {e}")),
        (Ok(_), Some(_)) => return Err("should have failed".to_owned()),
        (Ok(r), None) => r,
    };
    if eval.native {
        return Err("native histograms are not supported yet".to_owned());
    }
    check_annotations(&eval.warn, &result.warnings, "warning")?;
    check_annotations(&eval.info, &result.infos, "info")?;
    check_value(eval, &result)?;
    if let When::Instant(t) = eval.when
        && !matches!(result.value, Value::String(_) | Value::Matrix(_))
        && !["start()", "end()", "range()", "step()"].iter().any(|w| eval.query.contains(w))
    {
        again_as_range(&engine, eval, t, &result)?;
    }
    Ok(())
}

fn check_annotations(expect: &Option<Expect>, got: &[String], what: &str) -> Result<(), String> {
    match expect {
        None => Ok(()),
        Some(Expect::None) if got.is_empty() => Ok(()),
        Some(Expect::None) => Err(format!("unexpected {what}: {got:?}")),
        Some(e) if got.is_empty() => Err(format!("expected a {what}: {e:?}")),
        Some(e) => e.check(got, what),
    }
}

impl Expect {
    fn check(&self, got: &[String], what: &str) -> Result<(), String> {
        let found = match self {
            Expect::Any | Expect::None => true,
            Expect::Message(m) => {
                got.iter().any(|g| g == m || g.starts_with(m.as_str()) || g.contains(m.as_str()))
            }
            Expect::Pattern(p) => {
                let r = regex::Regex::new(p).map_err(|e| e.to_string())?;
                got.iter().any(|g| r.is_match(g))
            }
        };
        if found { Ok(()) } else { Err(format!("expected {what} {self:?}, got {got:?}")) }
    }
}

/// Prometheus: util/almost, with its test epsilon.
fn close(a: f64, b: f64) -> bool {
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let (sum, diff) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < 1e-6 * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < 1e-6
}

fn check_value(eval: &Eval, result: &QueryResult) -> Result<(), String> {
    if let Some(s) = &eval.string {
        return match &result.value {
            Value::String(got) if got == s => Ok(()),
            v => Err(format!("expected the string {s:?}, got {v:?}")),
        };
    }
    match &result.value {
        Value::Scalar(s) => match eval.scalar {
            Some(e) if close(e, s.value) => Ok(()),
            e => Err(format!("expected {e:?}, got the scalar {}", s.value)),
        },
        Value::String(s) => Err(format!("unexpected string {s:?}")),
        Value::Vector(got) => {
            if let Some(e) = eval.scalar {
                return Err(format!("expected the scalar {e}, got a vector {got:?}"));
            }
            if got.len() != eval.series.len() {
                return Err(format!("expected {} series, got {got:?}", eval.series.len()));
            }
            for (i, (labels, values)) in eval.series.iter().enumerate() {
                let at = got.iter().position(|(l, _)| l == labels);
                let Some(at) = at else { return Err(format!("{labels} is missing in {got:?}")) };
                if eval.ordered && at != i {
                    return Err(format!("{labels} should stand at {i}, stands at {at}"));
                }
                let expect = values.first().copied().flatten();
                if !expect.is_some_and(|e| close(e, got[at].1.value)) {
                    return Err(format!("{labels}: expected {expect:?}, got {}", got[at].1.value));
                }
            }
            Ok(())
        }
        Value::Matrix(got) => {
            let (start, step) = match (eval.when, eval.vector_grid) {
                (When::Range(start, _, step), _) => (start, step),
                (_, Some((start, _, step))) => (start, step),
                _ => return Err("got a range vector".to_owned()),
            };
            if got.len() != eval.series.len() {
                return Err(format!("expected {} series, got {} ({got:?})", eval.series.len(), got.len()));
            }
            for (labels, values) in &eval.series {
                let Some(s) = got.iter().find(|s| s.labels == *labels) else {
                    return Err(format!("{labels} is missing in {got:?}"));
                };
                let expect: Vec<(i64, f64)> = values
                    .iter()
                    .enumerate()
                    .filter_map(|(i, v)| Some((start + step * i as i64, (*v)?)))
                    .collect();
                let same = expect.len() == s.samples.len()
                    && expect
                        .iter()
                        .zip(&s.samples)
                        .all(|((t, v), g)| *t == g.timestamp && close(*v, g.value));
                if !same {
                    return Err(format!("{labels}: expected {expect:?}, got {:?}", s.samples));
                }
            }
            Ok(())
        }
    }
}

fn again_as_range(engine: &Engine, eval: &Eval, t: i64, first: &QueryResult) -> Result<(), String> {
    let step = 60_000;
    let again = engine
        .range(&eval.query, t - step, t + step, step)
        .map_err(|e| format!("failed as a range query: {e}"))?;
    let Value::Matrix(series) = again.value else { return Err("a range query gave no matrix".to_owned()) };
    let here: Vec<(&Labels, f64)> = series
        .iter()
        .filter_map(|s| Some((&s.labels, s.samples.iter().find(|p| p.timestamp == t)?.value)))
        .collect();
    let expect: Vec<(Labels, f64)> = match &first.value {
        Value::Scalar(s) => vec![(Labels::empty(), s.value)],
        Value::Vector(v) => v.iter().map(|(l, s)| (l.clone(), s.value)).collect(),
        _ => return Ok(()),
    };
    let same = here.len() == expect.len()
        && expect.iter().all(|(l, v)| here.iter().any(|(k, w)| *k == l && close(*v, *w)));
    if same { Ok(()) } else { Err(format!("as a range query: expected {expect:?}, got {here:?}")) }
}

#[cfg(test)]
mod tests;
