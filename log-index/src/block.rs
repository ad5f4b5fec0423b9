//! A block: records of one stream in columns, in order of time. Each column is unpacked when it is first asked for.

mod build;

use std::cell::OnceCell;
use std::sync::Arc;

use signal::{Attributes, LogRecord, Severity, Span, SpanId, SpanKind, SpanStatus, Timestamp, TraceId};

pub(crate) use build::{Builder, Facts};

use crate::codec::{get_bytes, get_events, get_uvarint, put_bytes, put_events, put_uvarint, take};
use crate::column::{Column, Packed, Type, ValueRef, Values, unpack};
use crate::error::Error;
use crate::partition::Partition;

/// What a column is of. The numbers stand in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Time,
    /// A log record's body, a span's name.
    Text,
    Severity,
    TraceId,
    SpanId,
    ParentId,
    Kind,
    /// End minus start.
    Duration,
    /// 1: ok, 2: error; absent: unset.
    Status,
    StatusMessage,
    /// Events and links of a span, as in a WAL record.
    Rest,
    Attribute(Box<str>),
}

impl Name {
    fn number(&self) -> u8 {
        match self {
            Name::Time => 0,
            Name::Text => 1,
            Name::Severity => 2,
            Name::TraceId => 3,
            Name::SpanId => 4,
            Name::ParentId => 5,
            Name::Kind => 6,
            Name::Duration => 7,
            Name::Status => 8,
            Name::StatusMessage => 9,
            Name::Rest => 10,
            Name::Attribute(_) => 16,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.number());
        if let Name::Attribute(n) = self {
            put_bytes(out, n.as_bytes());
        }
    }

    fn get(d: &mut &[u8]) -> Option<Name> {
        Some(match *take(d, 1)?.first()? {
            0 => Name::Time,
            1 => Name::Text,
            2 => Name::Severity,
            3 => Name::TraceId,
            4 => Name::SpanId,
            5 => Name::ParentId,
            6 => Name::Kind,
            7 => Name::Duration,
            8 => Name::Status,
            9 => Name::StatusMessage,
            10 => Name::Rest,
            16 => Name::Attribute(std::str::from_utf8(get_bytes(d)?).ok()?.into()),
            _ => return None,
        })
    }
}

/// Where a column's bytes stand, from the block's beginning.
#[derive(Clone, Debug)]
struct Place {
    kind: Type,
    flags: u8,
    raw_len: u32,
    main_len: u32,
    offset: u32,
    len: u32,
    crc: u32,
}

struct Slot {
    name: Name,
    /// `None` for columns that were never packed.
    place: Option<Place>,
    column: OnceCell<Column>,
}

pub(crate) struct Block {
    count: usize,
    slots: Vec<Slot>,
    /// The file, and where in it the block begins.
    source: Option<(Arc<Partition>, u64)>,
}

/// A packed block: its columns one after the other, and the directory of them.
#[derive(Default)]
pub(crate) struct PackedBlock {
    pub(crate) data: Vec<u8>,
    pub(crate) directory: Vec<u8>,
}

impl PackedBlock {
    /// Columns must all be added before the directory is written.
    fn of(count: usize, columns: Vec<(Name, Packed)>) -> PackedBlock {
        let mut b = PackedBlock::default();
        put_uvarint(&mut b.directory, count as u64);
        put_uvarint(&mut b.directory, columns.len() as u64);
        for (name, p) in columns {
            name.put(&mut b.directory);
            b.directory.extend_from_slice(&[p.kind as u8, p.flags]);
            for v in [p.raw_len, p.main_len, p.bytes.len() as u32] {
                put_uvarint(&mut b.directory, u64::from(v));
            }
            b.directory.extend_from_slice(&crc32fast::hash(&p.bytes).to_le_bytes());
            b.data.extend_from_slice(&p.bytes);
        }
        b
    }
}

impl Block {
    /// A block of a file from its directory. `None` if it is no directory.
    pub(crate) fn open(mut d: &[u8], count: usize, part: Arc<Partition>, at: u64) -> Option<Block> {
        let d = &mut d;
        let small = |d: &mut &[u8]| u32::try_from(get_uvarint(d)?).ok();
        (get_uvarint(d)? == count as u64).then_some(())?;
        let n = get_uvarint(d)?;
        let (mut slots, mut offset) = (Vec::new(), 0u32);
        for _ in 0..n {
            let name = Name::get(d)?;
            let kind = Type::from_number(*take(d, 1)?.first()?)?;
            let flags = *take(d, 1)?.first()?;
            let (raw_len, main_len, len) = (small(d)?, small(d)?, small(d)?);
            let crc = u32::from_le_bytes(take(d, 4)?.try_into().ok()?);
            let place = Place { kind, flags, raw_len, main_len, offset, len, crc };
            offset = offset.checked_add(len)?;
            slots.push(Slot { name, place: Some(place), column: OnceCell::new() });
        }
        d.is_empty().then_some(Block { count, slots, source: Some((part, at)) })
    }

    /// Whether the columns are those that the directory is of.
    pub(crate) fn check(mut d: &[u8], columns: &[u8]) -> Option<()> {
        let d = &mut d;
        let mut rest = columns;
        get_uvarint(d)?;
        for _ in 0..get_uvarint(d)? {
            Name::get(d)?;
            take(d, 2)?;
            let (_, _, len) = (get_uvarint(d)?, get_uvarint(d)?, get_uvarint(d)?);
            let crc = u32::from_le_bytes(take(d, 4)?.try_into().ok()?);
            (crc32fast::hash(take(&mut rest, usize::try_from(len).ok()?)?) == crc).then_some(())?;
        }
        rest.is_empty().then_some(())
    }

    /// A block that is in memory whole.
    fn loaded(count: usize, columns: Vec<(Name, Column)>) -> Block {
        let slot = |(name, column)| Slot { name, place: None, column: OnceCell::from(column) };
        Block { count, slots: columns.into_iter().map(slot).collect(), source: None }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    fn load<'a>(&self, slot: &'a Slot) -> Result<&'a Column, Error> {
        if let Some(c) = slot.column.get() {
            return Ok(c);
        }
        let (Some(p), Some((part, at))) = (&slot.place, &self.source) else {
            unreachable!("a column is in memory or in a file")
        };
        let bytes = part.read(at + u64::from(p.offset), p.len, p.crc, "column")?;
        let packed = Packed { kind: p.kind, flags: p.flags, raw_len: p.raw_len, main_len: p.main_len, bytes };
        let column = unpack(&packed, self.count).ok_or_else(|| part.damaged("column"))?;
        Ok(slot.column.get_or_init(|| column))
    }

    pub(crate) fn column(&self, name: &Name) -> Result<Option<&Column>, Error> {
        self.slots.iter().find(|s| s.name == *name).map(|s| self.load(s)).transpose()
    }

    /// A column for good: it is not there for those who ask later.
    pub(crate) fn take(&mut self, name: &Name) -> Result<Option<Column>, Error> {
        self.column(name)?;
        Ok(self.slots.iter_mut().find(|s| s.name == *name).and_then(|s| s.column.take()))
    }

    pub(crate) fn times(&self) -> Result<&[i64], Error> {
        match self.column(&Name::Time)?.map(|c| &c.values) {
            Some(Values::Int(v)) if v.len() == self.count => Ok(v),
            _ => Err(self.damaged("times")),
        }
    }

    pub(crate) fn damaged(&self, what: &str) -> Error {
        match &self.source {
            Some((part, _)) => part.damaged(what),
            None => Error::Damaged { path: "memory".into(), what: what.to_owned() },
        }
    }

    /// Names of all attributes, each once.
    pub(crate) fn attribute_names(&self) -> Vec<&str> {
        let mut out: Vec<&str> = Vec::new();
        for s in &self.slots {
            if let Name::Attribute(n) = &s.name
                && !out.contains(&&**n)
            {
                out.push(n);
            }
        }
        out
    }

    /// The columns of an attribute: one for each type that it has in this block.
    pub(crate) fn attribute<'a>(&'a self, name: &str) -> Result<Vec<&'a Column>, Error> {
        let is = |s: &&Slot| matches!(&s.name, Name::Attribute(n) if **n == *name);
        self.slots.iter().filter(is).map(|s| self.load(s)).collect()
    }

    fn attributes(&self, row: usize) -> Result<Attributes, Error> {
        let mut out = Vec::new();
        for s in &self.slots {
            if let Name::Attribute(n) = &s.name
                && let Some(v) = self.load(s)?.value(row)
            {
                out.push((n.to_string(), v.to_value()));
            }
        }
        Ok(Attributes(out))
    }

    pub(crate) fn text(&self, row: usize) -> Result<&str, Error> {
        Ok(self.column(&Name::Text)?.and_then(|c| c.text(row)).unwrap_or(""))
    }

    pub(crate) fn trace_id(&self, row: usize) -> Result<TraceId, Error> {
        Ok(self.column(&Name::TraceId)?.and_then(|c| c.wide(row)).map_or(TraceId::INVALID, TraceId))
    }

    pub(crate) fn span_id(&self, name: &Name, row: usize) -> Result<SpanId, Error> {
        Ok(self.column(name)?.and_then(|c| c.narrow(row)).map_or(SpanId::INVALID, SpanId))
    }

    pub(crate) fn int(&self, name: &Name, row: usize) -> Result<i64, Error> {
        Ok(self.column(name)?.and_then(|c| c.int(row)).unwrap_or(0))
    }

    pub(crate) fn severity(&self, row: usize) -> Result<Severity, Error> {
        Ok(Severity(self.int(&Name::Severity, row)? as u8))
    }

    pub(crate) fn log(&self, row: usize) -> Result<LogRecord, Error> {
        Ok(LogRecord {
            timestamp: Timestamp(self.times()?.get(row).copied().unwrap_or(0)),
            severity: self.severity(row)?,
            body: self.text(row)?.to_owned(),
            attributes: self.attributes(row)?,
            trace_id: self.trace_id(row)?,
            span_id: self.span_id(&Name::SpanId, row)?,
        })
    }

    pub(crate) fn span(&self, row: usize) -> Result<Span, Error> {
        let start = self.times()?.get(row).copied().unwrap_or(0);
        let message = self.column(&Name::StatusMessage)?.and_then(|c| c.text(row)).unwrap_or("");
        let rest = self.column(&Name::Rest)?.and_then(|c| c.blob(row));
        let (events, links) = match rest {
            Some(mut d) => get_events(&mut d, start).ok_or_else(|| self.damaged("events"))?,
            None => Default::default(),
        };
        Ok(Span {
            trace_id: self.trace_id(row)?,
            span_id: self.span_id(&Name::SpanId, row)?,
            parent_span_id: self.span_id(&Name::ParentId, row)?,
            name: self.text(row)?.to_owned(),
            kind: SpanKind::from_number(self.int(&Name::Kind, row)? as i32),
            start: Timestamp(start),
            end: Timestamp(start.wrapping_add(self.int(&Name::Duration, row)?)),
            status: match self.int(&Name::Status, row)? {
                1 => SpanStatus::Ok,
                2 => SpanStatus::Error(message.to_owned()),
                _ => SpanStatus::Unset,
            },
            attributes: self.attributes(row)?,
            events,
            links,
        })
    }

    /// Appends the record as a WAL record has it: for a block that is written anew.
    pub(crate) fn encode_row(&self, kind: crate::Kind, row: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        match kind {
            crate::Kind::Logs => {
                put_bytes(out, self.text(row)?.as_bytes());
                let (trace, span) = (self.trace_id(row)?, self.span_id(&Name::SpanId, row)?);
                let has = trace.is_valid() || span.is_valid();
                out.push(self.severity(row)?.0 & 0x1f | if has { 0x80 } else { 0 });
                if has {
                    out.extend_from_slice(&trace.0);
                    out.extend_from_slice(&span.0);
                }
                self.encode_attributes(row, out)
            }
            crate::Kind::Spans => {
                put_bytes(out, self.text(row)?.as_bytes());
                out.extend_from_slice(&self.trace_id(row)?.0);
                out.extend_from_slice(&self.span_id(&Name::SpanId, row)?.0);
                out.extend_from_slice(&self.span_id(&Name::ParentId, row)?.0);
                out.push(self.int(&Name::Kind, row)? as u8);
                crate::codec::put_varint(out, self.int(&Name::Duration, row)?);
                let status = self.int(&Name::Status, row)? as u8;
                out.push(status);
                if status == 2 {
                    let message = self.column(&Name::StatusMessage)?.and_then(|c| c.text(row)).unwrap_or("");
                    put_bytes(out, message.as_bytes());
                }
                self.encode_attributes(row, out)?;
                match self.column(&Name::Rest)?.and_then(|c| c.blob(row)) {
                    Some(rest) => out.extend_from_slice(rest),
                    None => put_events(out, &[], &[], 0),
                }
                Ok(())
            }
        }
    }

    fn encode_attributes(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut values: Vec<(&str, ValueRef<'_>)> = Vec::new();
        for s in &self.slots {
            if let Name::Attribute(n) = &s.name
                && let Some(v) = self.load(s)?.value(row)
            {
                values.push((n, v));
            }
        }
        crate::codec::put_attribute_refs(out, &values);
        Ok(())
    }
}
