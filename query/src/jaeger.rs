//! Jaeger's query API, as its UI and Grafana's Jaeger source use it. Times are in microseconds.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use log_index::SpanSearch;
use serde_json::{Value, json};
use signal::{AttributeValue, Attributes, Matcher, Span, SpanStatus, SpanStream, Timestamp};

use crate::App;
use crate::error::Failure;
use crate::params::{Params, duration};
use crate::prometheus::raw;
use crate::run::run;
use crate::scope::Scope;

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/api/services", get(services))
        .route("/api/services/{service}/operations", get(operations))
        .route("/api/traces", get(traces))
        .route("/api/traces/{id}", get(trace))
        .with_state(app)
}

type Answer = Result<Response, Response>;

fn fail(f: Failure) -> Response {
    f.jaeger()
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
    Ok(listed(all.into_iter().map(Value::String).collect()))
}

async fn operations(State(app): State<App>, scope: Scope, Path(service): Path<String>) -> Answer {
    let (start, end) = recent(&app);
    let mut matchers = scope.enforce();
    matchers.push(Matcher::equal("service_name", service));
    let all = run(&app, move |app, _| {
        let (mut all, mut seen) = (BTreeSet::new(), 0);
        let q = SpanSearch {
            matchers,
            start,
            end,
            name: None,
            min_duration: None,
            max_duration: None,
            attributes: Vec::new(),
        };
        app.engines.traces.scan_spans(&q, |_, _, s| {
            all.insert(s.name);
            seen += 1;
            if seen >= 20_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(all)
    })
    .await
    .map_err(fail)?;
    Ok(listed(all.into_iter().map(Value::String).collect()))
}

async fn traces(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let micros = |name: &str| -> Result<Option<Timestamp>, Response> {
        Ok(p.number(name)
            .map_err(fail)?
            .map(|n| Timestamp(i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(1000))))
    };
    let now = app.engines.clock.now();
    let nanos =
        |name: &str| p.get(name).and_then(duration).map(|d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
    let mut matchers = scope.enforce();
    match p.get("service") {
        Some(s) => matchers.push(Matcher::equal("service_name", s)),
        None => return Err(fail(Failure::Bad("parameter 'service' is required".to_owned()))),
    }
    let mut attributes = Vec::new();
    if let Some(tags) = p.get("tags") {
        let map: serde_json::Map<String, Value> = serde_json::from_str(tags)
            .map_err(|e| fail(Failure::Bad(format!("malformed 'tags' parameter: {e}"))))?;
        attributes.extend(map.into_iter().map(|(n, v)| {
            let v = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            (n, v)
        }));
    }
    let q = SpanSearch {
        matchers,
        start: micros("start")?.unwrap_or(now.saturating_sub(std::time::Duration::from_secs(3600))),
        end: micros("end")?.unwrap_or(now),
        name: p.get("operation").filter(|o| *o != "all").map(str::to_owned),
        min_duration: nanos("minDuration"),
        max_duration: nanos("maxDuration"),
        attributes,
    };
    let limit = p.number("limit").map_err(fail)?.unwrap_or(20).clamp(1, 1500);
    let enforce = scope.enforce();
    let all = run(&app, move |app, _| {
        let mut out = Vec::new();
        for t in app.engines.traces.search_traces(&q, limit)? {
            out.push(trace_json(&app.engines.traces.trace(t.trace_id, &enforce)?));
        }
        Ok(out)
    })
    .await
    .map_err(fail)?;
    Ok(listed(all))
}

async fn trace(State(app): State<App>, scope: Scope, Path(id): Path<String>) -> Answer {
    let found = crate::tempo::load(&app, &scope, &id).await.map_err(fail)?;
    Ok(listed(vec![trace_json(&found)]))
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
        "processID": process, "warnings": null,
    })
}
