//! Every change of an alert's state as a record in the log index, so that alerts are seen without an Alertmanager.

use serde_json::json;
use signal::{Attributes, Labels, LogBatch, LogRecord, LogStream, Severity, Timestamp};

use crate::alert::{AlertState, Change};
use crate::group::Group;
use crate::rule::ALERT_NAME;

/// RFC 3339 with milliseconds.
pub(crate) fn rfc3339(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .unwrap_or_default()
        .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}

/// One stream for each namespace that alerts belong to, so that who may see a namespace sees its alerts.
pub(crate) fn batch(node: &str, group: &Group, changes: &[(usize, Change)], now: i64) -> LogBatch {
    let mut batch = LogBatch::default();
    for (rule, change) in changes {
        let alert = &change.alert;
        let namespace = alert.labels.get("namespace").unwrap_or("");
        let labels = Labels::from_pairs([
            ("component", "rules"),
            ("service_name", "rules"),
            ("record", "alert"),
            ("namespace", namespace),
            ("node", node),
        ]);
        let record = record(group, *rule, change, now);
        match batch.streams.iter_mut().find(|s| s.labels == labels) {
            Some(s) => s.records.push(record),
            None => batch.streams.push(LogStream { labels, records: vec![record] }),
        }
    }
    batch
}

fn record(group: &Group, rule: usize, change: &Change, now: i64) -> LogRecord {
    let alert = &change.alert;
    let name = alert.labels.get(ALERT_NAME).unwrap_or("");
    let body = json!({
        "alertname": name,
        "from": change.from.as_str(),
        "state": alert.state.as_str(),
        "group": group.spec.name,
        "file": group.file.display().to_string(),
        "query": group.rules.get(rule).map(|r| r.query.as_str()).unwrap_or(""),
        "value": promql::format_value(alert.value),
        "activeAt": rfc3339(alert.active_at),
        "labels": alert.labels,
        "annotations": alert.annotations,
    });
    let mut attributes = Attributes::default();
    attributes.set("alertname", name);
    attributes.set("alertstate", alert.state.as_str());
    attributes.set("group", group.spec.name.as_str());
    let severity = match (alert.state, alert.labels.get("severity").unwrap_or("")) {
        (AlertState::Firing, "critical" | "page" | "error") => Severity::ERROR,
        (AlertState::Firing, "info" | "none") => Severity::INFO,
        (AlertState::Firing, _) => Severity::WARN,
        _ => Severity::INFO,
    };
    LogRecord {
        timestamp: Timestamp::from_millis(now),
        severity,
        body: body.to_string(),
        attributes,
        ..LogRecord::default()
    }
}
