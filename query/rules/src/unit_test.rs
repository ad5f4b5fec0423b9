//! Runs rule unit tests in `promtool test rules`' format (Prometheus: cmd/promtool/unittest.go).
//!
//! A file names rule files and holds test groups: input series, and what alerts and expressions must give at some
//! times. Every group of rules is evaluated at each `evaluation_interval` from the start to the last of those times.
//! Each alert and each expression that is looked at counts as one check; if a group cannot run, all of its checks
//! have failed.

mod check;
mod format;
mod glob;
pub(crate) mod memory;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use promql::{Engine, Limits, Options};
use signal::time::system_clock;
use signal::{Accepted, Labels};

use crate::file;
use crate::ground::Ground;
use crate::group::Group;
use crate::texts;
use check::{check_alert, check_expression};
use format::{AlertTest, TestFile, TestGroup, millis, text};
use memory::Memory;

/// What a file gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub passed: usize,
    pub failed: usize,
    /// What was expected and what was given, one for each failed check.
    pub failures: Vec<String>,
    /// What looks like a mistake but is none: a pattern that fits no file.
    pub warnings: Vec<String>,
}

impl Report {
    fn fail(&mut self, checks: usize, why: String) {
        self.failed += checks.max(1);
        self.failures.push(why);
    }
}

/// Runs a file. What is wrong with it is a failure like any other.
pub fn run_file(path: &Path) -> Report {
    let mut report = Report::default();
    let file = std::fs::read_to_string(path)
        .map_err(|e| format!("{}: {e}", path.display()))
        .and_then(|t| file::document::<TestFile>(&t));
    match file {
        Ok(Some(file)) => run(path, file, &mut report),
        // Nothing is tested, and nothing fails.
        Ok(None) => {}
        Err(e) => report.fail(1, e),
    }
    report
}

fn run(path: &Path, file: TestFile, report: &mut Report) {
    let prepared = rule_files(path, &file, report)
        .and_then(|files| Ok((files, millis(file.evaluation_interval.as_deref())?)))
        .and_then(|(files, interval)| Ok((files, interval, order(&file)?)));
    let tests = file.tests.unwrap_or_default();
    let (rule_files, interval, order) = match prepared {
        Ok(p) => p,
        Err(e) => return report.fail(tests.iter().map(TestGroup::checks).sum(), e),
    };
    let interval = if interval == 0 { 60_000 } else { interval };
    let setting = Setting { rule_files, interval, order, fuzzy: file.fuzzy_compare.unwrap_or(false) };
    for t in &tests {
        let mut failures = Vec::new();
        let checks = t.checks();
        match setting.run(t, &mut failures) {
            Ok(()) => {
                report.failed += failures.len();
                report.passed += checks.saturating_sub(failures.len());
                report.failures.extend(failures);
            }
            Err(errors) => {
                report.failed += checks;
                report.failures.extend(errors);
            }
        }
    }
}

/// The files that the patterns name, relative to the test's own place.
fn rule_files(path: &Path, file: &TestFile, report: &mut Report) -> Result<Vec<PathBuf>, String> {
    let base = path.parent().unwrap_or(Path::new(""));
    let mut all = Vec::new();
    for pattern in file.rule_files.iter().flatten() {
        let pattern = base.join(pattern);
        let found = glob::glob(&pattern)?;
        if found.is_empty() {
            report.warnings.push(format!("  WARNING: no file match pattern {}", pattern.display()));
        }
        all.extend(found);
    }
    Ok(all)
}

fn order(file: &TestFile) -> Result<Vec<String>, String> {
    let mut all: Vec<String> = Vec::new();
    for name in file.group_eval_order.iter().flatten() {
        if all.contains(name) {
            return Err(format!("group name repeated in evaluation order: {name}"));
        }
        all.push(name.clone());
    }
    Ok(all)
}

/// What a file says for all of its test groups.
struct Setting {
    rule_files: Vec<PathBuf>,
    /// Milliseconds between two evaluations.
    interval: i64,
    /// Names of rule groups; those that are not among them count as the first.
    order: Vec<String>,
    fuzzy: bool,
}

impl Setting {
    /// Runs a test group. `Err`: it did not come to its checks.
    fn run(&self, test: &TestGroup, failures: &mut Vec<String>) -> Result<(), Vec<String>> {
        let one = |e: String| vec![e];
        let step = match millis(test.interval.as_deref()).map_err(one)? {
            0 => self.interval,
            ms => ms,
        };
        let start = test.start().map_err(one)?;
        let storage = Arc::new(Memory::new(start, step, test.series()).map_err(one)?);
        let limits = Limits {
            timeout: Duration::from_secs(100),
            default_step: Duration::from_millis(self.interval.unsigned_abs()),
            ..Limits::default()
        };
        let engine = Engine::new(storage.clone(), limits);
        let external = Labels::from_pairs(text(test.external_labels.as_ref()));
        let ground = Ground {
            engine: &engine,
            options: Options::default(),
            source: &*storage,
            write: &|batch| {
                storage.append(&batch);
                Ok(Accepted { accepted: batch.samples(), ..Accepted::default() })
            },
            clock: &system_clock(),
            external_labels: &texts::labels_value(&external),
            external_url: test.external_url.as_deref().unwrap_or(""),
            resend: Duration::from_secs(60),
        };
        let mut groups = self.groups(step)?;
        let end = start + test.last().map_err(one)?;
        let mut alerts: Vec<(i64, &AlertTest)> = Vec::new();
        for a in test.alert_rule_test.iter().flatten() {
            if a.alertname.as_deref().unwrap_or("").is_empty() {
                let name = test.name.as_deref().map(|n| format!(" (in TestGroup {n})")).unwrap_or_default();
                let at = a.eval_time.as_deref().unwrap_or("0s");
                return Err(one(format!(
                    "an item under alert_rule_test misses required attribute alertname at eval_time {at}{name}"
                )));
            }
            alerts.push((millis(a.eval_time.as_deref()).map_err(one)?, a));
        }
        alerts.sort_by_key(|(at, _)| *at);
        let mut alerts = alerts.into_iter().peekable();
        let mut now = start;
        while now <= end {
            storage.load_until(now);
            let mut errors = Vec::new();
            for g in &mut groups {
                g.evaluate(&ground, now);
                for (rule, e) in g.rules.iter().filter_map(|r| Some((r, r.last_error.as_ref()?))) {
                    let at = template::Value::Duration(now.saturating_mul(1_000_000));
                    errors.push(format!("    rule: {}, time: {at}, err: {e}", rule.spec.name));
                }
            }
            if !errors.is_empty() {
                return Err(errors);
            }
            // What is asked for between two evaluations was given by the first.
            while let Some((_, a)) = alerts.next_if(|(at, _)| *at < now + self.interval - start) {
                failures.extend(check_alert(test, a, &groups).err());
            }
            now += self.interval;
        }
        for t in test.promql_expr_test.iter().flatten() {
            failures.extend(check_expression(t, start, &engine, self.fuzzy).err());
        }
        Ok(())
    }

    /// The rule groups, in the order in which they are evaluated.
    fn groups(&self, step: i64) -> Result<Vec<Group>, Vec<String>> {
        let step = Duration::from_millis(step.unsigned_abs());
        let mut groups = Vec::new();
        for path in &self.rule_files {
            // A rule file that is named twice is one.
            if groups.iter().any(|g: &Group| g.file == *path) {
                continue;
            }
            for spec in file::read(path)? {
                groups.push(Group::new(spec, path.clone(), step, true));
            }
        }
        groups.sort_by_key(|g| self.order.iter().position(|n| *n == g.spec.name).unwrap_or(0));
        Ok(groups)
    }
}

#[cfg(test)]
mod tests;
