//! Pages of traces, from what was built and from partitions that are merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Builder, Cursor, Entry, Id, Root};
use crate::codec::put_uvarint;
use crate::error::Error;

const PAGE: usize = 32 << 10;

type Put<'a> = Box<dyn FnMut(&[u8]) -> Result<(u64, u32, u32), Error> + 'a>;

/// Writes pages: traces come in order of ids, each once.
pub(crate) struct Writer<'a> {
    put: Put<'a>,
    page: Vec<u8>,
    first: Id,
    /// For each page: its first id, its length, where it stands.
    table: Vec<u8>,
    pages: u64,
}

impl<'a> Writer<'a> {
    /// `put` stores a page and gives offset, length and checksum.
    pub(crate) fn new(put: impl FnMut(&[u8]) -> Result<(u64, u32, u32), Error> + 'a) -> Self {
        Writer { put: Box::new(put), page: Vec::new(), first: Id::default(), table: Vec::new(), pages: 0 }
    }

    pub(crate) fn push(&mut self, id: Id, e: &Entry) -> Result<(), Error> {
        if self.page.is_empty() {
            self.first = id;
        }
        self.page.extend_from_slice(&id);
        e.put(&mut self.page);
        if self.page.len() >= PAGE { self.page() } else { Ok(()) }
    }

    fn page(&mut self) -> Result<(), Error> {
        if self.page.is_empty() {
            return Ok(());
        }
        let packed = zstd::bulk::compress(&self.page, 3).map_err(Error::io("a page of traces"))?;
        let (offset, len, crc) = (self.put)(&packed)?;
        self.table.extend_from_slice(&self.first);
        for v in [self.page.len() as u64, offset, u64::from(len)] {
            put_uvarint(&mut self.table, v);
        }
        self.table.extend_from_slice(&crc.to_le_bytes());
        self.pages += 1;
        self.page.clear();
        Ok(())
    }

    /// The table of pages.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, Error> {
        self.page()?;
        let mut out = Vec::new();
        put_uvarint(&mut out, self.pages);
        out.extend_from_slice(&self.table);
        Ok(out)
    }
}

/// A partition's traces, and what became of its blocks and streams.
type Part = (Cursor, Vec<Option<u32>>, Vec<Option<u32>>);

/// All traces of partitions that were taken over, and of blocks that were written anew.
pub(crate) fn merge(out: &mut Writer<'_>, mut parts: Vec<Part>, built: Builder) -> Result<(), Error> {
    let mut built: Vec<(Id, Entry)> = built.all.into_iter().collect();
    built.sort_unstable_by_key(|(id, _)| *id);
    let mut built = built.into_iter().peekable();
    let mut heap: BinaryHeap<Reverse<(Id, usize)>> = BinaryHeap::new();
    for (i, (c, _, _)) in parts.iter_mut().enumerate() {
        if let Some(id) = c.next_id()? {
            heap.push(Reverse((id, i)));
        }
    }
    loop {
        let first = heap.peek().map(|Reverse((id, _))| *id);
        let Some(id) = first.into_iter().chain(built.peek().map(|(id, _)| *id)).min() else { return Ok(()) };
        let mut all = Entry::default();
        while let Some(Reverse((_, i))) = heap.peek().filter(|Reverse((i, _))| *i == id).copied() {
            heap.pop();
            let Some((c, blocks, streams)) = parts.get_mut(i) else { continue };
            all.add(moved(c.entry(), blocks, streams));
            if let Some(next) = c.next_id()? {
                heap.push(Reverse((next, i)));
            }
        }
        if let Some((_, e)) = built.next_if(|(i, _)| *i == id) {
            all.add(e);
        }
        all.blocks.sort_unstable();
        all.blocks.dedup();
        out.push(id, &all)?;
    }
}

/// With the numbers that blocks and streams have now.
fn moved(e: Entry, blocks: &[Option<u32>], streams: &[Option<u32>]) -> Entry {
    let stream = |s: u32| streams.get(s as usize).copied().flatten();
    Entry {
        start: e.start,
        end: e.end,
        streams: e.streams.iter().filter_map(|(s, n, errors)| Some((stream(*s)?, *n, *errors))).collect(),
        root: e.root.and_then(|r| Some(Root { stream: stream(r.stream)?, ..r })),
        blocks: e.blocks.iter().filter_map(|b| blocks.get(*b as usize).copied().flatten()).collect(),
    }
}
