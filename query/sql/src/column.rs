//! Rows to Arrow: builders of the columns that a plan wants, and the channel their batches leave by.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::builder::{
    Float64Builder, Int64Builder, MapBuilder, StringBuilder, StringDictionaryBuilder, StringViewBuilder,
    TimestampMillisecondBuilder, TimestampNanosecondBuilder,
};
use arrow::array::{
    ArrayRef, RecordBatch, RecordBatchOptions, StringViewArray, TimestampNanosecondArray, UInt32Array,
};
use arrow::buffer::Buffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, SchemaRef, TimeUnit};
use bytes::Bytes;
use datafusion::error::DataFusionError;
use log_index::TextsView;
use signal::Attributes;
use tokio::sync::mpsc::Sender;

use crate::metrics::{METRICS, TableLabel};

/// A batch leaves with so many rows …
const ROWS: usize = 8192;
/// … or so many bytes of text, whichever comes first.
const BYTES: usize = 4 << 20;
/// A text that so many rows share is stored once.
const SHARED: usize = 16;

/// Arrow without a time zone database knows offsets only.
const UTC: &str = "+00:00";

pub(crate) fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8View, true)
}

/// Text of which there are few, each stored once a batch.
pub(crate) fn dictionary(name: &str) -> Field {
    let kind = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Field::new(name, kind, true)
}

pub(crate) fn integer(name: &str) -> Field {
    Field::new(name, DataType::Int64, false)
}

pub(crate) fn double(name: &str) -> Field {
    Field::new(name, DataType::Float64, false)
}

pub(crate) fn millis(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())), false)
}

pub(crate) fn nanos(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())), true)
}

pub(crate) fn map(name: &str) -> Field {
    let fields = Fields::from(vec![
        Field::new("keys", DataType::Utf8, false),
        Field::new("values", DataType::Utf8, true),
    ]);
    let entries = Field::new("entries", DataType::Struct(fields), false);
    Field::new(name, DataType::Map(Arc::new(entries), false), false)
}

/// One column under construction. A method that the column's type does not have is a mistake of the table's code.
pub(crate) enum Column {
    Text(StringViewBuilder),
    Dictionary(Box<StringDictionaryBuilder<Int32Type>>),
    Double(Float64Builder),
    Integer(Int64Builder),
    Millis(TimestampMillisecondBuilder),
    Nanos(TimestampNanosecondBuilder),
    Map(Box<MapBuilder<StringBuilder, StringBuilder>>),
}

impl Column {
    fn new(t: &DataType) -> Column {
        match t {
            DataType::Dictionary(..) => Column::Dictionary(Box::default()),
            DataType::Float64 => Column::Double(Float64Builder::new()),
            DataType::Int64 => Column::Integer(Int64Builder::new()),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Column::Millis(TimestampMillisecondBuilder::new().with_data_type(t.clone()))
            }
            DataType::Timestamp(..) => {
                Column::Nanos(TimestampNanosecondBuilder::new().with_data_type(t.clone()))
            }
            DataType::Map(..) => {
                Column::Map(Box::new(MapBuilder::new(None, StringBuilder::new(), StringBuilder::new())))
            }
            _ => Column::Text(StringViewBuilder::new()),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Column::Text(b) => Arc::new(b.finish()),
            Column::Dictionary(b) => Arc::new(b.finish()),
            Column::Double(b) => Arc::new(b.finish()),
            Column::Integer(b) => Arc::new(b.finish()),
            Column::Millis(b) => Arc::new(b.finish()),
            Column::Nanos(b) => Arc::new(b.finish()),
            Column::Map(b) => Arc::new(b.finish()),
        }
    }

    /// The same text for `n` rows; an empty one is NULL, as an absent label is. Gives the bytes it took.
    pub(crate) fn texts(&mut self, v: &str, n: usize) -> usize {
        let Column::Text(b) = self else { unreachable!("the schema says text") };
        if v.is_empty() {
            (0..n).for_each(|_| b.append_null());
            return 0;
        }
        if n >= SHARED && v.len() > 12 {
            let block = b.append_block(Buffer::from(v.as_bytes()));
            let len = u32::try_from(v.len()).expect("a label fits in 4 GiB");
            for _ in 0..n {
                b.try_append_view(block, 0, len).expect("the block holds exactly this text");
            }
            return v.len();
        }
        (0..n).for_each(|_| b.append_value(v));
        v.len() * n
    }

    /// The same text for `n` rows, by its number.
    pub(crate) fn repeat(&mut self, v: Option<&str>, n: usize) -> usize {
        let Column::Dictionary(b) = self else { unreachable!("the schema says dictionary") };
        match v {
            Some(v) => {
                b.append_n(v, n).expect("a batch has fewer texts than there are numbers");
                4 * n + v.len()
            }
            None => {
                b.append_nulls(n);
                4 * n
            }
        }
    }

    pub(crate) fn text(&mut self, v: &str) -> usize {
        self.texts(v, 1)
    }

    pub(crate) fn integer(&mut self, v: i64) -> usize {
        let Column::Integer(b) = self else { unreachable!("the schema says integer") };
        b.append_value(v);
        0
    }

    pub(crate) fn doubles(&mut self, v: &[f64]) -> usize {
        let Column::Double(b) = self else { unreachable!("the schema says double") };
        b.append_slice(v);
        0
    }

    pub(crate) fn millis(&mut self, v: &[i64]) -> usize {
        let Column::Millis(b) = self else { unreachable!("the schema says milliseconds") };
        b.append_slice(v);
        0
    }

    pub(crate) fn nanos(&mut self, v: Option<i64>) -> usize {
        let Column::Nanos(b) = self else { unreachable!("the schema says nanoseconds") };
        b.append_option(v);
        0
    }

    /// The same pairs for `n` rows.
    pub(crate) fn maps<'a, V: AsRef<str>>(
        &mut self,
        pairs: impl Iterator<Item = (&'a str, V)> + Clone,
        n: usize,
    ) -> usize {
        let Column::Map(b) = self else { unreachable!("the schema says map") };
        let mut bytes = 0;
        for _ in 0..n {
            for (k, v) in pairs.clone() {
                bytes += k.len() + v.as_ref().len() + 8;
                b.keys().append_value(k);
                b.values().append_value(v.as_ref());
            }
            b.append(true).expect("each key came with a value");
        }
        bytes
    }

    /// One row's attributes, as text.
    pub(crate) fn attributes(&mut self, a: &Attributes) -> usize {
        self.maps(a.0.iter().map(|(n, v)| (n.as_str(), v.to_string())), 1)
    }
}

/// A column of `n` rows: `fill` puts them in.
pub(crate) fn built<E>(
    kind: &DataType,
    fill: impl FnOnce(&mut Column) -> Result<(), E>,
) -> Result<ArrayRef, E> {
    let mut c = Column::new(kind);
    fill(&mut c)?;
    Ok(c.finish())
}

/// For each row the text of its number; an empty one is NULL.
pub(crate) fn chosen(texts: &[&str], rows: Vec<u32>) -> ArrayRef {
    let texts: StringViewArray = texts.iter().map(|t| (!t.is_empty()).then_some(*t)).collect();
    take(&texts, &UInt32Array::from(rows), None).expect("each row's number is that of a text")
}

/// The same text for `n` rows; an empty one is NULL.
pub(crate) fn repeated(text: &str, n: usize) -> ArrayRef {
    chosen(&[text], vec![0; n])
}

/// Nanoseconds.
pub(crate) fn times(all: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from(all).with_timezone(UTC))
}

/// Texts as they lie in memory; empty ones are NULL.
pub(crate) fn views(texts: TextsView) -> ArrayRef {
    let TextsView { data, places } = texts;
    let all: &str = data.as_ref();
    let wanted: usize = places.iter().map(|(_, len)| *len as usize).sum();
    let mut b = StringViewBuilder::with_capacity(places.len());
    // A few rows must not keep all of their block in memory.
    if wanted * 2 < all.len() {
        for (at, len) in &places {
            let text = all.get(*at as usize..(*at + *len) as usize).unwrap_or("");
            b.append_option((!text.is_empty()).then_some(text));
        }
    } else {
        let block = b.append_block(Buffer::from(Bytes::from_owner(data)));
        for (at, len) in &places {
            match len {
                0 => b.append_null(),
                _ => b.try_append_view(block, *at, *len).expect("it is a text within the block"),
            }
        }
    }
    Arc::new(b.finish())
}

/// Collects rows and sends them on in batches; the plan's pace is the scan's.
pub(crate) struct Out {
    table: &'static str,
    schema: SchemaRef,
    /// Index in the table's schema, and the column.
    columns: Vec<(usize, Column)>,
    rows: usize,
    bytes: usize,
    tx: Sender<Result<RecordBatch, DataFusionError>>,
}

impl Out {
    /// `schema` is what the plan wants: the table's columns of these `indexes`.
    pub(crate) fn new(
        table: &'static str,
        schema: SchemaRef,
        indexes: &[usize],
        tx: Sender<Result<RecordBatch, DataFusionError>>,
    ) -> Self {
        let columns =
            indexes.iter().zip(schema.fields()).map(|(i, f)| (*i, Column::new(f.data_type()))).collect();
        Out { table, schema, columns, rows: 0, bytes: 0, tx }
    }

    /// How many rows fit before the batch leaves.
    pub(crate) fn room(&self) -> usize {
        ROWS.saturating_sub(self.rows).max(1)
    }

    /// Adds `n` rows: `fill` gets each wanted column with its index in the table and gives the bytes it took.
    /// True if the batch should leave.
    pub(crate) fn add(&mut self, n: usize, mut fill: impl FnMut(usize, &mut Column) -> usize) -> bool {
        for (i, c) in &mut self.columns {
            self.bytes += fill(*i, c);
        }
        self.rows += n;
        self.rows >= ROWS || self.bytes >= BYTES
    }

    /// Nobody reads any more.
    pub(crate) fn closed(&self) -> bool {
        self.tx.is_closed()
    }

    fn batch(&mut self) -> Result<RecordBatch, DataFusionError> {
        let columns = self.columns.iter_mut().map(|(_, c)| c.finish()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        METRICS.rows_scanned.get_or_create(&TableLabel { table: self.table }).inc_by(self.rows as u64);
        (self.rows, self.bytes) = (0, 0);
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    /// Sends a batch that was made elsewhere of so many rows; for blocking threads. Break: stop reading.
    pub(crate) fn pass(&self, batch: RecordBatch, rows: usize) -> ControlFlow<()> {
        METRICS.rows_scanned.get_or_create(&TableLabel { table: self.table }).inc_by(rows as u64);
        match self.tx.blocking_send(Ok(batch)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// Sends what there is; for blocking threads. Break: stop reading.
    pub(crate) fn flush(&mut self) -> ControlFlow<()> {
        if self.rows > 0 {
            let batch = self.batch();
            if self.tx.blocking_send(batch).is_err() {
                return ControlFlow::Break(());
            }
        }
        if self.closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// The same, for tasks.
    pub(crate) async fn flush_async(&mut self) -> ControlFlow<()> {
        if self.rows > 0 {
            let batch = self.batch();
            if self.tx.send(batch).await.is_err() {
                return ControlFlow::Break(());
            }
        }
        if self.closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
