//! Rows become columns. Takes records as the WAL has them, so that nothing is decoded but what stands in a column.

use std::collections::{HashMap, HashSet};

use super::{Block, Name, PackedBlock};
use crate::codec::{Value, get_bytes, get_varint, take, visit_attributes};
use crate::column::{Column, Lines, Order, Packer, Presence, Texts, Type, Values};
use crate::config::Kind;
use crate::summary;
use crate::terms;
use crate::tokens;

/// A column being filled, and the rows that have a value.
struct Sparse {
    name: Name,
    rows: Vec<u32>,
    values: Values,
}

/// What a search must know of a block's tokens beside the dictionary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Long words and ids that are no numbers, too many for the dictionary.
    pub(crate) others: bool,
    pub(crate) uuids: bool,
    /// Digits of the longest id that is a number, in hexadecimal or not, and not in the dictionary; `u32::MAX` if there are
    /// many of more than 32. In partitions of the first version of all ids.
    pub(crate) longest_id: u32,
}

/// Bytes of long words and of ids that are no numbers, each once, that the dictionary takes from one block.
const OTHERS: usize = 16 << 10;

/// Digits of the longest usual id. One that is longer could have a usual one as a part: such are looked for in the
/// dictionary while they are few.
const USUAL: usize = 32;

/// Unusual words of a block.
#[derive(Default)]
struct Others<'a> {
    all: HashSet<&'a [u8], ahash::RandomState>,
    bytes: usize,
}

impl<'a> Others<'a> {
    fn add(&mut self, word: &'a [u8]) {
        if self.bytes <= OTHERS && self.all.insert(word) {
            self.bytes += word.len();
        }
    }

    fn few(&self) -> Option<&HashSet<&'a [u8], ahash::RandomState>> {
        (self.bytes <= OTHERS).then_some(&self.all)
    }
}

/// A block ready to be written.
pub(crate) struct Built {
    pub(crate) block: PackedBlock,
    pub(crate) facts: Facts,
    /// Of its ids, each once.
    pub(crate) ids: Vec<u64>,
}

pub(crate) struct Builder {
    kind: Kind,
    times: Vec<i64>,
    text: Texts,
    /// Severities of log records, kinds of spans.
    small: Vec<i64>,
    durations: Vec<i64>,
    fixed: Vec<Sparse>,
    attributes: Vec<Sparse>,
    /// Where an attribute stands, by name; and a guess: the next one is mostly where it was in the record before.
    by_name: HashMap<Box<[u8]>, Vec<usize>, ahash::RandomState>,
    bytes: usize,
}

/// Positions in [`Builder::fixed`].
const TRACE: usize = 0;
const SPAN: usize = 1;
const PARENT: usize = 2;
const STATUS: usize = 3;
const MESSAGE: usize = 4;
const REST: usize = 5;

impl Builder {
    pub(crate) fn new(kind: Kind) -> Builder {
        Builder::with_room(kind, 0)
    }

    /// With room for so many bytes of text.
    pub(crate) fn with_room(kind: Kind, bytes: usize) -> Builder {
        let sparse = |(name, kind)| Sparse { name, rows: Vec::new(), values: Values::new(kind) };
        let fixed = [
            (Name::TraceId, Type::Wide),
            (Name::SpanId, Type::Narrow),
            (Name::ParentId, Type::Narrow),
            (Name::Status, Type::Int),
            (Name::StatusMessage, Type::Text),
            (Name::Rest, Type::Blob),
        ];
        Builder {
            kind,
            times: Vec::new(),
            text: Texts::with_room(bytes),
            small: Vec::new(),
            durations: Vec::new(),
            fixed: fixed.into_iter().map(sparse).collect(),
            attributes: Vec::new(),
            by_name: HashMap::default(),
            bytes: 0,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn times(&self) -> &[i64] {
        &self.times
    }

    /// Of the records as they came.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// More columns are slower to read than to keep apart.
    pub(crate) fn is_wide(&self) -> bool {
        self.attributes.len() > 1000
    }

    fn fixed(&mut self, at: usize, row: u32, put: impl FnOnce(&mut Values)) {
        if let Some(s) = self.fixed.get_mut(at) {
            s.rows.push(row);
            put(&mut s.values);
        }
    }

    fn wide(&mut self, at: usize, row: u32, id: &[u8]) {
        if let Ok(id) = <[u8; 16]>::try_from(id)
            && id != [0; 16]
        {
            self.fixed(at, row, |v| {
                if let Values::Wide(v) = v {
                    v.push(id)
                }
            });
        }
    }

    fn narrow(&mut self, at: usize, row: u32, id: &[u8]) {
        if let Ok(id) = <[u8; 8]>::try_from(id)
            && id != [0; 8]
        {
            self.fixed(at, row, |v| {
                if let Values::Narrow(v) = v {
                    v.push(id)
                }
            });
        }
    }

    /// Adds an encoded record. `None` if it is none, which an earlier check of its frame makes impossible.
    pub(crate) fn push(&mut self, time: i64, data: &[u8]) -> Option<()> {
        let row = self.times.len() as u32;
        let mut d = data;
        let d = &mut d;
        let text = std::str::from_utf8(get_bytes(d)?).ok()?;
        self.times.push(time);
        self.text.push(text);
        self.bytes += data.len();
        let done = match self.kind {
            Kind::Logs => self.log(row, d),
            Kind::Spans => self.span(row, d),
        };
        // A half-read record keeps its text: every column must have its row.
        self.small.resize(self.times.len(), 0);
        if self.kind == Kind::Spans {
            self.durations.resize(self.times.len(), 0);
        }
        done
    }

    fn log(&mut self, row: u32, d: &mut &[u8]) -> Option<()> {
        let flags = *take(d, 1)?.first()?;
        self.small.push(i64::from(flags & 0x1f));
        if flags & 0x80 != 0 {
            self.wide(TRACE, row, take(d, 16)?);
            self.narrow(SPAN, row, take(d, 8)?);
        }
        self.read_attributes(row, d)
    }

    fn span(&mut self, row: u32, d: &mut &[u8]) -> Option<()> {
        self.wide(TRACE, row, take(d, 16)?);
        self.narrow(SPAN, row, take(d, 8)?);
        self.narrow(PARENT, row, take(d, 8)?);
        self.small.push(i64::from(*take(d, 1)?.first()?));
        self.durations.push(get_varint(d)?);
        let status = *take(d, 1)?.first()?;
        if status != 0 {
            self.fixed(STATUS, row, |v| {
                if let Values::Int(v) = v {
                    v.push(i64::from(status))
                }
            });
        }
        if status == 2 {
            let message = std::str::from_utf8(get_bytes(d)?).ok()?;
            self.fixed(MESSAGE, row, |v| {
                if let Values::Text(v) = v {
                    v.push(message)
                }
            });
        }
        self.read_attributes(row, d)?;
        // No events and no links are two noughts.
        if *d != [0, 0] {
            let rest = *d;
            self.fixed(REST, row, |v| {
                if let Values::Blob(v) = v {
                    v.push(rest)
                }
            });
        }
        Some(())
    }

    fn read_attributes(&mut self, row: u32, d: &mut &[u8]) -> Option<()> {
        let mut guess = 0;
        visit_attributes(d, |name, value| {
            let at = self.place(guess, name, kind_of(value))?;
            guess = at + 1;
            let s = self.attributes.get_mut(at)?;
            if s.rows.last() == Some(&row) {
                return Some(());
            }
            s.rows.push(row);
            match (&mut s.values, value) {
                (Values::Bool(v), Value::Bool(b)) => v.push(b),
                (Values::Int(v), Value::Int(i)) => v.push(i),
                (Values::Double(v), Value::Double(f)) => v.push(f),
                (Values::Text(v), Value::Text(t)) => v.push(t),
                _ => return None,
            }
            Some(())
        })
    }

    /// The column of an attribute of this name and type.
    fn place(&mut self, guess: usize, name: &[u8], kind: Type) -> Option<usize> {
        let is = |s: &Sparse| {
            s.values.kind() == kind && matches!(&s.name, Name::Attribute(n) if n.as_bytes() == name)
        };
        if self.attributes.get(guess).is_some_and(is) {
            return Some(guess);
        }
        if let Some(all) = self.by_name.get(name)
            && let Some(at) = all.iter().copied().find(|i| self.attributes.get(*i).is_some_and(is))
        {
            return Some(at);
        }
        let text = std::str::from_utf8(name).ok()?;
        self.attributes.push(Sparse {
            name: Name::Attribute(text.into()),
            rows: Vec::new(),
            values: Values::new(kind),
        });
        let at = self.attributes.len() - 1;
        self.by_name.entry(name.into()).or_default().push(at);
        Some(at)
    }

    /// All columns but the text.
    fn columns(&mut self) -> Vec<(Name, Column)> {
        let count = self.count();
        let mut out = vec![(
            Name::Time,
            Column { present: None, order: Order::Own, values: Values::Int(std::mem::take(&mut self.times)) },
        )];
        let small = Values::Int(std::mem::take(&mut self.small));
        match self.kind {
            Kind::Logs => out.push((Name::Severity, Column::of(None, small))),
            Kind::Spans => {
                out.push((Name::Kind, Column::of(None, small)));
                let durations = Values::Int(std::mem::take(&mut self.durations));
                out.push((Name::Duration, Column::of(None, durations)));
            }
        }
        for s in std::mem::take(&mut self.fixed).into_iter().chain(std::mem::take(&mut self.attributes)) {
            if !s.rows.is_empty() {
                let present = (s.rows.len() < count).then(|| Presence::of(&s.rows, count));
                out.push((s.name, Column::of(present, s.values)));
            }
        }
        out
    }

    /// As a block in memory.
    pub(crate) fn into_block(mut self) -> Block {
        let count = self.count();
        let mut columns = self.columns();
        let text = std::mem::take(&mut self.text);
        columns.push((Name::Text, Column { present: None, order: Order::Own, values: Values::Text(text) }));
        Block::loaded(count, columns)
    }

    /// As bytes; its words go to the dictionary as those of block `number`.
    pub(crate) fn pack(
        mut self,
        packer: &mut Packer,
        dictionary: &mut terms::Builder,
        number: u32,
    ) -> std::io::Result<Built> {
        let count = self.count();
        let (mut facts, mut ids) = (Facts::default(), Vec::new());
        let mut lines = Lines::with_room(self.text.bytes());
        let mut found = Vec::new();
        let (mut others, mut long) = (Others::default(), Others::default());
        let text = std::mem::take(&mut self.text);
        // Names of spans repeat: each is looked at once.
        let names = (self.kind == Kind::Spans).then(|| Column::of(None, Values::Text(text.clone())));
        let text = match &names {
            Some(Column { values: Values::Text(t), .. }) => t.clone(),
            _ => text,
        };
        for line in text.iter() {
            let mut special = false;
            found.clear();
            tokens::each(
                line.as_bytes(),
                |t| match t.kind {
                    tokens::Kind::Word if t.text.len() <= tokens::LONGEST => dictionary.add(t.text, number),
                    tokens::Kind::Word => others.add(t.text),
                    kind => {
                        ids.push(tokens::hash(t.text));
                        found.extend(t.packable());
                        if kind == tokens::Kind::Uuid {
                            facts.uuids = true;
                            return;
                        }
                        match t.is_hex() {
                            true if t.text.len() > USUAL => long.add(t.text),
                            true => facts.longest_id = facts.longest_id.max(t.text.len() as u32),
                            false => others.add(t.text),
                        }
                    }
                },
                &mut special,
            );
            lines.push(line.as_bytes(), special, &found);
        }
        match others.few() {
            Some(all) => all.iter().for_each(|word| dictionary.add_pieces(word, number)),
            None => facts.others = true,
        }
        match long.few() {
            Some(all) => all.iter().for_each(|word| dictionary.add_pieces(word, number)),
            None => facts.longest_id = u32::MAX,
        }
        let column = names.unwrap_or(Column { present: None, order: Order::Own, values: Values::Text(text) });
        // Log records by their trace are found by the filter; spans by the index of traces.
        if self.kind == Kind::Logs
            && let Some(Sparse { values: Values::Wide(all), .. }) = self.fixed.get(TRACE)
        {
            let mut last = None;
            for id in all.iter().filter(|id| last.replace(**id) != Some(**id)) {
                let mut hex = [0; 32];
                hex_of(id, &mut hex);
                ids.push(tokens::hash(&hex));
            }
        }
        let mut packed = Vec::new();
        packed.push((Name::Text, packer.pack(&column, Some(lines), &mut ids)?));
        for (name, c) in self.columns() {
            let p = packer.pack(&c, None, &mut ids)?;
            packed.push((name, p));
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(Built { block: PackedBlock::of(count, packed), facts, ids })
    }
}

fn kind_of(v: Value<'_>) -> Type {
    match v {
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Double(_) => Type::Double,
        Value::Text(_) => Type::Text,
    }
}

fn hex_of(id: &[u8], out: &mut [u8]) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    for (pair, b) in out.chunks_exact_mut(2).zip(id) {
        if let [high, low] = pair {
            *high = DIGITS[usize::from(b >> 4)];
            *low = DIGITS[usize::from(b & 15)];
        }
    }
}

impl Builder {
    /// Adds the spans to their traces. `places_only`: only that this block has some of them.
    pub(crate) fn summarize(&self, stream: u32, block: u32, places_only: bool, to: &mut summary::Builder) {
        let sparse = |at| self.fixed.get(at);
        let Some(Sparse { rows, values: Values::Wide(ids), .. }) = sparse(TRACE) else { return };
        let mut has_parent = sparse(PARENT).map_or(&[][..], |p| p.rows.as_slice());
        let (mut status_rows, status) = match sparse(STATUS) {
            Some(Sparse { rows, values: Values::Int(v), .. }) => (rows.as_slice(), v.as_slice()),
            _ => (&[][..], &[][..]),
        };
        let mut status = status;
        for (row, id) in rows.iter().zip(ids) {
            let e = to.place(*id, block);
            if places_only {
                continue;
            }
            // Both lists are in order of rows, as this one is.
            has_parent = has_parent.get(has_parent.partition_point(|r| r < row)..).unwrap_or(&[]);
            let is_root = has_parent.first() != Some(row);
            let skip = status_rows.partition_point(|r| r < row);
            (status_rows, status) =
                (status_rows.get(skip..).unwrap_or(&[]), status.get(skip..).unwrap_or(&[]));
            let error = status_rows.first() == Some(row) && status.first() == Some(&2);
            let start = self.times.get(*row as usize).copied().unwrap_or(0);
            let end = start.wrapping_add(self.durations.get(*row as usize).copied().unwrap_or(0));
            let first = e.streams.is_empty();
            (e.start, e.end) = if first { (start, end) } else { (e.start.min(start), e.end.max(end)) };
            e.add_stream(stream, 1, u32::from(error));
            if e.root.as_ref().is_none_or(|r| (!is_root, start) < (!r.is_root, r.start)) {
                let name = self.text.get(*row as usize).to_owned();
                e.root = Some(summary::Root { is_root, start, stream, name });
            }
        }
    }
}
