//! Spans as Zipkin's reporters send them.

use prost::Message;
use signal::{Identity, Labels, SpanKind, SpanStatus, Timestamp};

use super::{proto, read};

fn spans(kind: &str, body: &[u8]) -> Result<signal::SpanBatch, String> {
    let identity = Identity { labels: Labels::from_pairs([("pod", "p")]), ..Identity::default() };
    read(kind, body, &identity, Timestamp(5)).map_err(|r| r.why)
}

const JSON: &str = r#"[{"traceId":"5af7183fb1d4cf5f","id":"6b221d5bc9e6496c","parentId":"5af7183fb1d4cf5f","name":"get",
    "kind":"CLIENT","timestamp":1556604172355737,"duration":1431,"localEndpoint":{"serviceName":"backend","ipv4":"192.168.99.1"},
    "remoteEndpoint":{"serviceName":"db","ipv4":"10.0.0.2","port":5432},"annotations":[{"timestamp":1556604172355800,"value":"wire"}],
    "tags":{"http.path":"/api","error":"boom"},"shared":true}]"#;

#[test]
fn a_span_of_the_specification() {
    let batch = spans("application/json", JSON.as_bytes()).expect("spans");
    assert_eq!(batch.streams[0].labels.to_string(), r#"{pod="p", service_name="backend"}"#);
    let s = &batch.streams[0].spans[0];
    assert_eq!(s.trace_id.to_string(), "00000000000000005af7183fb1d4cf5f");
    assert_eq!((s.kind, s.name.as_str()), (SpanKind::Client, "get"));
    assert_eq!(s.start.nanos(), 1_556_604_172_355_737_000);
    assert_eq!(s.end.since(s.start).as_micros(), 1431);
    assert_eq!(s.status, SpanStatus::Error("boom".to_owned()));
    assert_eq!(s.attributes.get_str("peer.service"), Some("db"));
    assert_eq!(s.attributes.get("network.peer.port"), Some(&5432i64.into()));
    assert_eq!(s.attributes.get("zipkin.shared"), Some(&true.into()));
    assert_eq!(s.events[0].name, "wire");
}

#[test]
fn wrong_spans_are_refused_with_their_place() {
    for (body, expect) in [
        ("{}", "not a list of spans"),
        (r#"[{"traceId":"zz","id":"1"}]"#, "span 0: traceId"),
        (r#"[{"traceId":"1","id":"0"}]"#, "must not be zero"),
        (r#"[{"traceId":"1","id":"123456789012345678"}]"#, "span 0: id"),
    ] {
        let e = spans("application/json", body.as_bytes()).expect_err(body);
        assert!(e.contains(expect), "{body}: {e}");
    }
    assert_eq!(spans("", b"[]").expect("no spans").spans(), 0);
}

#[test]
fn protobuf_says_the_same() {
    // Field by field as zipkin.proto numbers them: trace id, id, kind SERVER, name, timestamp.
    let mut span = vec![0x0a, 8];
    span.extend_from_slice(&[0x5a, 0xf7, 0x18, 0x3f, 0xb1, 0xd4, 0xcf, 0x5f]);
    span.extend_from_slice(&[0x1a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0x20, 2, 0x2a, 3, b'g', b'e', b't', 0x31]);
    span.extend_from_slice(&1_556_604_172_355_737u64.to_le_bytes());
    let mut body = vec![0x0a, u8::try_from(span.len()).expect("short")];
    body.extend_from_slice(&span);
    assert_eq!(proto::ListOfSpans::decode(body.as_slice()).expect("a list").spans.len(), 1);
    let s = &spans("application/x-protobuf", &body).expect("spans").streams[0].spans[0];
    assert_eq!(
        (s.name.as_str(), s.kind, s.span_id.to_string().as_str()),
        ("get", SpanKind::Server, "0102030405060708")
    );
    assert_eq!(s.start.nanos(), 1_556_604_172_355_737_000);
    assert_eq!(s.trace_id.to_string(), "00000000000000005af7183fb1d4cf5f");
}
