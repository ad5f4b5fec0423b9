//! Our own metrics: read from the registry in memory, stored like anybody's.

use std::sync::Arc;
use std::time::Duration;

use signal::time::SharedClock;
use signal::{Labels, METRIC_NAME, MetricBatch, Sink};
use tokio_util::sync::CancellationToken;

use crate::exposition::Format;
use crate::metrics::{accepted, refused};
use crate::scrape::intake::{Body, Counts, Intake};

/// Stores our own metrics every `interval` under `labels` until `stop`.
pub async fn run(
    labels: Labels,
    interval: Duration,
    sink: Arc<dyn Sink>,
    clock: SharedClock,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(interval);
    let mut intake = Intake::new(labels.clone(), Arc::default());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = clock.now().millis();
        let text = telemetry::metrics::encode();
        let mut batch = match intake.take(Body::Text(&text, Format::OpenMetrics), now, &mut Counts::default())
        {
            Ok(batch) => batch,
            Err(e) => {
                tracing::error!(error = %e, "our own metrics cannot be read");
                MetricBatch::default()
            }
        };
        let up = labels.builder().set(METRIC_NAME, "up").build();
        batch.push(up, now, 1.0);
        for (name, value) in process() {
            batch.push(labels.builder().set(METRIC_NAME, name).build(), now, value);
        }
        let n = batch.samples();
        match sink.write_metrics(batch).await {
            Ok(_) => accepted("own", "metrics", n),
            Err(e) => {
                refused("own", "sink");
                tracing::warn!(error = %e, "our own metrics were not stored");
            }
        }
    }
}

/// `process_*` as every Prometheus client has them. Empty where there is no /proc.
pub fn process() -> Vec<(&'static str, f64)> {
    let mut out = Vec::new();
    let ticks = 100.0; // USER_HZ is 100 on every Linux we run on.
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
        && let Some((_, rest)) = stat.rsplit_once(") ")
    {
        let f: Vec<&str> = rest.split(' ').collect();
        let number = |i: usize| f.get(i).and_then(|s| s.parse::<f64>().ok()).unwrap_or(0.0);
        out.push(("process_cpu_seconds_total", (number(11) + number(12)) / ticks));
        out.push(("process_threads", number(17)));
        out.push(("process_virtual_memory_bytes", number(20)));
        out.push(("process_resident_memory_bytes", number(21) * 4096.0));
    }
    if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
        out.push(("process_open_fds", fds.count() as f64));
    }
    out
}
