//! Traces as OTLP has them: JSON and protobuf (opentelemetry-proto: trace.proto).

use prost::Message;
use serde_json::{Value, json};
use signal::{AttributeValue, Attributes, Span, SpanKind, SpanStatus, SpanStream};

/// OTLP's JSON. Ids are base64 in Tempo's answers, because that is how protobuf's own JSON has bytes; Grafana reads
/// both, and hex is what OTLP says.
pub(super) fn batches(streams: &[SpanStream]) -> Vec<Value> {
    streams
        .iter()
        .map(|s| {
            let mut resource = attributes(&s.resource);
            if s.resource.get("service.name").is_none() {
                let name = s.labels.get("service_name").unwrap_or("");
                resource.push(json!({"key": "service.name", "value": {"stringValue": name}}));
            }
            let spans: Vec<Value> = s.spans.iter().map(span).collect();
            json!({"resource": {"attributes": resource}, "scopeSpans": [{"scope": {"name": ""}, "spans": spans}]})
        })
        .collect()
}

fn attributes(a: &Attributes) -> Vec<Value> {
    a.iter()
        .map(|(name, v)| {
            let v = match v {
                AttributeValue::Bool(b) => json!({"boolValue": b}),
                AttributeValue::Int(i) => json!({"intValue": i.to_string()}),
                AttributeValue::Double(d) => json!({"doubleValue": d}),
                AttributeValue::String(s) => json!({"stringValue": s}),
            };
            json!({"key": name, "value": v})
        })
        .collect()
}

fn span(s: &Span) -> Value {
    let kind = match s.kind {
        SpanKind::Unspecified => "SPAN_KIND_UNSPECIFIED",
        SpanKind::Internal => "SPAN_KIND_INTERNAL",
        SpanKind::Server => "SPAN_KIND_SERVER",
        SpanKind::Client => "SPAN_KIND_CLIENT",
        SpanKind::Producer => "SPAN_KIND_PRODUCER",
        SpanKind::Consumer => "SPAN_KIND_CONSUMER",
    };
    let status = match &s.status {
        SpanStatus::Unset => json!({}),
        SpanStatus::Ok => json!({"code": "STATUS_CODE_OK"}),
        SpanStatus::Error(m) => json!({"code": "STATUS_CODE_ERROR", "message": m}),
    };
    let events: Vec<Value> = s
        .events
        .iter()
        .map(|e| json!({"timeUnixNano": e.timestamp.to_string(), "name": e.name, "attributes": attributes(&e.attributes)}))
        .collect();
    let links: Vec<Value> = s
        .links
        .iter()
        .map(|l| json!({"traceId": l.trace_id, "spanId": l.span_id, "attributes": attributes(&l.attributes)}))
        .collect();
    let mut out = json!({
        "traceId": s.trace_id, "spanId": s.span_id, "name": s.name, "kind": kind,
        "startTimeUnixNano": s.start.to_string(), "endTimeUnixNano": s.end.to_string(),
        "attributes": attributes(&s.attributes), "events": events, "links": links, "status": status,
    });
    if s.parent_span_id.is_valid() {
        out["parentSpanId"] = json!(s.parent_span_id);
    }
    out
}

mod wire {
    //! The messages, as far as they are written.

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Trace {
        #[prost(message, repeated, tag = "1")]
        pub(super) resource_spans: Vec<ResourceSpans>,
    }

    /// Tempo's answer of version 2.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TraceByIdResponse {
        #[prost(message, optional, tag = "1")]
        pub(super) trace: Option<Trace>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ResourceSpans {
        #[prost(message, optional, tag = "1")]
        pub(super) resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub(super) scope_spans: Vec<ScopeSpans>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ScopeSpans {
        #[prost(message, repeated, tag = "2")]
        pub(super) spans: Vec<Span>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Span {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) span_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        pub(super) parent_span_id: Vec<u8>,
        #[prost(string, tag = "5")]
        pub(super) name: String,
        #[prost(int32, tag = "6")]
        pub(super) kind: i32,
        #[prost(fixed64, tag = "7")]
        pub(super) start: u64,
        #[prost(fixed64, tag = "8")]
        pub(super) end: u64,
        #[prost(message, repeated, tag = "9")]
        pub(super) attributes: Vec<KeyValue>,
        #[prost(message, repeated, tag = "11")]
        pub(super) events: Vec<Event>,
        #[prost(message, repeated, tag = "13")]
        pub(super) links: Vec<Link>,
        #[prost(message, optional, tag = "15")]
        pub(super) status: Option<Status>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Event {
        #[prost(fixed64, tag = "1")]
        pub(super) time: u64,
        #[prost(string, tag = "2")]
        pub(super) name: String,
        #[prost(message, repeated, tag = "3")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Link {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) trace_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) span_id: Vec<u8>,
        #[prost(message, repeated, tag = "4")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Status {
        #[prost(string, tag = "2")]
        pub(super) message: String,
        #[prost(int32, tag = "3")]
        pub(super) code: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct KeyValue {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<AnyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct AnyValue {
        #[prost(oneof = "Value", tags = "1, 2, 3, 4")]
        pub(super) value: Option<Value>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Value {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(bool, tag = "2")]
        Bool(bool),
        #[prost(int64, tag = "3")]
        Int(i64),
        #[prost(double, tag = "4")]
        Double(f64),
    }
}

pub(super) fn encode(streams: &[SpanStream]) -> Vec<u8> {
    trace(streams).encode_to_vec()
}

pub(super) fn encode_v2(streams: &[SpanStream]) -> Vec<u8> {
    wire::TraceByIdResponse { trace: Some(trace(streams)) }.encode_to_vec()
}

fn trace(streams: &[SpanStream]) -> wire::Trace {
    let one = |s: &SpanStream| {
        let mut attributes = pairs(&s.resource);
        if s.resource.get("service.name").is_none() {
            let name = s.labels.get("service_name").unwrap_or("").to_owned();
            let value = wire::AnyValue { value: Some(wire::Value::Text(name)) };
            attributes.push(wire::KeyValue { key: "service.name".to_owned(), value: Some(value) });
        }
        wire::ResourceSpans {
            resource: Some(wire::Resource { attributes }),
            scope_spans: vec![wire::ScopeSpans { spans: s.spans.iter().map(message).collect() }],
        }
    };
    wire::Trace { resource_spans: streams.iter().map(one).collect() }
}

fn nanos(t: signal::Timestamp) -> u64 {
    u64::try_from(t.nanos()).unwrap_or(0)
}

fn message(s: &Span) -> wire::Span {
    let (code, text) = match &s.status {
        SpanStatus::Unset => (0, String::new()),
        SpanStatus::Ok => (1, String::new()),
        SpanStatus::Error(m) => (2, m.clone()),
    };
    let event = |e: &signal::SpanEvent| wire::Event {
        time: nanos(e.timestamp),
        name: e.name.clone(),
        attributes: pairs(&e.attributes),
    };
    let link = |l: &signal::SpanLink| wire::Link {
        trace_id: l.trace_id.0.to_vec(),
        span_id: l.span_id.0.to_vec(),
        attributes: pairs(&l.attributes),
    };
    let parent = s.parent_span_id;
    wire::Span {
        trace_id: s.trace_id.0.to_vec(),
        span_id: s.span_id.0.to_vec(),
        parent_span_id: if parent.is_valid() { parent.0.to_vec() } else { Vec::new() },
        name: s.name.clone(),
        kind: s.kind as i32,
        start: nanos(s.start),
        end: nanos(s.end),
        attributes: pairs(&s.attributes),
        events: s.events.iter().map(event).collect(),
        links: s.links.iter().map(link).collect(),
        status: Some(wire::Status { message: text, code }),
    }
}

fn pairs(a: &Attributes) -> Vec<wire::KeyValue> {
    a.iter()
        .map(|(name, v)| {
            let v = match v {
                AttributeValue::Bool(b) => wire::Value::Bool(*b),
                AttributeValue::Int(i) => wire::Value::Int(*i),
                AttributeValue::Double(d) => wire::Value::Double(*d),
                AttributeValue::String(s) => wire::Value::Text(s.clone()),
            };
            wire::KeyValue { key: name.to_owned(), value: Some(wire::AnyValue { value: Some(v) }) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut s = SpanStream {
            labels: signal::Labels::from_pairs([("service_name", "web")]),
            ..SpanStream::default()
        };
        s.spans.push(Span {
            name: "GET".to_owned(),
            kind: SpanKind::Server,
            status: SpanStatus::Error("boom".to_owned()),
            attributes: [("n", 5i64)].into_iter().collect(),
            ..Span::default()
        });
        let t = wire::TraceByIdResponse::decode(encode_v2(&[s]).as_slice())
            .expect("decodes")
            .trace
            .expect("a trace");
        let r = t.resource_spans.first().expect("one");
        assert_eq!(r.resource.as_ref().map(|r| r.attributes[0].key.as_str()), Some("service.name"));
        let span = &r.scope_spans[0].spans[0];
        assert_eq!((span.name.as_str(), span.kind, span.parent_span_id.len()), ("GET", 2, 0));
        assert_eq!(span.status.as_ref().map(|s| (s.code, s.message.as_str())), Some((2, "boom")));
        assert_eq!(span.attributes[0].value, Some(wire::AnyValue { value: Some(wire::Value::Int(5)) }));
    }
}
