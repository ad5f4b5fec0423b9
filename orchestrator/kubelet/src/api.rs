//! The node's own API: logs, exec, attach, port-forward, health, metrics, for the API server and for whom it lets.
//!
//! TLS; [`auth`] says who may what.

mod auth;
mod exec;
mod logs;
mod portforward;
mod query;
mod spdy;
mod upgrade;
mod volumes;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::pods::Pods;
use crate::runtime::{self, Record};
use crate::worker::{Node, find_container};
use auth::Auth;

/// Connections at once.
const CONNECTIONS: usize = 1024;

/// What handlers see.
#[derive(Clone)]
pub(crate) struct Shared {
    node: Arc<Node>,
    pods: Arc<Pods>,
}

pub(crate) struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    tls: TlsAcceptor,
    router: Router,
}

impl Server {
    pub(crate) async fn bind(node: Arc<Node>, pods: Arc<Pods>) -> Result<Self, Error> {
        let config = &node.config;
        let tls = TlsAcceptor::from(Arc::new(tls_config(
            &config.serving_cert,
            &config.serving_key,
            &config.client_ca,
        )?));
        let what = || Error::io(format!("listen on {}", config.api_addr));
        let listener = TcpListener::bind(config.api_addr).await.map_err(what())?;
        let addr = listener.local_addr().map_err(what())?;
        let router = Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route("/metrics", get(metrics))
            .route("/pods", get(list_pods))
            .route("/localVolumes/{name}", delete(volumes::remove))
            .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::serve))
            .route("/exec/{namespace}/{pod}/{container}", get(exec::serve_exec).post(exec::serve_exec))
            .route("/attach/{namespace}/{pod}/{container}", get(exec::serve_attach).post(exec::serve_attach))
            .route("/portForward/{namespace}/{pod}", get(portforward::serve).post(portforward::serve))
            .with_state(Shared { node: node.clone(), pods });
        let auth = Auth::new(config.node_name.clone(), node.client.clone(), config.clock.clone());
        let router = router.layer(from_fn_with_state(Arc::new(auth), auth::guard));
        Ok(Server { listener, addr, tls, router })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until the token's word.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                a = self.listener.accept() => a,
            };
            let (stream, peer) = match accepted {
                Ok(a) => a,
                Err(e) => {
                    tracing::warn!(error = %e, "accepting on the node's API");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (tls, router, stop) = (self.tls.clone(), self.router.clone(), stop.clone());
            telemetry::task::spawn("kubelet-api-connection", async move {
                let _slot = slot;
                let stream = match tls.accept(stream).await {
                    Ok(s) => s,
                    Err(e) => {
                        tracing::debug!(%peer, error = %e, "a client of the node's API failed its handshake");
                        return;
                    }
                };
                let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let user = certificate.and_then(|c| auth::from_certificate(c));
                let service = TowerToHyperService::new(router.layer(Extension(auth::Peer(user))));
                let builder = Builder::new(TokioExecutor::new());
                let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
                tokio::select! {
                    () = stop.cancelled() => {}
                    r = connection => if let Err(e) = r {
                        tracing::debug!(%peer, error = %e, "a connection to the node's API ended");
                    }
                }
            });
        }
    }
}

fn tls_config(cert: &str, key: &str, ca: &str) -> Result<ServerConfig, Error> {
    let wrong = |e: &dyn std::fmt::Display| Error::Tls(e.to_string());
    let certs = |pem: &str| -> Result<Vec<CertificateDer<'static>>, Error> {
        rustls_pemfile::certs(&mut pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| wrong(&e))
    };
    let key: PrivateKeyDer<'static> = rustls_pemfile::private_key(&mut key.as_bytes())
        .map_err(|e| wrong(&e))?
        .ok_or_else(|| Error::Tls("the serving key is no PEM private key".to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for c in certs(ca)? {
        roots.add(c).map_err(|e| wrong(&e))?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| wrong(&e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&e))?
        .with_client_cert_verifier(clients)
        .with_single_cert(certs(cert)?, key)
        .map_err(|e| wrong(&e))?;
    // Upgrades need HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn metrics(req: Request<Body>) -> Response {
    let accept = req.headers().get(header::ACCEPT).and_then(|a| a.to_str().ok());
    let (media, text) = telemetry::metrics::answer(accept);
    ([(header::CONTENT_TYPE, media)], text).into_response()
}

/// What runs here, as the API knows it.
async fn list_pods(State(shared): State<Shared>) -> Response {
    let items = shared.pods.all();
    axum::Json(serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
        .into_response()
}

/// An error as plain text, which the API server wraps into a Status.
pub(crate) fn refuse(status: StatusCode, text: impl Into<String>) -> Response {
    (status, text.into()).into_response()
}

impl Shared {
    /// The latest attempt of a container, or the one before it.
    fn record(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        previous: bool,
    ) -> Result<Record, Response> {
        let Some(object) = self.pods.find(namespace, pod) else {
            return Err(refuse(StatusCode::NOT_FOUND, format!("pod \"{pod}\" not found")));
        };
        if find_container(&object, container).is_none() {
            let text = format!("container {container} is not valid for pod {pod}");
            return Err(refuse(StatusCode::BAD_REQUEST, text));
        }
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let mut all: Vec<Record> = self
            .node
            .runtime
            .of_pod(uid)
            .into_iter()
            .filter(|r| r.identity.container == container && r.state != runtime::State::Created)
            .collect();
        let last = all.pop();
        let chosen = if previous {
            all.pop().or_else(|| last.filter(|r| matches!(r.state, runtime::State::Exited(_))))
        } else {
            last
        };
        chosen.ok_or_else(|| {
            let text = if previous {
                format!("previous terminated container \"{container}\" in pod \"{pod}\" not found")
            } else {
                format!("container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating")
            };
            refuse(StatusCode::BAD_REQUEST, text)
        })
    }
}
