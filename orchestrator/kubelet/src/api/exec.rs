//! `exec` and `attach` over WebSocket: channel numbers in front of each binary message.
//!
//! 0 stdin, 1 stdout, 2 stderr, 3 the end as a Status, 4 terminal size; 255 closes a channel (v5 only).
//! Source: kubernetes: staging/src/k8s.io/apimachinery/pkg/util/remotecommand.

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use super::query::Query;
use super::{Shared, refuse};
use crate::logs::{Progress, Query as LogQuery, Reader};
use crate::runtime::{Exec, ExecIo, State as ContainerState};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
/// Messages that may wait for a slow client; the process blocks then.
const QUEUE: usize = 16;
const CHUNK: usize = 32 << 10;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u32,
    height: u32,
}

fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

fn failure(message: &str) -> Value {
    json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500})
}

fn exit_status(code: i32) -> Value {
    if code == 0 {
        return success();
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn frame(channel: u8, data: &[u8]) -> Message {
    let mut b = Vec::with_capacity(data.len() + 1);
    b.push(channel);
    b.extend_from_slice(data);
    Message::Binary(Bytes::from(b))
}

pub(super) async fn serve_exec(
    State(shared): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(raw): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let q = Query::parse(raw.as_deref());
    let record = match shared.record(&namespace, &pod, &container, false) {
        Ok(r) => r,
        Err(response) => return response,
    };
    if !matches!(record.state, ContainerState::Running { .. }) {
        return refuse(StatusCode::BAD_REQUEST, format!("container {container} is not running"));
    }
    let command = q.all("command");
    if command.is_empty() {
        return refuse(StatusCode::BAD_REQUEST, "you must specify at least 1 command for the container");
    }
    let (stdin, tty) = (q.is("stdin"), q.is("tty"));
    upgrade.protocols([V5, V4]).on_upgrade(move |socket| async move {
        let (out, input, writer) = split(socket);
        let last = match shared.node.runtime.exec(&record.id, command, stdin, tty).await {
            Ok((exec, io)) => run(exec, io, input, &out).await,
            Err(e) => failure(&format!("Internal error occurred: {e}")),
        };
        finish(out, writer, &last).await;
    })
}

/// Splits a socket: all output goes through one bounded queue.
fn split(socket: WebSocket) -> (mpsc::Sender<Message>, SplitStream<WebSocket>, tokio::task::JoinHandle<()>) {
    let (sink, input) = socket.split();
    let (out, queue) = mpsc::channel(QUEUE);
    (out, input, telemetry::task::spawn("exec-output", write(sink, queue)))
}

async fn write(mut sink: SplitSink<WebSocket, Message>, mut queue: mpsc::Receiver<Message>) {
    while let Some(m) = queue.recv().await {
        if sink.send(m).await.is_err() {
            // The client is gone: the queue closes, and the process' reader with it.
            return;
        }
    }
    // The other side may have closed first.
    let _closed = sink.close().await;
}

async fn finish(out: mpsc::Sender<Message>, writer: tokio::task::JoinHandle<()>, last: &Value) {
    let text = last.to_string();
    // A client that is gone needs no last word.
    let _sent = out.send(frame(ERROR, text.as_bytes())).await;
    // client-go takes an end without a status code for a broken connection.
    let end = CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() };
    let _closing = out.send(Message::Close(Some(end))).await;
    drop(out);
    if let Err(e) = writer.await {
        tracing::debug!(error = %e, "ending an exec");
    }
}

/// Copies a stream of the process to a channel until its end; false if the client is gone.
async fn copy(mut from: impl AsyncRead + Unpin, channel: u8, out: &mpsc::Sender<Message>) -> bool {
    let mut buf = vec![0; CHUNK];
    loop {
        match from.read(&mut buf).await {
            Ok(0) => return true,
            Ok(n) => {
                if out.send(frame(channel, &buf[..n])).await.is_err() {
                    return false;
                }
            }
            Err(e) => {
                tracing::debug!(error = %e, "reading a process' output");
                return true;
            }
        }
    }
}

async fn run(
    exec: Exec,
    io: ExecIo,
    mut input: SplitStream<WebSocket>,
    out: &mpsc::Sender<Message>,
) -> Value {
    let ExecIo { mut stdin, stdout, stderr } = io;
    let output = async {
        let errors = async {
            match stderr {
                Some(e) => copy(e, STDERR, out).await,
                None => true,
            }
        };
        let (a, b) = tokio::join!(copy(stdout, STDOUT, out), errors);
        a && b
    };
    let from_client = async {
        while let Some(Ok(message)) = input.next().await {
            let data: Bytes = match message {
                Message::Binary(b) => b,
                Message::Text(t) => t.into(),
                Message::Close(_) => return,
                _ => continue,
            };
            match data.split_first() {
                Some((&STDIN, rest)) => {
                    if let Some(s) = &mut stdin
                        && s.write_all(rest).await.is_err()
                    {
                        stdin = None;
                    }
                }
                Some((&RESIZE, rest)) => {
                    if let Ok(s) = serde_json::from_slice::<Size>(rest)
                        && let Err(e) = exec.resize(s.width, s.height).await
                    {
                        tracing::debug!(error = %e, "resizing a terminal");
                    }
                }
                Some((&CLOSE, [STDIN])) => {
                    stdin = None;
                    exec.close_stdin().await;
                }
                _ => {}
            }
        }
    };
    let connected = tokio::select! {
        connected = output => connected,
        () = from_client => false,
    };
    if !connected {
        // Nobody listens any more: the process must not stay behind.
        exec.kill().await;
    }
    let last = match exec.wait().await {
        Ok(code) => exit_status(code),
        Err(e) => failure(&e.to_string()),
    };
    exec.finish().await;
    last
}

pub(super) async fn serve_attach(
    State(shared): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(raw): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let q = Query::parse(raw.as_deref());
    let record = match shared.record(&namespace, &pod, &container, false) {
        Ok(r) => r,
        Err(response) => return response,
    };
    if q.is("stdin") {
        return refuse(StatusCode::BAD_REQUEST, format!("container {container} was started without stdin"));
    }
    let logs = shared.node.runtime.logs();
    let path = logs.path(&record.identity);
    let progress = logs.progress(&path);
    let open = |stream: &str| {
        Reader::open(
            &path,
            LogQuery { tail_lines: Some(0), stream: Some(stream.to_owned()), ..LogQuery::default() },
        )
    };
    let (Ok(stdout), Ok(stderr)) = (open("stdout"), open("stderr")) else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "opening the container's output");
    };
    upgrade.protocols([V5, V4]).on_upgrade(move |socket| async move {
        let (out, mut input, writer) = split(socket);
        let client_gone = async { while let Some(Ok(_)) = input.next().await {} };
        tokio::select! {
            () = follow(stdout, stderr, progress, &out) => {}
            () = client_gone => {}
        }
        finish(out, writer, &success()).await;
    })
}

/// Sends what a container writes from now on, until it ends.
async fn follow(
    stdout: Reader,
    stderr: Reader,
    progress: Option<watch::Receiver<Progress>>,
    out: &mpsc::Sender<Message>,
) {
    let Some(mut progress) = progress else { return };
    let mut readers = [(STDOUT, stdout), (STDERR, stderr)];
    loop {
        let ended = progress.borrow_and_update().ended;
        for (channel, reader) in &mut readers {
            while let Ok(Some(data)) = reader.read() {
                if data.is_empty() {
                    break;
                }
                if out.send(frame(*channel, &data)).await.is_err() {
                    return;
                }
            }
        }
        if ended || progress.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_carries_the_exit_code() {
        assert_eq!(exit_status(0)["status"], "Success");
        let s = exit_status(3);
        assert_eq!(
            (s["reason"].as_str(), s["details"]["causes"][0]["message"].as_str()),
            (Some("NonZeroExitCode"), Some("3"))
        );
    }
}
