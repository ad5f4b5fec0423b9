//! `binnacle test promql|logql|traceql|rules FILE…`: the last line is `N passed, M failed`. `binnacle check rules|exposition FILE…`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::print;
use crate::cli::{CheckArgs, CheckWhat, TestArgs, TestWhat};

/// Runs one file and says how many checks passed and failed.
type Test = fn(&Path) -> Result<(usize, usize)>;

pub(crate) fn run(a: &TestArgs) -> Result<()> {
    let (files, test): (&[PathBuf], Test) = match &a.what {
        TestWhat::Promql { files } => (files, promql_script),
        TestWhat::Logql { files } => (files, |f| logql_script(f, logql::script::run_file)),
        TestWhat::Traceql { files } => (files, |f| logql_script(f, logql::traceql::script::run_file)),
        TestWhat::Rules { files } => (files, rule_tests),
    };
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        // Scripts have a runtime of their own, which must not stand inside this one.
        let (p, f) = tokio::task::block_in_place(|| test(file))?;
        passed += p;
        failed += f;
    }
    print(&format!("{passed} passed, {failed} failed"))?;
    if failed > 0 {
        bail!("{failed} checks failed");
    }
    Ok(())
}

fn promql_script(file: &Path) -> Result<(usize, usize)> {
    let report =
        promql::promqltest::run_file(file).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
    for f in &report.failures {
        print(&format!("{}: {f}", file.display()))?;
    }
    Ok((report.passed, report.failed))
}

fn logql_script(
    file: &Path,
    run: fn(&Path) -> Result<logql::script::Report, String>,
) -> Result<(usize, usize)> {
    let report = run(file).map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
    for f in &report.failures {
        print(&format!("{}: {f}", file.display()))?;
    }
    Ok((report.passed, report.failed))
}

fn rule_tests(file: &Path) -> Result<(usize, usize)> {
    print(&format!("Unit Testing:  {}", file.display()))?;
    let report = rules::unit_test::run_file(file);
    for w in &report.warnings {
        print(w)?;
    }
    if report.failed == 0 {
        print("  SUCCESS\n")?;
    } else {
        print(&format!("  FAILED:\n{}\n", report.failures.join("\n\n")))?;
    }
    Ok((report.passed, report.failed))
}

pub(crate) fn check(a: &CheckArgs) -> Result<()> {
    match &a.what {
        CheckWhat::Rules { files } => check_rules(files),
        CheckWhat::Exposition { files } => check_expositions(files),
    }
}

fn check_expositions(files: &[PathBuf]) -> Result<()> {
    let mut broken = 0;
    for file in files {
        print(&format!("Checking {}", file.display()))?;
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        match collector::exposition::parse(&text, collector::exposition::Format::Strict) {
            Ok(e) => print(&format!("  SUCCESS: {} samples found\n", e.samples.len()))?,
            Err(e) => {
                broken += 1;
                print(&format!("  FAILED:\n{e}\n"))?;
            }
        }
    }
    if broken > 0 {
        bail!("{broken} of {} files are not good", files.len());
    }
    Ok(())
}

fn check_rules(files: &[PathBuf]) -> Result<()> {
    let mut broken = 0;
    for file in files {
        print(&format!("Checking {}", file.display()))?;
        let errors = match rules::read(file) {
            Ok(groups) => match rules::duplicates(&groups) {
                None => {
                    let n: usize = groups.iter().map(|g| g.rules.len()).sum();
                    print(&format!("  SUCCESS: {n} rules found\n"))?;
                    continue;
                }
                Some(e) => vec![e],
            },
            Err(errors) => errors,
        };
        broken += 1;
        print(&format!("  FAILED:\n{}\n", errors.join("\n")))?;
    }
    if broken > 0 {
        bail!("{broken} of {} files are not good", files.len());
    }
    Ok(())
}
