//! The scheduler's own metrics, under upstream's names.

use std::sync::LazyLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResultLabel {
    pub(crate) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct QueueLabel {
    pub(crate) queue: &'static str,
}

pub(crate) struct Metrics {
    pub(crate) attempts: Family<ResultLabel, Counter>,
    pub(crate) pending: Family<QueueLabel, Gauge>,
    pub(crate) latency: Histogram,
}

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let m = Metrics {
        attempts: Family::default(),
        pending: Family::default(),
        latency: Histogram::new([0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0]),
    };
    telemetry::metrics::register(|r| {
        r.register("scheduler_schedule_attempts", "Attempts by result", m.attempts.clone());
        r.register("scheduler_pending_pods", "Pods waiting, by queue", m.pending.clone());
        r.register(
            "scheduler_scheduling_algorithm_duration_seconds",
            "Time to choose a node",
            m.latency.clone(),
        );
    });
    m
});
