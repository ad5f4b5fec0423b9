//! Writing a block: series come in order of labels, and the file appears whole or not at all.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use signal::{HistogramSample, Labels};

use super::index::{ChunkFacts, ChunkRef, Index, TimesRef};
use super::times::encode_times;
use super::values::{SAMPLES, encode_values};
use super::{ExtraRefs, FOOTER_MAGIC, HistogramsRef, MAGIC, Meta, StartsRef, VERSION, path};
use crate::codec::{HistogramState, StreamState};
use crate::error::Error;
use crate::merge::Columns;

/// Histograms in a chunk at most.
const HISTOGRAMS: usize = 480;

/// All that a block keeps of one series; each list in order of time.
#[derive(Default)]
pub(crate) struct SeriesData {
    pub(crate) columns: Columns,
    pub(crate) histograms: Vec<HistogramSample>,
    /// What start holds from which time on.
    pub(crate) starts: Vec<(i64, i64)>,
}

type TimesKey = (u64, u64, usize, i64, i64);

fn times_key(times: &[i64]) -> TimesKey {
    let hash = |seed| ahash::RandomState::with_seeds(seed, 2, 3, 4).hash_one(times);
    let (first, last) = (times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0));
    (hash(1), hash(5), times.len(), first, last)
}

pub(crate) struct Writer {
    dir: PathBuf,
    temporary: PathBuf,
    out: BufWriter<File>,
    at: u64,
    meta: Meta,
    index: Index,
    /// Timestamp columns already written. Bounded by the number of distinct scrape rhythms in a block.
    /// Known by 128 bits of hash beside count and range, so that long columns need not stay in memory.
    times_by_content: HashMap<TimesKey, u32, ahash::RandomState>,
    /// A chunk being encoded.
    scratch: Vec<u8>,
}

impl Writer {
    pub(crate) fn create(dir: &Path, meta: Meta) -> Result<Writer, Error> {
        let meta = Meta { version: VERSION, ..meta };
        let temporary = dir.join(format!("{:016x}.tmp", meta.seq));
        let mut out =
            BufWriter::with_capacity(1 << 18, File::create(&temporary).map_err(Error::io(&temporary))?);
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&meta.version.to_le_bytes());
        out.write_all(&header).map_err(Error::io(&temporary))?;
        Ok(Writer {
            dir: dir.to_owned(),
            temporary,
            out,
            at: header.len() as u64,
            meta,
            index: Index::default(),
            times_by_content: HashMap::default(),
            scratch: Vec::new(),
        })
    }

    /// Adds the next series; an empty one is left out.
    pub(crate) fn add(&mut self, labels: &Labels, data: &SeriesData) -> Result<(), Error> {
        let SeriesData { columns: Columns { times, values, .. }, histograms, starts } = data;
        let ends = [
            times.first().copied(),
            times.last().copied(),
            histograms.first().map(|s| s.timestamp),
            histograms.last().map(|s| s.timestamp),
        ];
        let ends = || ends.into_iter().flatten();
        let (Some(min), Some(max)) = (ends().min(), ends().max()) else { return Ok(()) };
        if self.meta.samples == 0 {
            (self.meta.min, self.meta.max) = (min, max);
        }
        self.meta.min = self.meta.min.min(min);
        self.meta.max = self.meta.max.max(max);
        self.meta.samples += (times.len() + histograms.len()) as u64;
        self.meta.series += 1;
        let extra = self.extra(histograms, starts)?;
        let mut chunks = Vec::new();
        for (times, values) in times.chunks(SAMPLES).zip(values.chunks(SAMPLES)) {
            let times = self.times(times)?;
            let mut data = std::mem::take(&mut self.scratch);
            data.clear();
            encode_values(&mut data, values);
            let (offset, len, crc) = self.put(&data)?;
            self.scratch = data;
            chunks.push(ChunkRef { times, offset, len, crc, facts: ChunkFacts::of(values) });
        }
        self.index.push(labels, chunks, extra);
        Ok(())
    }

    fn extra(
        &mut self,
        histograms: &[HistogramSample],
        starts: &[(i64, i64)],
    ) -> Result<Option<ExtraRefs>, Error> {
        if histograms.is_empty() && starts.is_empty() {
            return Ok(None);
        }
        let mut refs = ExtraRefs::default();
        for part in histograms.chunks(HISTOGRAMS) {
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            let (mut state, mut stream) = (HistogramState::default(), Vec::new());
            part.iter().for_each(|s| state.push(&mut stream, s));
            let packed = zstd::bulk::compress(&stream, 3).expect("compressing in memory cannot fail");
            let (offset, len, crc) = self.put(&packed)?;
            let (min, max) = (first.timestamp, last.timestamp);
            let raw = stream.len() as u32;
            refs.histograms.push(HistogramsRef { offset, len, raw, crc, count: state.count, min, max });
        }
        if !starts.is_empty() {
            let (mut state, mut stream) = (StreamState::default(), Vec::new());
            for (t, start) in starts {
                state.push(&mut stream, *t, f64::from_bits(*start as u64));
            }
            let (offset, len, crc) = self.put(&stream)?;
            refs.starts = Some(StartsRef { offset, len, crc, count: state.count });
        }
        Ok(Some(refs))
    }

    /// The column with exactly these times, written once.
    fn times(&mut self, times: &[i64]) -> Result<u32, Error> {
        let key = times_key(times);
        if let Some(n) = self.times_by_content.get(&key) {
            return Ok(*n);
        }
        let (offset, len, crc) = self.put(&encode_times(times))?;
        let n = self.index.times.len() as u32;
        let (min, max) = (times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0));
        self.index.times.push(TimesRef { offset, len, crc, count: times.len() as u32, min, max });
        self.times_by_content.insert(key, n);
        Ok(n)
    }

    fn put(&mut self, data: &[u8]) -> Result<(u64, u32, u32), Error> {
        let offset = self.at;
        self.out.write_all(data).map_err(Error::io(&self.temporary))?;
        self.at += data.len() as u64;
        Ok((offset, data.len() as u32, crc32fast::hash(data)))
    }

    /// Syncs the file and gives it its name. `None` if nothing was added.
    pub(crate) fn finish(mut self) -> Result<Option<PathBuf>, Error> {
        if self.meta.samples == 0 {
            drop(self.out);
            fs::remove_file(&self.temporary).map_err(Error::io(&self.temporary))?;
            return Ok(None);
        }
        let index = self.index.encode();
        let packed = zstd::bulk::compress(&index, 6).expect("compressing in memory cannot fail");
        let meta = serde_json::to_vec(&self.meta).expect("plain data");
        let (index_at, index_len, index_crc) = self.put(&packed)?;
        let (meta_at, meta_len, meta_crc) = self.put(&meta)?;
        let mut footer = Vec::new();
        footer.extend_from_slice(&index_at.to_le_bytes());
        footer.extend_from_slice(&index_len.to_le_bytes());
        footer.extend_from_slice(&(index.len() as u32).to_le_bytes());
        footer.extend_from_slice(&index_crc.to_le_bytes());
        footer.extend_from_slice(&meta_at.to_le_bytes());
        footer.extend_from_slice(&meta_len.to_le_bytes());
        footer.extend_from_slice(&meta_crc.to_le_bytes());
        let crc = crc32fast::hash(&footer);
        footer.extend_from_slice(&crc.to_le_bytes());
        footer.extend_from_slice(FOOTER_MAGIC);
        self.put(&footer)?;
        let file = self.out.into_inner().map_err(|e| Error::io(&self.temporary)(e.into_error()))?;
        file.sync_all().map_err(Error::io(&self.temporary))?;
        let path = path(&self.dir, self.meta.seq);
        fs::rename(&self.temporary, &path).map_err(Error::io(&path))?;
        File::open(&self.dir).and_then(|d| d.sync_all()).map_err(Error::io(&self.dir))?;
        Ok(Some(path))
    }
}
