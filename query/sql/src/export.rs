//! Answers that leave while they are made: CSV, or an Arrow IPC stream. JSON answers are held whole ([`crate::answer`]).

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use serde_json::Value;

use crate::answer;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180 with a line of names; NULL is nothing, timestamps are RFC 3339 in UTC, maps and lists are JSON.
    Csv,
    /// <https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format>
    Arrow,
}

impl Format {
    /// The media type of an answer.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// Of a word or a media type, as in `?format=csv` or `Accept: text/csv`.
    pub fn parse(word: &str) -> Option<Format> {
        match word.split(';').next().unwrap_or_default().trim() {
            "csv" | "text/csv" => Some(Format::Csv),
            "arrow" | "application/vnd.apache.arrow.stream" => Some(Format::Arrow),
            _ => None,
        }
    }
}

/// Batches to bytes. What is given back is sent at once.
pub(crate) enum Encoder {
    Csv,
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl Encoder {
    /// With the bytes that come before all rows.
    pub(crate) fn new(format: Format, schema: &SchemaRef) -> Result<(Encoder, Vec<u8>), ArrowError> {
        match format {
            Format::Csv => {
                let names = schema.fields().iter().map(|f| f.name().clone());
                let mut out = csv::Writer::from_writer(Vec::new());
                out.write_record(names).map_err(|e| ArrowError::CsvError(e.to_string()))?;
                Ok((Encoder::Csv, finished(out)?))
            }
            Format::Arrow => {
                let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
                let head = std::mem::take(writer.get_mut());
                Ok((Encoder::Arrow(Box::new(writer)), head))
            }
        }
    }

    pub(crate) fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        match self {
            Encoder::Csv => {
                let mut out = csv::Writer::from_writer(Vec::new());
                let mut cell = Vec::new();
                for row in 0..batch.num_rows() {
                    for column in batch.columns() {
                        cell.clear();
                        answer::value(column.as_ref(), row, &mut cell);
                        out.write_field(plain(&cell)).map_err(|e| ArrowError::CsvError(e.to_string()))?;
                    }
                    out.write_record(None::<&[u8]>).map_err(|e| ArrowError::CsvError(e.to_string()))?;
                }
                finished(out)
            }
            Encoder::Arrow(writer) => {
                writer.write(batch)?;
                Ok(std::mem::take(writer.get_mut()))
            }
        }
    }

    /// The bytes behind all rows.
    pub(crate) fn end(self) -> Result<Vec<u8>, ArrowError> {
        match self {
            Encoder::Csv => Ok(Vec::new()),
            Encoder::Arrow(mut writer) => {
                writer.finish()?;
                writer.into_inner()
            }
        }
    }
}

fn finished(out: csv::Writer<Vec<u8>>) -> Result<Vec<u8>, ArrowError> {
    out.into_inner().map_err(|e| ArrowError::CsvError(e.to_string()))
}

/// A JSON value without the quotes of a text, and nothing for `null`.
fn plain(json: &[u8]) -> Vec<u8> {
    match json {
        b"null" => Vec::new(),
        [b'"', ..] => match serde_json::from_slice(json) {
            Ok(Value::String(s)) => s.into_bytes(),
            _ => json.to_vec(),
        },
        _ => json.to_vec(),
    }
}
