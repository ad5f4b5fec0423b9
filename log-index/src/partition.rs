//! A partition: an immutable file with the records of some time. Format: FORMAT.md.

mod writer;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use signal::{Attributes, Labels};

pub(crate) use writer::Writer;

use crate::codec::{get_attributes, get_bytes, get_uvarint, get_varint, put_uvarint, put_varint, take};
use crate::error::Error;
use crate::frame::Row;
use crate::sidecar::Sidecar;
use crate::tokens::{self, Place};

const MAGIC: &[u8; 8] = b"BNLOGPRT";
const FOOTER_MAGIC: &[u8; 8] = b"BNLOGEND";
const VERSION: u32 = 1;
const SECTION: usize = 20;
const FOOTER: usize = 3 * SECTION + 4 + 8;

pub(crate) fn path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:016x}.part"))
}

/// Where a partition is written before it has its name.
pub(crate) fn temporary(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:016x}.tmp"))
}

/// Facts about a partition, in its footer as JSON. Times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) seq: u64,
    pub(crate) min: i64,
    pub(crate) max: i64,
    pub(crate) records: u64,
    /// Before compression.
    pub(crate) raw_bytes: u64,
    /// Frames in log segments below this one are in this partition or in earlier ones.
    pub(crate) log_before: u64,
    /// Partitions whose records are all in this one: where their files are still there, they are void.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) merged: Vec<u64>,
}

/// What a search must know of a block's tokens beside the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) hex_ids: bool,
    pub(crate) other_ids: bool,
    pub(crate) long_words: bool,
    pub(crate) longest_id: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct BlockRef {
    pub(crate) stream: u32,
    pub(crate) min: i64,
    pub(crate) max: i64,
    pub(crate) count: u32,
    raw_len: u32,
    offset: u64,
    len: u32,
    crc: u32,
    bloom_offset: u64,
    bloom_len: u32,
    bloom_crc: u32,
    facts: Facts,
}

impl BlockRef {
    pub(crate) fn raw_bytes(&self) -> u64 {
        u64::from(self.raw_len)
    }

    fn encode(&self, b: &mut Vec<u8>) {
        for v in [
            u64::from(self.stream),
            u64::from(self.count),
            u64::from(self.raw_len),
            self.offset,
            u64::from(self.len),
        ] {
            put_uvarint(b, v);
        }
        put_varint(b, self.min);
        put_uvarint(b, self.max.wrapping_sub(self.min) as u64);
        b.extend_from_slice(&self.crc.to_le_bytes());
        put_uvarint(b, self.bloom_offset);
        put_uvarint(b, u64::from(self.bloom_len));
        b.extend_from_slice(&self.bloom_crc.to_le_bytes());
        let f = self.facts;
        b.push(u8::from(f.hex_ids) | u8::from(f.other_ids) << 1 | u8::from(f.long_words) << 2);
        put_uvarint(b, u64::from(f.longest_id));
    }

    fn decode(d: &mut &[u8]) -> Option<Self> {
        let small = |d: &mut &[u8]| u32::try_from(get_uvarint(d)?).ok();
        let fixed = |d: &mut &[u8]| Some(u32::from_le_bytes(take(d, 4)?.try_into().ok()?));
        let (stream, count, raw_len) = (small(d)?, small(d)?, small(d)?);
        let (offset, len, min) = (get_uvarint(d)?, small(d)?, get_varint(d)?);
        let max = min.wrapping_add(get_uvarint(d)? as i64);
        let crc = fixed(d)?;
        let (bloom_offset, bloom_len, bloom_crc) = (get_uvarint(d)?, small(d)?, fixed(d)?);
        let flags = *take(d, 1)?.first()?;
        let facts = Facts {
            hex_ids: flags & 1 != 0,
            other_ids: flags & 2 != 0,
            long_words: flags & 4 != 0,
            longest_id: small(d)?,
        };
        Some(BlockRef {
            stream,
            min,
            max,
            count,
            raw_len,
            offset,
            len,
            crc,
            bloom_offset,
            bloom_len,
            bloom_crc,
            facts,
        })
    }
}

pub(crate) struct Partition {
    pub(crate) meta: Meta,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    file: File,
    index_at: Section,
    sidecar_at: Section,
    /// Kept while queries come; see [`Partition::forget`].
    index: Mutex<Option<Arc<Index>>>,
    sidecar: Mutex<Option<Arc<Option<Sidecar>>>>,
    /// Set while it is merged into another, and for good if that failed.
    merging: AtomicBool,
}

pub(crate) struct Index {
    pub(crate) streams: Vec<(Labels, Attributes)>,
    pub(crate) blocks: Vec<BlockRef>,
}

#[derive(Clone, Copy)]
struct Section {
    offset: u64,
    len: u32,
    raw_len: u32,
    crc: u32,
}

impl Section {
    fn parse(d: &mut &[u8]) -> Option<Section> {
        let offset = u64::from_le_bytes(take(d, 8)?.try_into().ok()?);
        let fixed = |d: &mut &[u8]| Some(u32::from_le_bytes(take(d, 4)?.try_into().ok()?));
        Some(Section { offset, len: fixed(d)?, raw_len: fixed(d)?, crc: fixed(d)? })
    }
}

impl Partition {
    pub(crate) fn open(path: PathBuf) -> Result<Partition, Error> {
        let file = File::open(&path).map_err(Error::io(&path))?;
        let bytes = file.metadata().map_err(Error::io(&path))?.len();
        let damaged = |what: &str| Error::Damaged { path: path.clone(), what: what.to_owned() };
        let at = bytes.checked_sub(FOOTER as u64).ok_or_else(|| damaged("too short"))?;
        let mut footer = [0; FOOTER];
        file.read_exact_at(&mut footer, at).map_err(Error::io(&path))?;
        let mut d = footer.as_slice();
        let sections = (|| {
            let s = (Section::parse(&mut d)?, Section::parse(&mut d)?, Section::parse(&mut d)?);
            let crc = u32::from_le_bytes(take(&mut d, 4)?.try_into().ok()?);
            (d == FOOTER_MAGIC && crc == crc32fast::hash(footer.get(..3 * SECTION)?)).then_some(s)
        })();
        let (index_at, sidecar_at, meta_at) = sections.ok_or_else(|| damaged("footer"))?;
        let mut p = Partition {
            meta: Meta::default(),
            path: path.clone(),
            bytes,
            file,
            index_at,
            sidecar_at,
            index: Mutex::new(None),
            sidecar: Mutex::new(None),
            merging: AtomicBool::new(false),
        };
        let raw = p.read(meta_at.offset, meta_at.len, meta_at.crc, "facts")?;
        p.meta = serde_json::from_slice(&raw).map_err(|e| damaged(&e.to_string()))?;
        Ok(p)
    }

    fn read(&self, offset: u64, len: u32, crc: u32, what: &str) -> Result<Vec<u8>, Error> {
        let mut data = vec![0; len as usize];
        self.file.read_exact_at(&mut data, offset).map_err(Error::io(&self.path))?;
        if crc32fast::hash(&data) != crc {
            return Err(self.damaged(&format!("checksum of {what}")));
        }
        Ok(data)
    }

    fn damaged(&self, what: &str) -> Error {
        Error::Damaged { path: self.path.clone(), what: what.to_owned() }
    }

    fn section(&self, s: Section, what: &str) -> Result<Vec<u8>, Error> {
        let packed = self.read(s.offset, s.len, s.crc, what)?;
        zstd::bulk::decompress(&packed, s.raw_len as usize).map_err(|_| self.damaged(what))
    }

    pub(crate) fn index(&self) -> Result<Arc<Index>, Error> {
        let mut cached = self.index.lock();
        if let Some(i) = &*cached {
            return Ok(i.clone());
        }
        let raw = self.section(self.index_at, "index")?;
        let index = Arc::new(Index::decode(&raw).ok_or_else(|| self.damaged("index"))?);
        *cached = Some(index.clone());
        Ok(index)
    }

    fn sidecar(&self) -> Result<Arc<Option<Sidecar>>, Error> {
        let mut cached = self.sidecar.lock();
        if let Some(s) = &*cached {
            return Ok(s.clone());
        }
        let raw = self.section(self.sidecar_at, "token index")?;
        let s = Arc::new(Sidecar::open(&raw)?);
        *cached = Some(s.clone());
        Ok(s)
    }

    pub(crate) fn is_merging(&self) -> bool {
        self.merging.load(Ordering::Relaxed)
    }

    pub(crate) fn set_merging(&self, yes: bool) {
        self.merging.store(yes, Ordering::Relaxed);
    }

    /// Lets go of what queries loaded.
    pub(crate) fn forget(&self) {
        *self.index.lock() = None;
        *self.sidecar.lock() = None;
    }

    /// The records of a block, in order of time.
    pub(crate) fn rows(&self, b: &BlockRef) -> Result<Vec<Row>, Error> {
        let packed = self.read(b.offset, b.len, b.crc, "block")?;
        let raw = zstd::bulk::decompress(&packed, b.raw_len as usize).map_err(|_| self.damaged("block"))?;
        let parse = || {
            let mut d = raw.as_slice();
            let (mut times, mut time) = (Vec::with_capacity(b.count as usize), 0i64);
            for _ in 0..b.count {
                time = time.wrapping_add(get_varint(&mut d)?);
                times.push(time);
            }
            let mut lens = Vec::with_capacity(b.count as usize);
            for _ in 0..b.count {
                lens.push(usize::try_from(get_uvarint(&mut d)?).ok()?);
            }
            let row = |(time, len)| Some(Row { time, data: take(&mut d, len)?.into() });
            times.into_iter().zip(lens).map(row).collect::<Option<Vec<Row>>>()
        };
        parse().ok_or_else(|| self.damaged("block"))
    }

    /// For each block whether it may hold all these substrings and this id. `None`: all may.
    pub(crate) fn candidates(
        &self,
        index: &Index,
        needles: &[String],
        id: Option<u64>,
    ) -> Result<Option<Vec<bool>>, Error> {
        let mut may = vec![true; index.blocks.len()];
        let mut asked = false;
        if let Some(hash) = id {
            asked = true;
            for (may, b) in may.iter_mut().zip(&index.blocks) {
                *may &= self.bloom_has(b, hash)?;
            }
        }
        for (place, word) in needles.iter().flat_map(|n| tokens::needs(n)) {
            if tokens::is_id(word.as_bytes()) {
                asked = true;
                let hash = tokens::hash(word.as_bytes());
                for (may, b) in may.iter_mut().zip(&index.blocks).filter(|(m, _)| **m) {
                    let longest = b.facts.longest_id as usize;
                    // A longer id may have this one as a part, and its hash tells nothing of its parts.
                    *may = match place {
                        Place::Whole => self.bloom_has(b, hash)?,
                        _ => longest > word.len() || longest == word.len() && self.bloom_has(b, hash)?,
                    };
                }
                continue;
            }
            if word.len() > tokens::LONGEST {
                continue;
            }
            let sidecar = self.sidecar()?;
            let Some(sidecar) = &*sidecar else { continue };
            let Some(blocks) = sidecar.blocks(place, &word)? else { continue };
            asked = true;
            let mut has = vec![false; index.blocks.len()];
            for b in blocks {
                if let Some(h) = has.get_mut(b as usize) {
                    *h = true;
                }
            }
            let hex = tokens::is_hex(word.as_bytes());
            for ((may, has), b) in may.iter_mut().zip(has).zip(&index.blocks) {
                let within_other = place != Place::Whole
                    && (b.facts.long_words || b.facts.other_ids || hex && b.facts.hex_ids);
                *may &= has || within_other;
            }
        }
        Ok(asked.then_some(may))
    }

    fn bloom_has(&self, b: &BlockRef, hash: u64) -> Result<bool, Error> {
        if b.bloom_len == 0 {
            return Ok(false);
        }
        let bits = self.read(b.bloom_offset, b.bloom_len, b.bloom_crc, "bloom filter")?;
        Ok(tokens::bloom_may_have(&bits, hash))
    }
}

impl Index {
    fn decode(mut d: &[u8]) -> Option<Index> {
        let d = &mut d;
        let mut streams = Vec::new();
        for _ in 0..get_uvarint(d)? {
            let labels = Labels::from_encoded(get_bytes(d)?)?;
            streams.push((labels, get_attributes(d)?));
        }
        let mut blocks = Vec::new();
        for _ in 0..get_uvarint(d)? {
            blocks.push(BlockRef::decode(d)?);
        }
        Some(Index { streams, blocks })
    }
}
