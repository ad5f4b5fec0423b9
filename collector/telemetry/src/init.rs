//! Installs the process's subscriber, and later connects it to a sink.

use std::io::IsTerminal;
use std::sync::Arc;

use opentelemetry_sdk::trace::SdkTracerProvider;
use parking_lot::Mutex;
use signal::{Labels, Sink, time::SharedClock};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::layer::LogLayer;
use crate::ship::{self, Item, Queue};
use crate::{propagation, spans, task};

/// How the process tells of itself.
#[derive(Clone)]
pub struct Config {
    /// What goes to stderr, in `tracing` filter syntax such as `info,kubelet=debug`.
    pub stderr_filter: String,
    /// What goes to the log index, in the same syntax.
    pub stored_filter: String,
    /// Identity of this process's own streams: `namespace`, `pod`, `node`, …
    pub identity: Labels,
    pub clock: SharedClock,
}

/// The installed subscriber's far end.
pub struct Telemetry {
    items: Mutex<Option<mpsc::Receiver<Item>>>,
    identity: Labels,
    stop: watch::Sender<bool>,
    shipper: Mutex<Option<JoinHandle<()>>>,
    _provider: SdkTracerProvider,
}

/// Crates whose spans are stored: ours. Those of the HTTP stack repeat what ours say.
const OURS: [&str; 16] = [
    "apiserver",
    "autoscaler",
    "client",
    "collector",
    "controllers",
    "dashboards",
    "discovery",
    "kubelet",
    "log_index",
    "network",
    "binnacle",
    "query",
    "scheduler",
    "sql",
    "store",
    "tsdb",
];

/// Installs the subscriber of this process. Call once. Errors: a filter that does not parse, or a second call.
pub fn init(config: Config) -> Result<Telemetry, String> {
    let (queue, items) = Queue::new();
    let provider =
        SdkTracerProvider::builder().with_span_processor(spans::Processor { queue: queue.clone() }).build();
    let filter = |s: &str| s.parse::<EnvFilter>().map_err(|e| format!("log filter {s:?}: {e}"));
    let stderr = fmt::layer()
        .with_writer(std::io::stderr)
        .event_format(crate::line::Line { color: std::io::stderr().is_terminal() })
        .with_filter(filter(&config.stderr_filter)?);
    let stored = LogLayer { queue, clock: config.clock }.with_filter(filter(&config.stored_filter)?);
    let traced = tracing_opentelemetry::layer()
        .with_tracer(propagation::tracer(&provider))
        .with_target(true)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(|m| {
            *m.level() <= tracing::Level::INFO
                && m.target().split("::").next().is_some_and(|c| OURS.contains(&c))
        }));
    tracing_subscriber::registry()
        .with(traced)
        .with(stored)
        .with(stderr)
        .try_init()
        .map_err(|e| format!("telemetry is installed already: {e}"))?;
    Ok(Telemetry {
        items: Mutex::new(Some(items)),
        identity: config.identity,
        stop: watch::Sender::new(false),
        shipper: Mutex::new(None),
        _provider: provider,
    })
}

impl Telemetry {
    /// Connects the queue to `sink`. What was emitted before waits in the queue. A second call changes nothing.
    pub fn connect(&self, sink: Arc<dyn Sink>) {
        if let Some(items) = self.items.lock().take() {
            let run = ship::run(items, sink, self.identity.clone(), self.stop.subscribe());
            *self.shipper.lock() = Some(task::spawn("telemetry-ship", run));
        }
    }

    /// Stores what is queued and ends the shipper.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        let shipper = self.shipper.lock().take();
        if let Some(handle) = shipper
            && let Err(e) = handle.await
        {
            tracing::error!(error = %e, "telemetry shipper ended badly");
        }
    }
}
