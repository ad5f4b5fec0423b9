//! `logs`: a row for each record.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};
use log_index::Search;
use signal::Timestamp;

use super::Scan;
use crate::column::{Out, map, nanos, text};
use crate::error::ScanError;

pub(crate) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        nanos("time"),
        text("namespace"),
        text("pod"),
        text("container"),
        text("service_name"),
        text("severity"),
        text("body"),
        text("trace_id"),
        text("span_id"),
        map("labels"),
        map("attributes"),
    ]))
});

fn label(column: &str) -> Option<&'static str> {
    Some(match column {
        "namespace" => "namespace",
        "pod" => "pod",
        "container" => "container",
        "service_name" => "service_name",
        _ => return None,
    })
}

fn range(scan: &Scan) -> (Timestamp, Timestamp) {
    // A trace's records are found by its id wherever they lie.
    match scan.wanted.trace_id {
        Some(_) => {
            (Timestamp(scan.wanted.start.unwrap_or(i64::MIN)), Timestamp(scan.wanted.end.unwrap_or(i64::MAX)))
        }
        None => scan.range(),
    }
}

/// Records that the scan may read: those of whole blocks.
pub(super) fn estimate(scan: &Scan) -> Result<u64, log_index::Error> {
    let (start, end) = range(scan);
    let streams = scan.world.sources.logs.streams(&scan.matchers(label), start, end)?;
    Ok(streams.iter().map(|s| s.records).sum())
}

pub(super) fn read(scan: &Scan, out: &mut Out) -> Result<(), ScanError> {
    let (start, end) = range(scan);
    let mut search = Search::new(scan.matchers(label), start, Timestamp(end.nanos().saturating_add(1)));
    search.needles = scan.wanted.needles.clone();
    search.trace_id = scan.wanted.trace_id;
    let each = |labels: &signal::Labels, records: Vec<signal::LogRecord>| {
        if out.closed() {
            return ControlFlow::Break(());
        }
        let get = |name| labels.get(name).unwrap_or("");
        for r in records {
            let full = out.add(1, |i, c| match i {
                0 => c.nanos(Some(r.timestamp.nanos())),
                1 => c.text(get("namespace")),
                2 => c.text(get("pod")),
                3 => c.text(get("container")),
                4 => c.text(get("service_name")),
                5 => c.text(r.severity.as_str()),
                6 => c.text(&r.body),
                7 if r.trace_id.is_valid() => c.text(&r.trace_id.to_string()),
                8 if r.span_id.is_valid() => c.text(&r.span_id.to_string()),
                7 | 8 => c.text(""),
                9 => c.maps(labels.iter(), 1),
                _ => c.attributes(&r.attributes),
            });
            if full {
                out.flush()?;
            }
        }
        ControlFlow::Continue(())
    };
    scan.world.sources.logs.scan(&search, each).map_err(|e| ScanError::Storage(e.to_string()))?;
    // Nobody reading any more is no failure.
    let _ = out.flush();
    Ok(())
}
