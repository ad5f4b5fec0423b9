//! `binnacle query promql|logql|traceql|sql`.

use anyhow::{Result, bail};
use serde_json::{Value, json};
use signal::time::now;

use super::print;
use super::remote::Remote;
use super::table::Table;
use super::time::{duration, parse, show};
use crate::cli::{Language, Output, QueryArgs};

pub(crate) async fn run(a: QueryArgs) -> Result<()> {
    let remote = Remote::new(&a.data.data_dir)?;
    let now = now().millis();
    let seconds = |ms: i64| format!("{:.3}", ms as f64 / 1000.0);
    let nanos = |ms: i64| format!("{ms}000000");
    let at = parse(&a.time, now)?;
    let limit = a.limit.to_string();
    let range = match &a.start {
        Some(s) => Some((parse(s, now)?, parse(&a.end, now)?)),
        None => None,
    };
    let answer = match (a.language, range) {
        (Language::Promql, None) => {
            remote.get("/api/v1/query", &[("query", &a.expr), ("time", &seconds(at))]).await?
        }
        (Language::Promql, Some((start, end))) => {
            let step = seconds(duration(&a.step)?);
            let params = [
                ("query", a.expr.as_str()),
                ("start", &seconds(start)),
                ("end", &seconds(end)),
                ("step", &step),
            ];
            remote.get("/api/v1/query_range", &params).await?
        }
        (Language::Logql, None) if matches!(logql::parse(&a.expr), Ok(logql::Query::Metric(_))) => {
            remote.get("/loki/api/v1/query", &[("query", &a.expr), ("time", &nanos(at))]).await?
        }
        (Language::Logql, range) => {
            let (start, end) = range.unwrap_or((at - 3_600_000, at));
            let step = seconds(duration(&a.step)?);
            let params = [
                ("query", a.expr.as_str()),
                ("start", &nanos(start)),
                ("end", &nanos(end)),
                ("step", &step),
                ("limit", &limit),
            ];
            remote.get("/loki/api/v1/query_range", &params).await?
        }
        (Language::Traceql, range) => {
            let (start, end) = range.unwrap_or((at - 3_600_000, at));
            let (start, end) = ((start / 1000).to_string(), (end / 1000 + 1).to_string());
            // A query that does not parse goes to the search, which says what is wrong with it.
            let is_metrics = logql::traceql::parse(&a.expr).is_ok_and(|q| q.is_metrics());
            let (path, last) = if is_metrics {
                ("/tempo/api/metrics/query_range", ("step", seconds(duration(&a.step)?)))
            } else {
                ("/tempo/api/search", ("limit", limit))
            };
            let params = [("q", a.expr.as_str()), ("start", &start), ("end", &end), (last.0, &last.1)];
            remote.get(path, &params).await?
        }
        (Language::Sql, _) => remote.post("/sql", &json!({"query": a.expr})).await?,
    };
    match a.output {
        Output::Json => print(&serde_json::to_string_pretty(&answer)?),
        Output::Yaml => print(serde_saphyr::to_string(&answer)?.trim_end()),
        Output::Table => print(&table(a.language, &answer)?),
    }
}

fn table(language: Language, answer: &Value) -> Result<String> {
    match language {
        Language::Promql | Language::Logql => result(&answer["data"]),
        Language::Traceql => Ok(traces(answer)),
        Language::Sql => Ok(rows(answer)),
    }
}

/// A sample `[seconds, "value"]` or a log entry `["nanoseconds", "line"]`.
fn pair(v: &Value) -> (i64, String) {
    let text = v[1].as_str().unwrap_or_default().to_owned();
    match &v[0] {
        Value::String(nanos) => (nanos.parse::<i64>().unwrap_or(0) / 1_000_000, text),
        other => ((other.as_f64().unwrap_or(0.0) * 1000.0) as i64, text),
    }
}

fn series_name(labels: &Value) -> String {
    let labels: signal::Labels = serde_json::from_value(labels.clone()).unwrap_or_default();
    labels.to_string()
}

fn result(data: &Value) -> Result<String> {
    let all = data["result"].as_array().cloned().unwrap_or_default();
    match data["resultType"].as_str() {
        Some("scalar" | "string") => Ok(pair(&data["result"]).1),
        Some("vector") => {
            let mut t = Table::new(&["series", "value", "time"]);
            for s in &all {
                let (at, value) = pair(&s["value"]);
                t.row(vec![series_name(&s["metric"]), value, show(at)]);
            }
            Ok(t.render())
        }
        Some("matrix") => {
            let mut t = Table::new(&["series", "time", "value"]);
            for s in &all {
                for v in s["values"].as_array().into_iter().flatten() {
                    let (at, value) = pair(v);
                    t.row(vec![series_name(&s["metric"]), show(at), value]);
                }
            }
            Ok(t.render())
        }
        Some("streams") => {
            let mut lines: Vec<(i64, String, String)> = Vec::new();
            for s in &all {
                let name =
                    s["stream"]["pod"].as_str().or(s["stream"]["service_name"].as_str()).unwrap_or("-");
                for v in s["values"].as_array().into_iter().flatten() {
                    let (at, line) = pair(v);
                    lines.push((at, name.to_owned(), line));
                }
            }
            lines.sort();
            Ok(lines
                .iter()
                .map(|(at, who, l)| format!("{}  {who}  {l}", show(*at)))
                .collect::<Vec<_>>()
                .join("\n"))
        }
        other => bail!("the server answered with a result of type {other:?}"),
    }
}

fn traces(answer: &Value) -> String {
    if let Some(all) = answer["series"].as_array() {
        let mut t = Table::new(&["series", "time", "value"]);
        for s in all {
            let name = s["promLabels"].as_str().unwrap_or_default();
            for p in s["samples"].as_array().into_iter().flatten() {
                let at = p["timestampMs"].as_str().and_then(|t| t.parse().ok()).unwrap_or(0);
                t.row(vec![name.to_owned(), show(at), p["value"].to_string()]);
            }
        }
        return t.render();
    }
    let mut t = Table::new(&["trace", "start", "duration", "service", "name"]);
    for s in answer["traces"].as_array().into_iter().flatten() {
        let text = |k: &str| s[k].as_str().unwrap_or_default().to_owned();
        let start = text("startTimeUnixNano").parse::<i64>().unwrap_or(0) / 1_000_000;
        t.row(vec![
            text("traceID"),
            show(start),
            format!("{} ms", s["durationMs"]),
            text("rootServiceName"),
            text("rootTraceName"),
        ]);
    }
    t.render()
}

fn rows(answer: &Value) -> String {
    let columns: Vec<&str> =
        answer["columns"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
    let mut t = Table::new(&columns);
    for r in answer["rows"].as_array().into_iter().flatten() {
        let cell = |v: &Value| match v {
            Value::String(s) => s.clone(),
            Value::Null => "NULL".to_owned(),
            other => other.to_string(),
        };
        t.row(r.as_array().into_iter().flatten().map(cell).collect());
    }
    t.render()
}
