//! TraceQL's series.

use std::time::Duration;

use axum::extract::State;
use logql::traceql::{self, Series, Static};
use serde_json::{Value, json};
use signal::Timestamp;

use super::{Answer, answer, any_value, fail};
use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::run::run;
use crate::scope::Scope;

/// Points of an answer to a request that names no step, about.
const POINTS: u64 = 120;

async fn measured(
    app: &App,
    scope: &Scope,
    p: &Params,
    (start, end): (Timestamp, Timestamp),
    step: Option<Duration>,
) -> Result<Vec<Value>, Failure> {
    let text =
        p.get("q").or(p.get("query")).ok_or_else(|| Failure::Bad("parameter q is missing".to_owned()))?;
    let q = traceql::parse(text)?;
    let name = q.measure_name();
    let enforce = scope.enforce();
    let all = run(app, move |app, stop| {
        let o = traceql::Options { enforce, stop, ..traceql::Options::default() };
        Ok(app.traceql.measure(&q, start, end, step, &o)?)
    })
    .await?;
    Ok(all.iter().map(|s| series(s, name, step.is_some())).collect())
}

fn series(s: &Series, name: &str, is_range: bool) -> Value {
    let called = [("__name__".to_owned(), Static::Text(name.to_owned()))];
    let labels = if s.labels.is_empty() { &called } else { s.labels.as_slice() };
    let prom: Vec<String> =
        labels.iter().map(|(n, v)| format!("{n}={}", serde_json::Value::String(v.to_string()))).collect();
    let pairs: Vec<Value> = labels.iter().map(|(n, v)| json!({"key": n, "value": any_value(v)})).collect();
    let prom = format!("{{{}}}", prom.join(", "));
    if !is_range {
        let value = s.samples.last().map(|(_, v)| *v);
        return json!({"labels": pairs, "promLabels": prom, "value": value});
    }
    let samples: Vec<Value> =
        s.samples.iter().map(|(t, v)| json!({"timestampMs": t.to_string(), "value": v})).collect();
    let exemplars: Vec<Value> = s
        .exemplars
        .iter()
        .map(|e| {
            let id = json!([{"key": "trace:id", "value": {"stringValue": e.trace_id.to_string()}}]);
            json!({"labels": id, "value": e.value, "timestampMs": e.at.millis().to_string()})
        })
        .collect();
    json!({"labels": pairs, "samples": samples, "promLabels": prom, "exemplars": exemplars})
}

pub(super) async fn range(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let (start, end) = super::range(&app, &p).map_err(fail)?;
    let default = Duration::from_secs((end.since(start).as_secs() / POINTS).max(1));
    let step = p.duration("step").map_err(fail)?.unwrap_or(default);
    let all = measured(&app, &scope, &p, (start, end), Some(step)).await.map_err(fail)?;
    Ok(answer(json!({"series": all, "metrics": {}})))
}

pub(super) async fn instant(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let times = super::range(&app, &p).map_err(fail)?;
    let all = measured(&app, &scope, &p, times, None).await.map_err(fail)?;
    Ok(answer(json!({"series": all, "metrics": {}})))
}
