//! Fluent's forward protocol, as fluentd, Fluent Bit and the fluent-logger libraries speak it.
//!
//! A chunk is acknowledged once its records are durable; its id is an idempotency key, so that one that comes again
//! because its acknowledgement was lost is not stored twice. What has no chunk id is not acknowledged: then TCP alone
//! holds the sender back. The port answers UDP heartbeats, too.
//!
//! Source: fluentd wiki, Forward Protocol Specification v1.

mod message;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use signal::time::SharedClock;
use signal::{Checkpoint, Identity, LogBatch, LogStream, Sink, SinkError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::answer::MOST_BYTES;
use crate::metrics::{accepted, received, refused};
use crate::sender::{self, Senders};
use message::{Message, Scanner};

const RECEIVER: &str = "fluent";
/// Connections at once; more wait.
const CONNECTIONS: usize = 512;

/// What a connection needs.
#[derive(Clone)]
pub struct Fluent {
    sink: Arc<dyn Sink>,
    senders: Senders,
    clock: SharedClock,
}

impl Fluent {
    pub fn new(sink: Arc<dyn Sink>, senders: Senders, clock: SharedClock) -> Self {
        Fluent { sink, senders, clock }
    }
}

/// Serves until `stop`; `heartbeats` is the UDP socket of the same port.
pub async fn serve(fluent: Fluent, listener: TcpListener, heartbeats: UdpSocket, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut beat = [0; 64];
    loop {
        let (place, stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            r = heartbeats.recv_from(&mut beat) => {
                if let Ok((n, from)) = r
                    && fluent.senders.identify(from.ip()).is_some()
                    && let Err(e) = heartbeats.send_to(&beat[..n.min(1)], from).await
                {
                    tracing::debug!(error = %e, "a heartbeat was not answered");
                }
                continue;
            }
            c = crate::listen::accept(&listener, &places) => c,
        };
        let (fluent, stop) = (fluent.clone(), stop.clone());
        telemetry::task::spawn("fluent-connection", async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                r = fluent.connection(stream, peer) => if let Err(e) = r {
                    tracing::debug!(%peer, error = %e, "a Fluent connection ended");
                }
            }
        });
    }
}

impl Fluent {
    async fn connection(&self, mut stream: TcpStream, peer: SocketAddr) -> Result<(), String> {
        let Some(identity) = self.senders.identify(peer.ip()) else {
            refused(RECEIVER, "unknown_sender");
            return Err("the sender's address belongs to no pod of this cluster".to_owned());
        };
        let mut buffer = BytesMut::with_capacity(64 << 10);
        let mut scanner = Scanner::default();
        loop {
            while let Some(len) = scanner.end(&buffer).map_err(|e| bad(&e))? {
                let bytes = buffer.split_to(len);
                scanner = Scanner::default();
                received(RECEIVER, len);
                // A lone nil is a heartbeat.
                let Some(message) = message::parse(&bytes, self.clock.now()).map_err(|e| bad(&e))? else {
                    continue;
                };
                let chunk = message.chunk.clone();
                self.store(message, &identity).await?;
                if let Some(chunk) = chunk {
                    stream.write_all(&message::ack(&chunk)).await.map_err(|e| e.to_string())?;
                }
            }
            if buffer.len() > MOST_BYTES || scanner.wanted() > MOST_BYTES {
                return Err(bad(&format!("a message of more than {MOST_BYTES} bytes")));
            }
            if stream.read_buf(&mut buffer).await.map_err(|e| e.to_string())? == 0 {
                return Ok(());
            }
        }
    }

    /// Returns once the records are durable. While the store is overloaded or full the sender waits: nothing is read.
    async fn store(&self, message: Message, identity: &Identity) -> Result<(), String> {
        let service = sender::stream(identity, Some(&message.tag));
        let mut labels = service;
        labels.set("tag", &message.tag);
        let labels = labels.build();
        let n = message.records.len();
        if n == 0 {
            return Ok(());
        }
        let key =
            message.chunk.map(|c| Checkpoint { source: format!("{}fluent/{c}", crate::ONCE), position: 1 });
        let batch = LogBatch {
            streams: vec![LogStream { labels, records: message.records }],
            checkpoints: key.into_iter().collect(),
        };
        let mut delay = Duration::from_millis(100);
        loop {
            match self.sink.write_logs(batch.clone()).await {
                Ok(done) => {
                    accepted(RECEIVER, "logs", n - done.rejected.min(n));
                    return Ok(());
                }
                Err(e @ (SinkError::Invalid(_) | SinkError::Closed)) => {
                    refused(RECEIVER, "sink");
                    return Err(e.to_string());
                }
                Err(e) => {
                    refused(RECEIVER, "sink");
                    tracing::warn!(error = %e, "Fluent records are not stored yet; their sender waits");
                    let pause = match e {
                        SinkError::Overloaded { retry_after, .. } => retry_after,
                        _ => delay,
                    };
                    tokio::time::sleep(pause).await;
                    delay = (delay * 2).min(Duration::from_secs(5));
                }
            }
        }
    }
}

fn bad(why: &str) -> String {
    refused(RECEIVER, "bad_request");
    why.to_owned()
}

/// For `fuzz`: reads bytes as messages.
#[doc(hidden)]
pub fn decode(mut bytes: &[u8]) -> usize {
    let mut n = 0;
    while let Ok(Some(len)) = Scanner::default().end(bytes) {
        if let Ok(Some(m)) = message::parse(&bytes[..len], signal::Timestamp(1)) {
            n += m.records.len();
        }
        bytes = &bytes[len..];
    }
    n
}

#[cfg(test)]
mod tests;
