//! Parses the Prometheus text format 0.0.4 and OpenMetrics 1.0 text into samples; [`protobuf`] is the third format.
//!
//! Sources: prometheus.io/docs/instrumenting/exposition_formats, OpenMetrics 1.0.

pub(crate) mod protobuf;

use std::sync::Arc;

use signal::{FloatHistogram, METRIC_NAME, Metadata, MetricKind};

/// One line's sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// Includes `__name__`; in the order written.
    pub labels: Vec<(String, String)>,
    pub value: f64,
    /// Milliseconds, if the line has a timestamp.
    pub timestamp: Option<i64>,
    /// When counting began, in milliseconds; 0 if that is not said.
    pub start: i64,
    /// An example behind the sample.
    pub example: Option<Box<Example>>,
}

/// One observation, as an example of those behind a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    pub labels: Vec<(String, String)>,
    pub value: f64,
    /// Milliseconds, if it has a time.
    pub timestamp: Option<i64>,
}

/// A native histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Native {
    /// Includes `__name__`.
    pub labels: Vec<(String, String)>,
    pub timestamp: Option<i64>,
    pub start: i64,
    pub histogram: Arc<FloatHistogram>,
    pub examples: Vec<Example>,
}

/// What an exposition holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    pub samples: Vec<Parsed>,
    pub metadata: Vec<Metadata>,
    /// Only the protobuf format has them.
    pub histograms: Vec<Native>,
}

/// A line that cannot be read.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    pub what: &'static str,
}

/// Reads a whole exposition. `openmetrics` says which of the two formats it is (timestamps are seconds there,
/// milliseconds in the older one; `# EOF` must end it).
pub fn parse(text: &str, openmetrics: bool) -> Result<Exposition, ParseError> {
    let mut out = Exposition::default();
    let mut ended = false;
    for (i, line) in text.lines().enumerate() {
        let fail = |what| ParseError { line: i + 1, what };
        if ended && !line.is_empty() {
            return Err(fail("text after # EOF"));
        }
        let trimmed = line.trim_start_matches([' ', '\t']);
        if trimmed.is_empty() {
            continue;
        }
        if let Some(comment) = trimmed.strip_prefix('#') {
            if openmetrics && comment == " EOF" {
                ended = true;
            } else {
                read_comment(comment, &mut out.metadata);
            }
            continue;
        }
        out.samples.push(read_sample(trimmed, openmetrics).map_err(fail)?);
    }
    if openmetrics && !ended {
        return Err(ParseError { line: text.lines().count(), what: "the data does not end with # EOF" });
    }
    Ok(out)
}

fn read_comment(comment: &str, metadata: &mut Vec<Metadata>) {
    let mut words = comment.trim_start().splitn(3, [' ', '\t']);
    let (Some(keyword), Some(family)) = (words.next(), words.next()) else { return };
    let rest = words.next().unwrap_or("").trim();
    let entry = match metadata.iter_mut().rposition(|m| m.family == family) {
        Some(i) => &mut metadata[i],
        None if matches!(keyword, "HELP" | "TYPE" | "UNIT") => {
            metadata.push(Metadata {
                family: family.to_owned(),
                kind: MetricKind::Unknown,
                help: String::new(),
                unit: String::new(),
            });
            metadata.last_mut().expect("an entry was pushed")
        }
        None => return,
    };
    match keyword {
        "HELP" => entry.help = rest.replace("\\n", "\n").replace("\\\\", "\\"),
        "UNIT" => rest.clone_into(&mut entry.unit),
        "TYPE" => {
            entry.kind = match rest {
                "counter" => MetricKind::Counter,
                "gauge" => MetricKind::Gauge,
                "histogram" => MetricKind::Histogram,
                "gaugehistogram" => MetricKind::GaugeHistogram,
                "summary" => MetricKind::Summary,
                "info" => MetricKind::Info,
                "stateset" => MetricKind::StateSet,
                _ => MetricKind::Unknown,
            };
        }
        _ => {}
    }
}

fn read_sample(line: &str, openmetrics: bool) -> Result<Parsed, &'static str> {
    let mut labels = Vec::with_capacity(8);
    let end = line.find(['{', ' ', '\t']).ok_or("a sample has no value")?;
    let (name, mut rest) = line.split_at(end);
    if !name.is_empty() {
        if !is_metric_name(name) {
            return Err("not a metric name");
        }
        labels.push((METRIC_NAME.to_owned(), name.to_owned()));
    }
    if let Some(inside) = rest.strip_prefix('{') {
        rest = read_labels(inside, &mut labels)?;
    }
    if !labels.iter().any(|(n, _)| n == METRIC_NAME) {
        return Err("a sample has no name");
    }
    let (rest, example) = match rest.split_once(" # ") {
        Some((rest, text)) if openmetrics => (rest, Some(Box::new(read_example(text)?))),
        // The older format has none; some write them all the same.
        Some((rest, _)) => (rest, None),
        None => (rest, None),
    };
    let mut words = rest.split_ascii_whitespace();
    let value = read_value(words.next().ok_or("a sample has no value")?).ok_or("not a number")?;
    let timestamp = match words.next() {
        None => None,
        Some(w) if openmetrics => {
            let secs: f64 = w.parse().map_err(|_| "not a timestamp in seconds")?;
            Some((secs * 1000.0).round() as i64)
        }
        Some(w) => Some(w.parse().map_err(|_| "not a timestamp in milliseconds")?),
    };
    if words.next().is_some() {
        return Err("more than name, value and timestamp");
    }
    Ok(Parsed { labels, value, timestamp, start: 0, example })
}

/// `{trace_id="…"} value [seconds]`
fn read_example(text: &str) -> Result<Example, &'static str> {
    let inside = text.trim_start().strip_prefix('{').ok_or("an exemplar has no labels")?;
    let mut labels = Vec::new();
    let rest = read_labels(inside, &mut labels)?;
    // OpenMetrics 1.0: names and values together.
    if labels.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum::<usize>() > 128 {
        return Err("an exemplar's labels are longer than 128 characters");
    }
    let mut words = rest.split_ascii_whitespace();
    let value = read_value(words.next().ok_or("an exemplar has no value")?).ok_or("not a number")?;
    let timestamp = match words.next() {
        None => None,
        Some(w) => {
            let secs: f64 = w.parse().map_err(|_| "not a timestamp in seconds")?;
            Some((secs * 1000.0).round() as i64)
        }
    };
    if words.next().is_some() {
        return Err("more than labels, value and timestamp");
    }
    Ok(Example { labels, value, timestamp })
}

fn read_labels<'a>(mut rest: &'a str, labels: &mut Vec<(String, String)>) -> Result<&'a str, &'static str> {
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let name = if let Some(quoted) = rest.strip_prefix('"') {
            let (name, after) = read_quoted(quoted)?;
            rest = after;
            name
        } else {
            let end = rest.find(['=', ' ', '\t', '}']).ok_or("a label set does not end")?;
            let (name, after) = rest.split_at(end);
            if !is_label_name(name) {
                return Err("not a label name");
            }
            rest = after;
            name.to_owned()
        };
        rest = rest.trim_start_matches([' ', '\t']);
        match rest.strip_prefix('=') {
            // A quoted name alone is the metric's (UTF-8 names).
            None => labels.push((METRIC_NAME.to_owned(), name)),
            Some(after) => {
                let quoted = after
                    .trim_start_matches([' ', '\t'])
                    .strip_prefix('"')
                    .ok_or("a label value has no quote")?;
                let (value, after) = read_quoted(quoted)?;
                if labels.iter().any(|(n, _)| *n == name) {
                    return Err("a label stands twice");
                }
                labels.push((name, value));
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t']);
        if !rest.starts_with([',', '}']) {
            return Err("a comma or brace is missing after a label");
        }
    }
}

/// Reads up to the closing quote; understands `\"`, `\\` and `\n`.
fn read_quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Ok((out, &text[i + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, c @ ('"' | '\\'))) => out.push(c),
                Some((_, c)) => out.extend(['\\', c]),
                None => break,
            },
            c => out.push(c),
        }
    }
    Err("a quote does not end")
}

fn read_value(word: &str) -> Option<f64> {
    match word {
        "NaN" | "nan" => Some(f64::NAN),
        "+Inf" | "Inf" | "+inf" | "inf" => Some(f64::INFINITY),
        "-Inf" | "-inf" => Some(f64::NEG_INFINITY),
        _ if word.contains('_') => None,
        _ => word.parse().ok(),
    }
}

fn is_metric_name(s: &str) -> bool {
    let mut bytes = s.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

fn is_label_name(s: &str) -> bool {
    let mut bytes = s.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Result<Parsed, &'static str> {
        parse(line, false).map(|e| e.samples[0].clone()).map_err(|e| e.what)
    }

    #[test]
    fn reads_samples() {
        let check = |line: &str, labels: &[(&str, &str)], value: f64, timestamp: Option<i64>| {
            let p = one(line).expect(line);
            let got: Vec<_> = p.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(got, labels, "{line}");
            assert!(p.value == value || p.value.is_nan() && value.is_nan(), "{line}");
            assert_eq!(p.timestamp, timestamp, "{line}");
        };
        check("up 1", &[("__name__", "up")], 1.0, None);
        check("up{} 1 1700000000123", &[("__name__", "up")], 1.0, Some(1_700_000_000_123));
        check(
            r#"a{b="c",d="e\"f\\g\nh",} +Inf"#,
            &[("__name__", "a"), ("b", "c"), ("d", "e\"f\\g\nh")],
            f64::INFINITY,
            None,
        );
        check(
            r#"a { b = "c" } NaN"#.replace("a {", "a{").as_str(),
            &[("__name__", "a"), ("b", "c")],
            f64::NAN,
            None,
        );
        check(r#"{"my.metric", b="c"} 2e3"#, &[("__name__", "my.metric"), ("b", "c")], 2000.0, None);
        check(
            r#"h_bucket{le="1"} 3 # {trace_id="x"} 0.5"#,
            &[("__name__", "h_bucket"), ("le", "1")],
            3.0,
            None,
        );
    }

    #[test]
    fn refuses_what_is_no_sample() {
        let check = |line: &str, what: &str| assert_eq!(one(line).expect_err(line), what, "{line}");
        check("up", "a sample has no value");
        check("up x", "not a number");
        check("1up 1", "not a metric name");
        check("up{a=\"b} 1", "a quote does not end");
        check("up{a=\"b\" c=\"d\"} 1", "a comma or brace is missing after a label");
        check("up{a=\"b\",a=\"c\"} 1", "a label stands twice");
        check("up 1 2 3", "more than name, value and timestamp");
    }

    #[test]
    fn openmetrics_has_seconds_metadata_and_an_end() {
        let text = "# TYPE a counter\n# HELP a all of it\n# UNIT a seconds\na_total 1 12.345\n# EOF\n";
        let e = parse(text, true).expect("an exposition");
        assert_eq!(e.samples[0].timestamp, Some(12_345));
        assert_eq!((e.metadata[0].kind, e.metadata[0].help.as_str()), (MetricKind::Counter, "all of it"));
        assert!(parse("a_total 1\n", true).is_err());
        assert!(parse("# EOF\na 1\n", true).is_err());
    }

    #[test]
    fn openmetrics_has_exemplars() {
        let text = "h_bucket{le=\"1\"} 3 # {trace_id=\"x\"} 0.5 1.25\nh_count 3\n# EOF\n";
        let e = parse(text, true).expect("an exposition");
        let example = e.samples[0].example.as_ref().expect("an exemplar");
        assert_eq!(
            **example,
            Example { labels: vec![("trace_id".into(), "x".into())], value: 0.5, timestamp: Some(1250) }
        );
        assert!(e.samples[1].example.is_none());
        assert!(parse("a_total 1 # {x=\"y\"}\n# EOF\n", true).is_err());
    }

    #[test]
    fn reads_what_our_own_registry_writes() {
        telemetry::metrics::register(|r| {
            let c: prometheus_client::metrics::counter::Counter = Default::default();
            c.inc();
            r.register("collector_test", "a test", c);
        });
        let e = parse(&telemetry::metrics::encode(), true).expect("our own text");
        assert!(e.samples.iter().any(|s| s.labels[0].1 == "collector_test_total" && s.value == 1.0));
    }
}
