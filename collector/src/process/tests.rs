//! The whole pipeline in front of a sink that keeps what it is given.

use std::sync::Arc;

use signal::time::system_clock;
use signal::{
    Accepted, Checkpoint, Labels, LogBatch, LogRecord, LogStream, METRIC_NAME, Severity, Sink, SinkError,
    Span, SpanBatch, SpanId, SpanKind, SpanStatus, SpanStream, Timestamp, TraceId,
};
use tokio_util::sync::CancellationToken;

use super::{LogsConfig, Pipeline, Rules, Settings, TailConfig, TracesConfig};
use crate::kept::Kept;

fn open(kept: &Arc<Kept>, settings: Settings, traces: &TracesConfig, dir: &std::path::Path) -> Arc<Pipeline> {
    let rules = Rules::new(LogsConfig { defaults: settings, ..LogsConfig::default() }).expect("rules");
    Pipeline::open(kept.clone(), Arc::new(rules), traces, dir, system_clock()).expect("a pipeline")
}

fn lines(bodies: &[&str]) -> LogBatch {
    let record =
        |b: &&str| LogRecord { body: (*b).to_owned(), severity: Severity::INFO, ..LogRecord::default() };
    LogBatch {
        streams: vec![LogStream {
            labels: Labels::from_pairs([("namespace", "shop")]),
            records: bodies.iter().map(record).collect(),
        }],
        checkpoints: vec![Checkpoint { source: "s".into(), position: 1 }],
    }
}

#[tokio::test]
async fn lines_are_dropped_redacted_and_taken_apart() {
    let (kept, dir) = (Arc::new(Kept::default()), tempfile::tempdir().expect("a directory"));
    let settings = Settings {
        drop: Some(vec!["healthz".into()]),
        redact: Some(vec!["credit-card".into()]),
        attributes: Some("auto".into()),
        ..Settings::default()
    };
    let p = open(&kept, settings, &TracesConfig::default(), dir.path());
    let done = p
        .write_logs(lines(&["GET /healthz", r#"{"card":"4111111111111111","n":1}"#]))
        .await
        .expect("written");
    assert_eq!(done, Accepted { accepted: 2, ..Accepted::default() });
    assert_eq!(kept.bodies(), [r#"{"card":"[credit-card]","n":1}"#]);
    let attributes = kept.logs.lock()[0].streams[0].records[0].attributes.clone();
    assert_eq!(attributes.get_str("card"), Some("[credit-card]"));
    // Nothing is left but the position, which counts all the same.
    p.write_logs(lines(&["GET /healthz"])).await.expect("written");
    assert_eq!(kept.logs.lock()[1].checkpoints.len(), 1);
}

#[tokio::test]
async fn a_namespace_over_its_limit_is_told_when_to_come_again() {
    let (kept, dir) = (Arc::new(Kept::default()), tempfile::tempdir().expect("a directory"));
    let settings = Settings { lines_per_second: Some(1), ..Settings::default() };
    let p = open(&kept, settings, &TracesConfig::default(), dir.path());
    p.write_logs(lines(&["x"; 30])).await.expect("a burst passes");
    let e = p.write_logs(lines(&["x"; 5])).await.expect_err("over the limit");
    assert!(matches!(e, SinkError::Overloaded { retry_after, .. } if retry_after.as_secs() >= 4), "{e}");
    assert_eq!(kept.bodies().len(), 30);
}

fn trace(id: u8, failed: bool) -> SpanBatch {
    let span = |n: u8, parent: u8, kind, name: &str| Span {
        trace_id: TraceId([id; 16]),
        span_id: SpanId([n; 8]),
        parent_span_id: SpanId([parent; 8]),
        name: name.to_owned(),
        kind,
        start: Timestamp(1_000_000),
        end: Timestamp(4_000_000),
        status: if failed { SpanStatus::Error("x".into()) } else { SpanStatus::Unset },
        ..Span::default()
    };
    let stream = |service: &str, span| SpanStream {
        labels: Labels::from_pairs([("namespace", "shop"), ("service_name", service)]),
        spans: vec![span],
        ..SpanStream::default()
    };
    SpanBatch {
        streams: vec![
            stream("web", span(1, 0, SpanKind::Client, "call")),
            stream("cart", span(2, 1, SpanKind::Server, "GET /cart")),
        ],
    }
}

#[tokio::test]
async fn spans_are_counted_and_joined_to_edges() {
    let (kept, dir) = (Arc::new(Kept::default()), tempfile::tempdir().expect("a directory"));
    let p = open(&kept, Settings::default(), &TracesConfig::default(), dir.path());
    kept.failures.lock().push(SinkError::Storage("full".into()));
    p.write_spans(trace(1, false)).await.expect_err("full");
    p.write_spans(trace(1, false)).await.expect("written");
    p.write_spans(trace(2, true)).await.expect("written");
    p.measure().await;
    let metrics = kept.metrics.lock();
    let value = |name: &str, pairs: &[(&str, &str)]| {
        let of =
            |l: &Labels| l.get(METRIC_NAME) == Some(name) && pairs.iter().all(|(n, v)| l.get(n) == Some(v));
        let found = metrics[0].series.iter().rev().find(|s| of(&s.labels));
        found.and_then(|s| s.samples.last()).map(|s| s.value)
    };
    let cart = [
        ("service", "cart"),
        ("span_name", "GET /cart"),
        ("span_kind", "SPAN_KIND_SERVER"),
        ("namespace", "shop"),
    ];
    let with = |extra: (&'static str, &'static str)| cart.into_iter().chain([extra]).collect::<Vec<_>>();
    // What was refused is not counted.
    assert_eq!(
        value("traces_spanmetrics_calls_total", &with(("status_code", "STATUS_CODE_UNSET"))),
        Some(1.0)
    );
    assert_eq!(
        value("traces_spanmetrics_calls_total", &with(("status_code", "STATUS_CODE_ERROR"))),
        Some(1.0)
    );
    let bucket = with(("status_code", "STATUS_CODE_UNSET"));
    let le = |le| bucket.iter().copied().chain([("le", le)]).collect::<Vec<_>>();
    assert_eq!(value("traces_spanmetrics_latency_bucket", &le("0.002")), Some(0.0));
    assert_eq!(value("traces_spanmetrics_latency_bucket", &le("0.004")), Some(1.0));
    assert_eq!(value("traces_spanmetrics_latency_bucket", &le("+Inf")), Some(1.0));
    assert_eq!(value("traces_spanmetrics_latency_sum", &bucket), Some(0.003));
    let edge = [("client", "web"), ("server", "cart"), ("namespace", "shop"), ("client_namespace", "shop")];
    assert_eq!(value("traces_service_graph_request_total", &edge), Some(2.0));
    assert_eq!(value("traces_service_graph_request_failed_total", &edge), Some(1.0));
    assert_eq!(value("traces_service_graph_request_server_seconds_count", &edge), Some(2.0));
    assert!(metrics[0].exemplars.iter().any(|e| e.labels.get("trace_id") == Some(&"01".repeat(16))));
}

#[tokio::test]
async fn traces_are_kept_whole_and_survive_a_crash() {
    let (kept, dir) = (Arc::new(Kept::default()), tempfile::tempdir().expect("a directory"));
    let tail = TailConfig { decision_wait_seconds: 3600, keep_percent: 0.0, ..TailConfig::default() };
    let config = TracesConfig { tail_sampling: Some(tail.clone()), ..TracesConfig::default() };
    let p = open(&kept, Settings::default(), &config, dir.path());
    p.write_spans(trace(1, false)).await.expect("in the log");
    p.write_spans(trace(2, true)).await.expect("in the log");
    assert!(kept.spans.lock().is_empty(), "nothing is decided yet");
    drop(p);
    // Read back, with a wait that is over.
    let tail = TailConfig { decision_wait_seconds: 0, ..tail };
    let config = TracesConfig { tail_sampling: Some(tail), ..config };
    let p = open(&kept, Settings::default(), &config, dir.path());
    let stop = CancellationToken::new();
    let running = telemetry::task::spawn("test", p.clone().run(stop.clone()));
    while kept.spans.lock().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    {
        let spans = kept.spans.lock();
        let all: Vec<&Span> = spans.iter().flat_map(|b| &b.streams).flat_map(|s| &s.spans).collect();
        assert_eq!(all.len(), 2, "the failed trace alone, whole");
        assert!(all.iter().all(|s| s.trace_id == TraceId([2; 16])));
        assert!(
            spans[0]
                .streams
                .iter()
                .any(|s| s.labels.to_string() == r#"{namespace="shop", service_name="cart"}"#)
        );
    }
    // Late spans fare as their trace did.
    p.write_spans(trace(1, true)).await.expect("dropped");
    p.write_spans(trace(2, false)).await.expect("kept");
    assert_eq!(kept.spans.lock().len(), 2);
    stop.cancel();
    running.await.expect("ended");
    drop(p);
    let after = std::fs::read_dir(dir.path().join("sampling")).expect("a directory").count();
    assert!(after <= 2, "{after} segments stay");
}
