//! `port-forward`: bytes between a client and a port inside a pod's network.
//!
//! kubectl opens two streams per connection, `error` and `data`, over SPDY, by itself or inside a WebSocket.
//! Other clients name the ports in the query and use two WebSocket channels per port, data and error.
//! Source: kubernetes: pkg/kubelet/cri-client streaming portforward.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use axum::extract::{Path, RawQuery, State};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::query::Query;
use super::spdy::{Session, Stream};
use super::upgrade::{self, Upgrade};
use super::{Shared, refuse};

const PLAIN: &str = "portforward.k8s.io";
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &str = "v4.channel.k8s.io";
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const FINISH_WITHIN: Duration = Duration::from_secs(5);
/// Streams that wait for the other half of their pair.
const MAX_HALVES: usize = 64;
/// Ports of one WebSocket.
const MAX_PORTS: usize = 32;
const CHUNK: usize = 32 << 10;
const QUEUE: usize = 16;

/// Where a pod's ports are, and how it is called in messages.
#[derive(Clone)]
struct Target {
    /// `None`: the pod uses the node's network.
    network: Option<PathBuf>,
    uid: String,
}

impl Target {
    /// Connects to a port on the pod's own loopback address.
    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let target = self.clone();
        let connected = tokio::task::spawn_blocking(move || match &target.network {
            None => dial(port),
            Some(path) => network::enter_network(path, || dial(port))?,
        });
        let stream = connected.await.map_err(io::Error::other)??;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        TcpStream::from_std(stream)
    }

    fn failure(&self, port: u16, e: &io::Error) -> String {
        format!(
            "error forwarding port {port} to pod {}, uid : failed to connect to localhost:{port} inside the pod's network: {e}",
            self.uid
        )
    }
}

fn dial(port: u16) -> io::Result<std::net::TcpStream> {
    let to = |ip: IpAddr| std::net::TcpStream::connect_timeout(&SocketAddr::new(ip, port), CONNECT_WITHIN);
    // What IPv4 says is what counts if neither answers.
    to(Ipv4Addr::LOCALHOST.into()).or_else(|e| to(Ipv6Addr::LOCALHOST.into()).map_err(|_| e))
}

pub(super) async fn serve(
    State(shared): State<Shared>,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(raw): RawQuery,
    request: Request<Body>,
) -> Response {
    let Some(pod) = shared.pods.find(&namespace, &name) else {
        return refuse(StatusCode::NOT_FOUND, format!("pod \"{name}\" not found"));
    };
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let on_host = pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true));
    let network = (!on_host).then(|| shared.node.network.config().netns_path(&uid));
    let target = Target { network, uid };
    match Upgrade::of(request).await {
        Err(refused) => refused,
        Ok(Upgrade::Spdy(request)) => upgrade::spdy(request, PLAIN, |session| forward(session, target)),
        Ok(Upgrade::WebSocket(socket)) => {
            let socket = socket.protocols([TUNNELLED, CHANNELS]);
            if socket.selected_protocol().is_some_and(|p| p == TUNNELLED) {
                return socket.on_upgrade(|s| forward(upgrade::tunnel(s), target));
            }
            let ports: Vec<u16> = Query::parse(raw.as_deref())
                .all("ports")
                .iter()
                .flat_map(|p| p.split(','))
                .filter_map(|p| p.parse().ok())
                .collect();
            if ports.is_empty() || ports.len() > MAX_PORTS {
                return refuse(StatusCode::BAD_REQUEST, "query parameter \"port\" is required");
            }
            socket.on_upgrade(move |s| channels(s, target, ports))
        }
    }
}

/// Serves a client's pairs of streams until it goes.
async fn forward(mut session: Session, target: Target) {
    let mut halves: HashMap<String, Stream> = HashMap::new();
    let mut running = JoinSet::new();
    while let Some(stream) = session.accept().await {
        // Done ones are not kept.
        while running.try_join_next().is_some() {}
        let known = matches!(stream.header("streamtype"), "error" | "data");
        let port = stream.header("port").parse::<u16>();
        let (true, Ok(port)) = (known, port) else {
            stream.output.cancel().await;
            continue;
        };
        let request = stream.header("requestid").to_owned();
        match halves.remove(&request) {
            Some(other) if other.header("streamtype") != stream.header("streamtype") => {
                let (data, error) =
                    if stream.header("streamtype") == "data" { (stream, other) } else { (other, stream) };
                running.spawn(pair(target.clone(), port, data, error));
            }
            None if halves.len() < MAX_HALVES => drop(halves.insert(request, stream)),
            _ => stream.output.cancel().await,
        }
    }
    drop(halves);
    running.shutdown().await;
    session.finish(FINISH_WITHIN).await;
}

/// One connection of the client.
async fn pair(target: Target, port: u16, data: Stream, error: Stream) {
    let reset = data.output.reset.clone();
    tokio::select! {
        copied = copy(&target, port, data) => {
            if let Err(e) = copied {
                error.output.send(target.failure(port, &e).as_bytes()).await;
            }
        }
        () = reset.cancelled() => {}
    }
    // kubectl reads this stream to its end before it forgets the connection.
    error.output.end().await;
}

async fn copy(target: &Target, port: u16, mut data: Stream) -> io::Result<()> {
    let connected = target.connect(port).await;
    let mut tcp = match connected {
        Ok(tcp) => tcp,
        Err(e) => {
            data.output.end().await;
            return Err(e);
        }
    };
    let (mut read, mut write) = tcp.split();
    let output = data.output.clone();
    let to_client = async {
        let mut buf = vec![0; CHUNK];
        loop {
            match read.read(&mut buf).await {
                Ok(n) if n > 0 && output.send(&buf[..n]).await => {}
                Ok(_) => break,
                Err(e) => {
                    tracing::debug!(error = %e, port, "reading from a pod's port");
                    break;
                }
            }
        }
        output.end().await;
    };
    let to_pod = async {
        while let Some(piece) = data.input.recv().await {
            if write.write_all(&piece).await.is_err() {
                // The pod closed; what it said before still goes to the client.
                return;
            }
        }
        let _closed = write.shutdown().await;
    };
    tokio::join!(to_client, to_pod);
    Ok(())
}

/// Two channels per port, data and error; each says its port first.
async fn channels(socket: WebSocket, target: Target, ports: Vec<u16>) {
    let (mut sink, mut stream) = socket.split();
    let (out, mut queue) = mpsc::channel::<Message>(QUEUE);
    let writer = telemetry::task::spawn("port-forward-output", async move {
        while let Some(m) = queue.recv().await {
            if sink.send(m).await.is_err() {
                return;
            }
        }
        let end = CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() };
        // The other side may have closed first.
        let _closing = sink.send(Message::Close(Some(end))).await;
    });
    let mut inputs = Vec::new();
    let mut running = JoinSet::new();
    for (i, port) in ports.into_iter().enumerate() {
        let (input, data) = mpsc::channel::<Bytes>(QUEUE);
        inputs.push(input);
        running.spawn(channel(target.clone(), port, i as u8 * 2, data, out.clone()));
    }
    drop(out);
    let gone = loop {
        tokio::select! {
            message = stream.next() => match message {
                Some(Ok(Message::Binary(b))) => {
                    if let Some((n, rest)) = b.split_first()
                        && n % 2 == 0
                        && let Some(input) = inputs.get(usize::from(n / 2))
                    {
                        // A port that is done takes no more.
                        let _done = input.send(b.slice_ref(rest)).await;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break true,
                Some(Ok(_)) => {}
            },
            done = running.join_next() => if done.is_none() {
                break false;
            },
        }
    };
    running.shutdown().await;
    if let Err(e) = writer.await {
        tracing::debug!(error = %e, "ending a port-forward");
    }
    // A socket that is closed with bytes unread is reset, and what the client has not read yet would be lost.
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    if !gone && tokio::time::timeout(FINISH_WITHIN, rest).await.is_err() {
        tracing::debug!("a client of a port-forward did not close");
    }
}

async fn channel(
    target: Target,
    port: u16,
    number: u8,
    mut input: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Message>,
) {
    let frame = |channel: u8, data: &[u8]| {
        let mut b = vec![channel];
        b.extend_from_slice(data);
        Message::Binary(b.into())
    };
    for c in [number, number + 1] {
        if out.send(frame(c, &port.to_le_bytes())).await.is_err() {
            return;
        }
    }
    let mut tcp = match target.connect(port).await {
        Ok(tcp) => tcp,
        Err(e) => {
            // A client that is gone needs no reason.
            let _gone = out.send(frame(number + 1, target.failure(port, &e).as_bytes())).await;
            return;
        }
    };
    let (mut read, mut write) = tcp.split();
    let to_client = async {
        let mut buf = vec![0; CHUNK];
        while let Ok(n @ 1..) = read.read(&mut buf).await {
            if out.send(frame(number, &buf[..n])).await.is_err() {
                return;
            }
        }
    };
    let to_pod = async {
        while let Some(piece) = input.recv().await {
            if write.write_all(&piece).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = to_client => {}
        () = to_pod => {}
    }
}
