//! The way to a target and back: what is asked for, who we are, and which format the answer has.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::header;
use http::{HeaderMap, HeaderValue, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use signal::{Credentials, ScrapeOptions, ScrapeProtocol, ScrapeTarget, ScrapeTls, Secret};

/// As Prometheus' HTTP client.
const REDIRECTS: usize = 10;
/// Where Debian, Fedora and SUSE keep the machine's certificate authorities.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

pub(super) type Http = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// A body in memory, and what it is.
pub(super) struct Fetched {
    pub(super) body: Vec<u8>,
    pub(super) protocol: ScrapeProtocol,
}

/// A client for targets whose certificates are looked at in this way. Without `secure` it knows no authorities, which take
/// a megabyte: then it is for plain HTTP only.
pub(crate) fn client<B>(
    tls: &ScrapeTls,
    secure: bool,
) -> Result<Client<HttpsConnector<HttpConnector>, B>, String>
where
    B: hyper::body::Body + Send,
    B::Data: Send,
{
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = if tls.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(if secure { roots(tls)? } else { RootCertStore::empty() })
    };
    let config = match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => {
            let certs = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|e| format!("{}: {e}", key.display()))?;
            builder.with_client_auth_cert(certs, key).map_err(|e| e.to_string())?
        }
        _ => builder.with_no_client_auth(),
    };
    let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
    let connector = match &tls.server_name {
        Some(name) => {
            let name = ServerName::try_from(name.clone()).map_err(|e| e.to_string())?;
            connector.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name))
        }
        None => connector,
    };
    let connector = connector.enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(90)).build(connector))
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |e: rustls_pki_types::pem::Error| format!("{}: {e}", path.display());
    CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)
}

fn roots(tls: &ScrapeTls) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => {
            for c in certificates(path)? {
                roots.add(c).map_err(|e| format!("{}: {e}", path.display()))?;
            }
        }
        None => {
            // Without any, plain HTTP still works, and a TLS handshake says what is wrong.
            let found = AUTHORITIES.iter().find_map(|p| certificates(p.as_ref()).ok());
            roots.add_parsable_certificates(found.unwrap_or_default());
        }
    }
    Ok(roots)
}

/// For `insecure_skip_verify`: who the target is, is not asked. Signatures are still those of its certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn media(p: ScrapeProtocol) -> &'static str {
    match p {
        ScrapeProtocol::Protobuf => {
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
        }
        ScrapeProtocol::OpenMetrics1 => "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
        ScrapeProtocol::OpenMetrics0 => "application/openmetrics-text;version=0.0.1",
        ScrapeProtocol::Text => "text/plain;version=0.0.4;escaping=allow-utf-8",
    }
}

/// The formats in their order, and anything else last.
fn accept(protocols: &[ScrapeProtocol]) -> String {
    let mut weight = protocols.len() + 1;
    let mut out = String::new();
    for p in protocols {
        out.push_str(&format!("{};q=0.{weight},", media(*p)));
        weight -= 1;
    }
    out + &format!("*/*;q=0.{weight}")
}

fn secret(s: &Secret) -> Result<String, String> {
    match s {
        Secret::Text(text) => Ok(text.clone()),
        Secret::File(path) => std::fs::read_to_string(path)
            .map(|s| s.trim().to_owned())
            .map_err(|e| format!("unable to read file {}: {e}", path.display())),
    }
}

fn authorization(c: &Credentials) -> Result<HeaderValue, String> {
    let text = match c {
        Credentials::Basic { user, password } => {
            let pair = format!("{user}:{}", secret(password)?);
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        }
        Credentials::Authorization { scheme, credentials } => format!("{scheme} {}", secret(credentials)?),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| "the credentials cannot be sent".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Asks the target once, over as many redirects as it takes.
pub(super) async fn fetch(client: &Http, target: &ScrapeTarget) -> Result<Fetched, String> {
    let o = &*target.options;
    let mut uri: Uri = target.url.parse().map_err(|e| format!("{}: {e}", target.url))?;
    let origin = (uri.scheme().cloned(), uri.authority().cloned());
    let accept = accept(&o.protocols);
    for _ in 0..=REDIRECTS {
        let mut request = http::Request::get(&uri)
            .header(header::ACCEPT, &accept)
            .header(header::USER_AGENT, concat!("binnacle/", env!("CARGO_PKG_VERSION")))
            .header("x-prometheus-scrape-timeout-seconds", target.timeout.as_secs_f64().to_string());
        if o.http.gzip {
            request = request.header(header::ACCEPT_ENCODING, "gzip");
        }
        // Another server is not told who we are.
        if let Some(c) = &o.http.credentials
            && (uri.scheme(), uri.authority()) == (origin.0.as_ref(), origin.1.as_ref())
        {
            request = request.header(header::AUTHORIZATION, authorization(c)?);
        }
        let request = request.body(Empty::new()).map_err(|e| e.to_string())?;
        let response = client.request(request).await.map_err(|e| chain(&e))?;
        let status = response.status();
        if status.is_redirection()
            && o.http.redirects
            && let Some(to) = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok())
        {
            let next = resolve(&uri, to)?;
            if next.scheme_str() == Some("https") && origin.0.as_ref().is_some_and(|s| s == "http") {
                return Err(format!("redirected to {next}: scrape it with the scheme https"));
            }
            uri = next;
            continue;
        }
        if status != http::StatusCode::OK {
            return Err(format!("server returned HTTP status {status}"));
        }
        let protocol = protocol(response.headers(), o)?;
        let is_gzip = response.headers().get(header::CONTENT_ENCODING).is_some_and(|v| v == "gzip");
        let body = read(response.into_body(), is_gzip, o.limits.body).await?;
        return Ok(Fetched { body, protocol });
    }
    Err(format!("stopped after {REDIRECTS} redirects"))
}

/// The error with its causes: what a TLS server finds wrong is the innermost.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        text.push_str(&format!(": {e}"));
        cause = e.source();
    }
    text
}

fn resolve(from: &Uri, to: &str) -> Result<Uri, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("redirected to {to:?}: {e}");
    let next: Uri = to.parse().map_err(|e| wrong(&e))?;
    let mut parts = next.into_parts();
    if parts.scheme.is_none() {
        parts.scheme = from.scheme().cloned();
    }
    if parts.authority.is_none() {
        parts.authority = from.authority().cloned();
    }
    Uri::from_parts(parts).map_err(|e| wrong(&e))
}

async fn read(body: hyper::body::Incoming, is_gzip: bool, limit: usize) -> Result<Vec<u8>, String> {
    let exceeded = || "body size limit exceeded".to_owned();
    let most = if limit == 0 { usize::MAX } else { limit };
    let raw = Limited::new(body, most)
        .collect()
        .await
        .map_err(|e| if e.is::<http_body_util::LengthLimitError>() { exceeded() } else { e.to_string() })?;
    let raw = raw.to_bytes();
    if !is_gzip {
        return Ok(raw.into());
    }
    let mut out = Vec::with_capacity(raw.len().saturating_mul(8).min(most));
    // One byte more than allowed, so that a bomb is told from a body that just fits.
    flate2::read::GzDecoder::new(&raw[..])
        .take((most as u64).saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|e| format!("gzip: {e}"))?;
    if out.len() > most {
        return Err(exceeded());
    }
    Ok(out)
}

/// The format the answer says it has; Prometheus 3 refuses what says nothing, unless told what to take it for.
fn protocol(headers: &HeaderMap, o: &ScrapeOptions) -> Result<ScrapeProtocol, String> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let mut parts = kind.split(';').map(|p| p.trim().to_ascii_lowercase());
    let known = match parts.next().as_deref() {
        Some("application/openmetrics-text") => Some(match parts.find(|p| p.starts_with("version=")) {
            Some(v) if v.starts_with("version=0") => ScrapeProtocol::OpenMetrics0,
            _ => ScrapeProtocol::OpenMetrics1,
        }),
        Some("application/vnd.google.protobuf") => {
            let rest: Vec<String> = parts.collect();
            let fits = rest.iter().any(|p| p == "proto=io.prometheus.client.metricfamily")
                && rest.iter().any(|p| p == "encoding=delimited");
            fits.then_some(ScrapeProtocol::Protobuf)
        }
        Some("text/plain") => Some(ScrapeProtocol::Text),
        _ => None,
    };
    known.or(o.fallback).ok_or_else(|| {
        let what = if kind.is_empty() {
            "non-compliant scrape target sending blank Content-Type".to_owned()
        } else {
            format!("received unsupported Content-Type {kind:?}")
        };
        format!("{what} and no fallback_scrape_protocol specified for target")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_asked_for_in_order() {
        let text = accept(&ScrapeOptions::default().protocols);
        assert!(text.starts_with("application/vnd.google.protobuf;"), "{text}");
        assert!(text.contains("version=1.0.0;escaping=allow-utf-8;q=0.4,"), "{text}");
        assert!(text.ends_with("*/*;q=0.1"), "{text}");
    }

    #[test]
    fn the_content_type_decides() {
        let check = |kind: &str, fallback, expect: Option<ScrapeProtocol>| {
            let mut headers = HeaderMap::new();
            if !kind.is_empty() {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(kind).expect("a header"));
            }
            let o = ScrapeOptions { fallback, ..ScrapeOptions::default() };
            assert_eq!(protocol(&headers, &o).ok(), expect, "{kind}");
        };
        use ScrapeProtocol::{OpenMetrics0, OpenMetrics1, Protobuf, Text};
        check("text/plain; version=0.0.4; charset=utf-8", None, Some(Text));
        check("text/plain", None, Some(Text));
        check("application/openmetrics-text; version=1.0.0; charset=utf-8", None, Some(OpenMetrics1));
        check("application/openmetrics-text; version=0.0.1", None, Some(OpenMetrics0));
        check(
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
            None,
            Some(Protobuf),
        );
        check("application/vnd.google.protobuf; encoding=text", None, None);
        check("text/html", None, None);
        check("", None, None);
        check("text/html", Some(Text), Some(Text));
        check("", Some(OpenMetrics1), Some(OpenMetrics1));
    }

    #[test]
    fn redirects_are_resolved() {
        let check = |to: &str, expect: &str| {
            let from: Uri = "http://a:1/metrics".parse().expect("an address");
            assert_eq!(resolve(&from, to).map(|u| u.to_string()), Ok(expect.to_owned()));
        };
        check("/m?x=1", "http://a:1/m?x=1");
        check("https://b/m", "https://b/m");
    }
}
