//! Zipkin's way in: `POST /api/v2/spans`, JSON or protobuf, gzip.
//!
//! Source: openzipkin/zipkin-api zipkin2-api.yaml and zipkin.proto. A span that a client and a server share keeps its
//! one id, as they sent it.

mod convert;
mod proto;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prost::Message;
use serde::Deserialize;
use serde_json::{Map, Value};
use signal::time::SharedClock;
use signal::{Identity, Sink, SpanBatch};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::answer::{MOST_BYTES, Refused, content_type, unpack};
use crate::metrics::{accepted, received, refused};
use crate::sender::Senders;

const RECEIVER: &str = "zipkin";

/// Takes spans for both doors.
#[derive(Clone)]
pub struct Zipkin {
    sink: Arc<dyn Sink>,
    senders: Senders,
    clock: SharedClock,
    /// Senders that the door has authenticated are taken from any address.
    authenticated: bool,
}

impl Zipkin {
    pub fn new(sink: Arc<dyn Sink>, senders: Senders, clock: SharedClock) -> Self {
        Zipkin { sink, senders, clock, authenticated: false }
    }
}

/// Serves on an address of its own, where senders are who their addresses say, until `stop`.
pub async fn serve(zipkin: Zipkin, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
    let app = routes(zipkin).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(crate::prompt(listener), app).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// The same to be served under a prefix, behind authentication.
pub fn router(zipkin: Zipkin) -> Router {
    routes(Zipkin { authenticated: true, ..zipkin })
}

fn routes(zipkin: Zipkin) -> Router {
    Router::new()
        .route("/api/v2/spans", post(spans))
        // Senders ask before they begin.
        .route("/health", get(|| async { axum::Json(serde_json::json!({"status": "UP"})) }))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(zipkin)
}

async fn spans(
    State(zipkin): State<Zipkin>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match zipkin.take(peer, &headers, &body).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(r) => r.into_response(),
    }
}

impl Zipkin {
    async fn take(&self, peer: SocketAddr, headers: &HeaderMap, body: &[u8]) -> Result<(), Refused> {
        let identity = match self.senders.identify(peer.ip()) {
            Some(i) => i,
            None if self.authenticated => Arc::default(),
            None => {
                refused(RECEIVER, "unknown_sender");
                return Err(Refused::unknown_sender());
            }
        };
        let bad = |_: &Refused| refused(RECEIVER, "bad_request");
        let body = unpack(headers, body).inspect_err(bad)?;
        received(RECEIVER, body.len());
        let batch = read(content_type(headers), &body, &identity, self.clock.now()).inspect_err(bad)?;
        let n = batch.spans();
        if n == 0 {
            return Ok(());
        }
        let done = self.sink.write_spans(batch).await.map_err(|e| {
            refused(RECEIVER, "sink");
            Refused::from(&e)
        })?;
        accepted(RECEIVER, "traces", n - done.rejected.min(n));
        match done.reason {
            Some(why) if done.rejected > 0 => {
                Err(Refused::bad(format!("{} spans refused: {why}", done.rejected)))
            }
            _ => Ok(()),
        }
    }
}

fn read(kind: &str, body: &[u8], identity: &Identity, now: signal::Timestamp) -> Result<SpanBatch, Refused> {
    let spans = match kind {
        "application/x-protobuf" | "application/protobuf" => {
            let list = proto::ListOfSpans::decode(body)
                .map_err(|e| Refused::bad(format!("not a list of spans: {e}")))?;
            list.spans.into_iter().map(proto::Span::into_json).collect()
        }
        // As Zipkin's server does: what names no type is JSON.
        _ => serde_json::from_slice(body).map_err(|e| Refused::bad(format!("not a list of spans: {e}")))?,
    };
    convert::batch(spans, identity, now)
}

/// A span as its JSON has it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Span {
    trace_id: String,
    id: String,
    parent_id: Option<String>,
    name: Option<String>,
    kind: Option<String>,
    /// Microseconds, as a whole number by the specification and with a fraction in practice.
    timestamp: Option<f64>,
    duration: Option<f64>,
    local_endpoint: Option<Endpoint>,
    remote_endpoint: Option<Endpoint>,
    annotations: Option<Vec<Annotation>>,
    tags: Option<Map<String, Value>>,
    debug: Option<bool>,
    shared: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    service_name: Option<String>,
    ipv4: Option<String>,
    ipv6: Option<String>,
    port: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotation {
    timestamp: f64,
    value: String,
}

/// For `fuzz`: reads a body, by its first byte as JSON or protobuf.
#[doc(hidden)]
pub fn decode(body: &[u8]) -> usize {
    let Some((first, rest)) = body.split_first() else { return 0 };
    let kind = if first % 2 == 0 { "application/json" } else { "application/x-protobuf" };
    read(kind, rest, &Identity::default(), signal::Timestamp(1)).map_or(0, |b| b.spans())
}

#[cfg(test)]
mod tests;
