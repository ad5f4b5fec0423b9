//! Syslog over UDP and TCP: RFC 5424 and RFC 3164, TCP framed by length (RFC 6587) or by newline, each connection
//! as it comes.
//!
//! Syslog has no acknowledgements. Over TCP a sender is held back while the store is: nothing is read, so nothing is
//! lost that a sender with a queue of its own keeps. Over UDP what finds no place in the queue is counted and lost.

mod frame;
mod message;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use signal::time::SharedClock;
use signal::{Identity, LogBatch, Sink, SinkError};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::metrics::{accepted, received, refused};
use crate::sender::Senders;
use frame::Frames;

const TCP: &str = "syslog_tcp";
const UDP: &str = "syslog_udp";
const CONNECTIONS: usize = 512;
/// Datagrams that wait for the store, at 64 KiB each at most.
const WAITING: usize = 4096;
/// Datagrams stored at once.
const GROUP: usize = 1024;
/// Read from a connection before its messages are stored.
const CHUNK: usize = 256 << 10;

/// What a connection needs.
#[derive(Clone)]
pub struct Syslog {
    sink: Arc<dyn Sink>,
    senders: Senders,
    clock: SharedClock,
}

impl Syslog {
    pub fn new(sink: Arc<dyn Sink>, senders: Senders, clock: SharedClock) -> Self {
        Syslog { sink, senders, clock }
    }
}

/// Serves TCP until `stop`.
pub async fn serve_tcp(syslog: Syslog, listener: TcpListener, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let (place, stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            c = crate::listen::accept(&listener, &places) => c,
        };
        let (syslog, stop) = (syslog.clone(), stop.clone());
        telemetry::task::spawn("syslog-connection", async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                r = syslog.connection(stream, peer) => if let Err(e) = r {
                    tracing::debug!(%peer, error = %e, "a syslog connection ended");
                }
            }
        });
    }
}

/// Serves UDP until `stop`.
pub async fn serve_udp(syslog: Syslog, socket: UdpSocket, stop: CancellationToken) {
    // Bursts wait in the kernel; the machine may allow less.
    if let Err(e) = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20) {
        tracing::debug!(error = %e, "the UDP receive buffer stays as it is");
    }
    let (tx, rx) = mpsc::channel(WAITING);
    let writer = syslog.clone();
    telemetry::task::spawn("syslog-udp-writer", writer.write_datagrams(rx));
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (n, peer) = tokio::select! {
            () = stop.cancelled() => return,
            r = socket.recv_from(&mut buffer) => match r {
                Ok(got) => got,
                Err(e) => {
                    tracing::debug!(error = %e, "a datagram was not received");
                    continue;
                }
            },
        };
        received(UDP, n);
        let Some(identity) = syslog.senders.identify(peer.ip()) else {
            refused(UDP, "unknown_sender");
            continue;
        };
        if tx.try_send((buffer[..n].to_vec(), identity)).is_err() {
            refused(UDP, "queue_full");
        }
    }
}

impl Syslog {
    async fn connection(&self, mut stream: TcpStream, peer: SocketAddr) -> Result<(), String> {
        let Some(identity) = self.senders.identify(peer.ip()) else {
            refused(TCP, "unknown_sender");
            return Err("the sender's address belongs to no pod of this cluster".to_owned());
        };
        let mut frames = Frames::default();
        let mut buffer = BytesMut::with_capacity(CHUNK);
        loop {
            let n = stream.read_buf(&mut buffer).await.map_err(|e| e.to_string())?;
            received(TCP, n);
            let mut messages = message::Messages::new(&identity);
            let now = self.clock.now();
            let read = frames.read(&mut buffer, n == 0, |m| messages.add(m, now));
            // What came before a wrong frame is stored all the same.
            self.store(messages.batch(), TCP).await?;
            read.inspect_err(|_| refused(TCP, "bad_request"))?;
            if n == 0 {
                return Ok(());
            }
            buffer.reserve(CHUNK);
        }
    }

    async fn write_datagrams(self, mut rx: mpsc::Receiver<(Vec<u8>, Arc<Identity>)>) {
        let mut group = Vec::with_capacity(GROUP);
        while rx.recv_many(&mut group, GROUP).await > 0 {
            let now = self.clock.now();
            let mut batch = LogBatch::default();
            // Few senders fill a group mostly.
            group.sort_by_key(|(_, i): &(Vec<u8>, Arc<Identity>)| Arc::as_ptr(i) as usize);
            for of_one in group.chunk_by(|a, b| Arc::ptr_eq(&a.1, &b.1)) {
                let mut messages = message::Messages::new(&of_one[0].1);
                of_one.iter().for_each(|(m, _)| messages.add(m, now));
                batch.streams.extend(messages.batch().streams);
            }
            group.clear();
            if let Err(e) = self.store(batch, UDP).await {
                tracing::warn!(error = %e, "syslog messages were lost");
            }
        }
    }

    /// Returns once the records are durable. An error says that they never will be.
    async fn store(&self, batch: LogBatch, receiver: &'static str) -> Result<(), String> {
        let n = batch.records();
        if n == 0 {
            return Ok(());
        }
        let mut delay = Duration::from_millis(100);
        loop {
            let pause = match self.sink.write_logs(batch.clone()).await {
                Ok(done) => {
                    accepted(receiver, "logs", n - done.rejected.min(n));
                    return Ok(());
                }
                Err(e @ (SinkError::Invalid(_) | SinkError::Closed)) => {
                    refused(receiver, "sink");
                    return Err(e.to_string());
                }
                Err(SinkError::Overloaded { retry_after, .. }) => retry_after,
                Err(e) => {
                    tracing::warn!(error = %e, "syslog messages are not stored yet");
                    delay
                }
            };
            refused(receiver, "sink");
            tokio::time::sleep(pause).await;
            delay = (delay * 2).min(Duration::from_secs(5));
        }
    }
}

/// For `fuzz`: reads bytes as a connection's.
#[doc(hidden)]
pub fn decode(bytes: &[u8]) -> usize {
    let identity = Identity::default();
    let mut messages = message::Messages::new(&identity);
    let mut buffer = BytesMut::from(bytes);
    // What is wrong is refused; what came before it counts.
    drop(Frames::default().read(&mut buffer, true, |m| messages.add(m, signal::Timestamp(1))));
    messages.batch().records()
}

#[cfg(test)]
mod tests;
