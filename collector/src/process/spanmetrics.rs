//! Calls and durations of each service and operation, counted from spans (names as Tempo's metrics-generator has them):
//! `traces_spanmetrics_calls_total` and `traces_spanmetrics_latency_{bucket,sum,count}` in seconds, with the labels
//! `namespace`, `service`, `span_name`, `span_kind` and `status_code`, and exemplars that name a trace.

use std::collections::HashMap;

use ahash::RandomState;
use parking_lot::Mutex;
use signal::{Labels, MetricBatch, Span, SpanBatch, SpanKind, SpanStatus, TraceId};

use super::histogram::{Histogram, counter};
use crate::metrics::dropped;

/// Series of calls at most; a service that names every operation anew is cut off here.
const MOST: usize = 5_000;
/// A series that counts nothing for so long ends.
const IDLE_MILLIS: i64 = 5 * 60_000;

pub(super) struct SpanMetrics {
    series: Mutex<HashMap<u64, Series, RandomState>>,
    hasher: RandomState,
}

impl Default for SpanMetrics {
    fn default() -> Self {
        SpanMetrics { series: Mutex::default(), hasher: RandomState::with_seeds(11, 12, 13, 14) }
    }
}

struct Series {
    labels: Labels,
    calls: Histogram,
    count: u64,
    /// In milliseconds.
    last: i64,
    /// Whether a zero was written, without which a rate misses the first calls.
    begun: bool,
}

/// What a batch would count.
pub(super) struct Measured(Vec<(u64, f64, TraceId)>, i64);

impl SpanMetrics {
    /// Looks at a batch before it is stored. `now` in milliseconds.
    pub(super) fn look(&self, batch: &SpanBatch, now: i64) -> Measured {
        let mut measured = Vec::with_capacity(batch.spans());
        let mut series = self.series.lock();
        let mut over = 0;
        for stream in &batch.streams {
            let namespace = stream.labels.get("namespace").unwrap_or_default();
            let service = stream.labels.get("service_name").unwrap_or_default();
            for s in &stream.spans {
                let key = self.hasher.hash_one((
                    namespace,
                    service,
                    s.name.as_str(),
                    s.kind as u8,
                    code(&s.status),
                ));
                if !series.contains_key(&key) {
                    if series.len() >= MOST {
                        over += 1;
                        continue;
                    }
                    let labels = labels(namespace, service, s);
                    let new =
                        Series { labels, calls: Histogram::default(), count: 0, last: now, begun: false };
                    series.insert(key, new);
                }
                measured.push((key, s.end.since(s.start).as_secs_f64(), s.trace_id));
            }
        }
        dropped("span_metrics_series", over);
        Measured(measured, now)
    }

    pub(super) fn count(&self, Measured(measured, now): Measured) {
        let mut series = self.series.lock();
        for (key, seconds, trace) in measured {
            if let Some(s) = series.get_mut(&key) {
                s.calls.add(seconds, trace, now);
                s.count += 1;
                s.last = now;
            }
        }
    }

    /// Adds all series; those that were silent for long end with a stale marker.
    pub(super) fn collect(&self, now: i64, batch: &mut MetricBatch) {
        self.series.lock().retain(|_, s| {
            let from = batch.series.len();
            if !s.begun {
                // A moment earlier, so that what came since counts as an increase.
                s.begun = true;
                Histogram::default().write(LATENCY, &s.labels, now - 1, batch);
                counter(CALLS, &s.labels, now - 1, 0, batch);
            }
            s.calls.write(LATENCY, &s.labels, now, batch);
            counter(CALLS, &s.labels, now, s.count, batch);
            let ends = now - s.last > IDLE_MILLIS;
            if ends {
                for series in &mut batch.series[from..] {
                    series.samples.iter_mut().for_each(|s| s.value = signal::stale_nan());
                }
            }
            !ends
        });
    }
}

const CALLS: &str = "traces_spanmetrics_calls_total";
const LATENCY: &str = "traces_spanmetrics_latency";

fn code(status: &SpanStatus) -> u8 {
    match status {
        SpanStatus::Unset => 0,
        SpanStatus::Ok => 1,
        SpanStatus::Error(_) => 2,
    }
}

fn labels(namespace: &str, service: &str, s: &Span) -> Labels {
    let kind = match s.kind {
        SpanKind::Unspecified => "SPAN_KIND_UNSPECIFIED",
        SpanKind::Internal => "SPAN_KIND_INTERNAL",
        SpanKind::Server => "SPAN_KIND_SERVER",
        SpanKind::Client => "SPAN_KIND_CLIENT",
        SpanKind::Producer => "SPAN_KIND_PRODUCER",
        SpanKind::Consumer => "SPAN_KIND_CONSUMER",
    };
    let status = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"][usize::from(code(&s.status))];
    Labels::from_pairs([
        ("namespace", namespace),
        ("service", service),
        ("span_name", &s.name),
        ("span_kind", kind),
        ("status_code", status),
    ])
}
