//! `decisions`: a row for each decision of an autoscaler, from its record in the log index.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};
use log_index::Search;
use signal::{AttributeValue, Matcher, Timestamp};

use super::Scan;
use crate::column::{Out, integer, nanos, text};
use crate::error::ScanError;

pub(crate) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        nanos("time"),
        text("namespace"),
        text("hpa"),
        integer("from_replicas"),
        integer("to_replicas"),
        text("reason"),
        text("trace_id"),
        text("decision"),
    ]))
});

pub(super) fn read(scan: &Scan, out: &mut Out) -> Result<(), ScanError> {
    let (start, end) = scan.range();
    let mut matchers = scan.matchers(|column| (column == "namespace").then_some("namespace"));
    matchers.push(Matcher::equal("record", "hpa-decision"));
    let search = Search::new(matchers, start, Timestamp(end.nanos().saturating_add(1)));
    let each = |labels: &signal::Labels, records: Vec<signal::LogRecord>| {
        for r in records {
            let words = |name: &str| r.attributes.get_str(name).unwrap_or_default();
            let number = |name: &str| match r.attributes.get(name) {
                Some(AttributeValue::Int(n)) => *n,
                _ => 0,
            };
            let full = out.add(1, |i, c| match i {
                0 => c.nanos(Some(r.timestamp.nanos())),
                1 => c.text(labels.get("namespace").unwrap_or_default()),
                2 => c.text(words("hpa")),
                3 => c.integer(number("from")),
                4 => c.integer(number("to")),
                5 => c.text(words("reason")),
                6 if r.trace_id.is_valid() => c.text(&r.trace_id.to_string()),
                6 => c.text(""),
                _ => c.text(&r.body),
            });
            if full {
                out.flush()?;
            }
        }
        ControlFlow::Continue(())
    };
    scan.world.sources.logs.scan(&search, each).map_err(|e| ScanError::Storage(e.to_string()))?;
    scan.world.note_damage("decisions", &search);
    // Nobody reading any more is no failure.
    let _ = out.flush();
    Ok(())
}
