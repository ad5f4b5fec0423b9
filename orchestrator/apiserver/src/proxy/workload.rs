//! `proxy` of pods, services and nodes: a request goes on to a port of theirs, over TLS if the name says so; to a
//! node's kubelet as we ask it ourselves. Upgraded connections are carried
//! (kubernetes: pkg/registry/core/{pod,service} ResourceLocation, apimachinery: pkg/util/proxy).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cache::Cache;
use crate::dispatch::Context;
use crate::error::{ApiError, Result};
use crate::kinds::{self, Served};
use crate::object;
use crate::server::ApiServer;
use crate::webhook::client::anybody;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// What is between two hops, or ours alone.
const NOT_PASSED: [HeaderName; 10] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::AUTHORIZATION,
    header::COOKIE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
];

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`; the port may be a name.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let all: Vec<&str> = text.split(':').collect();
    match all.as_slice() {
        [name] => Some(("http", name, "")),
        [name, port] => Some(("http", name, port)),
        ["", name, port] => Some(("http", name, port)),
        [scheme, name, port] => Some((scheme, name, port)),
        _ => None,
    }
}

/// Where a request goes on.
struct Target {
    /// `host:port`
    authority: String,
    tls: Option<Arc<rustls::ClientConfig>>,
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

pub(crate) async fn respond(
    server: &ApiServer,
    ctx: &Context,
    served: Served,
    mut req: Request<Body>,
) -> Result<Response> {
    let info = &ctx.info;
    let target = target(server, ctx, &served).await?;
    let failed = |e: String| ApiError::unavailable(format!("error trying to reach service: {e}"));
    let wire = connect(&target).await.map_err(failed)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(wire)).await.map_err(|e| failed(e.to_string()))?;
    telemetry::task::spawn("apiserver-proxy", async move {
        if let Err(e) = connection.with_upgrades().await {
            tracing::debug!(error = %e, "a proxied connection ended");
        }
    });
    let upgrade = req.headers().get(header::UPGRADE).cloned();
    let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut req));
    let path = req.uri().path().to_owned();
    let query = req.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    let slash = if !info.rest.is_empty() && path.ends_with('/') { "/" } else { "" };
    let uri = format!("/{}{slash}{query}", info.rest);
    let bad = |why: String| ApiError::bad_request(why);
    let (from, body) = req.into_parts();
    let mut out =
        Request::builder().method(from.method).uri(uri).body(body).map_err(|e| bad(e.to_string()))?;
    for (name, value) in &from.headers {
        if !NOT_PASSED.contains(name) && !name.as_str().starts_with("impersonate-") {
            out.headers_mut().append(name.clone(), value.clone());
        }
    }
    if let Some(protocol) = upgrade {
        out.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        out.headers_mut().insert(header::UPGRADE, protocol);
    }
    let host = HeaderValue::from_str(&target.authority).map_err(|e| bad(e.to_string()))?;
    out.headers_mut().insert(header::HOST, host);
    let mut answer = sender.send_request(out).await.map_err(|e| failed(e.to_string()))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let client = client.ok_or_else(|| failed("it switched protocols unasked".to_owned()))?;
        super::tunnel("apiserver-proxy-tunnel", client, hyper::upgrade::on(&mut answer));
        let mut r = Response::new(Body::empty());
        *r.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *r.headers_mut() = answer.headers().clone();
        return Ok(r);
    }
    let (parts, incoming) = answer.into_parts();
    let mut r = Response::new(Body::new(incoming.map_err(axum::Error::new)));
    *r.status_mut() = parts.status;
    for (name, value) in &parts.headers {
        // A cookie from a pod would be one of ours.
        if NOT_PASSED.contains(name) || name == header::SET_COOKIE {
            continue;
        }
        let moved = (name == header::LOCATION).then(|| moved(value, &path, &info.rest)).flatten();
        r.headers_mut().append(name.clone(), moved.unwrap_or_else(|| value.clone()));
    }
    Ok(r)
}

/// A place on the proxied server as its clients reach it: behind our path.
fn moved(location: &HeaderValue, path: &str, rest: &str) -> Option<HeaderValue> {
    let at = location.to_str().ok()?.strip_prefix('/').filter(|l| !l.starts_with('/'))?;
    let before = path.trim_end_matches('/').strip_suffix(rest)?.trim_end_matches('/');
    HeaderValue::from_str(&format!("{before}/{at}")).ok()
}

async fn target(server: &ApiServer, ctx: &Context, served: &Served) -> Result<Target> {
    let info = &ctx.info;
    let (scheme, name, port) =
        parts(&info.name).filter(|(scheme, ..)| matches!(*scheme, "http" | "https")).ok_or_else(|| {
            ApiError::bad_request(format!("invalid {} request {:?}", served.kind.singular, info.name))
        })?;
    let o = server.get(served, &info.namespace, name).await?.value();
    let (ip, port) = match served.kind.builtin() {
        "pods" => pod_address(&o, port)?,
        "nodes" => {
            let own = super::endpoint(server, name)?;
            let (host, own_port) = own.rsplit_once(':').expect("an endpoint has a port");
            if port.is_empty() || port == own_port {
                let config = super::client_config(&server.config.pki).map_err(ApiError::internal)?;
                return Ok(Target { authority: own, tls: Some(config) });
            }
            let port = port.parse().map_err(|_| ApiError::bad_request(format!("invalid port {port:?}")))?;
            (host.trim_matches(['[', ']']).to_owned(), port)
        }
        _ => service_address(&server.cache, &o, port)?,
    };
    let address: IpAddr =
        ip.parse().map_err(|_| ApiError::unavailable(format!("{name} has no address to proxy to")))?;
    if address.is_loopback() || address.is_unspecified() || is_link_local(address) {
        return Err(ApiError::bad_request("address not allowed"));
    }
    let authority = SocketAddr::new(address, port).to_string();
    // As upstream: whoever answers there is trusted.
    let tls = if scheme == "https" { Some(anybody::config().map_err(ApiError::internal)?) } else { None };
    Ok(Target { authority, tls })
}

async fn connect(target: &Target) -> std::result::Result<Box<dyn Wire>, String> {
    let at = &target.authority;
    let tcp = match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(at)).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            return Err(format!("dial tcp {at}: connect: connection refused"));
        }
        Ok(Err(e)) => return Err(format!("dial tcp {at}: {e}")),
        Err(_) => return Err(format!("dial tcp {at}: i/o timeout")),
    };
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    let Some(config) = &target.tls else { return Ok(Box::new(tcp)) };
    let host = at.rsplit_once(':').map_or(at.as_str(), |(host, _)| host).trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
    let tls = TlsConnector::from(config.clone()).connect(name, tcp).await.map_err(|e| e.to_string())?;
    Ok(Box::new(tls))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

/// The first container port stands for none.
fn pod_address(pod: &Value, port: &str) -> Result<(String, u16)> {
    let ports = || object::list(pod, "spec.containers").iter().flat_map(|c| object::list(c, "ports"));
    let number = |p: &Value| p["containerPort"].as_i64().and_then(|n| u16::try_from(n).ok());
    let found = match port {
        "" => ports().find_map(number).or(Some(80)),
        p => p.parse().ok().or_else(|| ports().find(|c| c["name"] == p).and_then(number)),
    };
    let port = found.ok_or_else(|| ApiError::bad_request(format!("pod has no port {port:?}")))?;
    Ok((object::text(pod, "status.podIP").unwrap_or_default().to_owned(), port))
}

/// Where a service is reached at one of its ports, by its number.
pub(crate) fn endpoint_of(cache: &Cache, namespace: &str, name: &str, port: u16) -> Result<(String, u16)> {
    let services = kinds::by_resource("", "services").expect("services are a kind");
    let found = cache.get(services.index, &format!("{namespace}/{name}"));
    let service = found.ok_or_else(|| ApiError::not_found(&services, name))?.value();
    match object::text(&service, "spec.externalName").filter(|n| !n.is_empty()) {
        Some(outside) => Ok((outside.to_owned(), port)),
        None => service_address(cache, &service, &port.to_string()),
    }
}

/// Any endpoint that is ready, behind the named or numbered port.
fn service_address(cache: &Cache, service: &Value, port: &str) -> Result<(String, u16)> {
    let name = object::name(service);
    let none = || ApiError::unavailable(format!("no endpoints available for service {name:?}"));
    let ports = object::list(service, "spec.ports");
    let wanted = match port {
        "" => ports.first(),
        p => ports.iter().find(|s| s["name"] == p || s["port"].as_u64().is_some_and(|n| n.to_string() == p)),
    };
    let wanted = wanted.ok_or_else(|| {
        ApiError::unavailable(format!("no service port {port:?} found for service {name:?}"))
    })?;
    let port_name = wanted["name"].as_str().unwrap_or_default();
    let slices = kinds::by_resource("discovery.k8s.io", "endpointslices").expect("slices are a kind");
    let mut all = Vec::new();
    for slice in cache.list(slices.index, Some(object::namespace(service))).objects {
        if slice.label("kubernetes.io/service-name") != Some(name) {
            continue;
        }
        let slice = slice.value();
        let port = object::list(&slice, "ports")
            .iter()
            .find(|p| p["name"].as_str().unwrap_or_default() == port_name)
            .and_then(|p| u16::try_from(p["port"].as_i64()?).ok());
        let Some(port) = port else { continue };
        for e in object::list(&slice, "endpoints") {
            if object::get(e, "conditions.ready").is_none_or(|r| r != false) {
                let ips = object::list(e, "addresses").iter().filter_map(Value::as_str);
                all.extend(ips.map(|ip| (ip.to_owned(), port)));
            }
        }
    }
    if all.is_empty() {
        return Err(none());
    }
    Ok(all.swap_remove(rand::random_range(0..all.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_say_scheme_and_port() {
        assert_eq!(parts("web"), Some(("http", "web", "")));
        assert_eq!(parts("web:80"), Some(("http", "web", "80")));
        assert_eq!(parts("https:web:443"), Some(("https", "web", "443")));
        assert_eq!(parts("a:b:c:d"), None);
        let pod = json!({"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}, "status": {"podIP": "10.0.0.1"}});
        for (port, expect) in [("", 8080), ("http", 8080), ("9090", 9090)] {
            assert_eq!(pod_address(&pod, port).expect("an address"), ("10.0.0.1".to_owned(), expect));
        }
        assert!(pod_address(&pod, "none").is_err());
    }

    #[test]
    fn redirections_stay_behind_our_path() {
        let check = |location: &'static str, path: &str, rest: &str, expect: Option<&str>| {
            let got = moved(&HeaderValue::from_static(location), path, rest);
            assert_eq!(got.as_ref().map(|v| v.to_str().expect("text")), expect, "{location}");
        };
        let path = "/api/v1/namespaces/n/services/web/proxy/a";
        check("/login", path, "a", Some("/api/v1/namespaces/n/services/web/proxy/login"));
        check(
            "/",
            "/api/v1/namespaces/n/services/web/proxy/",
            "",
            Some("/api/v1/namespaces/n/services/web/proxy/"),
        );
        check("https://elsewhere/", path, "a", None);
        check("//elsewhere/", path, "a", None);
    }
}
