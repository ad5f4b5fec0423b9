//! `metrics`: a row for each sample.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};
use signal::{Labels, METRIC_NAME, Select, SeriesColumns, is_stale_nan};

use super::Scan;
use crate::column::{Out, double, map, millis, text};
use crate::error::ScanError;

pub(crate) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        millis("time"),
        text("name"),
        map("labels"),
        text("namespace"),
        text("pod"),
        text("container"),
        text("node"),
        double("value"),
    ]))
});

fn label(column: &str) -> Option<&'static str> {
    Some(match column {
        "name" => METRIC_NAME,
        "namespace" => "namespace",
        "pod" => "pod",
        "container" => "container",
        "node" => "node",
        _ => return None,
    })
}

pub(super) fn select(scan: &Scan) -> Select {
    let (start, end) = scan.range();
    Select { matchers: scan.matchers(label), start: start.millis(), end: end.millis() }
}

pub(super) fn read(scan: &Scan, out: &mut Out) -> Result<(), ScanError> {
    let storage = |e: signal::SourceError| ScanError::Storage(e.to_string());
    for series in scan.world.sources.tsdb.scan(&select(scan), &[METRIC_NAME]).map_err(storage)? {
        let s = living(series.map_err(storage)?);
        if out.closed() || write(out, &s.labels, &s.timestamps, &s.values).is_break() {
            return Ok(());
        }
    }
    // Nobody reading any more is no failure.
    let _ = out.flush();
    Ok(())
}

/// Without markers that a series ended: those are not values that somebody measured.
pub(super) fn living(mut s: SeriesColumns) -> SeriesColumns {
    if s.values.iter().any(|v| is_stale_nan(*v)) {
        let (times, values) = s.timestamps.iter().zip(&s.values).filter(|(_, v)| !is_stale_nan(**v)).unzip();
        (s.timestamps, s.values) = (Arc::new(times), values);
    }
    s
}

/// Samples of one series, in as many batches as they take.
pub(super) fn write(
    out: &mut Out,
    labels: &Labels,
    mut timestamps: &[i64],
    mut values: &[f64],
) -> std::ops::ControlFlow<()> {
    while !timestamps.is_empty() {
        let n = out.room().min(timestamps.len());
        let ((t, later), (v, further)) = (timestamps.split_at(n), values.split_at(n));
        let get = |name| labels.get(name).unwrap_or("");
        let full = out.add(n, |i, c| match i {
            0 => c.millis(t),
            1 => c.texts(get(METRIC_NAME), n),
            2 => c.maps(labels.iter().filter(|(name, _)| *name != METRIC_NAME), n),
            3 => c.texts(get("namespace"), n),
            4 => c.texts(get("pod"), n),
            5 => c.texts(get("container"), n),
            6 => c.texts(get("node"), n),
            _ => c.doubles(v),
        });
        if full {
            out.flush()?;
        }
        (timestamps, values) = (later, further);
    }
    std::ops::ControlFlow::Continue(())
}
