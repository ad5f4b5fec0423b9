//! What a log browser asks before anybody has written a query: how much there is of what, which labels and fields
//! lines have, which patterns they follow (Loki: docs/sources/reference/loki-http-api.md).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::extract::{Path, State};
use logql::{LogResult, LogStreamResult};
use serde_json::{Value, json};

use super::{Answer, DEFAULT_RANGE, METADATA_RANGE, answer, fail, options, range, required, result, streams};
use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::prometheus::raw;
use crate::run::run;
use crate::scope::Scope;

/// Loki's defaults.
const VOLUMES: usize = 100;
const FIELDS: usize = 1000;
/// Lines whose fields are looked at, the newest, unless the request says otherwise.
const FIELD_LINES: usize = 1000;
/// Different values of one field that are kept.
const VALUES: usize = 1000;

/// The labels that volumes are summed by: those asked for, or those the selector names.
fn targets(p: &Params) -> Result<Vec<String>, Failure> {
    if let Some(t) = p.get("targetLabels").filter(|t| !t.is_empty()) {
        return Ok(t.split(',').map(|l| l.trim().to_owned()).collect());
    }
    let q = logql::parse_log_query(p.get("query").unwrap_or("{}"))?;
    Ok(q.matchers().iter().map(|m| m.name.clone()).collect::<BTreeSet<_>>().into_iter().collect())
}

/// Bytes of lines by series, or by label if `aggregateBy=labels`; the largest first.
pub(super) async fn volume(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    required(&p)?;
    let targets = targets(&p).map_err(fail)?;
    let (_, end) = range(&app, &p, DEFAULT_RANGE).map_err(fail)?;
    let limit = p.number("limit").map_err(fail)?.unwrap_or(VOLUMES);
    let by_label = p.get("aggregateBy") == Some("labels");
    let mut sums: BTreeMap<Vec<(String, String)>, u64> = BTreeMap::new();
    for s in streams(&app, &scope, &p, "query").await.map_err(fail)? {
        let named = |l: &String| s.labels.get(l).map(|v| (l.clone(), v.to_owned()));
        if by_label {
            for (name, _) in
                s.labels.iter().filter(|(n, _)| targets.is_empty() || targets.iter().any(|t| t == n))
            {
                *sums.entry(vec![(name.to_owned(), String::new())]).or_default() += s.bytes;
            }
        } else {
            *sums.entry(targets.iter().filter_map(named).collect()).or_default() += s.bytes;
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    sums.truncate(limit);
    let at = end.millis() as f64 / 1000.0;
    let result: Vec<Value> = sums
        .into_iter()
        .map(|(labels, bytes)| {
            let metric: BTreeMap<String, String> = labels.into_iter().collect();
            json!({"metric": metric, "value": [at, bytes.to_string()]})
        })
        .collect();
    Ok(answer(json!({"status": "success", "data": {"resultType": "vector", "result": result}})))
}

/// Bytes of lines at each step.
pub(super) async fn volume_range(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let selector = required(&p)?;
    let targets = targets(&p).map_err(fail)?;
    let (start, end) = range(&app, &p, DEFAULT_RANGE).map_err(fail)?;
    let default = Duration::from_secs((end.since(start).as_secs() / 250).max(1));
    let step = p.duration("step").map_err(fail)?.unwrap_or(default);
    // Only the selector: volumes are of what is stored, whatever a pipeline makes of it.
    let parsed = logql::parse_log_query(&selector).map_err(|e| fail(e.into()))?;
    let matchers: Vec<String> = parsed.matchers().iter().map(ToString::to_string).collect();
    let text = format!(
        "sum by ({}) (bytes_over_time({{{}}}[{}ms]))",
        targets.join(","),
        matchers.join(","),
        step.as_millis()
    );
    let mut o = options(&app, &scope, &p).map_err(fail)?;
    run(&app, move |app, stop| {
        o.stop = stop;
        Ok(result(&app.logql.range(&text, start, end, step, &o)?))
    })
    .await
    .map(raw)
    .map_err(fail)
}

pub(super) async fn detected_labels(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for s in streams(&app, &scope, &p, "query").await.map_err(fail)? {
        for (name, value) in s.labels.iter() {
            values.entry(name.to_owned()).or_default().insert(value.to_owned());
        }
    }
    let labels: Vec<Value> =
        values.iter().map(|(l, v)| json!({"label": l, "cardinality": v.len()})).collect();
    Ok(answer(json!({"detectedLabels": labels})))
}

/// The newest lines of a query.
pub(super) async fn newest(
    app: &App,
    scope: &Scope,
    p: &Params,
    limit: usize,
) -> Result<Vec<LogStreamResult>, Failure> {
    let text = p.get("query").map(str::to_owned).unwrap_or_else(|| "{}".to_owned());
    let (start, end) = range(app, p, METADATA_RANGE)?;
    let enforce = scope.enforce();
    run(app, move |app, stop| {
        let o = logql::Options { enforce, direction: log_index::Direction::Backward, limit, stop };
        match app.logql.range(&text, start, end, Duration::from_secs(1), &o)?.0 {
            LogResult::Streams(s) => Ok(s),
            LogResult::Metric(_) => Err(Failure::Bad("give a log query, not a metric query".to_owned())),
        }
    })
    .await
}

#[derive(Default)]
struct Field {
    values: BTreeSet<String>,
    parsers: BTreeSet<&'static str>,
}

/// Fields that parsers find in lines, and those that records have beside their stream's labels.
async fn fields(app: &App, scope: &Scope, p: &Params) -> Result<BTreeMap<String, Field>, Failure> {
    let lines = p.number("line_limit")?.unwrap_or(FIELD_LINES).min(app.config.logql.lines);
    let labels: BTreeSet<String> = streams(app, scope, p, "query")
        .await?
        .iter()
        .flat_map(|s| s.labels.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>())
        .collect();
    let mut out: BTreeMap<String, Field> = BTreeMap::new();
    let mut add = |name: &str, value: &str, parser: Option<&'static str>| {
        let f = out.entry(name.to_owned()).or_default();
        f.parsers.extend(parser);
        if f.values.len() < VALUES {
            f.values.insert(value.to_owned());
        }
    };
    for s in newest(app, scope, p, lines).await? {
        for (name, value) in s.labels.iter().filter(|(n, _)| !labels.contains(*n)) {
            add(name, value, None);
        }
        for e in &s.entries {
            let mut found: Vec<(String, String)> = Vec::new();
            let parser = logql::detect(&e.line, |k, v| found.push((k.to_owned(), v.to_owned())));
            for (name, value) in found {
                // A name that is a label too gets this ending when a parser reads it.
                let name = if labels.contains(&name) { format!("{name}_extracted") } else { name };
                add(&name, &value, parser);
            }
        }
    }
    Ok(out)
}

/// The narrowest of Loki's types that all values have.
fn kind(values: &BTreeSet<String>) -> &'static str {
    let all = |f: fn(&str) -> bool| !values.is_empty() && values.iter().all(|v| f(v));
    if all(|v| v.parse::<i64>().is_ok()) {
        "int"
    } else if all(|v| v.parse::<f64>().is_ok()) {
        "float"
    } else if all(|v| v == "true" || v == "false") {
        "boolean"
    } else if all(|v| v.starts_with(|c: char| c.is_ascii_digit()) && crate::params::duration(v).is_some()) {
        "duration"
    } else {
        "string"
    }
}

pub(super) async fn detected_fields(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let limit = p.number("limit").map_err(fail)?.unwrap_or(FIELDS);
    let found = fields(&app, &scope, &p).await.map_err(fail)?;
    let list: Vec<Value> = found
        .iter()
        .take(limit)
        .map(|(name, f)| {
            let parsers = if f.parsers.is_empty() { Value::Null } else { json!(f.parsers) };
            json!({"label": name, "type": kind(&f.values), "cardinality": f.values.len(), "parsers": parsers})
        })
        .collect();
    Ok(answer(json!({"fields": list, "limit": limit})))
}

pub(super) async fn detected_values(
    State(app): State<App>,
    scope: Scope,
    Path(name): Path<String>,
    p: Params,
) -> Answer {
    let limit = p.number("limit").map_err(fail)?.unwrap_or(FIELDS);
    let mut found = fields(&app, &scope, &p).await.map_err(fail)?;
    let values: Vec<String> =
        found.remove(&name).map(|f| f.values.into_iter().take(limit).collect()).unwrap_or_default();
    Ok(answer(json!({"values": values, "limit": limit})))
}
