//! OTLP over HTTP: `/v1/{logs,traces,metrics}`, protobuf and JSON, gzip. The answer speaks as the question did.

use std::io::Read;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use signal::{Accepted, Identity, SinkError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Exported, MOST_BYTES, Receiver};
use crate::metrics::refused;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// Serves until `stop`.
pub async fn serve(
    receiver: Receiver,
    listener: TcpListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/v1/logs", post(logs))
        .route("/v1/traces", post(traces))
        .route("/v1/metrics", post(metrics))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(receiver);
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

/// Metrics at `/api/v1/otlp/v1/metrics`, where Prometheus has them. To be served under authentication: senders from
/// elsewhere than this machine and its pods are then taken too, as nobody in particular.
pub fn metrics_router(receiver: Receiver) -> Router {
    Router::new()
        .route("/api/v1/otlp/v1/metrics", post(known_metrics))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(receiver)
}

async fn known_metrics(
    State(receiver): State<Receiver>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let identity = receiver.identify(Some(peer.ip())).unwrap_or_default();
    receive_metrics(&receiver, &identity, &headers, &body).await
}

/// A refusal before the sink was asked.
struct Refused(StatusCode, String);

struct Body<T> {
    request: T,
    json: bool,
}

fn read<T: Message + Default + DeserializeOwned>(
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Body<T>, Refused> {
    let bad = |what: String| Refused(StatusCode::BAD_REQUEST, what);
    let of = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let content_type = of(header::CONTENT_TYPE).split(';').next().unwrap_or("").trim();
    let unpacked;
    let bytes: &[u8] = match of(header::CONTENT_ENCODING) {
        "" | "identity" => body,
        "gzip" => {
            let mut out = Vec::new();
            // One byte more than allowed, so that a bomb is told from a body that just fits.
            let mut reader = flate2::read::GzDecoder::new(&body[..]).take(MOST_BYTES as u64 + 1);
            reader.read_to_end(&mut out).map_err(|e| bad(format!("gzip: {e}")))?;
            if out.len() > MOST_BYTES {
                return Err(Refused(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("more than {MOST_BYTES} bytes decompressed"),
                ));
            }
            unpacked = out;
            &unpacked
        }
        other => {
            return Err(Refused(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("content encoding {other:?}: use gzip or none"),
            ));
        }
    };
    match content_type {
        PROTOBUF => Ok(Body { request: T::decode(bytes).map_err(|e| bad(e.to_string()))?, json: false }),
        JSON => {
            Ok(Body { request: serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?, json: true })
        }
        other => Err(Refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("content type {other:?}: use {PROTOBUF} or {JSON}"),
        )),
    }
}

fn answer<T: Message + Serialize>(json: bool, response: &T) -> Response {
    if json {
        return axum::Json(response).into_response();
    }
    ([(header::CONTENT_TYPE, PROTOBUF)], response.encode_to_vec()).into_response()
}

fn failed(e: &SinkError) -> Response {
    refused("otlp_http", "sink");
    match e {
        SinkError::Invalid(_) => (StatusCode::BAD_REQUEST, e.to_string()).into_response(),
        SinkError::Overloaded { retry_after, .. } => {
            let seconds = retry_after.as_secs().max(1).to_string();
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds)], e.to_string()).into_response()
        }
        _ => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], e.to_string()).into_response(),
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        refused("otlp_http", "bad_request");
        (self.0, self.1).into_response()
    }
}

fn finish<T: Message + Serialize>(json: bool, done: Exported, build: impl FnOnce(Accepted) -> T) -> Response {
    match done {
        Ok(a) => answer(json, &build(a)),
        Err(e) => failed(&e),
    }
}

macro_rules! handler {
    ($name:ident, $receive:ident, $request:ty, $export:ident, $response:ident, $partial:ident, $count:ident) => {
        async fn $name(
            State(receiver): State<Receiver>,
            ConnectInfo(peer): ConnectInfo<SocketAddr>,
            headers: HeaderMap,
            body: Bytes,
        ) -> Response {
            let Some(identity) = receiver.identify(Some(peer.ip())) else {
                let why = "the sender's address belongs to no pod of this cluster".to_owned();
                return Refused(StatusCode::UNAUTHORIZED, why).into_response();
            };
            $receive(&receiver, &identity, &headers, &body).await
        }

        async fn $receive(
            receiver: &Receiver,
            identity: &Identity,
            headers: &HeaderMap,
            body: &Bytes,
        ) -> Response {
            let body: Body<$request> = match read(headers, body) {
                Ok(b) => b,
                Err(r) => return r.into_response(),
            };
            finish(body.json, receiver.$export(&body.request, identity).await, |done| $response {
                partial_success: (done.rejected > 0).then(|| $partial {
                    $count: i64::try_from(done.rejected).unwrap_or(i64::MAX),
                    error_message: done.reason.unwrap_or_default(),
                }),
            })
        }
    };
}

handler!(
    logs,
    receive_logs,
    ExportLogsServiceRequest,
    export_logs,
    ExportLogsServiceResponse,
    ExportLogsPartialSuccess,
    rejected_log_records
);
handler!(
    traces,
    receive_traces,
    ExportTraceServiceRequest,
    export_traces,
    ExportTraceServiceResponse,
    ExportTracePartialSuccess,
    rejected_spans
);
handler!(
    metrics,
    receive_metrics,
    ExportMetricsServiceRequest,
    export_metrics,
    ExportMetricsServiceResponse,
    ExportMetricsPartialSuccess,
    rejected_data_points
);
