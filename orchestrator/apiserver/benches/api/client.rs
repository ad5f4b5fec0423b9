//! An HTTP/2 client that costs little: a few connections, requests as bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::Result;
use crate::servers::Binnacle;

/// The API as its administrator.
#[derive(Clone)]
pub(crate) struct Api {
    connections: Arc<Vec<SendRequest<Full<Bytes>>>>,
    next: Arc<AtomicUsize>,
    host: Arc<str>,
    token: Arc<str>,
}

impl Api {
    pub(crate) async fn connect(server: &Binnacle, connections: usize) -> Result<Api> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls_pki_types::CertificateDer::from_pem_file(server.ca())?)?;
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let host = server.api()?;
        let mut open = Vec::new();
        for _ in 0..connections {
            let tcp = TcpStream::connect(&host).await?;
            tcp.set_nodelay(true)?;
            let stream = connector.connect(ServerName::try_from("127.0.0.1")?, tcp).await?;
            let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(4 << 20).initial_connection_window_size(64 << 20);
            let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
            telemetry::task::spawn("bench-connection", async move {
                // It ends when the client or the server goes.
                let _ended = connection.await;
            });
            open.push(sender);
        }
        let token = server.token()?;
        Ok(Api { connections: Arc::new(open), next: Arc::default(), host: host.into(), token: token.into() })
    }

    /// One request; the answer's body is still to be read.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>> {
        let n = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.host))
            .header("authorization", format!("Bearer {}", self.token))
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .body(Full::new(body.unwrap_or_default()))?;
        let mut connection = self.connections[n].clone();
        connection.ready().await?;
        Ok(connection.send_request(request).await?)
    }

    /// One request whose answer must have this status.
    pub(crate) async fn expect(
        &self,
        status: u16,
        method: &str,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Bytes> {
        let answer = self.send(method, path, body).await?;
        let got = answer.status().as_u16();
        let bytes = answer.into_body().collect().await?.to_bytes();
        if got == status {
            return Ok(bytes);
        }
        Err(format!("{method} {path}: {got}, not {status}: {}", String::from_utf8_lossy(&bytes)).into())
    }

    /// One answer to its last byte, none of which is kept: what a client does with them is its own affair.
    pub(crate) async fn read(&self, path: &str) -> Result<()> {
        let answer = self.send("GET", path, None).await?;
        let status = answer.status().as_u16();
        let (mut body, mut bytes) = (answer.into_body(), 0);
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, Bytes::len);
        }
        if status == 200 && bytes > 0 {
            Ok(())
        } else {
            Err(format!("GET {path}: {status}, {bytes} bytes").into())
        }
    }

    /// A whole list, page by page.
    pub(crate) async fn pages(&self, path: &str) -> Result<()> {
        let mut next = path.to_owned();
        loop {
            let page: Value = serde_json::from_slice(&self.expect(200, "GET", &next, None).await?)?;
            match page["metadata"]["continue"].as_str() {
                Some(token) => next = format!("{path}&continue={token}"),
                None => return Ok(()),
            }
        }
    }
}
