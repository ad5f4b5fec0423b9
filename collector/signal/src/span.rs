//! Spans.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Attributes, Labels, SpanId, Timestamp, TraceId};

/// OpenTelemetry's span kinds, with its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum SpanKind {
    Unspecified = 0,
    #[default]
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

impl SpanKind {
    pub fn from_number(n: i32) -> Self {
        match n {
            1 => SpanKind::Internal,
            2 => SpanKind::Server,
            3 => SpanKind::Client,
            4 => SpanKind::Producer,
            5 => SpanKind::Consumer,
            _ => SpanKind::Unspecified,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            SpanKind::Unspecified => "unspecified",
            SpanKind::Internal => "internal",
            SpanKind::Server => "server",
            SpanKind::Client => "client",
            SpanKind::Producer => "producer",
            SpanKind::Consumer => "consumer",
        }
    }
}

impl fmt::Display for SpanKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a span ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpanStatus {
    #[default]
    Unset,
    Ok,
    /// With the message the source gave, perhaps empty.
    Error(String),
}

/// Something that happened during a span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanEvent {
    pub timestamp: Timestamp,
    pub name: String,
    pub attributes: Attributes,
}

/// A tie to a span elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanLink {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub attributes: Attributes,
}

/// One span. Its service and other resource attributes stand in the [`SpanStream`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// [`SpanId::INVALID`] for a root.
    pub parent_span_id: SpanId,
    pub name: String,
    pub kind: SpanKind,
    pub start: Timestamp,
    pub end: Timestamp,
    pub status: SpanStatus,
    pub attributes: Attributes,
    pub events: Vec<SpanEvent>,
    pub links: Vec<SpanLink>,
}

/// Spans of one source. The labels are its identity and always hold `service_name`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanStream {
    pub labels: Labels,
    /// Resource attributes as sent, beside the identity.
    pub resource: Attributes,
    pub spans: Vec<Span>,
}

/// What one receiver hands on at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanBatch {
    pub streams: Vec<SpanStream>,
}

impl SpanBatch {
    pub fn spans(&self) -> usize {
        self.streams.iter().map(|s| s.spans.len()).sum()
    }
}
