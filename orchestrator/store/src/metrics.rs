//! What the store counts.

use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

pub(crate) struct Metrics {
    pub(crate) writes: Counter,
    pub(crate) commits: Counter,
    pub(crate) failed_commits: Counter,
    pub(crate) commit: Histogram,
    pub(crate) revision: Gauge,
    pub(crate) compacted: Gauge,
}

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let m = Metrics {
        writes: Counter::default(),
        commits: Counter::default(),
        failed_commits: Counter::default(),
        commit: Histogram::new([0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0]),
        revision: Gauge::default(),
        compacted: Gauge::default(),
    };
    telemetry::metrics::register(|r| {
        r.register("binnacle_store_writes", "Changes committed", m.writes.clone());
        r.register("binnacle_store_commits", "Commits, each one sync to disk", m.commits.clone());
        r.register("binnacle_store_failed_commits", "Commits that failed", m.failed_commits.clone());
        r.register("binnacle_store_commit_seconds", "How long commits took", m.commit.clone());
        r.register("binnacle_store_revision", "The newest revision", m.revision.clone());
        r.register("binnacle_store_compacted_revision", "History begins after this", m.compacted.clone());
    });
    m
});
