//! Reading the series of one block, one after the other, for one query or one merge.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use signal::{HistogramSample, Labels, Summary};

use super::index::TimesRef;
use super::times::decode_times;
use super::values::{Scratch, decode_values};
use super::{Block, Index, LabelCursor, read_checked};
use crate::codec::{decode_histograms, decode_stream};
use crate::error::Error;
use crate::merge::{Columns, Extras};
use crate::tombstones::Ranges;

/// Timestamps kept, in samples: many series share a column.
const KEPT_TIMES: usize = 1 << 20;
/// What is read at once where series are read in their order.
const AHEAD: usize = 256 << 10;

pub(crate) struct Reader {
    pub(crate) block: Arc<Block>,
    pub(crate) index: Arc<Index>,
    cursor: LabelCursor,
    times: HashMap<u32, Arc<[i64]>, ahash::RandomState>,
    kept: usize,
    /// A piece of the file, and where it begins.
    window: Vec<u8>,
    window_at: u64,
    /// How much is read at once: more while reads follow each other.
    stride: usize,
    values: Vec<f64>,
    scratch: Scratch,
}

impl Reader {
    pub(crate) fn new(block: Arc<Block>) -> Result<Reader, Error> {
        let index = block.index()?;
        Ok(Reader {
            block,
            index,
            cursor: LabelCursor::default(),
            times: HashMap::default(),
            kept: 0,
            window: Vec::new(),
            window_at: 0,
            stride: 0,
            values: Vec::new(),
            scratch: Scratch::default(),
        })
    }

    fn damaged(&self, what: &str) -> Error {
        Error::Damaged { path: self.block.path.clone(), what: what.to_owned() }
    }

    pub(crate) fn labels(&mut self, series: u32) -> Result<Labels, Error> {
        self.cursor.labels(&self.index, series).ok_or_else(|| self.damaged("labels"))
    }

    /// Adds one series' floats in the range.
    pub(crate) fn read(&mut self, series: u32, start: i64, end: i64, out: &mut Columns) -> Result<(), Error> {
        for chunk in 0..self.chunks(series) {
            self.read_chunk(series, chunk, start, end, out)?;
        }
        Ok(())
    }

    pub(crate) fn chunks(&self, series: u32) -> usize {
        self.index.chunks(series).len()
    }

    /// First and last time of a chunk.
    pub(crate) fn chunk_range(&self, series: u32, chunk: usize) -> Option<(i64, i64)> {
        let c = self.index.chunks(series).get(chunk)?;
        self.index.times.get(c.times as usize).map(|t| (t.min, t.max))
    }

    /// A whole chunk, if it has no NaNs and its facts are known.
    pub(crate) fn chunk_summary(&self, series: u32, chunk: usize) -> Option<Summary> {
        let c = self.index.chunks(series).get(chunk)?;
        c.facts.summary(self.chunk_range(series, chunk)?)
    }

    /// True if the series has histograms or start times.
    pub(crate) fn has_extra(&self, series: u32) -> bool {
        self.index.extra(series).is_some()
    }

    /// Adds one chunk's floats in the range.
    pub(crate) fn read_chunk(
        &mut self,
        series: u32,
        chunk: usize,
        start: i64,
        end: i64,
        out: &mut Columns,
    ) -> Result<(), Error> {
        let index = self.index.clone();
        let c = index.chunks(series).get(chunk).ok_or_else(|| self.damaged("chunk"))?;
        let t = index.times.get(c.times as usize).ok_or_else(|| self.damaged("chunk"))?;
        if t.max < start || t.min > end {
            return Ok(());
        }
        let times = self.times(c.times, t)?;
        let mut values = std::mem::take(&mut self.values);
        values.clear();
        let mut scratch = std::mem::take(&mut self.scratch);
        let data = self.bytes(c.offset, c.len)?;
        if !super::is_sound(data, c.crc) {
            return Err(self.damaged("checksum of values"));
        }
        decode_values(data, times.len(), &mut scratch, &mut values).ok_or_else(|| self.damaged("values"))?;
        self.scratch = scratch;
        let range = times.partition_point(|t| *t < start)..times.partition_point(|t| *t <= end);
        if let (Some(t), Some(v)) = (times.get(range.clone()), values.get(range)) {
            out.extend(t, v);
        }
        self.values = values;
        Ok(())
    }

    /// Adds one series' histograms in the range, and all its start times.
    pub(crate) fn read_extra(
        &mut self,
        series: u32,
        start: i64,
        end: i64,
        out: &mut Extras,
    ) -> Result<(), Error> {
        let index = self.index.clone();
        let Some(extra) = index.extra(series) else { return Ok(()) };
        let Block { file, path, .. } = &*self.block;
        for h in extra.histograms.iter().filter(|h| h.max >= start && h.min <= end) {
            let packed = read_checked(file, path, h.offset, h.len, h.crc, "histograms")?;
            let raw =
                zstd::bulk::decompress(&packed, h.raw as usize).map_err(|_| self.damaged("histograms"))?;
            decode_histograms(&raw, h.count, |s: HistogramSample| {
                if (start..=end).contains(&s.timestamp) {
                    out.push(s);
                }
            })
            .ok_or_else(|| self.damaged("histograms"))?;
        }
        if let Some(s) = &extra.starts {
            let raw = read_checked(file, path, s.offset, s.len, s.crc, "start times")?;
            let mut starts = Vec::new();
            decode_stream(&raw, s.count, |t, bits| starts.push((t, bits.to_bits() as i64)))
                .ok_or_else(|| self.damaged("start times"))?;
            out.push_starts(&starts);
        }
        Ok(())
    }

    /// Adds what one series has in the range and is not deleted.
    pub(crate) fn read_kept(
        &mut self,
        series: u32,
        (start, end): (i64, i64),
        deleted: Option<&Ranges>,
        columns: &mut Columns,
        extras: &mut Extras,
    ) -> Result<(), Error> {
        let Some(deleted) = deleted else {
            self.read(series, start, end, columns)?;
            return self.read_extra(series, start, end, extras);
        };
        let (mut all, mut others) = (Columns::default(), Extras::default());
        self.read(series, start, end, &mut all)?;
        self.read_extra(series, start, end, &mut others)?;
        deleted.keep(&all, columns);
        let (histograms, starts) = others.finish();
        histograms.into_iter().filter(|h| !deleted.contains(h.timestamp)).for_each(|h| extras.push(h));
        extras.push_starts(&starts);
        Ok(())
    }

    fn times(&mut self, id: u32, t: &TimesRef) -> Result<Arc<[i64]>, Error> {
        if let Some(times) = self.times.get(&id) {
            return Ok(times.clone());
        }
        let Block { file, path, .. } = &*self.block;
        let raw = read_checked(file, path, t.offset, t.len, t.crc, "times")?;
        let times: Arc<[i64]> =
            decode_times(&raw, t.count as usize).ok_or_else(|| self.damaged("times"))?.into();
        self.kept += times.len();
        if self.kept > KEPT_TIMES {
            self.times.clear();
            self.kept = times.len();
        }
        self.times.insert(id, times.clone());
        Ok(times)
    }

    /// Bytes of the file, from the window if it has them.
    fn bytes(&mut self, offset: u64, len: u32) -> Result<&[u8], Error> {
        let len = len as usize;
        let end = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + len as u64 > end {
            // Near what was read last: the next series is probably near as well.
            let near = offset >= self.window_at && offset <= end + (self.stride as u64).max(4096);
            self.stride = if near { (self.stride * 2).clamp(4096, AHEAD) } else { 0 };
            let rest = usize::try_from(self.block.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.window.resize(self.stride.max(len).min(rest), 0);
            self.window_at = offset;
            self.block.file.read_exact_at(&mut self.window, offset).map_err(Error::io(&self.block.path))?;
        }
        let at = (offset - self.window_at) as usize;
        self.window.get(at..at + len).ok_or_else(|| Error::Damaged {
            path: self.block.path.clone(),
            what: "chunk beyond the file".to_owned(),
        })
    }
}
