//! OTLP logs.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use signal::time::Clock;
use signal::{LogBatch, LogRecord, LogStream, Severity, SpanId, Timestamp, TraceId};

use super::attribute::{attributes, value};
use super::{Exported, Peer, Receiver, stream_labels};
use crate::metrics::accepted;

pub(super) fn convert(request: &ExportLogsServiceRequest, identity: &Peer, clock: &dyn Clock) -> LogBatch {
    let mut batch = LogBatch::default();
    for resource in &request.resource_logs {
        let (labels, base) = stream_labels(identity, resource.resource.as_ref());
        let mut records = Vec::new();
        for scope in &resource.scope_logs {
            let scope_name = scope.scope.as_ref().map(|s| s.name.as_str()).filter(|n| !n.is_empty());
            for r in &scope.log_records {
                let nanos = [r.time_unix_nano, r.observed_time_unix_nano].into_iter().find(|n| *n > 0);
                let timestamp = nanos
                    .and_then(|n| i64::try_from(n).ok())
                    .map_or_else(|| clock.now(), Timestamp::from_nanos);
                let severity = match u8::try_from(r.severity_number).ok().filter(|n| (1..=24).contains(n)) {
                    Some(n) => Severity(n),
                    None => Severity::parse(&r.severity_text),
                };
                let mut all = base.clone();
                if let Some(scope) = scope_name {
                    all.set("otel.scope.name", scope);
                }
                attributes(&r.attributes).0.into_iter().for_each(|(n, v)| all.set(n, v));
                records.push(LogRecord {
                    timestamp,
                    severity,
                    body: r.body.as_ref().and_then(value).map(|v| v.to_string()).unwrap_or_default(),
                    attributes: all,
                    trace_id: TraceId::from_slice(&r.trace_id).unwrap_or_default(),
                    span_id: SpanId::from_slice(&r.span_id).unwrap_or_default(),
                });
            }
        }
        if !records.is_empty() {
            batch.streams.push(LogStream { labels: labels.build(), records });
        }
    }
    batch
}

impl Receiver {
    pub(super) async fn export_logs(&self, r: &ExportLogsServiceRequest, identity: &Peer) -> Exported {
        let batch = convert(r, identity, &signal::time::SystemClock);
        let n = batch.records();
        let done = self.sink.write_logs(batch).await?;
        accepted("otlp", "logs", n - done.rejected.min(n));
        Ok(done)
    }
}
