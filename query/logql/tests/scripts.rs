//! The corpus: every script in `testdata`.

use std::path::Path;

#[test]
fn every_script_passes() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files: Vec<_> =
        std::fs::read_dir(&dir).expect("testdata").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    let (mut passed, mut failures) = (0, Vec::new());
    for file in &files {
        let report = match file.extension().and_then(|e| e.to_str()) {
            Some("logqltest") => logql::script::run_file(file),
            Some("traceqltest") => logql::traceql::script::run_file(file),
            _ => continue,
        };
        let report = report.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        failures.extend(report.failures.iter().map(|f| format!("{name}: {f}")));
        passed += report.passed;
    }
    println!("{passed} passed");
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
    assert!(passed >= 600, "only {passed} evaluations");
}
