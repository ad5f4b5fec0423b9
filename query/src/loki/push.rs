//! Loki's push API: JSON, or protobuf in snappy (Loki: pkg/push/push.proto).

use axum::extract::{Request, State};
use axum::response::Response;
use http::header;
use serde::Deserialize;
use signal::{Attributes, Labels, LogBatch, LogRecord, LogStream, Severity, Timestamp};

use super::fail;
use crate::App;
use crate::error::Failure;
use crate::params::body;
use crate::prometheus::no_content;
use crate::scope::Scope;

#[derive(Clone, PartialEq, prost::Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<PbStream>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbStream {
    #[prost(string, tag = "1")]
    labels: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<PbEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbEntry {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<PbTimestamp>,
    #[prost(string, tag = "2")]
    line: String,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<PbPair>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbTimestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Deserialize)]
struct JsonPush {
    streams: Vec<JsonStream>,
}

#[derive(Deserialize)]
struct JsonStream {
    stream: Labels,
    values: Vec<JsonEntry>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum JsonEntry {
    WithMetadata(String, String, serde_json::Map<String, serde_json::Value>),
    Plain(String, String),
}

pub(super) async fn push(State(app): State<App>, scope: Scope, req: Request) -> Result<Response, Response> {
    if !scope.may_write() {
        return Err(fail(Failure::Forbidden("only cluster-wide writers may push".to_owned())));
    }
    let kind = req.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let gzip = req.headers().get(header::CONTENT_ENCODING).is_some_and(|e| e == "gzip");
    let raw = body(req, app.config.body_bytes).await.map_err(fail)?;
    let raw = if gzip { unzip(&raw, app.config.unpacked_bytes).map_err(fail)?.into() } else { raw };
    let batch = decode(&raw, kind.starts_with("application/json"), app.config.unpacked_bytes);
    let done = app.engines.sink.write_logs(batch.map_err(fail)?).await.map_err(|e| fail(e.into()))?;
    match done.reason {
        Some(reason) if done.rejected > 0 => {
            Err(fail(Failure::Bad(format!("{} lines refused: {reason}", done.rejected))))
        }
        _ => Ok(no_content()),
    }
}

pub(crate) fn decode(raw: &[u8], is_json: bool, limit: usize) -> Result<LogBatch, Failure> {
    if is_json { from_json(raw) } else { from_protobuf(raw, limit) }
}

fn unzip(packed: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let mut out = Vec::new();
    let most = limit as u64 + 1;
    flate2::read::GzDecoder::new(packed)
        .take(most)
        .read_to_end(&mut out)
        .map_err(|e| Failure::Bad(format!("the body is not gzip: {e}")))?;
    if out.len() > limit {
        return Err(Failure::TooLarge(format!("the body is longer than {limit} bytes once it is unpacked")));
    }
    Ok(out)
}

fn record(timestamp: Timestamp, body: String, metadata: Vec<(String, String)>) -> LogRecord {
    let mut r = LogRecord { timestamp, body, ..LogRecord::default() };
    let mut attributes = Attributes::default();
    for (name, value) in metadata {
        // What a record has a place for goes there, so that every query finds it.
        match name.as_str() {
            "trace_id" | "traceID" => match value.parse() {
                Ok(id) => r.trace_id = id,
                Err(_) => attributes.set(name, value),
            },
            "span_id" | "spanID" => match value.parse() {
                Ok(id) => r.span_id = id,
                Err(_) => attributes.set(name, value),
            },
            "level" | "severity" | "detected_level" => {
                r.severity = Severity::parse(&value);
                if r.severity == Severity::UNSPECIFIED {
                    attributes.set(name, value);
                }
            }
            _ => attributes.set(name, value),
        }
    }
    r.attributes = attributes;
    r
}

fn from_json(raw: &[u8]) -> Result<LogBatch, Failure> {
    let push: JsonPush =
        serde_json::from_slice(raw).map_err(|e| Failure::Bad(format!("not a push request: {e}")))?;
    let mut batch = LogBatch::default();
    for s in push.streams {
        let mut records = Vec::new();
        for e in s.values {
            let (time, line, metadata) = match e {
                JsonEntry::Plain(t, l) => (t, l, Vec::new()),
                JsonEntry::WithMetadata(t, l, m) => {
                    let text = |v: serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
                    (t, l, m.into_iter().map(|(n, v)| (n, text(v))).collect())
                }
            };
            let time =
                time.parse().map_err(|_| Failure::Bad(format!("not a time in nanoseconds: {time:?}")))?;
            records.push(record(Timestamp(time), line, metadata));
        }
        batch.streams.push(LogStream { labels: labels(s.stream)?, records });
    }
    Ok(batch)
}

fn from_protobuf(packed: &[u8], limit: usize) -> Result<LogBatch, Failure> {
    let raw = crate::prometheus::unpack(packed, limit)?;
    let push: PushRequest = prost::Message::decode(raw.as_slice())
        .map_err(|e| Failure::Bad(format!("not a push request: {e}")))?;
    let mut batch = LogBatch::default();
    for s in push.streams {
        let selector = logql::parse_log_query(&s.labels)?;
        let set = Labels::from_pairs(selector.matchers().iter().map(|m| (&m.name, &m.value)));
        let records = s.entries.into_iter().map(|e| {
            let t = e.timestamp.unwrap_or_default();
            let nanos = t.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(t.nanos));
            record(Timestamp(nanos), e.line, e.metadata.into_iter().map(|p| (p.name, p.value)).collect())
        });
        batch.streams.push(LogStream { labels: labels(set)?, records: records.collect() });
    }
    Ok(batch)
}

fn labels(l: Labels) -> Result<Labels, Failure> {
    if l.is_empty() {
        return Err(Failure::Bad("error at least one label pair is required per stream".to_owned()));
    }
    Ok(l)
}
