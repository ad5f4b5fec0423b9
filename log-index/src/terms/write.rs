//! Pages of words, from what was built and from dictionaries that are merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Builder, Cursor};
use crate::codec::{put_bytes, put_uvarint};
use crate::error::Error;

/// Bytes of words in a page.
const PAGE: usize = 32 << 10;

/// Writes pages: words come in order, each once.
pub(crate) struct Writer<'a> {
    put: Put<'a>,
    blocks: u32,
    words: Vec<u8>,
    postings: Vec<u8>,
    first: Vec<u8>,
    /// For each page: its first word, lengths, where it stands.
    table: Vec<u8>,
    pages: u64,
}

type Put<'a> = Box<dyn FnMut(&[u8]) -> Result<(u64, u32, u32), Error> + 'a>;

impl<'a> Writer<'a> {
    /// `put` stores a page and gives offset, length and checksum. `blocks`: how many there are.
    pub(crate) fn new(blocks: u32, put: impl FnMut(&[u8]) -> Result<(u64, u32, u32), Error> + 'a) -> Self {
        Writer {
            put: Box::new(put),
            blocks,
            words: Vec::new(),
            postings: Vec::new(),
            first: Vec::new(),
            table: Vec::new(),
            pages: 0,
        }
    }

    pub(crate) fn push(&mut self, word: &[u8], blocks: &[u32]) -> Result<(), Error> {
        if self.words.is_empty() {
            self.words.push(b'\n');
            self.first = word.to_vec();
        }
        self.words.extend_from_slice(word);
        self.words.push(b'\n');
        let dense = (self.blocks as usize).div_ceil(8);
        if blocks.len() > dense {
            put_uvarint(&mut self.postings, 0);
            let at = self.postings.len();
            self.postings.resize(at + dense, 0);
            for b in blocks {
                if let Some(byte) = self.postings.get_mut(at + *b as usize / 8) {
                    *byte |= 1 << (b % 8);
                }
            }
        } else {
            put_uvarint(&mut self.postings, blocks.len() as u64);
            let mut last = 0;
            for b in blocks {
                put_uvarint(&mut self.postings, u64::from(b - last));
                last = *b;
            }
        }
        if self.words.len() >= PAGE { self.page() } else { Ok(()) }
    }

    fn page(&mut self) -> Result<(), Error> {
        if self.words.is_empty() {
            return Ok(());
        }
        let words = self.words.len();
        let mut raw = std::mem::take(&mut self.words);
        raw.append(&mut self.postings);
        let packed = zstd::bulk::compress(&raw, 3).map_err(Error::io("a page of words"))?;
        let (offset, len, crc) = (self.put)(&packed)?;
        put_bytes(&mut self.table, &self.first);
        for v in [words as u64, raw.len() as u64, offset, u64::from(len)] {
            put_uvarint(&mut self.table, v);
        }
        self.table.extend_from_slice(&crc.to_le_bytes());
        self.pages += 1;
        raw.clear();
        self.words = raw;
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

/// All words of dictionaries whose blocks were taken over, and of blocks that were written anew. `maps` say what became
/// of each dictionary's blocks: their new numbers, which ascend, or nothing.
pub(crate) fn merge(
    out: &mut Writer<'_>,
    mut parts: Vec<(Cursor, Vec<Option<u32>>)>,
    built: &Builder,
) -> Result<(), Error> {
    let sorted = built.sorted();
    let mut sorted = sorted.iter().filter_map(|i| built.words.get(*i as usize));
    // The next word of what was built, while there is one.
    let mut own = Vec::new();
    let mut next = |own: &mut Vec<u8>| {
        let entry = sorted.next();
        entry.inspect(|e| built.word(e, own))
    };
    let mut entry = next(&mut own);
    let mut heap: BinaryHeap<Reverse<(Vec<u8>, usize)>> = BinaryHeap::new();
    for (i, (c, _)) in parts.iter_mut().enumerate() {
        if let Some(w) = c.next_word()? {
            heap.push(Reverse((w.to_vec(), i)));
        }
    }
    let (mut word, mut blocks, mut new) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        word.clear();
        match (heap.peek(), &entry) {
            (Some(Reverse((w, _))), None) => word.extend_from_slice(w),
            (Some(Reverse((w, _))), Some(_)) if *w < own => word.extend_from_slice(w),
            (_, Some(_)) => word.extend_from_slice(&own),
            (None, None) => return Ok(()),
        }
        blocks.clear();
        while let Some(mut top) = heap.peek_mut() {
            let Reverse((w, i)) = &mut *top;
            if *w != word {
                break;
            }
            let Some((c, map)) = parts.get_mut(*i) else { break };
            blocks.extend(c.blocks().iter().filter_map(|b| map.get(*b as usize).copied().flatten()));
            match c.next_word()? {
                Some(next) => {
                    w.clear();
                    w.extend_from_slice(next);
                }
                None => drop(std::collections::binary_heap::PeekMut::pop(top)),
            }
        }
        if let Some(e) = entry.filter(|_| own == word) {
            built.blocks(e, &mut new);
            blocks.extend_from_slice(&new);
            entry = next(&mut own);
        }
        if !blocks.is_empty() {
            blocks.sort_unstable();
            out.push(&word, &blocks)?;
        }
    }
}
