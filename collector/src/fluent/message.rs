//! One message of the forward protocol: `[tag, time, record, option]`, `[tag, [[time, record], …], option]`, or the
//! entries packed into one string, which may be gzipped.

use std::io::Read;

use rmpv::Value;
use rmpv::decode::read_value_with_max_depth;
use serde_json::Map;
use signal::{LogRecord, Timestamp};

use crate::answer::MOST_BYTES;
use crate::fields;

/// Values within values.
const DEEPEST: usize = 64;
/// Where a message's records begin to weigh more than its bytes.
const MOST_RECORDS: usize = 1 << 20;

pub(super) struct Message {
    pub(super) tag: String,
    pub(super) records: Vec<LogRecord>,
    /// What its acknowledgement names.
    pub(super) chunk: Option<String>,
}

/// Finds where a value ends without decoding it; goes on where it stopped when more bytes have come.
pub(super) struct Scanner {
    at: usize,
    /// Values still to come.
    missing: u64,
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner { at: 0, missing: 1 }
    }
}

impl Scanner {
    /// The length of the first value of `data`; `None` if its end has not come yet.
    pub(super) fn end(&mut self, data: &[u8]) -> Result<Option<usize>, String> {
        while self.missing > 0 {
            let Some(rest) = data.get(self.at..) else { return Ok(None) };
            let Some(&marker) = rest.first() else { return Ok(None) };
            let number = |bytes: usize| -> Option<u64> {
                Some(rest.get(1..=bytes)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
            };
            // Bytes of the marker, its length and its content, and values inside.
            let (len, inside) = match marker {
                0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (1, 0),
                0x80..=0x8f => (1, 2 * u64::from(marker & 0x0f)),
                0x90..=0x9f => (1, u64::from(marker & 0x0f)),
                0xa0..=0xbf => (1 + u64::from(marker & 0x1f), 0),
                0xca => (5, 0),
                0xcb => (9, 0),
                0xcc | 0xd0 => (2, 0),
                0xcd | 0xd1 => (3, 0),
                0xce | 0xd2 => (5, 0),
                0xcf | 0xd3 => (9, 0),
                0xd4..=0xd8 => (2 + (1 << (marker - 0xd4)), 0),
                0xc1 => return Err("not MessagePack".to_owned()),
                _ => {
                    let (bytes, extra, per) = match marker {
                        0xc4 | 0xd9 => (1, 0, None),
                        0xc5 | 0xda => (2, 0, None),
                        0xc6 | 0xdb => (4, 0, None),
                        0xc7 => (1, 1, None),
                        0xc8 => (2, 1, None),
                        0xc9 => (4, 1, None),
                        0xdc => (2, 0, Some(1)),
                        0xdd => (4, 0, Some(1)),
                        0xde => (2, 0, Some(2)),
                        _ => (4, 0, Some(2)),
                    };
                    let Some(n) = number(bytes) else { return Ok(None) };
                    match per {
                        None => (1 + bytes as u64 + extra + n, 0),
                        Some(per) => (1 + bytes as u64, per * n),
                    }
                }
            };
            // Each value takes a byte at least: more of them than a message may have bytes is nonsense.
            if len > MOST_BYTES as u64 || inside > MOST_BYTES as u64 {
                return Err(format!("a message of more than {MOST_BYTES} bytes"));
            }
            self.at += usize::try_from(len).unwrap_or(MOST_BYTES);
            self.missing = self.missing - 1 + inside;
        }
        Ok((self.at <= data.len()).then_some(self.at))
    }

    /// Bytes that the value has at least.
    pub(super) fn wanted(&self) -> usize {
        self.at
    }
}

fn value(data: &mut &[u8]) -> Result<Value, String> {
    read_value_with_max_depth(data, DEEPEST).map_err(|e| format!("not MessagePack: {e}"))
}

/// `None` is a heartbeat.
pub(super) fn parse(mut data: &[u8], now: Timestamp) -> Result<Option<Message>, String> {
    let items = match value(&mut data)? {
        Value::Array(items) => items,
        Value::Nil => return Ok(None),
        _ => return Err("a message is an array".to_owned()),
    };
    let mut items = items.into_iter();
    let tag = items.next().map(|t| text(&t)).ok_or("a message has a tag")?;
    let mut records = Vec::new();
    let option = match items.next().ok_or("a message has entries")? {
        Value::Array(entries) => {
            for e in entries {
                records.push(entry(e, now)?);
            }
            items.next()
        }
        packed @ (Value::Binary(_) | Value::String(_)) => {
            let option = items.next();
            let bytes = match &packed {
                Value::Binary(b) => b.as_slice(),
                Value::String(s) => s.as_bytes(),
                _ => &[],
            };
            if option.as_ref().and_then(|o| string(o, "compressed")).as_deref() == Some("gzip") {
                // Several members, one after the other, are one stream.
                let mut out = Vec::new();
                let mut reader = flate2::read::MultiGzDecoder::new(bytes).take(MOST_BYTES as u64 + 1);
                reader.read_to_end(&mut out).map_err(|e| format!("gzip: {e}"))?;
                if out.len() > MOST_BYTES {
                    return Err(format!("more than {MOST_BYTES} bytes unpacked"));
                }
                entries(&out, now, &mut records)?;
            } else {
                entries(bytes, now, &mut records)?;
            }
            option
        }
        time => {
            let record = items.next().ok_or("a message has a record")?;
            records.push(made(&time, record, now)?);
            items.next()
        }
    };
    if records.len() > MOST_RECORDS {
        return Err(format!("more than {MOST_RECORDS} records in a message"));
    }
    let chunk = option.as_ref().and_then(|o| string(o, "chunk"));
    Ok(Some(Message { tag, records, chunk }))
}

fn entries(mut packed: &[u8], now: Timestamp, records: &mut Vec<LogRecord>) -> Result<(), String> {
    while !packed.is_empty() {
        let e = value(&mut packed)?;
        records.push(entry(e, now)?);
        if records.len() > MOST_RECORDS {
            return Ok(());
        }
    }
    Ok(())
}

fn entry(e: Value, now: Timestamp) -> Result<LogRecord, String> {
    let Value::Array(pair) = e else { return Err("an entry is [time, record]".to_owned()) };
    let mut pair = pair.into_iter();
    let (Some(time), Some(record)) = (pair.next(), pair.next()) else {
        return Err("an entry is [time, record]".to_owned());
    };
    made(&time, record, now)
}

fn made(time: &Value, record: Value, now: Timestamp) -> Result<LogRecord, String> {
    // Fluent Bit 2 puts the time and metadata into an array.
    let time = match time {
        Value::Array(parts) => parts.first().unwrap_or(&Value::Nil),
        t => t,
    };
    let time = match time {
        Value::Ext(0, b) if b.len() == 8 => {
            let part = |i: usize| b[i..i + 4].iter().fold(0i64, |n, b| n << 8 | i64::from(*b));
            Some(Timestamp::from_secs(part(0)).nanos() + part(4))
        }
        Value::Integer(n) => n.as_i64().filter(|n| *n > 0).map(|n| Timestamp::from_secs(n).nanos()),
        Value::F64(n) if *n > 0.0 => Some((*n * 1e9) as i64),
        _ => None,
    };
    let Value::Map(pairs) = record else { return Err("a record is a map".to_owned()) };
    let fields: Map<String, serde_json::Value> =
        pairs.into_iter().map(|(n, v)| (text(&n), json(v))).collect();
    Ok(fields::record(fields, time.map(Timestamp::from_nanos), now).record)
}

fn text(v: &Value) -> String {
    match v {
        Value::String(s) => String::from_utf8_lossy(s.as_bytes()).into_owned(),
        Value::Binary(b) => String::from_utf8_lossy(b).into_owned(),
        other => other.to_string(),
    }
}

fn json(v: Value) -> serde_json::Value {
    match v {
        Value::Nil => serde_json::Value::Null,
        Value::Boolean(b) => b.into(),
        Value::Integer(n) => n
            .as_i64()
            .map(Into::into)
            .or_else(|| n.as_u64().map(Into::into))
            .unwrap_or(serde_json::Value::Null),
        Value::F32(n) => f64::from(n).into(),
        Value::F64(n) => n.into(),
        Value::Array(a) => a.into_iter().map(json).collect(),
        Value::Map(m) => m.into_iter().map(|(n, v)| (text(&n), json(v))).collect::<Map<_, _>>().into(),
        other => text(&other).into(),
    }
}

fn string(map: &Value, name: &str) -> Option<String> {
    let (_, v) = map.as_map()?.iter().find(|(n, _)| n.as_str() == Some(name))?;
    matches!(v, Value::String(_) | Value::Binary(_)).then(|| text(v))
}

/// `{"ack": chunk}`
pub(super) fn ack(chunk: &str) -> Vec<u8> {
    let answer = Value::Map(vec![("ack".into(), chunk.into())]);
    let mut out = Vec::with_capacity(chunk.len() + 16);
    rmpv::encode::write_value(&mut out, &answer).expect("writing to memory does not fail");
    out
}
