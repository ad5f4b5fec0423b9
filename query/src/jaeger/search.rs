//! Traces with a span that is all that was asked for.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use log_index::SpanSearch;
use serde_json::Value;
use signal::{Attributes, Labels, Matcher, Span, SpanStatus, Timestamp, TraceId};

use super::{Answer, bad, fail, listed, open_search, trace_json};
use crate::App;
use crate::error::Failure;
use crate::params::{Params, duration};
use crate::run::run;
use crate::scope::Scope;

/// As Jaeger has them.
const LIMIT: usize = 20;
const MOST: usize = 1500;
const LOOKBACK: Duration = Duration::from_secs(3600);

pub(super) async fn traces(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let ids = p.all("traceID").map(crate::tempo::parse_id).collect::<Result<Vec<_>, _>>().map_err(fail)?;
    let enforce = scope.enforce();
    if !ids.is_empty() {
        return run(&app, move |app, _| read(app, &ids, &enforce)).await.map(listed).map_err(fail);
    }
    let asked = Asked::read(&app, &scope, &p).map_err(bad)?;
    run(&app, move |app, stop| {
        let mut newest: BTreeMap<TraceId, Timestamp> = BTreeMap::new();
        app.engines.traces.scan_spans(&asked.search, |labels, resource, span| {
            if stop.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            if asked.tags.iter().all(|(n, v)| has(labels, resource, &span, n, v)) {
                let at = newest.entry(span.trace_id).or_insert(span.start);
                *at = (*at).max(span.start);
            }
            // Some more than wanted, because blocks are only nearly in order of time.
            if newest.len() >= asked.limit.saturating_mul(2).max(64) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let mut ids: Vec<(TraceId, Timestamp)> = newest.into_iter().collect();
        ids.sort_by_key(|(_, t)| std::cmp::Reverse(*t));
        let ids: Vec<TraceId> = ids.into_iter().map(|(id, _)| id).take(asked.limit).collect();
        read(app, &ids, &enforce)
    })
    .await
    .map(listed)
    .map_err(fail)
}

fn read(app: &App, ids: &[TraceId], enforce: &[Matcher]) -> Result<Vec<Value>, Failure> {
    let mut out = Vec::new();
    for id in ids {
        let found = app.engines.traces.trace(*id, enforce)?;
        if !found.is_empty() {
            out.push(trace_json(&found));
        }
    }
    Ok(out)
}

struct Asked {
    search: SpanSearch,
    tags: Vec<(String, String)>,
    limit: usize,
}

impl Asked {
    fn read(app: &App, scope: &Scope, p: &Params) -> Result<Asked, String> {
        let micros = |name: &str| -> Result<Option<Timestamp>, String> {
            p.get(name)
                .map(|v| v.parse::<i64>().map(|n| Timestamp(n.saturating_mul(1000))))
                .transpose()
                .map_err(|_| format!("unable to parse param '{name}': not a number of microseconds"))
        };
        let length = |name: &str| -> Result<Option<Duration>, String> {
            p.get(name)
                .map(|v| {
                    short(v).ok_or_else(|| {
                        format!("unable to parse param '{name}': time: invalid duration {v:?}")
                    })
                })
                .transpose()
        };
        let mut matchers = scope.enforce();
        match p.get("service") {
            Some(s) => matchers.push(Matcher::equal("service_name", s)),
            None => return Err("parameter 'service' is required".to_owned()),
        }
        let end = micros("end")?.unwrap_or_else(|| app.engines.clock.now());
        let lookback = length("lookback").ok().flatten().unwrap_or(LOOKBACK);
        let start = micros("start")?.unwrap_or(end.saturating_sub(lookback));
        let (least, most) = (length("minDuration")?, length("maxDuration")?);
        if let (Some(a), Some(b)) = (least, most)
            && b < a
        {
            return Err("'maxDuration' should be greater than 'minDuration'".to_owned());
        }
        let limit = match p.get("limit") {
            None => LIMIT,
            Some(l) => l.parse::<usize>().map_err(|_| format!("unable to parse param 'limit': {l:?}"))?,
        };
        // A microsecond is over only at its end.
        let mut search = open_search(matchers, start, end.saturating_add(Duration::from_micros(1)));
        search.name = p.get("operation").filter(|o| *o != "all").map(str::to_owned);
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        search.min_duration = least.map(nanos);
        search.max_duration = most.map(nanos);
        Ok(Asked { search, tags: tags(p)?, limit: limit.clamp(1, MOST) })
    }
}

/// `100ms`, `1.2s`, `10us`; a number needs its unit.
fn short(v: &str) -> Option<Duration> {
    let unit = v.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let n: f64 = v[..unit].parse().ok()?;
    let scale = match &v[unit..] {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return duration(v),
    };
    Some(Duration::from_secs_f64(n * scale))
}

/// `tag=key:value`, several times, and `tags` as a JSON object or as `key=value key2="a value"`.
fn tags(p: &Params) -> Result<Vec<(String, String)>, String> {
    let mut out = Vec::new();
    for tag in p.all("tag") {
        let (n, v) = tag
            .split_once(':')
            .ok_or_else(|| format!("malformed 'tag' parameter, expecting key:value, received: {tag}"))?;
        out.push((n.to_owned(), v.to_owned()));
    }
    for text in p.all("tags").filter(|t| !t.is_empty()) {
        if text.trim_start().starts_with('{') {
            let map: serde_json::Map<String, Value> = serde_json::from_str(text)
                .map_err(|e| format!("malformed 'tags' parameter, cannot unmarshal JSON: {e}"))?;
            out.extend(map.into_iter().map(|(n, v)| {
                let v = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
                (n, v)
            }));
        } else {
            let found = crate::tempo::tags(text);
            if found.is_empty() {
                return Err("malformed 'tags' parameter, expecting JSON or key=value".to_owned());
            }
            out.extend(found);
        }
    }
    Ok(out)
}

/// Whether a span has a tag: on itself, on its process, or in one of its logs.
fn has(labels: &Labels, resource: &Attributes, s: &Span, name: &str, value: &str) -> bool {
    let of = |a: &Attributes| a.get(name).is_some_and(|v| v.to_string() == value);
    let code = match s.status {
        SpanStatus::Unset => "",
        SpanStatus::Ok => "OK",
        SpanStatus::Error(_) => "ERROR",
    };
    of(&s.attributes)
        || of(resource)
        || s.events.iter().any(|e| of(&e.attributes) || name == "event" && e.name == value)
        || match name {
            "span.kind" => s.kind.as_str() == value,
            "error" => (code == "ERROR") == (value == "true") && s.attributes.get("error").is_none(),
            "otel.status_code" => code == value,
            "otel.status_description" => matches!(&s.status, SpanStatus::Error(m) if m == value),
            "service.name" => labels.get("service_name") == Some(value),
            n => labels.get(n) == Some(value),
        }
}
