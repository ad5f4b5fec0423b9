//! A small HTTP client for probes and hooks: GET, redirects within the same host, certificates not verified
//! (as upstream: a probe asks the pod itself, by address).

use std::fmt;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::words::io_text;

/// Redirects followed before the probe gives up.
const REDIRECTS: usize = 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

impl Url {
    /// Where a `Location` leads from here; `None` if it is no address.
    fn join(&self, location: &str) -> Option<Url> {
        if let Some(path) = location.strip_prefix('/').filter(|p| !p.starts_with('/')) {
            return Some(Url { path: format!("/{path}"), ..self.clone() });
        }
        let absolute = match location.strip_prefix("//") {
            Some(rest) => format!("{}://{rest}", if self.tls { "https" } else { "http" }),
            None => location.to_owned(),
        };
        match absolute.parse::<http::Uri>() {
            Ok(uri) if uri.scheme().is_some() => {
                let tls = uri.scheme_str() == Some("https");
                Some(Url {
                    tls,
                    host: uri.host()?.to_owned(),
                    port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
                    path: uri.path_and_query().map_or_else(|| "/".to_owned(), |p| p.as_str().to_owned()),
                })
            }
            _ => {
                let dir = self.path.split('?').next()?.rsplit_once('/').map_or("", |(d, _)| d);
                Some(Url { path: format!("{dir}/{location}"), ..self.clone() })
            }
        }
    }
}

/// What a GET came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// True if the last answer leads to another host, where no probe goes.
    pub(super) leads_away: bool,
}

/// A GET; redirects are followed as long as they stay on the host (kubernetes: pkg/probe/http).
pub(super) async fn get(url: &Url, headers: &[(String, String)]) -> Result<Answer, String> {
    let mut at = url.clone();
    for _ in 0..REDIRECTS {
        let (status, location) = get_one(&at, headers).await?;
        let next = match status {
            301 | 302 | 303 | 307 | 308 => location.as_deref().and_then(|l| at.join(l)),
            _ => None,
        };
        match next {
            None => return Ok(Answer { status, leads_away: false }),
            Some(next) if next.host != url.host => return Ok(Answer { status, leads_away: true }),
            Some(next) => at = next,
        }
    }
    Err(format!("stopped after {REDIRECTS} redirects"))
}

/// Status and `Location` of one request.
async fn get_one(url: &Url, headers: &[(String, String)]) -> Result<(u16, Option<String>), String> {
    let stream = TcpStream::connect((url.host.as_str(), url.port))
        .await
        .map_err(|e| format!("dial tcp {}:{}: connect: {}", url.host, url.port, io_text(&e)))?;
    if url.tls {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls_config()?));
        let name = ServerName::try_from(url.host.clone()).map_err(|e| e.to_string())?;
        let stream = connector.connect(name, stream).await.map_err(|e| io_text(&e))?;
        send(stream, url, headers).await
    } else {
        send(stream, url, headers).await
    }
}

/// Go's words for a connection that ended in the middle.
fn broken(e: &hyper::Error) -> String {
    if e.is_incomplete_message() || e.is_closed() {
        return "EOF".to_owned();
    }
    let io = std::error::Error::source(e).and_then(|s| s.downcast_ref::<std::io::Error>());
    io.map_or_else(|| e.to_string(), |io| format!("read: {}", io_text(io)))
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    url: &Url,
    headers: &[(String, String)],
) -> Result<(u16, Option<String>), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    let mut request = http::Request::get(&url.path);
    let has = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    if !has("host") {
        request = request.header("Host", format!("{}:{}", url.host, url.port));
    }
    if !has("user-agent") {
        request = request.header("User-Agent", super::USER_AGENT);
    }
    if !has("accept") {
        request = request.header("Accept", "*/*");
    }
    request = request.header("Connection", "close");
    // An empty value means: without this header.
    for (n, v) in headers.iter().filter(|(_, v)| !v.is_empty()) {
        request = request.header(n, v);
    }
    let request = request.body(String::new()).map_err(|e| e.to_string())?;
    // Both in this future, so that giving up on the probe gives up the connection.
    let response = sender.send_request(request);
    tokio::pin!(connection, response);
    let mut open = true;
    loop {
        tokio::select! {
            r = &mut response => {
                let r = r.map_err(|e| broken(&e))?;
                let location = r.headers().get(http::header::LOCATION).and_then(|l| l.to_str().ok());
                return Ok((r.status().as_u16(), location.map(str::to_owned)));
            }
            c = &mut connection, if open => {
                open = false;
                if let Err(e) = c {
                    return Err(broken(&e));
                }
            }
        }
    }
}

fn tls_config() -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    Ok(config)
}

#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_lead_where_a_browser_would_go() {
        let at = Url { tls: false, host: "10.0.0.1".to_owned(), port: 8080, path: "/a/b?c=d".to_owned() };
        let check = |location: &str, expect: &str| {
            assert_eq!(at.join(location).map(|u| u.to_string()).as_deref(), Some(expect), "{location}");
        };
        check("/x?y=z", "http://10.0.0.1:8080/x?y=z");
        check("x", "http://10.0.0.1:8080/a/x");
        check("https://10.0.0.1/x", "https://10.0.0.1:443/x");
        check("http://example.org:81", "http://example.org:81/");
        check("//10.0.0.1:9/x", "http://10.0.0.1:9/x");
    }
}
