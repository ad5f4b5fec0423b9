//! Scrape targets (Prometheus: web/api/v1/api.go): `/targets`, `/targets/metadata`, `/scrape_pools`.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use serde_json::{Value, json};
use signal::{Labels, METRIC_NAME, Matcher, Metadata, Select, SeriesSource};

use super::{Answer, data, fail};
use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::run::run;
use crate::scope::Scope;

/// How far back a target's series are looked for, in milliseconds.
const LATELY: i64 = 300_000;
/// Entries of `/targets/metadata` at most.
const ENTRIES: usize = 100_000;
/// What exposition adds to the name of a family.
const SUFFIXES: [&str; 7] = ["", "_total", "_bucket", "_count", "_sum", "_info", "_created"];

fn is_allowed(scope: &Scope, target: &Value) -> bool {
    match scope {
        Scope::All => true,
        Scope::Namespaces(n) => target["labels"]["namespace"].as_str().is_some_and(|ns| n.contains(ns)),
    }
}

fn pool(target: &Value) -> Option<&str> {
    target["scrapePool"].as_str().or(target["labels"]["job"].as_str())
}

/// Targets of one state, `active` or `dropped`, that the caller may see.
fn listed(all: &mut Value, key: &str, scope: &Scope, wanted: Option<&str>) -> Vec<Value> {
    let mut list = match all[key].take() {
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    list.retain(|t| is_allowed(scope, t) && wanted.is_none_or(|w| pool(t) == Some(w)));
    list.sort_by(|a, b| pool(a).cmp(&pool(b)));
    list
}

pub(super) async fn targets(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let mut all = (app.engines.targets)();
    let state = p.get("state").unwrap_or("").to_lowercase();
    let shows = |what: &str| matches!(state.as_str(), "" | "any") || state == what;
    let wanted = p.get("scrapePool");
    let active = if shows("active") { listed(&mut all, "activeTargets", &scope, wanted) } else { Vec::new() };
    let (dropped, counts) = if shows("dropped") {
        // How many targets others have is theirs to know.
        let counts = if scope == Scope::All { all["droppedTargetCounts"].take() } else { json!({}) };
        (listed(&mut all, "droppedTargets", &scope, wanted), counts)
    } else {
        (Vec::new(), Value::Null)
    };
    Ok(data(json!({"activeTargets": active, "droppedTargets": dropped, "droppedTargetCounts": counts})))
}

/// The jobs that targets belong to.
pub(super) async fn scrape_pools(State(app): State<App>, scope: Scope) -> Answer {
    let mut all = (app.engines.targets)();
    let active = listed(&mut all, "activeTargets", &scope, None);
    let jobs: BTreeSet<&str> = active.iter().filter_map(pool).collect();
    Ok(data(json!({"scrapePools": jobs})))
}

/// What is known of the metrics of each target.
pub(super) async fn metadata(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    let limit = match p.get("limit").map(str::parse::<i64>) {
        None => ENTRIES,
        Some(Ok(n)) => usize::try_from(n).unwrap_or(ENTRIES).min(ENTRIES),
        Some(Err(_)) => return Err(fail(Failure::Bad("limit must be a number".to_owned()))),
    };
    let matchers: Vec<Matcher> = match p.get("match_target") {
        None => Vec::new(),
        Some(text) => {
            let selector = promql::parse_selector(text);
            let wrong = |e| fail(Failure::Bad(format!("invalid parameter \"match_target\": {e}")));
            selector.map_err(wrong)?.matchers
        }
    };
    let metric = p.get("metric").map(str::to_owned);
    let mut all = (app.engines.targets)();
    let active = listed(&mut all, "activeTargets", &scope, None);
    let now = app.engines.clock.now().millis();
    let found = run(&app, move |app, _| {
        let known: BTreeMap<String, Metadata> =
            app.engines.tsdb.all_metadata().into_iter().map(|m| (m.family.clone(), m)).collect();
        let mut out = Vec::new();
        for target in &active {
            let labels: Labels = serde_json::from_value(target["labels"].clone()).unwrap_or_default();
            if !matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or(""))) {
                continue;
            }
            let own = ["job", "instance"].into_iter().filter_map(|n| Some(Matcher::equal(n, labels.get(n)?)));
            let select = Select { matchers: own.collect(), start: now - LATELY, end: now };
            let names: BTreeSet<String> =
                app.engines.tsdb.label_values(METRIC_NAME, &select)?.into_iter().collect();
            let has = |family: &str| SUFFIXES.iter().any(|s| names.contains(&format!("{family}{s}")));
            for m in known.values().filter(|m| metric.as_ref().is_none_or(|w| *w == m.family)) {
                if out.len() >= limit {
                    return Ok(out);
                }
                if has(&m.family) {
                    let mut one = json!({"target": labels});
                    if metric.is_none() {
                        one["metric"] = m.family.as_str().into();
                    }
                    one["type"] = m.kind.as_str().into();
                    one["help"] = m.help.as_str().into();
                    one["unit"] = m.unit.as_str().into();
                    out.push(one);
                }
            }
        }
        Ok(out)
    })
    .await
    .map_err(fail)?;
    Ok(data(json!(found)))
}
