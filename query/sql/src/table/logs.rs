//! `logs`: a row for each record. Blocks become batches on the index's own threads, and only columns that are read.

use std::fmt::Display;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use log_index::{BlockView, Search};
use signal::{Severity, Timestamp};

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
    // What goes wrong while a block's rows are reduced ends the scan, but is no fault of the index.
    let batches = |v: BlockView<'_>| {
        let rows = v.len();
        if rows == 0 {
            return Ok(None);
        }
        let batch = batch(v, scan)?;
        let reduced = scan.reduction.as_ref().map_or(Ok(batch.clone()), |r| r.apply(&batch));
        Ok(Some((reduced, rows)))
    };
    let mut failure = None;
    let pass = |found: Option<(datafusion::error::Result<RecordBatch>, usize)>| match found {
        Some((Ok(batch), rows)) => out.pass(batch, rows),
        Some((Err(e), _)) => {
            failure = Some(e);
            ControlFlow::Break(())
        }
        None if out.closed() => ControlFlow::Break(()),
        None => ControlFlow::Continue(()),
    };
    let logs = &scan.world.sources.logs;
    logs.map_views(&search, batches, pass).map_err(|e| ScanError::Storage(e.to_string()))?;
    scan.world.note_damage("logs", &search);
    failure.map_or(Ok(()), |e| Err(ScanError::Operator(Box::new(e))))
}

fn batch(v: BlockView<'_>, scan: &Scan) -> Result<RecordBatch, log_index::Error> {
    let n = v.len();
    let get = |name| v.labels().get(name).unwrap_or("");
    let mut columns: Vec<Option<ArrayRef>> = Vec::with_capacity(scan.indexes.len());
    for (i, field) in scan.indexes.iter().zip(scan.schema.fields()) {
        let rows = |each: &dyn Fn(&mut Column, usize) -> Result<(), log_index::Error>| {
            column::built(field.data_type(), |c| (0..n).try_for_each(|row| each(c, row)))
        };
        columns.push(Some(match i {
            0 => column::times(v.times()?),
            1 => column::repeated(get("namespace"), n),
            2 => column::repeated(get("pod"), n),
            3 => column::repeated(get("container"), n),
            4 => column::repeated(get("service_name"), n),
            5 => severities(&v.severities()?),
            6 => {
                columns.push(None);
                continue;
            }
            7 => rows(&|c, row| {
                c.text(&id(v.trace_id(row)?, |id| id.is_valid()));
                Ok(())
            })?,
            8 => rows(&|c, row| {
                c.text(&id(v.span_id(row)?, |id| id.is_valid()));
                Ok(())
            })?,
            9 => column::built(field.data_type(), |c| {
                c.maps(v.labels().iter(), n);
                Ok::<(), log_index::Error>(())
            })?,
            _ => column::built(field.data_type(), |c| attributes(&v, c))?,
        }));
    }
    // Last, because it takes the texts out of the block.
    if columns.iter().any(Option::is_none) {
        let bodies = column::views(v.into_texts()?);
        columns.iter_mut().filter(|c| c.is_none()).for_each(|c| *c = Some(bodies.clone()));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(n));
    let columns = columns.into_iter().flatten().collect();
    let batch = RecordBatch::try_new_with_options(scan.schema.clone(), columns, &options);
    Ok(batch.expect("each column is made for its field and has each row"))
}

/// There are few of them, so each one's name is stored once.
fn severities(all: &[Severity]) -> ArrayRef {
    let (mut names, mut known) = (Vec::new(), [None; 32]);
    let mut number = |s: &Severity| {
        let next = names.len() as u32;
        *known[usize::from(s.0 & 31)].get_or_insert_with(|| {
            names.push(s.as_str());
            next
        })
    };
    let rows = all.iter().map(&mut number).collect();
    column::chosen(&names, rows)
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
