//! Searching traces: by TraceQL, or by tags.

use axum::extract::State;
use logql::traceql::{self, Found, FoundSet};
use serde_json::{Value, json};

use super::{Answer, answer, any_value, fail, range};
use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::run::run;
use crate::scope::Scope;

pub(super) async fn search(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let text = query(&p).map_err(fail)?;
    let q = traceql::parse(&text).map_err(|e| fail(e.into()))?;
    let (start, end) = range(&app, &p).map_err(fail)?;
    let limit = p.number("limit").map_err(fail)?.unwrap_or(20).clamp(1, 1000);
    let spans = p.number("spss").map_err(fail)?.unwrap_or(3);
    let enforce = scope.enforce();
    let (found, read) = run(&app, move |app, stop| {
        let o = traceql::Options { enforce, limit, spans, stop };
        // The end is a second that is over only when it is.
        Ok(app.traceql.search(&q, start, end.saturating_add(std::time::Duration::from_nanos(1)), &o)?)
    })
    .await
    .map_err(fail)?;
    let traces: Vec<Value> = found.iter().map(trace).collect();
    let metrics = json!({"inspectedTraces": read, "completedJobs": 1, "totalJobs": 1});
    Ok(answer(json!({"traces": traces, "metrics": metrics})))
}

fn trace(f: &Found) -> Value {
    let services: serde_json::Map<String, Value> = f
        .services
        .iter()
        .map(|(n, (spans, errors))| (n.clone(), json!({"spanCount": spans, "errorCount": errors})))
        .collect();
    let errors: usize = f.services.values().map(|(_, e)| e).sum();
    let sets: Vec<Value> = f.sets.iter().map(set).collect();
    json!({
        "traceID": f.trace_id, "rootServiceName": f.root_service, "rootTraceName": f.root_name,
        "startTimeUnixNano": f.start.to_string(), "durationMs": f.duration / 1_000_000,
        "spanCount": f.spans, "errorCount": errors, "serviceStats": services,
        "spanSet": sets.first(), "spanSets": sets,
    })
}

fn set(s: &FoundSet) -> Value {
    let spans: Vec<Value> = s
        .spans
        .iter()
        .map(|span| {
            let attributes: Vec<Value> = span
                .attributes
                .iter()
                // The name and how long it took have places of their own.
                .filter(|(n, _)| n != "name" && n != "duration")
                .map(|(n, v)| json!({"key": without_scope(n), "value": any_value(v)}))
                .collect();
            json!({
                "spanID": span.span_id, "name": span.name, "startTimeUnixNano": span.start.to_string(),
                "durationNanos": span.duration.to_string(), "attributes": attributes,
            })
        })
        .collect();
    let attributes: Vec<Value> =
        s.attributes.iter().map(|(n, v)| json!({"key": n, "value": any_value(v)})).collect();
    json!({"matched": s.matched, "spans": spans, "attributes": attributes})
}

fn without_scope(name: &str) -> &str {
    ["span.", "resource.", "event.", "link.", "instrumentation.", "."]
        .iter()
        .find_map(|s| name.strip_prefix(s))
        .unwrap_or(name)
}

/// `q`, with `tags`, `minDuration` and `maxDuration` as further conditions.
fn query(p: &Params) -> Result<String, Failure> {
    let mut all = Vec::new();
    for (name, value) in tags(p.get("tags").unwrap_or("")) {
        all.push(condition(&name, &value));
    }
    for (name, op) in [("minDuration", ">="), ("maxDuration", "<=")] {
        if let Some(d) = p.duration(name)? {
            all.push(format!("duration {op} {}ns", d.as_nanos()));
        }
    }
    let simple = format!("{{ {} }}", all.join(" && "));
    Ok(match p.get("q") {
        Some(q) if all.is_empty() => q.to_owned(),
        Some(q) => format!("{simple} | {q}"),
        None => simple,
    })
}

/// A tag's value is text, whatever type the attribute has.
fn condition(name: &str, value: &str) -> String {
    let text = serde_json::Value::String(value.to_owned());
    match (name, value) {
        ("name", _) => return format!("name = {text}"),
        ("error", "true") => return "status = error".to_owned(),
        ("status" | "status.code", "error" | "ok" | "unset") => return format!("status = {value}"),
        ("kind" | "span.kind", "internal" | "server" | "client" | "producer" | "consumer") => {
            return format!("kind = {value}");
        }
        ("root.name", _) => return format!("rootName = {text}"),
        ("root.service.name", _) => return format!("rootServiceName = {text}"),
        _ => {}
    }
    let quoted = Value::String(name.to_owned());
    let attribute =
        if name == "service.name" { "resource.service.name".to_owned() } else { format!(".{quoted}") };
    match value.parse::<f64>() {
        Ok(_) => format!("({attribute} = {text} || {attribute} = {value})"),
        Err(_) if value == "true" || value == "false" => {
            format!("({attribute} = {text} || {attribute} = {value})")
        }
        Err(_) => format!("{attribute} = {text}"),
    }
}

/// `a=b c="d e"`
pub(crate) fn tags(text: &str) -> Vec<(String, String)> {
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
