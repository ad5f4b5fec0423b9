//! The traces of a partition, in order of their ids: where their spans are, and what a list shows of them without
//! reading a span. Format: FORMAT.md, "Traces".

mod read;
mod write;

pub(crate) use read::{Cursor, Table};
pub(crate) use write::{Writer, merge};

use std::collections::HashMap;

use crate::codec::{get_bytes, get_uvarint, get_varint, put_bytes, put_uvarint, put_varint, take};

pub(crate) type Id = [u8; 16];

/// The span that a trace is called after: one without parent, or else the earliest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) is_root: bool,
    pub(crate) start: i64,
    pub(crate) stream: u32,
    pub(crate) name: String,
}

impl Root {
    fn comes_before(&self, other: &Root) -> bool {
        (!self.is_root, self.start) < (!other.is_root, other.start)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Number of the stream, spans, spans with an error.
    pub(crate) streams: Vec<(u32, u32, u32)>,
    pub(crate) root: Option<Root>,
    /// Ascending.
    pub(crate) blocks: Vec<u32>,
}

impl Entry {
    pub(crate) fn add_stream(&mut self, stream: u32, spans: u32, errors: u32) {
        match self.streams.iter_mut().find(|s| s.0 == stream) {
            Some(s) => (s.1, s.2) = (s.1.saturating_add(spans), s.2.saturating_add(errors)),
            None => self.streams.push((stream, spans, errors)),
        }
    }

    pub(crate) fn add_root(&mut self, root: Root) {
        if self.root.as_ref().is_none_or(|r| root.comes_before(r)) {
            self.root = Some(root);
        }
    }

    /// Takes in what another partition knows of the trace.
    fn add(&mut self, other: Entry) {
        if !other.streams.is_empty() {
            (self.start, self.end) = match self.streams.is_empty() {
                true => (other.start, other.end),
                false => (self.start.min(other.start), self.end.max(other.end)),
            };
        }
        other.streams.iter().for_each(|s| self.add_stream(s.0, s.1, s.2));
        if let Some(r) = other.root {
            self.add_root(r);
        }
        self.blocks.extend(other.blocks);
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.start);
        put_uvarint(out, self.end.wrapping_sub(self.start) as u64);
        put_uvarint(out, self.streams.len() as u64);
        for (stream, spans, errors) in &self.streams {
            [stream, spans, errors].iter().for_each(|v| put_uvarint(out, u64::from(**v)));
        }
        match &self.root {
            None => out.push(0),
            Some(r) => {
                out.push(1 + u8::from(r.is_root));
                put_varint(out, r.start.wrapping_sub(self.start));
                put_uvarint(out, u64::from(r.stream));
                put_bytes(out, r.name.as_bytes());
            }
        }
        put_uvarint(out, self.blocks.len() as u64);
        let mut last = 0;
        for b in &self.blocks {
            put_uvarint(out, u64::from(b.wrapping_sub(last)));
            last = *b;
        }
    }

    fn get(d: &mut &[u8]) -> Option<Entry> {
        let small = |d: &mut &[u8]| u32::try_from(get_uvarint(d)?).ok();
        let start = get_varint(d)?;
        let end = start.wrapping_add(get_uvarint(d)? as i64);
        let mut streams = Vec::new();
        for _ in 0..get_uvarint(d)? {
            streams.push((small(d)?, small(d)?, small(d)?));
        }
        let root = match *take(d, 1)?.first()? {
            0 => None,
            flag => Some(Root {
                is_root: flag == 2,
                start: start.wrapping_add(get_varint(d)?),
                stream: small(d)?,
                name: std::str::from_utf8(get_bytes(d)?).ok()?.to_owned(),
            }),
        };
        let (mut blocks, mut last) = (Vec::new(), 0u32);
        for _ in 0..get_uvarint(d)? {
            last = last.checked_add(small(d)?)?;
            blocks.push(last);
        }
        Some(Entry { start, end, streams, root, blocks })
    }
}

/// Traces of blocks that are being written.
#[derive(Default)]
pub(crate) struct Builder {
    pub(crate) all: HashMap<Id, Entry, ahash::RandomState>,
}

impl Builder {
    /// That a block holds spans of a trace. Blocks come in order.
    pub(crate) fn place(&mut self, id: Id, block: u32) -> &mut Entry {
        let e = self.all.entry(id).or_default();
        if e.blocks.last() != Some(&block) {
            e.blocks.push(block);
        }
        e
    }
}

#[cfg(test)]
mod tests;
