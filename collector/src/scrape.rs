//! Scrapes targets: one task per target of the registry.

pub mod config;
pub(crate) mod fetch;
pub mod intake;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use signal::time::SharedClock;
use signal::{
    Labels, METRIC_NAME, MetricBatch, Registry, ScrapeProtocol, ScrapeTarget, ScrapeTls, Sink, stale_nan,
};
use tokio_util::sync::CancellationToken;

use self::fetch::{Fetched, Http, fetch};
use self::intake::{Body, Counts, Intake};
use crate::exposition::{Format, protobuf};
use crate::metrics::{accepted, refused};

/// Scrapes that are this little off their rhythm are written as if they were on it: then the timestamps of a series
/// are a rhythm too, and take no space (Prometheus: scrape/scrape.go, ScrapeTimestampTolerance).
const TOLERANCE_MS: i64 = 2;

/// What is known of a target's last scrape, for `/api/v1/targets`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetHealth {
    pub up: bool,
    pub last_error: String,
    /// Milliseconds since the Unix epoch.
    pub last_scrape: i64,
    pub last_duration: Duration,
}

/// Clients by how they look at certificates, so that targets share connections and authorities.
#[derive(Default)]
struct Clients(Vec<(ScrapeTls, bool, Result<Http, String>)>);

impl Clients {
    fn of(&mut self, target: &ScrapeTarget) -> Result<Http, String> {
        let (tls, secure) = (&target.options.http.tls, target.url.starts_with("https:"));
        if let Some((.., client)) = self.0.iter().find(|(t, s, _)| (t, *s) == (tls, secure)) {
            return client.clone();
        }
        let client = fetch::client(tls, secure);
        self.0.push((tls.clone(), secure, client.clone()));
        client
    }
}

/// Scrapes whatever the registry holds until `stop`.
pub async fn run(
    targets: Arc<Registry<ScrapeTarget>>,
    health: Arc<Registry<TargetHealth>>,
    sink: Arc<dyn Sink>,
    clock: SharedClock,
    stop: CancellationToken,
) {
    let mut clients = Clients::default();
    let mut changes = targets.changes();
    let mut running: BTreeMap<String, (ScrapeTarget, CancellationToken)> = BTreeMap::new();
    loop {
        let wanted: BTreeMap<String, ScrapeTarget> = targets.snapshot().into_iter().collect();
        running.retain(|key, (target, stop)| {
            let keep = wanted.get(key) == Some(target);
            if !keep {
                stop.cancel();
                health.remove(key);
            }
            keep
        });
        for (key, target) in wanted {
            if running.contains_key(&key) {
                continue;
            }
            let own = stop.child_token();
            running.insert(key.clone(), (target.clone(), own.clone()));
            let scraper = Scraper {
                key,
                client: clients.of(&target),
                intake: Intake::new(target.labels.clone(), target.options.clone()),
                target,
                sink: sink.clone(),
                clock: clock.clone(),
                health: health.clone(),
                aligned: None,
                reported: Vec::new(),
            };
            telemetry::task::spawn("scrape", scraper.run(own));
        }
        tokio::select! {
            () = stop.cancelled() => return,
            r = changes.changed() => if r.is_err() { return },
        }
    }
}

struct Scraper {
    key: String,
    target: ScrapeTarget,
    /// Or why there is none.
    client: Result<Http, String>,
    sink: Arc<dyn Sink>,
    clock: SharedClock,
    health: Arc<Registry<TargetHealth>>,
    intake: Intake,
    /// The time of the last scrape on the target's rhythm, in milliseconds.
    aligned: Option<i64>,
    /// `up` and its like, once they were written.
    reported: Vec<Labels>,
}

/// What a scrape came to, beside its samples.
#[derive(Default)]
struct Outcome {
    counts: Counts,
    bytes: usize,
    error: String,
}

impl Scraper {
    async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.target.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => self.scrape().await,
            }
        }
        // The target is gone: so are its series.
        let now = self.clock.now().millis();
        let mut batch = self.intake.end(now);
        self.reported.drain(..).for_each(|labels| batch.push(labels, now, stale_nan()));
        self.write(batch).await;
    }

    /// Now, or the time it should be if that is as good as now.
    fn time(&mut self) -> i64 {
        let now = self.clock.now().millis();
        let interval = i64::try_from(self.target.interval.as_millis()).unwrap_or(i64::MAX);
        let aligned = align(now, self.aligned, interval);
        self.aligned = Some(aligned.1);
        aligned.0
    }

    async fn scrape(&mut self) {
        let now = self.time();
        let started = self.clock.monotonic();
        let fetched = match (&self.client, &self.target.fault) {
            (_, Some(why)) => Err(why.clone()),
            (Err(why), None) => Err(why.clone()),
            (Ok(client), None) => {
                match tokio::time::timeout(self.target.timeout, fetch(client, &self.target)).await {
                    Ok(r) => r,
                    Err(_) => Err(format!("no answer within {:?}", self.target.timeout)),
                }
            }
        };
        let duration = self.clock.monotonic() - started;
        let mut outcome = Outcome::default();
        let batch = fetched.and_then(|f| {
            outcome.bytes = f.body.len();
            self.take(f, now, &mut outcome.counts)
        });
        let mut batch = batch.unwrap_or_else(|e| {
            outcome.error = e;
            self.intake.end(now)
        });
        self.report(&mut batch, now, duration, &outcome);
        let up = outcome.error.is_empty();
        let health =
            TargetHealth { up, last_error: outcome.error, last_scrape: now, last_duration: duration };
        self.health.set(&self.key, health);
        self.write(batch).await;
    }

    fn take(&mut self, f: Fetched, now: i64, counts: &mut Counts) -> Result<MetricBatch, String> {
        let text = |body| std::str::from_utf8(body).map_err(|e| e.to_string());
        let body = match f.protocol {
            ScrapeProtocol::Protobuf => Body::Protobuf(protobuf::parse(&f.body)?),
            ScrapeProtocol::OpenMetrics0 | ScrapeProtocol::OpenMetrics1 => {
                Body::Text(text(&f.body)?, Format::OpenMetrics)
            }
            ScrapeProtocol::Text => Body::Text(text(&f.body)?, Format::Text),
        };
        self.intake.take(body, now, counts)
    }

    /// What Prometheus says of each scrape.
    fn report(&mut self, batch: &mut MetricBatch, now: i64, duration: Duration, o: &Outcome) {
        let t = &self.target;
        let limit = t.options.limits.samples;
        let mut values = vec![
            ("up", f64::from(u8::from(o.error.is_empty()))),
            ("scrape_duration_seconds", duration.as_secs_f64()),
            ("scrape_samples_scraped", o.counts.scraped as f64),
            ("scrape_samples_post_metric_relabeling", o.counts.kept as f64),
            ("scrape_series_added", o.counts.added as f64),
        ];
        if t.options.extra_metrics {
            values.push(("scrape_timeout_seconds", t.timeout.as_secs_f64()));
            values.push(("scrape_sample_limit", limit as f64));
            values.push(("scrape_body_size_bytes", o.bytes as f64));
        }
        if self.reported.is_empty() {
            let labels = |name| t.labels.builder().set(METRIC_NAME, name).build();
            self.reported = values.iter().map(|(name, _)| labels(name)).collect();
        }
        for (labels, (_, value)) in self.reported.iter().zip(values) {
            batch.push(labels.clone(), now, value);
        }
    }

    async fn write(&self, batch: MetricBatch) {
        let n = batch.samples();
        match self.sink.write_metrics(batch).await {
            Ok(done) => {
                accepted("scrape", "metrics", n.saturating_sub(done.rejected));
                if let Some(reason) = done.reason.filter(|_| done.rejected > 0) {
                    refused("scrape", "samples");
                    tracing::debug!(target_url = %self.target.url, rejected = done.rejected, reason, "scraped samples were refused");
                }
            }
            Err(e) => {
                refused("scrape", "sink");
                tracing::warn!(target_url = %self.target.url, error = %e, "scraped samples were not stored");
            }
        }
    }
}

/// The timestamp to write, and the time on the rhythm that it belongs to. A clock that jumps begins a new rhythm.
fn align(now: i64, last: Option<i64>, interval: i64) -> (i64, i64) {
    let Some(last) = last.filter(|l| *l <= now && interval > 0) else { return (now, now) };
    let aligned = last + (now - last) / interval * interval;
    // A scrape may also be early: tokio's timers round to milliseconds, the wall clock does not.
    let aligned = if now - aligned > interval / 2 { aligned + interval } else { aligned };
    let tolerance = TOLERANCE_MS.min(interval / 100);
    if (now - aligned).abs() <= tolerance { (aligned, aligned) } else { (now, aligned) }
}

#[cfg(test)]
mod tests;
