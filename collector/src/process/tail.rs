//! Tail-based sampling: a trace is kept or dropped as a whole, once it is over.
//!
//! Spans that wait are in a log of their own, so that what was acknowledged survives a crash: after one, traces that
//! were waiting are decided anew. A trace is decided on `decision_wait` after its first span came; spans that come
//! later fare as their trace did. When the buffer is full the oldest traces are decided on at once.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use parking_lot::Mutex;
use prost::Message;
use serde::{Deserialize, Serialize};
use signal::time::SharedClock;
use signal::{
    Accepted, Attributes, Labels, Sink, SinkError, Span, SpanBatch, SpanStatus, SpanStream, Timestamp,
    TraceId,
};
use tokio_util::sync::CancellationToken;
use wal::Wal;

use crate::metrics::dropped;
use crate::{encode, otlp};

/// Decisions remembered for late spans.
const REMEMBERED: usize = 100_000;
/// How often traces are looked through.
const TICK: Duration = Duration::from_secs(1);

/// What is kept. A trace that any of the rules wants is kept whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TailConfig {
    /// Seconds from a trace's first span to its decision.
    pub decision_wait_seconds: u64,
    /// Traces with a failed span.
    pub errors: bool,
    /// Traces that took at least so long, in milliseconds; 0 is none.
    pub slower_than_millis: u64,
    /// Of the others, in percent.
    pub keep_percent: f64,
    /// Spans that wait, in bytes.
    pub buffer_bytes: usize,
}

impl Default for TailConfig {
    fn default() -> Self {
        TailConfig {
            decision_wait_seconds: 10,
            errors: true,
            slower_than_millis: 1000,
            keep_percent: 10.0,
            buffer_bytes: 64 << 20,
        }
    }
}

pub(super) struct TailSampler {
    config: TailConfig,
    next: Arc<dyn Sink>,
    clock: SharedClock,
    log: Wal,
    state: Mutex<State>,
    /// One decision at a time. What it holds: up to when a trace may have begun whose spans are in segments before
    /// this one.
    deciding: tokio::sync::Mutex<VecDeque<(Timestamp, u64)>>,
    /// Held for reading while spans go into log and state, so that a new segment begins with both in step.
    gate: tokio::sync::RwLock<()>,
}

#[derive(Default)]
struct State {
    traces: HashMap<TraceId, Trace, RandomState>,
    bytes: usize,
    decided: HashMap<TraceId, bool, RandomState>,
    order: VecDeque<TraceId>,
}

struct Trace {
    since: Timestamp,
    bytes: usize,
    spans: Vec<(Arc<Source>, Span)>,
}

struct Source {
    labels: Labels,
    resource: Attributes,
}

impl State {
    fn insert(&mut self, batch: SpanBatch, now: Timestamp) {
        for stream in batch.streams {
            let source = Arc::new(Source { labels: stream.labels, resource: stream.resource });
            for span in stream.spans {
                let bytes = weight(&span);
                self.bytes += bytes;
                let t = self.traces.entry(span.trace_id).or_insert_with(|| Trace {
                    since: now,
                    bytes: 0,
                    spans: Vec::new(),
                });
                t.bytes += bytes;
                t.spans.push((source.clone(), span));
            }
        }
    }

    fn remember(&mut self, id: TraceId, kept: bool) {
        if self.decided.insert(id, kept).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > REMEMBERED {
            if let Some(old) = self.order.pop_front() {
                self.decided.remove(&old);
            }
        }
    }
}

/// About what a span takes in memory.
fn weight(s: &Span) -> usize {
    let attributes: usize = s.attributes.iter().map(|(n, _)| n.len() + 48).sum();
    256 + s.name.len() + attributes + 128 * (s.events.len() + s.links.len())
}

impl TailSampler {
    pub(super) fn open(
        config: TailConfig,
        dir: &Path,
        next: Arc<dyn Sink>,
        clock: SharedClock,
    ) -> Result<TailSampler, wal::Error> {
        let mut state = State::default();
        let now = clock.now();
        let mut unreadable = 0u64;
        let (log, _) = Wal::open(wal::Config::new(dir.join("sampling")), |_, frame| match decode(frame) {
            Some(batch) => state.insert(batch, now),
            None => unreadable += 1,
        })?;
        if unreadable > 0 {
            tracing::error!(unreadable, "spans that waited for a decision were lost");
        }
        Ok(TailSampler {
            config,
            next,
            clock,
            log,
            state: Mutex::new(state),
            deciding: tokio::sync::Mutex::default(),
            gate: tokio::sync::RwLock::default(),
        })
    }

    /// Returns once the spans are in the log, or stored if their trace is decided on.
    pub(super) async fn take(&self, batch: SpanBatch) -> Result<Accepted, SinkError> {
        let accepted = batch.spans();
        let (mut late, mut waiting) = (SpanBatch::default(), SpanBatch::default());
        let mut left_out = 0;
        {
            let state = self.state.lock();
            for stream in batch.streams {
                let (mut of_kept, mut of_open) = (Vec::new(), Vec::new());
                for span in stream.spans {
                    match state.decided.get(&span.trace_id) {
                        Some(true) => of_kept.push(span),
                        Some(false) => left_out += 1,
                        None => of_open.push(span),
                    }
                }
                for (to, spans) in [(&mut late, of_kept), (&mut waiting, of_open)] {
                    if !spans.is_empty() {
                        let (labels, resource) = (stream.labels.clone(), stream.resource.clone());
                        to.streams.push(SpanStream { labels, resource, spans });
                    }
                }
            }
        }
        if late.spans() > 0 {
            self.next.write_spans(late).await?;
        }
        if waiting.spans() > 0 {
            let gate = self.gate.read().await;
            let now = self.clock.now();
            self.log.append(Bytes::from(encode::traces(&waiting).encode_to_vec())).await.map_err(refusal)?;
            let full = {
                let mut state = self.state.lock();
                state.insert(waiting, now);
                state.bytes > self.config.buffer_bytes
            };
            drop(gate);
            if full {
                // The spans are in the log whatever becomes of this.
                self.decide(true).await?;
            }
        }
        dropped("tail_sampling", left_out);
        Ok(Accepted { accepted, ..Accepted::default() })
    }

    pub(super) async fn run(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
            }
            if let Err(e) = self.decide(false).await {
                tracing::warn!(error = %e, "traces that were to be kept are not stored yet");
            }
        }
    }

    /// Stores the traces that are kept of those whose time has come; if `pressed`, of the older half of all.
    async fn decide(&self, pressed: bool) -> Result<(), SinkError> {
        let mut marks = self.deciding.lock().await;
        let now = self.clock.now();
        let wait = Duration::from_secs(self.config.decision_wait_seconds);
        let due: Vec<TraceId> = {
            let state = self.state.lock();
            let mut all: Vec<(Timestamp, TraceId)> =
                state.traces.iter().map(|(id, t)| (t.since, *id)).collect();
            all.sort_unstable();
            let half =
                if pressed && state.bytes > self.config.buffer_bytes { all.len().div_ceil(2) } else { 0 };
            let n = all.iter().take_while(|(since, _)| now.since(*since) >= wait).count().max(half);
            all.into_iter().take(n).map(|(_, id)| id).collect()
        };
        if due.is_empty() {
            return Ok(());
        }
        {
            let _gate = self.gate.write().await;
            let segment = self.log.rotate().await.map_err(refusal)?;
            marks.push_back((self.clock.now(), segment));
        }
        let (mut batch, mut left_out) = (SpanBatch::default(), 0);
        {
            let state = self.state.lock();
            for id in &due {
                let Some(t) = state.traces.get(id) else { continue };
                if !self.keeps(*id, t) {
                    left_out += t.spans.len();
                    continue;
                }
                for (source, span) in &t.spans {
                    match batch
                        .streams
                        .last_mut()
                        .filter(|s| s.labels == source.labels && s.resource == source.resource)
                    {
                        Some(s) => s.spans.push(span.clone()),
                        None => batch.streams.push(SpanStream {
                            labels: source.labels.clone(),
                            resource: source.resource.clone(),
                            spans: vec![span.clone()],
                        }),
                    }
                }
            }
        }
        if batch.spans() > 0 {
            self.next.write_spans(batch).await?;
        }
        dropped("tail_sampling", left_out);
        let oldest = {
            let mut state = self.state.lock();
            for id in due {
                if let Some(t) = state.traces.remove(&id) {
                    state.bytes -= t.bytes;
                    let kept = self.keeps(id, &t);
                    state.remember(id, kept);
                }
            }
            state.traces.values().map(|t| t.since).min()
        };
        let mut done = None;
        while let Some((before, segment)) = marks.front()
            && oldest.is_none_or(|o| o > *before)
        {
            done = Some(*segment);
            marks.pop_front();
        }
        match done {
            Some(segment) => self.log.delete_before(segment).await.map_err(refusal),
            None => Ok(()),
        }
    }

    fn keeps(&self, id: TraceId, t: &Trace) -> bool {
        let failed = || t.spans.iter().any(|(_, s)| matches!(s.status, SpanStatus::Error(_)));
        let slow = || {
            let start = t.spans.iter().map(|(_, s)| s.start).min().unwrap_or_default();
            let end = t.spans.iter().map(|(_, s)| s.end).max().unwrap_or_default();
            let least = self.config.slower_than_millis;
            least > 0 && end.since(start) >= Duration::from_millis(least)
        };
        // By the id, so that other collectors decide alike.
        let share = id.0[8..].iter().fold(0u64, |n, b| n << 8 | u64::from(*b)) as f64 / u64::MAX as f64;
        (self.config.errors && failed()) || slow() || share * 100.0 < self.config.keep_percent
    }
}

fn decode(frame: &[u8]) -> Option<SpanBatch> {
    Some(otlp::own_spans(&ExportTraceServiceRequest::decode(frame).ok()?))
}

fn refusal(e: wal::Error) -> SinkError {
    match e {
        wal::Error::Full { .. } => SinkError::Overloaded {
            what: "log of traces that wait".into(),
            retry_after: Duration::from_secs(1),
        },
        wal::Error::Closed => SinkError::Closed,
        wal::Error::FrameTooLong { .. } => SinkError::Invalid(e.to_string()),
        e => SinkError::Storage(e.to_string()),
    }
}
