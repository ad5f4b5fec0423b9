//! A pod that is gone says nothing more: whatever series still bear its name are closed, whoever wrote them.
//!
//! What scrapes and measures a pod closes its own series. This is for what the pod pushed itself, by OTLP or remote
//! write, and nobody else knows the end of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Informer, Informers, Key};
use k8s_openapi::api::core::v1::Pod;
use signal::Matcher;
use signal::time::SharedClock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tsdb::Tsdb;

/// What was on its way when the pod went, and the last words of those who measured it, come first.
const GRACE: Duration = Duration::from_secs(15);
/// Pods that went and whose time has not come.
const QUEUE: usize = 4096;

pub(super) fn watch(metrics: Arc<Tsdb>, informers: &Informers, clock: SharedClock, stop: CancellationToken) {
    let pods = informers.of::<Pod>();
    let (went, queue) = mpsc::channel(QUEUE);
    let now = clock.clone();
    pods.on_change(move |c| {
        if c.new.is_none() {
            let key = Key::of(&**c.object());
            if let Err(e) = went.try_send((key, now.monotonic())) {
                tracing::warn!(error = %e, "the series of a pod that is gone are not closed at once");
            }
        }
    });
    telemetry::task::spawn("gone-pods", close(metrics, pods, queue, clock, stop));
}

async fn close(
    metrics: Arc<Tsdb>,
    pods: Informer<Pod>,
    mut queue: mpsc::Receiver<(Key, Instant)>,
    clock: SharedClock,
    stop: CancellationToken,
) {
    let next = async |queue: &mut mpsc::Receiver<(Key, Instant)>| {
        let (key, at) = queue.recv().await?;
        tokio::time::sleep(GRACE.saturating_sub(clock.monotonic().saturating_duration_since(at))).await;
        Some(key)
    };
    loop {
        let key = tokio::select! {
            () = stop.cancelled() => return,
            key = next(&mut queue) => key,
        };
        let Some(key) = key else { return };
        // Another of the same name may have taken its place, as a StatefulSet's does.
        if pods.get(&key).is_some() {
            continue;
        }
        let matchers = [Matcher::equal("namespace", &key.namespace), Matcher::equal("pod", &key.name)];
        match metrics.close_series(&matchers).await {
            Ok(0) => {}
            Ok(n) => tracing::debug!(pod = %key, series = n, "series of a pod that is gone were closed"),
            Err(e) => tracing::warn!(pod = %key, error = %e, "series of a pod that is gone were not closed"),
        }
    }
}
