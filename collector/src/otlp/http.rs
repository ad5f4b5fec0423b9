//! OTLP over HTTP: `/v1/{logs,traces,metrics}`, protobuf and JSON, gzip. The answer speaks as the question did.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
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
use signal::Accepted;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Exported, Peer, Receiver, json};
use crate::answer::{self, MOST_BYTES, Refused, unpack};
use crate::metrics::{received, refused};

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
    axum::serve(crate::prompt(listener), app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

/// Metrics at `/api/v1/otlp/v1/metrics`, where Prometheus has them, logs at `/loki/otlp/v1/logs`, where Loki has them,
/// and all three signals at `/otlp/v1/…`. To be served under authentication: senders from elsewhere than this machine
/// and its pods are then taken too, as nobody in particular.
pub fn authenticated_router(receiver: Receiver) -> Router {
    Router::new()
        .route("/api/v1/otlp/v1/metrics", post(known_metrics))
        .route("/loki/otlp/v1/logs", post(known_logs))
        .route("/otlp/v1/metrics", post(known_metrics))
        .route("/otlp/v1/logs", post(known_logs))
        .route("/otlp/v1/traces", post(known_traces))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(receiver)
}

struct Body<T> {
    request: T,
    json: bool,
}

fn read<T: Message + Default + DeserializeOwned>(
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Body<T>, Refused> {
    let bytes = unpack(headers, body)?;
    received("otlp_http", bytes.len());
    match answer::content_type(headers) {
        PROTOBUF => {
            Ok(Body { request: T::decode(&*bytes).map_err(|e| Refused::bad(e.to_string()))?, json: false })
        }
        JSON => {
            Ok(Body { request: json::read(&bytes).map_err(|e| Refused::bad(e.to_string()))?, json: true })
        }
        other => Err(Refused::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("content type {other:?}: use {PROTOBUF} or {JSON}"),
        )),
    }
}

fn answer<T: Message + Serialize>(json: bool, response: &T) -> Response {
    if json {
        // What is not set is left out: a null would read as if something had been rejected.
        let mut text = serde_json::to_value(response).unwrap_or_default();
        if let Some(fields) = text.as_object_mut() {
            fields.retain(|_, v| !v.is_null());
        }
        return axum::Json(text).into_response();
    }
    ([(header::CONTENT_TYPE, PROTOBUF)], response.encode_to_vec()).into_response()
}

/// google.rpc.Status, of which a failed request's answer consists in either encoding.
#[derive(Clone, PartialEq, Message, Serialize)]
struct Failure {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

fn failed(json: bool, mut r: Refused) -> Response {
    // Senders repeat only 429, 502, 503 and 504: a full disk is none of them by its own code.
    if r.status == StatusCode::INSUFFICIENT_STORAGE {
        r.status = StatusCode::SERVICE_UNAVAILABLE;
    }
    let code = match r.status {
        StatusCode::UNAUTHORIZED => tonic::Code::Unauthenticated,
        StatusCode::TOO_MANY_REQUESTS => tonic::Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => tonic::Code::Unavailable,
        _ => tonic::Code::InvalidArgument,
    };
    let mut response = answer(json, &Failure { code: code.into(), message: r.why });
    *response.status_mut() = r.status;
    if let Some(seconds) = r.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn finish<T: Message + Serialize>(json: bool, done: Exported, build: impl FnOnce(Accepted) -> T) -> Response {
    match done {
        Ok(a) => answer(json, &build(a)),
        Err(e) => {
            refused("otlp_http", "sink");
            failed(json, Refused::from(&e))
        }
    }
}

macro_rules! handler {
    ($name:ident, $known:ident, $receive:ident, $request:ty, $export:ident, $response:ident, $partial:ident, $count:ident) => {
        async fn $name(
            State(receiver): State<Receiver>,
            ConnectInfo(peer): ConnectInfo<SocketAddr>,
            headers: HeaderMap,
            body: Bytes,
        ) -> Response {
            let Some(identity) = receiver.identify(Some(peer.ip())) else {
                refused("otlp_http", "unknown_sender");
                return failed(answer::content_type(&headers) == JSON, Refused::unknown_sender());
            };
            $receive(&receiver, &Peer::new(identity, false), &headers, &body).await
        }

        async fn $known(
            State(receiver): State<Receiver>,
            ConnectInfo(peer): ConnectInfo<SocketAddr>,
            headers: HeaderMap,
            body: Bytes,
        ) -> Response {
            let identity = receiver.identify(Some(peer.ip())).unwrap_or_default();
            $receive(&receiver, &Peer::new(identity, true), &headers, &body).await
        }

        async fn $receive(
            receiver: &Receiver,
            identity: &Peer,
            headers: &HeaderMap,
            body: &Bytes,
        ) -> Response {
            let body: Body<$request> = match read(headers, body) {
                Ok(b) => b,
                Err(r) => {
                    refused("otlp_http", "bad_request");
                    return failed(answer::content_type(headers) == JSON, r);
                }
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
    known_logs,
    receive_logs,
    ExportLogsServiceRequest,
    export_logs,
    ExportLogsServiceResponse,
    ExportLogsPartialSuccess,
    rejected_log_records
);
handler!(
    traces,
    known_traces,
    receive_traces,
    ExportTraceServiceRequest,
    export_traces,
    ExportTraceServiceResponse,
    ExportTracePartialSuccess,
    rejected_spans
);
handler!(
    metrics,
    known_metrics,
    receive_metrics,
    ExportMetricsServiceRequest,
    export_metrics,
    ExportMetricsServiceResponse,
    ExportMetricsPartialSuccess,
    rejected_data_points
);
