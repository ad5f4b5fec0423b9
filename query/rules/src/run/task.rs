//! The life of one group: waits for its time, is evaluated off the async threads, tells of what changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use promql::Options;
use serde_json::Value as Json;
use signal::MetricBatch;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{Rules, Shown, label};
use crate::ground::Ground;
use crate::group::{Evaluated, Group, Restoring};
use crate::metrics::METRICS;
use crate::{notify, records, texts};

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

/// Runs a group until it is told to stop, then gives it back.
pub(super) async fn run(rules: Arc<Rules>, mut group: Group, view: Shown, stop: CancellationToken) -> Group {
    let interval = millis(group.interval).max(1);
    let label = label(&group.file, &group.spec.name);
    let mut slot = group.slot(rules.clock.now().millis()) + interval;
    let mut evaluations = 0u64;
    loop {
        let now = rules.clock.now().millis();
        if slot - now > interval {
            // The clock was set back.
            slot = group.slot(now) + interval;
        }
        let wait = Duration::from_millis(u64::try_from(slot - now).unwrap_or(0));
        tokio::select! {
            () = stop.cancelled() => return group,
            () = tokio::time::sleep(wait) => {}
        }
        // A group that comes late has missed the times between, not the last.
        let missed = ((rules.clock.now().millis() - slot) / interval - 1).max(0);
        slot += missed * interval;
        METRICS.missed.get_or_create(&label).inc_by(missed.unsigned_abs());
        METRICS.iterations.get_or_create(&label).inc_by(missed.unsigned_abs() + 1);
        let evaluated;
        (group, evaluated) = evaluate(&rules, group, slot, evaluations == 1, &stop).await;
        evaluations += 1;
        METRICS.evaluations.get_or_create(&label).inc_by(group.rules.len() as u64);
        METRICS.failures.get_or_create(&label).inc_by(evaluated.failures as u64);
        METRICS.samples.get_or_create(&label).set(i64::try_from(evaluated.samples).unwrap_or(i64::MAX));
        METRICS.duration.get_or_create(&label).set(group.took.as_secs_f64());
        METRICS.evaluated_at.get_or_create(&label).set(slot as f64 / 1000.0);
        *view.lock() = group.view();
        tell(&rules, &group, evaluated, slot).await;
        slot += interval;
    }
}

/// One evaluation. Behind the second one after a start it is looked up how long alerts had waited before: by then
/// what the rules read is there again.
async fn evaluate(
    rules: &Arc<Rules>,
    group: Group,
    slot: i64,
    restore: bool,
    stop: &CancellationToken,
) -> (Group, Evaluated) {
    let Ok(_place) = rules.places.acquire().await else { return (group, Evaluated::default()) };
    let cancel = Arc::new(AtomicBool::new(false));
    // Should the evaluation panic, the group begins anew.
    let (spec, file, interval) = (group.spec.clone(), group.file.clone(), rules.config.interval);
    let work = blocking(rules, cancel.clone(), group, move |group, ground, rules| {
        let evaluated = group.evaluate(ground, slot);
        if restore {
            let how = Restoring { outage: rules.config.outage, grace: rules.config.grace };
            group.restore(ground, rules.clock.now().millis(), how);
        }
        evaluated
    });
    let mut work = std::pin::pin!(work);
    let done = tokio::select! {
        () = stop.cancelled() => {
            cancel.store(true, Ordering::Relaxed);
            work.await
        }
        done = &mut work => done,
    };
    done.unwrap_or_else(|e| {
        tracing::error!(group = spec.name, error = %e, "an evaluation failed unexpectedly");
        (Group::new(spec, file, interval, true), Evaluated::default())
    })
}

/// Works on a group off the async threads.
async fn blocking<T: Send + 'static>(
    rules: &Arc<Rules>,
    cancel: Arc<AtomicBool>,
    mut group: Group,
    work: impl FnOnce(&mut Group, &Ground<'_>, &Rules) -> T + Send + 'static,
) -> Result<(Group, T), tokio::task::JoinError> {
    let rules = rules.clone();
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || {
        let ground = Ground {
            engine: &rules.engine,
            options: Options { cancel: Some(cancel), ..Options::default() },
            source: &*rules.samples,
            write: &|batch: MetricBatch| {
                handle.block_on(rules.sink.write_metrics(batch)).map_err(|e| e.to_string())
            },
            clock: &rules.clock,
            external_labels: &rules.external_labels,
            external_url: &rules.config.external_url,
            resend: rules.config.resend,
        };
        let done = work(&mut group, &ground, &rules);
        (group, done)
    })
    .await
}

/// Ends the series of a group that is gone.
pub(super) async fn end(rules: Arc<Rules>, group: Group, now: i64) {
    let never = Arc::new(AtomicBool::new(false));
    if let Err(e) = blocking(&rules, never, group, move |group, ground, _| group.end(ground, now)).await {
        tracing::error!(error = %e, "the series of a rule group were not ended");
    }
}

/// Tells Alertmanagers and the log index.
async fn tell(rules: &Rules, group: &Group, evaluated: Evaluated, now: i64) {
    let valid_until = now + 4 * millis(rules.config.resend.max(group.interval));
    let messages: Vec<Json> = evaluated
        .due
        .iter()
        .filter_map(|(i, alert)| {
            let link = texts::link(&group.rules.get(*i)?.query, 1);
            Some(notify::message(alert, &format!("{}{link}", rules.config.external_url), valid_until))
        })
        .collect();
    rules.notifier.send(messages);
    if evaluated.changes.is_empty() {
        return;
    }
    let batch = records::batch(&rules.config.node, group, &evaluated.changes, now);
    if let Err(e) = rules.sink.write_logs(batch).await {
        METRICS.unrecorded.inc_by(evaluated.changes.len() as u64);
        tracing::warn!(group = group.spec.name, error = %e, "changes of alerts were not recorded");
    }
}
