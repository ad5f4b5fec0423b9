//! The public scripts, all of which must pass, and scripts of our own.

use super::*;

#[test]
fn a_script_of_our_own() {
    let script = "
load 1m
  http_requests_total{pod=\"a\"} 0+60x10
  http_requests_total{pod=\"b\"} 0+120x10
  gauge 1 _ 3 stale

eval instant at 10m sum(rate(http_requests_total[5m]))
  {} 3

eval range from 0 to 3m step 1m gauge
  gauge 1 1 3 _

eval instant at 1m nosuch(1)
  expect fail msg: 1:1: parse error: unknown function with name \"nosuch\"
";
    let r = run(script).expect("understood");
    assert_eq!((r.passed, r.failed), (3, 0), "{:?}", r.failures);
}

#[test]
fn scripts_with_native_histograms_and_start_times() {
    let script = "
load 1m
  h {{schema:0 count:4 sum:5 buckets:[1 2 1]}}+{{count:4 sum:5 buckets:[1 2 1]}}x10
  c@st _ -30s-1mx3
  c    _  1+1x3

eval instant at 10m rate(h[5m])
  expect no_warn
  {} {{count:0.06666666666666667 sum:0.08333333333333333 buckets:[0.016666666666666666 0.03333333333333333 0.016666666666666666] counter_reset_hint:gauge}}

eval instant at 10m histogram_quantile(0.5, rate(h[5m]))
  {} 1.414213562373095

eval instant at 4m start_timestamp(c)
  {} 30

eval instant at 4m rate(c[4m])
  expect info msg: PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"c\" (1:6)
  {} 0.016666666666666666

eval instant at 4m h + on() c
  expect info msg: PromQL info: incompatible sample types encountered for binary operator \"+\": histogram + float (1:1)
";
    let r = run(script).expect("understood");
    assert_eq!((r.passed, r.failed), (5, 0), "{:#?}", r.failures);
}

#[test]
fn what_is_not_a_script_is_refused() {
    for (script, why) in [
        ("load 1m\n  a {{nonsense:1}}", "unexpected \"nonsense\""),
        ("load 1m\n  a@st -1m", "no following sample line"),
        ("eval instant at 1m up\n  expect what", "not understood"),
        ("eval instant at 1m up\n  up 1 2", "multiple values"),
        ("evaluate", "invalid command"),
    ] {
        let e = run(script).expect_err(script);
        assert!(e.contains(why), "{script}: {e}");
    }
}

#[test]
fn public_scripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/promqltest");
    let Ok(entries) = std::fs::read_dir(&dir) else {
        eprintln!("SKIPPED: {} is missing: the public PromQL scripts were not run", dir.display());
        return;
    };
    let mut wrong = Vec::new();
    let mut paths: Vec<_> = entries.map(|e| e.expect("readable").path()).collect();
    paths.sort();
    for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "test")) {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        let report = run_file(path).expect("understood");
        println!("{name}: {} passed, {} failed", report.passed, report.failed);
        if std::env::var_os("PROMQLTEST_VERBOSE").is_some() {
            report.failures.iter().for_each(|f| println!("  {f}"));
        }
        if report.failed > 0 {
            wrong.push((name.to_owned(), report.failures));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
