//! Alerts to Alertmanagers, over their API v2: one bounded queue and one task for each of them, so that none waits
//! for another. What one does not take is not kept: a firing alert is sent again a minute later anyhow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde_json::{Value, json};
use signal::Labels;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::alert::Alert;
use crate::metrics::{METRICS, TargetLabel};
use crate::records::rfc3339;

/// Alerts that wait for one Alertmanager; when more come the oldest are dropped.
const QUEUE: usize = 10_000;
/// Alerts in one request.
const BATCH: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of a refusal.
const ANSWER: usize = 4096;

/// One Alertmanager.
struct Target {
    url: String,
    queue: Mutex<VecDeque<Arc<Value>>>,
    wake: Notify,
}

pub(crate) struct Notifier {
    targets: Vec<Arc<Target>>,
    external_labels: Labels,
}

/// Where an Alertmanager takes alerts.
fn endpoint(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.ends_with("/api/v2/alerts") { url.to_owned() } else { format!("{url}/api/v2/alerts") }
}

/// What an Alertmanager is told of an alert. `link` leads to its expression; times are milliseconds.
pub(crate) fn message(alert: &Alert, link: &str, valid_until: i64) -> Value {
    json!({
        "labels": alert.labels,
        "annotations": alert.annotations,
        "startsAt": rfc3339(alert.fired_at.unwrap_or(alert.active_at)),
        "endsAt": rfc3339(alert.resolved_at.unwrap_or(valid_until)),
        "generatorURL": link,
    })
}

impl Notifier {
    pub(crate) fn new(urls: &[String], external_labels: Labels) -> Notifier {
        let target = |url: &String| {
            Arc::new(Target { url: endpoint(url), queue: Mutex::default(), wake: Notify::new() })
        };
        Notifier { targets: urls.iter().map(target).collect(), external_labels }
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.targets.iter().map(|t| t.url.clone()).collect()
    }

    /// Hands alerts on; does not wait.
    pub(crate) fn send(&self, messages: Vec<Value>) {
        if self.targets.is_empty() || messages.is_empty() {
            return;
        }
        let complete = |mut m: Value| {
            for (n, v) in &self.external_labels {
                if m["labels"].get(n).is_none() {
                    m["labels"][n] = v.into();
                }
            }
            Arc::new(m)
        };
        let messages: Vec<Arc<Value>> = messages.into_iter().map(complete).collect();
        for t in &self.targets {
            let label = t.label();
            let mut queue = t.queue.lock();
            queue.extend(messages.iter().cloned());
            let over = queue.len().saturating_sub(QUEUE);
            queue.drain(..over);
            METRICS.dropped.get_or_create(&label).inc_by(over as u64);
            METRICS.queue.get_or_create(&label).set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
            drop(queue);
            t.wake.notify_one();
        }
    }

    /// Starts a task for each Alertmanager.
    pub(crate) fn start(&self, stop: &CancellationToken) {
        for t in &self.targets {
            telemetry::task::spawn("alertmanager", t.clone().run(stop.clone()));
        }
    }
}

impl Target {
    fn label(&self) -> TargetLabel {
        TargetLabel { alertmanager: self.url.clone() }
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let client: Client<HttpConnector, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let label = self.label();
        // Told once, until it works again.
        let mut failing = false;
        loop {
            let batch: Vec<Arc<Value>> = {
                let mut queue = self.queue.lock();
                let n = queue.len().min(BATCH);
                let batch = queue.drain(..n).collect();
                METRICS.queue.get_or_create(&label).set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
                batch
            };
            if batch.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.wake.notified() => continue,
                }
            }
            let sent = tokio::select! {
                () = stop.cancelled() => return,
                r = tokio::time::timeout(TIMEOUT, post(&client, &self.url, &batch)) => {
                    r.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
                }
            };
            match sent {
                Ok(()) => {
                    METRICS.sent.get_or_create(&label).inc_by(batch.len() as u64);
                    failing = false;
                }
                Err(e) => {
                    METRICS.send_errors.get_or_create(&label).inc();
                    METRICS.dropped.get_or_create(&label).inc_by(batch.len() as u64);
                    if !failing {
                        tracing::warn!(
                            alertmanager = self.url,
                            alerts = batch.len(),
                            error = e,
                            "alerts were not taken"
                        );
                    }
                    failing = true;
                }
            }
        }
    }
}

async fn post(
    client: &Client<HttpConnector, Full<Bytes>>,
    url: &str,
    batch: &[Arc<Value>],
) -> Result<(), String> {
    let body: Vec<&Value> = batch.iter().map(AsRef::as_ref).collect();
    let body = serde_json::to_vec(&body).map_err(|e| e.to_string())?;
    let request = http::Request::post(url)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| e.to_string())?;
    let response = client.request(request).await.map_err(|e| format!("{e:#}"))?;
    let status = response.status();
    // Read, so that the connection can be used again.
    let answer = Limited::new(response.into_body(), ANSWER).collect().await;
    if status.is_success() {
        return Ok(());
    }
    let text = answer.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
    Err(format!("HTTP {}: {}", status.as_u16(), text.trim()))
}

#[cfg(test)]
mod tests;
