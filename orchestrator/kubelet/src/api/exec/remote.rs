//! The client of an `exec` or `attach`: what it sends, and the ways back to it, whichever door it came by.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use axum::http::Request;
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::super::query::Query;
use super::super::spdy::{Output as SpdyOutput, Session, Stream};
use super::super::upgrade::{self, Upgrade};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
/// Messages that may wait for a slow client; the process blocks then.
const QUEUE: usize = 16;
/// A SPDY client opens its streams at once.
const STREAMS_WITHIN: Duration = Duration::from_secs(30);
/// How long a client gets to read the end and go.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Which streams a client asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) stdin: bool,
    stdout: bool,
    stderr: bool,
    pub(super) tty: bool,
}

impl Wanted {
    pub(super) fn of(q: &Query) -> Wanted {
        let tty = q.is("tty");
        // The API server and kubelets of upstream name these parameters differently.
        let either = |a: &str, b: &str| q.is(a) || q.is(b);
        Wanted {
            stdin: either("stdin", "input"),
            stdout: either("stdout", "output"),
            stderr: either("stderr", "error") && !tty,
            tty,
        }
    }

    /// The streams a SPDY client opens.
    fn streams(self) -> Vec<&'static str> {
        let optional =
            [("stdin", self.stdin), ("stdout", self.stdout), ("stderr", self.stderr), ("resize", self.tty)];
        std::iter::once("error").chain(optional.iter().filter(|(_, w)| *w).map(|(n, _)| *n)).collect()
    }
}

/// What a client sends.
pub(super) enum Input {
    Data(Bytes),
    /// No more data follows.
    End,
    Size {
        width: u32,
        height: u32,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u32,
    height: u32,
}

/// Ends when the client has gone.
pub(super) type Inputs = mpsc::Receiver<Input>;

/// The way back to the client.
#[derive(Clone)]
pub(super) enum Output {
    WebSocket(mpsc::Sender<Message>),
    Spdy(HashMap<u8, SpdyOutput>),
}

impl Output {
    /// False if the client is gone. What it did not ask for is dropped.
    pub(super) async fn send(&self, channel: u8, data: &[u8]) -> bool {
        match self {
            Output::WebSocket(out) => out.send(frame(channel, data)).await.is_ok(),
            Output::Spdy(streams) => match streams.get(&channel) {
                Some(s) => s.send(data).await,
                None => true,
            },
        }
    }
}

fn frame(channel: u8, data: &[u8]) -> Message {
    let mut b = Vec::with_capacity(data.len() + 1);
    b.push(channel);
    b.extend_from_slice(data);
    Message::Binary(Bytes::from(b))
}

fn size(data: &[u8]) -> Option<Input> {
    let s: Size = serde_json::from_slice(data).ok()?;
    Some(Input::Size { width: s.width, height: s.height })
}

/// Answers the request; `run` serves the client and gives its last word, a Status.
pub(super) async fn open<F>(
    request: Request<Body>,
    wanted: Wanted,
    run: impl FnOnce(Output, Inputs) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = Value> + Send + 'static,
{
    match Upgrade::of(request).await {
        Err(refused) => refused,
        Ok(Upgrade::WebSocket(u)) => u.protocols([V5, V4]).on_upgrade(move |socket| web_socket(socket, run)),
        Ok(Upgrade::Spdy(request)) => upgrade::spdy(request, V4, move |s| spdy(s, wanted, run)),
    }
}

async fn web_socket<F>(socket: WebSocket, run: impl FnOnce(Output, Inputs) -> F)
where
    F: Future<Output = Value>,
{
    let (mut sink, mut stream) = socket.split();
    let (out, mut queue) = mpsc::channel(QUEUE);
    let writer = telemetry::task::spawn("exec-output", async move {
        while let Some(m) = queue.recv().await {
            if sink.send(m).await.is_err() {
                // The client is gone: the queue closes, and the process' reader with it.
                return;
            }
        }
    });
    let (inputs, receiver) = mpsc::channel(QUEUE);
    let mut reader = telemetry::task::spawn("exec-input", async move {
        while let Some(Ok(message)) = stream.next().await {
            let data: Bytes = match message {
                Message::Binary(b) => b,
                Message::Text(t) => t.into(),
                Message::Close(_) => return,
                _ => continue,
            };
            let input = match data.split_first() {
                Some((&STDIN, _)) => Some(Input::Data(data.slice(1..))),
                Some((&RESIZE, rest)) => size(rest),
                Some((&CLOSE, [STDIN])) => Some(Input::End),
                _ => None,
            };
            if let Some(i) = input {
                // What comes after the end is read all the same: a socket that is closed with bytes unread is
                // reset, and the client would lose our last word.
                let _late = inputs.send(i).await;
            }
        }
    });
    let last = run(Output::WebSocket(out.clone()), receiver).await.to_string();
    // A client that is gone needs no last word.
    let _sent = out.send(frame(ERROR, last.as_bytes())).await;
    // client-go takes an end without a status code for a broken connection.
    let end = CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() };
    let _closing = out.send(Message::Close(Some(end))).await;
    drop(out);
    if let Err(e) = writer.await {
        tracing::debug!(error = %e, "ending an exec");
    }
    if tokio::time::timeout(FINISH_WITHIN, &mut reader).await.is_err() {
        reader.abort();
    }
}

async fn spdy<F>(mut session: Session, wanted: Wanted, run: impl FnOnce(Output, Inputs) -> F)
where
    F: Future<Output = Value>,
{
    let mut streams = HashMap::new();
    let names = wanted.streams();
    let collect = async {
        while streams.len() < names.len() {
            let Some(s) = session.accept().await else { return false };
            match names.iter().find(|n| **n == s.header("streamtype")) {
                Some(n) => drop(streams.insert(*n, s)),
                None => s.output.cancel().await,
            }
        }
        true
    };
    if !matches!(tokio::time::timeout(STREAMS_WITHIN, collect).await, Ok(true)) {
        tracing::debug!("a SPDY client did not open its streams");
        drop(streams);
        return session.finish(Duration::ZERO).await;
    }
    let (inputs, receiver) = mpsc::channel(QUEUE);
    let ways: Vec<SpdyOutput> = streams.values().map(|s| s.output.clone()).collect();
    let error = streams.remove("error").expect("all streams that are wanted were opened").output;
    let back = |name: &str| streams.get(name).map(|s| s.output.clone());
    let outputs = [(STDOUT, back("stdout")), (STDERR, back("stderr"))];
    let out = Output::Spdy(outputs.into_iter().filter_map(|(c, o)| Some((c, o?))).collect());
    if let Some(s) = streams.remove("stdin") {
        telemetry::task::spawn("exec-stdin", stdin(s, inputs.clone()));
    }
    if let Some(s) = streams.remove("resize") {
        telemetry::task::spawn("exec-resize", resize(s, inputs.clone()));
    }
    drop(streams);
    let reset = error.reset.clone();
    let guard = telemetry::task::spawn("exec-client", async move {
        // Inputs end when the client is gone, not when it has no more to say.
        reset.cancelled().await;
        drop(inputs);
    });
    let last = run(out, receiver).await.to_string();
    guard.abort();
    error.send(last.as_bytes()).await;
    for way in ways {
        way.end().await;
    }
    drop(error);
    session.finish(FINISH_WITHIN).await;
}

async fn stdin(mut stream: Stream, inputs: mpsc::Sender<Input>) {
    let reset = stream.output.reset.clone();
    while let Some(data) = stream.input.recv().await {
        if inputs.send(Input::Data(data)).await.is_err() {
            return;
        }
    }
    if !reset.is_cancelled() {
        let _over = inputs.send(Input::End).await;
    }
}

async fn resize(mut stream: Stream, inputs: mpsc::Sender<Input>) {
    while let Some(data) = stream.input.recv().await {
        if let Some(i) = size(&data)
            && inputs.send(i).await.is_err()
        {
            return;
        }
    }
}
