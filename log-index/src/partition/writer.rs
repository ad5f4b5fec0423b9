//! Writing a partition: streams in order of labels, their records in order of time, block by block.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use signal::{Attributes, Labels};

use super::{BlockRef, FOOTER_MAGIC, MAGIC, Meta, VERSION, path, temporary};
use crate::codec::{put_attributes, put_bytes, put_uvarint, put_varint};
use crate::config::Kind;
use crate::error::Error;
use crate::frame::Row;
use crate::{codec, sidecar, tokens};

/// Records in a block at most …
const RECORDS: usize = 256;
/// … and bytes, about: what one hit has to unpack.
const BYTES: usize = 64 << 10;

pub(crate) struct Writer {
    dir: PathBuf,
    temporary: PathBuf,
    out: BufWriter<File>,
    at: u64,
    kind: Kind,
    meta: Meta,
    streams: Vec<(Labels, Attributes)>,
    blocks: Vec<BlockRef>,
    /// Records of the last stream that are in no block yet.
    pending: Vec<Row>,
    pending_bytes: usize,
    /// Taken when the file is finished.
    sidecar: Option<sidecar::Builder>,
    packer: zstd::bulk::Compressor<'static>,
}

impl Writer {
    pub(crate) fn create(dir: &Path, kind: Kind, meta: Meta) -> Result<Writer, Error> {
        let temporary = temporary(dir, meta.seq);
        let file = File::create(&temporary).map_err(Error::io(&temporary))?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&VERSION.to_le_bytes());
        out.write_all(&header).map_err(Error::io(&temporary))?;
        let packer = zstd::bulk::Compressor::new(3).map_err(Error::io(&temporary))?;
        Ok(Writer {
            dir: dir.to_owned(),
            temporary,
            out,
            at: header.len() as u64,
            kind,
            meta,
            streams: Vec::new(),
            blocks: Vec::new(),
            pending: Vec::new(),
            pending_bytes: 0,
            sidecar: Some(sidecar::Builder::new()?),
            packer,
        })
    }

    /// Begins a stream. Streams come in order of labels.
    pub(crate) fn stream(&mut self, labels: &Labels, resource: &Attributes) -> Result<(), Error> {
        self.block()?;
        self.streams.push((labels.clone(), resource.clone()));
        Ok(())
    }

    /// Adds a record to the stream begun last. Records come in order of time.
    pub(crate) fn push(&mut self, row: Row) -> Result<(), Error> {
        self.pending_bytes += row.data.len();
        self.pending.push(row);
        if self.pending.len() >= RECORDS || self.pending_bytes >= BYTES {
            self.block()?;
        }
        Ok(())
    }

    fn block(&mut self) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        if rows.is_empty() {
            return Ok(());
        }
        let rows = rows.as_slice();
        let stream = (self.streams.len() as u32).saturating_sub(1);
        let mut raw = Vec::new();
        // Columns: all times, all lengths, then the records, so that zstd sees like with like.
        let mut last = 0i64;
        for r in rows {
            put_varint(&mut raw, r.time.wrapping_sub(last));
            last = r.time;
        }
        rows.iter().for_each(|r| put_uvarint(&mut raw, r.data.len() as u64));
        rows.iter().for_each(|r| raw.extend_from_slice(&r.data));
        let (words, ids, facts) = self.words(rows);
        let packed = self.packer.compress(&raw).map_err(Error::io(&self.temporary))?;
        let (offset, len, crc) = self.put(&packed)?;
        let bloom = tokens::bloom(&ids);
        let (bloom_offset, bloom_len, bloom_crc) = self.put(&bloom)?;
        let min = rows.first().map_or(0, |r| r.time);
        let max = rows.last().map_or(0, |r| r.time);
        if self.meta.records == 0 {
            (self.meta.min, self.meta.max) = (min, max);
        }
        self.meta.min = self.meta.min.min(min);
        self.meta.max = self.meta.max.max(max);
        self.meta.records += rows.len() as u64;
        self.meta.raw_bytes += raw.len() as u64;
        self.blocks.push(BlockRef {
            stream,
            min,
            max,
            count: rows.len() as u32,
            raw_len: raw.len() as u32,
            offset,
            len,
            crc,
            bloom_offset,
            bloom_len,
            bloom_crc,
            facts,
        });
        match &mut self.sidecar {
            Some(sidecar) => sidecar.add(&words.into_iter().collect::<Vec<_>>().join(" ")),
            None => Ok(()),
        }
    }

    /// A block's words, hashes of its ids, and what is special about it.
    fn words(&self, rows: &[Row]) -> (BTreeSet<String>, HashSet<u64>, super::Facts) {
        let (mut words, mut ids, mut facts) = (BTreeSet::new(), HashSet::new(), super::Facts::default());
        for r in rows {
            for (_, token) in tokens::split(codec::text(&r.data)) {
                if tokens::is_id(token) {
                    ids.insert(tokens::hash(token));
                    facts.longest_id = facts.longest_id.max(token.len() as u32);
                    if tokens::is_hex(token) { facts.hex_ids = true } else { facts.other_ids = true }
                } else if token.len() > tokens::LONGEST {
                    facts.long_words = true;
                } else {
                    words.insert(tokens::lower(token));
                }
            }
            // A record's own trace id is found by the same filter as one in its text.
            let trace = match self.kind {
                Kind::Logs => codec::decode_log(r.time, &r.data).map(|l| l.trace_id),
                Kind::Spans => codec::decode_span(r.time, &r.data).map(|s| s.trace_id),
            };
            if let Some(t) = trace.filter(signal::TraceId::is_valid) {
                ids.insert(tokens::hash(t.to_string().as_bytes()));
            }
        }
        (words, ids, facts)
    }

    fn put(&mut self, data: &[u8]) -> Result<(u64, u32, u32), Error> {
        let offset = self.at;
        self.out.write_all(data).map_err(Error::io(&self.temporary))?;
        self.at += data.len() as u64;
        Ok((offset, data.len() as u32, crc32fast::hash(data)))
    }

    /// Syncs the file and gives it its name. `None` if nothing was added.
    pub(crate) fn finish(mut self) -> Result<Option<PathBuf>, Error> {
        self.block()?;
        if self.meta.records == 0 {
            drop(self.out);
            fs::remove_file(&self.temporary).map_err(Error::io(&self.temporary))?;
            return Ok(None);
        }
        let mut index = Vec::new();
        put_uvarint(&mut index, self.streams.len() as u64);
        for (labels, resource) in &self.streams {
            put_bytes(&mut index, labels.encoded());
            put_attributes(&mut index, resource);
        }
        put_uvarint(&mut index, self.blocks.len() as u64);
        self.blocks.iter().for_each(|b| b.encode(&mut index));
        let packed = zstd::bulk::compress(&index, 3).map_err(Error::io(&self.temporary))?;
        let sidecar = match self.sidecar.take() {
            Some(sidecar) => sidecar.finish()?,
            None => Vec::new(),
        };
        let sidecar_packed = zstd::bulk::compress(&sidecar, 3).map_err(Error::io(&self.temporary))?;
        let meta = serde_json::to_vec(&self.meta).expect("plain data");
        let mut footer = Vec::new();
        for (data, raw_len) in [(&packed, index.len()), (&sidecar_packed, sidecar.len()), (&meta, meta.len())]
        {
            let (offset, len, crc) = self.put(data)?;
            footer.extend_from_slice(&offset.to_le_bytes());
            footer.extend_from_slice(&len.to_le_bytes());
            footer.extend_from_slice(&(raw_len as u32).to_le_bytes());
            footer.extend_from_slice(&crc.to_le_bytes());
        }
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
