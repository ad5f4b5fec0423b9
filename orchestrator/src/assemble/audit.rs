//! Audit records go into the log index: the stream `{record="audit"}`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use apiserver::{Audit, AuditEvent, AuditPolicy};
use signal::{Attributes, Labels, LogBatch, LogRecord, LogStream, Severity};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Shared, SharedSink};

/// Records that wait to be written; more are dropped and counted.
const QUEUE: usize = 4096;
/// Records written at once.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const LINGER: Duration = Duration::from_millis(20);

/// What requests are judged by: a file's policy, or the usual one.
pub(crate) fn policy(file: Option<&Path>) -> Result<AuditPolicy> {
    let Some(path) = file else { return Ok(AuditPolicy::default()) };
    let value = crate::config::yaml_file(path)?;
    AuditPolicy::parse(&value)
        .map_err(|e| anyhow::anyhow!("{e}"))
        .with_context(|| format!("--audit-policy-file {}", path.display()))
}

/// Takes records and writes them down. The request that is told of does not wait.
pub(super) fn start(shared: &Shared, sink: SharedSink) -> Audit {
    let (send, receive) = mpsc::channel(QUEUE);
    telemetry::task::spawn(
        "audit",
        write(receive, sink, shared.config.node_name.clone(), shared.stop.clone()),
    );
    let take = move |event: AuditEvent| {
        if send.try_send(event).is_err() {
            apiserver::audit_dropped();
        }
    };
    Audit { policy: shared.config.audit_policy.clone(), sink: Arc::new(take) }
}

async fn write(
    mut receive: mpsc::Receiver<AuditEvent>,
    sink: SharedSink,
    node: String,
    stop: CancellationToken,
) {
    let mut waiting = Vec::with_capacity(BATCH);
    loop {
        let n = tokio::select! {
            n = receive.recv_many(&mut waiting, BATCH) => n,
            () = stop.cancelled() => {
                // What has come until now is still written.
                while waiting.len() < QUEUE && let Ok(event) = receive.try_recv() {
                    waiting.push(event);
                }
                waiting.len()
            }
        };
        if n == 0 {
            return;
        }
        if n < BATCH && !stop.is_cancelled() {
            // What comes a moment later is written with it.
            tokio::select! {
                () = tokio::time::sleep(LINGER) => {}
                () = stop.cancelled() => {}
            }
            while waiting.len() < BATCH
                && let Ok(event) = receive.try_recv()
            {
                waiting.push(event);
            }
        }
        let n = waiting.len();
        let mut streams: Vec<LogStream> = Vec::new();
        for event in waiting.drain(..) {
            let labels = Labels::from_pairs([
                ("record", "audit"),
                ("level", event.level.text()),
                ("component", "apiserver"),
                ("service_name", "apiserver"),
                ("node", &node),
            ]);
            let mut attributes = Attributes::default();
            for (name, value) in event.fields {
                attributes.set(name, value);
            }
            let record = LogRecord {
                timestamp: event.time,
                severity: Severity::INFO,
                body: event.body,
                attributes,
                ..LogRecord::default()
            };
            match streams.iter_mut().find(|s| s.labels == labels) {
                Some(s) => s.records.push(record),
                None => streams.push(LogStream { labels, records: vec![record] }),
            }
        }
        if let Err(e) = sink.write_logs(LogBatch { streams, checkpoints: Vec::new() }).await {
            for _ in 0..n {
                apiserver::audit_dropped();
            }
            tracing::warn!(error = %e, records = n, "audit records were not stored");
        }
    }
}
