//! The states of an alert, and how it moves through them. Pure: time is a parameter.
//!
//! An alert is one series that the expression of an alerting rule gave. It is *pending* while the expression has not
//! held for long enough, then *firing*, and *inactive* once it holds no more; inactive ones that have fired are kept
//! for a while, so that whoever is told of alerts hears of the end too (Prometheus: rules/alerting.go).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use signal::Labels;

/// How long an alert that has ended is kept and sent.
const RESOLVED_RETENTION: i64 = 15 * 60_000;

/// Texts by name.
pub type Annotations = BTreeMap<String, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertState {
    Inactive,
    Pending,
    Firing,
}

impl AlertState {
    pub fn as_str(self) -> &'static str {
        match self {
            AlertState::Inactive => "inactive",
            AlertState::Pending => "pending",
            AlertState::Firing => "firing",
        }
    }
}

/// One alert. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    pub state: AlertState,
    pub labels: Labels,
    pub annotations: Annotations,
    /// What the expression gave last.
    pub value: f64,
    pub active_at: i64,
    pub fired_at: Option<i64>,
    pub resolved_at: Option<i64>,
    /// Since when the expression does not hold any more, if it is kept firing.
    pub keep_firing_since: Option<i64>,
    pub last_sent_at: Option<i64>,
}

/// What the expression gave for one alert.
pub(crate) struct Found {
    pub(crate) annotations: Annotations,
    pub(crate) value: f64,
}

/// An alert that is in another state than before.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) from: AlertState,
    /// As it is now.
    pub(crate) alert: Alert,
}

/// How long the states last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Durations {
    pub(crate) hold: Duration,
    pub(crate) keep_firing_for: Duration,
}

/// The alerts of one rule, by their labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alerts {
    all: BTreeMap<Labels, Alert>,
}

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

impl Alerts {
    /// Moves every alert on to `now`, given what the expression holds for. Errors if more than `limit` are active (0:
    /// no limit); then none is.
    pub(crate) fn advance(
        &mut self,
        now: i64,
        found: BTreeMap<Labels, Found>,
        durations: Durations,
        limit: usize,
    ) -> Result<Vec<Change>, String> {
        let mut changes = Vec::new();
        let before: BTreeMap<Labels, AlertState> =
            self.all.iter().map(|(l, a)| (l.clone(), a.state)).collect();
        let mut holds = BTreeSet::new();
        for (labels, f) in found {
            holds.insert(labels.clone());
            match self.all.get_mut(&labels) {
                Some(a) if a.state != AlertState::Inactive => {
                    a.value = f.value;
                    a.annotations = f.annotations;
                }
                _ => {
                    let alert = Alert {
                        state: AlertState::Pending,
                        labels: labels.clone(),
                        annotations: f.annotations,
                        value: f.value,
                        active_at: now,
                        fired_at: None,
                        resolved_at: None,
                        keep_firing_since: None,
                        last_sent_at: None,
                    };
                    self.all.insert(labels, alert);
                }
            }
        }
        let mut active = 0;
        self.all.retain(|labels, a| {
            let from = before.get(labels).copied().unwrap_or(AlertState::Inactive);
            let (stays, is_active) = step(a, now, holds.contains(labels), durations);
            active += usize::from(is_active);
            if a.state != from {
                changes.push(Change { from, alert: a.clone() });
            }
            stays
        });
        if limit > 0 && active > limit {
            self.all.clear();
            return Err(format!("exceeded limit of {limit} with {active} alerts"));
        }
        Ok(changes)
    }

    /// Pending and firing ones.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Alert> {
        self.all.values().filter(|a| a.state != AlertState::Inactive)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Alert> {
        self.all.values()
    }

    pub(crate) fn each_mut(&mut self) -> impl Iterator<Item = &mut Alert> {
        self.all.values_mut()
    }

    /// The gravest state of all.
    pub(crate) fn state(&self) -> AlertState {
        self.all.values().map(|a| a.state).max().unwrap_or(AlertState::Inactive)
    }

    /// Those that must be told of now: new ones, ended ones, and again those told of long ago.
    pub(crate) fn due(&mut self, now: i64, resend: Duration) -> Vec<Alert> {
        let is_due = |a: &Alert| {
            if a.state == AlertState::Pending {
                return false;
            }
            let ended_since = a.resolved_at.is_some_and(|r| a.last_sent_at.is_none_or(|s| r > s));
            ended_since || a.last_sent_at.is_none_or(|s| s.saturating_add(millis(resend)) < now)
        };
        let due = self.all.values_mut().filter(|a| is_due(a));
        due.map(|a| {
            a.last_sent_at = Some(now);
            a.clone()
        })
        .collect()
    }
}

/// One alert's step: whether it is kept, and whether it counts as active.
fn step(a: &mut Alert, now: i64, holds: bool, d: Durations) -> (bool, bool) {
    let mut stays = true;
    if holds {
        a.keep_firing_since = None;
    } else {
        let mut kept = false;
        if a.state == AlertState::Firing && !d.keep_firing_for.is_zero() {
            let since = *a.keep_firing_since.get_or_insert(now);
            kept = now - since < millis(d.keep_firing_for);
        }
        // One that never fired leaves nothing behind.
        if a.state == AlertState::Pending || a.resolved_at.is_some_and(|r| now - r > RESOLVED_RETENTION) {
            stays = false;
        }
        if a.state != AlertState::Inactive && !kept {
            a.state = AlertState::Inactive;
            a.resolved_at = Some(now);
        }
        if !kept {
            return (stays, false);
        }
    }
    let waited = now - a.active_at;
    if a.state == AlertState::Pending && waited >= millis(d.hold) {
        a.state = AlertState::Firing;
        a.fired_at = Some(now);
    }
    // The rule may wait for longer since it was read again.
    if a.state == AlertState::Firing && waited < millis(d.hold) {
        a.state = AlertState::Pending;
        a.fired_at = None;
        a.last_sent_at = None;
        a.keep_firing_since = None;
    }
    (stays, true)
}

#[cfg(test)]
mod tests;
