//! Event: what happened to an object. Core and events.k8s.io share one storage; the core form is stored.

mod rules;

use serde_json::{Value, json};
use signal::Timestamp;

use super::{Alias, BASE, Column, Kind, WAY, column, wide};
use crate::{object, table};

pub(crate) static KIND: Kind = Kind {
    resource: "events",
    singular: "event",
    kind: "Event",
    short: &["ev"],
    aliases: &[Alias {
        group: "events.k8s.io",
        from_storage,
        to_storage,
        validate_create: rules::strict,
        validate_update: rules::strict_update,
        ..WAY
    }],
    name_rule: apimachinery::name::path_segment,
    default,
    validate: rules::event,
    fields: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    columns: &[
        Column { name: "Last Seen", kind: "string", format: "", priority: 0 },
        column("Type"),
        column("Reason"),
        column("Object"),
        wide("Subobject"),
        wide("Source"),
        column("Message"),
        wide("First Seen"),
        wide("Count"),
        wide("Name"),
    ],
    row,
    ..BASE
};

/// Core name, events.k8s.io name.
const RENAMED: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn from_storage(o: &mut Value) {
    for (core, new) in RENAMED {
        if let Some(v) = object::remove(o, core) {
            o[new] = v;
        }
    }
    if let Some(v) = object::remove(o, "reportingComponent") {
        o["reportingController"] = v;
    }
}

fn to_storage(o: &mut Value) {
    for (core, new) in RENAMED {
        if let Some(v) = object::remove(o, new) {
            o[core] = v;
        }
    }
    if let Some(v) = object::remove(o, "reportingController") {
        o["reportingComponent"] = v;
    }
}

fn default(o: &mut Value) {
    object::default(o, "involvedObject", json!({}));
    object::default(o, "source", json!({}));
    for key in ["eventTime", "firstTimestamp", "lastTimestamp"] {
        object::default(o, key, Value::Null);
    }
    for key in ["reportingComponent", "reportingInstance"] {
        object::default_text(o, key, "");
    }
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    // Rows are made from either form.
    let of = |core: &str, new: &str| {
        object::get(o, core).or_else(|| object::get(o, new)).cloned().unwrap_or(Value::Null)
    };
    let regarding = of("involvedObject", "regarding");
    let source = of("source", "deprecatedSource");
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let created = object::text(o, "metadata.creationTimestamp");
    let event_time = object::text(o, "eventTime");
    let first = text(&of("firstTimestamp", "deprecatedFirstTimestamp"));
    let first = first.as_deref().or(event_time).or(created);
    let series = object::text(o, "series.lastObservedTime");
    let last = text(&of("lastTimestamp", "deprecatedLastTimestamp"));
    let last = series.or(last.as_deref()).or(first);
    let count = object::int(o, "series.count").or(of("count", "deprecatedCount").as_i64()).unwrap_or(1);
    let seen = table::since(last, now);
    let seen = if count > 1 { format!("{seen} (x{count} over {})", table::since(first, now)) } else { seen };
    let component = object::text(&source, "component")
        .or_else(|| object::text(o, "reportingComponent"))
        .or_else(|| object::text(o, "reportingController"))
        .unwrap_or_default();
    let host =
        object::text(&source, "host").or_else(|| object::text(o, "reportingInstance")).unwrap_or_default();
    let from = if host.is_empty() || component.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {host}")
    };
    let kind = object::text(&regarding, "kind").unwrap_or_default().to_lowercase();
    let name = object::text(&regarding, "name").unwrap_or_default();
    vec![
        if o.get("series").is_none() && count > 1 { seen.into() } else { table::since(last, now).into() },
        object::text(o, "type").unwrap_or_default().into(),
        object::text(o, "reason").unwrap_or_default().into(),
        if name.is_empty() { kind.into() } else { format!("{kind}/{name}").into() },
        object::text(&regarding, "fieldPath").unwrap_or_default().into(),
        from.into(),
        of("message", "note").as_str().unwrap_or_default().trim().into(),
        table::since(first, now).into(),
        count.into(),
        object::name(o).into(),
    ]
}
