//! What lies between receivers and the store: receivers → processors → sink, in this order.
//!
//! Lines: [`limit`] (a namespace's lines and bytes a second) → [`sample`] (drop rules, sampling) → [`redact`] →
//! [`attributes`] (JSON and logfmt, once). Joining lines of one record is the file reader's part ([`multiline`]), which
//! keeps a position only over whole records. Spans: [`limit`] → [`tail`] (whole traces are kept or dropped) → sink,
//! and from all of them [`spanmetrics`] and [`servicegraph`].
//!
//! [`rules`] says what holds for a stream: the configuration file, a namespace's annotations, a pod's. With nothing
//! configured a batch passes through untouched but for being measured.

mod attributes;
mod histogram;
mod limit;
pub(crate) mod multiline;
mod redact;
pub mod rules;
mod sample;
mod servicegraph;
mod spanmetrics;
pub mod tail;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use signal::time::SharedClock;
use signal::{Accepted, LogBatch, MetricBatch, Sink, SinkError, SpanBatch};
use tokio_util::sync::CancellationToken;

pub use rules::{LogRules, LogsConfig, Rules, RulesError, Settings};
pub use tail::TailConfig;

use crate::metrics::{dropped, refused};

/// How often what spans say goes to the metrics engine.
const MEASURED_EVERY: Duration = Duration::from_secs(15);

/// What becomes of spans.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TracesConfig {
    /// Calls and durations of each service and operation as metrics.
    pub span_metrics: bool,
    /// Requests between services as metrics.
    pub service_graph: bool,
    /// Whole traces are kept or dropped once they are over.
    pub tail_sampling: Option<TailConfig>,
    /// Of each namespace; 0 is any number.
    pub spans_per_second: u64,
}

impl Default for TracesConfig {
    fn default() -> Self {
        TracesConfig { span_metrics: true, service_graph: true, tail_sampling: None, spans_per_second: 0 }
    }
}

/// The processors, as a sink in front of another.
pub struct Pipeline {
    next: Arc<dyn Sink>,
    rules: Arc<Rules>,
    limits: limit::Limits,
    spans_per_second: u64,
    metrics: Option<spanmetrics::SpanMetrics>,
    graph: Option<servicegraph::ServiceGraph>,
    tail: Option<tail::TailSampler>,
    clock: SharedClock,
}

impl Pipeline {
    /// `dir` is where tail sampling keeps spans that are not decided on.
    pub fn open(
        next: Arc<dyn Sink>,
        rules: Arc<Rules>,
        traces: &TracesConfig,
        dir: &std::path::Path,
        clock: SharedClock,
    ) -> Result<Arc<Pipeline>, wal::Error> {
        let tail = match &traces.tail_sampling {
            Some(c) => Some(tail::TailSampler::open(c.clone(), dir, next.clone(), clock.clone())?),
            None => None,
        };
        Ok(Arc::new(Pipeline {
            next,
            rules,
            limits: limit::Limits::default(),
            spans_per_second: traces.spans_per_second,
            metrics: traces.span_metrics.then(spanmetrics::SpanMetrics::default),
            graph: traces.service_graph.then(servicegraph::ServiceGraph::default),
            tail,
            clock,
        }))
    }

    /// Writes what was measured, and decides on traces, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let sampling = async {
            match &self.tail {
                Some(t) => t.run(stop.clone()).await,
                None => stop.cancelled().await,
            }
        };
        let measuring = async {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(MEASURED_EVERY) => self.measure().await,
                }
            }
        };
        tokio::join!(sampling, measuring);
        self.measure().await;
    }

    async fn measure(&self) {
        let now = self.clock.now().millis();
        let mut batch = MetricBatch::default();
        if let Some(m) = &self.metrics {
            m.collect(now, &mut batch);
        }
        if let Some(g) = &self.graph {
            g.collect(self.clock.now(), &mut batch);
        }
        if batch.series.is_empty() {
            return;
        }
        if let Err(e) = self.next.write_metrics(batch).await {
            refused("spans", "sink");
            tracing::warn!(error = %e, "metrics of spans were not stored; their counters go on");
        }
    }
}

#[async_trait]
impl Sink for Pipeline {
    async fn write_metrics(&self, batch: MetricBatch) -> Result<Accepted, SinkError> {
        self.next.write_metrics(batch).await
    }

    async fn write_logs(&self, mut batch: LogBatch) -> Result<Accepted, SinkError> {
        self.limits.take_lines(&batch, &self.rules, self.clock.now())?;
        let mut left_out = 0;
        for stream in &mut batch.streams {
            let rules = self.rules.of(&stream.labels);
            if rules.is_nothing() {
                continue;
            }
            let before = stream.records.len();
            sample::apply(&rules, &mut stream.records);
            left_out += before - stream.records.len();
            for record in &mut stream.records {
                redact::apply(&rules, record);
                attributes::apply(rules.attributes, record);
            }
        }
        dropped("rules", left_out);
        batch.streams.retain(|s| !s.records.is_empty());
        if batch.streams.is_empty() && batch.checkpoints.is_empty() {
            return Ok(Accepted { accepted: left_out, ..Accepted::default() });
        }
        let done = self.next.write_logs(batch).await?;
        Ok(Accepted { accepted: done.accepted + left_out, ..done })
    }

    async fn write_spans(&self, batch: SpanBatch) -> Result<Accepted, SinkError> {
        self.limits.take_spans(&batch, self.spans_per_second, self.clock.now())?;
        // Counted once they are stored: a batch that is refused comes again.
        let measured = self.metrics.as_ref().map(|m| m.look(&batch, self.clock.now().millis()));
        let halves = self.graph.as_ref().map(|_| servicegraph::halves(&batch));
        let done = match &self.tail {
            Some(tail) => tail.take(batch).await?,
            None => self.next.write_spans(batch).await?,
        };
        if let (Some(m), Some(measured)) = (&self.metrics, measured) {
            m.count(measured);
        }
        if let (Some(g), Some(halves)) = (&self.graph, halves) {
            g.add(halves, self.clock.now());
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests;
