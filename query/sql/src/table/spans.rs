//! `spans`: a row for each span.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};
use log_index::SpanSearch;
use signal::{Attributes, Labels, Span, SpanStatus, Timestamp};

use super::Scan;
use crate::column::{Out, double, map, nanos, text};
use crate::error::ScanError;

pub(crate) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        nanos("start"),
        nanos("end"),
        double("duration_ms"),
        text("trace_id"),
        text("span_id"),
        text("parent_span_id"),
        text("name"),
        text("kind"),
        text("service_name"),
        text("namespace"),
        text("pod"),
        text("status"),
        text("status_message"),
        map("labels"),
        map("attributes"),
        map("resource"),
    ]))
});

fn label(column: &str) -> Option<&'static str> {
    Some(match column {
        "service_name" => "service_name",
        "namespace" => "namespace",
        "pod" => "pod",
        _ => return None,
    })
}

pub(super) fn read(scan: &Scan, out: &mut Out) -> Result<(), ScanError> {
    let storage = |e: log_index::Error| ScanError::Storage(e.to_string());
    let traces = &scan.world.sources.traces;
    let matchers = scan.matchers(label);
    if let Some(id) = scan.wanted.trace_id {
        for stream in traces.trace(id, &matchers).map_err(storage)? {
            for span in &stream.spans {
                if write(out, &stream.labels, &stream.resource, span).is_break() {
                    return Ok(());
                }
            }
        }
    } else {
        let (start, end) = scan.range();
        let search = SpanSearch {
            matchers,
            start,
            end: Timestamp(end.nanos().saturating_add(1)),
            name: scan.wanted.equals("name").map(str::to_owned),
            min_duration: scan.wanted.min_duration,
            max_duration: scan.wanted.max_duration,
            attributes: Vec::new(),
        };
        let each = |labels: &Labels, resource: &Attributes, span: Span| write(out, labels, resource, &span);
        traces.scan_spans(&search, each).map_err(storage)?;
    }
    // Nobody reading any more is no failure.
    let _ = out.flush();
    Ok(())
}

fn write(out: &mut Out, labels: &Labels, resource: &Attributes, s: &Span) -> ControlFlow<()> {
    if out.closed() {
        return ControlFlow::Break(());
    }
    let get = |name| labels.get(name).unwrap_or("");
    let status = match &s.status {
        SpanStatus::Unset => ("unset", ""),
        SpanStatus::Ok => ("ok", ""),
        SpanStatus::Error(m) => ("error", m.as_str()),
    };
    let full = out.add(1, |i, c| match i {
        0 => c.nanos(Some(s.start.nanos())),
        1 => c.nanos(Some(s.end.nanos())),
        2 => c.doubles(&[s.end.since(s.start).as_nanos() as f64 / 1e6]),
        3 => c.text(&s.trace_id.to_string()),
        4 => c.text(&s.span_id.to_string()),
        5 if s.parent_span_id.is_valid() => c.text(&s.parent_span_id.to_string()),
        5 => c.text(""),
        6 => c.text(&s.name),
        7 => c.text(s.kind.as_str()),
        8 => c.text(get("service_name")),
        9 => c.text(get("namespace")),
        10 => c.text(get("pod")),
        11 => c.text(status.0),
        12 => c.text(status.1),
        13 => c.maps(labels.iter(), 1),
        14 => c.attributes(&s.attributes),
        _ => c.attributes(resource),
    });
    if full { out.flush() } else { ControlFlow::Continue(()) }
}
