//! Receivers of other protocols than OTLP: those behind authentication at the HTTP door, and those with an address of
//! their own, which are off unless the configuration names one.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use collector::Senders;
use collector::elastic::{self, Elastic};
use collector::fluent::{self, Fluent};
use collector::otlp::{Receiver, authenticated_router};
use collector::syslog::{self, Syslog};
use collector::zipkin::{self, Zipkin};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;

use super::Shared;
use super::directory::Receivers;
use super::engines::{Engines, listen};

/// What is served at the HTTP door, to whoever may write everywhere.
pub(super) fn authenticated(shared: &Shared, engines: &Engines, senders: &Senders, otlp: Receiver) -> Router {
    let elastic = Elastic::new(engines.intake.clone(), senders.clone(), shared.clock.clone());
    let zipkin = Zipkin::new(engines.intake.clone(), senders.clone(), shared.clock.clone());
    authenticated_router(otlp)
        .merge(elastic::router(elastic, "/elastic"))
        .nest("/zipkin", zipkin::router(zipkin))
}

/// Listens where the configuration says so; gives the addresses.
pub(super) async fn serve(
    shared: &Shared,
    engines: &Engines,
    senders: &Senders,
    threads: &Handle,
) -> Result<Receivers> {
    let wanted = shared.config.receivers;
    let (sink, clock) = (&engines.intake, &shared.clock);
    let mut bound = Receivers::default();
    if let Some((listener, at)) = tcp(wanted.elasticsearch, "--elasticsearch-addr").await? {
        bound.elasticsearch = Some(at);
        let elastic = Elastic::new(sink.clone(), senders.clone(), clock.clone());
        let served = elastic::serve(elastic, listener, shared.stop.clone());
        start(threads, "elasticsearch", async move {
            if let Err(e) = served.await {
                tracing::error!(error = %e, "the Elasticsearch receiver ended");
            }
        });
    }
    if let Some((listener, at)) = tcp(wanted.zipkin, "--zipkin-addr").await? {
        bound.zipkin = Some(at);
        let zipkin = Zipkin::new(sink.clone(), senders.clone(), clock.clone());
        let served = zipkin::serve(zipkin, listener, shared.stop.clone());
        start(threads, "zipkin", async move {
            if let Err(e) = served.await {
                tracing::error!(error = %e, "the Zipkin receiver ended");
            }
        });
    }
    if let Some((listener, at)) = tcp(wanted.fluent, "--fluent-addr").await? {
        bound.fluent = Some(at);
        let heartbeats = udp(at, "--fluent-addr").await?;
        let fluent = Fluent::new(sink.clone(), senders.clone(), clock.clone());
        start(threads, "fluent", fluent::serve(fluent, listener, heartbeats, shared.stop.clone()));
    }
    let syslog = Syslog::new(sink.clone(), senders.clone(), clock.clone());
    if let Some((listener, at)) = tcp(wanted.syslog_tcp, "--syslog-tcp-addr").await? {
        bound.syslog_tcp = Some(at);
        start(threads, "syslog-tcp", syslog::serve_tcp(syslog.clone(), listener, shared.stop.clone()));
    }
    if let Some(addr) = wanted.syslog_udp {
        let socket = udp(addr, "--syslog-udp-addr").await?;
        bound.syslog_udp = Some(socket.local_addr().context("the address of the syslog socket")?);
        start(threads, "syslog-udp", syslog::serve_udp(syslog, socket, shared.stop.clone()));
    }
    Ok(bound)
}

fn start(threads: &Handle, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    let _inside = threads.enter();
    telemetry::task::spawn(name, task);
}

async fn tcp(addr: Option<SocketAddr>, flag: &str) -> Result<Option<(TcpListener, SocketAddr)>> {
    let Some(addr) = addr else { return Ok(None) };
    let listener = listen(addr, flag).await?;
    let at = listener.local_addr().with_context(|| format!("the address of {flag}"))?;
    Ok(Some((listener, at)))
}

async fn udp(addr: SocketAddr, flag: &str) -> Result<UdpSocket> {
    UdpSocket::bind(addr).await.with_context(|| {
        format!("cannot listen on {addr} (UDP): end what uses it, or choose another address with {flag}")
    })
}
