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
    /// The words' bytes behind the first eight.
    arena: Vec<u8>,
    /// Blocks of words: each with the position of the one before of the same word.
    chain: Vec<(u32, u32)>,
    /// The word at hand behind its first eight bytes, in lower case.
    rest: Vec<u8>,
}

/// A word. Most are of eight bytes or less and stand in their entry whole: they are told apart, and put in order,
/// without a look elsewhere in memory.
struct Entry {
    /// The first eight bytes, the first of them highest, noughts behind a shorter word. No word holds a nought.
    first: u64,
    /// Where its other bytes are in the arena.
    at: u32,
    /// The newest block with it, and its place in the chain.
    block: u32,
    last: u32,
    len: u8,
}

const NONE: u32 = u32::MAX;
/// The longest word in the dictionary.
const PIECE: usize = u8::MAX as usize;
/// Bytes of a word that stand in its entry.
const FIRST: usize = size_of::<u64>();

/// Not written to disk.
fn hash(first: u64, rest: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut h = first.wrapping_mul(K);
    h ^= h >> 32;
    if !rest.is_empty() {
        let (chunks, tail) = rest.as_chunks::<8>();
        for c in chunks {
            h = (h ^ u64::from_le_bytes(*c)).wrapping_mul(K);
            h ^= h >> 32;
        }
        h = (h ^ short(tail)).wrapping_mul(K);
    }
    h = h.wrapping_mul(K);
    h ^ h >> 29
}

/// Up to seven bytes as a number, the first of them lowest.
fn short(bytes: &[u8]) -> u64 {
    let number = |b: &[u8; 4]| u64::from(u32::from_le_bytes(*b));
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        // The two halves overlap, and say the same where they do.
        (Some(head), Some(tail)) => number(head) | number(tail) << (8 * (bytes.len() - 4)),
        _ => bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)),
    }
}

/// Eight bytes with ASCII's capitals made small.
fn lower(w: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let seven = w & (ONES * 0x7f);
    // The high bit of each byte: at least an A; beyond a Z; of ASCII.
    let (from_a, beyond_z) = (seven + ONES * (0x80 - 0x41), seven + ONES * (0x7f - 0x5a));
    let capital = (from_a ^ beyond_z) & !w & (ONES * 0x80);
    w | capital >> 2
}

/// The first eight bytes of a word in lower case, the first of them highest.
fn first(word: &[u8]) -> u64 {
    let all = word.first_chunk::<FIRST>().map_or_else(|| short(word), |c| u64::from_le_bytes(*c));
    lower(all).swap_bytes()
}

impl Entry {
    fn rest<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        let len = usize::from(self.len).saturating_sub(FIRST);
        arena.get(self.at as usize..self.at as usize + len).unwrap_or(&[])
    }
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
        let Ok(len) = u8::try_from(word.len()) else { return };
        let first = first(word);
        self.rest.clear();
        if let Some(rest) = word.get(FIRST..) {
            self.rest.extend_from_slice(rest);
            self.rest.make_ascii_lowercase();
        }
        let (words, arena, rest) = (&self.words, &self.arena, &self.rest);
        let same = |i: &u32| {
            let same =
                |e: &Entry| e.first == first && e.len == len && (rest.is_empty() || e.rest(arena) == rest);
            words.get(*i as usize).is_some_and(same)
        };
        let h = hash(first, rest);
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
                let (i, at, last) =
                    (self.words.len() as u32, self.arena.len() as u32, self.chain.len() as u32);
                self.words.push(Entry { first, at, block, last, len });
                self.arena.extend_from_slice(&self.rest);
                self.chain.push((block, NONE));
                let (words, arena) = (&self.words, &self.arena);
                let of = |e: &Entry| hash(e.first, e.rest(arena));
                self.table.insert_unique(h, i, |i| words.get(*i as usize).map_or(0, of));
            }
        }
    }

    /// A word's bytes.
    fn word(&self, e: &Entry, out: &mut Vec<u8>) {
        out.clear();
        let head = e.first.to_be_bytes();
        out.extend_from_slice(head.get(..usize::from(e.len)).unwrap_or(&head));
        out.extend_from_slice(e.rest(&self.arena));
    }

    /// Positions of all words in order of their bytes.
    fn sorted(&self) -> Vec<u32> {
        let mut order: Vec<(u64, u32)> = self.words.iter().zip(0..).map(|(e, i)| (e.first, i)).collect();
        let rest = |i: u32| self.words.get(i as usize).map(|e| e.rest(&self.arena));
        order.sort_unstable_by(|(a, i), (b, j)| a.cmp(b).then_with(|| rest(*i).cmp(&rest(*j))));
        order.into_iter().map(|(_, i)| i).collect()
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
