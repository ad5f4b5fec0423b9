//! The shape of a test file.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::file::parse_duration;

type Texts = BTreeMap<String, Option<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestFile {
    pub(super) rule_files: Option<Vec<String>>,
    pub(super) evaluation_interval: Option<String>,
    pub(super) group_eval_order: Option<Vec<String>>,
    pub(super) tests: Option<Vec<TestGroup>>,
    pub(super) fuzzy_compare: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestGroup {
    pub(super) interval: Option<String>,
    pub(super) input_series: Option<Vec<InputSeries>>,
    pub(super) alert_rule_test: Option<Vec<AlertTest>>,
    pub(super) promql_expr_test: Option<Vec<ExpressionTest>>,
    pub(super) external_labels: Option<Texts>,
    pub(super) external_url: Option<String>,
    pub(super) name: Option<String>,
    pub(super) start_timestamp: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputSeries {
    pub(super) series: Option<String>,
    pub(super) values: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertTest {
    pub(super) eval_time: Option<String>,
    pub(super) alertname: Option<String>,
    pub(super) exp_alerts: Option<Vec<ExpectedAlert>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedAlert {
    pub(super) exp_labels: Option<Texts>,
    pub(super) exp_annotations: Option<Texts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpressionTest {
    pub(super) expr: Option<String>,
    pub(super) eval_time: Option<String>,
    pub(super) exp_samples: Option<Vec<ExpectedSample>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedSample {
    pub(super) labels: Option<String>,
    pub(super) value: Option<Number>,
    /// If there is one, the value counts for nothing.
    pub(super) histogram: Option<String>,
}

/// A number in any of YAML 1.1's notations, as Go reads them: `1_000`, `0x1F`, `0o17`, `.inf`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number(pub(super) f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Number, D::Error> {
        let text = String::deserialize(d)?;
        number(&text)
            .map(Number)
            .ok_or_else(|| D::Error::custom(format!("cannot unmarshal {text:?} into float64")))
    }
}

fn number(text: &str) -> Option<f64> {
    let plain = text.replace('_', "").to_ascii_lowercase();
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(d) => (-1.0, d),
        None => (1.0, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let based = [("0x", 16), ("0o", 8), ("0b", 2)];
    if let Some((prefix, base)) = based.iter().find(|(p, _)| digits.starts_with(p)) {
        return i64::from_str_radix(&digits[prefix.len()..], *base).ok().map(|i| sign * i as f64);
    }
    match digits {
        ".inf" => Some(sign * f64::INFINITY),
        ".nan" => Some(f64::NAN),
        d if d.starts_with(|c: char| c.is_ascii_digit() || c == '.') => d.parse().ok().map(|v: f64| sign * v),
        _ => None,
    }
}

pub(super) fn text(all: Option<&Texts>) -> BTreeMap<String, String> {
    all.into_iter().flatten().map(|(n, v)| (n.clone(), v.clone().unwrap_or_default())).collect()
}

/// Milliseconds of a duration; none is nought.
pub(super) fn millis(duration: Option<&str>) -> Result<i64, String> {
    let Some(text) = duration else { return Ok(0) };
    Ok(i64::try_from(parse_duration(text)?.as_millis()).unwrap_or(i64::MAX))
}

impl TestGroup {
    /// How many checks it holds; that its rules can be evaluated is one if there is no other.
    pub(super) fn checks(&self) -> usize {
        let alerts = self.alert_rule_test.as_ref().map_or(0, Vec::len);
        let expressions = self.promql_expr_test.as_ref().map_or(0, Vec::len);
        (alerts + expressions).max(1)
    }

    /// Labels and values of the input.
    pub(super) fn series(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.input_series.iter().flatten();
        all.map(|s| (s.series.as_deref().unwrap_or(""), s.values.as_deref().unwrap_or("")))
    }

    /// When time begins, in milliseconds since 1970: seconds, or RFC 3339.
    pub(super) fn start(&self) -> Result<i64, String> {
        let Some(text) = &self.start_timestamp else { return Ok(0) };
        if let Ok(seconds) = text.parse::<f64>() {
            return Ok((seconds * 1000.0).round() as i64);
        }
        let t: jiff::Timestamp =
            text.parse().map_err(|_| format!("cannot parse {text:?} to a valid timestamp"))?;
        Ok(t.as_millisecond())
    }

    /// The last time that is looked at, in milliseconds from the start.
    pub(super) fn last(&self) -> Result<i64, String> {
        let alerts = self.alert_rule_test.iter().flatten().map(|a| a.eval_time.as_deref());
        let expressions = self.promql_expr_test.iter().flatten().map(|e| e.eval_time.as_deref());
        alerts.chain(expressions).try_fold(0, |last, t| Ok(last.max(millis(t)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        let check = |text: &str, expect: Option<f64>| assert_eq!(number(text), expect, "{text}");
        check("1_300", Some(1300.0));
        check("-1.5e3", Some(-1500.0));
        check("+0x1F", Some(31.0));
        check("0o17", Some(15.0));
        check("-.Inf", Some(f64::NEG_INFINITY));
        check(".5", Some(0.5));
        assert!(number(".NaN").is_some_and(f64::is_nan));
        check("NaN", None);
        check("text", None);
        check("", None);
    }
}
