//! Which blocks hold a word, and all words in order.

use std::sync::Arc;

use memchr::memmem;

use crate::codec::{get_bytes, get_uvarint, take};
use crate::column::decompress;
use crate::error::Error;
use crate::partition::Partition;
use crate::tokens::Place;

#[derive(Clone, Debug)]
struct Page {
    first: Box<[u8]>,
    words: u32,
    raw: u32,
    offset: u64,
    len: u32,
    crc: u32,
}

/// Where the pages stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pages: Vec<Page>,
}

/// An unpacked page: words, then their blocks.
struct Open {
    raw: Vec<u8>,
    words: usize,
}

impl Table {
    pub(crate) fn decode(mut d: &[u8]) -> Option<Table> {
        let d = &mut d;
        let n = get_uvarint(d)?;
        let mut pages = Vec::new();
        for _ in 0..n {
            let first = get_bytes(d)?.into();
            let small = |d: &mut &[u8]| u32::try_from(get_uvarint(d)?).ok();
            let (words, raw) = (small(d)?, small(d)?);
            let (offset, len) = (get_uvarint(d)?, small(d)?);
            let crc = u32::from_le_bytes(take(d, 4)?.try_into().ok()?);
            pages.push(Page { first, words, raw, offset, len, crc });
        }
        Some(Table { pages })
    }

    fn open(&self, part: &Partition, page: &Page) -> Result<Open, Error> {
        let packed = part.read(page.offset, page.len, page.crc, "words")?;
        let raw = decompress(&packed, page.raw as usize).ok_or_else(|| part.damaged("words"))?;
        if page.words > page.raw {
            return Err(part.damaged("words"));
        }
        Ok(Open { raw, words: page.words as usize })
    }

    /// Marks the blocks with a token in which `word`, in lower case, stands like that.
    pub(crate) fn mark(
        &self,
        part: &Partition,
        place: Place,
        word: &[u8],
        blocks: &mut [bool],
    ) -> Result<(), Error> {
        let mut needle = Vec::with_capacity(word.len() + 2);
        if matches!(place, Place::Whole | Place::Start) {
            needle.push(b'\n');
        }
        needle.extend_from_slice(word);
        if matches!(place, Place::Whole | Place::End) {
            needle.push(b'\n');
        }
        let finder = memmem::Finder::new(&needle);
        let mut pages = self.pages.as_slice();
        if matches!(place, Place::Whole | Place::Start) {
            // From the page in which it would begin.
            let from = pages.partition_point(|p| *p.first <= *word).saturating_sub(1);
            pages = pages.get(from..).unwrap_or(&[]);
            let beyond = |p: &Page| match place {
                Place::Whole => *p.first > *word,
                _ => *p.first > *word && !p.first.starts_with(word),
            };
            let to = pages.iter().position(beyond).unwrap_or(pages.len());
            pages = pages.get(..to).unwrap_or(&[]);
        }
        for page in pages {
            let open = self.open(part, page)?;
            open.mark(&finder, blocks).ok_or_else(|| part.damaged("words"))?;
        }
        Ok(())
    }

    /// `count`: blocks of the partition.
    pub(crate) fn cursor(self: &Arc<Self>, part: Arc<Partition>, count: usize) -> Cursor {
        Cursor {
            part,
            table: self.clone(),
            next: 0,
            page: None,
            at: 0,
            postings: 0,
            word: Vec::new(),
            blocks: Vec::new(),
            count,
        }
    }
}

/// The blocks of the next word, given one by one.
fn postings(d: &mut &[u8], blocks: usize, mut each: impl FnMut(usize)) -> Option<()> {
    match get_uvarint(d)? {
        0 => {
            for (i, byte) in take(d, blocks.div_ceil(8))?.iter().enumerate() {
                let mut bits = *byte;
                while bits != 0 {
                    each(i * 8 + bits.trailing_zeros() as usize);
                    bits &= bits - 1;
                }
            }
        }
        n => {
            let mut last = 0u64;
            for _ in 0..n {
                last = last.checked_add(get_uvarint(d)?)?;
                each(usize::try_from(last).ok()?);
            }
        }
    }
    Some(())
}

impl Open {
    fn mark(&self, finder: &memmem::Finder<'_>, blocks: &mut [bool]) -> Option<()> {
        let (words, mut posts) = self.raw.split_at_checked(self.words)?;
        // Words that come before the first hit are skipped by counting line breaks.
        let (mut at, mut passed) = (0, 0usize);
        let mut done = 0usize;
        let count = blocks.len();
        while let Some(hit) = words.get(at..).and_then(|w| finder.find(w)) {
            // The word begins behind the line break that is at the hit or before it.
            let hit = at + hit;
            let inside = if words.get(hit) == Some(&b'\n') { hit + 1 } else { hit };
            passed += memchr::memchr_iter(b'\n', words.get(at..inside)?).count();
            let end = inside + memchr::memchr(b'\n', words.get(inside..)?)?;
            while done + 1 < passed {
                postings(&mut posts, count, |_| {})?;
                done += 1;
            }
            postings(&mut posts, count, |b| {
                if let Some(m) = blocks.get_mut(b) {
                    *m = true
                }
            })?;
            done += 1;
            // The line break at the end is the next word's beginning; it has been counted if we step behind it.
            at = end;
        }
        Some(())
    }
}

/// All words in order.
pub(crate) struct Cursor {
    part: Arc<Partition>,
    table: Arc<Table>,
    next: usize,
    page: Option<Open>,
    /// In the page: where the next word begins, and its blocks.
    at: usize,
    postings: usize,
    word: Vec<u8>,
    blocks: Vec<u32>,
    /// Blocks of the partition.
    count: usize,
}

impl Cursor {
    /// The blocks of the word given last, ascending.
    pub(crate) fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    pub(crate) fn next_word(&mut self) -> Result<Option<&[u8]>, Error> {
        loop {
            if let Some(open) = &self.page
                && self.at < open.words
            {
                self.step().ok_or_else(|| self.part.damaged("words"))?;
                return Ok(Some(&self.word));
            }
            let Some(page) = self.table.pages.get(self.next) else { return Ok(None) };
            let open = self.table.open(&self.part, page)?;
            (self.at, self.postings) = (1, open.words);
            self.page = Some(open);
            self.next += 1;
        }
    }

    fn step(&mut self) -> Option<()> {
        let open = self.page.as_ref()?;
        let words = open.raw.get(self.at..open.words)?;
        let len = memchr::memchr(b'\n', words)?;
        self.word.clear();
        self.word.extend_from_slice(words.get(..len)?);
        self.at += len + 1;
        let mut d = open.raw.get(self.postings..)?;
        let before = d.len();
        self.blocks.clear();
        let blocks = &mut self.blocks;
        postings(&mut d, self.count, |b| blocks.push(b as u32))?;
        self.postings += before - d.len();
        Some(())
    }
}
