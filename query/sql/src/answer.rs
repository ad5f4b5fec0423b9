//! The answer: Arrow batches to JSON text, row by row, within bounds.

use arrow::array::cast::AsArray;
use arrow::array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use serde_json::value::RawValue;

/// A column of an answer. `type` is one of `boolean`, `bigint`, `double`, `varchar`, `timestamp`, `map`, `list`, or
/// Arrow's own word for what is none of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
}

/// A query's result. Its JSON form has `columns`, `rows`, `notes`, `truncated` and `stats`.
#[derive(Debug)]
pub struct Answer {
    pub columns: Vec<Column>,
    /// A JSON array of rows, each an array of values. Timestamps are RFC 3339 in UTC; floats that JSON cannot have are
    /// the texts `NaN`, `+Inf` and `-Inf`.
    pub rows: Box<RawValue>,
    pub row_count: usize,
    /// What was assumed, such as a range of time.
    pub notes: Vec<String>,
    /// True if rows were cut off.
    pub truncated: bool,
    pub elapsed: std::time::Duration,
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Stats {
            elapsed_ms: f64,
            rows: usize,
        }
        let elapsed_ms = (self.elapsed.as_secs_f64() * 1e6).round() / 1e3;
        let mut o = s.serialize_struct("Answer", 5)?;
        o.serialize_field("columns", &self.columns)?;
        o.serialize_field("rows", &self.rows)?;
        o.serialize_field("notes", &self.notes)?;
        o.serialize_field("truncated", &self.truncated)?;
        o.serialize_field("stats", &Stats { elapsed_ms, rows: self.row_count })?;
        o.end()
    }
}

/// Rows as they come, until a bound is reached.
pub(crate) struct Writer {
    out: Vec<u8>,
    pub(crate) rows: usize,
    pub(crate) truncated: bool,
    max_rows: usize,
    max_bytes: usize,
}

impl Writer {
    pub(crate) fn new(max_rows: usize, max_bytes: usize) -> Self {
        Writer { out: b"[".to_vec(), rows: 0, truncated: false, max_rows, max_bytes }
    }

    /// Adds a batch's rows. False once the bound is reached: no more are wanted.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> bool {
        for row in 0..batch.num_rows() {
            if self.rows >= self.max_rows || self.out.len() >= self.max_bytes {
                self.truncated = true;
                return false;
            }
            self.out.extend_from_slice(if self.rows == 0 { b"[" } else { b",[" });
            for (i, column) in batch.columns().iter().enumerate() {
                if i > 0 {
                    self.out.push(b',');
                }
                value(column.as_ref(), row, &mut self.out);
            }
            self.out.push(b']');
            self.rows += 1;
        }
        true
    }

    pub(crate) fn finish(mut self) -> Box<RawValue> {
        self.out.push(b']');
        let text = String::from_utf8(self.out).expect("strings are UTF-8 and all else is ASCII");
        RawValue::from_string(text).expect("written as JSON above")
    }
}

pub(crate) fn type_name(t: &DataType) -> String {
    match t {
        DataType::Null => "null".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        t if t.is_integer() => "bigint".to_owned(),
        t if t.is_floating() => "double".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "varchar".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Map(..) => "map".to_owned(),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "list".to_owned(),
        DataType::Dictionary(_, v) => type_name(v),
        other => other.to_string().to_lowercase(),
    }
}

fn string(s: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, s).expect("a string is JSON and memory takes it");
}

fn double(v: f64, out: &mut Vec<u8>) {
    if v.is_finite() {
        serde_json::to_writer(out, &v).expect("a finite number is JSON");
    } else {
        string(
            if v.is_nan() {
                "NaN"
            } else if v > 0.0 {
                "+Inf"
            } else {
                "-Inf"
            },
            out,
        );
    }
}

fn time(nanos: i128, out: &mut Vec<u8>) {
    match jiff::Timestamp::from_nanosecond(nanos) {
        Ok(t) => string(&t.to_string(), out),
        // Further away than people's calendars go.
        Err(_) => string(&nanos.to_string(), out),
    }
}

fn list(values: &dyn Array, out: &mut Vec<u8>) {
    out.push(b'[');
    for i in 0..values.len() {
        if i > 0 {
            out.push(b',');
        }
        value(values, i, out);
    }
    out.push(b']');
}

pub(crate) fn value(a: &dyn Array, i: usize, out: &mut Vec<u8>) {
    if a.is_null(i) {
        return out.extend_from_slice(b"null");
    }
    macro_rules! number {
        ($t:ty) => {
            out.extend_from_slice(a.as_primitive::<$t>().value(i).to_string().as_bytes())
        };
    }
    match a.data_type() {
        DataType::Null => out.extend_from_slice(b"null"),
        DataType::Boolean => out.extend_from_slice(if a.as_boolean().value(i) { b"true" } else { b"false" }),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => double(f64::from(a.as_primitive::<Float32Type>().value(i)), out),
        DataType::Float64 => double(a.as_primitive::<Float64Type>().value(i), out),
        DataType::Utf8 => string(a.as_string::<i32>().value(i), out),
        DataType::LargeUtf8 => string(a.as_string::<i64>().value(i), out),
        DataType::Utf8View => string(a.as_string_view().value(i), out),
        DataType::Timestamp(unit, _) => {
            let (v, scale) = match unit {
                TimeUnit::Second => (a.as_primitive::<TimestampSecondType>().value(i), 1_000_000_000),
                TimeUnit::Millisecond => (a.as_primitive::<TimestampMillisecondType>().value(i), 1_000_000),
                TimeUnit::Microsecond => (a.as_primitive::<TimestampMicrosecondType>().value(i), 1_000),
                TimeUnit::Nanosecond => (a.as_primitive::<TimestampNanosecondType>().value(i), 1),
            };
            time(i128::from(v) * scale, out);
        }
        DataType::Map(..) => {
            let entries = a.as_map().value(i);
            out.push(b'{');
            for e in 0..entries.len() {
                if e > 0 {
                    out.push(b',');
                }
                let mut key = Vec::new();
                value(entries.column(0).as_ref(), e, &mut key);
                // Keys of JSON objects are strings, whatever they were.
                match key.first() {
                    Some(b'"') => out.append(&mut key),
                    _ => string(&String::from_utf8_lossy(&key), out),
                }
                out.push(b':');
                value(entries.column(1).as_ref(), e, out);
            }
            out.push(b'}');
        }
        DataType::List(_) => list(a.as_list::<i32>().value(i).as_ref(), out),
        DataType::LargeList(_) => list(a.as_list::<i64>().value(i).as_ref(), out),
        DataType::FixedSizeList(..) => list(a.as_fixed_size_list().value(i).as_ref(), out),
        DataType::Struct(fields) => {
            out.push(b'{');
            for (n, (f, c)) in fields.iter().zip(a.as_struct().columns()).enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                string(f.name(), out);
                out.push(b':');
                value(c.as_ref(), i, out);
            }
            out.push(b'}');
        }
        // Dates, intervals, decimals: as Arrow prints them.
        _ => match ArrayFormatter::try_new(a, &FormatOptions::default()) {
            Ok(f) => string(&f.value(i).to_string(), out),
            Err(e) => string(&format!("not shown: {e}"), out),
        },
    }
}
