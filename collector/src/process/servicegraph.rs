//! Requests between services: a client's span and the server's span below it are one edge (names as Tempo's
//! metrics-generator has them): `traces_service_graph_request_total`, `_failed_total`, `_server_seconds`,
//! `_client_seconds`, with the labels `client`, `server`, `connection_type`, and the namespaces of both.
//!
//! Halves wait for each other for ten seconds. A client's half that nobody answered leads to the peer it names (a
//! database, a service that sends no spans); a server's that nobody called and that has no parent comes from `user`.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use signal::{Labels, MetricBatch, SpanBatch, SpanId, SpanKind, SpanStatus, Timestamp, TraceId};

use super::histogram::{Histogram, counter};
use crate::metrics::dropped;

/// Halves that wait.
const WAITING: usize = 20_000;
const WAIT: Duration = Duration::from_secs(10);
const MOST_EDGES: usize = 5_000;
/// An edge without requests for so long ends.
const IDLE: Duration = Duration::from_secs(15 * 60);

/// One side of a request.
pub(super) struct Half {
    trace: TraceId,
    /// The client's span.
    span: SpanId,
    server: bool,
    service: String,
    namespace: String,
    seconds: f64,
    failed: bool,
    connection: &'static str,
    /// For a client: whom it called, by its own word. For a server: whether somebody called it.
    peer: Option<String>,
    root: bool,
}

/// The halves of a batch.
pub(super) fn halves(batch: &SpanBatch) -> Vec<Half> {
    let mut out = Vec::new();
    for stream in &batch.streams {
        let label = |n: &str| stream.labels.get(n).unwrap_or_default().to_owned();
        for s in &stream.spans {
            let server = match s.kind {
                SpanKind::Client | SpanKind::Producer => false,
                SpanKind::Server | SpanKind::Consumer => true,
                SpanKind::Internal | SpanKind::Unspecified => continue,
            };
            let text = |n: &str| s.attributes.get_str(n).filter(|v| !v.is_empty());
            let database = text("db.system").or_else(|| text("db.system.name")).or_else(|| text("db.name"));
            let connection = match s.kind {
                SpanKind::Producer | SpanKind::Consumer => "messaging_system",
                _ if database.is_some() => "database",
                _ => "",
            };
            out.push(Half {
                trace: s.trace_id,
                span: if server { s.parent_span_id } else { s.span_id },
                server,
                service: label("service_name"),
                namespace: label("namespace"),
                seconds: s.end.since(s.start).as_secs_f64(),
                failed: matches!(s.status, SpanStatus::Error(_)),
                connection,
                peer: text("peer.service").or_else(|| text("db.name")).or(database).map(str::to_owned),
                root: server && !s.parent_span_id.is_valid(),
            });
        }
    }
    out
}

#[derive(Default)]
pub(super) struct ServiceGraph(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: HashMap<(TraceId, SpanId), (Half, Timestamp)>,
    edges: HashMap<EdgeKey, Edge>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct EdgeKey {
    client: String,
    client_namespace: String,
    server: String,
    namespace: String,
    connection: &'static str,
}

struct Edge {
    requests: u64,
    failed: u64,
    server: Histogram,
    client: Histogram,
    last: Timestamp,
    begun: bool,
}

impl ServiceGraph {
    pub(super) fn add(&self, halves: Vec<Half>, now: Timestamp) {
        let mut state = self.0.lock();
        for half in halves {
            if half.root {
                let user = half.with_peer("user");
                state.edge(&user, &half, now);
                continue;
            }
            let key = (half.trace, half.span);
            match state.waiting.remove(&key) {
                Some((other, _)) if other.server != half.server => {
                    let (client, server) = if half.server { (&other, &half) } else { (&half, &other) };
                    state.edge(client, server, now);
                }
                other => {
                    if let Some(other) = other {
                        // Twice the same side: the batch came again.
                        state.waiting.insert(key, other);
                    } else if state.waiting.len() < WAITING {
                        state.waiting.insert(key, (half, now));
                    } else {
                        dropped("service_graph_waiting", 1);
                    }
                }
            }
        }
    }

    /// Adds all edges, and decides about halves that waited for too long.
    pub(super) fn collect(&self, now: Timestamp, batch: &mut MetricBatch) {
        let mut state = self.0.lock();
        let late: Vec<Half> = state
            .waiting
            .extract_if(|_, (_, since)| now.since(*since) >= WAIT)
            .map(|(_, (half, _))| half)
            .collect();
        for half in late {
            match &half.peer {
                Some(peer) if !half.server => {
                    let server = half.with_peer(peer);
                    state.edge(&half, &server, now);
                }
                _ => dropped("service_graph_unpaired", 1),
            }
        }
        let millis = now.millis();
        state.edges.retain(|key, e| {
            let labels = Labels::from_pairs([
                ("client", key.client.as_str()),
                ("client_namespace", &key.client_namespace),
                ("server", &key.server),
                ("namespace", &key.namespace),
                ("connection_type", key.connection),
            ]);
            let from = batch.series.len();
            if !e.begun {
                e.begun = true;
                counter("traces_service_graph_request_total", &labels, millis - 1, 0, batch);
                counter("traces_service_graph_request_failed_total", &labels, millis - 1, 0, batch);
            }
            counter("traces_service_graph_request_total", &labels, millis, e.requests, batch);
            counter("traces_service_graph_request_failed_total", &labels, millis, e.failed, batch);
            e.server.write("traces_service_graph_request_server_seconds", &labels, millis, batch);
            e.client.write("traces_service_graph_request_client_seconds", &labels, millis, batch);
            let ends = now.since(e.last) > IDLE;
            if ends {
                for series in &mut batch.series[from..] {
                    series.samples.iter_mut().for_each(|s| s.value = signal::stale_nan());
                }
            }
            !ends
        });
    }
}

impl Half {
    /// The other side, of which only the name is known; it took as long as this one saw.
    fn with_peer(&self, name: &str) -> Half {
        let connection = if self.connection.is_empty() { "virtual_node" } else { self.connection };
        Half {
            trace: self.trace,
            span: self.span,
            server: !self.server,
            service: name.to_owned(),
            // A database is its client's; a user is nobody's.
            namespace: if self.server { String::new() } else { self.namespace.clone() },
            seconds: self.seconds,
            failed: self.failed,
            connection,
            peer: None,
            root: false,
        }
    }
}

impl State {
    fn edge(&mut self, client: &Half, server: &Half, now: Timestamp) {
        let key = EdgeKey {
            client: client.service.clone(),
            client_namespace: client.namespace.clone(),
            server: server.service.clone(),
            namespace: server.namespace.clone(),
            connection: if client.connection.is_empty() { server.connection } else { client.connection },
        };
        if !self.edges.contains_key(&key) && self.edges.len() >= MOST_EDGES {
            dropped("service_graph_edges", 1);
            return;
        }
        let e = self.edges.entry(key).or_insert_with(|| Edge {
            requests: 0,
            failed: 0,
            server: Histogram::default(),
            client: Histogram::default(),
            last: now,
            begun: false,
        });
        e.requests += 1;
        e.failed += u64::from(client.failed || server.failed);
        e.server.add(server.seconds, server.trace, now.millis());
        e.client.add(client.seconds, client.trace, now.millis());
        e.last = now;
    }
}
