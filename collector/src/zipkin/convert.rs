//! Zipkin's spans as ours. Names of attributes are OpenTelemetry's (specification/trace/sdk_exporters/zipkin.md).

use std::collections::BTreeMap;

use serde_json::Value;
use signal::{
    Attributes, Identity, SpanBatch, SpanEvent, SpanId, SpanKind, SpanStatus, SpanStream, Timestamp, TraceId,
};

use super::{Endpoint, Span};
use crate::answer::Refused;
use crate::sender;

/// An error names the first span that is wrong; then none is taken, as Zipkin's server does it.
pub(super) fn batch(spans: Vec<Span>, identity: &Identity, now: Timestamp) -> Result<SpanBatch, Refused> {
    let mut streams: BTreeMap<String, Vec<signal::Span>> = BTreeMap::new();
    for (n, span) in spans.into_iter().enumerate() {
        let service = span.local_endpoint.as_ref().and_then(|e| e.service_name.clone()).unwrap_or_default();
        let span = convert(span, now).map_err(|why| Refused::bad(format!("span {n}: {why}")))?;
        streams.entry(service).or_default().push(span);
    }
    let streams = streams.into_iter().map(|(service, spans)| {
        let labels = sender::stream(identity, Some(&service)).build();
        let mut resource = identity.resource.clone();
        if !service.is_empty() {
            resource.set("service.name", service);
        }
        SpanStream { labels, resource, spans }
    });
    Ok(SpanBatch { streams: streams.collect() })
}

fn convert(span: Span, now: Timestamp) -> Result<signal::Span, String> {
    let trace_id = format!("{:0>32}", span.trace_id);
    let trace_id: TraceId = trace_id.parse().map_err(|e| format!("traceId {:?}: {e}", span.trace_id))?;
    let id = |text: &str, what: &str| -> Result<SpanId, String> {
        format!("{text:0>16}").parse().map_err(|e| format!("{what} {text:?}: {e}"))
    };
    let span_id = id(&span.id, "id")?;
    let parent_span_id = match span.parent_id.as_deref() {
        Some(p) if !p.is_empty() => id(p, "parentId")?,
        _ => SpanId::INVALID,
    };
    if !trace_id.is_valid() || !span_id.is_valid() {
        return Err("traceId and id must not be zero".to_owned());
    }
    let start = span.timestamp.map_or(now, micros);
    let end = micros_after(start, span.duration.unwrap_or_default());
    let mut attributes = Attributes::default();
    let mut status = SpanStatus::Unset;
    for (name, value) in span.tags.unwrap_or_default() {
        let value = match value {
            Value::String(s) => s,
            Value::Null => continue,
            other => other.to_string(),
        };
        match name.as_str() {
            // Its presence is what says it.
            "error" => status = SpanStatus::Error(if value == "true" { String::new() } else { value }),
            "otel.status_code" if value == "OK" => status = SpanStatus::Ok,
            "otel.status_code" | "otel.status_description" => {
                let message = if name.ends_with("description") { value } else { String::new() };
                if !matches!(&status, SpanStatus::Error(m) if !m.is_empty()) {
                    status = SpanStatus::Error(message);
                }
            }
            _ => attributes.set(name, value),
        }
    }
    if let Some(e) = span.remote_endpoint {
        remote(e, &mut attributes);
    }
    for (name, set) in [("zipkin.debug", span.debug), ("zipkin.shared", span.shared)] {
        if set == Some(true) {
            attributes.set(name, true);
        }
    }
    let events = span.annotations.unwrap_or_default().into_iter().map(|a| SpanEvent {
        timestamp: micros(a.timestamp),
        name: a.value,
        attributes: Attributes::default(),
    });
    Ok(signal::Span {
        trace_id,
        span_id,
        parent_span_id,
        name: span.name.unwrap_or_default(),
        kind: match span.kind.as_deref() {
            Some("CLIENT") => SpanKind::Client,
            Some("SERVER") => SpanKind::Server,
            Some("PRODUCER") => SpanKind::Producer,
            Some("CONSUMER") => SpanKind::Consumer,
            _ => SpanKind::Internal,
        },
        start,
        end,
        status,
        attributes,
        events: events.collect(),
        links: Vec::new(),
    })
}

fn remote(e: Endpoint, attributes: &mut Attributes) {
    if let Some(name) = e.service_name.filter(|n| !n.is_empty()) {
        attributes.set("peer.service", name);
    }
    if let Some(ip) = e.ipv4.or(e.ipv6) {
        attributes.set("network.peer.address", ip);
    }
    if let Some(port) = e.port.filter(|p| *p > 0) {
        attributes.set("network.peer.port", port);
    }
}

/// Saturates. Whole microseconds stay exact: as nanoseconds they have more digits than a float holds.
fn micros(n: f64) -> Timestamp {
    let whole = n.trunc();
    Timestamp::from_nanos((whole as i64).saturating_mul(1000).saturating_add(((n - whole) * 1e3) as i64))
}

fn micros_after(start: Timestamp, n: f64) -> Timestamp {
    Timestamp::from_nanos(start.nanos().saturating_add(micros(n.max(0.0)).nanos()))
}
