//! Each format by examples, and OpenMetrics by the parser cases of its own repository.

use super::*;

fn one(line: &str) -> Result<Parsed, &'static str> {
    parse(line, Format::Text).map(|e| e.samples[0].clone()).map_err(|e| e.what)
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
    check(r#"a { b = "c" } NaN"#, &[("__name__", "a"), ("b", "c")], f64::NAN, None);
    check(r#"{"my.metric", b="c"} 2e3"#, &[("__name__", "my.metric"), ("b", "c")], 2000.0, None);
    check(r#"h_bucket{le="1"} 3 # {trace_id="x"} 0.5"#, &[("__name__", "h_bucket"), ("le", "1")], 3.0, None);
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
    let e = parse(text, Format::OpenMetrics).expect("an exposition");
    assert_eq!(e.samples[0].timestamp, Some(12_345));
    assert_eq!((e.metadata[0].kind, e.metadata[0].help.as_str()), (MetricKind::Counter, "all of it"));
    assert!(parse("a_total 1\n", Format::OpenMetrics).is_err());
    assert!(parse("# EOF\na 1\n", Format::OpenMetrics).is_err());
}

#[test]
fn openmetrics_has_exemplars() {
    let text = "h_bucket{le=\"1\"} 3 # {trace_id=\"x\"} 0.5 1.25\nh_count 3\n# EOF\n";
    let e = parse(text, Format::OpenMetrics).expect("an exposition");
    let example = e.samples[0].example.as_ref().expect("an exemplar");
    assert_eq!(
        **example,
        Example { labels: vec![("trace_id".into(), "x".into())], value: 0.5, timestamp: Some(1250) }
    );
    assert!(e.samples[1].example.is_none());
    assert!(parse("a_total 1 # {x=\"y\"}\n# EOF\n", Format::OpenMetrics).is_err());
}

#[test]
fn reads_what_our_own_registry_writes() {
    telemetry::metrics::register(|r| {
        let c: prometheus_client::metrics::counter::Counter = Default::default();
        c.inc();
        r.register("collector_test", "a test", c);
    });
    let e = parse(&telemetry::metrics::encode(), Format::OpenMetrics).expect("our own text");
    assert!(e.samples.iter().any(|s| s.labels[0].1 == "collector_test_total" && s.value == 1.0));
}

#[test]
fn the_parser_cases_of_openmetrics() {
    // Transcribed from github.com/prometheus/OpenMetrics (Apache-2.0), tests/testdata/parsers.
    let cases = include_str!("../../testdata/openmetrics.jsonl");
    let mut wrong = Vec::new();
    let mut n = 0;
    for line in cases.lines() {
        let (name, good, text): (String, bool, String) = serde_json::from_str(line).expect("a case");
        n += 1;
        let got = parse(&text, Format::Strict);
        if got.is_ok() != good {
            wrong.push(format!("{name}: {got:?}"));
        }
    }
    assert_eq!(n, 211);
    assert!(wrong.is_empty(), "{} of {n}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_scraper_takes_what_breaks_only_the_rules_of_families() {
    let check = |text: &str, good: bool| {
        assert_eq!(parse(text, Format::OpenMetrics).is_ok(), good, "{text}");
    };
    check("# TYPE a counter\na_total -1\n# EOF\n", true);
    check("# TYPE a histogram\na_sum 1\n# EOF\n", true);
    check("# TYPE a gauge\na 1\nb 1\na{b=\"c\",} 1\n# EOF\n", true);
    check("a  1\n# EOF\n", false);
    check("a 1\n\n# EOF\n", false);
    check("a 1", false);
    check("# TYPE a gauge \na 1\n# EOF\n", false);
    check("a 1 # {b=\"c\"} 1 1\n# EOF", true);
    check("{\"a.b\",\"c.d\"=\"e\"} 1\n# EOF", true);
    check("# TYPE \"a.b\" gauge\n{\"a.b\"} 1\n# EOF", true);
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[ a-c{}=\",.#\\n\\\\0-9é-]{0,60}") {
        for format in [Format::Text, Format::OpenMetrics, Format::Strict] {
            drop(parse(&text, format));
        }
    }
}
