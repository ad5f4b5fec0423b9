//! The vocabulary of telemetry: what a label set, a sample, a log line and a span are, who they belong
//! to, and the two doors through which they move.
//!
//! Promises: types here are plain data with a documented unit each; nothing does I/O.
//! Does not know: Kubernetes, HTTP, files, engines.
//!
//! The road of a value: a receiver in `collector` builds a [`MetricBatch`], [`LogBatch`] or [`SpanBatch`],
//! a [`Sink`] makes it durable, and PromQL reads it back through a [`SeriesSource`].
//!
//! Start reading at [`labels`], then [`sink`].

mod attribute;
pub mod histogram;
mod id;
mod identity;
mod labels;
mod log;
mod matcher;
mod metric;
pub mod relabel;
mod sink;
mod source;
mod span;
mod target;
pub mod time;

pub use attribute::{AttributeValue, Attributes};
pub use histogram::{FloatHistogram, HistogramSample};
pub use id::{SpanId, TraceId};
pub use identity::{Identities, Identity};
pub use labels::{Labels, LabelsBuilder, METRIC_NAME};
pub use log::{Checkpoint, LogBatch, LogRecord, LogStream, Severity};
pub use matcher::{MatchOp, Matcher, MatcherError};
pub use metric::{
    Exemplar, HistogramSeries, Metadata, MetricBatch, MetricKind, STALE_NAN_BITS, Sample, StartTimes,
    TimeSeries, is_stale_nan, stale_nan,
};
pub use sink::{Accepted, Sink, SinkError};
pub use source::{Select, Selected, SeriesColumns, SeriesIter, SeriesSource, SourceError, Summary};
pub use span::{Span, SpanBatch, SpanEvent, SpanKind, SpanLink, SpanStatus, SpanStream};
pub use target::{
    CgroupTarget, Credentials, LogFileTarget, Registry, ScrapeHttp, ScrapeLimits, ScrapeOptions,
    ScrapeProtocol, ScrapeTarget, ScrapeTls, Secret,
};
pub use time::Timestamp;
