//! Reads Prometheus' block directories: `index` (version 2), `chunks/`, `tombstones`, `meta.json` (Prometheus:
//! tsdb/docs/format). Series come in order of labels, one in memory at a time.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use signal::{HistogramSample, Labels, SeriesColumns};

use crate::Error;
use crate::bits::{take_uvarint, take_varint};
use crate::chunk::{self, Encoding, Sample};
use crate::crc::crc32c;

const INDEX_MAGIC: u32 = 0xbaaa_d700;
const CHUNKS_MAGIC: u32 = 0x85bd_40dd;
const TOMBSTONES_MAGIC: u32 = 0x0130_ba30;
/// A chunk is of about a kilobyte; more than this is no length.
const MOST_CHUNK: u64 = 64 << 20;

#[derive(Deserialize)]
struct Meta {
    ulid: String,
    version: u32,
    #[serde(default)]
    stats: Stats,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    num_samples: u64,
    num_series: u64,
}

/// An opened block.
pub struct Block {
    pub ulid: String,
    /// As its own `meta.json` says.
    pub series: u64,
    pub samples: u64,
    index: Vec<u8>,
    symbols: Vec<(u32, u32)>,
    /// Where the series stand in the index.
    range: (usize, usize),
    segments: Vec<(PathBuf, File)>,
    /// By the series' number: times that were deleted, both ends included.
    deleted: HashMap<u64, Vec<(i64, i64)>>,
}

fn damaged(what: &Path, why: &'static str) -> Error {
    Error::Damaged { what: what.display().to_string(), why }
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(data.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// Whether the checksum behind `data[from..to]` is its own.
fn is_whole(data: &[u8], from: usize, to: usize) -> bool {
    data.get(from..to).is_some_and(|d| Some(crc32c(d)) == u32_at(data, to))
}

impl Block {
    /// Whether a directory looks like one.
    pub fn is_at(dir: &Path) -> bool {
        dir.join("meta.json").is_file() && dir.join("index").is_file()
    }

    /// Opens a block and checks its index.
    pub fn open(dir: &Path) -> Result<Block, Error> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(Error::io(&path))
        };
        let meta: Meta = serde_json::from_slice(&read("meta.json")?)
            .map_err(|_| damaged(&dir.join("meta.json"), "it is not what Prometheus writes"))?;
        if meta.version != 1 {
            return Err(Error::Unsupported(format!(
                "{}: blocks of version {}, known is 1",
                dir.display(),
                meta.version
            )));
        }
        let path = dir.join("index");
        let index = read("index")?;
        let (symbols, range) = open_index(&index).map_err(|why| damaged(&path, why))?;
        let mut segments = Vec::new();
        for n in 1.. {
            let path = dir.join("chunks").join(format!("{n:06}"));
            match File::open(&path) {
                Ok(f) => {
                    let mut head = [0; 8];
                    f.read_exact_at(&mut head, 0).map_err(Error::io(&path))?;
                    if u32_at(&head, 0) != Some(CHUNKS_MAGIC) || head[4] != 1 {
                        return Err(damaged(&path, "it does not begin as a file of chunks"));
                    }
                    segments.push((path, f));
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => break,
                Err(e) => return Err(Error::io(&path)(e)),
            }
        }
        let path = dir.join("tombstones");
        let deleted = match std::fs::read(&path) {
            Ok(data) => {
                tombstones(&data).ok_or_else(|| damaged(&path, "it is not what Prometheus writes"))?
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => HashMap::new(),
            Err(e) => return Err(Error::io(&path)(e)),
        };
        let Stats { num_samples, num_series } = meta.stats;
        Ok(Block {
            ulid: meta.ulid,
            series: num_series,
            samples: num_samples,
            index,
            symbols,
            range,
            segments,
            deleted,
        })
    }

    fn symbol(&self, n: u64) -> Option<&str> {
        let (at, len) = self.symbols.get(usize::try_from(n).ok()?)?;
        std::str::from_utf8(self.index.get(*at as usize..(*at + *len) as usize)?).ok()
    }

    /// Every series with its samples, in order of labels. An error ends it.
    pub fn iter(&self) -> impl Iterator<Item = Result<SeriesColumns, Error>> + '_ {
        let mut at = self.range.0;
        let mut failed = false;
        std::iter::from_fn(move || {
            // Entries begin at multiples of sixteen; zeros fill up.
            at = at.next_multiple_of(16);
            if failed || at >= self.range.1 || self.index.get(at).is_none_or(|b| *b == 0) {
                return None;
            }
            let result = self.one(&mut at);
            failed = result.is_err();
            Some(result)
        })
    }

    fn one(&self, at: &mut usize) -> Result<SeriesColumns, Error> {
        let wrong = |why| Error::Damaged { what: format!("the index of block {}", self.ulid), why };
        let number = (*at / 16) as u64;
        let mut rest = self.index.get(*at..self.range.1).unwrap_or(&[]);
        let before = rest.len();
        let len = take_uvarint(&mut rest).and_then(|n| usize::try_from(n).ok());
        let len = len.filter(|n| *n <= rest.len()).ok_or_else(|| wrong("a series is cut short"))?;
        let from = *at + (before - rest.len());
        if !is_whole(&self.index, from, from + len) {
            return Err(wrong("a series' checksum is another"));
        }
        *at = from + len + 4;
        let mut entry = &rest[..len];
        let (labels, refs) = self.entry(&mut entry).ok_or_else(|| wrong("a series cannot be read"))?;
        let mut out = SeriesColumns { labels, ..SeriesColumns::default() };
        let mut times = Vec::new();
        let gone = self.deleted.get(&number).map_or(&[][..], Vec::as_slice);
        let is_gone = |t: i64| gone.iter().any(|(a, b)| (*a..=*b).contains(&t));
        for reference in refs {
            let (encoding, data) = self.chunk(reference)?;
            chunk::decode(encoding, &data, |s| match s {
                Sample::Float(t, v) if !is_gone(t) => {
                    times.push(t);
                    out.values.push(v);
                }
                Sample::Histogram(h) if !is_gone(h.timestamp) => out.histograms.push(h),
                _ => {}
            })?;
        }
        out.timestamps = times.into();
        sort(&mut out);
        Ok(out)
    }

    fn entry(&self, entry: &mut &[u8]) -> Option<(Labels, Vec<u64>)> {
        let n = take_uvarint(entry)?;
        let mut pairs = Vec::new();
        for _ in 0..n {
            let (name, value) = (take_uvarint(entry)?, take_uvarint(entry)?);
            pairs.push((self.symbol(name)?, self.symbol(value)?));
        }
        let chunks = take_uvarint(entry)?;
        let mut refs = Vec::new();
        let mut reference = 0u64;
        for i in 0..chunks {
            // Times are in the chunks too.
            if i == 0 {
                take_varint(entry)?;
                take_uvarint(entry)?;
                reference = take_uvarint(entry)?;
            } else {
                take_uvarint(entry)?;
                take_uvarint(entry)?;
                reference = reference.checked_add_signed(take_varint(entry)?)?;
            }
            refs.push(reference);
        }
        Some((Labels::from_pairs(pairs), refs))
    }

    fn chunk(&self, reference: u64) -> Result<(Encoding, Vec<u8>), Error> {
        let (segment, at) = ((reference >> 32) as usize, reference & 0xffff_ffff);
        let (path, file) = self.segments.get(segment).ok_or_else(|| Error::Damaged {
            what: format!("block {}", self.ulid),
            why: "a file of chunks is missing",
        })?;
        let size = file.metadata().map_err(Error::io(path))?.len();
        let mut head = [0u8; 11];
        let most = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX).min(head.len());
        file.read_exact_at(&mut head[..most], at).map_err(Error::io(path))?;
        let mut rest = &head[..most];
        let len = take_uvarint(&mut rest).filter(|n| *n <= MOST_CHUNK);
        let len = len.ok_or_else(|| damaged(path, "a chunk has no length"))?;
        let from = at + (most - rest.len()) as u64;
        // The encoding, the data, the checksum of both.
        if from + len + 5 > size {
            return Err(damaged(path, "a chunk is cut short"));
        }
        let mut body = vec![0u8; len as usize + 5];
        file.read_exact_at(&mut body, from).map_err(Error::io(path))?;
        if !is_whole(&body, 0, len as usize + 1) {
            return Err(damaged(path, "a chunk's checksum is another"));
        }
        let encoding = Encoding::from_number(body[0]).ok_or_else(|| {
            Error::Unsupported(format!(
                "{}: chunks of kind {}, known are XOR and histograms; let Prometheus write the block without xor2 or \
                 start timestamps",
                path.display(),
                body[0]
            ))
        })?;
        body.truncate(len as usize + 1);
        body.remove(0);
        Ok((encoding, body))
    }
}

/// In order of time; of two at one time the later written stands.
fn sort(s: &mut SeriesColumns) {
    if !s.timestamps.is_sorted_by(|a, b| a < b) {
        let mut all: Vec<(i64, f64)> = s.timestamps.iter().copied().zip(s.values.iter().copied()).collect();
        all.reverse();
        all.sort_by_key(|(t, _)| *t);
        all.dedup_by_key(|(t, _)| *t);
        let (times, values): (Vec<i64>, Vec<f64>) = all.into_iter().unzip();
        (s.timestamps, s.values) = (times.into(), values);
    }
    let by_time = |a: &HistogramSample, b: &HistogramSample| a.timestamp < b.timestamp;
    if !s.histograms.is_sorted_by(by_time) {
        s.histograms.reverse();
        s.histograms.sort_by_key(|h| h.timestamp);
        s.histograms.dedup_by_key(|h| h.timestamp);
    }
}

type Symbols = Vec<(u32, u32)>;

/// Where each symbol stands, and where the series do.
fn open_index(index: &[u8]) -> Result<(Symbols, (usize, usize)), &'static str> {
    if u32_at(index, 0) != Some(INDEX_MAGIC) {
        return Err("it does not begin as an index");
    }
    if index.get(4) != Some(&2) {
        return Err("an index of another version than 2");
    }
    // The table of contents: six places and a checksum.
    let toc = index.len().checked_sub(52).ok_or("it is too short")?;
    if !is_whole(index, toc, toc + 48) {
        return Err("the checksum of its table of contents is another");
    }
    let place = |n: usize| u64_at(index, toc + n * 8).and_then(|p| usize::try_from(p).ok()).unwrap_or(0);
    let (symbols_at, series_at) = (place(0), place(1));
    let end = (2..6).map(place).filter(|p| *p > series_at).min().unwrap_or(toc).min(toc);
    let len = u32_at(index, symbols_at).ok_or("it has no symbols")? as usize;
    let from = symbols_at + 4;
    if !is_whole(index, from, from.checked_add(len).ok_or("it has no symbols")?) {
        return Err("the checksum of its symbols is another");
    }
    let count = u32_at(index, from).ok_or("it has no symbols")?;
    let table = index.get(from + 4..from + len).ok_or("it has no symbols")?;
    let mut rest = table;
    let mut symbols = Vec::new();
    for _ in 0..count {
        let n = take_uvarint(&mut rest).and_then(|n| usize::try_from(n).ok());
        let n = n.filter(|n| *n <= rest.len()).ok_or("a symbol is cut short")?;
        let at = from + 4 + (table.len() - rest.len());
        symbols.push((u32::try_from(at).map_err(|_| "symbols of more than 4 GiB")?, n as u32));
        rest = &rest[n..];
    }
    Ok((symbols, (series_at, end)))
}

fn tombstones(data: &[u8]) -> Option<HashMap<u64, Vec<(i64, i64)>>> {
    let end = data.len().checked_sub(4)?;
    if u32_at(data, 0)? != TOMBSTONES_MAGIC || *data.get(4)? != 1 || !is_whole(data, 5, end) {
        return None;
    }
    let mut rest = data.get(5..end)?;
    let mut out: HashMap<u64, Vec<(i64, i64)>> = HashMap::new();
    while !rest.is_empty() {
        let series = take_uvarint(&mut rest)?;
        out.entry(series).or_default().push((take_varint(&mut rest)?, take_varint(&mut rest)?));
    }
    Some(out)
}

#[cfg(test)]
mod tests;
