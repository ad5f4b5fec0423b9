//! HTTP to the cluster that serves a data directory, with the administrator's token.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::assemble::directory::{Addresses, addresses, admin_token};

pub(super) struct Remote {
    client: Client<HttpConnector, Full<Bytes>>,
    pub(super) addresses: Addresses,
    pub(super) token: String,
}

impl Remote {
    pub(super) fn new(data_dir: &Path) -> Result<Remote> {
        Ok(Remote {
            client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
            addresses: addresses(data_dir)?,
            token: admin_token(data_dir)?,
        })
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<(http::StatusCode, Bytes)> {
        let response = self.ask(request, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await.context("read the answer")?.to_bytes();
        Ok((status, body))
    }

    async fn ask(&self, request: http::request::Builder, body: Vec<u8>) -> Result<http::Response<Incoming>> {
        let request = request
            .header("authorization", format!("Bearer {}", self.token))
            .body(Full::new(Bytes::from(body)))
            .context("build the request")?;
        self.client.request(request).await.with_context(|| {
            format!("ask {}: is the cluster running? `binnacle up` starts it", self.addresses.http)
        })
    }

    fn uri(&self, path: &str, params: &[(&str, &str)]) -> String {
        let mut uri = format!("http://{}{path}", self.addresses.http);
        for (i, (name, value)) in params.iter().enumerate() {
            uri.push(if i == 0 { '?' } else { '&' });
            uri.push_str(name);
            uri.push('=');
            uri.push_str(&percent(value));
        }
        uri
    }

    /// GET that must give JSON. An error answer's own words become the error.
    pub(super) async fn get(&self, path: &str, params: &[(&str, &str)]) -> Result<Value> {
        let (status, body) = self.send(http::Request::get(self.uri(path, params)), Vec::new()).await?;
        answer(status, &body)
    }

    /// GET whose answer is text.
    pub(super) async fn text(&self, path: &str, params: &[(&str, &str)]) -> Result<String> {
        let (status, body) = self.send(http::Request::get(self.uri(path, params)), Vec::new()).await?;
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            return Ok(text);
        }
        // An error of the API is an object with a message.
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        bail!("{}", said["message"].as_str().unwrap_or(&text).trim())
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = http::Request::post(self.uri(path, &[])).header("content-type", "application/json");
        let (status, body) = self.send(request, serde_json::to_vec(body)?).await?;
        answer(status, &body)
    }

    /// POST of snappy-packed protobuf that must give JSON.
    pub(super) async fn post_bytes(&self, path: &str, body: Vec<u8>) -> Result<Value> {
        let (status, body) = self.send(self.packed(path), body).await?;
        answer(status, &body)
    }

    /// The same, whose answer is taken as it comes.
    pub(super) async fn stream(&self, path: &str, body: Vec<u8>) -> Result<Incoming> {
        self.taken(self.packed(path), body).await
    }

    /// GET whose answer is taken as it comes.
    pub(super) async fn download(&self, path: &str) -> Result<Incoming> {
        self.taken(http::Request::get(self.uri(path, &[])), Vec::new()).await
    }

    async fn taken(&self, request: http::request::Builder, body: Vec<u8>) -> Result<Incoming> {
        let response = self.ask(request, body).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let body = response.into_body().collect().await.context("read the answer")?.to_bytes();
        answer(status, &body)?;
        bail!("HTTP {}", status.as_u16())
    }

    fn packed(&self, path: &str) -> http::request::Builder {
        http::Request::post(self.uri(path, &[]))
            .header("content-type", "application/x-protobuf")
            .header("content-encoding", "snappy")
    }
}

fn answer(status: http::StatusCode, body: &[u8]) -> Result<Value> {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    if status.is_success() {
        return value.context("the answer is not JSON");
    }
    let text = String::from_utf8_lossy(body);
    let why =
        value.as_ref().and_then(|v| v.get("error").or(v.get("message"))?.as_str()).unwrap_or(text.trim());
    bail!("{why} (HTTP {})", status.as_u16());
}

/// Percent-encodes everything but unreserved characters (RFC 3986).
pub(super) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}
