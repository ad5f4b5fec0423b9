//! Tempo's HTTP API (Tempo: docs/sources/tempo/api_docs/_index.md).

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use log_index::SpanSearch;
use serde_json::{Value, json};
use signal::{
    AttributeValue, Attributes, Matcher, Span, SpanKind, SpanStatus, SpanStream, Timestamp, TraceId,
};

use crate::App;
use crate::error::Failure;
use crate::params::{Params, duration};
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
        .route("/api/search", get(search))
        .route("/api/search/tags", get(tags))
        .route("/api/v2/search/tags", get(tags_v2))
        .route("/api/search/tag/{tag}/values", get(tag_values))
        .route("/api/v2/search/tag/{tag}/values", get(tag_values_v2))
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

async fn trace(State(app): State<App>, scope: Scope, Path(id): Path<String>) -> Answer {
    let found = load(&app, &scope, &id).await.map_err(fail)?;
    Ok(answer(json!({"batches": batches(&found)})))
}

async fn trace_v2(State(app): State<App>, scope: Scope, Path(id): Path<String>) -> Answer {
    let found = load(&app, &scope, &id).await.map_err(fail)?;
    Ok(answer(json!({"trace": {"resourceSpans": batches(&found)}, "metrics": {}})))
}

/// OTLP's JSON. Ids are base64 in Tempo's answers, because that is how protobuf's own JSON has bytes; Grafana reads
/// both, and hex is what OTLP says.
fn batches(streams: &[SpanStream]) -> Vec<Value> {
    streams
        .iter()
        .map(|s| {
            let mut resource = attributes(&s.resource);
            if s.resource.get("service.name").is_none() {
                let name = s.labels.get("service_name").unwrap_or("");
                resource.push(json!({"key": "service.name", "value": {"stringValue": name}}));
            }
            let spans: Vec<Value> = s.spans.iter().map(span).collect();
            json!({"resource": {"attributes": resource}, "scopeSpans": [{"scope": {"name": ""}, "spans": spans}]})
        })
        .collect()
}

fn attributes(a: &Attributes) -> Vec<Value> {
    a.iter()
        .map(|(name, v)| {
            let v = match v {
                AttributeValue::Bool(b) => json!({"boolValue": b}),
                AttributeValue::Int(i) => json!({"intValue": i.to_string()}),
                AttributeValue::Double(d) => json!({"doubleValue": d}),
                AttributeValue::String(s) => json!({"stringValue": s}),
            };
            json!({"key": name, "value": v})
        })
        .collect()
}

fn span(s: &Span) -> Value {
    let kind = match s.kind {
        SpanKind::Unspecified => "SPAN_KIND_UNSPECIFIED",
        SpanKind::Internal => "SPAN_KIND_INTERNAL",
        SpanKind::Server => "SPAN_KIND_SERVER",
        SpanKind::Client => "SPAN_KIND_CLIENT",
        SpanKind::Producer => "SPAN_KIND_PRODUCER",
        SpanKind::Consumer => "SPAN_KIND_CONSUMER",
    };
    let status = match &s.status {
        SpanStatus::Unset => json!({}),
        SpanStatus::Ok => json!({"code": "STATUS_CODE_OK"}),
        SpanStatus::Error(m) => json!({"code": "STATUS_CODE_ERROR", "message": m}),
    };
    let events: Vec<Value> = s
        .events
        .iter()
        .map(|e| json!({"timeUnixNano": e.timestamp.to_string(), "name": e.name, "attributes": attributes(&e.attributes)}))
        .collect();
    let links: Vec<Value> = s
        .links
        .iter()
        .map(|l| json!({"traceId": l.trace_id, "spanId": l.span_id, "attributes": attributes(&l.attributes)}))
        .collect();
    let mut out = json!({
        "traceId": s.trace_id, "spanId": s.span_id, "name": s.name, "kind": kind,
        "startTimeUnixNano": s.start.to_string(), "endTimeUnixNano": s.end.to_string(),
        "attributes": attributes(&s.attributes), "events": events, "links": links, "status": status,
    });
    if s.parent_span_id.is_valid() {
        out["parentSpanId"] = json!(s.parent_span_id);
    }
    out
}

fn range(app: &App, p: &Params) -> Result<(Timestamp, Timestamp), Failure> {
    let end = p.time("end")?.unwrap_or_else(|| app.engines.clock.now());
    Ok((p.time("start")?.unwrap_or(end.saturating_sub(DEFAULT_RANGE)), end))
}

/// Conditions of a search: `tags` in logfmt, or the flat part of TraceQL: `{ a = "b" && duration > 1s }`.
fn conditions(p: &Params) -> Result<(SpanSearch, Option<usize>), Failure> {
    let mut s = SpanSearch {
        matchers: Vec::new(),
        start: Timestamp::MIN,
        end: Timestamp::MAX,
        name: None,
        min_duration: None,
        max_duration: None,
        attributes: Vec::new(),
    };
    let nanos = |name: &str| -> Result<Option<u64>, Failure> {
        p.get(name)
            .map(|v| {
                let d = logql_duration(v).ok_or_else(|| Failure::Bad(format!("invalid {name}: {v:?}")))?;
                Ok((d * 1e9) as u64)
            })
            .transpose()
    };
    s.min_duration = nanos("minDuration")?;
    s.max_duration = nanos("maxDuration")?;
    for pair in split_logfmt(p.get("tags").unwrap_or("")) {
        add(&mut s, &pair.0, "=", &pair.1)?;
    }
    if let Some(q) = p.get("q") {
        let inner = q
            .trim()
            .strip_prefix('{')
            .and_then(|q| q.strip_suffix('}'))
            .ok_or_else(|| Failure::Bad("only a single { … } is supported so far".to_owned()))?;
        for part in inner.split("&&").map(str::trim).filter(|c| !c.is_empty() && *c != "true") {
            let (name, op, value) = ["!=", ">=", "<=", "=~", "=", ">", "<"]
                .iter()
                .filter_map(|op| part.find(op).map(|at| (at, *op)))
                .min_by_key(|(at, op)| (*at, std::cmp::Reverse(op.len())))
                .map(|(at, op)| (part[..at].trim(), op, part[at + op.len()..].trim()))
                .ok_or_else(|| Failure::Bad(format!("not understood: {part:?}")))?;
            let value = value.trim_matches(['"', '`']);
            add(&mut s, name, op, value)?;
        }
    }
    Ok((s, p.number("limit")?))
}

fn add(s: &mut SpanSearch, name: &str, op: &str, value: &str) -> Result<(), Failure> {
    let bare = ["resource.", "span.", "."].iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name);
    match (name, op) {
        ("duration" | "traceDuration", _) => {
            let d =
                logql_duration(value).ok_or_else(|| Failure::Bad(format!("not a duration: {value:?}")))?;
            let nanos = (d * 1e9) as u64;
            match op {
                ">" => s.min_duration = Some(nanos + 1),
                ">=" => s.min_duration = Some(nanos),
                "<" => s.max_duration = Some(nanos.saturating_sub(1)),
                "<=" => s.max_duration = Some(nanos),
                _ => return Err(Failure::Bad(format!("{op} is not supported for durations"))),
            }
        }
        ("name", "=") => s.name = Some(value.to_owned()),
        _ if op == "=" && matches!(bare, "service.name" | "rootServiceName") => {
            s.matchers.push(Matcher::equal("service_name", value));
        }
        _ if op == "=" => s.attributes.push((bare.to_owned(), value.to_owned())),
        _ => return Err(Failure::Bad(format!("{op} is not supported for {name} so far"))),
    }
    Ok(())
}

/// Seconds.
fn logql_duration(v: &str) -> Option<f64> {
    duration(v).map(|d| d.as_secs_f64()).or_else(|| {
        let (n, unit) = v.split_at(v.find(|c: char| c.is_ascii_alphabetic() || c == 'µ')?);
        let n: f64 = n.parse().ok()?;
        Some(
            n * match unit {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            },
        )
    })
}

fn split_logfmt(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(' ').unwrap_or((after, "")),
        };
        out.push((name.trim().to_owned(), value.to_owned()));
        rest = next.trim();
    }
    out
}

async fn search(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let (mut s, limit) = conditions(&p).map_err(fail)?;
    (s.start, s.end) = range(&app, &p).map_err(fail)?;
    s.matchers.extend(scope.enforce());
    let limit = limit.unwrap_or(20).clamp(1, 1000);
    let found =
        run(&app, move |app, _| Ok(app.engines.traces.search_traces(&s, limit)?)).await.map_err(fail)?;
    let traces: Vec<Value> = found
        .iter()
        .map(|t| {
            let services: serde_json::Map<String, Value> =
                t.services.iter().map(|(n, c)| (n.clone(), json!({"spanCount": c}))).collect();
            json!({
                "traceID": t.trace_id, "rootServiceName": t.root_service, "rootTraceName": t.root_name,
                "startTimeUnixNano": t.start.to_string(), "durationMs": t.duration / 1_000_000,
                "spanCount": t.spans, "errorCount": t.errors, "serviceStats": services,
            })
        })
        .collect();
    Ok(answer(json!({"traces": traces, "metrics": {}})))
}

/// Names of attributes of recent spans, and of intrinsics.
async fn tag_names(
    app: &App,
    scope: &Scope,
    p: &Params,
) -> Result<(BTreeSet<String>, BTreeSet<String>), Failure> {
    let (start, end) = range(app, p)?;
    let matchers = scope.enforce();
    run(app, move |app, _| {
        let (mut spans, mut resources, mut seen) = (BTreeSet::new(), BTreeSet::new(), 0);
        app.engines.traces.scan_spans(&open_search(matchers, start, end), |_, resource, s| {
            spans.extend(s.attributes.iter().map(|(n, _)| n.to_owned()));
            resources.extend(resource.iter().map(|(n, _)| n.to_owned()));
            bounded(&mut seen)
        })?;
        resources.insert("service.name".to_owned());
        Ok((spans, resources))
    })
    .await
}

fn open_search(matchers: Vec<Matcher>, start: Timestamp, end: Timestamp) -> SpanSearch {
    SpanSearch {
        matchers,
        start,
        end,
        name: None,
        min_duration: None,
        max_duration: None,
        attributes: Vec::new(),
    }
}

/// Names and values come from the newest spans: enough of them to offer, few enough to be quick.
fn bounded(seen: &mut usize) -> std::ops::ControlFlow<()> {
    *seen += 1;
    if *seen >= 20_000 { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
}

const INTRINSICS: [&str; 4] = ["name", "status", "kind", "duration"];

async fn tags(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let (spans, resources) = tag_names(&app, &scope, &p).await.map_err(fail)?;
    let all: BTreeSet<String> = spans.into_iter().chain(resources).collect();
    Ok(answer(json!({"tagNames": all, "metrics": {}})))
}

async fn tags_v2(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let (spans, resources) = tag_names(&app, &scope, &p).await.map_err(fail)?;
    Ok(answer(json!({"scopes": [
        {"name": "resource", "tags": resources}, {"name": "span", "tags": spans},
        {"name": "intrinsic", "tags": INTRINSICS},
    ], "metrics": {}})))
}

async fn values(app: &App, scope: &Scope, tag: &str, p: &Params) -> Result<BTreeSet<String>, Failure> {
    let (start, end) = range(app, p)?;
    let matchers = scope.enforce();
    let tag = ["resource.", "span.", "."].iter().find_map(|p| tag.strip_prefix(p)).unwrap_or(tag).to_owned();
    run(app, move |app, _| {
        if tag == "service.name" || tag == "rootServiceName" {
            let all = app.engines.traces.stream_label_values("service_name", &matchers, start, end)?;
            return Ok(all.into_iter().collect());
        }
        let (mut all, mut seen) = (BTreeSet::new(), 0);
        app.engines.traces.scan_spans(&open_search(matchers, start, end), |_, resource, s| {
            all.extend(match tag.as_str() {
                "name" => Some(s.name.clone()),
                "kind" => Some(s.kind.to_string()),
                "status" => Some(match s.status {
                    SpanStatus::Unset => "unset".to_owned(),
                    SpanStatus::Ok => "ok".to_owned(),
                    SpanStatus::Error(_) => "error".to_owned(),
                }),
                tag => s.attributes.get(tag).or(resource.get(tag)).map(ToString::to_string),
            });
            bounded(&mut seen)
        })?;
        Ok(all)
    })
    .await
}

async fn tag_values(State(app): State<App>, scope: Scope, Path(tag): Path<String>, p: Params) -> Answer {
    let all = values(&app, &scope, &tag, &p).await.map_err(fail)?;
    Ok(answer(json!({"tagValues": all, "metrics": {}})))
}

async fn tag_values_v2(State(app): State<App>, scope: Scope, Path(tag): Path<String>, p: Params) -> Answer {
    let all = values(&app, &scope, &tag, &p).await.map_err(fail)?;
    let typed: Vec<Value> = all.iter().map(|v| json!({"type": "string", "value": v})).collect();
    Ok(answer(json!({"tagValues": typed, "metrics": {}})))
}
