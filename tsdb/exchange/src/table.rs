//! Series as Parquet: a row for each float sample, sorted by series, then time. Columns: `name`, one for each label (empty
//! if the series does not have it: null), `ts` (milliseconds, UTC), `value`. Readable by DuckDB, pandas, Spark.
//!
//! Native histograms are left out and counted: their rows would be of another shape. Stale markers are no values: they are
//! left out too.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Builder, RecordBatch, StringDictionaryBuilder, TimestampMillisecondBuilder,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use signal::{METRIC_NAME, SeriesColumns, is_stale_nan};

use crate::Error;

/// Rows handed to the writer at once.
const BATCH: usize = 64 << 10;
/// Rows of a row group: what is in memory, packed, before it is written.
const GROUP: usize = 1 << 20;

/// Writes series to a Parquet file.
pub struct Table<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: Arc<Schema>,
    labels: Vec<String>,
    names: StringDictionaryBuilder<Int32Type>,
    columns: Vec<StringDictionaryBuilder<Int32Type>>,
    times: TimestampMillisecondBuilder,
    values: Float64Builder,
    rows: usize,
    pub samples: u64,
    /// Native histograms that were left out.
    pub histograms: u64,
}

impl<W: Write + Send> Table<W> {
    /// A file with a column for each of these labels; those of other names are not written.
    pub fn new(out: W, labels: Vec<String>) -> Result<Table<W>, Error> {
        let labels: Vec<String> = labels.into_iter().filter(|l| l != METRIC_NAME).collect();
        let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let mut fields = vec![Field::new("name", text.clone(), true)];
        // A label may be called as a column of ours is: then it gets a prefix.
        fields.extend(labels.iter().map(|l| {
            let name =
                if matches!(l.as_str(), "name" | "ts" | "value") { format!("label_{l}") } else { l.clone() };
            Field::new(name, text.clone(), true)
        }));
        fields.push(Field::new("ts", time, false));
        fields.push(Field::new("value", DataType::Float64, false));
        let sorted = |i: usize| SortingColumn { column_idx: i as i32, descending: false, nulls_first: true };
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_max_row_group_row_count(Some(GROUP))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_sorting_columns(Some(vec![sorted(0)]));
        let ts = ColumnPath::from("ts");
        properties = properties
            .set_column_dictionary_enabled(ts.clone(), false)
            .set_column_encoding(ts, Encoding::DELTA_BINARY_PACKED)
            .set_column_dictionary_enabled(ColumnPath::from("value"), false);
        let schema = Arc::new(Schema::new(fields));
        let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties.build()))?;
        Ok(Table {
            writer,
            schema,
            names: StringDictionaryBuilder::new(),
            columns: labels.iter().map(|_| StringDictionaryBuilder::new()).collect(),
            labels,
            times: TimestampMillisecondBuilder::new().with_timezone("UTC"),
            values: Float64Builder::new(),
            rows: 0,
            samples: 0,
            histograms: 0,
        })
    }

    pub fn add(&mut self, s: &SeriesColumns) -> Result<(), Error> {
        self.histograms += s.histograms.len() as u64;
        let name = s.labels.get(METRIC_NAME);
        let of: Vec<Option<String>> =
            self.labels.iter().map(|l| s.labels.get(l).map(str::to_owned)).collect();
        let mut rest = s.timestamps.iter().zip(&s.values).filter(|(_, v)| !is_stale_nan(**v)).peekable();
        while rest.peek().is_some() {
            let mut n = 0;
            while self.rows + n < BATCH
                && let Some((t, v)) = rest.next()
            {
                self.times.append_value(*t);
                self.values.append_value(*v);
                n += 1;
            }
            match name {
                Some(name) => self.names.append_values(name, n),
                None => self.names.append_nulls(n),
            }
            for (column, value) in self.columns.iter_mut().zip(&of) {
                match value {
                    Some(v) => column.append_values(v, n),
                    None => column.append_nulls(n),
                }
            }
            self.rows += n;
            self.samples += n as u64;
            if self.rows >= BATCH {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(self.names.finish())];
        arrays.extend(self.columns.iter_mut().map(|c| -> ArrayRef { Arc::new(c.finish()) }));
        arrays.push(Arc::new(self.times.finish().with_timezone("UTC")));
        arrays.push(Arc::new(self.values.finish()));
        self.rows = 0;
        self.writer.write(&RecordBatch::try_new(self.schema.clone(), arrays)?)?;
        Ok(())
    }

    /// Ends the file; without this it cannot be read.
    pub fn finish(mut self) -> Result<(u64, u64), Error> {
        self.flush()?;
        self.writer.close()?;
        Ok((self.samples, self.histograms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, cast::as_string_array};
    use arrow::compute::cast;
    use arrow::datatypes::{Float64Type, TimestampMillisecondType};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use signal::Labels;

    #[test]
    fn what_is_written_is_read() {
        let series = |i: i64, n: i64| SeriesColumns {
            labels: Labels::from_pairs([("__name__", "a"), ("i", &i.to_string()), ("ts", "odd")]),
            timestamps: Arc::new((0..n).collect()),
            values: (0..n).map(|v| (v + i) as f64).collect(),
            ..SeriesColumns::default()
        };
        let mut file = tempfile::tempfile().expect("a file");
        let labels = vec!["__name__".to_owned(), "i".to_owned(), "none".to_owned(), "ts".to_owned()];
        let mut t = Table::new(&mut file, labels).expect("a table");
        for i in 0..3 {
            t.add(&series(i, 50_000)).expect("written");
        }
        let mut ended = series(3, 2);
        ended.values[1] = signal::stale_nan();
        t.add(&ended).expect("written");
        assert_eq!(t.finish().expect("closed"), (150_001, 0));
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a file of Parquet").build();
        let (mut rows, mut last) = (0, None);
        for batch in reader.expect("a reader") {
            let b = batch.expect("a batch");
            let names: Vec<&String> = b.schema_ref().fields().iter().map(|f| f.name()).collect();
            assert_eq!(names, ["name", "i", "none", "label_ts", "ts", "value"]);
            rows += b.num_rows();
            let at = b.num_rows() - 1;
            let i = cast(b.column(1), &DataType::Utf8).expect("text");
            let ts = b.column(4).as_primitive::<TimestampMillisecondType>().value(at);
            let value = b.column(5).as_primitive::<Float64Type>().value(at);
            last = Some((as_string_array(&i).value(at).to_owned(), ts, value));
            assert!(b.column(2).is_null(at));
        }
        assert_eq!((rows, last), (150_001, Some(("3".to_owned(), 0, 3.0))));
    }
}
