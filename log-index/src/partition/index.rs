//! Which streams and blocks a partition has, and where.

use std::sync::Arc;

use signal::{Attributes, Labels};

use crate::block::Facts;
use crate::codec::{get_attributes, get_bytes, get_uvarint, get_varint, put_uvarint, put_varint, take};
use crate::summary;
use crate::terms;

pub(crate) struct Index {
    pub(crate) streams: Vec<(Labels, Attributes)>,
    pub(crate) blocks: Vec<BlockRef>,
    /// `None` in partitions of the first version.
    pub(crate) words: Option<Arc<terms::Table>>,
    pub(crate) traces: Option<Arc<summary::Table>>,
}

/// A block: its columns, then their directory, then its filter.
#[derive(Clone, Debug)]
pub(crate) struct BlockRef {
    pub(crate) stream: u32,
    pub(crate) min: i64,
    pub(crate) max: i64,
    pub(crate) count: u32,
    /// Of the records as they came.
    pub(crate) raw_len: u32,
    pub(crate) offset: u64,
    /// Of the columns.
    pub(crate) len: u32,
    pub(crate) directory_len: u32,
    /// Of the directory; in the first version of the block.
    pub(crate) crc: u32,
    /// Only in the first version: since then it stands behind the directory.
    pub(crate) bloom_offset: Option<u64>,
    pub(crate) bloom_len: u32,
    pub(crate) bloom_crc: u32,
    pub(crate) facts: Facts,
}

impl BlockRef {
    pub(crate) fn directory_at(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }

    pub(crate) fn bloom_at(&self) -> u64 {
        self.bloom_offset.unwrap_or(self.directory_at().saturating_add(u64::from(self.directory_len)))
    }

    /// Bytes in the file, the filter with them.
    pub(crate) fn stored(&self) -> u64 {
        u64::from(self.len) + u64::from(self.directory_len) + u64::from(self.bloom_len)
    }

    pub(crate) fn encode(&self, b: &mut Vec<u8>) {
        for v in [u64::from(self.stream), u64::from(self.count), u64::from(self.raw_len), self.offset] {
            put_uvarint(b, v);
        }
        for v in [self.len, self.directory_len, self.bloom_len] {
            put_uvarint(b, u64::from(v));
        }
        put_varint(b, self.min);
        put_uvarint(b, self.max.wrapping_sub(self.min) as u64);
        b.extend_from_slice(&self.crc.to_le_bytes());
        b.extend_from_slice(&self.bloom_crc.to_le_bytes());
        let f = self.facts;
        let flags = [f.others, f.uuids];
        b.push(flags.iter().enumerate().fold(0, |byte, (i, f)| byte | u8::from(*f) << i));
        put_uvarint(b, u64::from(f.longest_id));
    }

    fn decode(d: &mut &[u8]) -> Option<Self> {
        let small = |d: &mut &[u8]| u32::try_from(get_uvarint(d)?).ok();
        let fixed = |d: &mut &[u8]| Some(u32::from_le_bytes(take(d, 4)?.try_into().ok()?));
        let (stream, count, raw_len, offset) = (small(d)?, small(d)?, small(d)?, get_uvarint(d)?);
        let (len, directory_len, bloom_len) = (small(d)?, small(d)?, small(d)?);
        let min = get_varint(d)?;
        let max = min.wrapping_add(get_uvarint(d)? as i64);
        let (crc, bloom_crc) = (fixed(d)?, fixed(d)?);
        let facts = facts(*take(d, 1)?.first()?, small(d)?);
        Some(BlockRef {
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
            facts,
        })
    }

    fn decode_v1(d: &mut &[u8]) -> Option<Self> {
        let small = |d: &mut &[u8]| u32::try_from(get_uvarint(d)?).ok();
        let fixed = |d: &mut &[u8]| Some(u32::from_le_bytes(take(d, 4)?.try_into().ok()?));
        let (stream, count, raw_len) = (small(d)?, small(d)?, small(d)?);
        let (offset, len, min) = (get_uvarint(d)?, small(d)?, get_varint(d)?);
        let max = min.wrapping_add(get_uvarint(d)? as i64);
        let crc = fixed(d)?;
        let (bloom_offset, bloom_len, bloom_crc) = (Some(get_uvarint(d)?), small(d)?, fixed(d)?);
        // Its dictionary is not read: of the flags only what the filter needs matters.
        take(d, 1)?;
        let facts = facts(0, small(d)?);
        Some(BlockRef {
            stream,
            min,
            max,
            count,
            raw_len,
            offset,
            len,
            directory_len: 0,
            crc,
            bloom_offset,
            bloom_len,
            bloom_crc,
            facts,
        })
    }
}

fn facts(flags: u8, longest_id: u32) -> Facts {
    Facts { others: flags & 1 != 0, uuids: flags & 2 != 0, longest_id }
}

fn streams(d: &mut &[u8]) -> Option<Vec<(Labels, Attributes)>> {
    let mut streams = Vec::new();
    for _ in 0..get_uvarint(d)? {
        let labels = Labels::from_encoded(get_bytes(d)?)?;
        streams.push((labels, get_attributes(d)?));
    }
    Some(streams)
}

impl Index {
    /// The numbers of each stream's blocks, in their order.
    pub(crate) fn blocks_of_streams(&self) -> Vec<Vec<usize>> {
        let mut out = vec![Vec::new(); self.streams.len()];
        for (i, b) in self.blocks.iter().enumerate() {
            if let Some(own) = out.get_mut(b.stream as usize) {
                own.push(i);
            }
        }
        out
    }

    pub(crate) fn decode(mut d: &[u8], words: &[u8], traces: &[u8]) -> Option<Index> {
        let streams = streams(&mut d)?;
        let mut blocks = Vec::new();
        for _ in 0..get_uvarint(&mut d)? {
            blocks.push(BlockRef::decode(&mut d)?);
        }
        let words = Some(Arc::new(terms::Table::decode(words)?));
        let traces = if traces.is_empty() { None } else { Some(Arc::new(summary::Table::decode(traces)?)) };
        Some(Index { streams, blocks, words, traces })
    }

    pub(crate) fn decode_v1(mut d: &[u8]) -> Option<Index> {
        let streams = streams(&mut d)?;
        let mut blocks = Vec::new();
        for _ in 0..get_uvarint(&mut d)? {
            blocks.push(BlockRef::decode_v1(&mut d)?);
        }
        Some(Index { streams, blocks, words: None, traces: None })
    }
}
