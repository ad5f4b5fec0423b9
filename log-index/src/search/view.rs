//! A block's rows that a search found, column by column.

use std::thread::ThreadId;

use signal::{Attributes, Labels, LogRecord, Severity, Span, SpanId, SpanKind, TraceId};

use crate::block::{Block, Name};
use crate::column::{Column, Texts, ValueRef, Values};
use crate::error::Error;

/// Rows of a block, ascending.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rows {
    /// From, to.
    Range(u32, u32),
    Some(Vec<u32>),
}

impl Rows {
    pub(crate) fn len(&self) -> usize {
        match self {
            Rows::Range(from, to) => (to - from) as usize,
            Rows::Some(rows) => rows.len(),
        }
    }

    fn get(&self, i: usize) -> usize {
        match self {
            Rows::Range(from, _) => *from as usize + i,
            Rows::Some(rows) => rows.get(i).map_or(usize::MAX, |r| *r as usize),
        }
    }

    /// Those that are in both.
    pub(crate) fn and(self, mut other: Vec<u32>) -> Rows {
        match self {
            Rows::Range(from, to) => other.retain(|r| *r >= from && *r < to),
            Rows::Some(rows) => other.retain(|r| rows.binary_search(r).is_ok()),
        }
        Rows::Some(other)
    }
}

/// How a span ended, without its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Unset,
    Ok,
    Error,
}

/// Rows of one block of one stream, in order of time, numbered from nought. A column is unpacked when it is first asked
/// for. Errors are damage that checksums found.
pub struct BlockView<'a> {
    labels: &'a Labels,
    resource: &'a Attributes,
    block: Block,
    rows: Rows,
}

impl<'a> BlockView<'a> {
    pub(crate) fn new(
        labels: &'a Labels,
        resource: &'a Attributes,
        block: Block,
        rows: Rows,
    ) -> Result<Self, Error> {
        // Times are asked of every row, and without an error.
        if rows.len() > 0 {
            block.times()?;
        }
        Ok(BlockView { labels, resource, block, rows })
    }

    /// Of the stream.
    pub fn labels(&self) -> &'a Labels {
        self.labels
    }

    /// Of a stream of spans; empty for logs.
    pub fn resource(&self) -> &'a Attributes {
        self.resource
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of the block, whether they were found or not.
    pub(crate) fn count(&self) -> usize {
        self.block.count()
    }

    /// The number of a found row among all of the block.
    pub(crate) fn row(&self, i: usize) -> usize {
        self.rows.get(i)
    }

    /// Nanoseconds; the start of a span.
    pub fn time(&self, i: usize) -> i64 {
        self.block.times().ok().and_then(|t| t.get(self.rows.get(i)).copied()).unwrap_or(0)
    }

    /// A log record's body, a span's name.
    pub fn text(&self, i: usize) -> Result<&str, Error> {
        self.block.text(self.rows.get(i))
    }

    pub fn severity(&self, i: usize) -> Result<Severity, Error> {
        self.block.severity(self.rows.get(i))
    }

    /// Of every row; nanoseconds.
    pub fn times(&self) -> Result<Vec<i64>, Error> {
        let all = self.block.times()?;
        Ok(match &self.rows {
            Rows::Range(from, to) => all.get(*from as usize..*to as usize).unwrap_or(&[]).to_vec(),
            Rows::Some(rows) => rows.iter().filter_map(|r| all.get(*r as usize).copied()).collect(),
        })
    }

    /// Of every row.
    pub fn severities(&self) -> Result<Vec<Severity>, Error> {
        let column = self.block.column(&Name::Severity)?;
        let of = |i| column.and_then(|c| c.int(self.rows.get(i))).unwrap_or(0);
        Ok((0..self.len()).map(|i| Severity(of(i) as u8)).collect())
    }

    /// Of every row, without copying one.
    pub fn into_texts(mut self) -> Result<TextsView, Error> {
        let home = std::thread::current().id();
        let Some(column) = self.block.take(&Name::Text)? else {
            let data = TextData { texts: Texts::default(), home };
            return Ok(TextsView { data, places: vec![(0, 0); self.len()] });
        };
        let row = |i: usize| column.index(self.rows.get(i));
        let Values::Text(texts) = &column.values else { return Err(self.block.damaged("texts")) };
        let places = (0..self.rows.len()).map(|i| row(i).map_or((0, 0), |at| texts.place(at))).collect();
        let texts = match column.values {
            Values::Text(texts) => texts,
            _ => Texts::default(),
        };
        Ok(TextsView { data: TextData { texts, home }, places })
    }

    pub fn trace_id(&self, i: usize) -> Result<TraceId, Error> {
        self.block.trace_id(self.rows.get(i))
    }

    pub fn span_id(&self, i: usize) -> Result<SpanId, Error> {
        self.block.span_id(&Name::SpanId, self.rows.get(i))
    }

    pub fn parent_span_id(&self, i: usize) -> Result<SpanId, Error> {
        self.block.span_id(&Name::ParentId, self.rows.get(i))
    }

    pub fn kind(&self, i: usize) -> Result<SpanKind, Error> {
        Ok(SpanKind::from_number(self.block.int(&Name::Kind, self.rows.get(i))? as i32))
    }

    /// Nanoseconds from a span's start to its end.
    pub fn duration(&self, i: usize) -> Result<i64, Error> {
        self.block.int(&Name::Duration, self.rows.get(i))
    }

    pub fn status(&self, i: usize) -> Result<Status, Error> {
        Ok(match self.block.int(&Name::Status, self.rows.get(i))? {
            1 => Status::Ok,
            2 => Status::Error,
            _ => Status::Unset,
        })
    }

    /// Attributes that some row of the block has.
    pub fn attribute_names(&self) -> Vec<&str> {
        self.block.attribute_names()
    }

    /// An attribute of the records; not of the stream.
    pub fn attribute(&self, name: &str) -> Result<AttributeView<'_>, Error> {
        Ok(AttributeView { columns: self.block.attribute(name)?, rows: &self.rows })
    }

    /// The whole record. Reads every column.
    pub fn log(&self, i: usize) -> Result<LogRecord, Error> {
        self.block.log(self.rows.get(i))
    }

    /// The whole span. Reads every column.
    pub fn span(&self, i: usize) -> Result<Span, Error> {
        self.block.span(self.rows.get(i))
    }
}

/// Texts of a block's rows as they were unpacked.
pub struct TextsView {
    pub data: TextData,
    /// For each row its text's first byte in `data`, and the number of its bytes.
    pub places: Vec<(u32, u32)>,
}

/// Texts one after the other. Their memory is used again by the thread that unpacked them, if it is the last to have it.
pub struct TextData {
    texts: Texts,
    home: ThreadId,
}

impl AsRef<str> for TextData {
    fn as_ref(&self) -> &str {
        self.texts.data()
    }
}

impl AsRef<[u8]> for TextData {
    fn as_ref(&self) -> &[u8] {
        self.texts.data().as_bytes()
    }
}

impl Drop for TextData {
    fn drop(&mut self) {
        // A thread that unpacks nothing would keep it for ever.
        if std::thread::current().id() != self.home {
            drop(self.texts.take_data());
        }
    }
}

/// One attribute of a block's rows.
pub struct AttributeView<'a> {
    /// One for each type that it has.
    columns: Vec<&'a Column>,
    rows: &'a Rows,
}

impl<'a> AttributeView<'a> {
    /// No row of the block has it.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    pub fn get(&self, i: usize) -> Option<ValueRef<'a>> {
        let row = self.rows.get(i);
        self.columns.iter().find_map(|c| c.value(row))
    }
}

impl Block {
    /// Rows whose text holds what is looked for.
    pub(crate) fn with_text(&self, finder: &memchr::memmem::Finder<'_>) -> Result<Vec<u32>, Error> {
        let Some(c) = self.column(&Name::Text)? else { return Ok(Vec::new()) };
        let Values::Text(texts) = &c.values else { return Ok(Vec::new()) };
        let found = texts.with(finder);
        Ok(match &c.order {
            crate::column::Order::Own => found,
            _ => (0..self.count() as u32)
                .filter(|r| c.index(*r as usize).is_some_and(|i| found.binary_search(&(i as u32)).is_ok()))
                .collect(),
        })
    }
}
