//! The clauses of OTLP that servers get wrong, through the HTTP door.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::Request;
use signal::{Identity, SinkError};
use tower::ServiceExt;

use super::{Receiver, Translation, authenticated_router};
use crate::Senders;
use crate::kept::Kept;

async fn send(
    kept: &Arc<Kept>,
    path: &str,
    kind: &str,
    body: impl Into<Body>,
) -> (u16, Option<String>, String) {
    let senders = Senders::new(Arc::default(), Identity::default(), Vec::new());
    let clock = signal::time::system_clock();
    let receiver = Receiver::new(kept.clone(), senders, Translation::default(), clock);
    let request = Request::post(path)
        .header("content-type", kind)
        .extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))))
        .body(body.into())
        .expect("a request");
    let r = authenticated_router(receiver).oneshot(request).await.expect("an answer");
    let after = r.headers().get("retry-after").map(|v| v.to_str().expect("text").to_owned());
    let kind = r.headers().get("content-type").map(|v| v.to_str().expect("text").to_owned());
    assert_eq!(kind.as_deref(), Some("application/json"), "an answer speaks as its question");
    let status = r.status().as_u16();
    let body = to_bytes(r.into_body(), 1 << 20).await.expect("a body");
    (status, after, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn json_as_the_specification_has_it() {
    let kept = Arc::new(Kept::default());
    // Times as numbers and strings, ids in hex, an enum as a number, fields that nobody knows.
    let body = r#"{"resourceLogs":[{"schemaUrl":"x","unknown":[1],"resource":{"attributes":[
        {"key":"service.name","value":{"stringValue":"s","new":1}}]},"scopeLogs":[{"logRecords":[
        {"timeUnixNano":1700000000000000001,"severityNumber":17,"body":{"stringValue":"a"},
         "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174",
         "attributes":[{"key":"n","value":{"intValue":"9007199254740993"}},{"key":"m","value":{"intValue":7}}]},
        {"timeUnixNano":"1700000000000000002","body":null,"observedTimeUnixNano":null}]}]}]}"#;
    let (status, _, answer) = send(&kept, "/otlp/v1/logs", "application/json", body).await;
    assert_eq!((status, answer.as_str()), (200, "{}"), "nothing was rejected, so nothing is said of it");
    let logs = kept.logs.lock();
    let r = &logs[0].streams[0].records;
    assert_eq!(r[0].timestamp.nanos(), 1_700_000_000_000_000_001);
    assert_eq!(r[0].trace_id.to_string(), "5b8efff798038103d269b633813fc60c");
    assert_eq!(r[0].severity.as_str(), "error");
    assert_eq!(r[0].attributes.get("n"), Some(&9_007_199_254_740_993_i64.into()));
    assert_eq!(r[0].attributes.get("m"), Some(&7i64.into()));
    assert_eq!(r[1].timestamp.nanos(), 1_700_000_000_000_000_002);
    assert_eq!(logs[0].streams[0].labels.get("service_name"), Some("s"));
}

#[tokio::test]
async fn a_span_that_is_refused_is_told_of() {
    let kept = Arc::new(Kept::default());
    let body = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c",
        "spanId":"eee19b7ec3c1b174","name":"ok","kind":2,"startTimeUnixNano":"1","endTimeUnixNano":"2"},
        {"traceId":"","spanId":"","name":"bad"}]}]}]}"#;
    let (status, _, answer) = send(&kept, "/otlp/v1/traces", "application/json", body).await;
    assert_eq!(status, 200, "a partial success is one");
    assert!(answer.contains(r#""rejectedSpans":"1""#) || answer.contains(r#""rejectedSpans":1"#), "{answer}");
    assert_eq!(kept.spans.lock()[0].spans(), 1);
}

#[tokio::test]
async fn failures_say_when_to_come_again() {
    let kept = Arc::new(Kept::default());
    let body = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"a"}}]}]}]}"#;
    let busy = SinkError::Overloaded { what: "q".into(), retry_after: Duration::from_millis(2500) };
    for (error, expect) in [
        (busy, (429, Some("3"), 8)),
        (SinkError::Storage("full".to_owned()), (503, Some("5"), 14)),
        (SinkError::Invalid("x".to_owned()), (400, None, 3)),
    ] {
        kept.failures.lock().push(error);
        let (status, after, answer) = send(&kept, "/otlp/v1/logs", "application/json", body).await;
        let said: serde_json::Value = serde_json::from_str(&answer).expect("a status");
        assert_eq!((status, after.as_deref(), said["code"].as_i64()), (expect.0, expect.1, Some(expect.2)));
    }
    let (status, _, _) = send(&kept, "/otlp/v1/logs", "application/json", "{").await;
    assert_eq!(status, 400);
}
