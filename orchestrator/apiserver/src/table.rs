//! Tables, as `kubectl get` shows them, and the small words in their cells
//! (kubernetes: pkg/printers/internalversion/printers.go).

use std::time::Duration;

use serde_json::{Value, json};
use signal::Timestamp;

use crate::custom;
use crate::kinds::{Column, Served};
use crate::object;

/// How much of each object stands in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub(crate) fn parse(s: Option<&str>) -> Include {
        match s {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        }
    }
}

pub(crate) fn columns(columns: &[Column]) -> Value {
    let all = columns.iter().map(|c| {
        json!({"name": c.name, "type": c.kind, "format": c.format, "description": "", "priority": c.priority})
    });
    Value::Array(all.collect())
}

/// One row. `object` is in the version the client asked for.
pub(crate) fn row(served: &Served, object: Value, include: Include, now: Timestamp) -> Value {
    let cells = match &served.custom {
        Some(held) => custom::columns::row(&held.columns, &object, now),
        None => (served.kind.row)(&object, now),
    };
    let mut row = json!({ "cells": cells });
    match include {
        Include::None => {}
        Include::Object => row["object"] = object,
        Include::Metadata => row["object"] = partial(object),
    }
    row
}

/// A table of rows. Watches give the columns only once.
pub(crate) fn table(served: &Served, metadata: Value, rows: Vec<Value>, with_columns: bool) -> Value {
    let definitions = match &served.custom {
        _ if !with_columns => Value::Array(Vec::new()),
        Some(held) => custom::columns::definitions(&held.columns),
        None => columns(served.kind.columns),
    };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

/// Only the metadata of an object.
pub(crate) fn partial(mut object: Value) -> Value {
    let metadata = object::remove(&mut object, "metadata").unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

/// The age of an object by its creation.
pub(crate) fn age(o: &Value, now: Timestamp) -> Value {
    since(object::text(o, "metadata.creationTimestamp"), now).into()
}

/// How long ago a time was, or `<unknown>`.
pub(crate) fn since(time: Option<&str>, now: Timestamp) -> String {
    match time.and_then(object::parse_time) {
        Some(t) if t > now.saturating_add(Duration::from_secs(2)) => "<invalid>".to_owned(),
        Some(t) => human(now.since(t)),
        None => "<unknown>".to_owned(),
    }
}

/// A duration in two units at most (apimachinery: pkg/util/duration HumanDuration).
pub(crate) fn human(d: Duration) -> String {
    let s = d.as_secs();
    let (m, h, days) = (s / 60, s / 3600, s / 86400);
    let two = |a: u64, ua: &str, b: u64, ub: &str| {
        if b == 0 { format!("{a}{ua}") } else { format!("{a}{ua}{b}{ub}") }
    };
    match s {
        0..120 => format!("{s}s"),
        120..600 => two(m, "m", s % 60, "s"),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => two(h, "h", m % 60, "m"),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => two(days, "d", h % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// A text cell; `<none>` where there is nothing to say.
pub(crate) fn or_none(s: Option<&str>) -> Value {
    match s {
        Some(s) if !s.is_empty() => s.into(),
        _ => "<none>".into(),
    }
}

/// `a=b,c=d`, or `<none>`.
pub(crate) fn pairs(v: Option<&Value>) -> Value {
    let Some(m) = v.and_then(Value::as_object).filter(|m| !m.is_empty()) else { return "<none>".into() };
    let mut all: Vec<String> =
        m.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    all.sort();
    all.join(",").into()
}

/// A label selector as text, or `<none>`.
pub(crate) fn selector(v: Option<&Value>) -> Value {
    match apimachinery::selector::Selector::from_json(v) {
        Ok(s) if !s.is_nothing() && !s.is_everything() => s.to_string().into(),
        _ => "<none>".into(),
    }
}

/// Names and images of a pod template's containers.
pub(crate) fn containers(pod_spec: Option<&Value>) -> (Value, Value) {
    let all = pod_spec.map(|s| object::list(s, "containers")).unwrap_or_default();
    let join = |key: &str| {
        let v: Vec<&str> = all.iter().filter_map(|c| c.get(key).and_then(Value::as_str)).collect();
        Value::from(v.join(","))
    };
    (join("name"), join("image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_kubectl_shows_them() {
        let check = |s: u64, expect: &str| assert_eq!(human(Duration::from_secs(s)), expect, "{s}");
        check(0, "0s");
        check(119, "119s");
        check(120, "2m");
        check(125, "2m5s");
        check(601, "10m");
        check(3 * 3600, "3h");
        check(3 * 3600 + 300, "3h5m");
        check(8 * 3600 + 300, "8h");
        check(49 * 3600, "2d1h");
        check(9 * 86400, "9d");
        check(800 * 86400, "2y70d");
    }
}
