//! An answer against what was expected.

use promql::Value;
use signal::Labels;

use super::read::{Eval, Expected, Fail, When};
use crate::eval::LogResult;

pub(super) fn outcome(eval: &Eval, got: Result<LogResult, String>) -> Result<(), String> {
    if matches!(eval.when, When::Format) {
        return match (crate::format(&eval.query), eval.expected.as_slice()) {
            (Ok(got), [Expected::Text(text)]) if got == *text => Ok(()),
            (Ok(got), _) => Err(format!("is laid out as {got:?}")),
            (Err(e), _) => fails(eval, &e.to_string()),
        };
    }
    match got {
        Err(e) => fails(eval, &e),
        Ok(_) if eval.fail.is_some() => Err("should have failed".to_owned()),
        Ok(LogResult::Streams(streams)) => {
            let all = streams
                .iter()
                .flat_map(|s| s.entries.iter().map(|e| (&s.labels, e.timestamp.millis(), e.line.as_str())));
            entries(eval, &all.collect::<Vec<_>>())
        }
        Ok(LogResult::Metric(r)) => value(eval, &r.value),
    }
}

fn fails(eval: &Eval, message: &str) -> Result<(), String> {
    let fits = match &eval.fail {
        None => return Err(format!("failed: {message}")),
        Some(Fail::Any) => true,
        Some(Fail::Message(m)) => m == message,
        Some(Fail::Regex(r)) => r.is_match(message),
    };
    if fits { Ok(()) } else { Err(format!("failed otherwise: {message}")) }
}

fn entries(eval: &Eval, got: &[(&Labels, i64, &str)]) -> Result<(), String> {
    if let Some(n) = eval.count {
        return if got.len() == n { Ok(()) } else { Err(format!("expected {n} lines, got {}", got.len())) };
    }
    let mut left: Vec<Option<&(&Labels, i64, &str)>> = got.iter().map(Some).collect();
    for (i, expected) in eval.expected.iter().enumerate() {
        let Expected::Entry { labels, at, line } = expected else {
            return Err("expected a metric, got lines".to_owned());
        };
        let same = |g: &Option<&(&Labels, i64, &str)>| {
            g.is_some_and(|(l, t, text)| {
                labels.as_ref().is_none_or(|want| want == *l) && t == at && text == line
            })
        };
        let found = if eval.ordered {
            left.get(i).is_some_and(same).then_some(i)
        } else {
            left.iter().position(same)
        };
        let Some(found) = found else {
            let labels = labels.as_ref().map(ToString::to_string).unwrap_or_default();
            return Err(format!("{labels} {at}ms {line:?} is missing; got {}", shown(got)));
        };
        left[found] = None;
    }
    match left.into_iter().flatten().next() {
        Some((l, t, text)) => Err(format!("unexpected {l} {t}ms {text:?}")),
        None => Ok(()),
    }
}

fn shown(got: &[(&Labels, i64, &str)]) -> String {
    let all: Vec<String> = got.iter().take(20).map(|(l, t, text)| format!("{l} {t}ms {text:?}")).collect();
    format!("[{}]", all.join(", "))
}

fn close(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-6 * a.abs().max(b.abs())
}

fn value(eval: &Eval, got: &Value) -> Result<(), String> {
    match got {
        Value::Scalar(s) => match eval.expected.as_slice() {
            [Expected::Scalar(v)] if close(*v, s.value) => Ok(()),
            _ => Err(format!("got the scalar {}", s.value)),
        },
        Value::String(s) => Err(format!("got the string {s:?}")),
        Value::Vector(v) => {
            let all: Vec<(Labels, Vec<Option<f64>>)> =
                v.iter().map(|(l, p)| (l.clone(), vec![Some(p.value)])).collect();
            series(eval, &all)
        }
        Value::Matrix(m) => {
            let When::Range(start, end, step) = eval.when else { return Err("got a range".to_owned()) };
            let steps = usize::try_from((end - start) / step + 1).unwrap_or(0);
            let all: Vec<(Labels, Vec<Option<f64>>)> = m
                .iter()
                .map(|s| {
                    let mut values = vec![None; steps];
                    for p in &s.samples {
                        let n = usize::try_from((p.timestamp - start) / step).unwrap_or(usize::MAX);
                        if let Some(v) = values.get_mut(n) {
                            *v = Some(p.value);
                        }
                    }
                    (s.labels.clone(), values)
                })
                .collect();
            series(eval, &all)
        }
    }
}

fn series(eval: &Eval, got: &[(Labels, Vec<Option<f64>>)]) -> Result<(), String> {
    let all = || {
        got.iter()
            .map(|(l, v)| {
                let v: Vec<String> = v.iter().map(|v| v.map_or("_".to_owned(), |v| v.to_string())).collect();
                format!("{l} {}", v.join(" "))
            })
            .collect::<Vec<_>>()
            .join(", ")
    };
    for (i, e) in eval.expected.iter().enumerate() {
        let Expected::Series(labels, values) = e else { return Err(format!("got series: {}", all())) };
        let at = got.iter().position(|(l, _)| l == labels);
        let Some(at) = at else { return Err(format!("{labels} is missing; got {}", all())) };
        if eval.ordered && at != i {
            return Err(format!("{labels} should stand at {i}; got {}", all()));
        }
        let have = &got[at].1;
        let same = |n: usize| match (values.get(n).copied().flatten(), have.get(n).copied().flatten()) {
            (None, None) => true,
            (Some(a), Some(b)) => close(a, b),
            _ => false,
        };
        if !(0..values.len().max(have.len())).all(same) {
            return Err(format!("{labels}: got {}", all()));
        }
    }
    if got.len() == eval.expected.len() { Ok(()) } else { Err(format!("more than expected: {}", all())) }
}
