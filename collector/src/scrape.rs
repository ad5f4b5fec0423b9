//! Scrapes targets: one task per target of the registry.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use signal::time::SharedClock;
use signal::{
    Exemplar, HistogramSample, HistogramSeries, Labels, METRIC_NAME, MetricBatch, Registry, ScrapeTarget,
    Sink, StartTimes, stale_nan,
};
use tokio_util::sync::CancellationToken;

use crate::exposition::{Example, Exposition, Format, parse, protobuf};
use crate::metrics::{accepted, refused};

/// Largest exposition taken; Prometheus has no default limit, a node has 24 GiB for everything.
const MOST_BYTES: usize = 32 << 20;
/// Samples taken from one scrape.
const MOST_SAMPLES: usize = 200_000;
/// Protobuf first, because only it has native histograms.
const ACCEPT: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
    application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

type Http = Client<HttpConnector, Empty<Bytes>>;

/// What is known of a target's last scrape, for `/api/v1/targets`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetHealth {
    pub up: bool,
    pub last_error: String,
    /// Milliseconds since the Unix epoch.
    pub last_scrape: i64,
    pub last_duration: Duration,
}

/// Scrapes whatever the registry holds until `stop`.
pub async fn run(
    targets: Arc<Registry<ScrapeTarget>>,
    health: Arc<Registry<TargetHealth>>,
    sink: Arc<dyn Sink>,
    clock: SharedClock,
    stop: CancellationToken,
) {
    let client: Http = Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .build(HttpConnector::new());
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
                target,
                client: client.clone(),
                sink: sink.clone(),
                clock: clock.clone(),
                health: health.clone(),
                seen: HashSet::new(),
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
    client: Http,
    sink: Arc<dyn Sink>,
    clock: SharedClock,
    health: Arc<Registry<TargetHealth>>,
    /// Series of the last scrape: those that vanish get a stale marker.
    seen: HashSet<Labels>,
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
        let mut batch = MetricBatch::default();
        let now = self.clock.now().millis();
        self.seen.drain().for_each(|labels| batch.push(labels, now, stale_nan()));
        self.write(batch).await;
    }

    async fn scrape(&mut self) {
        let now = self.clock.now().millis();
        let started = self.clock.monotonic();
        let result = match tokio::time::timeout(self.target.timeout, self.fetch()).await {
            Ok(r) => r,
            Err(_) => Err(format!("no answer within {:?}", self.target.timeout)),
        };
        let duration = self.clock.monotonic() - started;
        let (exposition, error) = match result {
            Ok(e) => (e, String::new()),
            Err(e) => (Exposition::default(), e),
        };
        let mut batch = MetricBatch { metadata: exposition.metadata, ..MetricBatch::default() };
        let mut seen = HashSet::with_capacity(exposition.samples.len() + 4);
        let scraped = exposition.samples.len() + exposition.histograms.len();
        for s in exposition.samples {
            let labels = with_target_labels(&s.labels, &self.target.labels);
            if s.timestamp.is_none() {
                seen.insert(labels.clone());
            }
            let timestamp = s.timestamp.unwrap_or(now);
            if s.start != 0 {
                batch.starts.push(StartTimes { labels: labels.clone(), times: vec![(timestamp, s.start)] });
            }
            batch.exemplars.extend(s.example.map(|e| exemplar(&labels, &e, timestamp)));
            batch.push(labels, timestamp, s.value);
        }
        for h in exposition.histograms {
            let labels = with_target_labels(&h.labels, &self.target.labels);
            if h.timestamp.is_none() {
                seen.insert(labels.clone());
            }
            let timestamp = h.timestamp.unwrap_or(now);
            batch.exemplars.extend(h.examples.iter().map(|e| exemplar(&labels, e, timestamp)));
            let sample = HistogramSample { timestamp, start: h.start, histogram: h.histogram };
            batch.histograms.push(HistogramSeries { labels, samples: vec![sample] });
        }
        let up = error.is_empty();
        for (name, value) in [
            ("up", f64::from(u8::from(up))),
            ("scrape_duration_seconds", duration.as_secs_f64()),
            ("scrape_samples_scraped", scraped as f64),
        ] {
            let labels = self.target.labels.builder().set(METRIC_NAME, name).build();
            seen.insert(labels.clone());
            batch.push(labels, now, value);
        }
        for gone in self.seen.difference(&seen) {
            batch.push(gone.clone(), now, stale_nan());
        }
        self.seen = seen;
        let health = TargetHealth { up, last_error: error, last_scrape: now, last_duration: duration };
        self.health.set(&self.key, health);
        self.write(batch).await;
    }

    async fn fetch(&self) -> Result<Exposition, String> {
        let request = http::Request::get(&self.target.url)
            .header("accept", ACCEPT)
            .header("user-agent", concat!("binnacle/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|e| e.to_string())?;
        let response =
            self.client.request(request).await.map_err(|e| match std::error::Error::source(&e) {
                Some(cause) => format!("{e}: {cause}"),
                None => e.to_string(),
            })?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("server returned HTTP status {}", response.status()));
        }
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        let openmetrics = kind.starts_with("application/openmetrics-text");
        let is_protobuf = kind.starts_with("application/vnd.google.protobuf");
        let body =
            Limited::new(response.into_body(), MOST_BYTES).collect().await.map_err(|e| e.to_string())?;
        let bytes = body.to_bytes();
        let exposition = if is_protobuf {
            protobuf::parse(&bytes)?
        } else {
            let text = std::str::from_utf8(&bytes).map_err(|e| e.to_string())?;
            parse(text, if openmetrics { Format::OpenMetrics } else { Format::Text })
                .map_err(|e| e.to_string())?
        };
        let samples = exposition.samples.len() + exposition.histograms.len();
        if samples > MOST_SAMPLES {
            return Err(format!("{samples} samples, the limit is {MOST_SAMPLES}"));
        }
        Ok(exposition)
    }

    async fn write(&self, batch: MetricBatch) {
        let n = batch.samples();
        match self.sink.write_metrics(batch).await {
            Ok(_) => accepted("scrape", "metrics", n),
            Err(e) => {
                refused("scrape", "sink");
                tracing::warn!(target_url = %self.target.url, error = %e, "scraped samples were not stored");
            }
        }
    }
}

fn exemplar(series: &Labels, e: &Example, timestamp: i64) -> Exemplar {
    Exemplar {
        series: series.clone(),
        labels: Labels::from_pairs(e.labels.iter().map(|(n, v)| (n, v))),
        value: e.value,
        timestamp: e.timestamp.unwrap_or(timestamp),
    }
}

/// The target's labels win; what the payload says under the same name is kept as `exported_*`.
pub(crate) fn with_target_labels(sample: &[(String, String)], target: &Labels) -> Labels {
    let mut b = target.builder();
    for (name, value) in sample {
        if target.get(name).is_some() {
            b.set(&format!("exported_{name}"), value);
        } else {
            b.set(name, value);
        }
    }
    b.build()
}
