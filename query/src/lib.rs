//! The HTTP APIs for queries: Prometheus, Loki, Tempo and Jaeger as their clients know them, and SQL.
//!
//! Promises: answers and errors in the form each API's clients expect. Every handler reads a [`Scope`] from the
//! request and lets nothing out of the namespaces it names, by any path; without one it answers 401. Bodies,
//! series, points, lines and time are bounded, and so is the number of queries at once; a query whose client
//! goes away is stopped.
//!
//! Does not know: how a caller is authenticated (a layer outside puts the scope in), how data is stored.
//!
//! The road of a query: router → [`params`] → [`scope`] → [`run`] (a place, a thread, a way to stop) → promql, logql
//! or log-index → the API's JSON in [`prometheus`], [`loki`], [`tempo`], [`jaeger`]. SQL brings its own places and
//! threads: [`tables`] hands the statement to it.

mod config;
mod error;
mod jaeger;
mod loki;
mod params;
mod prometheus;
mod run;
mod scope;
mod tables;
mod tempo;

use std::sync::Arc;

use axum::Router;

pub use config::{Config, Engines, TargetsFn};
/// Whether a body of Loki's push API can be read, for the fuzzer.
#[doc(hidden)]
pub fn decode_loki_push(raw: &[u8], is_json: bool, limit: usize) -> bool {
    loki::push::decode(raw, is_json, limit).is_ok()
}
#[doc(hidden)]
pub use prometheus::decode_remote_write;
pub use scope::Scope;
pub use tables::Objects;

/// What every handler has.
pub(crate) struct Shared {
    pub(crate) engines: Engines,
    pub(crate) config: Config,
    pub(crate) promql: promql::Engine,
    pub(crate) logql: logql::Engine,
    pub(crate) traceql: logql::traceql::Engine,
    pub(crate) sql: sql::Engine,
    pub(crate) places: tokio::sync::Semaphore,
    pub(crate) patterns: loki::patterns::Patterns,
    pub(crate) deletions: loki::delete::Deletions,
    pub(crate) started: signal::Timestamp,
}

pub(crate) type App = Arc<Shared>;

/// All query APIs, to be served under authentication.
pub fn router(engines: Engines, config: Config) -> Router {
    let app: App = Arc::new(Shared {
        promql: promql::Engine::new(engines.tsdb.clone(), config.promql.clone()),
        logql: logql::Engine::new(engines.logs.clone(), config.logql.clone()),
        traceql: logql::traceql::Engine::new(engines.traces.clone(), config.traceql.clone()),
        sql: sql::Engine::new(
            sql::Sources {
                tsdb: engines.tsdb.clone(),
                logs: engines.logs.clone(),
                traces: engines.traces.clone(),
                clock: engines.clock.clone(),
            },
            config.sql.clone(),
        ),
        places: tokio::sync::Semaphore::new(config.concurrency),
        patterns: loki::patterns::follow(&engines.logs, engines.clock.now()),
        deletions: Default::default(),
        started: engines.clock.now(),
        engines,
        config,
    });
    Router::new()
        .nest("/api/v1", prometheus::router(app.clone()))
        .merge(prometheus::federation(app.clone()))
        .merge(prometheus::lifecycle(app.clone()))
        .nest("/loki", loki::router(app.clone()))
        .nest("/tempo", tempo::router(app.clone()))
        .nest("/jaeger", jaeger::router(app.clone()))
        .merge(tables::router(app))
}

#[cfg(test)]
mod tests;
