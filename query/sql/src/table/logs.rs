//! `logs`: a row for each record. Blocks become batches on the index's own threads, and only columns that are read.

use std::fmt::Display;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use log_index::{BlockView, Search};
use signal::Timestamp;

use super::Scan;
use crate::column::{self, Column, Out, map, nanos, text};
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
    let batches = |v: &BlockView<'_>| match v.is_empty() {
        true => Ok(None),
        false => batch(v, scan).map(Some),
    };
    let pass = |found: Option<RecordBatch>| match found {
        Some(batch) => out.pass(batch),
        None if out.closed() => ControlFlow::Break(()),
        None => ControlFlow::Continue(()),
    };
    let logs = &scan.world.sources.logs;
    logs.map_blocks(&search, batches, pass).map_err(|e| ScanError::Storage(e.to_string()))
}

fn batch(v: &BlockView<'_>, scan: &Scan) -> Result<RecordBatch, log_index::Error> {
    let n = v.len();
    let get = |name| v.labels().get(name).unwrap_or("");
    column::batch(&scan.schema, &scan.indexes, n, |i, c| {
        match i {
            1 => c.texts(get("namespace"), n),
            2 => c.texts(get("pod"), n),
            3 => c.texts(get("container"), n),
            4 => c.texts(get("service_name"), n),
            9 => c.maps(v.labels().iter(), n),
            10 => return attributes(v, c),
            _ => {
                for row in 0..n {
                    match i {
                        0 => c.nanos(Some(v.time(row))),
                        5 => c.text(v.severity(row)?.as_str()),
                        6 => c.text(v.text(row)?),
                        7 => c.text(&id(v.trace_id(row)?, |id| id.is_valid())),
                        _ => c.text(&id(v.span_id(row)?, |id| id.is_valid())),
                    };
                }
                0
            }
        };
        Ok(())
    })
}

/// Digits, or nothing.
fn id<T: Display>(id: T, is_valid: impl Fn(&T) -> bool) -> String {
    if is_valid(&id) { id.to_string() } else { String::new() }
}

fn attributes(v: &BlockView<'_>, c: &mut Column) -> Result<(), log_index::Error> {
    let names = v.attribute_names();
    let columns = names.iter().map(|name| v.attribute(name)).collect::<Result<Vec<_>, _>>()?;
    for row in 0..v.len() {
        let all = names.iter().zip(&columns).filter_map(|(name, c)| Some((*name, c.get(row)?.to_string())));
        let all: Vec<(&str, String)> = all.collect();
        c.maps(all.iter().map(|(name, value)| (*name, value)), 1);
    }
    Ok(())
}
