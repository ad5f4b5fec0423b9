//! Which service calls which.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use serde_json::json;
use signal::{SpanId, Timestamp, TraceId};

use super::{Answer, bad, fail, listed, open_search};
use crate::App;
use crate::params::Params;
use crate::run::run;
use crate::scope::Scope;

/// Spans that are looked at: the newest.
const SPANS: usize = 500_000;
const LOOKBACK: i64 = 86_400_000;

/// `endTs` and `lookback` are in milliseconds.
pub(super) async fn dependencies(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let millis = |name: &str| {
        p.get(name)
            .map(|v| {
                v.parse::<i64>()
                    .map_err(|_| bad(format!("unable to parse param '{name}': {v:?} is no number")))
            })
            .transpose()
    };
    let end = millis("endTs")?.map_or_else(|| app.engines.clock.now(), Timestamp::from_millis);
    let lookback = u64::try_from(millis("lookback")?.unwrap_or(LOOKBACK)).unwrap_or(0);
    let search = open_search(scope.enforce(), end.saturating_sub(Duration::from_millis(lookback)), end);
    let calls = run(&app, move |app, stop| {
        let mut services: HashMap<(TraceId, SpanId), String> = HashMap::new();
        let mut children: Vec<(TraceId, SpanId, String)> = Vec::new();
        app.engines.traces.scan_spans(&search, |labels, _, s| {
            let service = labels.get("service_name").unwrap_or("").to_owned();
            if s.parent_span_id.is_valid() {
                children.push((s.trace_id, s.parent_span_id, service.clone()));
            }
            services.insert((s.trace_id, s.span_id), service);
            let done = services.len() >= SPANS || stop.load(Ordering::Relaxed);
            if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let mut calls: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (trace, parent, child) in children {
            match services.get(&(trace, parent)) {
                Some(caller) if *caller != child => *calls.entry((caller.clone(), child)).or_default() += 1,
                _ => {}
            }
        }
        Ok(calls)
    })
    .await
    .map_err(fail)?;
    let all = calls
        .into_iter()
        .map(|((parent, child), n)| json!({"parent": parent, "child": child, "callCount": n}));
    Ok(listed(all.collect()))
}
