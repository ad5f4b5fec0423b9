//! A real HTTPS server for tests, with a certificate of the cluster's authority.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use apiserver::pki::Request;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::Cluster;

/// An address to serve at, before it is served.
pub(crate) async fn at() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    (listener.local_addr().expect("an address"), listener)
}

/// Serves `router` until the cluster stops.
pub(crate) fn serve(c: &Cluster, names: &[&str], listener: TcpListener, router: Router) {
    serve_clients(c, names, listener, router, None);
}

/// The same for clients only that show a certificate of this authority (PEM).
pub(crate) fn serve_clients(
    c: &Cluster,
    names: &[&str],
    listener: TcpListener,
    router: Router,
    clients: Option<&str>,
) {
    let request = Request {
        common_name: "hook".to_owned(),
        dns_names: names.iter().map(|n| (*n).to_owned()).collect(),
        addresses: vec![IpAddr::from([127, 0, 0, 1])],
        server: true,
        ..Request::default()
    };
    let (certs, key) = c.server.pki().issue(&request).expect("a certificate").der().expect("DER");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions");
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")).expect("an authority");
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let config = config.with_single_cert(certs, key).expect("a configuration");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let stop = c.stop.clone();
    telemetry::task::spawn("test-https", async move {
        loop {
            let tcp = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted.expect("a connection").0,
            };
            let (acceptor, router) = (acceptor.clone(), router.clone());
            telemetry::task::spawn("test-https-connection", async move {
                // A client that does not trust us goes away here.
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let service = TowerToHyperService::new(router);
                auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(tls), service)
                    .await
                    .unwrap_or_default();
            });
        }
    });
}

/// The same at any port, which it gives.
pub(crate) async fn serve_anywhere(c: &Cluster, names: &[&str], router: Router) -> u16 {
    let (addr, listener) = at().await;
    serve(c, names, listener, router);
    addr.port()
}

/// The answer to an AdmissionReview.
pub(crate) fn reviewed(review: &Value, mut response: Value) -> axum::Json<Value> {
    response["uid"] = review["request"]["uid"].clone();
    axum::Json(
        serde_json::json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response}),
    )
}
