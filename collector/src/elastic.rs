//! Elasticsearch's way in: `_bulk` and single documents, and what its clients ask before they send.
//!
//! Filebeat, Fluent Bit, Vector, rsyslog's omelasticsearch and Elastic's own clients can send here. Every field can be
//! queried and how long it is kept is the server's setting, so templates, pipelines and lifecycle policies are
//! acknowledged and have no effect. Nothing is searched here: `_search` says where to ask.
//!
//! Source: elasticsearch docs/reference/elasticsearch-apis/bulk, rest-api-spec.

mod bulk;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use signal::time::SharedClock;
use signal::{Identity, Sink};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::answer::{MOST_BYTES, Refused, unpack};
use crate::metrics::{received, refused};
use crate::sender::Senders;

const RECEIVER: &str = "elasticsearch";
/// What clients of versions 7 to 9 accept to speak to.
const VERSION: &str = "9.1.0";
/// Clients compare it to see whether two addresses are one cluster.
const CLUSTER_UUID: &str = "binnacle-telemetry-00";

/// Takes documents for both doors.
#[derive(Clone)]
pub struct Elastic {
    sink: Arc<dyn Sink>,
    senders: Senders,
    clock: SharedClock,
    /// Senders that the door has authenticated are taken from any address.
    authenticated: bool,
}

impl Elastic {
    pub fn new(sink: Arc<dyn Sink>, senders: Senders, clock: SharedClock) -> Self {
        Elastic { sink, senders, clock, authenticated: false }
    }

    fn identify(&self, peer: SocketAddr) -> Result<Arc<Identity>, Refused> {
        match self.senders.identify(peer.ip()) {
            Some(i) => Ok(i),
            None if self.authenticated => Ok(Arc::default()),
            None => {
                refused(RECEIVER, "unknown_sender");
                Err(Refused::unknown_sender())
            }
        }
    }
}

/// Serves on an address of its own, where senders are who their addresses say, until `stop`.
pub async fn serve(elastic: Elastic, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
    let app = routes(elastic).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(crate::prompt(listener), app).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// The same under a prefix such as `/elastic`, to be served behind authentication.
pub fn router(elastic: Elastic, prefix: &str) -> Router {
    let nested = routes(Elastic { authenticated: true, ..elastic });
    // A nested root answers without the slash only, and clients ask with it.
    let root = get(info).layer(axum::middleware::map_response(product));
    Router::new().route(&format!("{prefix}/"), root).nest(prefix, nested)
}

fn routes(elastic: Elastic) -> Router {
    let acknowledged = || get(exists).put(acknowledge).post(acknowledge);
    Router::new()
        .route("/", get(info))
        .route("/_bulk", post(bulk_all).put(bulk_all))
        .route("/{index}/_bulk", post(bulk_index).put(bulk_index))
        .route("/{index}/_doc", post(document))
        .route("/{index}/_doc/{id}", post(document_with_id).put(document_with_id))
        .route("/{index}/_create/{id}", post(document_with_id).put(document_with_id))
        .route("/_license", get(license))
        .route("/_xpack", get(xpack))
        .route("/_cluster/health", get(health))
        .route("/_nodes/http", get(nodes))
        .route("/_index_template/{name}", acknowledged())
        .route("/_component_template/{name}", acknowledged())
        .route("/_template/{name}", acknowledged())
        .route("/_ilm/policy/{name}", acknowledged())
        .route("/_ingest/pipeline/{name}", acknowledged())
        .route("/_data_stream/{name}", acknowledged())
        .route("/_alias/{name}", acknowledged())
        .route("/{index}", acknowledged())
        .fallback(any(unknown))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(axum::middleware::map_response(product))
        .with_state(elastic)
}

/// Elastic's clients speak only to servers that name themselves so.
async fn product(mut response: Response) -> Response {
    response.headers_mut().insert("x-elastic-product", HeaderValue::from_static("Elasticsearch"));
    response
}

async fn info() -> Response {
    Json(json!({
        "name": "binnacle",
        "cluster_name": "binnacle",
        "cluster_uuid": CLUSTER_UUID,
        "version": {
            "number": VERSION,
            "build_flavor": "default",
            "build_type": "binnacle",
            "build_hash": env!("CARGO_PKG_VERSION"),
            "build_date": "2026-01-01T00:00:00Z",
            "build_snapshot": false,
            "lucene_version": "10.2.2",
            "minimum_wire_compatibility_version": "8.19.0",
            "minimum_index_compatibility_version": "8.0.0",
        },
        "tagline": "You Know, for Search",
    }))
    .into_response()
}

async fn license() -> Json<Value> {
    Json(json!({"license": {"status": "active", "uid": CLUSTER_UUID, "type": "basic", "mode": "basic",
        "issued_to": "binnacle", "issuer": "binnacle", "max_nodes": 1000}}))
}

async fn xpack() -> Json<Value> {
    let none = json!({"available": false, "enabled": false});
    Json(
        json!({"build": {"hash": "", "date": ""}, "license": {"uid": CLUSTER_UUID, "type": "basic", "mode": "basic",
        "status": "active"}, "features": {"ilm": none, "monitoring": none, "security": none}}),
    )
}

async fn health() -> Json<Value> {
    Json(json!({"cluster_name": "binnacle", "status": "green", "timed_out": false, "number_of_nodes": 1,
        "number_of_data_nodes": 1}))
}

async fn nodes() -> Json<Value> {
    Json(
        json!({"_nodes": {"total": 0, "successful": 0, "failed": 0}, "cluster_name": "binnacle", "nodes": {}}),
    )
}

/// There is nothing to set up, so whatever a client wants to find is there.
async fn exists() -> Json<Value> {
    Json(json!({}))
}

async fn acknowledge() -> Json<Value> {
    Json(json!({"acknowledged": true}))
}

async fn unknown(method: Method, uri: axum::http::Uri) -> Response {
    let what = if uri.path().contains("_search") || uri.path().contains("_count") {
        "nothing is searched here: ask by LogQL (/loki/api/v1/query_range) or SQL (/sql)".to_owned()
    } else {
        format!("no handler found for uri [{}] and method [{method}]", uri.path())
    };
    error(StatusCode::BAD_REQUEST, "illegal_argument_exception", &what)
}

async fn bulk_all(
    State(elastic): State<Elastic>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    elastic.bulk(peer, None, &headers, &body).await
}

async fn bulk_index(
    State(elastic): State<Elastic>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(index): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    elastic.bulk(peer, Some(&index), &headers, &body).await
}

async fn document(
    State(elastic): State<Elastic>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(index): Path<String>,
    RawQuery(_): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    elastic.document(peer, &index, None, &headers, &body).await
}

async fn document_with_id(
    State(elastic): State<Elastic>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path((index, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    elastic.document(peer, &index, Some(&id), &headers, &body).await
}

impl Elastic {
    async fn bulk(
        &self,
        peer: SocketAddr,
        index: Option<&str>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Response {
        let began = self.clock.monotonic();
        let taken = self.store(peer, headers, body, |body| bulk::parse(body, index)).await;
        match taken {
            Ok(items) => {
                let errors = items.iter().any(|i| i.refused.is_some());
                let took = u64::try_from(self.clock.monotonic().saturating_duration_since(began).as_millis());
                let items: Vec<Value> = items.iter().map(bulk::Item::answer).collect();
                answer(
                    headers,
                    StatusCode::OK,
                    json!({"took": took.unwrap_or(0), "errors": errors, "items": items}),
                )
            }
            Err(r) => refusal(r),
        }
    }

    async fn document(
        &self,
        peer: SocketAddr,
        index: &str,
        id: Option<&str>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Response {
        let one = |body: &[u8]| {
            Ok(vec![bulk::Item::new("index", index.to_owned(), id.map(str::to_owned), Some(body))])
        };
        match self.store(peer, headers, body, one).await {
            Ok(items) => match items.first() {
                Some(item) => answer(headers, item.status(), item.body()),
                None => refusal(Refused::bad("no document")),
            },
            Err(r) => refusal(r),
        }
    }

    /// Stores what can be stored; each item knows what became of it.
    async fn store(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        body: &[u8],
        parse: impl FnOnce(&[u8]) -> Result<Vec<bulk::Item>, Refused>,
    ) -> Result<Vec<bulk::Item>, Refused> {
        let identity = self.identify(peer)?;
        let body = unpack(headers, body).inspect_err(|_| refused(RECEIVER, "bad_request"))?;
        received(RECEIVER, body.len());
        let mut items = parse(&body).inspect_err(|_| refused(RECEIVER, "bad_request"))?;
        let batch = bulk::batch(&mut items, &identity, &*self.clock);
        let n = batch.records();
        if n > 0 {
            let done = self.sink.write_logs(batch).await.map_err(|e| {
                refused(RECEIVER, "sink");
                Refused::from(&e)
            })?;
            crate::metrics::accepted(RECEIVER, "logs", n - done.rejected.min(n));
            if done.rejected > 0 {
                bulk::reject(&mut items, done.reason.as_deref().unwrap_or("refused"));
            }
        }
        Ok(items)
    }
}

/// In the media type that was asked for: clients of a version send `application/vnd.elasticsearch+json`.
fn answer(headers: &HeaderMap, status: StatusCode, body: Value) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = match accept.strip_prefix("application/vnd.elasticsearch+json") {
        Some(_) => HeaderValue::from_str(accept).ok(),
        None => None,
    };
    let kind = kind.unwrap_or(HeaderValue::from_static("application/json"));
    (status, [(header::CONTENT_TYPE, kind)], body.to_string()).into_response()
}

fn refusal(r: Refused) -> Response {
    let kind = match r.status {
        StatusCode::TOO_MANY_REQUESTS => "es_rejected_execution_exception",
        StatusCode::UNAUTHORIZED => "security_exception",
        StatusCode::INSUFFICIENT_STORAGE => "cluster_block_exception",
        _ => "illegal_argument_exception",
    };
    let mut response = error(r.status, kind, &r.why);
    if let Some(seconds) = r.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn error(status: StatusCode, kind: &str, reason: &str) -> Response {
    let cause = json!({"type": kind, "reason": reason});
    let body =
        json!({"error": {"root_cause": [cause], "type": kind, "reason": reason}, "status": status.as_u16()});
    (status, Json(body)).into_response()
}

/// For `fuzz`: reads a body as a bulk request.
#[doc(hidden)]
pub fn decode(body: &[u8]) -> usize {
    match bulk::parse(body, Some("x")) {
        Ok(mut items) => bulk::batch(&mut items, &Identity::default(), &signal::time::SystemClock).records(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests;
