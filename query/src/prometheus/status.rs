//! What a server tells of itself: build, runtime, configuration, flags, features, notifications
//! (Prometheus: web/api/v1/api.go). Configuration and flags are for those who may see all.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::{Answer, data, fail};
use crate::App;
use crate::error::Failure;
use crate::scope::Scope;

fn cluster_wide(scope: &Scope, what: &str) -> Result<(), Response> {
    if *scope == Scope::All {
        return Ok(());
    }
    Err(fail(Failure::Forbidden(format!("{what} are for cluster-wide readers"))))
}

fn rfc3339(t: signal::Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(t.nanos())).map(|t| t.to_string()).unwrap_or_default()
}

/// The log is read back before anything is served.
pub(super) async fn walreplay(State(app): State<App>, _: Scope) -> Response {
    let segments = app.engines.tsdb.stats().wal.segments;
    data(json!({"min": 0, "max": segments, "current": segments}))
}

pub(super) async fn buildinfo(_: Scope) -> Response {
    // Clients read the version to decide what they may ask for: this is the API we speak.
    data(json!({
        "version": "3.5.0", "revision": concat!("binnacle-", env!("CARGO_PKG_VERSION")), "branch": "",
        "buildUser": "", "buildDate": "", "goVersion": "",
    }))
}

pub(super) async fn runtimeinfo(State(app): State<App>, _: Scope) -> Response {
    let facts = app.engines.tsdb.facts();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    data(json!({
        "startTime": rfc3339(app.started), "CWD": "", "hostname": app.config.hostname,
        "serverTime": rfc3339(app.engines.clock.now()),
        "reloadConfigSuccess": app.engines.rules.problems().is_empty(),
        "lastConfigTime": rfc3339(app.engines.rules.loaded_at().unwrap_or(app.started)),
        "corruptionCount": facts.quarantined, "goroutineCount": 0, "GOMAXPROCS": threads, "GOMEMLIMIT": 0, "GOGC": "",
        "GODEBUG": "", "storageRetention": app.config.retention,
    }))
}

pub(super) async fn config(State(app): State<App>, scope: Scope) -> Answer {
    cluster_wide(&scope, "settings")?;
    Ok(data(json!({"yaml": app.config.yaml})))
}

pub(super) async fn flags(State(app): State<App>, scope: Scope) -> Answer {
    cluster_wide(&scope, "settings")?;
    Ok(data(json!(app.config.flags)))
}

/// What people should know of: rule files that cannot be used.
pub(super) async fn notifications(State(app): State<App>, scope: Scope) -> Answer {
    if scope != Scope::All {
        return Ok(data(json!([])));
    }
    let since = rfc3339(app.engines.rules.loaded_at().unwrap_or(app.started));
    let problems = app.engines.rules.problems();
    let all: Vec<Value> =
        problems.iter().map(|p| json!({"text": p, "date": since, "active": true})).collect();
    Ok(data(json!(all)))
}

/// What this server can do, in Prometheus' words.
pub(super) async fn features(State(app): State<App>, _: Scope) -> Response {
    let on = |names: &[&str]| -> Value {
        Value::Object(names.iter().map(|n| ((*n).to_owned(), json!(true))).collect())
    };
    data(json!({
        "api": {
            "admin": app.config.admin_api, "exclude_alerts": true, "label_values_match": true, "lifecycle": true,
            "otlp_write_receiver": false, "query_stats": true, "query_warnings": true,
            "remote_write_receiver": true, "search": false, "time_range_labels": true, "time_range_series": true,
        },
        "promql": on(&[
            "anchored", "at_modifier", "bool", "by", "delayed_name_removal", "duration_expr", "fill", "fill_left",
            "fill_right", "group_left", "group_right", "ignoring", "negative_offset", "offset", "on",
            "per_query_lookback_delta", "smoothed", "subqueries", "without",
        ]),
        "promql_functions": on(promql::FUNCTIONS),
        "promql_operators": on(promql::OPERATORS),
        "prometheus": {"agent_mode": false, "server_mode": true},
        "rules": {"concurrent_rule_eval": false, "keep_firing_for": true, "query_offset": true},
        "scrape": {"start_timestamp_zero_ingestion": false, "type_and_unit_labels": false},
        "templating_functions": on(rules::FUNCTIONS),
        "tsdb": {"exemplar_storage": true, "native_histograms": true, "st_storage": true},
    }))
}
