//! The public scripts, as far as floats go, and a script of our own.

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
  expect fail msg: unknown function
";
    let r = run(script).expect("understood");
    assert_eq!((r.passed, r.failed), (3, 0), "{:?}", r.failures);
}

/// Files whose every evaluation must pass. The others want native histograms, `anchored` and `smoothed`, or start
/// timestamps; what they pass today is printed.
const COMPLETE: &[&str] = &[
    "at_modifier.test",
    "collision.test",
    "duration_expression.test",
    "fill-modifier.test",
    "literals.test",
    "name_label_dropping.test",
    "selectors.test",
    "staleness.test",
    "trig_functions.test",
    "type_and_unit.test",
];

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
        if COMPLETE.contains(&name) && report.failed > 0 {
            wrong.push((name.to_owned(), report.failures));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
