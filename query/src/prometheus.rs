//! Prometheus' HTTP API (Prometheus: web/api/v1/api.go).

mod admin;
mod federate;
mod import;
mod json;
mod read;
mod rules;
mod status;
mod syntax;
mod targets;
mod write;

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header;
use serde_json::{Value, json};
use signal::{METRIC_NAME, Matcher, Select, SeriesSource};

use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::run::run;
use crate::scope::Scope;

/// A query that held more bytes gives its memory back to the kernel.
const RELEASE: u64 = 32 << 20;
/// Points of one series in a range query.
const POINTS: i64 = 11_000;

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/query", get(query).post(query))
        .route("/query_range", get(query_range).post(query_range))
        .route("/series", get(series).post(series))
        .route("/labels", get(labels).post(labels))
        .route("/label/{name}/values", get(label_values))
        .route("/metadata", get(metadata))
        .route("/query_exemplars", get(exemplars).post(exemplars))
        .route("/format_query", get(format_query).post(format_query))
        .route("/parse_query", get(parse_query).post(parse_query))
        .route("/targets", get(targets::targets))
        .route("/targets/metadata", get(targets::metadata))
        .route("/rules", get(rules::rules))
        .route("/alerts", get(rules::alerts))
        .route("/alertmanagers", get(rules::alertmanagers))
        .route("/scrape_pools", get(targets::scrape_pools))
        .route("/features", get(status::features))
        .route("/status/walreplay", get(status::walreplay))
        .route("/status/buildinfo", get(status::buildinfo))
        .route("/status/runtimeinfo", get(status::runtimeinfo))
        .route("/status/tsdb", get(status_tsdb))
        .route("/status/flags", get(status::flags))
        .route("/status/config", get(status::config))
        .route("/notifications", get(status::notifications))
        .route("/read", post(read::read))
        .route("/write", post(write::write))
        .nest("/admin/tsdb", admin::router())
        .route("/import", post(import::import))
        .with_state(app)
}

fn data(value: Value) -> Response {
    json::raw(json!({"status": "success", "data": value}).to_string())
}

type Answer = Result<Response, Response>;

fn fail(f: Failure) -> Response {
    f.prometheus()
}

fn required<'p>(p: &'p Params, name: &str) -> Result<&'p str, Response> {
    p.get(name).ok_or_else(|| fail(Failure::Bad(format!("invalid parameter {name:?}: is missing"))))
}

fn options(p: &Params, scope: &Scope) -> Result<promql::Options, Failure> {
    Ok(promql::Options {
        enforce: scope.enforce(),
        lookback: p.duration("lookback_delta")?,
        timeout: p.duration("timeout")?,
        cancel: None,
    })
}

/// A query that ended because it held too much has much to give back.
fn freed(
    app: &App,
    r: Result<promql::QueryResult, promql::Error>,
) -> Result<promql::QueryResult, promql::Error> {
    if let (Err(promql::Error::Limit(_) | promql::Error::Overloaded(..)), Some(release)) =
        (&r, app.config.release)
    {
        release();
    }
    r
}

async fn query(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let text = required(&p, "query")?.to_owned();
    let time = p.millis("time").map_err(fail)?.unwrap_or_else(|| app.engines.clock.now().millis());
    let mut o = options(&p, &scope).map_err(fail)?;
    let limit = p.number("limit").map_err(fail)?.unwrap_or(0);
    let stats = p.get("stats").is_some();
    run(&app, move |app, stop| {
        o.cancel = Some(stop);
        let started = app.engines.clock.monotonic();
        let r = freed(app, app.promql.instant_with(&text, time, &o))?;
        let stats =
            if stats { json::stats(&r, app.engines.clock.monotonic() - started) } else { String::new() };
        Ok((r, stats))
    })
    .await
    .map(|(r, stats)| {
        // Only where there is something worth giving back: it takes some milliseconds.
        let release = app.config.release.filter(|_| r.peak_bytes > RELEASE);
        json::answer(r, limit, stats, release)
    })
    .map_err(fail)
}

async fn query_range(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let text = required(&p, "query")?.to_owned();
    required(&p, "start")?;
    required(&p, "end")?;
    required(&p, "step")?;
    let start = p.millis("start").map_err(fail)?.unwrap_or_default();
    let end = p.millis("end").map_err(fail)?.unwrap_or_default();
    if end < start {
        return Err(fail(Failure::Bad(
            "invalid parameter \"end\": end timestamp must not be before start time".to_owned(),
        )));
    }
    let step = p.duration("step").map_err(|_| {
        fail(Failure::Bad("invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer".to_owned()))
    })?;
    let step = i64::try_from(step.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
    if step <= 0 {
        return Err(fail(Failure::Bad("invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer".to_owned())));
    }
    if (end - start) / step > POINTS {
        return Err(fail(Failure::Bad(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)".to_owned(),
        )));
    }
    let mut o = options(&p, &scope).map_err(fail)?;
    let limit = p.number("limit").map_err(fail)?.unwrap_or(0);
    let stats = p.get("stats").is_some();
    run(&app, move |app, stop| {
        o.cancel = Some(stop);
        let started = app.engines.clock.monotonic();
        let r = freed(app, app.promql.range_with(&text, start, end, step, &o))?;
        let stats =
            if stats { json::stats(&r, app.engines.clock.monotonic() - started) } else { String::new() };
        Ok((r, stats))
    })
    .await
    .map(|(r, stats)| {
        // Only where there is something worth giving back: it takes some milliseconds.
        let release = app.config.release.filter(|_| r.peak_bytes > RELEASE);
        json::answer(r, limit, stats, release)
    })
    .map_err(fail)
}

/// The selectors of `match[]` with scope and time, one for each; a single open one if there are none.
fn selects(app: &App, scope: &Scope, p: &Params, must: bool) -> Result<Vec<Select>, Failure> {
    let start = p.millis("start")?.unwrap_or(i64::MIN);
    let end = p.millis("end")?.unwrap_or(i64::MAX);
    let _ = app;
    let enforce = scope.enforce();
    let mut out = Vec::new();
    for text in p.all("match[]") {
        let s = promql::parse_selector(text)
            .map_err(|e| Failure::Bad(format!("invalid parameter \"match[]\": {e}")))?;
        let matchers: Vec<Matcher> = s.matchers.into_iter().chain(enforce.iter().cloned()).collect();
        out.push(Select { matchers, start, end });
    }
    if out.is_empty() {
        if must {
            return Err(Failure::Bad("no match[] parameter provided".to_owned()));
        }
        out.push(Select { matchers: enforce, start, end });
    }
    Ok(out)
}

async fn series(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let selects = selects(&app, &scope, &p, true).map_err(fail)?;
    let limit = p.number("limit").map_err(fail)?.filter(|l| *l > 0).unwrap_or(app.config.series);
    let (all, cut) = run(&app, move |app, _| {
        let mut all = BTreeSet::new();
        for s in &selects {
            all.extend(app.engines.tsdb.series(s)?);
        }
        let cut = all.len() > limit;
        Ok((all.into_iter().take(limit).collect::<Vec<_>>(), cut))
    })
    .await
    .map_err(fail)?;
    Ok(listed(json!(all), cut))
}

fn listed(all: Value, cut: bool) -> Response {
    let mut body = json!({"status": "success", "data": all});
    if cut {
        body["warnings"] = json!(["results truncated due to limit"]);
    }
    json::raw(body.to_string())
}

async fn labels(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let selects = selects(&app, &scope, &p, false).map_err(fail)?;
    let limit = p.number("limit").map_err(fail)?.filter(|l| *l > 0).unwrap_or(usize::MAX);
    let all = run(&app, move |app, _| {
        let mut all = BTreeSet::new();
        for s in &selects {
            all.extend(app.engines.tsdb.label_names(s)?);
        }
        Ok(all)
    })
    .await
    .map_err(fail)?;
    let cut = all.len() > limit;
    Ok(listed(json!(all.into_iter().take(limit).collect::<Vec<_>>()), cut))
}

async fn label_values(State(app): State<App>, scope: Scope, Path(name): Path<String>, p: Params) -> Answer {
    if name.is_empty() {
        return Err(fail(Failure::Bad(format!("invalid label name: {name:?}"))));
    }
    let selects = selects(&app, &scope, &p, false).map_err(fail)?;
    let limit = p.number("limit").map_err(fail)?.filter(|l| *l > 0).unwrap_or(usize::MAX);
    let all = run(&app, move |app, _| {
        let mut all = BTreeSet::new();
        for s in &selects {
            all.extend(app.engines.tsdb.label_values(&name, s)?);
        }
        Ok(all)
    })
    .await
    .map_err(fail)?;
    let cut = all.len() > limit;
    Ok(listed(json!(all.into_iter().take(limit).collect::<Vec<_>>()), cut))
}

async fn metadata(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let limit = p.number("limit").map_err(fail)?.unwrap_or(usize::MAX);
    let wanted = p.get("metric").map(str::to_owned);
    let enforce = scope.enforce();
    let all = run(&app, move |app, _| {
        let mut all = app.engines.tsdb.all_metadata();
        all.retain(|m| wanted.as_ref().is_none_or(|w| *w == m.family));
        if !enforce.is_empty() {
            // What a metric is called and said to be for is told to those who may see one of its series.
            let select = Select { matchers: enforce, start: i64::MIN, end: i64::MAX };
            let names: BTreeSet<String> =
                app.engines.tsdb.label_values(METRIC_NAME, &select)?.into_iter().collect();
            let seen = |family: &str| {
                ["", "_total", "_bucket", "_count", "_sum", "_info", "_created"]
                    .iter()
                    .any(|suffix| names.contains(&format!("{family}{suffix}")))
            };
            all.retain(|m| seen(&m.family));
        }
        Ok(all)
    })
    .await
    .map_err(fail)?;
    let map: serde_json::Map<String, Value> = all
        .into_iter()
        .take(limit)
        .map(|m| (m.family, json!([{"type": m.kind.as_str(), "help": m.help, "unit": m.unit}])))
        .collect();
    Ok(data(Value::Object(map)))
}

/// Exemplars of the series that the selectors of an expression name.
async fn exemplars(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let start = p.millis("start").map_err(fail)?.unwrap_or(i64::MIN);
    let end = p.millis("end").map_err(fail)?.unwrap_or(i64::MAX);
    if end < start {
        return Err(fail(Failure::Bad("end timestamp must not be before start timestamp".to_owned())));
    }
    let e = promql::parse(required(&p, "query")?).map_err(|e| fail(promql::Error::from(e).into()))?;
    let enforce = scope.enforce();
    let selectors: Vec<Vec<Matcher>> =
        e.selectors().map(|s| s.matchers.iter().chain(&enforce).cloned().collect()).collect();
    let all = run(&app, move |app, _| Ok(app.engines.tsdb.exemplars(&selectors, start, end)))
        .await
        .map_err(fail)?;
    let mut out: Vec<Value> = Vec::new();
    let mut series: Option<&signal::Labels> = None;
    for e in &all {
        let mut time = String::new();
        json::time(&mut time, e.timestamp);
        let time: Value = serde_json::from_str(&time).expect("a number was written");
        let one = json!({"labels": e.labels, "value": promql::format_value(e.value), "timestamp": time});
        if series == Some(&e.series)
            && let Some(list) = out.last_mut().and_then(|s| s["exemplars"].as_array_mut())
        {
            list.push(one);
        } else {
            out.push(json!({"seriesLabels": e.series, "exemplars": [one]}));
            series = Some(&e.series);
        }
    }
    Ok(data(json!(out)))
}

async fn format_query(_: Scope, State(_app): State<App>, p: Params) -> Answer {
    let e = promql::parse(required(&p, "query")?).map_err(|e| fail(promql::Error::from(e).into()))?;
    Ok(data(json!(promql::pretty(&e))))
}

async fn parse_query(_: Scope, State(_app): State<App>, p: Params) -> Answer {
    let e = promql::parse(required(&p, "query")?).map_err(|e| fail(promql::Error::from(e).into()))?;
    Ok(data(syntax::tree(&e)))
}

async fn status_tsdb(State(app): State<App>, scope: Scope) -> Answer {
    if scope != Scope::All {
        return Err(fail(Failure::Forbidden(
            "statistics of all namespaces are for cluster-wide readers".to_owned(),
        )));
    }
    let s = app.engines.tsdb.stats();
    let pairs = |v: &[(String, u64)]| -> Vec<Value> {
        v.iter().map(|(n, c)| json!({"name": n, "value": c})).collect()
    };
    Ok(data(json!({
        "headStats": {
            "numSeries": s.series, "numLabelPairs": s.label_pairs, "chunkCount": s.head_samples / 120,
            "minTime": s.head_min_time, "maxTime": s.head_max_time,
        },
        "seriesCountByMetricName": pairs(&s.series_by_metric),
        "labelValueCountByLabelName": pairs(&s.values_by_label),
        "memoryInBytesByLabelName": pairs(&s.bytes_by_label),
        "seriesCountByLabelValuePair": pairs(&s.series_by_pair),
    })))
}

/// What stands beside the API: health as Prometheus' own tools ask for it, and reading rules again.
pub(crate) fn lifecycle(app: App) -> Router {
    Router::new()
        .route("/-/healthy", get(|| async { "Prometheus Server is Healthy.\n" }))
        .route("/-/ready", get(|| async { "Prometheus Server is Ready.\n" }))
        .route("/-/reload", post(rules::reload).put(rules::reload))
        .with_state(app)
}

pub(crate) fn no_content() -> Response {
    (http::StatusCode::NO_CONTENT, [(header::CONTENT_LENGTH, "0")]).into_response()
}

pub(crate) use federate::router as federation;
pub(crate) use json::{raw, value as value_json};
pub use write::decode as decode_remote_write;
pub(crate) use write::unpack;
