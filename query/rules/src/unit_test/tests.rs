//! Test files of our own; the first line of each says what it gives. `promtool` gives the same verdicts, but where its
//! version knows no native histograms.

use super::*;

#[test]
fn files_give_what_they_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut checked = 0;
    for entry in std::fs::read_dir(&dir).expect("a corpus") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("text");
        let expect = text.lines().next().and_then(|l| l.strip_prefix("# ")).expect("a first line");
        let report = run_file(&path);
        let got = format!("{} passed, {} failed", report.passed, report.failed);
        assert_eq!(got, expect, "{}: {}", path.display(), report.failures.join("\n"));
        assert_eq!(report.failures.is_empty(), report.failed == 0);
        checked += 1;
    }
    assert!(checked >= 15, "{checked} files");
}

/// What a test file in an empty directory gives.
fn report(text: &str) -> Report {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("t.yaml");
    std::fs::write(&path, text).expect("written");
    run_file(&path)
}

#[test]
fn failures_are_worded_as_promtool_words_them() {
    let check = |text: &str, expect: &str| assert_eq!(report(text).failures.join("\n"), expect);
    check(
        "tests:\n- input_series: [{series: m, values: 1}]\n  promql_expr_test: [{expr: m, eval_time: 0, exp_samples: [{labels: m, value: 2}]}]\n",
        "    expr: \"m\", time: 0s,\n        exp: m 2E+00\n        got: m 1E+00",
    );
    check(
        "tests:\n- name: n\n  alert_rule_test: [{alertname: A, eval_time: 1m30s, exp_alerts: [{exp_labels: {a: b}, exp_annotations: {c: d}}]}]\n",
        "    name: n,\n    alertname: A, time: 1m30s, \n        exp:[\n            0:\n              Labels:{a=\"b\", alertname=\"A\"}\n              Annotations:{c=\"d\"}\n            ], \n        got:[]",
    );
    check(
        "tests:\n- name: n\n  alert_rule_test: [{eval_time: 1m}]\n",
        "an item under alert_rule_test misses required attribute alertname at eval_time 1m (in TestGroup n)",
    );
    check("test: []\n", "yaml: unmarshal errors:\n  line 1: field test not found in type main.unitTestFile");
}

#[test]
fn nearly_the_same_is_the_same_if_the_file_says_so() {
    let text = |fuzzy: bool, value: &str| {
        format!(
            "fuzzy_compare: {fuzzy}\ntests:\n- input_series: [{{series: m, values: {value}}}]\n  promql_expr_test: [{{expr: m, eval_time: 0, exp_samples: [{{labels: m, value: 3}}]}}]\n"
        )
    };
    assert_eq!(report(&text(true, "2.9999999999999996")).passed, 1);
    assert_eq!(report(&text(true, "3.0000000000000004")).passed, 1);
    assert_eq!(report(&text(true, "2.9999999999999987")).failed, 1);
    assert_eq!(report(&text(false, "2.9999999999999996")).failed, 1);
}

#[test]
fn time_begins_where_the_file_says() {
    for start in ["\"2024-01-01T00:00:00Z\"", "1704067200"] {
        let r = report(&format!(
            "tests:\n- interval: 1m\n  start_timestamp: {start}\n  input_series: [{{series: m, values: 10+10x15}}]\n  promql_expr_test:\n  - {{expr: time(), eval_time: 5m, exp_samples: [{{value: 1704067500}}]}}\n  - {{expr: m@1704067320, eval_time: 5m, exp_samples: [{{labels: m, value: 30}}]}}\n"
        ));
        assert_eq!((r.passed, r.failed), (2, 0), "{:?}", r.failures);
    }
    assert_eq!(report("tests:\n- start_timestamp: yesterday\n").failed, 1);
}

#[test]
fn a_pattern_without_files_is_told_of() {
    let r = report(
        "rule_files: ['none*.yaml']\ntests:\n- promql_expr_test: [{expr: '1', exp_samples: [{value: 1}]}]\n",
    );
    assert_eq!((r.passed, r.failed, r.warnings.len()), (1, 0, 1));
}
