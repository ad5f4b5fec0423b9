//! A block: an immutable file with the samples of some hours. Format: FORMAT.md.
//!
//! Only the footer's facts stay in memory; the index is read when a query needs it and kept while it is used.

mod chunk;
mod writer;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use signal::{HistogramSample, Labels, Sample};

pub(crate) use writer::{SeriesData, Writer};

use crate::codec::{
    decode_histograms, decode_stream, get_uvarint, get_varint, put_uvarint, put_varint, take,
};
use crate::error::Error;
use crate::index::Postings;

const MAGIC: &[u8; 8] = b"BNTSDBLK";
const FOOTER_MAGIC: &[u8; 8] = b"BNTSDBND";
/// 1: floats only. 2: histograms and start times beside them.
const VERSION: u32 = 2;
const FOOTER: usize = 8 + 4 + 4 + 4 + 8 + 4 + 4 + 4 + 8;

pub(crate) fn path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:016x}.blk"))
}

/// Facts about a block, in its footer as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Of the format. Blocks of version 1 did not say it.
    #[serde(default = "one")]
    pub(crate) version: u32,
    /// Names the file. Never used twice.
    pub(crate) seq: u64,
    /// Of two blocks with a sample of the same series and time, the one of higher order has the right one.
    pub(crate) order: u64,
    /// 0 for a flushed head, one more for each round of merging.
    pub(crate) level: u32,
    pub(crate) min: i64,
    pub(crate) max: i64,
    pub(crate) series: u64,
    pub(crate) samples: u64,
    /// Blocks this one was made of: they are void once it exists.
    pub(crate) sources: Vec<u64>,
}

fn one() -> u32 {
    1
}

/// A timestamp column, shared by every chunk that was sampled at these times.
#[derive(Clone, Debug)]
pub(crate) struct TimesRef {
    offset: u64,
    len: u32,
    crc: u32,
    count: u32,
    min: i64,
    max: i64,
}

/// The values of a chunk, and its statistics (NaNs left out of `low` and `high`).
#[derive(Clone, Debug)]
pub(crate) struct ChunkRef {
    times: u32,
    offset: u64,
    len: u32,
    crc: u32,
    low: f64,
    high: f64,
    sum: f64,
}

/// Native histograms of one series: a zstd frame around their stream.
#[derive(Clone, Debug)]
pub(crate) struct HistogramsRef {
    offset: u64,
    len: u32,
    raw: u32,
    crc: u32,
    count: u32,
    min: i64,
    max: i64,
}

/// Start times of one series: a sample stream whose values are the starts' bits.
#[derive(Clone, Debug)]
pub(crate) struct StartsRef {
    offset: u64,
    len: u32,
    crc: u32,
    count: u32,
}

/// What few series have beside floats.
#[derive(Debug, Default)]
pub(crate) struct ExtraRefs {
    histograms: Vec<HistogramsRef>,
    starts: Option<StartsRef>,
}

pub(crate) struct SeriesEntry {
    pub(crate) labels: Labels,
    chunks: Vec<ChunkRef>,
    extra: Option<Box<ExtraRefs>>,
}

impl ExtraRefs {
    fn encode(&self, b: &mut Vec<u8>) {
        for h in &self.histograms {
            put_uvarint(b, h.offset);
            put_uvarint(b, u64::from(h.len));
            put_uvarint(b, u64::from(h.raw));
            b.extend_from_slice(&h.crc.to_le_bytes());
            put_uvarint(b, u64::from(h.count));
            put_varint(b, h.min);
            put_varint(b, h.max);
        }
        if let Some(s) = &self.starts {
            put_uvarint(b, s.offset);
            put_uvarint(b, u64::from(s.len));
            b.extend_from_slice(&s.crc.to_le_bytes());
            put_uvarint(b, u64::from(s.count));
        }
    }

    /// `head` is the number of histogram chunks, doubled, plus one if there are start times.
    fn decode(head: u64, d: &mut &[u8]) -> Option<Self> {
        let u32_ = |d: &mut &[u8]| u32::try_from(get_uvarint(d)?).ok();
        let crc = |d: &mut &[u8]| Some(u32::from_le_bytes(take(d, 4)?.try_into().ok()?));
        let mut out = ExtraRefs::default();
        for _ in 0..head / 2 {
            out.histograms.push(HistogramsRef {
                offset: get_uvarint(d)?,
                len: u32_(d)?,
                raw: u32_(d)?,
                crc: crc(d)?,
                count: u32_(d)?,
                min: get_varint(d)?,
                max: get_varint(d)?,
            });
        }
        if head % 2 == 1 {
            out.starts =
                Some(StartsRef { offset: get_uvarint(d)?, len: u32_(d)?, crc: crc(d)?, count: u32_(d)? });
        }
        Some(out)
    }
}

impl TimesRef {
    fn encode(&self, b: &mut Vec<u8>) {
        put_uvarint(b, self.offset);
        put_uvarint(b, u64::from(self.len));
        b.extend_from_slice(&self.crc.to_le_bytes());
        put_uvarint(b, u64::from(self.count));
        put_varint(b, self.min);
        put_varint(b, self.max);
    }

    fn decode(d: &mut &[u8]) -> Option<Self> {
        Some(TimesRef {
            offset: get_uvarint(d)?,
            len: u32::try_from(get_uvarint(d)?).ok()?,
            crc: u32::from_le_bytes(take(d, 4)?.try_into().ok()?),
            count: u32::try_from(get_uvarint(d)?).ok()?,
            min: get_varint(d)?,
            max: get_varint(d)?,
        })
    }
}

impl ChunkRef {
    fn encode(&self, b: &mut Vec<u8>) {
        put_uvarint(b, u64::from(self.times));
        put_uvarint(b, self.offset);
        put_uvarint(b, u64::from(self.len));
        b.extend_from_slice(&self.crc.to_le_bytes());
        for v in [self.low, self.high, self.sum] {
            b.extend_from_slice(&v.to_bits().to_le_bytes());
        }
    }

    fn decode(d: &mut &[u8]) -> Option<Self> {
        let float = |d: &mut &[u8]| Some(f64::from_bits(u64::from_le_bytes(take(d, 8)?.try_into().ok()?)));
        Some(ChunkRef {
            times: u32::try_from(get_uvarint(d)?).ok()?,
            offset: get_uvarint(d)?,
            len: u32::try_from(get_uvarint(d)?).ok()?,
            crc: u32::from_le_bytes(take(d, 4)?.try_into().ok()?),
            low: float(d)?,
            high: float(d)?,
            sum: float(d)?,
        })
    }
}

pub(crate) struct Block {
    pub(crate) meta: Meta,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    file: File,
    index_at: (u64, u32, u32, u32),
    /// Kept between queries; dropped by [`Block::forget`].
    index: Mutex<Option<Arc<Index>>>,
}

/// A block's index in memory.
pub(crate) struct Index {
    times: Vec<TimesRef>,
    pub(crate) series: Vec<SeriesEntry>,
    pub(crate) postings: Postings,
}

impl Block {
    pub(crate) fn open(path: PathBuf) -> Result<Block, Error> {
        let file = File::open(&path).map_err(Error::io(&path))?;
        let bytes = file.metadata().map_err(Error::io(&path))?.len();
        let damaged = |what: &str| Error::Damaged { path: path.clone(), what: what.to_owned() };
        let at = bytes.checked_sub(FOOTER as u64).ok_or_else(|| damaged("too short"))?;
        let mut footer = [0; FOOTER];
        file.read_exact_at(&mut footer, at).map_err(Error::io(&path))?;
        let facts = parse_footer(&footer).ok_or_else(|| damaged("footer"))?;
        let (index_at, meta_at) = facts;
        let raw = read_checked(&file, &path, meta_at.0, meta_at.1, meta_at.2, "facts")?;
        let meta: Meta = serde_json::from_slice(&raw).map_err(|e| damaged(&e.to_string()))?;
        if meta.version > VERSION {
            return Err(damaged(&format!("version {} is newer than this program", meta.version)));
        }
        Ok(Block { meta, path, bytes, file, index_at, index: Mutex::new(None) })
    }

    pub(crate) fn index(&self) -> Result<Arc<Index>, Error> {
        let mut cached = self.index.lock();
        if let Some(i) = &*cached {
            return Ok(i.clone());
        }
        let (at, len, raw_len, crc) = self.index_at;
        let packed = read_checked(&self.file, &self.path, at, len, crc, "index")?;
        let damaged = || Error::Damaged { path: self.path.clone(), what: "index".to_owned() };
        let raw = zstd::bulk::decompress(&packed, raw_len as usize).map_err(|_| damaged())?;
        let index = Arc::new(Index::decode(&raw, self.meta.version).ok_or_else(damaged)?);
        *cached = Some(index.clone());
        Ok(index)
    }

    /// Lets go of the index, so that an idle database holds none.
    pub(crate) fn forget(&self) {
        *self.index.lock() = None;
    }

    /// Reads one series' samples in the range.
    pub(crate) fn read(
        &self,
        index: &Index,
        series: u32,
        start: i64,
        end: i64,
        mut each: impl FnMut(Sample),
    ) -> Result<(), Error> {
        let Some(entry) = index.series.get(series as usize) else { return Ok(()) };
        let damaged = || Error::Damaged { path: self.path.clone(), what: "chunk".to_owned() };
        for c in &entry.chunks {
            let t = index.times.get(c.times as usize).ok_or_else(damaged)?;
            if t.max < start || t.min > end {
                continue;
            }
            let raw = read_checked(&self.file, &self.path, t.offset, t.len, t.crc, "times")?;
            let times = chunk::decode_times(&raw, t.count as usize).ok_or_else(damaged)?;
            let raw = read_checked(&self.file, &self.path, c.offset, c.len, c.crc, "values")?;
            let values = chunk::decode_values(&raw, t.count as usize).ok_or_else(damaged)?;
            for (timestamp, value) in times.into_iter().zip(values) {
                if (start..=end).contains(&timestamp) {
                    each(Sample { timestamp, value });
                }
            }
        }
        Ok(())
    }

    /// Reads one series' histograms in the range, and all its start times.
    pub(crate) fn read_extra(
        &self,
        index: &Index,
        series: u32,
        start: i64,
        end: i64,
        mut each: impl FnMut(HistogramSample),
    ) -> Result<Vec<(i64, i64)>, Error> {
        let Some(extra) = index.series.get(series as usize).and_then(|e| e.extra.as_ref()) else {
            return Ok(Vec::new());
        };
        let damaged = || Error::Damaged { path: self.path.clone(), what: "histograms".to_owned() };
        for h in extra.histograms.iter().filter(|h| h.max >= start && h.min <= end) {
            let packed = read_checked(&self.file, &self.path, h.offset, h.len, h.crc, "histograms")?;
            let raw = zstd::bulk::decompress(&packed, h.raw as usize).map_err(|_| damaged())?;
            decode_histograms(&raw, h.count, |s| {
                if (start..=end).contains(&s.timestamp) {
                    each(s);
                }
            })
            .ok_or_else(damaged)?;
        }
        let mut starts = Vec::new();
        if let Some(s) = &extra.starts {
            let raw = read_checked(&self.file, &self.path, s.offset, s.len, s.crc, "start times")?;
            decode_stream(&raw, s.count, |t, bits| starts.push((t, bits.to_bits() as i64)))
                .ok_or_else(damaged)?;
        }
        Ok(starts)
    }
}

impl Index {
    fn decode(mut d: &[u8], version: u32) -> Option<Index> {
        let d = &mut d;
        let mut times = Vec::new();
        for _ in 0..get_uvarint(d)? {
            times.push(TimesRef::decode(d)?);
        }
        let mut series = Vec::new();
        let mut previous = Vec::new();
        for _ in 0..get_uvarint(d)? {
            let shared = usize::try_from(get_uvarint(d)?).ok()?;
            let rest = usize::try_from(get_uvarint(d)?).ok()?;
            previous.truncate(shared);
            previous.extend_from_slice(take(d, rest)?);
            let labels = Labels::from_encoded(&previous)?;
            let mut chunks = Vec::new();
            for _ in 0..get_uvarint(d)? {
                chunks.push(ChunkRef::decode(d)?);
            }
            chunks.shrink_to_fit();
            let head = if version >= 2 { get_uvarint(d)? } else { 0 };
            let extra = if head > 0 { Some(Box::new(ExtraRefs::decode(head, d)?)) } else { None };
            series.push(SeriesEntry { labels, chunks, extra });
        }
        Some(Index { times, series, postings: Postings::decode(d)? })
    }

    /// True if the series may have samples in the range.
    pub(crate) fn overlaps(&self, series: u32, start: i64, end: i64) -> bool {
        self.series.get(series as usize).is_some_and(|s| {
            let histograms = s.extra.iter().flat_map(|e| &e.histograms);
            s.chunks
                .iter()
                .any(|c| self.times.get(c.times as usize).is_some_and(|t| t.max >= start && t.min <= end))
                || histograms.into_iter().any(|h| h.max >= start && h.min <= end)
        })
    }
}

type Section = (u64, u32, u32);

fn parse_footer(mut f: &[u8]) -> Option<((u64, u32, u32, u32), Section)> {
    let whole = f;
    let mut u64_ = || Some(u64::from_le_bytes(take(&mut f, 8)?.try_into().ok()?));
    let index_at = u64_()?;
    let u32_ = |f: &mut &[u8]| Some(u32::from_le_bytes(take(f, 4)?.try_into().ok()?));
    let (index_len, raw_len, index_crc) = (u32_(&mut f)?, u32_(&mut f)?, u32_(&mut f)?);
    let meta_at = u64::from_le_bytes(take(&mut f, 8)?.try_into().ok()?);
    let (meta_len, meta_crc, crc) = (u32_(&mut f)?, u32_(&mut f)?, u32_(&mut f)?);
    let sound = f == FOOTER_MAGIC && crc32fast::hash(whole.get(..FOOTER - 12)?) == crc;
    sound.then_some(((index_at, index_len, raw_len, index_crc), (meta_at, meta_len, meta_crc)))
}

fn read_checked(file: &File, path: &Path, at: u64, len: u32, crc: u32, what: &str) -> Result<Vec<u8>, Error> {
    let mut data = vec![0; len as usize];
    file.read_exact_at(&mut data, at).map_err(Error::io(path))?;
    if crc32fast::hash(&data) != crc {
        return Err(Error::Damaged { path: path.to_owned(), what: format!("checksum of {what}") });
    }
    Ok(data)
}
