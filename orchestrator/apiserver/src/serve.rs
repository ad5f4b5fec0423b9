//! The door: TLS with our certificate, HTTP/1.1 and HTTP/2, client certificates if they are shown.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::authn::from_certificate;
use crate::dispatch::{self, PeerAddress};
use crate::error::Error;
use crate::metrics::auth;
use crate::pki::{Identity, Pki};
use crate::server::ApiServer;

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
const RENEW_EVERY: Duration = Duration::from_secs(86_400);
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
const IDLE_WITHIN: Duration = Duration::from_secs(90);
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// How long open requests get when the server stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

impl ApiServer {
    /// Answers on `listener` until `stop`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) -> Result<(), Error> {
        let io = |source| Error::Io { path: "API listener".to_owned(), source };
        let port = listener.local_addr().map_err(io)?.port();
        self.publish_endpoint(port).await?;
        let mut acceptor = TlsAcceptor::from(tls(&self.config.pki, &self.config.pki.apiserver)?);
        let mut looked = self.config.clock.monotonic();
        let router = dispatch::router(self.clone());
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let open = tokio_util::task::TaskTracker::new();
        loop {
            let slot = tokio::select! {
                () = stop.cancelled() => break,
                slot = slots.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
            };
            let (tcp, from) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(e) => {
                        // Out of file descriptors, most likely: connections that end free some.
                        tracing::warn!(error = %e, "accept failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            // A certificate ends while its server runs: it is looked at when somebody comes, once a day.
            let now = self.config.clock.monotonic();
            if now.saturating_duration_since(looked) >= RENEW_EVERY {
                looked = now;
                let pki = &self.config.pki;
                match pki.current_apiserver(self.now()).and_then(|identity| tls(pki, &identity)) {
                    Ok(config) => acceptor = TlsAcceptor::from(config),
                    Err(e) => tracing::warn!(error = %e, "the serving certificate could not be looked at"),
                }
            }
            let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
            let connection = open.track_future(async move {
                connection(tcp, PeerAddress(from.ip()), acceptor, router, stop).await;
                drop(slot);
            });
            telemetry::task::spawn("apiserver-connection", connection);
        }
        drop(listener);
        open.close();
        if tokio::time::timeout(DRAIN_WITHIN * 2, open.wait()).await.is_err() {
            tracing::info!("connections were still open when the API server stopped");
        }
        Ok(())
    }
}

async fn connection(
    tcp: TcpStream,
    from: PeerAddress,
    acceptor: TlsAcceptor,
    router: Router,
    stop: CancellationToken,
) {
    if let Err(e) = tcp.set_nodelay(true) {
        tracing::debug!(error = %e, "no TCP_NODELAY");
    }
    let shaken = tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(tcp)).await;
    if !matches!(shaken, Ok(Ok(_))) {
        auth::handshake_failed();
    }
    let tls = match shaken {
        Ok(Ok(tls)) => tls,
        Ok(Err(e)) => return tracing::debug!(error = %e, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let certificate = tls.get_ref().1.peer_certificates().and_then(|c| c.first());
    let user = certificate.and_then(|c| from_certificate(c));
    let service = hyper::service::service_fn(move |req: Request<Incoming>| {
        let mut req = req.map(Body::new);
        req.extensions_mut().insert(from);
        if let Some(user) = &user {
            req.extensions_mut().insert(user.clone());
        }
        router.clone().oneshot(req)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // A head that trickles, and a connection that nobody uses: Go's IdleTimeout, as upstream sets it.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_WITHIN);
    // Who went away without a word does not keep its watches.
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).keep_alive_timeout(PONG_WITHIN);
    http2.max_concurrent_streams(1000);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            // Watches never end by themselves.
            match tokio::time::timeout(DRAIN_WITHIN, served).await {
                Ok(ended) => ended,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "a connection ended");
    }
}

/// The server's side of TLS.
fn tls(pki: &Pki, identity: &Identity) -> Result<Arc<rustls::ServerConfig>, Error> {
    let bad = |e: rustls::Error| Error::Certificate(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.ca_der()?).map_err(bad)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| Error::Certificate(e.to_string()))?;
    let (certs, key) = identity.der()?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(bad)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certs, key)
        .map_err(bad)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
