//! The road of a request to the server of an aggregated API: our certificate and who the caller is in headers, both
//! bodies streamed, upgraded connections carried byte by byte
//! (kubernetes: staging/src/k8s.io/kube-aggregator/pkg/apiserver/handler_proxy.go).

use std::time::Duration;

use apimachinery::user::UserInfo;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;

use super::Remote;
use crate::body;
use crate::dispatch::PeerAddress;
use crate::error::{ApiError, Result};
use crate::proxy::{tunnel, workload};
use crate::server::ApiServer;

/// Until the answer begins; upstream's request timeout.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const REMOTE: &str = "x-remote-";
/// What is between two hops, or ours alone.
const NOT_PASSED: [HeaderName; 9] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];

/// Go's http.Error.
fn plain(code: u16, text: &str) -> Response {
    let mut r = body::text(code, format!("{text}\n"));
    r.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    r
}

pub(crate) async fn respond(
    server: &ApiServer,
    remote: &Remote,
    user: &UserInfo,
    mut req: Request<Body>,
) -> Result<Response> {
    if !remote.available
        || workload::endpoint_of(&server.cache, &remote.namespace, &remote.service, remote.port).is_err()
    {
        return Ok(plain(503, "service unavailable"));
    }
    let upgrade = req.headers().get(header::UPGRADE).cloned();
    let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut req));
    let path = req.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let bad = |e: String| ApiError::bad_request(e);
    let (from, body) = req.into_parts();
    let mut out = Request::builder()
        .method(from.method)
        .uri(url(remote, &path))
        .body(body)
        .map_err(|e| bad(e.to_string()))?;
    let headers = out.headers_mut();
    for (name, value) in &from.headers {
        let own = name.as_str().starts_with(REMOTE) || name.as_str().starts_with("impersonate-");
        if !own && !NOT_PASSED.contains(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    identify(headers, user).map_err(bad)?;
    let forwarded = from.extensions.get::<PeerAddress>().map(|p| p.0.to_string());
    let host = from.headers.get(header::HOST).cloned();
    for (name, value) in [
        ("x-forwarded-for", forwarded.and_then(|f| HeaderValue::from_str(&f).ok())),
        ("x-forwarded-host", host),
        ("x-forwarded-proto", Some(HeaderValue::from_static("https"))),
        ("x-forwarded-uri", HeaderValue::from_str(&path).ok()),
    ] {
        if let Some(value) = value {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let mut answer = match tokio::time::timeout(ANSWER_WITHIN, send(server, remote, out)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => return Ok(plain(503, &format!("error trying to reach service: {why}"))),
        Err(_) => {
            let why = "Timeout: request did not complete within the allotted timeout";
            return Err(ApiError::new(504, "Timeout", why));
        }
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return Ok(plain(503, "the server switched protocols unasked"));
        };
        tunnel("apiserver-aggregated-tunnel", client, hyper::upgrade::on(&mut answer));
        let mut r = Response::new(Body::empty());
        *r.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *r.headers_mut() = answer.headers().clone();
        return Ok(r);
    }
    let (parts, incoming) = answer.into_parts();
    let mut r = Response::new(Body::new(incoming.map_err(axum::Error::new)));
    *r.status_mut() = parts.status;
    for (name, value) in &parts.headers {
        if !NOT_PASSED.contains(name) {
            r.headers_mut().append(name.clone(), value.clone());
        }
    }
    Ok(r)
}

pub(super) fn url(remote: &Remote, path: &str) -> String {
    format!("https://{}.{}.svc:{}{path}", remote.service, remote.namespace, remote.port)
}

/// Says who asks (client-go: transport/round_trippers.go SetAuthProxyHeaders).
pub(super) fn identify(headers: &mut HeaderMap, user: &UserInfo) -> std::result::Result<(), String> {
    let value = |v: &str| {
        HeaderValue::from_bytes(v.as_bytes()).map_err(|_| format!("{v:?} cannot stand in a header"))
    };
    headers.insert("x-remote-user", value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert("x-remote-uid", value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append("x-remote-group", value(group)?);
    }
    for (key, values) in &user.extra {
        let name =
            HeaderName::try_from(format!("x-remote-extra-{}", escape(key))).map_err(|e| e.to_string())?;
        for v in values {
            headers.append(name.clone(), value(v)?);
        }
    }
    Ok(())
}

/// What may not stand in a header's name, percent-encoded (client-go: transport/round_trippers.go headerKeyEscape).
fn escape(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for b in key.bytes() {
        // A percent sign is legal there, and would be read as an escape.
        if b != b'%' && (b.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&b)) {
            out.push(b.to_ascii_lowercase() as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// One exchange; the error is Go's words.
pub(super) async fn send(
    server: &ApiServer,
    remote: &Remote,
    req: Request<Body>,
) -> std::result::Result<http::Response<hyper::body::Incoming>, String> {
    let peer = remote.peer.as_ref().map_err(Clone::clone)?;
    server.peers.send(peer, req).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_stands_in_headers() {
        let mut user = UserInfo::new("jane", &["a", "b"]);
        user.extra.insert("example.com/Some%thing".to_owned(), vec!["x".to_owned(), "y".to_owned()]);
        let mut headers = HeaderMap::new();
        identify(&mut headers, &user).expect("headers");
        let all = |name: &str| -> Vec<&str> {
            headers.get_all(name).iter().map(|v| v.to_str().expect("text")).collect()
        };
        assert_eq!(all("x-remote-user"), ["jane"]);
        assert!(all("x-remote-group").starts_with(&["a", "b"]));
        assert_eq!(all("x-remote-extra-example.com%2fsome%25thing"), ["x", "y"]);
        assert_eq!(all("x-remote-uid"), Vec::<&str>::new());
    }
}
