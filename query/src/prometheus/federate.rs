//! `/federate`: the newest sample of each series that is asked for, in the text format 0.0.4, for other servers to
//! scrape (Prometheus: web/federate.go). Native histograms have no text and are left out.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::extract::State;
use axum::response::IntoResponse;
use http::header;
use promql::format_value;
use signal::{Labels, METRIC_NAME, MetricKind, SeriesSource, is_stale_nan};

use super::{Answer, fail, selects};
use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::run::run;
use crate::scope::Scope;

pub(super) async fn federate(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let now = app.engines.clock.now().millis();
    let back = i64::try_from(app.promql.limits().lookback.as_millis()).unwrap_or(i64::MAX);
    let mut selects = selects(&app, &scope, &p, true).map_err(fail)?;
    for s in &mut selects {
        (s.start, s.end) = (now - back + 1, now);
    }
    let text = run(&app, move |app, stop| {
        // By name, so that all of a metric stands together.
        let mut newest: BTreeMap<(String, Labels), (i64, f64)> = BTreeMap::new();
        for s in &selects {
            for series in app.engines.tsdb.select(s)? {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return Err(Failure::Canceled("the client has gone".to_owned()));
                }
                let series = series?;
                if let (Some(t), Some(v)) = (series.timestamps.last(), series.values.last())
                    && !is_stale_nan(*v)
                    && series.histograms.last().is_none_or(|h| h.timestamp < *t)
                {
                    let name = series.labels.metric_name().to_owned();
                    newest.insert((name, series.labels), (*t, *v));
                }
            }
        }
        let mut out = String::new();
        let mut last = None;
        for ((name, labels), (t, v)) in &newest {
            if last != Some(name) {
                let kind = app.engines.tsdb.metadata(name).map_or(MetricKind::Unknown, |m| m.kind);
                let kind = if kind == MetricKind::Unknown { "untyped" } else { kind.as_str() };
                writeln!(out, "# TYPE {name} {kind}").expect("writing to a string cannot fail");
                last = Some(name);
            }
            line(&mut out, name, labels, *t, *v);
        }
        Ok(out)
    })
    .await
    .map_err(fail)?;
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8");
    Ok(([kind], text).into_response())
}

fn line(out: &mut String, name: &str, labels: &Labels, t: i64, v: f64) {
    let escape = |s: &str| s.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let plain = |s: &str| s.bytes().all(|b| b == b'_' || b == b':' || b.is_ascii_alphanumeric());
    let mut parts: Vec<String> = Vec::new();
    if !plain(name) {
        parts.push(format!("\"{}\"", escape(name)));
    }
    for (n, value) in labels.iter().filter(|(n, _)| *n != METRIC_NAME) {
        let n = if plain(n) { n.to_owned() } else { format!("\"{}\"", escape(n)) };
        parts.push(format!("{n}=\"{}\"", escape(value)));
    }
    // Other servers tell targets apart by it, and must not put their own in its place.
    if labels.get("instance").is_none() {
        parts.push("instance=\"\"".to_owned());
    }
    let name = if plain(name) { name } else { "" };
    writeln!(out, "{name}{{{}}} {} {t}", parts.join(","), format_value(v))
        .expect("writing to a string cannot fail");
}

/// Served beside the API, not below it.
pub(crate) fn router(app: App) -> axum::Router {
    axum::Router::new().route("/federate", axum::routing::get(federate)).with_state(app)
}
