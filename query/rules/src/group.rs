//! A group: rules that are evaluated one after the other, at one interval.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use signal::{Labels, MetricBatch, Select, SourceError, is_stale_nan, stale_nan};
use signal::{METRIC_NAME, Matcher};

use crate::alert::{Alert, AlertState, Annotations, Change};
use crate::file::GroupSpec;
use crate::ground::Ground;
use crate::rule::{ALERT_NAME, ALERTS_FOR_STATE, Health, Rule};

#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) spec: GroupSpec,
    pub(crate) file: PathBuf,
    pub(crate) interval: Duration,
    pub(crate) rules: Vec<Rule>,
    /// Series of rules that are gone: they end with the next evaluation.
    ended: Vec<Labels>,
    pub(crate) took: Duration,
    /// Milliseconds.
    pub(crate) evaluated_at: Option<i64>,
}

/// What one evaluation of a group did besides writing.
#[derive(Default)]
pub(crate) struct Evaluated {
    pub(crate) samples: usize,
    pub(crate) failures: usize,
    /// With the rule's place in the group.
    pub(crate) changes: Vec<(usize, Change)>,
    pub(crate) due: Vec<(usize, Alert)>,
}

/// How the time that an alert has waited is found again after a restart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restoring {
    /// Longer ago than this nothing is known.
    pub(crate) outage: Duration,
    /// An alert that was pending fires no sooner than this after the restart.
    pub(crate) grace: Duration,
}

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

impl Group {
    pub(crate) fn new(spec: GroupSpec, file: PathBuf, interval: Duration, restored: bool) -> Group {
        Group {
            interval: spec.interval.unwrap_or(interval),
            rules: spec.rules.iter().map(|r| Rule::new(r.clone(), restored)).collect(),
            spec,
            file,
            ended: Vec::new(),
            took: Duration::ZERO,
            evaluated_at: None,
        }
    }

    /// Evaluates every rule as of `now` (milliseconds), in order, so that a rule sees what those before it gave.
    pub(crate) fn evaluate(&mut self, ground: &Ground<'_>, now: i64) -> Evaluated {
        let offset = millis(self.spec.query_offset.unwrap_or_default());
        let mut out = Evaluated::default();
        let began = ground.clock.monotonic();
        for (i, rule) in self.rules.iter_mut().enumerate() {
            let start = ground.clock.monotonic();
            let evaluated_at = ground.clock.now().millis();
            let error = match rule.evaluate(ground, now, offset, self.spec.limit) {
                Ok(o) => {
                    out.samples += o.samples;
                    out.changes.extend(o.changes.into_iter().map(|c| (i, c)));
                    out.due.extend(o.due.into_iter().map(|a| (i, a)));
                    o.unwritten
                }
                Err(e) => Some(e),
            };
            match error {
                None => {
                    rule.health = Health::Good;
                    rule.last_error = None;
                }
                Some(e) => {
                    // Once is enough for the log; the rule says it for as long as it lasts.
                    if rule.last_error.as_ref() != Some(&e) {
                        tracing::warn!(
                            file = %self.file.display(), group = self.spec.name, rule = rule.spec.name, error = e,
                            "a rule cannot be evaluated"
                        );
                    }
                    out.failures += 1;
                    rule.health = Health::Bad;
                    rule.last_error = Some(e);
                }
            }
            rule.took = ground.clock.monotonic() - start;
            rule.evaluated_at = Some(evaluated_at);
        }
        self.took = ground.clock.monotonic() - began;
        self.evaluated_at = Some(now);
        self.end_series(ground, now - offset);
        out
    }

    /// Ends what rules that are gone have left.
    fn end_series(&mut self, ground: &Ground<'_>, at: i64) {
        if self.ended.is_empty() {
            return;
        }
        let mut batch = MetricBatch::default();
        for labels in &self.ended {
            batch.push(labels.clone(), at, stale_nan());
        }
        match (ground.write)(batch) {
            Ok(_) => self.ended.clear(),
            Err(e) => tracing::warn!(group = self.spec.name, error = e, "series of old rules were not ended"),
        }
    }

    /// Ends all series of a group that is gone.
    pub(crate) fn end(&mut self, ground: &Ground<'_>, now: i64) {
        for r in &mut self.rules {
            self.ended.extend(r.previous.drain());
        }
        self.end_series(ground, now - millis(self.spec.query_offset.unwrap_or_default()));
    }

    /// Takes over what the group knew before its file changed. Rules are the same if name and labels are; of several
    /// alike the first is the first.
    pub(crate) fn inherit(&mut self, mut from: Group) {
        self.took = from.took;
        self.evaluated_at = from.evaluated_at;
        let mut known: BTreeMap<(String, Labels), Vec<usize>> = BTreeMap::new();
        for (i, r) in from.rules.iter().enumerate().rev() {
            known.entry((r.spec.name.clone(), r.spec.labels.clone())).or_default().push(i);
        }
        for rule in &mut self.rules {
            let key = (rule.spec.name.clone(), rule.spec.labels.clone());
            let Some(i) = known.get_mut(&key).and_then(Vec::pop) else { continue };
            let old = &mut from.rules[i];
            rule.previous = std::mem::take(&mut old.previous);
            rule.restored = old.restored;
            if rule.spec.alert.is_some() && old.spec.alert.is_some() {
                rule.alerts = std::mem::take(&mut old.alerts);
            }
        }
        self.ended = from.ended;
        self.ended.extend(from.rules.iter_mut().flat_map(|r| r.previous.drain()));
    }

    /// The evaluation time at or before `now`, both in milliseconds: groups are spread over their interval by name.
    pub(crate) fn slot(&self, now: i64) -> i64 {
        let interval = millis(self.interval).max(1);
        let file = self.file.to_string_lossy();
        let who = Labels::from_pairs([("file", file.as_ref()), ("name", self.spec.name.as_str())]);
        let offset = i64::try_from(who.fingerprint() % interval.unsigned_abs()).unwrap_or(0);
        let adjusted = now - offset;
        adjusted - adjusted.rem_euclid(interval) + offset
    }

    /// Gives alerts the time they had waited before a restart (Prometheus: rules/group.go RestoreForState).
    pub(crate) fn restore(&mut self, ground: &Ground<'_>, now: i64, how: Restoring) {
        for rule in self.rules.iter_mut().filter(|r| !r.restored) {
            rule.restored = true;
            let Some(alert) = &rule.spec.alert else { continue };
            // It would wait for longer than anew.
            if alert.hold < how.grace {
                continue;
            }
            match last_known(ground, rule, now, how.outage) {
                Ok(known) => {
                    for a in rule.alerts.each_mut() {
                        if let Some(k) = known.get(&a.labels) {
                            a.active_at = restored_since(*k, now, millis(alert.hold), millis(how.grace));
                        }
                    }
                }
                Err(e) => tracing::error!(
                    group = self.spec.name, alert = rule.spec.name, error = %e, "how long alerts had waited is not known"
                ),
            }
        }
    }
}

/// What was written of an alert last, in milliseconds.
#[derive(Clone, Copy)]
struct Known {
    at: i64,
    since: i64,
}

/// Since when an alert counts as active, that was so since `known.since` when the process ended at `known.at`.
fn restored_since(known: Known, now: i64, hold: i64, grace: i64) -> i64 {
    let remaining = hold - (known.at - known.since);
    if remaining <= 0 {
        // It was firing, and fires again if its expression still holds.
        known.since
    } else if remaining < grace {
        now + grace - hold
    } else {
        // The time nobody looked does not count.
        known.since + (now - known.at)
    }
}

/// The last sample of each `ALERTS_FOR_STATE` of a rule, by the alert's labels; those that had ended are left out.
fn last_known(
    ground: &Ground<'_>,
    rule: &Rule,
    now: i64,
    outage: Duration,
) -> Result<BTreeMap<Labels, Known>, SourceError> {
    let mut matchers =
        vec![Matcher::equal(METRIC_NAME, ALERTS_FOR_STATE), Matcher::equal(ALERT_NAME, &rule.spec.name)];
    // Templates are expanded differently for each alert.
    let fixed = rule.spec.labels.iter().filter(|(n, v)| !v.contains("{{") && *n != ALERT_NAME);
    matchers.extend(fixed.map(|(n, v)| Matcher::equal(n, v)));
    let select = Select { matchers, start: now.saturating_sub(millis(outage)), end: now };
    let mut out = BTreeMap::new();
    for series in ground.source.select(&select)? {
        let series = series?;
        if let (Some(at), Some(v)) = (series.timestamps.last(), series.values.last())
            && !is_stale_nan(*v)
        {
            let mut labels = series.labels.builder();
            labels.remove(METRIC_NAME);
            out.insert(labels.build(), Known { at: *at, since: (*v * 1000.0) as i64 });
        }
    }
    Ok(out)
}

/// A group as it is shown: what it says and what it gave last.
#[derive(Clone, Debug)]
pub struct GroupView {
    pub name: String,
    pub file: String,
    pub interval: Duration,
    pub limit: usize,
    pub rules: Vec<RuleView>,
    pub took: Duration,
    /// Milliseconds; `None` before the first evaluation.
    pub evaluated_at: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct RuleView {
    pub name: String,
    pub query: String,
    pub labels: Labels,
    pub health: Health,
    pub last_error: Option<String>,
    pub took: Duration,
    pub evaluated_at: Option<i64>,
    /// `None` if the rule records.
    pub alerting: Option<AlertingView>,
}

#[derive(Clone, Debug)]
pub struct AlertingView {
    /// The gravest of its alerts.
    pub state: AlertState,
    pub hold: Duration,
    pub keep_firing_for: Duration,
    pub annotations: Annotations,
    /// Also those that have ended lately.
    pub alerts: Vec<Alert>,
}

impl Group {
    pub(crate) fn view(&self) -> Arc<GroupView> {
        Arc::new(GroupView {
            name: self.spec.name.clone(),
            file: self.file.display().to_string(),
            interval: self.interval,
            limit: self.spec.limit,
            rules: self.rules.iter().map(rule_view).collect(),
            took: self.took,
            evaluated_at: self.evaluated_at,
        })
    }
}

fn rule_view(r: &Rule) -> RuleView {
    RuleView {
        name: r.spec.name.clone(),
        query: r.query.clone(),
        labels: r.spec.labels.clone(),
        health: r.health,
        last_error: r.last_error.clone(),
        took: r.took,
        evaluated_at: r.evaluated_at,
        alerting: r.spec.alert.as_ref().map(|a| AlertingView {
            state: r.alerts.state(),
            hold: a.hold,
            keep_firing_for: a.keep_firing_for,
            annotations: a.annotations.clone(),
            alerts: r.alerts.all().cloned().collect(),
        }),
    }
}

#[cfg(test)]
mod tests;
