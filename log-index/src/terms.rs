//! The dictionary of a partition: its words in order, and for each the blocks that hold it. Format: FORMAT.md, "Terms".
//!
//! Words stand one after the other in pages, with a line break before and after each, so that a part of a word is found
//! by searching a page as one text.

mod read;
mod write;

pub(crate) use read::{Cursor, Table};
pub(crate) use write::{Writer, merge};

use hashbrown::HashTable;

use crate::tokens::LONGEST;

/// The words of blocks that are being written.
#[derive(Default)]
pub(crate) struct Builder {
    table: HashTable<u32>,
    words: Vec<Entry>,
    /// The words' bytes.
    arena: Vec<u8>,
    /// Blocks of words: each with the position of the one before of the same word.
    chain: Vec<(u32, u32)>,
}

struct Entry {
    hash: u32,
    at: u32,
    len: u8,
    /// The newest block with it, and its place in the chain.
    block: u32,
    last: u32,
}

const NONE: u32 = u32::MAX;
/// The longest word in the dictionary.
const PIECE: usize = u8::MAX as usize;

/// Not written to disk.
fn hash(word: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut h = word.len() as u64;
    let (chunks, rest) = word.as_chunks::<8>();
    for c in chunks {
        h = (h ^ u64::from_le_bytes(*c)).wrapping_mul(K);
        h ^= h >> 32;
    }
    let mut tail = [0; 8];
    for (t, b) in tail.iter_mut().zip(rest) {
        *t = *b;
    }
    h = (h ^ u64::from_le_bytes(tail)).wrapping_mul(K);
    h ^ h >> 29
}

impl Builder {
    /// A word of any length: long ones in pieces, such that any part of [`LONGEST`] bytes is a part of a piece.
    pub(crate) fn add_pieces(&mut self, word: &[u8], block: u32) {
        let mut at = 0;
        while let Some(rest) = word.get(at..) {
            self.add(rest.get(..PIECE).unwrap_or(rest), block);
            if rest.len() <= PIECE {
                return;
            }
            at += PIECE - LONGEST;
        }
    }

    /// A word of a block. Blocks come in order of their numbers. Words are at most [`PIECE`] bytes.
    pub(crate) fn add(&mut self, word: &[u8], block: u32) {
        let mut lower = [0u8; PIECE];
        let Some(lower) = lower.get_mut(..word.len()) else { return };
        for (l, b) in lower.iter_mut().zip(word) {
            *l = b.to_ascii_lowercase();
        }
        let h = hash(lower);
        let (words, arena) = (&self.words, &self.arena);
        let same = |i: &u32| {
            words.get(*i as usize).is_some_and(|e| {
                e.hash == h as u32
                    && usize::from(e.len) == lower.len()
                    && arena.get(e.at as usize..e.at as usize + lower.len()) == Some(&*lower)
            })
        };
        match self.table.find(h, same) {
            Some(i) => {
                if let Some(e) = self.words.get_mut(*i as usize)
                    && e.block != block
                {
                    self.chain.push((block, e.last));
                    (e.block, e.last) = (block, self.chain.len() as u32 - 1);
                }
            }
            None => {
                let i = self.words.len() as u32;
                self.words.push(Entry {
                    hash: h as u32,
                    at: self.arena.len() as u32,
                    len: lower.len() as u8,
                    block,
                    last: self.chain.len() as u32,
                });
                self.arena.extend_from_slice(lower);
                self.chain.push((block, NONE));
                let (words, arena) = (&self.words, &self.arena);
                self.table.insert_unique(h, i, |i| {
                    words.get(*i as usize).map_or(0, |e| {
                        hash(arena.get(e.at as usize..e.at as usize + usize::from(e.len)).unwrap_or(&[]))
                    })
                });
            }
        }
    }

    fn word(&self, e: &Entry) -> &[u8] {
        self.arena.get(e.at as usize..e.at as usize + usize::from(e.len)).unwrap_or(&[])
    }

    /// Positions of all words in order of their bytes.
    fn sorted(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.words.len() as u32).collect();
        order.sort_unstable_by_key(|i| self.words.get(*i as usize).map(|e| self.word(e)));
        order
    }

    /// The blocks of a word, ascending.
    fn blocks(&self, e: &Entry, out: &mut Vec<u32>) {
        out.clear();
        let mut at = e.last;
        while let Some((block, before)) = self.chain.get(at as usize) {
            out.push(*block);
            at = *before;
        }
        out.reverse();
    }
}

#[cfg(test)]
mod tests;
