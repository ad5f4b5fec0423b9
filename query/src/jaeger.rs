//! Jaeger's query API, as its UI and Grafana's Jaeger source use it. Times are in microseconds.

mod dependencies;
mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use log_index::{Search, SpanSearch};
use serde_json::{Value, json};
use signal::{
    AttributeValue, Attributes, Labels, LogRecord, Matcher, Span, SpanStatus, SpanStream, Timestamp,
};

use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::prometheus::raw;
use crate::run::run;
use crate::scope::Scope;

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/api/services", get(services))
        .route("/api/services/{service}/operations", get(operations))
        .route("/api/operations", get(all_operations))
        .route("/api/traces", get(search::traces))
        .route("/api/traces/{id}", get(trace))
        .route("/api/dependencies", get(dependencies::dependencies))
        .with_state(app)
}

/// Spans that a list of names is made of: the newest.
const SPANS: usize = 20_000;

type Answer = Result<Response, Response>;

fn fail(f: Failure) -> Response {
    f.jaeger()
}

fn bad(message: impl Into<String>) -> Response {
    fail(Failure::Bad(message.into()))
}

fn listed(all: Vec<Value>) -> Response {
    raw(json!({"data": all, "total": all.len(), "limit": 0, "offset": 0, "errors": null}).to_string())
}

/// Services and operations are those of the last two days.
fn recent(app: &App) -> (Timestamp, Timestamp) {
    let now = app.engines.clock.now();
    (now.saturating_sub(std::time::Duration::from_secs(2 * 86_400)), now)
}

async fn services(State(app): State<App>, scope: Scope) -> Answer {
    let (start, end) = recent(&app);
    let m = scope.enforce();
    let all = run(&app, move |app, _| {
        Ok(app.engines.traces.stream_label_values("service_name", &m, start, end)?)
    })
    .await
    .map_err(fail)?;
    Ok(listed(all.into_iter().filter(|s| !s.is_empty()).map(Value::String).collect()))
}

/// Names and kinds of a service's spans.
async fn named(
    app: &App,
    scope: &Scope,
    service: String,
) -> Result<BTreeSet<(String, &'static str)>, Failure> {
    let (start, end) = recent(app);
    let mut matchers = scope.enforce();
    matchers.push(Matcher::equal("service_name", service));
    run(app, move |app, stop| {
        let (mut all, mut seen) = (BTreeSet::new(), 0);
        let q = open_search(matchers, start, end);
        app.engines.traces.scan_spans(&q, |_, _, s| {
            all.insert((s.name, s.kind.as_str()));
            seen += 1;
            let done = seen >= SPANS || stop.load(std::sync::atomic::Ordering::Relaxed);
            if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(all)
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

async fn operations(State(app): State<App>, scope: Scope, Path(service): Path<String>) -> Answer {
    let all = named(&app, &scope, service).await.map_err(fail)?;
    let names: BTreeSet<String> = all.into_iter().map(|(n, _)| n).collect();
    Ok(listed(names.into_iter().map(Value::String).collect()))
}

async fn all_operations(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let service = p.get("service").ok_or_else(|| bad("parameter 'service' is required"))?.to_owned();
    let kind = p.get("spanKind").map(str::to_ascii_lowercase);
    let all = named(&app, &scope, service).await.map_err(fail)?;
    let wanted = all.into_iter().filter(|(_, k)| kind.as_ref().is_none_or(|want| want == k));
    Ok(listed(wanted.map(|(name, k)| json!({"name": name, "spanKind": k})).collect()))
}

async fn trace(State(app): State<App>, scope: Scope, Path(id): Path<String>) -> Answer {
    let found = crate::tempo::load(&app, &scope, &id).await.map_err(fail)?;
    let mut trace = trace_json(&found);
    let logged = logged(&app, &scope, &found).await.map_err(fail)?;
    for span in trace["spans"].as_array_mut().into_iter().flatten() {
        let lines = span["spanID"].as_str().and_then(|id| logged.get(id)).cloned().unwrap_or_default();
        if let Some(logs) = span["logs"].as_array_mut() {
            logs.extend(lines);
            logs.sort_by_key(|l| l["timestamp"].as_i64());
        }
    }
    Ok(listed(vec![trace]))
}

/// Log records of a trace that are shown with its spans.
const LINES: usize = 1000;
/// How long before and after a trace its lines may stand.
const MARGIN: std::time::Duration = std::time::Duration::from_secs(60);

/// What the log index has of a trace, by span, as Jaeger has a span's logs.
async fn logged(
    app: &App,
    scope: &Scope,
    streams: &[SpanStream],
) -> Result<BTreeMap<String, Vec<Value>>, Failure> {
    let spans = || streams.iter().flat_map(|s| &s.spans);
    let (Some(start), Some(end)) = (spans().map(|s| s.start).min(), spans().map(|s| s.end).max()) else {
        return Ok(BTreeMap::new());
    };
    let id = spans().next().map(|s| s.trace_id);
    let mut search = Search::new(scope.enforce(), start.saturating_sub(MARGIN), end.saturating_add(MARGIN));
    search.trace_id = id;
    run(app, move |app, _| {
        let found = app.engines.logs.search(&search, LINES, |labels, r| {
            (r.span_id.is_valid() && Some(r.trace_id) == id)
                .then(|| (r.span_id.to_string(), log_json(labels, &r)))
        })?;
        let mut out: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (_, (span, line)) in found {
            out.entry(span).or_default().push(line);
        }
        Ok(out)
    })
    .await
}

fn log_json(labels: &Labels, r: &LogRecord) -> Value {
    let text = |key: &str, v: &str| json!({"key": key, "type": "string", "value": v});
    let mut fields = vec![text("message", &r.body), text("level", r.severity.as_str())];
    fields.extend(["pod", "container"].iter().filter_map(|n| Some(text(n, labels.get(n)?))));
    fields.extend(tags(&r.attributes));
    json!({"timestamp": r.timestamp.nanos() / 1000, "fields": fields})
}

fn trace_json(streams: &[SpanStream]) -> Value {
    let mut processes = serde_json::Map::new();
    let mut spans = Vec::new();
    let mut id = Value::Null;
    for (i, s) in streams.iter().enumerate() {
        let process = format!("p{}", i + 1);
        for span in &s.spans {
            id = json!(span.trace_id);
            spans.push(span_json(span, &process));
        }
        let name = s.labels.get("service_name").unwrap_or("");
        processes.insert(process, json!({"serviceName": name, "tags": tags(&s.resource)}));
    }
    json!({"traceID": id, "spans": spans, "processes": processes, "warnings": null})
}

fn tags(a: &Attributes) -> Vec<Value> {
    a.iter()
        .map(|(name, v)| match v {
            AttributeValue::Bool(b) => json!({"key": name, "type": "bool", "value": b}),
            AttributeValue::Int(i) => json!({"key": name, "type": "int64", "value": i}),
            AttributeValue::Double(d) => json!({"key": name, "type": "float64", "value": d}),
            AttributeValue::String(s) => json!({"key": name, "type": "string", "value": s}),
        })
        .collect()
}

fn span_json(s: &Span, process: &str) -> Value {
    let mut all = tags(&s.attributes);
    all.push(json!({"key": "span.kind", "type": "string", "value": s.kind.as_str()}));
    match &s.status {
        SpanStatus::Error(m) => {
            all.push(json!({"key": "error", "type": "bool", "value": true}));
            all.push(json!({"key": "otel.status_code", "type": "string", "value": "ERROR"}));
            if !m.is_empty() {
                all.push(json!({"key": "otel.status_description", "type": "string", "value": m}));
            }
        }
        SpanStatus::Ok => all.push(json!({"key": "otel.status_code", "type": "string", "value": "OK"})),
        SpanStatus::Unset => {}
    }
    let mut references = Vec::new();
    if s.parent_span_id.is_valid() {
        references.push(json!({"refType": "CHILD_OF", "traceID": s.trace_id, "spanID": s.parent_span_id}));
    }
    references.extend(
        s.links
            .iter()
            .map(|l| json!({"refType": "FOLLOWS_FROM", "traceID": l.trace_id, "spanID": l.span_id})),
    );
    let logs: Vec<Value> = s
        .events
        .iter()
        .map(|e| {
            let mut fields = tags(&e.attributes);
            fields.insert(0, json!({"key": "event", "type": "string", "value": e.name}));
            json!({"timestamp": e.timestamp.nanos() / 1000, "fields": fields})
        })
        .collect();
    let took = u64::try_from(s.end.since(s.start).as_micros()).unwrap_or(u64::MAX);
    json!({
        "traceID": s.trace_id, "spanID": s.span_id, "operationName": s.name, "references": references,
        "startTime": s.start.nanos() / 1000, "duration": took, "tags": all, "logs": logs,
        "processID": process, "warnings": null, "flags": 1,
    })
}
