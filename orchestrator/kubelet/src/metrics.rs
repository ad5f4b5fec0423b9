//! The kubelet's metrics, under upstream's names where it has them.

use std::sync::LazyLock;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{
    counter::Counter,
    family::Family,
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Operation {
    operation_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Probe {
    pub(crate) probe_type: &'static str,
    pub(crate) result: &'static str,
}

pub(crate) struct Metrics {
    pub(crate) pod_start_seconds: Histogram,
    pub(crate) running_pods: Gauge,
    pub(crate) running_containers: Gauge,
    pub(crate) operations: Family<Operation, Counter>,
    pub(crate) operation_seconds: Family<Operation, Histogram>,
    pub(crate) probes: Family<Probe, Counter>,
    pub(crate) log_bytes: Counter,
    pub(crate) log_failures: Counter,
    pub(crate) status_patches: Counter,
    pub(crate) sync_failures: Counter,
    pub(crate) events_dropped: Counter,
}

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let times = || Histogram::new(exponential_buckets(0.005, 2.0, 14));
    let m = Metrics {
        pod_start_seconds: times(),
        running_pods: Gauge::default(),
        running_containers: Gauge::default(),
        operations: Family::default(),
        operation_seconds: Family::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.001, 2.0, 14))
        }),
        probes: Family::default(),
        log_bytes: Counter::default(),
        log_failures: Counter::default(),
        status_patches: Counter::default(),
        sync_failures: Counter::default(),
        events_dropped: Counter::default(),
    };
    telemetry::metrics::register(|r| {
        r.register(
            "kubelet_pod_start_duration_seconds",
            "Time from seeing a pod to its containers running",
            m.pod_start_seconds.clone(),
        );
        r.register("kubelet_running_pods", "Pods with a worker", m.running_pods.clone());
        r.register("kubelet_running_containers", "Containers that run", m.running_containers.clone());
        r.register("kubelet_runtime_operations", "Calls to the runtime, by operation", m.operations.clone());
        r.register(
            "kubelet_runtime_operations_duration_seconds",
            "Time of calls to the runtime, by operation",
            m.operation_seconds.clone(),
        );
        r.register("prober_probe", "Probes, by type and result", m.probes.clone());
        r.register("binnacle_kubelet_log_bytes", "Bytes of container logs written", m.log_bytes.clone());
        r.register(
            "binnacle_kubelet_log_write_failures",
            "Writes of container logs that failed and were tried again",
            m.log_failures.clone(),
        );
        r.register("binnacle_kubelet_status_patches", "Pod statuses sent", m.status_patches.clone());
        r.register("binnacle_kubelet_sync_failures", "Pod syncs that failed", m.sync_failures.clone());
        r.register(
            "binnacle_kubelet_events_dropped",
            "Events not recorded because too many were said of a pod or waited",
            m.events_dropped.clone(),
        );
    });
    m
});

/// Counts and times one call to the runtime until it is dropped.
pub(crate) struct Timer {
    operation: Operation,
    started: Instant,
}

pub(crate) fn operation(operation_type: &'static str) -> Timer {
    let operation = Operation { operation_type };
    METRICS.operations.get_or_create(&operation).inc();
    Timer { operation, started: signal::time::monotonic() }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let elapsed = signal::time::monotonic().duration_since(self.started).as_secs_f64();
        METRICS.operation_seconds.get_or_create(&self.operation).observe(elapsed);
    }
}
