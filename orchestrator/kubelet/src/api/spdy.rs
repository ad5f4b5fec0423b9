//! A SPDY/3.1 connection's server side: streams that the client opens, bytes both ways.
//!
//! Two tasks per connection: one reads frames and hands data to streams, one writes what all streams send. A
//! stream that nobody reads holds the connection up, as TCP would. Flow control is left to TCP: client-go
//! knows no other.

mod frame;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::{Sink, SinkExt};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use frame::{Head, HeaderReader};

/// Streams of one connection at once.
const MAX_STREAMS: usize = 512;
/// Frames and pieces of data that wait.
const QUEUE: usize = 16;
/// Data is handed on in pieces of at most this.
const CHUNK: usize = 32 << 10;
/// Control frames are small.
const MAX_CONTROL: usize = 64 << 10;
const REFUSED: u32 = 3;
const CANCEL: u32 = 5;

/// A stream that the client opened.
pub(super) struct Stream {
    headers: Vec<(String, String)>,
    /// What the client sends; ends with its end.
    pub(super) input: mpsc::Receiver<Bytes>,
    pub(super) output: Output,
}

/// The way back to the client.
#[derive(Clone)]
pub(super) struct Output {
    id: u32,
    frames: mpsc::Sender<Bytes>,
    /// The client wants nothing more of this stream, or is gone.
    pub(super) reset: CancellationToken,
    /// While it lives, the reader knows the stream.
    _held: Arc<()>,
}

/// A connection.
pub(super) struct Session {
    streams: mpsc::Receiver<Stream>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Stream {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }
}

impl Output {
    /// False if the client is gone.
    pub(super) async fn send(&self, data: &[u8]) -> bool {
        for piece in data.chunks(CHUNK) {
            if self.frames.send(frame::data(self.id, false, piece)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Ends our half.
    pub(super) async fn end(&self) {
        // A client that is gone needs no end.
        let _gone = self.frames.send(frame::data(self.id, true, &[])).await;
    }

    /// Ends both halves at once.
    pub(super) async fn cancel(&self) {
        let _gone = self.frames.send(frame::rst_stream(self.id, CANCEL)).await;
    }
}

impl Session {
    pub(super) fn start<R, W>(read: R, write: W) -> Session
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: Sink<Bytes> + Unpin + Send + 'static,
        W::Error: std::fmt::Display + Send,
    {
        let (frames, queue) = mpsc::channel(QUEUE);
        let (accept, streams) = mpsc::channel(QUEUE);
        Session {
            streams,
            reader: telemetry::task::spawn("spdy-reader", async move {
                match (Reader { read, frames, accept, open: HashMap::new() }).run().await {
                    Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => {
                        tracing::debug!(error = %e, "a SPDY connection ended");
                    }
                    _ => {}
                }
            }),
            writer: telemetry::task::spawn("spdy-writer", write_all(write, queue)),
        }
    }

    /// The next stream; `None` when the client is gone.
    pub(super) async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Waits until the client has gone, but not for ever; all outputs must be dropped before.
    pub(super) async fn finish(self, within: std::time::Duration) {
        let Session { streams, mut reader, writer } = self;
        drop(streams);
        if tokio::time::timeout(within, &mut reader).await.is_err() {
            reader.abort();
        }
        if let Err(e) = writer.await {
            tracing::debug!(error = %e, "ending a SPDY connection");
        }
    }
}

async fn write_all<W>(mut write: W, mut queue: mpsc::Receiver<Bytes>)
where
    W: Sink<Bytes> + Unpin,
    W::Error: std::fmt::Display,
{
    while let Some(f) = queue.recv().await {
        if let Err(e) = write.send(f).await {
            // The queue closes, and with it everything that sends.
            return tracing::debug!(error = %e, "a SPDY client is gone");
        }
    }
    // The other side may have closed first.
    let _closed = write.close().await;
}

struct Reader<R> {
    read: R,
    frames: mpsc::Sender<Bytes>,
    accept: mpsc::Sender<Stream>,
    open: HashMap<u32, Open>,
}

struct Open {
    /// `None`: the client has ended its half.
    input: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
    held: Weak<()>,
}

impl<R> Drop for Reader<R> {
    fn drop(&mut self) {
        self.open.values().for_each(|o| o.reset.cancel());
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(mut self) -> io::Result<()> {
        let mut headers = HeaderReader::new();
        let mut replied = false;
        loop {
            let mut head = [0; frame::HEAD];
            self.read.read_exact(&mut head).await?;
            match Head::parse(head).ok_or_else(|| broken("not SPDY/3.1"))? {
                Head::Data { stream, fin, length } => self.data(stream, fin, length).await?,
                Head::Control { length, .. } if length > MAX_CONTROL => {
                    return Err(broken("a control frame is too long"));
                }
                Head::Control { kind, flags, length } => {
                    let mut body = vec![0; length];
                    self.read.read_exact(&mut body).await?;
                    let id = body.first_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b));
                    match kind {
                        frame::SYN_STREAM => {
                            let block = body.get(10..).ok_or_else(|| broken("a torn frame"))?;
                            let found = headers.read(block).ok_or_else(|| broken("headers are broken"))?;
                            replied |= self.syn_stream(id, frame::is_fin(flags), found, !replied).await?;
                        }
                        frame::HEADERS => {
                            // Nobody asks for them, but they move the compression on.
                            let block = body.get(4..).ok_or_else(|| broken("a torn frame"))?;
                            headers.read(block).ok_or_else(|| broken("headers are broken"))?;
                        }
                        frame::RST_STREAM => {
                            if let Some(o) = self.open.remove(&id) {
                                o.reset.cancel();
                            }
                        }
                        frame::PING if id % 2 == 1 => self.send(frame::ping(id)).await?,
                        frame::GOAWAY => return Ok(()),
                        _ => {}
                    }
                }
            }
        }
    }

    async fn send(&mut self, f: Bytes) -> io::Result<()> {
        self.frames.send(f).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Opens a stream and says so; false if it was refused.
    async fn syn_stream(
        &mut self,
        id: u32,
        fin: bool,
        headers: Vec<(String, String)>,
        first: bool,
    ) -> io::Result<bool> {
        // Streams whose handler has gone are no longer counted.
        self.open.retain(|_, o| o.held.strong_count() > 0);
        let room = self.open.len() < MAX_STREAMS;
        let Entry::Vacant(slot) = self.open.entry(id) else {
            return Err(broken("a stream was opened twice"));
        };
        if !room {
            self.send(frame::rst_stream(id, REFUSED)).await?;
            return Ok(false);
        }
        let (sender, input) = mpsc::channel(QUEUE);
        let (reset, held) = (CancellationToken::new(), Arc::new(()));
        slot.insert(Open {
            input: (!fin).then_some(sender),
            reset: reset.clone(),
            held: Arc::downgrade(&held),
        });
        self.send(frame::syn_reply(id, first)).await?;
        let output = Output { id, frames: self.frames.clone(), reset, _held: held };
        let opened = self.accept.send(Stream { headers, input, output }).await;
        opened.map(|()| true).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn data(&mut self, stream: u32, fin: bool, mut length: usize) -> io::Result<()> {
        while length > 0 {
            let mut piece = vec![0; length.min(CHUNK)];
            self.read.read_exact(&mut piece).await?;
            length -= piece.len();
            if let Some(input) = self.open.get(&stream).and_then(|o| o.input.as_ref()) {
                // Whoever read this stream may have had enough.
                let _unread = input.send(piece.into()).await;
            }
        }
        if fin && let Some(o) = self.open.get_mut(&stream) {
            o.input = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio_util::codec::{BytesCodec, FramedWrite};

    /// A client's SYN_STREAM with one header, stored.
    fn syn(id: u32, first: bool, name: &str, value: &str) -> Vec<u8> {
        let mut headers = 1u32.to_be_bytes().to_vec();
        for t in [name, value] {
            headers.extend_from_slice(&(t.len() as u32).to_be_bytes());
            headers.extend_from_slice(t.as_bytes());
        }
        let n = headers.len() as u16;
        let mut body = [id.to_be_bytes(), [0; 4]].concat();
        body.extend_from_slice(&[0, 0]);
        if first {
            body.extend_from_slice(&[0x78, 0x01]);
        }
        body.push(0);
        body.extend_from_slice(&n.to_le_bytes());
        body.extend_from_slice(&(!n).to_le_bytes());
        body.extend_from_slice(&headers);
        body.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
        let mut out = vec![0x80, 3, 0, 1];
        out.extend_from_slice(&(body.len() as u32).to_be_bytes());
        out.extend_from_slice(&body);
        out
    }

    #[tokio::test]
    async fn streams_carry_bytes_both_ways_and_end() {
        let (client, server) = tokio::io::duplex(1 << 16);
        let (read, write) = tokio::io::split(server);
        let mut session = Session::start(read, FramedWrite::new(write, BytesCodec::new()));
        let (mut from, mut to) = tokio::io::split(client);
        to.write_all(&syn(1, true, "streamtype", "data")).await.expect("written");
        to.write_all(&frame::data(1, true, b"hello")).await.expect("written");
        to.write_all(&syn(3, false, "streamtype", "error")).await.expect("written");
        let mut s = session.accept().await.expect("a stream");
        assert_eq!(s.header("streamtype"), "data");
        assert_eq!(s.input.recv().await.as_deref(), Some(&b"hello"[..]));
        assert_eq!(s.input.recv().await, None);
        let other = session.accept().await.expect("another stream");
        assert_eq!(other.header("streamtype"), "error");
        assert!(s.output.send(b"world").await);
        s.output.end().await;
        to.write_all(&frame::rst_stream(3, CANCEL)).await.expect("written");
        other.output.reset.cancelled().await;
        drop((s, other));
        to.shutdown().await.expect("closed");
        session.finish(Duration::from_secs(5)).await;
        let mut all = Vec::new();
        from.read_to_end(&mut all).await.expect("read");
        let expect = [
            &frame::syn_reply(1, true)[..],
            &frame::syn_reply(3, false),
            &frame::data(1, false, b"world"),
            &frame::data(1, true, b""),
        ];
        assert_eq!(all, expect.concat());
    }

    #[tokio::test]
    async fn what_is_not_spdy_ends_the_connection() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let (read, write) = tokio::io::split(server);
        let mut session = Session::start(read, FramedWrite::new(write, BytesCodec::new()));
        client.write_all(&[0xff; 64]).await.expect("written");
        assert!(session.accept().await.is_none());
    }
}
