//! Series summed up over a time: what blocks know of whole chunks is taken as it is, so that a function over weeks
//! reads only the chunks at its edges.

use signal::{Labels, Select, SourceError, Summary, is_stale_nan};

use crate::block::Reader;
use crate::db::Tsdb;
use crate::error::Error;
use crate::merge::{Columns, Extras};
use crate::select::{Found, Parts};

/// Adds samples that come after all before them. False if there is a NaN among them that is a number's place.
fn add(summary: &mut Summary, columns: &Columns) -> bool {
    for (t, v) in columns.times.iter().zip(&columns.values) {
        if v.is_nan() {
            if is_stale_nan(*v) {
                continue;
            }
            return false;
        }
        summary.add(&Summary::of(*t, *v));
    }
    true
}

impl Reader {
    /// Adds one series' floats in the range, if they come after all before. `Ok(false)` if that is not so, or if
    /// somebody must look at the samples.
    fn summarize(
        &mut self,
        series: u32,
        (start, end): (i64, i64),
        scratch: &mut Columns,
        out: &mut Summary,
    ) -> Result<bool, Error> {
        for chunk in 0..self.chunks(series) {
            let Some((min, max)) = self.chunk_range(series, chunk) else { return Ok(false) };
            if max < start || min > end {
                continue;
            }
            if out.count > 0 && min <= out.last.0 {
                return Ok(false);
            }
            if min >= start
                && max <= end
                && let Some(whole) = self.chunk_summary(series, chunk)
            {
                out.add(&whole);
                continue;
            }
            scratch.clear();
            self.read_chunk(series, chunk, start, end, scratch)?;
            if !add(out, scratch) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Tsdb {
    /// `None` if a series has histograms, start times, or a NaN where a number should be: those need the samples.
    pub(crate) fn summed_up(
        &self,
        select: &Select,
        bytes: usize,
    ) -> Result<Option<Vec<(Labels, Summary)>>, SourceError> {
        let Found { mut readers, series, .. } = self.find(select, bytes)?;
        let mut out = Vec::with_capacity(series.len());
        let mut columns = Columns::default();
        for (labels, parts) in series {
            let Some(summary) = one(&mut readers, &parts, select, &mut columns)? else { return Ok(None) };
            if summary.count > 0 {
                out.push((labels, summary));
            }
        }
        Ok(Some(out))
    }
}

fn one(
    readers: &mut [Reader],
    parts: &Parts,
    select: &Select,
    columns: &mut Columns,
) -> Result<Option<Summary>, Error> {
    if let Some(summary) = quick(readers, parts, select, columns)? {
        return Ok(Some(summary));
    }
    let mut extras = Extras::default();
    columns.clear();
    parts.read(readers, select.start, select.end, columns, &mut extras)?;
    columns.settle();
    let (histograms, starts) = extras.finish();
    let mut summary = Summary::default();
    let plain = histograms.is_empty() && starts.is_empty() && add(&mut summary, columns);
    Ok(plain.then_some(summary))
}

/// By what is known of chunks, if they follow each other and the head's samples follow them.
fn quick(
    readers: &mut [Reader],
    parts: &Parts,
    select: &Select,
    columns: &mut Columns,
) -> Result<Option<Summary>, Error> {
    let mut summary = Summary::default();
    for (reader, id, deleted) in &parts.blocks {
        let Some(reader) = readers.get_mut(*reader as usize) else { return Ok(None) };
        let plain = deleted.is_none() && !reader.has_extra(*id);
        if !plain || !reader.summarize(*id, (select.start, select.end), columns, &mut summary)? {
            return Ok(None);
        }
    }
    let mut extras = Extras::default();
    columns.clear();
    for head in &parts.heads {
        head.read(select.start, select.end, columns, &mut extras);
    }
    columns.settle();
    let follows = summary.count == 0 || columns.times.first().is_none_or(|t| *t > summary.last.0);
    let (histograms, starts) = extras.finish();
    let plain = follows && histograms.is_empty() && starts.is_empty() && add(&mut summary, columns);
    Ok(plain.then_some(summary))
}
