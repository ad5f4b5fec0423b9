//! Loki's HTTP API (Loki: docs/sources/reference/loki-http-api.md).

pub(crate) mod delete;
mod explore;
pub(crate) mod patterns;
pub(crate) mod push;
mod tail;
mod translate;

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use log_index::Direction;
use logql::{LogResult, LogStreamResult, Statistics};
use serde_json::{Value, json};
use signal::{Matcher, Timestamp};

use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::prometheus::{raw, value_json};
use crate::run::run;
use crate::scope::Scope;

/// How far back a request without `start` looks, as Loki has it.
const DEFAULT_RANGE: Duration = Duration::from_secs(3600);
const METADATA_RANGE: Duration = Duration::from_secs(6 * 3600);

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/ready", get(|_: Scope| async { "ready\n" }))
        .route("/api/v1/query", get(query).post(query))
        .route("/api/v1/query_range", get(query_range).post(query_range))
        .route("/api/v1/labels", get(labels).post(labels))
        .route("/api/v1/label", get(labels))
        .route("/api/v1/label/{name}/values", get(label_values))
        .route("/api/v1/series", get(series).post(series))
        .route("/api/v1/index/stats", get(stats).post(stats))
        .route("/api/v1/index/volume", get(explore::volume).post(explore::volume))
        .route("/api/v1/index/volume_range", get(explore::volume_range).post(explore::volume_range))
        .route("/api/v1/detected_labels", get(explore::detected_labels).post(explore::detected_labels))
        .route("/api/v1/detected_fields", get(explore::detected_fields).post(explore::detected_fields))
        .route("/api/v1/detected_field/{name}/values", get(explore::detected_values))
        .route("/api/v1/patterns", get(patterns::patterns).post(patterns::patterns))
        .route("/api/v1/translate", get(translate::translate).post(translate::translate))
        .route("/api/v1/tail", get(tail::tail))
        .route("/api/v1/status/config", get(config))
        .route("/config", get(config))
        .route("/services", get(|_: Scope| async { "all => Running\n" }))
        .route(
            "/api/v1/delete",
            post(delete::delete).put(delete::delete).get(delete::list).delete(delete::cancel),
        )
        .route("/api/v1/push", post(push::push))
        .route("/api/v1/format_query", get(format_query).post(format_query))
        .route("/api/v1/status/buildinfo", get(buildinfo))
        .with_state(app)
}

type Answer = Result<Response, Response>;

fn fail(f: Failure) -> Response {
    f.plain()
}

fn answer(value: Value) -> Response {
    raw(value.to_string())
}

/// `start`, `end`, `since`, with Loki's defaults.
fn range(app: &App, p: &Params, default: Duration) -> Result<(Timestamp, Timestamp), Failure> {
    let end = p.time("end")?.unwrap_or_else(|| app.engines.clock.now());
    let start = match (p.time("start")?, p.duration("since")?) {
        (Some(s), _) => s,
        (None, Some(since)) => end.saturating_sub(since),
        (None, None) => end.saturating_sub(default),
    };
    if end < start {
        return Err(Failure::Bad("end timestamp must not be before or equal to start time".to_owned()));
    }
    Ok((start, end))
}

fn options(app: &App, scope: &Scope, p: &Params) -> Result<logql::Options, Failure> {
    let direction = match p.get("direction").map(str::to_ascii_lowercase).as_deref() {
        None | Some("backward") => Direction::Backward,
        Some("forward") => Direction::Forward,
        Some(d) => return Err(Failure::Bad(format!("invalid direction '{d}'"))),
    };
    let limit = p.number("limit")?.unwrap_or(100);
    let most = app.config.logql.lines;
    if limit > most {
        return Err(Failure::Bad(format!(
            "max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {most})"
        )));
    }
    Ok(logql::Options { enforce: scope.enforce(), direction, limit, stop: Default::default() })
}

async fn query(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let text = required(&p)?;
    let time = p.time("time").map_err(fail)?.unwrap_or_else(|| app.engines.clock.now());
    let mut o = options(&app, &scope, &p).map_err(fail)?;
    run(&app, move |app, stop| {
        o.stop = stop;
        Ok(result(&app.logql.instant(&text, time, &o)?))
    })
    .await
    .map(raw)
    .map_err(fail)
}

async fn query_range(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let text = required(&p)?;
    let (start, end) = range(&app, &p, DEFAULT_RANGE).map_err(fail)?;
    // Loki: without a step, about 250 points.
    let default = Duration::from_secs((end.since(start).as_secs() / 250).max(1));
    let step = p.duration("step").map_err(fail)?.unwrap_or(default);
    let interval = p.duration("interval").map_err(fail)?;
    let mut o = options(&app, &scope, &p).map_err(fail)?;
    run(&app, move |app, stop| {
        o.stop = stop;
        let mut found = app.logql.range(&text, start, end, step, &o)?;
        if let (LogResult::Streams(streams), Some(interval)) = (&mut found.0, interval) {
            streams.iter_mut().for_each(|s| thin(s, interval));
        }
        Ok(result(&found))
    })
    .await
    .map(raw)
    .map_err(fail)
}

/// Leaves of a stream's lines those that are an interval apart, at least.
fn thin(s: &mut LogStreamResult, interval: Duration) {
    let mut last: Option<Timestamp> = None;
    s.entries.retain(|e| {
        let keep = last.is_none_or(|l| l.since(e.timestamp).max(e.timestamp.since(l)) >= interval);
        if keep {
            last = Some(e.timestamp);
        }
        keep
    });
}

fn required(p: &Params) -> Result<String, Response> {
    p.get("query").map(str::to_owned).ok_or_else(|| {
        fail(Failure::Bad("parse error at line 1, col 1: syntax error: unexpected $end".to_owned()))
    })
}

fn result((r, stats): &(LogResult, Statistics)) -> String {
    let mut out = String::from("{\"status\":\"success\",\"data\":");
    match r {
        LogResult::Streams(s) => {
            let data = json!({"resultType": "streams", "result": s.iter().map(stream).collect::<Vec<_>>()});
            out.push_str(&data.to_string());
        }
        LogResult::Metric(m) => {
            value_json(&mut out, &m.value, 0);
        }
    }
    // Into the object of the data, which is the last that was closed.
    out.pop();
    out.push_str(",\"stats\":");
    out.push_str(&statistics(stats).to_string());
    out.push('}');
    if !stats.warnings.is_empty() {
        out.push_str(",\"warnings\":");
        out.push_str(&json!(stats.warnings).to_string());
    }
    out.push('}');
    out
}

/// What it took, in the places where Loki's clients look.
fn statistics(s: &Statistics) -> Value {
    let seconds = s.took.as_secs_f64();
    let per_second = |n: u64| (n as f64 / seconds.max(1e-6)) as u64;
    let chunk = json!({
        "headChunkBytes": 0, "headChunkLines": 0, "decompressedBytes": s.bytes, "decompressedLines": s.records,
        "compressedBytes": 0, "totalDuplicates": 0,
    });
    let store = json!({
        "totalChunksRef": s.blocks, "totalChunksDownloaded": s.blocks, "chunksDownloadTime": 0, "chunk": chunk,
    });
    json!({
        "summary": {
            "bytesProcessedPerSecond": per_second(s.bytes), "linesProcessedPerSecond": per_second(s.records),
            "totalBytesProcessed": s.bytes, "totalLinesProcessed": s.records, "execTime": seconds,
            "queueTime": 0, "subqueries": 0, "splits": 0, "shards": 0, "totalEntriesReturned": s.entries,
            "totalPostFilterLines": s.entries, "totalStructuredMetadataBytesProcessed": 0,
        },
        "querier": {"store": store},
        "ingester": {"totalReached": 0, "totalChunksMatched": 0, "totalBatches": 0, "totalLinesSent": 0},
    })
}

pub(crate) fn stream(s: &LogStreamResult) -> Value {
    let values: Vec<Value> = s.entries.iter().map(|e| json!([e.timestamp.to_string(), e.line])).collect();
    json!({"stream": s.labels, "values": values})
}

/// The matchers of `query`, or of each `match[]`; a single open set if there are none.
fn selectors(scope: &Scope, p: &Params, name: &str) -> Result<Vec<Vec<Matcher>>, Failure> {
    let mut out = Vec::new();
    for text in p.all(name).filter(|t| !t.is_empty() && *t != "{}") {
        let q = logql::parse_log_query(text)?;
        out.push(q.matchers().iter().cloned().chain(scope.enforce()).collect());
    }
    if out.is_empty() {
        out.push(scope.enforce());
    }
    Ok(out)
}

async fn streams(
    app: &App,
    scope: &Scope,
    p: &Params,
    name: &str,
) -> Result<Vec<log_index::StreamInfo>, Failure> {
    let (start, end) = range(app, p, METADATA_RANGE)?;
    let selectors = selectors(scope, p, name)?;
    run(app, move |app, _| {
        let mut all: Vec<log_index::StreamInfo> = Vec::new();
        for m in &selectors {
            for s in app.engines.logs.streams(m, start, end)? {
                if !all.iter().any(|a| a.labels == s.labels) {
                    all.push(s);
                }
            }
        }
        Ok(all)
    })
    .await
}

async fn labels(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let all = streams(&app, &scope, &p, "query").await.map_err(fail)?;
    let names: BTreeSet<&str> = all.iter().flat_map(|s| s.labels.iter().map(|(n, _)| n)).collect();
    Ok(answer(json!({"status": "success", "data": names})))
}

async fn label_values(State(app): State<App>, scope: Scope, Path(name): Path<String>, p: Params) -> Answer {
    let all = streams(&app, &scope, &p, "query").await.map_err(fail)?;
    let values: BTreeSet<&str> = all.iter().filter_map(|s| s.labels.get(&name)).collect();
    Ok(answer(json!({"status": "success", "data": values})))
}

async fn series(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let all = streams(&app, &scope, &p, "match[]").await.map_err(fail)?;
    let labels: Vec<_> = all.iter().take(app.config.series).map(|s| &s.labels).collect();
    Ok(answer(json!({"status": "success", "data": labels})))
}

async fn stats(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let all = streams(&app, &scope, &p, "query").await.map_err(fail)?;
    let sum = |f: fn(&log_index::StreamInfo) -> u64| all.iter().map(f).sum::<u64>();
    Ok(answer(json!({
        "streams": all.len(), "chunks": sum(|s| s.blocks), "entries": sum(|s| s.records), "bytes": sum(|s| s.bytes),
    })))
}

async fn format_query(_: Scope, State(_app): State<App>, p: Params) -> Answer {
    let text = logql::format(&required(&p)?).map_err(|e| fail(e.into()))?;
    Ok(answer(json!({"status": "success", "data": text})))
}

/// The bounds that a client may run into, under Loki's names.
async fn config(_: Scope, State(app): State<App>) -> Response {
    let l = &app.config.logql;
    let text = format!(
        "limits_config:\n  max_entries_limit_per_query: {}\n  max_query_series: {}\n  query_timeout: {}s\n  max_query_bytes_read: {}B\n",
        l.lines,
        l.series,
        l.timeout.as_secs(),
        l.bytes
    );
    axum::response::IntoResponse::into_response((
        [(http::header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        text,
    ))
}

async fn buildinfo(_: Scope) -> Response {
    answer(json!({
        "version": "3.5.0", "revision": concat!("binnacle-", env!("CARGO_PKG_VERSION")), "branch": "", "buildUser": "",
        "buildDate": "", "goVersion": "",
    }))
}
