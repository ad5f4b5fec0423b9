//! Messages of senders and of other servers.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use collector::Senders;
use collector::otlp::{Receiver, Translation, authenticated_router};
use exchange::chunk::Encoding;
use exchange::remote::{ReadRequest, ReadResponse, WriteRequest, take_frame};
use prost::Message;
use signal::{Accepted, LogBatch, MetricBatch, SeriesSource, Sink, SinkError, SpanBatch};
use tower::ServiceExt;
use tsdb::Tsdb;

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

/// The first byte says which encoding and signal; the rest goes through the door that senders use, up to a sink that keeps nothing.
pub(crate) fn otlp(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let receiver = Receiver::new(
        Arc::new(Nowhere),
        Senders::new(Arc::default(), signal::Identity::default(), Vec::new()),
        Translation::default(),
        signal::time::system_clock(),
    );
    let kind = if first % 2 == 0 { "application/x-protobuf" } else { "application/json" };
    let path = ["/otlp/v1/metrics", "/otlp/v1/logs", "/otlp/v1/traces"][usize::from(first / 2 % 3)];
    let request = Request::post(path)
        .header("content-type", kind)
        .extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))))
        .body(Body::from(body.to_vec()))
        .expect("a request");
    drop(RUNTIME.block_on(authenticated_router(receiver).oneshot(request)));
}

struct Nowhere;

#[async_trait]
impl Sink for Nowhere {
    async fn write_metrics(&self, _: MetricBatch) -> Result<Accepted, SinkError> {
        Ok(Accepted::default())
    }

    async fn write_logs(&self, _: LogBatch) -> Result<Accepted, SinkError> {
        Ok(Accepted::default())
    }

    async fn write_spans(&self, _: SpanBatch) -> Result<Accepted, SinkError> {
        Ok(Accepted::default())
    }
}

/// A container's log file.
pub(crate) fn cri(data: &[u8]) {
    collector::logfile::decode(data);
}

/// A connection's bytes.
pub(crate) fn syslog(data: &[u8]) {
    collector::syslog::decode(data);
}

pub(crate) fn fluent(data: &[u8]) {
    collector::fluent::decode(data);
}

pub(crate) fn bulk(data: &[u8]) {
    collector::elastic::decode(data);
}

/// The first byte says whether JSON or protobuf.
pub(crate) fn zipkin(data: &[u8]) {
    collector::zipkin::decode(data);
}

/// The first byte says which version.
pub(crate) fn remote_write(data: &[u8]) {
    if let Some((first, body)) = data.split_first() {
        query::decode_remote_write(body, first % 2 == 1);
    }
}

pub(crate) fn remote_read(data: &[u8]) {
    drop(ReadRequest::decode(data));
    drop(ReadResponse::decode(data));
    if let Ok(w) = WriteRequest::decode(data) {
        w.into_batch();
    }
    let mut buffer = data.to_vec();
    while let Ok(Some(frame)) = take_frame(&mut buffer) {
        frame.chunked_series.iter().for_each(|s| drop(s.columns()));
    }
}

/// The first byte says which encoding.
pub(crate) fn chunk(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    if let Some(encoding) = Encoding::from_number(first % 3 + 1) {
        drop(exchange::chunk::decode(encoding, body, |_| {}));
    }
}

/// A database that is opened from what a target has left on disk, and read; gives back how many series it had.
pub(crate) fn open_and_read(dir: &std::path::Path) -> usize {
    let Ok(db) = Tsdb::open(tsdb::Config::new(dir.to_owned())) else { return 0 };
    let select = signal::Select { matchers: Vec::new(), start: i64::MIN, end: i64::MAX };
    db.select(&select).map_or(0, |all| all.filter(Result::is_ok).count())
}

/// The first byte says whether the push is JSON or protobuf in snappy.
pub(crate) fn loki_push(data: &[u8]) {
    if let Some((first, body)) = data.split_first() {
        let _: bool = query::decode_loki_push(body, first % 2 == 1, 1 << 20);
    }
}
