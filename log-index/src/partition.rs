//! A partition: an immutable file with the records of some time. Format: FORMAT.md.

mod index;
mod v1;
mod writer;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub(crate) use index::{BlockRef, Index};
pub(crate) use writer::{BLOCK_BYTES, Writer};

use crate::block::Block;
use crate::codec::take;
use crate::column::decompress;
use crate::config::Kind;
use crate::error::Error;
use crate::tokens::{self, Need, Place, Word};

const MAGIC: &[u8; 8] = b"BNLOGPRT";
const FOOTER_MAGIC: &[u8; 8] = b"BNLOGEND";
pub(crate) const VERSION: u32 = 2;
const HEADER: usize = 12;
const SECTION: usize = 20;

/// Sections of a version: index, words, traces (from the second on), facts.
fn sections(version: u32) -> usize {
    if version == 1 { 3 } else { 4 }
}

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
    /// Bytes of blocks, and of what finds them: dictionary, filters, traces.
    #[serde(default)]
    pub(crate) data_bytes: u64,
    #[serde(default)]
    pub(crate) index_bytes: u64,
}

impl Meta {
    /// Orders partitions by when their first records came in.
    pub(crate) fn came(&self) -> u64 {
        self.merged.iter().copied().fold(self.seq, u64::min)
    }
}

pub(crate) struct Partition {
    pub(crate) meta: Meta,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) version: u32,
    kind: Kind,
    file: File,
    index_at: Section,
    words_at: Section,
    traces_at: Option<Section>,
    /// Kept while queries come; see [`Partition::forget`].
    index: Mutex<Option<Arc<Index>>>,
    /// Set while it is merged into another, and for good if that failed.
    merging: AtomicBool,
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
    pub(crate) fn open(path: PathBuf, kind: Kind) -> Result<Partition, Error> {
        let file = File::open(&path).map_err(Error::io(&path))?;
        let bytes = file.metadata().map_err(Error::io(&path))?.len();
        let damaged = |what: &str| Error::Damaged { path: path.clone(), what: what.to_owned() };
        let mut header = [0; HEADER];
        let short = |_| damaged("too short");
        file.read_exact_at(&mut header, 0).map_err(short)?;
        let version = (1..=VERSION).find(|v| header == *self::header(*v)).ok_or_else(|| damaged("header"))?;
        let mut footer = vec![0; sections(version) * SECTION + 4 + FOOTER_MAGIC.len()];
        let at = bytes.checked_sub((HEADER + footer.len()) as u64).ok_or_else(|| damaged("too short"))?
            + HEADER as u64;
        file.read_exact_at(&mut footer, at).map_err(Error::io(&path))?;
        let mut d = footer.as_slice();
        let all = (|| {
            let mut all = Vec::new();
            for _ in 0..sections(version) {
                all.push(Section::parse(&mut d)?);
            }
            let crc = u32::from_le_bytes(take(&mut d, 4)?.try_into().ok()?);
            let sound = crc == crc32fast::hash(footer.get(..all.len() * SECTION)?);
            // What the sections claim is within the file.
            let within = all.iter().all(|s| s.offset.checked_add(u64::from(s.len)).is_some_and(|e| e <= at));
            (d == FOOTER_MAGIC && sound && within).then_some(all)
        })();
        let all = all.ok_or_else(|| damaged("footer"))?;
        let (index_at, words_at, traces_at, meta_at) = match all.as_slice() {
            [index, words, meta] => (*index, *words, None, *meta),
            [index, words, traces, meta] => (*index, *words, Some(*traces), *meta),
            _ => return Err(damaged("footer")),
        };
        let mut p = Partition {
            meta: Meta::default(),
            path: path.clone(),
            bytes,
            version,
            kind,
            file,
            index_at,
            words_at,
            traces_at,
            index: Mutex::new(None),
            merging: AtomicBool::new(false),
        };
        let raw = p.read(meta_at.offset, meta_at.len, meta_at.crc, "facts")?;
        p.meta = serde_json::from_slice(&raw).map_err(|e| damaged(&e.to_string()))?;
        Ok(p)
    }

    pub(crate) fn read(&self, offset: u64, len: u32, crc: u32, what: &str) -> Result<Vec<u8>, Error> {
        // Before memory is taken for it: a damaged length must not ask for more than there is.
        if offset.checked_add(u64::from(len)).is_none_or(|end| end > self.bytes) {
            return Err(self.damaged(what));
        }
        let mut data = vec![0; len as usize];
        self.file.read_exact_at(&mut data, offset).map_err(Error::io(&self.path))?;
        if crc32fast::hash(&data) != crc {
            return Err(self.damaged(&format!("checksum of {what}")));
        }
        Ok(data)
    }

    pub(crate) fn damaged(&self, what: &str) -> Error {
        Error::Damaged { path: self.path.clone(), what: what.to_owned() }
    }

    fn section(&self, s: Section, what: &str) -> Result<Vec<u8>, Error> {
        let packed = self.read(s.offset, s.len, s.crc, what)?;
        decompress(&packed, s.raw_len as usize).ok_or_else(|| self.damaged(what))
    }

    pub(crate) fn index(&self) -> Result<Arc<Index>, Error> {
        let mut cached = self.index.lock();
        if let Some(i) = &*cached {
            return Ok(i.clone());
        }
        let raw = self.section(self.index_at, "index")?;
        let index = match (self.version, self.traces_at) {
            (1, _) | (_, None) => Index::decode_v1(&raw),
            (_, Some(traces)) => {
                let words = self.section(self.words_at, "words")?;
                let traces = self.section(traces, "traces")?;
                Index::decode(&raw, &words, &traces)
            }
        };
        let index = Arc::new(index.ok_or_else(|| self.damaged("index"))?);
        *cached = Some(index.clone());
        Ok(index)
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
    }

    pub(crate) fn block(self: &Arc<Self>, b: &BlockRef) -> Result<Block, Error> {
        if self.version == 1 {
            return self.block_v1(b);
        }
        let directory = self.read(b.directory_at(), b.directory_len, b.crc, "block")?;
        Block::open(&directory, b.count as usize, self.clone(), b.offset).ok_or_else(|| self.damaged("block"))
    }

    /// A block as it lies there, and its filter.
    pub(crate) fn raw(&self, b: &BlockRef) -> Result<Vec<u8>, Error> {
        let len = b.stored();
        if b.offset.checked_add(len).is_none_or(|end| end > self.bytes) {
            return Err(self.damaged("block"));
        }
        let mut data = vec![0; len as usize];
        self.file.read_exact_at(&mut data, b.offset).map_err(Error::io(&self.path))?;
        // What is copied is checked as what is read is: a directory and its columns.
        let directory = self.read(b.directory_at(), b.directory_len, b.crc, "block")?;
        Block::check(&directory, data.get(..b.len as usize).unwrap_or(&[]))
            .ok_or_else(|| self.damaged("block"))?;
        if b.bloom_len > 0 {
            self.read(b.bloom_at(), b.bloom_len, b.bloom_crc, "filter")?;
        }
        Ok(data)
    }

    /// Strikes out the blocks that cannot hold what is needed. `id`: the hash of a trace's id that must be in a block.
    pub(crate) fn prune(
        &self,
        index: &Index,
        needs: &[Vec<Need>],
        id: Option<u64>,
        may: &mut [bool],
    ) -> Result<(), Error> {
        if let Some(hash) = id {
            for (may, b) in may.iter_mut().zip(&index.blocks).filter(|(m, _)| **m) {
                *may = self.bloom_has(b, hash)?;
            }
        }
        // Alternatives: a block stays if it may hold one of them.
        if let [one] = needs {
            return one.iter().try_for_each(|n| self.prune_one(index, n, may));
        }
        if needs.is_empty() {
            return Ok(());
        }
        let mut any = vec![false; may.len()];
        for alternative in needs {
            let mut left = may.to_vec();
            alternative.iter().try_for_each(|n| self.prune_one(index, n, &mut left))?;
            any.iter_mut().zip(left).for_each(|(a, l)| *a |= l);
        }
        may.copy_from_slice(&any);
        Ok(())
    }

    fn prune_one(&self, index: &Index, need: &Need, may: &mut [bool]) -> Result<(), Error> {
        if !may.contains(&true) {
            return Ok(());
        }
        match need {
            Need::Id { word, hash } => {
                // Within the ids and long words that are in the dictionary.
                let mut among_words = vec![false; may.len()];
                if word.place != Place::Whole
                    && let Some(words) = &index.words
                {
                    match word.text.len() <= tokens::LONGEST {
                        true => words.mark(self, word.place, &word.text, &mut among_words)?,
                        false => among_words.fill(true),
                    }
                }
                let candidates = may.iter_mut().zip(&index.blocks).zip(among_words);
                for ((may, b), among_words) in candidates.filter(|((m, _), _)| **m) {
                    let (longest, len) = (b.facts.longest_id as usize, word.text.len());
                    // A longer id may have this one as a part, and its hash tells nothing of its parts.
                    let part = word.place != Place::Whole
                        && (among_words
                            || b.facts.others
                            || longest > len && (word.hex || index.words.is_none()));
                    *may = part || self.bloom_has(b, *hash)?;
                }
                Ok(())
            }
            Need::Word(w) => self.prune_word(index, w, may),
            Need::Uuid { .. } if index.words.is_none() => Ok(()),
            Need::Uuid { hash, parts } => {
                let mut as_parts = if parts.is_empty() { vec![false; may.len()] } else { may.to_vec() };
                for w in parts {
                    // Not as parts of another UUID: five in a row are that UUID itself.
                    self.mark_word(index, w, &mut as_parts, false)?;
                }
                for ((may, b), parts) in
                    may.iter_mut().zip(&index.blocks).zip(as_parts).filter(|((m, _), _)| **m)
                {
                    *may = parts || b.facts.uuids && self.bloom_has(b, *hash)?;
                }
                Ok(())
            }
        }
    }

    fn prune_word(&self, index: &Index, w: &Word, may: &mut [bool]) -> Result<(), Error> {
        self.mark_word(index, w, may, true)
    }

    fn mark_word(&self, index: &Index, w: &Word, may: &mut [bool], of_uuid: bool) -> Result<(), Error> {
        let Some(words) = index.words.as_ref().filter(|_| w.text.len() <= tokens::LONGEST) else {
            return Ok(());
        };
        let mut has = vec![false; may.len()];
        words.mark(self, w.place, &w.text, &mut has)?;
        for ((may, has), b) in may.iter_mut().zip(has).zip(&index.blocks) {
            let f = b.facts;
            let within_other = w.place != Place::Whole && (f.others || w.hex && f.longest_id > 0);
            *may &= has || within_other || of_uuid && f.uuids && w.may_be_of_uuid();
        }
        Ok(())
    }

    fn bloom_has(&self, b: &BlockRef, hash: u64) -> Result<bool, Error> {
        if b.bloom_len == 0 {
            return Ok(false);
        }
        let bits = self.read(b.bloom_at(), b.bloom_len, b.bloom_crc, "filter")?;
        Ok(tokens::bloom_may_have(&bits, hash))
    }
}

fn header(version: u32) -> Box<[u8; HEADER]> {
    let mut h = Box::new([0; HEADER]);
    let (magic, v) = h.split_at_mut(8);
    magic.copy_from_slice(MAGIC);
    v.copy_from_slice(&version.to_le_bytes());
    h
}

#[cfg(test)]
mod tests;
