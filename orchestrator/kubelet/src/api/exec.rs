//! `exec` and `attach`: a container's streams for a client, which comes by WebSocket or by SPDY.
//!
//! Channels: 0 stdin, 1 stdout, 2 stderr, 3 the end as a Status, 4 terminal size; 255 closes a channel (v5 only).
//! Source: kubernetes: staging/src/k8s.io/apimachinery/pkg/util/remotecommand.

mod remote;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::query::Query;
use super::{Shared, refuse};
use crate::logs::{Progress, Query as LogQuery, Reader};
use crate::runtime::{Exec, ExecIo, Runtime, State as ContainerState};
use crate::worker::find_container;
use remote::{Input, Inputs, Output, STDERR, STDOUT, Wanted};

const CHUNK: usize = 32 << 10;

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

pub(super) async fn serve_exec(
    State(shared): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(raw): RawQuery,
    request: Request<Body>,
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
    let wanted = Wanted::of(&q);
    remote::open(request, wanted, move |out, inputs| async move {
        match shared.node.runtime.exec(&record.id, command, wanted.stdin, wanted.tty).await {
            Ok((exec, io)) => run(exec, io, inputs, &out).await,
            Err(e) => failure(&format!("Internal error occurred: {e}")),
        }
    })
    .await
}

/// Copies a stream of the process to a channel until its end; false if the client is gone.
async fn copy(mut from: impl AsyncRead + Unpin, channel: u8, out: &Output) -> bool {
    let mut buf = vec![0; CHUNK];
    loop {
        match from.read(&mut buf).await {
            Ok(0) => return true,
            Ok(n) => {
                if !out.send(channel, &buf[..n]).await {
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

async fn run(exec: Exec, io: ExecIo, mut inputs: Inputs, out: &Output) -> Value {
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
        while let Some(input) = inputs.recv().await {
            match input {
                Input::Data(data) => {
                    if let Some(s) = &mut stdin
                        && s.write_all(&data).await.is_err()
                    {
                        stdin = None;
                    }
                }
                Input::End => {
                    stdin = None;
                    exec.close_stdin().await;
                }
                Input::Size { width, height } => {
                    if let Err(e) = exec.resize(width, height).await {
                        tracing::debug!(error = %e, "resizing a terminal");
                    }
                }
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
    request: Request<Body>,
) -> Response {
    let q = Query::parse(raw.as_deref());
    let record = match shared.record(&namespace, &pod, &container, false) {
        Ok(r) => r,
        Err(response) => return response,
    };
    if !matches!(record.state, ContainerState::Running { .. }) {
        return refuse(StatusCode::BAD_REQUEST, format!("container {container} is not running"));
    }
    let wanted = Wanted::of(&q);
    let stdin = match wanted.stdin.then(|| shared.node.runtime.stdin(&record.identity)) {
        None => None,
        Some(Ok(s)) => Some(s),
        Some(Err(_)) => {
            let text = format!("container {container} was started without stdin");
            return refuse(StatusCode::BAD_REQUEST, text);
        }
    };
    let pod = shared.pods.find(&namespace, &pod);
    let once = pod.is_some_and(|p| {
        find_container(&p, &container).is_some_and(|c| c.stdin.is_some() && c.stdin_once == Some(true))
    });
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
    remote::open(request, wanted, move |out, inputs| async move {
        let (runtime, close) = (shared.node.runtime.clone(), once && stdin.is_some());
        tokio::select! {
            () = follow(stdout, stderr, progress, &out) => {}
            () = feed(&runtime, &record.id, stdin, inputs) => {}
        }
        if close {
            // Nobody else will send anything: the process sees the end of its input.
            runtime.close_stdin(&record.id).await;
        }
        success()
    })
    .await
}

/// Hands on what an attached client types and the size of its window, until it is gone.
async fn feed(runtime: &Runtime, id: &str, mut stdin: Option<pipe::Sender>, mut inputs: Inputs) {
    while let Some(input) = inputs.recv().await {
        match input {
            Input::Data(data) => {
                if let Some(s) = &mut stdin
                    && let Err(e) = s.write_all(&data).await
                {
                    tracing::debug!(error = %e, "writing to a container's input");
                    stdin = None;
                }
            }
            Input::End => {
                if stdin.take().is_some() {
                    runtime.close_stdin(id).await;
                }
            }
            Input::Size { width, height } => {
                if let Err(e) = runtime.resize(id, width, height).await {
                    tracing::debug!(error = %e, "resizing a terminal");
                }
            }
        }
    }
}

/// Sends what a container writes from now on, until it ends.
async fn follow(stdout: Reader, stderr: Reader, progress: Option<watch::Receiver<Progress>>, out: &Output) {
    let Some(mut progress) = progress else { return };
    let mut readers = [(STDOUT, stdout), (STDERR, stderr)];
    loop {
        let ended = progress.borrow_and_update().ended;
        for (channel, reader) in &mut readers {
            while let Ok(Some(data)) = reader.read() {
                if data.is_empty() {
                    break;
                }
                if !out.send(*channel, &data).await {
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
