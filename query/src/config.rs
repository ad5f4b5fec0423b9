//! What the APIs serve from, and within which bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use log_index::LogIndex;
use rules::Rules;
use signal::Sink;
use signal::time::SharedClock;
use tsdb::Tsdb;

/// Gives the scrape targets in the form of Prometheus' `/api/v1/targets` data.
pub type TargetsFn = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

#[derive(Clone)]
pub struct Engines {
    pub tsdb: Arc<Tsdb>,
    pub logs: Arc<LogIndex>,
    pub traces: Arc<LogIndex>,
    /// Where remote write and Loki push go.
    pub sink: Arc<dyn Sink>,
    pub targets: TargetsFn,
    pub rules: Arc<Rules>,
    pub clock: SharedClock,
}

#[derive(Clone, Debug)]
pub struct Config {
    /// Queries at once; others wait.
    pub concurrency: usize,
    /// Bytes of a request's body, and of a compressed one once it is unpacked.
    pub body_bytes: usize,
    pub unpacked_bytes: usize,
    /// Series that `/series`, `/labels` and their like look at.
    pub series: usize,
    /// Deleting series and taking snapshots over HTTP.
    pub admin_api: bool,
    /// Called when a query that held much memory has ended.
    pub release: Option<fn()>,
    pub promql: promql::Limits,
    pub logql: logql::Limits,
    pub traceql: logql::traceql::Limits,
    pub sql: sql::Config,
    /// What is told of the settings: by flag, and as a configuration file.
    pub flags: BTreeMap<String, String>,
    pub yaml: String,
    /// How long samples are kept, in words.
    pub retention: String,
    pub hostname: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            concurrency: 16,
            body_bytes: 16 << 20,
            unpacked_bytes: 64 << 20,
            series: 100_000,
            admin_api: false,
            release: None,
            promql: promql::Limits::default(),
            logql: logql::Limits::default(),
            traceql: logql::traceql::Limits::default(),
            sql: sql::Config::default(),
            flags: BTreeMap::new(),
            yaml: String::new(),
            retention: String::new(),
            hostname: String::new(),
        }
    }
}
