//! The queue between who emits and the sink, and the task that empties it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family};
use signal::{
    Attributes, Labels, LogBatch, LogRecord, LogStream, Sink, SinkError, Span, SpanBatch, SpanStream,
};
use tokio::sync::{mpsc, watch};

use crate::layer::SHIPPING;

/// Events and spans waiting for the sink. At some 500 bytes each this bounds the queue at about 4 MB.
const QUEUE_ITEMS: usize = 8192;
/// Items written at once.
const BATCH_ITEMS: usize = 2048;
/// How long the first item of a batch waits for company: one fsync then serves them all.
const LINGER: Duration = Duration::from_millis(100);

pub(crate) enum Item {
    Log { component: String, record: LogRecord },
    Span { component: String, span: Span },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    signal: &'static str,
    reason: &'static str,
}

static DROPPED: LazyLock<Family<DropLabels, Counter>> = LazyLock::new(|| {
    let family = Family::<DropLabels, Counter>::default();
    crate::metrics::register(|r| {
        r.register(
            "binnacle_telemetry_dropped",
            "Own log records and spans that were not stored, by reason",
            family.clone(),
        );
    });
    family
});

#[derive(Clone, Debug)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Item>,
}

impl Queue {
    pub(crate) fn new() -> (Queue, mpsc::Receiver<Item>) {
        let (sender, receiver) = mpsc::channel(QUEUE_ITEMS);
        (Queue { sender }, receiver)
    }

    /// Never blocks: a full queue drops the item and counts it.
    pub(crate) fn send(&self, item: Item) {
        let signal = match &item {
            Item::Log { .. } => "logs",
            Item::Span { .. } => "traces",
        };
        if self.sender.try_send(item).is_err() {
            DROPPED.get_or_create(&DropLabels { signal, reason: "queue_full" }).inc();
        }
    }
}

/// Empties the queue into `sink` until `stop` says so, then once more. Early items waited in the queue.
pub(crate) async fn run(
    mut items: mpsc::Receiver<Item>,
    sink: Arc<dyn Sink>,
    identity: Labels,
    mut stop: watch::Receiver<bool>,
) {
    let work = async {
        let mut batch = Vec::with_capacity(64);
        loop {
            let stopping = *stop.borrow();
            if stopping {
                items.close();
            } else {
                tokio::select! {
                    n = items.recv_many(&mut batch, 1) => if n == 0 { return },
                    _ = stop.changed() => continue,
                }
                tokio::select! {
                    () = tokio::time::sleep(LINGER) => {}
                    _ = stop.changed() => {}
                }
            }
            while batch.len() < BATCH_ITEMS {
                match items.try_recv() {
                    Ok(item) => batch.push(item),
                    Err(_) => break,
                }
            }
            let last = stopping && batch.len() < BATCH_ITEMS;
            write(std::mem::take(&mut batch), &*sink, &identity).await;
            if last {
                return;
            }
        }
    };
    SHIPPING.scope((), work).await;
}

async fn write(items: Vec<Item>, sink: &dyn Sink, identity: &Labels) {
    let mut logs: BTreeMap<String, Vec<LogRecord>> = BTreeMap::new();
    let mut spans: BTreeMap<String, Vec<Span>> = BTreeMap::new();
    for item in items {
        match item {
            Item::Log { component, record } => logs.entry(component).or_default().push(record),
            Item::Span { component, span } => spans.entry(component).or_default().push(span),
        }
    }
    let labels = |component: &str| {
        identity.builder().set("component", component).set("service_name", component).build()
    };
    if !logs.is_empty() {
        let n = logs.values().map(Vec::len).sum();
        let streams =
            logs.into_iter().map(|(c, records)| LogStream { labels: labels(&c), records }).collect();
        let r = sink.write_logs(LogBatch { streams, checkpoints: Vec::new() }).await;
        count_failure("logs", n, r.map(|a| a.rejected));
    }
    if !spans.is_empty() {
        let n = spans.values().map(Vec::len).sum();
        let streams = spans
            .into_iter()
            .map(|(c, spans)| SpanStream { labels: labels(&c), resource: Attributes::default(), spans })
            .collect();
        count_failure("traces", n, sink.write_spans(SpanBatch { streams }).await.map(|a| a.rejected));
    }
}

/// Own telemetry is not retried: it would grow while the store is in trouble. The loss is counted.
fn count_failure(signal: &'static str, items: usize, result: Result<usize, SinkError>) {
    let (lost, reason) = match result {
        Ok(rejected) => (rejected, "rejected"),
        Err(SinkError::Overloaded { .. }) => (items, "overloaded"),
        Err(_) => (items, "storage"),
    };
    if lost > 0 {
        DROPPED.get_or_create(&DropLabels { signal, reason }).inc_by(lost as u64);
    }
}
