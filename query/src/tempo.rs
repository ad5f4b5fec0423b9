//! Tempo's HTTP API (Tempo: docs/sources/tempo/api_docs/_index.md).

mod metrics;
mod otlp;
mod search;
mod tags;

pub(crate) use search::tags;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, header};
use serde_json::{Value, json};
use signal::{SpanStream, Timestamp, TraceId};

use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::prometheus::raw;
use crate::run::run;
use crate::scope::Scope;

/// How far back a search without `start` looks.
const DEFAULT_RANGE: std::time::Duration = std::time::Duration::from_secs(3600);

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/ready", get(|_: Scope| async { "ready\n" }))
        .route("/api/echo", get(|_: Scope| async { "echo" }))
        .route("/api/traces/{id}", get(trace))
        .route("/api/v2/traces/{id}", get(trace_v2))
        .route("/api/search", get(search::search))
        .route("/api/search/tags", get(tags::names))
        .route("/api/v2/search/tags", get(tags::names_v2))
        .route("/api/search/tag/{tag}/values", get(tags::values))
        .route("/api/v2/search/tag/{tag}/values", get(tags::values_v2))
        .route("/api/metrics/query_range", get(metrics::range).post(metrics::range))
        .route("/api/metrics/query", get(metrics::instant).post(metrics::instant))
        .route("/api/status/buildinfo", get(buildinfo))
        .with_state(app)
}

type Answer = Result<Response, Response>;

fn fail(f: Failure) -> Response {
    f.plain()
}

fn answer(v: Value) -> Response {
    raw(v.to_string())
}

async fn buildinfo(_: Scope) -> Response {
    answer(
        json!({"version": "2.8.0", "revision": concat!("binnacle-", env!("CARGO_PKG_VERSION")), "branch": "",
        "buildUser": "", "buildDate": "", "goVersion": ""}),
    )
}

/// Ids may come without their leading zeros.
pub(crate) fn parse_id(text: &str) -> Result<TraceId, Failure> {
    format!("{text:0>32}").parse().map_err(|e| Failure::Bad(format!("invalid trace id {text:?}: {e}")))
}

pub(crate) async fn load(app: &App, scope: &Scope, id: &str) -> Result<Vec<SpanStream>, Failure> {
    let id = parse_id(id)?;
    let enforce = scope.enforce();
    let found = run(app, move |app, _| Ok(app.engines.traces.trace(id, &enforce)?)).await?;
    if found.is_empty() { Err(Failure::NotFound("trace not found".to_owned())) } else { Ok(found) }
}

/// Whether the client would rather have protobuf, as Grafana does.
fn wants_protobuf(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|a| a.to_str().ok())
        .is_some_and(|a| a.contains("application/protobuf") || a.contains("application/x-protobuf"))
}

fn protobuf(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/protobuf")], body).into_response()
}

async fn trace(State(app): State<App>, scope: Scope, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    let found = load(&app, &scope, &id).await.map_err(fail)?;
    if wants_protobuf(&headers) {
        return Ok(protobuf(otlp::encode(&found)));
    }
    Ok(answer(json!({"batches": otlp::batches(&found)})))
}

async fn trace_v2(
    State(app): State<App>,
    scope: Scope,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let found = load(&app, &scope, &id).await.map_err(fail)?;
    if wants_protobuf(&headers) {
        return Ok(protobuf(otlp::encode_v2(&found)));
    }
    Ok(answer(json!({"trace": {"resourceSpans": otlp::batches(&found)}, "metrics": {}})))
}

fn range(app: &App, p: &Params) -> Result<(Timestamp, Timestamp), Failure> {
    let end = p.time("end")?.unwrap_or_else(|| app.engines.clock.now());
    let since = p.duration("since")?.unwrap_or(DEFAULT_RANGE);
    let start = p.time("start")?.unwrap_or(end.saturating_sub(since));
    if start > end {
        return Err(Failure::Bad("start must not be after end".to_owned()));
    }
    Ok((start, end))
}

/// A value with its type, as protobuf's JSON has it.
fn any_value(v: &logql::traceql::Static) -> Value {
    use logql::traceql::Static;
    match v {
        Static::Int(v) => json!({"intValue": v.to_string()}),
        Static::Float(v) => json!({"doubleValue": v}),
        Static::Bool(v) => json!({"boolValue": v}),
        v => json!({"stringValue": v.to_string()}),
    }
}
