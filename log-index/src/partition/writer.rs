//! Writing a partition: streams in order of labels, their records in order of time, block by block.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use signal::{Attributes, Labels};

use super::{BlockRef, FOOTER_MAGIC, Index, Meta, Partition, VERSION, header, path, temporary};
use crate::block::Builder;
use crate::codec::{put_attributes, put_bytes, put_uvarint};
use crate::column::Packer;
use crate::config::Kind;
use crate::error::Error;
use crate::{summary, terms, tokens};

/// Bytes of records in a block, about; see docs/adr/0007-log-blocks.md.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;

/// The file being written, and where its next byte goes.
struct Out {
    path: PathBuf,
    file: BufWriter<File>,
    at: u64,
}

impl Out {
    fn put(&mut self, data: &[u8]) -> Result<(u64, u32, u32), Error> {
        let offset = self.at;
        self.file.write_all(data).map_err(Error::io(&self.path))?;
        self.at += data.len() as u64;
        Ok((offset, data.len() as u32, crc32fast::hash(data)))
    }
}

/// A partition whose blocks are taken over.
struct Source {
    part: Arc<Partition>,
    index: Arc<Index>,
    /// What became of its blocks, and of its streams.
    blocks: Vec<Option<u32>>,
    streams: Vec<Option<u32>>,
}

pub(crate) struct Writer {
    dir: PathBuf,
    out: Out,
    kind: Kind,
    meta: Meta,
    streams: Vec<(Labels, Attributes)>,
    blocks: Vec<BlockRef>,
    /// Records of the last stream that are in no block yet.
    pending: Builder,
    block_bytes: usize,
    words: terms::Builder,
    traces: summary::Builder,
    /// Where traces of taken-over partitions come whole, a block written anew adds only its place.
    places_only: bool,
    sources: Vec<Source>,
    packer: Packer,
}

impl Writer {
    pub(crate) fn create(dir: &Path, kind: Kind, meta: Meta) -> Result<Writer, Error> {
        let temporary = temporary(dir, meta.seq);
        let file = File::create(&temporary).map_err(Error::io(&temporary))?;
        let packer = Packer::new().map_err(Error::io(&temporary))?;
        let mut out = Out { path: temporary, file: BufWriter::with_capacity(1 << 18, file), at: 0 };
        out.put(&*header(VERSION))?;
        Ok(Writer {
            dir: dir.to_owned(),
            out,
            kind,
            meta,
            streams: Vec::new(),
            blocks: Vec::new(),
            pending: Builder::new(kind),
            block_bytes: BLOCK_BYTES,
            words: terms::Builder::default(),
            traces: summary::Builder::default(),
            places_only: false,
            sources: Vec::new(),
            packer,
        })
    }

    /// Blocks of these partitions may be taken over by [`Writer::copy`]. `whole`: no record of them is left out.
    pub(crate) fn take_over(&mut self, parts: &[Arc<Partition>], whole: bool) -> Result<(), Error> {
        for part in parts {
            let index = part.index()?;
            let (blocks, streams) = (vec![None; index.blocks.len()], vec![None; index.streams.len()]);
            self.sources.push(Source { part: part.clone(), index, blocks, streams });
        }
        self.places_only = whole && self.sources.iter().all(|s| s.index.traces.is_some());
        Ok(())
    }

    /// True if a block of spans may be copied: what is known of its traces comes with it.
    pub(crate) fn may_copy(&self) -> bool {
        self.kind == Kind::Logs || self.places_only
    }

    /// Begins a stream. Streams come in order of labels. `bytes`: how many its records have, if that is known, so
    /// that they are cut into blocks of one size; `from`: the places it has in the partitions that are taken over.
    pub(crate) fn stream(
        &mut self,
        labels: &Labels,
        resource: &Attributes,
        bytes: usize,
        from: &[(usize, usize)],
    ) -> Result<(), Error> {
        self.block()?;
        let number = self.streams.len() as u32;
        self.streams.push((labels.clone(), resource.clone()));
        for (source, stream) in from {
            if let Some(s) = self.sources.get_mut(*source).and_then(|s| s.streams.get_mut(*stream)) {
                *s = Some(number);
            }
        }
        let blocks = (bytes + BLOCK_BYTES / 2) / BLOCK_BYTES;
        self.block_bytes = if blocks == 0 { BLOCK_BYTES } else { bytes.div_ceil(blocks) };
        Ok(())
    }

    /// Adds a record to the stream begun last. Records come in order of time.
    pub(crate) fn push(&mut self, time: i64, data: &[u8]) -> Result<(), Error> {
        let bytes = self.pending.bytes();
        if bytes > 0 && (bytes + data.len() > self.block_bytes || self.pending.is_wide()) {
            self.block()?;
        }
        self.pending.push(time, data).ok_or_else(|| Error::Damaged {
            path: self.out.path.clone(),
            what: "a record in memory".to_owned(),
        })
    }

    /// Ends the block that records are added to.
    pub(crate) fn block(&mut self) -> Result<(), Error> {
        if self.pending.count() == 0 {
            return Ok(());
        }
        let next = match self.kind {
            Kind::Logs => Builder::with_room(Kind::Logs, self.block_bytes),
            Kind::Spans => Builder::new(Kind::Spans),
        };
        let b = std::mem::replace(&mut self.pending, next);
        let number = self.blocks.len() as u32;
        let stream = (self.streams.len() as u32).saturating_sub(1);
        let (count, raw_len) = (b.count() as u32, b.bytes() as u32);
        let min = b.times().first().copied().unwrap_or(0);
        let max = b.times().last().copied().unwrap_or(0);
        if self.kind == Kind::Spans {
            b.summarize(stream, number, self.places_only, &mut self.traces);
        }
        let built = b.pack(&mut self.packer, &mut self.words, number).map_err(Error::io(&self.out.path))?;
        let bloom = tokens::bloom(&built.ids);
        let (offset, len, _) = self.out.put(&built.block.data)?;
        let (_, directory_len, crc) = self.out.put(&built.block.directory)?;
        let (_, bloom_len, bloom_crc) = self.out.put(&bloom)?;
        self.add(BlockRef {
            stream,
            min,
            max,
            count,
            raw_len,
            offset,
            len,
            directory_len,
            crc,
            bloom_offset: None,
            bloom_len,
            bloom_crc,
            facts: built.facts,
        });
        Ok(())
    }

    /// Takes a block of a source over as it is, as the next of the stream begun last.
    pub(crate) fn copy(&mut self, source: usize, block: usize) -> Result<(), Error> {
        self.block()?;
        let number = self.blocks.len() as u32;
        let stream = (self.streams.len() as u32).saturating_sub(1);
        let Some(s) = self.sources.get_mut(source) else { return Ok(()) };
        let Some(b) = s.index.blocks.get(block) else { return Ok(()) };
        let data = s.part.raw(b)?;
        let (offset, _, _) = self.out.put(&data)?;
        if let Some(slot) = s.blocks.get_mut(block) {
            *slot = Some(number);
        }
        let b = BlockRef { stream, offset, ..b.clone() };
        self.add(b);
        Ok(())
    }

    fn add(&mut self, b: BlockRef) {
        if self.meta.records == 0 {
            (self.meta.min, self.meta.max) = (b.min, b.max);
        }
        self.meta.min = self.meta.min.min(b.min);
        self.meta.max = self.meta.max.max(b.max);
        self.meta.records += u64::from(b.count);
        self.meta.raw_bytes += u64::from(b.raw_len);
        self.meta.data_bytes += u64::from(b.len) + u64::from(b.directory_len);
        self.meta.index_bytes += u64::from(b.bloom_len);
        self.blocks.push(b);
    }

    /// Syncs the file and gives it its name. `None` if nothing was added.
    pub(crate) fn finish(mut self) -> Result<Option<PathBuf>, Error> {
        self.block()?;
        let mut out = self.out;
        if self.meta.records == 0 {
            drop(out.file);
            fs::remove_file(&out.path).map_err(Error::io(&out.path))?;
            return Ok(None);
        }
        let began = out.at;
        let mut words = terms::Writer::new(self.blocks.len() as u32, |page| out.put(page));
        let mut cursors = Vec::new();
        for s in &mut self.sources {
            if let Some(table) = &s.index.words {
                let cursor = table.cursor(s.part.clone(), s.index.blocks.len());
                cursors.push((cursor, s.blocks.clone()));
            }
        }
        terms::merge(&mut words, cursors, &self.words)?;
        let words = words.finish()?;
        let traces = if self.kind == Kind::Spans {
            let mut table = summary::Writer::new(|page| out.put(page));
            let mut cursors = Vec::new();
            for s in self.sources.iter().filter(|_| self.places_only) {
                if let Some(traces) = &s.index.traces {
                    let cursor = traces.cursor(s.part.clone());
                    cursors.push((cursor, s.blocks.clone(), s.streams.clone()));
                }
            }
            summary::merge(&mut table, cursors, self.traces)?;
            table.finish()?
        } else {
            Vec::new()
        };
        self.meta.index_bytes += out.at - began;
        let mut index = Vec::new();
        put_uvarint(&mut index, self.streams.len() as u64);
        for (labels, resource) in &self.streams {
            put_bytes(&mut index, labels.encoded());
            put_attributes(&mut index, resource);
        }
        put_uvarint(&mut index, self.blocks.len() as u64);
        self.blocks.iter().for_each(|b| b.encode(&mut index));
        let mut footer = Vec::new();
        let meta = serde_json::to_vec(&self.meta).expect("plain data");
        for (raw, packed) in [(&index, true), (&words, true), (&traces, true), (&meta, false)] {
            let data = match packed {
                true => &zstd::bulk::compress(raw, 3).map_err(Error::io(&out.path))?,
                false => raw,
            };
            let (offset, len, crc) = out.put(data)?;
            footer.extend_from_slice(&offset.to_le_bytes());
            footer.extend_from_slice(&len.to_le_bytes());
            footer.extend_from_slice(&(raw.len() as u32).to_le_bytes());
            footer.extend_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32fast::hash(&footer);
        footer.extend_from_slice(&crc.to_le_bytes());
        footer.extend_from_slice(FOOTER_MAGIC);
        out.put(&footer)?;
        let file = out.file.into_inner().map_err(|e| Error::io(&out.path)(e.into_error()))?;
        file.sync_all().map_err(Error::io(&out.path))?;
        let path = path(&self.dir, self.meta.seq);
        fs::rename(&out.path, &path).map_err(Error::io(&path))?;
        File::open(&self.dir).and_then(|d| d.sync_all()).map_err(Error::io(&self.dir))?;
        Ok(Some(path))
    }
}
