//! The two ways clients leave HTTP for streams: WebSocket, and SPDY/3.1 for older ones and behind proxies.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio_util::codec::{BytesCodec, FramedWrite};
use tokio_util::io::StreamReader;

use super::refuse;
use super::spdy::Session;

const SPDY: &str = "SPDY/3.1";
/// How streams' protocols are agreed on within SPDY.
const PROTOCOL: &str = "x-stream-protocol-version";

/// A request to leave HTTP.
pub(super) enum Upgrade {
    WebSocket(WebSocketUpgrade),
    Spdy(Request<Body>),
}

impl Upgrade {
    pub(super) async fn of(request: Request<Body>) -> Result<Upgrade, Response> {
        let wanted = request.headers().get(header::UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if wanted.eq_ignore_ascii_case(SPDY) {
            return Ok(Upgrade::Spdy(request));
        }
        if !wanted.eq_ignore_ascii_case("websocket") {
            return Err(refuse(StatusCode::BAD_REQUEST, "Upgrade request required"));
        }
        let (mut parts, _) = request.into_parts();
        match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(u) => Ok(Upgrade::WebSocket(u)),
            Err(e) => Err(e.into_response()),
        }
    }
}

/// Answers a SPDY upgrade whose client offers `protocol`; `run` gets the connection.
pub(super) fn spdy<F>(
    mut request: Request<Body>,
    protocol: &'static str,
    run: impl FnOnce(Session) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send,
{
    if !offers(request.headers(), protocol) {
        let text =
            format!("unable to upgrade: unable to negotiate protocol: the server supports [{protocol}]");
        let mut r = refuse(StatusCode::FORBIDDEN, text);
        r.headers_mut().insert("x-accepted-stream-protocol-versions", HeaderValue::from_static(protocol));
        return r;
    }
    let upgrade = hyper::upgrade::on(&mut request);
    telemetry::task::spawn("spdy-connection", async move {
        match upgrade.await {
            Ok(u) => {
                let (read, write) = tokio::io::split(TokioIo::new(u));
                run(Session::start(read, FramedWrite::new(write, BytesCodec::new()))).await;
            }
            Err(e) => tracing::debug!(error = %e, "a client did not upgrade"),
        }
    });
    let mut r = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let h = r.headers_mut();
    h.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    h.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
    h.insert(PROTOCOL, HeaderValue::from_static(protocol));
    r
}

/// Clients name each version in a header line of its own, or all in one.
fn offers(headers: &HeaderMap, protocol: &str) -> bool {
    let all = headers.get_all(PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).any(|v| v.trim() == protocol)
}

/// SPDY whose bytes are the binary messages of a WebSocket (KEP-4006).
pub(super) fn tunnel(socket: WebSocket) -> Session {
    let (sink, stream) = socket.split();
    let bytes = stream.filter_map(|m| async {
        match m {
            Ok(Message::Binary(b)) => Some(Ok(b)),
            Ok(_) => None,
            Err(e) => Some(Err(std::io::Error::other(e))),
        }
    });
    let write = sink.with(|b: Bytes| std::future::ready(Ok::<_, axum::Error>(Message::Binary(b))));
    Session::start(StreamReader::new(Box::pin(bytes)), write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_offered_in_lines_or_in_lists() {
        let headers = |lines: &[&'static str]| {
            let mut h = HeaderMap::new();
            for l in lines {
                h.append(PROTOCOL, HeaderValue::from_static(l));
            }
            h
        };
        assert!(offers(&headers(&["v4.channel.k8s.io", "v3.channel.k8s.io"]), "v4.channel.k8s.io"));
        assert!(offers(&headers(&["v3.channel.k8s.io, v4.channel.k8s.io"]), "v4.channel.k8s.io"));
        assert!(!offers(&headers(&["channel.k8s.io"]), "v4.channel.k8s.io"));
        assert!(!offers(&headers(&[]), "v4.channel.k8s.io"));
    }
}
