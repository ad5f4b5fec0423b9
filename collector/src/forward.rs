//! Forwarding to another Binnacle, or to whoever else takes OTLP over HTTP: each endpoint with a queue on disk.
//!
//! What is stored here is queued for each endpoint before the sender is told so, and leaves in the order in which it
//! came, at least once: after a crash a segment that was partly sent is sent again. While an endpoint does not answer,
//! its queue grows to its bound; then the oldest go, and are counted. A queue that cannot be written never keeps
//! telemetry from being stored here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use prost::Message;
use serde::{Deserialize, Serialize};
use signal::{Accepted, LogBatch, MetricBatch, ScrapeTls, Sink, SinkError, SpanBatch};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wal::Wal;

use crate::encode;
use crate::metrics::{METRICS, dropped};

/// Batches that come within this time leave together.
const LINGER: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An answer's text, for the log.
const MOST_ANSWER: usize = 4 << 10;

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ForwardConfig {
    /// `http://HOST:PORT` or with a path: `/v1/logs` and the like are added. Another Binnacle's is
    /// `http://HOST:7070/otlp`, with its token, which lets labels through.
    pub endpoint: String,
    /// Names its queue; the endpoint itself if not given.
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default = "all")]
    pub signals: Vec<Signal>,
    /// The queue's bound on disk.
    #[serde(default = "gigabyte")]
    pub queue_bytes: u64,
}

/// What is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    Logs,
    Traces,
    Metrics,
}

fn all() -> Vec<Signal> {
    vec![Signal::Logs, Signal::Traces, Signal::Metrics]
}

fn gigabyte() -> u64 {
    1 << 30
}

impl Signal {
    fn number(self) -> u8 {
        match self {
            Signal::Logs => 1,
            Signal::Traces => 2,
            Signal::Metrics => 3,
        }
    }

    fn path(number: u8) -> Option<&'static str> {
        match number {
            1 => Some("/v1/logs"),
            2 => Some("/v1/traces"),
            3 => Some("/v1/metrics"),
            _ => None,
        }
    }
}

/// Why an endpoint cannot be forwarded to.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("forward: {endpoint:?}: {why}")]
    Endpoint { endpoint: String, why: String },
    #[error(transparent)]
    Queue(#[from] wal::Error),
}

/// An endpoint and its queue.
pub struct Forwarder {
    config: ForwardConfig,
    headers: Vec<(HeaderName, HeaderValue)>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    queue: Wal,
    queued: Notify,
}

impl Forwarder {
    /// Opens the queue below `dir`; what it holds is sent first.
    pub fn open(config: ForwardConfig, dir: &Path) -> Result<Arc<Forwarder>, ForwardError> {
        let bad = |why: String| ForwardError::Endpoint { endpoint: config.endpoint.clone(), why };
        let uri: Uri = config.endpoint.parse().map_err(|e: http::uri::InvalidUri| bad(e.to_string()))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("give http://HOST:PORT or https://HOST:PORT".to_owned())),
        };
        let mut headers = Vec::new();
        for (name, value) in &config.headers {
            let name: HeaderName = name.parse().map_err(|_| bad(format!("header {name:?}")))?;
            let value =
                HeaderValue::from_str(value).map_err(|_| bad(format!("the value of header {name}")))?;
            headers.push((name, value));
        }
        let client = crate::scrape::fetch::client(&ScrapeTls::default(), secure).map_err(bad)?;
        let name = config.name.as_deref().unwrap_or(&config.endpoint);
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let (queue, found) = Wal::open(
            wal::Config {
                segment_bytes: (config.queue_bytes / 16).clamp(64 << 10, 8 << 20),
                ..wal::Config::new(dir.join("forward").join(name))
            },
            |_, _| {},
        )?;
        let forwarder = Forwarder { config, headers, client, queue, queued: Notify::new() };
        if found.frames > 0 {
            forwarder.queued.notify_one();
        }
        Ok(Arc::new(forwarder))
    }

    fn wants(&self, signal: Signal) -> bool {
        self.config.signals.contains(&signal)
    }

    /// Returns once the message is in the queue, or lost to it.
    async fn enqueue(&self, signal: Signal, message: &[u8], items: usize) {
        if let Err(e) = self.queue.append(pack(signal, message)).await {
            dropped("forward_queue", items);
            tracing::warn!(endpoint = %self.config.endpoint, error = %e, "a batch is not forwarded: its queue cannot be written");
            return;
        }
        self.queued.notify_one();
    }

    /// Sends what is queued, in order, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.queued.notified() => {}
            }
            tokio::time::sleep(LINGER).await;
            tokio::select! {
                () = stop.cancelled() => return,
                r = self.drain() => if let Err(e) = r {
                    tracing::error!(endpoint = %self.config.endpoint, error = %e, "the queue cannot be read; trying again");
                    tokio::time::sleep(FIRST_PAUSE).await;
                    self.queued.notify_one();
                },
            }
        }
    }

    /// Everything that was queued when it began.
    async fn drain(self: &Arc<Self>) -> Result<(), wal::Error> {
        let open = self.queue.rotate().await?;
        loop {
            let Some(segment) = self.queue.segments()?.into_iter().find(|n| *n < open) else { return Ok(()) };
            let this = self.clone();
            let frames = tokio::task::spawn_blocking(move || this.queue.read(segment))
                .await
                .map_err(|e| wal::Error::Write(e.to_string()))??;
            for (n, frame) in frames.iter().enumerate() {
                if !self.deliver(frame, segment).await? {
                    dropped("forward_queue_full", frames.len() - n);
                    break;
                }
            }
            self.queue.delete_before(segment + 1).await?;
        }
    }

    /// Until it is taken, or refused for good. False if the queue is over its bound meanwhile and this is the oldest of
    /// it.
    async fn deliver(&self, frame: &Bytes, segment: u64) -> Result<bool, wal::Error> {
        let Some(path) = frame.first().and_then(|n| Signal::path(*n)) else { return Ok(true) };
        let mut pause = FIRST_PAUSE;
        loop {
            let (why, after) = match self.send(path, frame.slice(1..)).await {
                Ok(()) => {
                    METRICS.forwarded.inc();
                    return Ok(true);
                }
                Err(Refusal::Final(why)) => {
                    dropped("forward_refused", 1);
                    tracing::warn!(endpoint = %self.config.endpoint, path, why, "a batch was refused and is not sent again");
                    return Ok(true);
                }
                Err(Refusal::Later(why, after)) => (why, after),
            };
            if self.queue.stats().disk_bytes > self.config.queue_bytes {
                tracing::warn!(endpoint = %self.config.endpoint, segment, why, "the queue is full: its oldest batches are dropped");
                return Ok(false);
            }
            tracing::debug!(endpoint = %self.config.endpoint, why, "a batch was not taken; trying again");
            tokio::time::sleep(after.unwrap_or(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn send(&self, path: &str, body: Bytes) -> Result<(), Refusal> {
        let uri = format!("{}{path}", self.config.endpoint.trim_end_matches('/'));
        let mut request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::CONTENT_ENCODING, "gzip")
            .header(header::USER_AGENT, concat!("binnacle/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|e| Refusal::Final(e.to_string()))?;
        let answer = tokio::time::timeout(TIMEOUT, self.client.request(request))
            .await
            .map_err(|_| Refusal::Later("no answer in time".to_owned(), None))?
            .map_err(|e| Refusal::Later(e.to_string(), None))?;
        let status = answer.status();
        let after = answer.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        if status.is_success() {
            return Ok(());
        }
        let text = match Limited::new(answer.into_body(), MOST_ANSWER).collect().await {
            Ok(b) => String::from_utf8_lossy(&b.to_bytes()).into_owned(),
            Err(e) => format!("and its answer cannot be read: {e}"),
        };
        let why = format!("{status}: {text}");
        // What OTLP calls retryable, and what passes when somebody mends it: a token, a full disk.
        let later = [429, 502, 503, 504, 507, 401, 403].contains(&status.as_u16())
            || status == StatusCode::REQUEST_TIMEOUT;
        if later {
            Err(Refusal::Later(why, after.map(Duration::from_secs)))
        } else {
            Err(Refusal::Final(why))
        }
    }
}

enum Refusal {
    Final(String),
    Later(String, Option<Duration>),
}

/// The signal's number and the message, gzipped once for every attempt.
fn pack(signal: Signal, message: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = flate2::write::GzEncoder::new(vec![signal.number()], flate2::Compression::fast());
    out.write_all(message).expect("writing to memory does not fail");
    out.finish().expect("writing to memory does not fail")
}

/// Stores in one sink and queues for others.
pub struct Forwarding {
    next: Arc<dyn Sink>,
    to: Vec<Arc<Forwarder>>,
}

impl Forwarding {
    pub fn new(next: Arc<dyn Sink>, to: Vec<Arc<Forwarder>>) -> Self {
        Forwarding { next, to }
    }

    async fn queue(&self, signal: Signal, message: Option<Vec<u8>>, items: usize) {
        let Some(message) = message else { return };
        for f in self.to.iter().filter(|f| f.wants(signal)) {
            f.enqueue(signal, &message, items).await;
        }
    }

    fn encoded(&self, signal: Signal, encode: impl FnOnce() -> Vec<u8>) -> Option<Vec<u8>> {
        self.to.iter().any(|f| f.wants(signal)).then(encode)
    }
}

#[async_trait]
impl Sink for Forwarding {
    async fn write_metrics(&self, batch: MetricBatch) -> Result<Accepted, SinkError> {
        let message = self.encoded(Signal::Metrics, || encode::metrics(&batch).encode_to_vec());
        let done = self.next.write_metrics(batch).await?;
        self.queue(Signal::Metrics, message, done.accepted).await;
        Ok(done)
    }

    async fn write_logs(&self, batch: LogBatch) -> Result<Accepted, SinkError> {
        let message = self.encoded(Signal::Logs, || encode::logs(&batch).encode_to_vec());
        let done = self.next.write_logs(batch).await?;
        self.queue(Signal::Logs, message, done.accepted).await;
        Ok(done)
    }

    async fn write_spans(&self, batch: SpanBatch) -> Result<Accepted, SinkError> {
        let message = self.encoded(Signal::Traces, || encode::traces(&batch).encode_to_vec());
        let done = self.next.write_spans(batch).await?;
        self.queue(Signal::Traces, message, done.accepted).await;
        Ok(done)
    }
}

#[cfg(test)]
mod tests;
