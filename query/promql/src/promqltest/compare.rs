//! What a query gave against what the script expects (Prometheus: promqltest/test.go compareResult).

use signal::{FloatHistogram, Labels};

use super::script::{Eval, Expect, Match, When};
use super::series::{Described, Item};
use crate::value::{QueryResult, Value};

impl Match {
    fn fits(&self, got: &str) -> bool {
        match self {
            Match::Any => true,
            Match::Message(m) => m == got,
            Match::Pattern(p) => p.is_match(got),
        }
    }
}

pub(super) fn check_failure(eval: &Eval, message: &str) -> Result<(), String> {
    match eval.expects.iter().find_map(|e| if let Expect::Fail(m) = e { Some(m) } else { None }) {
        Some(m) if !m.fits(message) => Err(format!("expected the error {m:?}, got {message:?}")),
        _ => Ok(()),
    }
}

pub(super) fn check_annotations(eval: &Eval, r: &QueryResult) -> Result<(), String> {
    for (what, got) in [("warning", &r.warnings), ("info", &r.infos)] {
        let wanted: Vec<&Match> = eval
            .expects
            .iter()
            .filter_map(|e| match e {
                Expect::Warn(m) if what == "warning" => Some(m),
                Expect::Info(m) if what == "info" => Some(m),
                _ => None,
            })
            .collect();
        let none = eval.expects.iter().any(|e| match e {
            Expect::NoWarn => what == "warning",
            Expect::NoInfo => what == "info",
            _ => false,
        });
        if none && !got.is_empty() {
            return Err(format!("expected no {what}, got {got:?}"));
        }
        if wanted.is_empty() {
            continue;
        }
        if let Some(m) = wanted.iter().find(|m| !got.iter().any(|g| m.fits(g))) {
            return Err(format!("expected the {what} {m:?}, got {got:?}"));
        }
        if let Some(g) = got.iter().find(|g| !wanted.iter().any(|m| m.fits(g))) {
            return Err(format!("unexpected {what} {g:?}"));
        }
    }
    Ok(())
}

/// Prometheus: util/almost, with its test epsilon.
fn close(a: f64, b: f64) -> bool {
    if signal::is_stale_nan(a) || signal::is_stale_nan(b) {
        return signal::is_stale_nan(a) && signal::is_stale_nan(b);
    }
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let (sum, diff) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < 1e-6 * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < 1e-6
}

fn same_histogram(expect: &FloatHistogram, got: &FloatHistogram, with_hint: bool) -> bool {
    let buckets = |a: &[signal::histogram::Bucket], b: &[signal::histogram::Bucket]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.index == b.index && close(a.count, b.count))
    };
    expect.schema == got.schema
        && close(expect.count, got.count)
        && close(expect.sum, got.sum)
        && expect.bounds == got.bounds
        && expect.zero_threshold == got.zero_threshold
        && close(expect.zero_count, got.zero_count)
        && buckets(&expect.positive, &got.positive)
        && buckets(&expect.negative, &got.negative)
        && (!with_hint || expect.hint == got.hint)
}

fn same(expect: &Item, value: f64, got: Option<&FloatHistogram>) -> bool {
    match (expect, got) {
        (Item::Histogram { histogram, with_hint }, Some(got)) => same_histogram(histogram, got, *with_hint),
        (Item::Float(v), None) => close(*v, value),
        (Item::Omitted, None) => close(0.0, value),
        _ => false,
    }
}

fn print(value: f64, histogram: Option<&FloatHistogram>) -> String {
    histogram.map_or_else(|| value.to_string(), |h| format!("{h} ({:?})", h.hint))
}

pub(super) fn check_value(eval: &Eval, value: &Value) -> Result<(), String> {
    let expected = |labels: &Labels, got: &dyn Fn() -> String| {
        let at = eval.series.iter().rposition(|s| s.labels == *labels);
        at.map(|i| (i, &eval.series[i])).ok_or_else(|| format!("unexpected {labels}: {}", got()))
    };
    match value {
        Value::String(got) => match &eval.string {
            Some(s) if s == got => Ok(()),
            s => Err(format!("expected {s:?}, got the string {got:?}")),
        },
        Value::Scalar(s) => match eval.scalar {
            Some(e) if close(e, s.value) => Ok(()),
            e => Err(format!("expected {e:?}, got the scalar {}", s.value)),
        },
        Value::Vector(got) => {
            if let Some(e) = eval.scalar {
                return Err(format!("expected the scalar {e}, got a vector"));
            }
            for (at, (labels, p)) in got.iter().enumerate() {
                let h = p.histogram.as_deref();
                let (i, e) = expected(labels, &|| print(p.value, h))?;
                if eval.is_ordered() && i != at {
                    return Err(format!("{labels} should stand at {i}, stands at {at}"));
                }
                let item = e.items.first().unwrap_or(&Item::Omitted);
                if !same(item, p.value, h) {
                    return Err(format!("{labels}: expected {item:?}, got {}", print(p.value, h)));
                }
            }
            missing(eval, |l| got.iter().any(|(g, _)| g == l))
        }
        Value::Matrix(got) => {
            if let Some(e) = eval.scalar {
                return Err(format!("expected the scalar {e}, got a matrix"));
            }
            if eval.is_ordered() {
                return Err("expected an ordered result, got a matrix".to_owned());
            }
            let (start, step) = match (eval.when, eval.vector_grid) {
                (When::Range(start, _, step), _) | (_, Some((start, _, step))) => (start, step),
                _ => return Err("got a range vector".to_owned()),
            };
            for s in got {
                let mut points: Vec<(i64, f64, Option<&FloatHistogram>)> =
                    s.samples.iter().map(|p| (p.timestamp, p.value, None)).collect();
                points.extend(s.histograms.iter().map(|p| (p.timestamp, f64::NAN, Some(&*p.histogram))));
                points.sort_by_key(|p| p.0);
                let text = || {
                    let all = points.iter().map(|(t, v, h)| format!("{t}: {}", print(*v, *h)));
                    all.collect::<Vec<_>>().join(", ")
                };
                let (_, e) = expected(&s.labels, &text)?;
                let wanted: Vec<(i64, &Item)> = (0i64..)
                    .zip(&e.items)
                    .filter(|(_, item)| !matches!(item, Item::Omitted))
                    .map(|(i, item)| (start + step * i, item))
                    .collect();
                let fits = wanted.len() == points.len()
                    && wanted.iter().zip(&points).all(|((t, e), (at, v, h))| t == at && same(e, *v, *h));
                if !fits {
                    return Err(format!("{}: expected {wanted:?}, got {}", s.labels, text()));
                }
            }
            missing(eval, |l| got.iter().any(|s| s.labels == *l))
        }
    }
}

fn missing(eval: &Eval, is_there: impl Fn(&Labels) -> bool) -> Result<(), String> {
    let absent: Option<&Described> = eval.series.iter().find(|s| !is_there(&s.labels));
    absent.map_or(Ok(()), |s| Err(format!("{} is missing", s.labels)))
}
