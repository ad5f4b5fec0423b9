//! Blocks of the first version: rows, all packed as one.

use std::sync::Arc;

use super::{BlockRef, Partition};
use crate::block::{Block, Builder};
use crate::codec::{get_uvarint, get_varint, take};
use crate::column::decompress;
use crate::error::Error;

impl Partition {
    pub(super) fn block_v1(self: &Arc<Self>, b: &BlockRef) -> Result<Block, Error> {
        let packed = self.read(b.offset, b.len, b.crc, "block")?;
        let raw = decompress(&packed, b.raw_len as usize).ok_or_else(|| self.damaged("block"))?;
        let parse = || {
            let mut d = raw.as_slice();
            let (mut times, mut time) = (Vec::new(), 0i64);
            for _ in 0..b.count {
                time = time.wrapping_add(get_varint(&mut d)?);
                times.push(time);
            }
            let mut lens = Vec::new();
            for _ in 0..b.count {
                lens.push(usize::try_from(get_uvarint(&mut d)?).ok()?);
            }
            let mut rows = Builder::new(self.kind);
            for (time, len) in times.into_iter().zip(lens) {
                rows.push(time, take(&mut d, len)?)?;
            }
            Some(rows.into_block())
        };
        parse().ok_or_else(|| self.damaged("block"))
    }
}
