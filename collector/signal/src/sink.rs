//! The door through which telemetry is stored: the local engines, or another node.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;

use crate::{LogBatch, MetricBatch, SpanBatch};

/// What became of a batch that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Samples, records or spans that are now durable.
    pub accepted: usize,
    /// Those refused for good (too old, out of bounds, over a limit): sending them again will not help.
    pub rejected: usize,
    /// Why, if any were refused.
    pub reason: Option<String>,
}

/// Why a batch was not taken. Nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A queue is full, or a limit reached: send the batch again, not before `retry_after`.
    #[error("overloaded: {what}; send again after {retry_after:?}")]
    Overloaded { what: Cow<'static, str>, retry_after: Duration },
    /// The disk is full or the store is poisoned: telemetry stops first (invariant 8).
    #[error("storage failed: {0}")]
    Storage(String),
    /// The batch itself is wrong.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The process is ending.
    #[error("closed: the store is shutting down")]
    Closed,
}

impl SinkError {
    /// True if the same batch may succeed later.
    pub fn retryable(&self) -> bool {
        !matches!(self, SinkError::Invalid(_))
    }
}

/// Stores telemetry. `Ok` means durable: in a synced log (invariant 1).
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    async fn write_metrics(&self, batch: MetricBatch) -> Result<Accepted, SinkError>;
    async fn write_logs(&self, batch: LogBatch) -> Result<Accepted, SinkError>;
    async fn write_spans(&self, batch: SpanBatch) -> Result<Accepted, SinkError>;
}
