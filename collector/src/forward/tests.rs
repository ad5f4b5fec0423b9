//! Forwarding to a receiver of our own, which is away at first, refuses for a while, and comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use signal::time::system_clock;
use signal::{
    Identity, Labels, LogBatch, LogRecord, LogStream, METRIC_NAME, MetricBatch, Sink, SinkError, Span,
    SpanBatch, SpanId, SpanStream, Timestamp, TraceId,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{ForwardConfig, Forwarder, Forwarding};
use crate::Senders;
use crate::kept::Kept;
use crate::otlp::{Receiver, Translation, authenticated_router};

fn config(address: SocketAddr, queue_bytes: u64) -> ForwardConfig {
    let text = serde_json::json!({"endpoint": format!("http://{address}/otlp"), "name": "test", "queue-bytes": queue_bytes});
    serde_json::from_value(text).expect("a configuration")
}

fn line(body: &str) -> LogBatch {
    let record = LogRecord { timestamp: Timestamp(5), body: body.to_owned(), ..LogRecord::default() };
    let labels = Labels::from_pairs([("namespace", "shop"), ("pod", "web-1"), ("service_name", "web")]);
    LogBatch { streams: vec![LogStream { labels, records: vec![record] }], checkpoints: Vec::new() }
}

async fn serve(listener: TcpListener, kept: Arc<Kept>) {
    let senders = Senders::new(Arc::default(), Identity::default(), Vec::new());
    let receiver = Receiver::new(kept, senders, Translation::NoTranslation, system_clock());
    let app = authenticated_router(receiver).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app).await.expect("serves");
}

async fn until(what: &str, mut ready: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if ready() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited for {what} in vain");
}

#[tokio::test]
async fn everything_arrives_in_order_over_restarts_and_refusals() {
    let dir = tempfile::tempdir().expect("a directory");
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = reserved.local_addr().expect("an address");
    let here = Arc::new(Kept::default());
    {
        // Nobody listens, and then this process ends.
        let f = Forwarder::open(config(address, 1 << 20), dir.path()).expect("a queue");
        let sink = Forwarding::new(here.clone(), vec![f.clone()]);
        sink.write_logs(line("one")).await.expect("stored");
        sink.write_logs(line("two")).await.expect("stored");
    }
    assert_eq!(here.bodies(), ["one", "two"]);
    let there = Arc::new(Kept::default());
    let busy = SinkError::Overloaded { what: "q".into(), retry_after: Duration::from_millis(10) };
    there.failures.lock().push(busy);
    reserved.set_nonblocking(true).expect("set");
    let listener = TcpListener::from_std(reserved).expect("a listener");
    let server = telemetry::task::spawn("test", serve(listener, there.clone()));
    let f = Forwarder::open(config(address, 1 << 20), dir.path()).expect("a queue");
    let stop = CancellationToken::new();
    let running = telemetry::task::spawn("test", f.clone().run(stop.clone()));
    let sink = Forwarding::new(here.clone(), vec![f]);
    sink.write_logs(line("three")).await.expect("stored");
    let span =
        Span { trace_id: TraceId([1; 16]), span_id: SpanId([2; 8]), name: "s".into(), ..Span::default() };
    let labels = Labels::from_pairs([("namespace", "shop"), ("service_name", "web")]);
    let spans =
        SpanBatch { streams: vec![SpanStream { labels, spans: vec![span], ..SpanStream::default() }] };
    sink.write_spans(spans).await.expect("stored");
    let mut metrics = MetricBatch::default();
    let labels = [(METRIC_NAME, "up_total"), ("job", "j"), ("instance", "i"), ("namespace", "shop")];
    metrics.push(Labels::from_pairs(labels), 5000, 7.0);
    sink.write_metrics(metrics).await.expect("stored");
    until("the last batch", || !there.metrics.lock().is_empty()).await;
    stop.cancel();
    running.await.expect("ended");
    server.abort();
    assert_eq!(there.bodies(), ["one", "two", "three"]);
    let logs = there.logs.lock();
    assert_eq!(
        logs[0].streams[0].labels.to_string(),
        r#"{namespace="shop", pod="web-1", service_name="web"}"#
    );
    assert_eq!(there.spans.lock()[0].streams[0].spans[0].name, "s");
    let metrics = there.metrics.lock();
    let series = metrics[0].series.iter().find(|s| s.labels.metric_name() == "up_total").expect("the series");
    assert_eq!(series.labels.to_string(), r#"up_total{instance="i", job="j", namespace="shop"}"#);
    assert_eq!((series.samples[0].timestamp, series.samples[0].value), (5000, 7.0));
}

#[tokio::test]
async fn a_full_queue_drops_its_oldest() {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let f = Forwarder::open(config(address, 256 << 10), dir.path()).expect("a queue");
    let sink = Forwarding::new(Arc::new(Kept::default()), vec![f.clone()]);
    // Text that does not shrink.
    let mut noise = 1u64;
    let mut body = || -> String {
        (0..40_000)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(b'!' + u8::try_from((noise >> 33) % 90).expect("small"))
            })
            .collect()
    };
    for n in 0..20 {
        sink.write_logs(line(&format!("{n} {}", body()))).await.expect("stored");
    }
    drop(listener);
    let stop = CancellationToken::new();
    let running = telemetry::task::spawn("test", f.clone().run(stop.clone()));
    until("room", || f.queue.stats().disk_bytes <= 320 << 10).await;
    let listener = TcpListener::bind(address).await.expect("the port again");
    let there = Arc::new(Kept::default());
    let server = telemetry::task::spawn("test", serve(listener, there.clone()));
    until("the newest", || there.bodies().iter().any(|b| b.starts_with("19 "))).await;
    let got: Vec<u32> = there.bodies().iter().filter_map(|b| b.split(' ').next()?.parse().ok()).collect();
    assert!(got.len() < 20 && got.is_sorted() && got.last() == Some(&19), "{got:?}");
    stop.cancel();
    running.await.expect("ended");
    server.abort();
}
