//! A block: an immutable file with the samples of some hours. Format: FORMAT.md.
//!
//! Only the footer's facts stay in memory; the index is read when a query needs it and kept while it is used.

mod index;
mod reader;
mod times;
mod values;
mod writer;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use index::{Index, LabelCursor};
use parking_lot::Mutex;
pub(crate) use reader::Reader;
use serde::{Deserialize, Serialize};
pub(crate) use writer::{SeriesData, Writer};

use crate::codec::{get_uvarint, get_varint, put_uvarint, put_varint, take};
use crate::error::Error;

const MAGIC: &[u8; 8] = b"BNTSDBLK";
const FOOTER_MAGIC: &[u8; 8] = b"BNTSDBND";
/// 1: floats only. 2: histograms and start times beside them. 3: an index in columns, more codings of values.
const VERSION: u32 = 3;
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

pub(crate) struct Block {
    pub(crate) meta: Meta,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    file: File,
    index_at: (u64, u32, u32, u32),
    /// Kept between queries; dropped by [`Block::forget_unused`].
    index: Mutex<Option<Arc<Index>>>,
    used: AtomicBool,
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
        Ok(Block { meta, path, bytes, file, index_at, index: Mutex::new(None), used: AtomicBool::new(false) })
    }

    pub(crate) fn index(&self) -> Result<Arc<Index>, Error> {
        self.used.store(true, Ordering::Relaxed);
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

    /// Lets go of the index if nobody asked for it since the last call, so that an idle database holds none.
    /// Gives back how many bytes it keeps.
    pub(crate) fn forget_unused(&self) -> usize {
        let mut index = self.index.lock();
        if !self.used.swap(false, Ordering::Relaxed) {
            *index = None;
        }
        index.as_ref().map_or(0, |i| i.size())
    }

    /// Lets go of the index.
    pub(crate) fn forget(&self) {
        *self.index.lock() = None;
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
    let sound = f == FOOTER_MAGIC && is_sound(whole.get(..FOOTER - 12)?, crc);
    sound.then_some(((index_at, index_len, raw_len, index_crc), (meta_at, meta_len, meta_crc)))
}

/// Checksums are not looked at by what seeks crashes: nothing it makes up would have the right one.
fn is_sound(data: &[u8], crc: u32) -> bool {
    cfg!(fuzzing) || crc32fast::hash(data) == crc
}

fn read_checked(file: &File, path: &Path, at: u64, len: u32, crc: u32, what: &str) -> Result<Vec<u8>, Error> {
    let mut data = vec![0; len as usize];
    file.read_exact_at(&mut data, at).map_err(Error::io(path))?;
    if !is_sound(&data, crc) {
        return Err(Error::Damaged { path: path.to_owned(), what: format!("checksum of {what}") });
    }
    Ok(data)
}

#[cfg(test)]
mod tests;
