//! Writing a block: series come in order of labels, and the file appears whole or not at all.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use signal::{Labels, Sample};

use super::chunk::{self, encode_times, encode_values};
use super::{ChunkRef, FOOTER_MAGIC, MAGIC, Meta, SeriesEntry, TimesRef, VERSION, path};
use crate::codec::put_uvarint;
use crate::error::Error;
use crate::index::Postings;

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
    times: Vec<TimesRef>,
    /// Timestamp columns already written. Bounded by the number of distinct scrape rhythms in a block.
    /// Known by 128 bits of hash beside count and range, so that long columns need not stay in memory.
    times_by_content: HashMap<TimesKey, u32, ahash::RandomState>,
    series: Vec<SeriesEntry>,
    postings: Postings,
}

impl Writer {
    pub(crate) fn create(dir: &Path, meta: Meta) -> Result<Writer, Error> {
        let temporary = dir.join(format!("{:016x}.tmp", meta.seq));
        let mut out =
            BufWriter::with_capacity(1 << 18, File::create(&temporary).map_err(Error::io(&temporary))?);
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&VERSION.to_le_bytes());
        out.write_all(&header).map_err(Error::io(&temporary))?;
        Ok(Writer {
            dir: dir.to_owned(),
            temporary,
            out,
            at: header.len() as u64,
            meta,
            times: Vec::new(),
            times_by_content: HashMap::default(),
            series: Vec::new(),
            postings: Postings::default(),
        })
    }

    /// Adds the next series. Its samples ascend; an empty one is left out.
    pub(crate) fn add(&mut self, labels: &Labels, samples: &[Sample]) -> Result<(), Error> {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Ok(()) };
        let (min, max) = (first.timestamp, last.timestamp);
        if self.meta.samples == 0 {
            (self.meta.min, self.meta.max) = (min, max);
        }
        self.meta.min = self.meta.min.min(min);
        self.meta.max = self.meta.max.max(max);
        self.meta.samples += samples.len() as u64;
        self.meta.series += 1;
        let mut chunks = Vec::new();
        for part in samples.chunks(chunk::SAMPLES) {
            let times = self.times(part.iter().map(|s| s.timestamp).collect())?;
            let (offset, len, crc) = self.put(&encode_values(part))?;
            let (mut low, mut high, mut sum) = (f64::NAN, f64::NAN, 0.0);
            for s in part {
                low = s.value.min(low);
                high = s.value.max(high);
                sum += s.value;
            }
            chunks.push(ChunkRef { times, offset, len, crc, low, high, sum });
        }
        self.postings.add(labels);
        self.series.push(SeriesEntry { labels: labels.clone(), chunks });
        Ok(())
    }

    /// The column with exactly these times, written once.
    fn times(&mut self, times: Vec<i64>) -> Result<u32, Error> {
        let key = times_key(&times);
        if let Some(n) = self.times_by_content.get(&key) {
            return Ok(*n);
        }
        let (offset, len, crc) = self.put(&encode_times(&times))?;
        let n = self.times.len() as u32;
        let (min, max) = (times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0));
        self.times.push(TimesRef { offset, len, crc, count: times.len() as u32, min, max });
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
        let index = self.encode_index();
        let packed = zstd::bulk::compress(&index, 3).expect("compressing in memory cannot fail");
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

    fn encode_index(&self) -> Vec<u8> {
        let mut b = Vec::new();
        put_uvarint(&mut b, self.times.len() as u64);
        for t in &self.times {
            t.encode(&mut b);
        }
        put_uvarint(&mut b, self.series.len() as u64);
        let mut previous: &[u8] = &[];
        for s in &self.series {
            // Neighbours share most of their labels: only what differs from the series before is written.
            let labels = s.labels.encoded();
            let shared = labels.iter().zip(previous).take_while(|(a, b)| a == b).count();
            put_uvarint(&mut b, shared as u64);
            put_uvarint(&mut b, (labels.len() - shared) as u64);
            b.extend_from_slice(labels.get(shared..).unwrap_or(&[]));
            previous = labels;
            put_uvarint(&mut b, s.chunks.len() as u64);
            for c in &s.chunks {
                c.encode(&mut b);
            }
        }
        self.postings.encode(&mut b);
        b
    }
}
