//! Takes finished spans from the OpenTelemetry SDK and puts them on the queue.

use std::time::Duration;

use opentelemetry::trace::{SpanKind as OtelKind, Status};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span as SdkSpan, SpanData, SpanProcessor};
use signal::{AttributeValue, Attributes, Span, SpanEvent, SpanId, SpanKind, SpanLink, SpanStatus, TraceId};

use crate::layer::suppressed;
use crate::ship::{Item, Queue};

#[derive(Debug)]
pub(crate) struct Processor {
    pub(crate) queue: Queue,
}

impl SpanProcessor for Processor {
    fn on_start(&self, _span: &mut SdkSpan, _cx: &Context) {}

    fn on_end(&self, span: SpanData) {
        if suppressed() || !span.span_context.is_sampled() {
            return;
        }
        let mut attributes = attributes(&span.attributes);
        let component = match attributes.0.iter().position(|(n, _)| n == "target") {
            Some(i) => attributes.0.remove(i).1.to_string().split("::").next().unwrap_or_default().to_owned(),
            None => "binnacle".to_owned(),
        };
        self.queue.send(Item::Span {
            component,
            span: Span {
                trace_id: TraceId(span.span_context.trace_id().to_bytes()),
                span_id: SpanId(span.span_context.span_id().to_bytes()),
                parent_span_id: SpanId(span.parent_span_id.to_bytes()),
                name: span.name.into_owned(),
                kind: match span.span_kind {
                    OtelKind::Client => SpanKind::Client,
                    OtelKind::Server => SpanKind::Server,
                    OtelKind::Producer => SpanKind::Producer,
                    OtelKind::Consumer => SpanKind::Consumer,
                    OtelKind::Internal => SpanKind::Internal,
                },
                start: span.start_time.into(),
                end: span.end_time.into(),
                status: match span.status {
                    Status::Unset => SpanStatus::Unset,
                    Status::Ok => SpanStatus::Ok,
                    Status::Error { description } => SpanStatus::Error(description.into_owned()),
                },
                attributes,
                events: span
                    .events
                    .iter()
                    .map(|e| SpanEvent {
                        timestamp: e.timestamp.into(),
                        name: e.name.to_string(),
                        attributes: self::attributes(&e.attributes),
                    })
                    .collect(),
                links: span
                    .links
                    .iter()
                    .map(|l| SpanLink {
                        trace_id: TraceId(l.span_context.trace_id().to_bytes()),
                        span_id: SpanId(l.span_context.span_id().to_bytes()),
                        attributes: self::attributes(&l.attributes),
                    })
                    .collect(),
            },
        });
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn attributes(pairs: &[KeyValue]) -> Attributes {
    pairs
        .iter()
        .map(|kv| {
            let value = match &kv.value {
                Value::Bool(v) => AttributeValue::Bool(*v),
                Value::I64(v) => AttributeValue::Int(*v),
                Value::F64(v) => AttributeValue::Double(*v),
                other => AttributeValue::String(other.to_string()),
            };
            (kv.key.to_string(), value)
        })
        .collect()
}
