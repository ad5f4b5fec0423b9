//! Cluster DNS: answers names of the cluster from the watched objects, and forwards all others.

mod forward;
mod zone;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::{RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use parking_lot::RwLock;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::metrics::{METRICS, Query};
use crate::{Config, Error};

pub(crate) use zone::{Answer, Zone};

/// Names in a row that lead to another name.
const MAX_ALIASES: usize = 8;

/// The zone in force; replaced as a whole.
pub(crate) struct SharedZone(RwLock<Arc<Zone>>);

impl SharedZone {
    pub(crate) fn new(domain: &str, dns_ip: Ipv4Addr) -> Self {
        SharedZone(RwLock::new(Arc::new(Zone::build([], [], domain, dns_ip))))
    }

    pub(crate) fn set(&self, zone: Zone) {
        *self.0.write() = Arc::new(zone);
    }

    fn get(&self) -> Arc<Zone> {
        self.0.read().clone()
    }
}

/// Listens on the cluster's DNS address, UDP and TCP, until the token's word.
pub(crate) async fn start(
    config: &Config,
    zone: Arc<SharedZone>,
    stop: CancellationToken,
) -> Result<(tokio::task::JoinHandle<()>, SocketAddr), Error> {
    let addr = SocketAddr::from((config.dns_ip, 53));
    let udp = UdpSocket::bind(addr).await.map_err(|source| Error::Dns { addr, source })?;
    let tcp = TcpListener::bind(addr).await.map_err(|source| Error::Dns { addr, source })?;
    let upstreams = if config.upstreams.is_empty() {
        forward::host_upstreams(config.dns_ip)
    } else {
        config.upstreams.clone()
    };
    let mut server = Server::new(Handler { zone, forward: forward::Forward::new(upstreams) });
    server.register_socket(udp);
    server.register_listener(tcp, Duration::from_secs(5), 16);
    let task = telemetry::task::spawn("cluster-dns", async move {
        stop.cancelled().await;
        if let Err(e) = server.shutdown_gracefully().await {
            tracing::warn!(error = %e, "stopping cluster DNS");
        }
    });
    Ok((task, addr))
}

struct Handler {
    zone: Arc<SharedZone>,
    forward: forward::Forward,
}

/// What goes back, before it is a message.
struct Reply {
    metadata: Metadata,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
    zone: &'static str,
}

impl Handler {
    /// Appends what the last answer's other name leads to: programs' resolvers do not ask again by themselves.
    async fn follow(&self, zone: &Zone, answers: &mut Vec<Record>, kind: RecordType) {
        if kind == RecordType::CNAME {
            return;
        }
        for _ in 0..MAX_ALIASES {
            let Some(RData::CNAME(target)) = answers.last().map(|r| r.data.clone()) else { return };
            match zone.answer(&target.0, kind) {
                Answer::Records { answers: more, .. } => answers.extend(more),
                Answer::NoData | Answer::NoName => return,
                Answer::Elsewhere => {
                    match self.forward.resolve(target.0, kind).await {
                        Ok(more) => answers.extend(more),
                        Err(e) => tracing::debug!(error = %e, "forwarding what an alias leads to"),
                    }
                    return;
                }
            }
        }
    }

    async fn reply(&self, request: &Request) -> Reply {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = true;
        let reply = |metadata, answers, authorities, additionals, zone| Reply {
            metadata,
            answers,
            authorities,
            additionals,
            zone,
        };
        let Ok(info) = request.request_info() else {
            metadata.response_code = ResponseCode::FormErr;
            return reply(metadata, vec![], vec![], vec![], "cluster");
        };
        let query = info.query;
        let zone = self.zone.get();
        let name = hickory_server::proto::rr::Name::from(query.name());
        match zone.answer(&name, query.query_type()) {
            Answer::Records { mut answers, additionals } => {
                metadata.authoritative = true;
                self.follow(&zone, &mut answers, query.query_type()).await;
                reply(metadata, answers, vec![], additionals, "cluster")
            }
            Answer::NoData => {
                metadata.authoritative = true;
                reply(metadata, vec![], vec![zone.soa()], vec![], "cluster")
            }
            Answer::NoName => {
                metadata.authoritative = true;
                metadata.response_code = ResponseCode::NXDomain;
                reply(metadata, vec![], vec![zone.soa()], vec![], "cluster")
            }
            Answer::Elsewhere => match self.forward.ask(request.as_slice()).await {
                Ok(m) => {
                    metadata.response_code = m.metadata.response_code;
                    metadata.truncation = m.metadata.truncation;
                    reply(metadata, m.answers, m.authorities, m.additionals, "forward")
                }
                Err(e) => {
                    tracing::debug!(error = %e, name = %query.name(), "forwarding a DNS query");
                    metadata.response_code = ResponseCode::ServFail;
                    reply(metadata, vec![], vec![], vec![], "forward")
                }
            },
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let started = signal::time::monotonic();
        let reply = self.reply(request).await;
        let kind = request.request_info().map_or("other", |i| type_label(i.query.query_type()));
        let labels =
            Query { r#type: kind, rcode: code_label(reply.metadata.response_code), zone: reply.zone };
        METRICS.dns_queries.get_or_create(&labels).inc();
        METRICS.dns_seconds.observe(signal::time::monotonic().duration_since(started).as_secs_f64());
        let message = MessageResponseBuilder::from_message_request(request).build(
            reply.metadata,
            reply.answers.iter(),
            reply.authorities.iter(),
            std::iter::empty(),
            reply.additionals.iter(),
        );
        match response.send_response(message).await {
            Ok(info) => info,
            Err(e) => {
                tracing::debug!(error = %e, "answering a DNS query");
                Header { metadata: reply.metadata, counts: HeaderCounts::default() }.into()
            }
        }
    }
}

fn type_label(t: RecordType) -> &'static str {
    match t {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::SRV => "SRV",
        RecordType::PTR => "PTR",
        RecordType::TXT => "TXT",
        _ => "other",
    }
}

fn code_label(c: ResponseCode) -> &'static str {
    match c {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::ServFail => "SERVFAIL",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
