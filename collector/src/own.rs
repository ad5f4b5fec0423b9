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
