//! Log records and streams.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Attributes, Labels, SpanId, Timestamp, TraceId};

/// OpenTelemetry's severity number, 1 to 24; 0 is "not said".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Severity(pub u8);

impl Severity {
    pub const UNSPECIFIED: Severity = Severity(0);
    pub const TRACE: Severity = Severity(1);
    pub const DEBUG: Severity = Severity(5);
    pub const INFO: Severity = Severity(9);
    pub const WARN: Severity = Severity(13);
    pub const ERROR: Severity = Severity(17);
    pub const FATAL: Severity = Severity(21);

    /// `trace`, `debug`, `info`, `warn`, `error`, `fatal` or, if not said, `unknown`.
    pub fn as_str(self) -> &'static str {
        match self.0 {
            1..=4 => "trace",
            5..=8 => "debug",
            9..=12 => "info",
            13..=16 => "warn",
            17..=20 => "error",
            21..=24 => "fatal",
            _ => "unknown",
        }
    }

    /// From a level's usual names, in any case.
    pub fn parse(word: &str) -> Severity {
        match word.to_ascii_lowercase().as_str() {
            "trace" => Severity::TRACE,
            "debug" | "dbg" => Severity::DEBUG,
            "info" | "information" | "notice" => Severity::INFO,
            "warn" | "warning" => Severity::WARN,
            "error" | "err" => Severity::ERROR,
            "fatal" | "critical" | "crit" | "panic" | "emerg" | "alert" => Severity::FATAL,
            _ => Severity::UNSPECIFIED,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One log line or event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogRecord {
    /// When it happened, as the source says; else when it arrived.
    pub timestamp: Timestamp,
    pub severity: Severity,
    pub body: String,
    pub attributes: Attributes,
    /// [`TraceId::INVALID`] if the record belongs to no trace.
    pub trace_id: TraceId,
    pub span_id: SpanId,
}

/// Records of one stream. The labels are the stream's identity (namespace, pod, container, …).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogStream {
    pub labels: Labels,
    pub records: Vec<LogRecord>,
}

/// How far a source has been read, committed in the same WAL record as the lines it covers, so that a
/// crash neither loses nor doubles one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Names the source for ever, such as `pod-uid/container/restart`.
    pub source: String,
    /// Everything before this position (for files: a byte offset in the stream of all rotated files) is stored.
    pub position: u64,
}

/// What one receiver hands on at once: acknowledged as a whole or not at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogBatch {
    pub streams: Vec<LogStream>,
    pub checkpoints: Vec<Checkpoint>,
}

impl LogBatch {
    pub fn records(&self) -> usize {
        self.streams.iter().map(|s| s.records.len()).sum()
    }
}
