//! `audit`: a row for each audit record of the API, from the log index.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};
use log_index::Search;
use signal::{Matcher, Timestamp};

use super::Scan;
use crate::column::{Out, integer, nanos, text};
use crate::error::ScanError;

pub(crate) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        nanos("time"),
        text("audit_id"),
        text("level"),
        text("stage"),
        text("verb"),
        text("user"),
        text("impersonated"),
        text("api_group"),
        text("resource"),
        text("subresource"),
        text("namespace"),
        text("name"),
        integer("code"),
        text("event"),
    ]))
});

pub(super) fn read(scan: &Scan, out: &mut Out) -> Result<(), ScanError> {
    let (start, end) = scan.range();
    let mut matchers = scan.matchers(|column| (column == "level").then_some("level"));
    matchers.push(Matcher::equal("record", "audit"));
    let search = Search::new(matchers, start, Timestamp(end.nanos().saturating_add(1)));
    let each = |labels: &signal::Labels, records: Vec<signal::LogRecord>| {
        for r in records {
            let words = |name: &str| r.attributes.get_str(name).unwrap_or_default();
            let full = out.add(1, |i, c| match i {
                0 => c.nanos(Some(r.timestamp.nanos())),
                1 => c.text(words("audit_id")),
                2 => c.text(labels.get("level").unwrap_or_default()),
                3 => c.text(words("stage")),
                4 => c.text(words("verb")),
                5 => c.text(words("user")),
                6 => c.text(words("impersonated")),
                7 => c.text(words("group")),
                8 => c.text(words("resource")),
                9 => c.text(words("subresource")),
                10 => c.text(words("object_namespace")),
                11 => c.text(words("name")),
                12 => c.integer(words("code").parse().unwrap_or(0)),
                _ => c.text(&r.body),
            });
            if full {
                out.flush()?;
            }
        }
        ControlFlow::Continue(())
    };
    scan.world.sources.logs.scan(&search, each).map_err(|e| ScanError::Storage(e.to_string()))?;
    scan.world.note_damage("audit", &search);
    // Nobody reading any more is no failure.
    let _ = out.flush();
    Ok(())
}
