//! One trace by its id, and all of them in order.

use std::sync::Arc;

use super::{Entry, Id};
use crate::codec::{get_uvarint, take};
use crate::column::decompress;
use crate::error::Error;
use crate::partition::Partition;

#[derive(Clone, Debug)]
struct Page {
    first: Id,
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

fn id(d: &mut &[u8]) -> Option<Id> {
    take(d, 16)?.try_into().ok()
}

impl Table {
    pub(crate) fn decode(mut d: &[u8]) -> Option<Table> {
        let d = &mut d;
        let mut pages = Vec::new();
        for _ in 0..get_uvarint(d)? {
            let small = |d: &mut &[u8]| u32::try_from(get_uvarint(d)?).ok();
            let (first, raw, offset, len) = (id(d)?, small(d)?, get_uvarint(d)?, small(d)?);
            let crc = u32::from_le_bytes(take(d, 4)?.try_into().ok()?);
            pages.push(Page { first, raw, offset, len, crc });
        }
        Some(Table { pages })
    }

    fn open(&self, part: &Partition, page: &Page) -> Result<Vec<u8>, Error> {
        let packed = part.read(page.offset, page.len, page.crc, "traces")?;
        decompress(&packed, page.raw as usize).ok_or_else(|| part.damaged("traces"))
    }

    pub(crate) fn get(&self, part: &Partition, wanted: &Id) -> Result<Option<Entry>, Error> {
        let at = self.pages.partition_point(|p| p.first <= *wanted);
        let Some(page) = at.checked_sub(1).and_then(|i| self.pages.get(i)) else { return Ok(None) };
        let raw = self.open(part, page)?;
        let mut d = raw.as_slice();
        while !d.is_empty() {
            let one = id(&mut d).and_then(|i| Some((i, Entry::get(&mut d)?)));
            match one.ok_or_else(|| part.damaged("traces"))? {
                (i, e) if i == *wanted => return Ok(Some(e)),
                (i, _) if i > *wanted => return Ok(None),
                _ => {}
            }
        }
        Ok(None)
    }

    pub(crate) fn cursor(self: &Arc<Self>, part: Arc<Partition>) -> Cursor {
        Cursor { part, table: self.clone(), next: 0, page: Vec::new(), at: 0, entry: Entry::default() }
    }
}

/// All traces in order of ids.
pub(crate) struct Cursor {
    part: Arc<Partition>,
    table: Arc<Table>,
    next: usize,
    page: Vec<u8>,
    at: usize,
    entry: Entry,
}

impl Cursor {
    /// What is known of the trace given last. To be asked once.
    pub(crate) fn entry(&mut self) -> Entry {
        std::mem::take(&mut self.entry)
    }

    pub(crate) fn next_id(&mut self) -> Result<Option<Id>, Error> {
        while self.at >= self.page.len() {
            let Some(page) = self.table.pages.get(self.next) else { return Ok(None) };
            self.page = self.table.open(&self.part, page)?;
            self.at = 0;
            self.next += 1;
        }
        let mut d = self.page.get(self.at..).unwrap_or(&[]);
        let before = d.len();
        let one = id(&mut d).and_then(|i| Some((i, Entry::get(&mut d)?)));
        let (i, e) = one.ok_or_else(|| self.part.damaged("traces"))?;
        self.at += before - d.len();
        self.entry = e;
        Ok(Some(i))
    }
}
