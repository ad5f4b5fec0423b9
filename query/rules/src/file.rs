//! Rule files: Prometheus' YAML into groups, and what is wrong with it in the words of `promtool check rules`
//! (Prometheus: model/rulefmt).

mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use signal::{Labels, METRIC_NAME};

use crate::alert::Annotations;
use crate::texts;
pub(crate) use yaml::document;
use yaml::{GroupYaml, Place, RuleYaml, Texts};

/// Files longer than this are not read.
const LONGEST: u64 = 16 << 20;

/// A group as its file describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSpec {
    pub name: String,
    /// `None`: the interval of the house.
    pub interval: Option<Duration>,
    /// How far in the past the rules look.
    pub query_offset: Option<Duration>,
    /// Series or alerts that one rule may give; 0 is no limit.
    pub limit: usize,
    pub rules: Vec<RuleSpec>,
}

/// A rule as its file describes it; the group's labels are among its own.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// The name of the series, or of the alert.
    pub name: String,
    pub expr: String,
    pub labels: Labels,
    /// `None` if the rule records.
    pub alert: Option<AlertSpec>,
}

/// What only alerting rules say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertSpec {
    /// How long the expression must hold before the alert fires.
    pub hold: Duration,
    /// How long an alert goes on firing once the expression holds no more.
    pub keep_firing_for: Duration,
    /// Templates by name.
    pub annotations: Annotations,
}

/// Reads a file; each error begins with its path.
pub fn read(path: &Path) -> Result<Vec<GroupSpec>, Vec<String>> {
    let at = |e: String| format!("{}: {e}", path.display());
    let size = std::fs::metadata(path).map_err(|e| vec![at(e.to_string())])?.len();
    if size > LONGEST {
        return Err(vec![at(format!("the file has {size} bytes, the limit is {LONGEST}"))]);
    }
    let text = std::fs::read_to_string(path).map_err(|e| vec![at(e.to_string())])?;
    parse(&text).map_err(|all| all.into_iter().map(at).collect())
}

/// Reads the text of a file.
pub fn parse(text: &str) -> Result<Vec<GroupSpec>, Vec<String>> {
    let file = yaml::read(text).map_err(|e| vec![e])?;
    let mut errors = Vec::new();
    let mut groups = Vec::new();
    let mut names = BTreeSet::new();
    for (at, group) in file {
        groups.push(check_group(at, group, &mut names, &mut errors));
    }
    if errors.is_empty() { Ok(groups) } else { Err(errors) }
}

fn check_group(
    at: Place,
    group: GroupYaml,
    names: &mut BTreeSet<String>,
    errors: &mut Vec<String>,
) -> GroupSpec {
    let name = group.name.unwrap_or_default();
    if name.is_empty() {
        errors.push(format!("{at}: Groupname must not be empty"));
    }
    if !names.insert(name.clone()) {
        errors.push(format!("{at}: groupname: \"{name}\" is repeated in the same file"));
    }
    let own = texts(group.labels);
    for (label, _) in own.iter().filter(|(n, _)| !is_label(n)) {
        errors.push(format!("invalid label name: {label}"));
    }
    let mut duration = |text: Option<String>, what: &str| {
        text.and_then(|t| match parse_duration(&t) {
            Ok(d) => Some(d),
            Err(e) => {
                errors.push(format!("{at}: group {name:?}, {what}: {e}"));
                None
            }
        })
    };
    let interval = duration(group.interval, "interval").filter(|d| !d.is_zero());
    let query_offset = duration(group.query_offset, "query_offset");
    let mut rules = Vec::new();
    for (i, (place, rule)) in (1..).zip(group.rules.unwrap_or_default().into_iter().map(yaml::placed)) {
        rules.push(check_rule(&name, i, place, rule.unwrap_or_default(), &own, errors));
    }
    GroupSpec { name, interval, query_offset, limit: group.limit.unwrap_or(0), rules }
}

fn check_rule(
    group: &str,
    number: usize,
    place: Place,
    rule: RuleYaml,
    group_labels: &BTreeMap<String, String>,
    errors: &mut Vec<String>,
) -> RuleSpec {
    let (record_at, record) = rule.record.map(yaml::placed).unwrap_or_default();
    let (alert_at, alert) = rule.alert.map(yaml::placed).unwrap_or_default();
    let (expr_at, expr) = rule.expr.map(yaml::placed).unwrap_or_default();
    let (record, alert, expr) =
        (record.unwrap_or_default(), alert.unwrap_or_default(), expr.unwrap_or_default());
    let name = if alert.is_empty() { record.clone() } else { alert.clone() };
    let mut fail = |at: Option<String>, message: String| {
        let at = at.map(|a| format!("{a}: ")).unwrap_or_default();
        errors.push(format!("{at}group {group:?}, rule {number}, {name:?}: {message}"));
    };
    let here = |at: Place| Some(at.or(place).to_string());
    if !record.is_empty() && !alert.is_empty() {
        let both = Some(format!("{record_at}: {alert_at}"));
        fail(both, "only one of 'record' and 'alert' must be set".to_owned());
    }
    if record.is_empty() && alert.is_empty() {
        fail(here(record_at), "one of 'record' or 'alert' must be set".to_owned());
    }
    if expr.is_empty() {
        fail(here(expr_at), "field 'expr' must be set in rule".to_owned());
    } else if let Err(e) = promql::parse(&expr) {
        fail(here(expr_at), format!("could not parse expression: {e}"));
    }
    let mut duration = |text: Option<String>| {
        text.and_then(|t| parse_duration(&t).map_err(|e| fail(Some(place.to_string()), e)).ok())
    };
    let hold = duration(rule.hold).unwrap_or_default();
    let keep_firing_for = duration(rule.keep_firing_for).unwrap_or_default();
    let (labels, annotations) = (texts(rule.labels), texts(rule.annotations));
    if !record.is_empty() {
        let wrong = [
            ("annotations", !annotations.is_empty()),
            ("for", !hold.is_zero()),
            ("keep_firing_for", !keep_firing_for.is_zero()),
        ];
        for (field, _) in wrong.iter().filter(|(_, there)| *there) {
            fail(here(record_at), format!("invalid field '{field}' in recording rule"));
        }
        if record.contains(['{', '}']) {
            let message =
                format!("braces present in the recording rule name; should it be in expr?: {record}");
            fail(here(record_at), message);
        }
    }
    for (label, _) in labels.iter().filter(|(n, _)| !is_label(n)) {
        fail(None, format!("invalid label name: {label}"));
    }
    for (annotation, _) in annotations.iter().filter(|(n, _)| n.is_empty()) {
        fail(None, format!("invalid annotation name: {annotation}"));
    }
    if !alert.is_empty() {
        for (what, all) in [("label", &labels), ("annotation", &annotations)] {
            for (field, text) in all {
                if let Err(e) = texts::check(&alert, text) {
                    fail(None, format!("{what} {field:?}: {e}"));
                }
            }
        }
    }
    let own = group_labels.iter().chain(&labels);
    let alert = (!alert.is_empty()).then_some(AlertSpec { hold, keep_firing_for, annotations });
    RuleSpec { labels: Labels::from_pairs(own), expr, alert, name }
}

/// Prometheus 3 takes any text as a name but none.
fn is_label(name: &str) -> bool {
    !name.is_empty() && name != METRIC_NAME
}

fn texts(all: Option<Texts>) -> BTreeMap<String, String> {
    all.unwrap_or_default().into_iter().map(|(n, v)| (n, v.unwrap_or_default())).collect()
}

/// `5m`, `1h30m`, `0`; the error is Prometheus' (model.ParseDuration).
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.is_empty() {
        return Err("empty duration string".to_owned());
    }
    promql::parse_duration(text)
        .and_then(|ms| u64::try_from(ms).ok())
        .map(Duration::from_millis)
        .ok_or_else(|| format!("not a valid duration string: {text:?}"))
}

/// Rules that give the same series, or alerts with the same labels, in the words of `promtool check rules`; `None`
/// if there are none.
pub fn duplicates(groups: &[GroupSpec]) -> Option<String> {
    let mut seen: BTreeMap<(&str, &Labels), usize> = BTreeMap::new();
    for rule in groups.iter().flat_map(|g| &g.rules) {
        *seen.entry((&rule.name, &rule.labels)).or_default() += 1;
    }
    let found: Vec<_> = seen.into_iter().filter(|(_, n)| *n > 1).map(|(k, _)| k).collect();
    if found.is_empty() {
        return None;
    }
    let mut out = format!("{} duplicate rule(s) found.\n", found.len());
    for (name, labels) in found {
        out.push_str(&format!("Metric: {name}\nLabel(s):\n"));
        for (n, v) in labels {
            out.push_str(&format!("\t{n}: {v}\n"));
        }
    }
    out.push_str("Might cause inconsistency while recording expressions");
    Some(out)
}

#[cfg(test)]
mod tests;
