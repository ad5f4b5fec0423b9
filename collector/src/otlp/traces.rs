//! OTLP traces.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use signal::{
    Span, SpanBatch, SpanEvent, SpanId, SpanKind, SpanLink, SpanStatus, SpanStream, Timestamp, TraceId,
};

use super::attribute::attributes;
use super::{Exported, Peer, Receiver, stream_labels};
use crate::metrics::accepted;

/// The batch, and how many spans have no valid ids or times and are refused.
pub(super) fn convert(request: &ExportTraceServiceRequest, identity: &Peer) -> (SpanBatch, usize) {
    let (mut batch, mut refused) = (SpanBatch::default(), 0);
    let time = |n: u64| Timestamp::from_nanos(i64::try_from(n).unwrap_or(i64::MAX));
    for resource in &request.resource_spans {
        let (labels, sent) = stream_labels(identity, resource.resource.as_ref());
        let mut spans = Vec::new();
        for scope in &resource.scope_spans {
            for s in &scope.spans {
                let ids = TraceId::from_slice(&s.trace_id).zip(SpanId::from_slice(&s.span_id));
                let Some((trace_id, span_id)) = ids.filter(|(t, s)| t.is_valid() && s.is_valid()) else {
                    refused += 1;
                    continue;
                };
                let mut all = attributes(&s.attributes);
                if let Some(name) = scope.scope.as_ref().map(|s| s.name.as_str()).filter(|n| !n.is_empty()) {
                    all.set("otel.scope.name", name);
                }
                spans.push(Span {
                    trace_id,
                    span_id,
                    parent_span_id: SpanId::from_slice(&s.parent_span_id).unwrap_or_default(),
                    name: s.name.clone(),
                    kind: SpanKind::from_number(s.kind),
                    start: time(s.start_time_unix_nano),
                    end: time(s.end_time_unix_nano.max(s.start_time_unix_nano)),
                    status: match &s.status {
                        Some(st) if st.code == StatusCode::Ok as i32 => SpanStatus::Ok,
                        Some(st) if st.code == StatusCode::Error as i32 => {
                            SpanStatus::Error(st.message.clone())
                        }
                        _ => SpanStatus::Unset,
                    },
                    attributes: all,
                    events: s
                        .events
                        .iter()
                        .map(|e| SpanEvent {
                            timestamp: time(e.time_unix_nano),
                            name: e.name.clone(),
                            attributes: attributes(&e.attributes),
                        })
                        .collect(),
                    links: s
                        .links
                        .iter()
                        .map(|l| SpanLink {
                            trace_id: TraceId::from_slice(&l.trace_id).unwrap_or_default(),
                            span_id: SpanId::from_slice(&l.span_id).unwrap_or_default(),
                            attributes: attributes(&l.attributes),
                        })
                        .collect(),
                });
            }
        }
        if !spans.is_empty() {
            batch.streams.push(SpanStream { labels: labels.build(), resource: sent, spans });
        }
    }
    (batch, refused)
}

impl Receiver {
    pub(super) async fn export_traces(&self, r: &ExportTraceServiceRequest, identity: &Peer) -> Exported {
        let (batch, refused) = convert(r, identity);
        let n = batch.spans();
        let mut done = self.sink.write_spans(batch).await?;
        accepted("otlp", "traces", n - done.rejected.min(n));
        if refused > 0 {
            done.rejected += refused;
            done.reason = Some("spans without a valid trace id and span id".to_owned());
        }
        Ok(done)
    }
}
