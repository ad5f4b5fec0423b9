//! What was given against what was expected, in `promtool`'s words.

use std::collections::BTreeMap;

use promql::promqltest::{Described, describe, describe_labels};
use promql::{Engine, Value, print_duration};
use signal::histogram::ResetHint;
use signal::{FloatHistogram, Labels};
use template::{exponent, general};

use super::format::{AlertTest, ExpressionTest, TestGroup, millis, text};
use crate::alert::{AlertState, Annotations};
use crate::group::Group;
use crate::rule::ALERT_NAME;

/// Labels and annotations; labels by name, since an expected one may be empty.
type Told = (BTreeMap<String, String>, Annotations);

pub(super) fn check_alert(group: &TestGroup, test: &AlertTest, groups: &[Group]) -> Result<(), String> {
    let name = test.alertname.as_deref().unwrap_or("");
    let rules =
        groups.iter().flat_map(|g| &g.rules).filter(|r| r.spec.alert.is_some() && r.spec.name == name);
    let mut got: Vec<Told> = rules
        .flat_map(|r| r.alerts.active().filter(|a| a.state == AlertState::Firing))
        .map(|a| {
            let labels = a.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned()));
            (labels.collect(), a.annotations.clone())
        })
        .collect();
    let mut expected: Vec<Told> = test
        .exp_alerts
        .iter()
        .flatten()
        .map(|e| {
            let mut labels = text(e.exp_labels.as_ref());
            labels.insert(ALERT_NAME.to_owned(), name.to_owned());
            (labels, text(e.exp_annotations.as_ref()))
        })
        .collect();
    got.sort();
    expected.sort();
    if got == expected {
        return Ok(());
    }
    let group = group.name.as_deref().map(|n| format!("    name: {n},\n")).unwrap_or_default();
    let at = print_duration(millis(test.eval_time.as_deref()).unwrap_or(0));
    Err(format!(
        "{group}    alertname: {name}, time: {at}, \n        exp:{}, \n        got:{}",
        told(&expected),
        told(&got)
    ))
}

fn pairs(all: &BTreeMap<String, String>) -> String {
    let all: Vec<String> = all.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
    format!("{{{}}}", all.join(", "))
}

fn told(all: &[Told]) -> String {
    if all.is_empty() {
        return "[]".to_owned();
    }
    let all = all.iter().enumerate().map(|(i, (labels, annotations))| {
        let pad = " ".repeat(14);
        format!("            {i}:\n{pad}Labels:{}\n{pad}Annotations:{}", pairs(labels), pairs(annotations))
    });
    format!("[\n{}\n            ]", all.collect::<Vec<_>>().join(",\n"))
}

/// One sample of a vector.
struct Sample {
    labels: Labels,
    value: f64,
    histogram: Option<FloatHistogram>,
}

pub(super) fn check_expression(
    test: &ExpressionTest,
    start: i64,
    engine: &Engine,
    fuzzy: bool,
) -> Result<(), String> {
    let expr = test.expr.as_deref().unwrap_or("");
    let offset = millis(test.eval_time.as_deref())?;
    let at = print_duration(offset);
    let fail = |e: String| format!("    expr: {expr:?}, time: {at}, err: {e}");
    let result = engine.instant(expr, start + offset).map_err(|e| fail(e.to_string()))?;
    let mut got: Vec<Sample> = match result.value {
        Value::Vector(all) => all
            .into_iter()
            .map(|(labels, p)| {
                let histogram = p.histogram.map(|h| (*h).clone());
                Sample { labels, value: p.value, histogram }
            })
            .collect(),
        Value::Scalar(s) => vec![Sample { labels: Labels::empty(), value: s.value, histogram: None }],
        _ => return Err(fail("rule result is not a vector or scalar".to_owned())),
    };
    let mut expected = Vec::new();
    for e in test.exp_samples.iter().flatten() {
        let labels = e.labels.as_deref().unwrap_or("");
        let sample = describe_labels(labels).and_then(|l| {
            let histogram =
                e.histogram.as_deref().filter(|h| !h.is_empty()).map(one_histogram).transpose()?;
            Ok(Sample { labels: l, value: e.value.map_or(0.0, |v| v.0), histogram })
        });
        expected.push(sample.map_err(|e| fail(format!("labels {labels:?}: {e}")))?);
    }
    got.sort_by(|a, b| a.labels.cmp(&b.labels));
    expected.sort_by(|a, b| a.labels.cmp(&b.labels));
    let same = got.len() == expected.len() && expected.iter().zip(&got).all(|(e, g)| equal(e, g, fuzzy));
    if same {
        return Ok(());
    }
    Err(format!(
        "    expr: {expr:?}, time: {at},\n        exp: {}\n        got: {}",
        samples(&expected),
        samples(&got)
    ))
}

fn one_histogram(text: &str) -> Result<FloatHistogram, String> {
    match describe("", text)?.1.as_slice() {
        [Described::Histogram(h)] => Ok((**h).clone()),
        [other] => Err(format!("expected histogram, got {other:?}")),
        all => Err(format!("expected 1 value, got {}", all.len())),
    }
}

fn equal(e: &Sample, g: &Sample, fuzzy: bool) -> bool {
    let values = match (&e.histogram, &g.histogram) {
        (Some(e), Some(g)) => e == g && e.hint == g.hint,
        (None, None) => {
            e.value == g.value || fuzzy && (e.value.next_up() == g.value || e.value.next_down() == g.value)
        }
        _ => false,
    };
    e.labels == g.labels && values
}

fn samples(all: &[Sample]) -> String {
    if all.is_empty() {
        return "nil".to_owned();
    }
    let all = all.iter().map(|s| match &s.histogram {
        Some(h) => format!("{} {}", s.labels, histogram(h)),
        None => format!("{} {}", s.labels, exponent(s.value, None).replace('e', "E")),
    });
    all.collect::<Vec<_>>().join(", ")
}

/// In the notation in which histograms are described.
fn histogram(h: &FloatHistogram) -> String {
    let number = |v: f64| general(v, None);
    let mut out = Vec::new();
    if h.schema != 0 {
        out.push(format!("schema:{}", h.schema));
    }
    for (name, v) in
        [("count", h.count), ("sum", h.sum), ("z_bucket", h.zero_count), ("z_bucket_w", h.zero_threshold)]
    {
        if v != 0.0 {
            out.push(format!("{name}:{}", number(v)));
        }
    }
    let list = |all: &mut dyn Iterator<Item = f64>| all.map(number).collect::<Vec<_>>().join(" ");
    if h.is_custom() {
        out.push(format!("custom_values:[{}]", list(&mut h.bounds.iter().copied())));
    }
    match h.hint {
        ResetHint::Unknown => {}
        ResetHint::Reset => out.push("counter_reset_hint:reset".to_owned()),
        ResetHint::NotReset => out.push("counter_reset_hint:not_reset".to_owned()),
        ResetHint::Gauge => out.push("counter_reset_hint:gauge".to_owned()),
    }
    for (name, offset, buckets) in
        [("buckets", "offset", &h.positive), ("n_buckets", "n_offset", &h.negative)]
    {
        if let (Some(first), Some(last)) = (buckets.first(), buckets.last()) {
            if first.index != 0 {
                out.push(format!("{offset}:{}", first.index));
            }
            let count = |i: i32| buckets.iter().find(|b| b.index == i).map_or(0.0, |b| b.count);
            out.push(format!("{name}:[{}]", list(&mut (first.index..=last.index).map(count))));
        }
    }
    format!("{{{{{}}}}}", out.join(" "))
}
