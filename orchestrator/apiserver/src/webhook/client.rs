//! HTTPS to servers that others run: webhooks of admission, conversion and token review, aggregated APIs. Connections are kept;
//! a name `SERVICE.NAMESPACE.svc` is reached at a ready endpoint of that service
//! (apiserver: pkg/util/webhook/client.go).

pub(crate) mod anybody;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cache::Cache;
use crate::object;
use crate::pki::Identity;
use crate::proxy::workload;

/// The longest answer that is read.
const MAX_ANSWER: usize = 8 << 20;
/// Sets of certificates that connections are kept for; beyond it all begin anew.
const MAX_CLIENTS: usize = 64;
const IDLE_PER_HOST: usize = 8;
const IDLE_FOR: Duration = Duration::from_secs(60);

/// Somebody's HTTPS server and what it is trusted by.
#[derive(Clone, Default)]
pub(crate) struct Peer {
    /// `https://HOST[:PORT]/PATH`
    pub(crate) url: String,
    /// PEM; the machine's own roots if empty.
    pub(crate) ca_pem: Vec<u8>,
    /// Shown to the server.
    pub(crate) identity: Option<Identity>,
    pub(crate) bearer: Option<String>,
    /// Whatever certificate the server shows is taken.
    pub(crate) insecure: bool,
}

impl Peer {
    /// From a `clientConfig` of a webhook or a conversion: `url`, or `service` with namespace, name, path and port.
    pub(crate) fn from_client_config(config: &Value) -> Result<Peer, String> {
        let url = match (object::text(config, "url"), object::get(config, "service")) {
            (Some(url), _) => url.to_owned(),
            (None, Some(s)) => {
                let text = |k: &str| object::text(s, k).unwrap_or_default();
                let path = text("path");
                let slash = if path.starts_with('/') { "" } else { "/" };
                let port = object::int(s, "port").unwrap_or(443);
                format!("https://{}.{}.svc:{port}{slash}{path}", text("name"), text("namespace"))
            }
            (None, None) => return Err("exactly one of url or service is required".to_owned()),
        };
        let ca_pem = match object::text(config, "caBundle") {
            Some(b) => STANDARD.decode(b).map_err(|e| format!("unable to load root certificates: {e}"))?,
            None => Vec::new(),
        };
        Ok(Peer { url, ca_pem, ..Peer::default() })
    }
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{0}")]
    Config(String),
    /// Go's words, as operators search for them.
    #[error("{verb} \"{url}\": {why}")]
    Unreachable { verb: &'static str, url: String, why: String },
    #[error("{0}")]
    Answer(String),
}

type Https = Client<Connector, Body>;

/// The connections to all of them.
pub(crate) struct Peers {
    cache: Arc<Cache>,
    /// By what they trust and show.
    clients: Mutex<HashMap<[u8; 32], Https>>,
}

impl Peers {
    pub(crate) fn new(cache: Arc<Cache>) -> Self {
        Peers { cache, clients: Mutex::default() }
    }

    /// Posts JSON and reads JSON. The server is told how long it has.
    pub(crate) async fn post(&self, peer: &Peer, body: &Value, within: Duration) -> Result<Value, CallError> {
        let mut url = peer.url.clone();
        if !url.contains('?') {
            url.push_str(&format!("?timeout={}s", within.as_secs()));
        }
        self.exchange(peer, Method::POST, url, body.to_string(), within).await
    }

    /// Reads JSON.
    pub(crate) async fn get(&self, peer: &Peer, within: Duration) -> Result<Value, CallError> {
        self.exchange(peer, Method::GET, peer.url.clone(), String::new(), within).await
    }

    async fn exchange(
        &self,
        peer: &Peer,
        method: Method,
        url: String,
        body: String,
        within: Duration,
    ) -> Result<Value, CallError> {
        let uri: Uri = url.parse().map_err(|e| CallError::Config(format!("{url:?} is no URL: {e}")))?;
        let client = self.client(peer)?;
        let verb = if method == Method::GET { "Get" } else { "Post" };
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "kube-apiserver-admission");
        if let Some(token) = &peer.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request =
            request.body(Body::from(Bytes::from(body))).map_err(|e| CallError::Config(e.to_string()))?;
        let unreachable = |why: String| CallError::Unreachable { verb, url: url.clone(), why };
        let exchange = async {
            let answer = client.request(request).await.map_err(|e| unreachable(reason(&e)))?;
            let status = answer.status();
            let bytes = match Limited::new(answer.into_body(), MAX_ANSWER).collect().await {
                Ok(b) => b.to_bytes(),
                Err(e) => return Err(unreachable(e.to_string())),
            };
            if !status.is_success() {
                return Err(CallError::Answer(refusal(status.as_u16(), &bytes)));
            }
            serde_json::from_slice(&bytes)
                .map_err(|e| CallError::Answer(format!("couldn't get version/kind; json parse error: {e}")))
        };
        match tokio::time::timeout(within, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(unreachable("context deadline exceeded".to_owned())),
        }
    }

    /// One exchange whose bodies are streamed; the error is Go's words. The answer has its time from the caller.
    pub(crate) async fn send(
        &self,
        peer: &Peer,
        request: Request<Body>,
    ) -> Result<http::Response<hyper::body::Incoming>, String> {
        let client = self.client(peer).map_err(|e| e.to_string())?;
        client.request(request).await.map_err(|e| reason(&e))
    }

    fn client(&self, peer: &Peer) -> Result<Https, CallError> {
        let mut digest = Sha256::new();
        digest.update([u8::from(peer.insecure)]);
        digest.update(&peer.ca_pem);
        if let Some(i) = &peer.identity {
            digest.update([0]);
            digest.update(&i.cert_pem);
            digest.update(&i.key_pem);
        }
        let key: [u8; 32] = digest.finalize().into();
        let mut clients = self.clients.lock();
        if let Some(c) = clients.get(&key) {
            return Ok(c.clone());
        }
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        let tls = TlsConnector::from(Arc::new(tls(peer).map_err(CallError::Config)?));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .build(Connector { tls, cache: self.cache.clone() });
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// What client-go says of an answer that is no success.
fn refusal(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..2048).unwrap_or(body));
    let text = text.trim();
    match status {
        404 => "the server could not find the requested resource".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => format!("forbidden: {text}"),
        500.. => {
            format!("an error on the server ({text:?}) has prevented the request from succeeding")
        }
        _ => format!("the server rejected our request for an unknown reason ({status}: {text})"),
    }
}

fn tls(peer: &Peer) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    if peer.insecure {
        tracing::debug!(url = peer.url, "a server's certificate is not checked, as its row says");
    } else if peer.ca_pem.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        let bad = "unable to load root certificates: unable to parse bytes as PEM block";
        for cert in CertificateDer::pem_slice_iter(&peer.ca_pem) {
            roots.add(cert.map_err(|_| bad.to_owned())?).map_err(|e| format!("{bad}: {e}"))?;
        }
        if roots.is_empty() {
            return Err(bad.to_owned());
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = if peer.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(anybody::Anybody::default()))
    } else {
        builder.with_root_certificates(roots)
    };
    let mut config = match &peer.identity {
        None => builder.with_no_client_auth(),
        Some(i) => {
            let (certs, key) = i.der().map_err(|e| e.to_string())?;
            builder.with_client_auth_cert(certs, key).map_err(|e| e.to_string())?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Opens a connection to where a name really is.
#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    cache: Arc<Cache>,
}

impl Connector {
    async fn connect(self, uri: Uri) -> io::Result<Stream> {
        if uri.scheme_str() != Some("https") {
            return Err(io::Error::other("'https' is the only allowed URL scheme"));
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let (at, at_port) = match service(&host) {
            Some((name, namespace)) => workload::endpoint_of(&self.cache, namespace, name, port)
                .map_err(|e| io::Error::other(e.message))?,
            None => (host.clone(), port),
        };
        let tcp = TcpStream::connect((at.as_str(), at_port)).await.map_err(|e| {
            let why = match e.kind() {
                io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
                _ => e.to_string(),
            };
            io::Error::new(e.kind(), format!("dial tcp {at}:{at_port}: {why}"))
        })?;
        tcp.set_nodelay(true)?;
        let name =
            ServerName::try_from(host.clone()).map_err(|e| io::Error::other(format!("{host:?}: {e}")))?;
        let tls = self.tls.connect(name, tcp).await.map_err(|e| io::Error::other(x509(&e, &host)))?;
        Ok(Stream(TokioIo::new(tls)))
    }
}

/// `NAME.NAMESPACE.svc`
fn service(host: &str) -> Option<(&str, &str)> {
    let (name, namespace) = host.strip_suffix(".svc")?.split_once('.')?;
    (!namespace.contains('.')).then_some((name, namespace))
}

/// A refused certificate in Go's words.
fn x509(e: &io::Error, host: &str) -> String {
    use rustls::CertificateError as C;
    let inner = e.get_ref().and_then(|i| i.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(c)) => {
            let why = match c {
                C::UnknownIssuer | C::BadSignature => "certificate signed by unknown authority".to_owned(),
                C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => {
                    "certificate has expired or is not yet valid".to_owned()
                }
                C::NotValidForName | C::NotValidForNameContext { .. } => {
                    format!("certificate is not valid for {host}")
                }
                other => other.to_string(),
            };
            format!("tls: failed to verify certificate: x509: {why}")
        }
        _ => e.to_string(),
    }
}

/// The innermost reason.
fn reason(e: &dyn std::error::Error) -> String {
    let mut last = e;
    while let Some(inner) = last.source() {
        last = inner;
    }
    last.to_string()
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

struct Stream(TokioIo<TlsStream<TcpStream>>);

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn configurations_become_addresses() {
        let check = |config: Value, expect: &str| {
            assert_eq!(Peer::from_client_config(&config).expect("a peer").url, expect);
        };
        check(json!({"url": "https://a.example:8443/x"}), "https://a.example:8443/x");
        check(json!({"service": {"name": "hook", "namespace": "ops"}}), "https://hook.ops.svc:443/");
        check(
            json!({"service": {"name": "hook", "namespace": "ops", "path": "mutate", "port": 9443}}),
            "https://hook.ops.svc:9443/mutate",
        );
        assert!(Peer::from_client_config(&json!({})).is_err());
        assert_eq!(service("hook.ops.svc"), Some(("hook", "ops")));
        assert_eq!(service("a.b.c.svc"), None);
        assert_eq!(service("example.com"), None);
    }
}
