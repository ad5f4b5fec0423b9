//! Logs, exec, attach and port-forward: after authorization the request goes on to the pod's kubelet, over
//! TLS with our client certificate; upgraded connections are carried byte by byte.

pub(crate) mod archive;
mod tunnel;
pub(crate) mod workload;

use std::sync::Arc;

use apimachinery::logs::ROTATED_AWAY;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body;
use crate::dispatch::Context;
use crate::error::{ApiError, Error, Result};
use crate::kinds;
use crate::object;
use crate::server::ApiServer;

pub(crate) use tunnel::tunnel;

/// A kubelet's reason is a line or two.
const MAX_REFUSAL: usize = 16 << 10;
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

pub(crate) async fn respond(server: &ApiServer, ctx: &Context, req: Request<Body>) -> Result<Response> {
    let info = &ctx.info;
    let sub = info.subresource.as_str();
    if !matches!(
        (sub, req.method()),
        ("log", &Method::GET) | ("exec" | "attach" | "portforward", &(Method::GET | Method::POST))
    ) {
        return Err(ApiError::method_not_allowed());
    }
    let pods = kinds::by_resource("", "pods").expect("pods are a kind");
    let pod = match server.get(&pods, &info.namespace, &info.name).await {
        Ok(o) => o.value(),
        Err(e) if sub == "log" && e.code == 404 => return archive::respond(server, ctx, None, e).await,
        Err(e) => return Err(e),
    };
    let container = match sub {
        "portforward" => String::new(),
        _ => container(&pod, ctx.query.get("container"))?,
    };
    if sub == "log" {
        check_waiting(&pod, &container, ctx)?;
    } else if matches!(object::text(&pod, "status.phase"), Some("Succeeded" | "Failed")) {
        let phase = object::text(&pod, "status.phase").unwrap_or_default();
        return Err(ApiError::bad_request(format!(
            "cannot {sub} into a container in a completed pod; current phase is {phase}"
        )));
    }
    let node = object::text(&pod, "spec.nodeName").unwrap_or_default().to_owned();
    if node.is_empty() {
        // Upstream answers an empty log for a pod that has no node yet.
        return if sub == "log" {
            Ok(body::text(200, ""))
        } else {
            Err(ApiError::bad_request(format!("pod {} does not have a host assigned", info.name)))
        };
    }
    let endpoint = endpoint(server, &node)?;
    let query = query_without_container(req.uri());
    let path = match sub {
        "log" => format!("/containerLogs/{}/{}/{container}", info.namespace, info.name),
        "portforward" => format!("/portForward/{}/{}", info.namespace, info.name),
        _ => format!("/{sub}/{}/{}/{container}", info.namespace, info.name),
    };
    let uri = if query.is_empty() { path } else { format!("{path}?{query}") };
    let unreachable = |e: String| {
        ApiError::internal(format!("error dialing the kubelet of node {node} at {endpoint}: {e}"))
    };
    let sender = match connect(server, &endpoint).await.map_err(unreachable) {
        Ok(s) => s,
        // The node is away; what it said until then is not.
        Err(e) if sub == "log" => return archive::respond(server, ctx, Some(container), e).await,
        Err(e) => return Err(e),
    };
    let answer = forward(sender, req, &uri, &endpoint, sub != "log").await.map_err(unreachable)?;
    if answer.status().is_client_error() || answer.status().is_server_error() {
        let refusal = refusal(answer, ctx).await;
        return if sub == "log" {
            archive::respond(server, ctx, Some(container), refusal).await
        } else {
            Err(refusal)
        };
    }
    Ok(if sub == "log" { archive::complete(server, ctx, &pod, container, answer).await } else { answer })
}

/// What a kubelet refuses in plain text, as a Status (apiserver: pkg/registry/generic/rest/response_checker.go).
async fn refusal(answer: Response, ctx: &Context) -> ApiError {
    let code = answer.status().as_u16();
    let text = match Limited::new(answer.into_body(), MAX_REFUSAL).collect().await {
        Ok(b) => String::from_utf8_lossy(&b.to_bytes()).trim().to_owned(),
        Err(e) => format!("the kubelet's answer could not be read: {e}"),
    };
    match code {
        400 => ApiError::bad_request(text),
        404 => {
            let mut e = ApiError::new(404, "NotFound", text);
            e.details = Some(json!({"name": ctx.info.name, "kind": ctx.info.resource}));
            e
        }
        403 => ApiError::new(403, "Forbidden", text),
        _ => ApiError::internal(text),
    }
}

/// The container that is meant (kubernetes: pkg/registry/core/pod/strategy.go).
fn container(pod: &Value, asked: Option<&str>) -> Result<String> {
    let name = object::name(pod);
    let of = |list: &str| -> Vec<&str> {
        object::list(pod, &format!("spec.{list}")).iter().filter_map(|c| c["name"].as_str()).collect()
    };
    let (containers, inits, ephemeral) = (of("containers"), of("initContainers"), of("ephemeralContainers"));
    let known = |c: &str| containers.contains(&c) || inits.contains(&c) || ephemeral.contains(&c);
    if let Some(asked) = asked {
        return if known(asked) {
            Ok(asked.to_owned())
        } else {
            Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")))
        };
    }
    let annotated = object::get(pod, "metadata.annotations")
        .and_then(|a| a.get(DEFAULT_CONTAINER))
        .and_then(Value::as_str);
    if let Some(c) = annotated.filter(|c| containers.contains(c)) {
        return Ok(c.to_owned());
    }
    match containers.as_slice() {
        [only] => Ok((*only).to_owned()),
        // kubectl logs and exec choose themselves; others are told what there is.
        many => {
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                many.join(" ")
            );
            if !inits.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", inits.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

/// A container that has not started has no log.
fn check_waiting(pod: &Value, container: &str, ctx: &Context) -> Result<()> {
    if ctx.query.flag("previous") {
        return Ok(());
    }
    let lists = ["status.containerStatuses", "status.initContainerStatuses"];
    let status = lists.iter().flat_map(|l| object::list(pod, l)).find(|s| s["name"] == container);
    let Some(status) = status else { return Ok(()) };
    let waiting = object::get(status, "state.waiting");
    let ran = object::get(status, "lastState.terminated").is_some();
    match waiting {
        Some(w) if !ran => {
            let pod = object::name(pod);
            let reason = w["reason"].as_str().unwrap_or_default();
            let message = match reason {
                "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => format!(
                    "container \"{container}\" in pod \"{pod}\" is waiting to start: {}",
                    if reason == "ErrImagePull" {
                        "image can't be pulled"
                    } else {
                        "trying and failing to pull image"
                    }
                ),
                reason => format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}"),
            };
            Err(ApiError::bad_request(message))
        }
        _ => Ok(()),
    }
}

/// `host:port` of a node's own API.
fn endpoint(server: &ApiServer, node: &str) -> Result<String> {
    let nodes = kinds::by_resource("", "nodes").expect("nodes are a kind");
    let o = server.cache.get(nodes.index, node).ok_or_else(|| ApiError::not_found(&nodes, node))?.value();
    let addresses = object::list(&o, "status.addresses");
    let address = ["InternalIP", "Hostname"]
        .iter()
        .find_map(|kind| addresses.iter().find(|a| a["type"] == *kind).and_then(|a| a["address"].as_str()))
        .ok_or_else(|| ApiError::internal(format!("node {node} has no address")))?;
    let port = object::int(&o, "status.daemonEndpoints.kubeletEndpoint.Port").unwrap_or(10250);
    Ok(if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") })
}

/// TLS towards kubelets: our certificate, and only our CA.
pub(crate) fn client_config(pki: &crate::pki::Pki) -> std::result::Result<Arc<rustls::ClientConfig>, Error> {
    let bad = |e: rustls::Error| Error::Certificate(e.to_string());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.ca_der()?).map_err(bad)?;
    let (certs, key) = pki.kubelet_client.der()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(bad)?
        .with_root_certificates(roots)
        .with_client_auth_cert(certs, key)
        .map_err(bad)?;
    Ok(Arc::new(config))
}

type Sender = hyper::client::conn::http1::SendRequest<Body>;

async fn connect(server: &ApiServer, endpoint: &str) -> std::result::Result<Sender, String> {
    let config = client_config(&server.config.pki).map_err(|e| e.to_string())?;
    let tcp = TcpStream::connect(endpoint).await.map_err(|e| e.to_string())?;
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(h, _)| h).trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
    let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(|e| e.to_string())?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(|e| e.to_string())?;
    telemetry::task::spawn("apiserver-kubelet-connection", async move {
        if let Err(e) = connection.with_upgrades().await {
            tracing::debug!(error = %e, "a connection to a kubelet ended");
        }
    });
    Ok(sender)
}

async fn forward(
    mut sender: Sender,
    mut req: Request<Body>,
    uri: &str,
    host: &str,
    upgrade: bool,
) -> std::result::Result<Response, String> {
    let client = upgrade.then(|| hyper::upgrade::on(&mut req));
    let mut out = Request::builder()
        .method(req.method().clone())
        .uri(uri)
        .body(Body::empty())
        .map_err(|e| e.to_string())?;
    for (name, value) in req.headers() {
        let n = name.as_str();
        let passed = n.starts_with("sec-websocket-")
            || n.starts_with("x-stream-")
            || upgrade && matches!(n, "connection" | "upgrade");
        if passed {
            out.headers_mut().append(name.clone(), value.clone());
        }
    }
    out.headers_mut().insert(header::HOST, HeaderValue::from_str(host).map_err(|e| e.to_string())?);
    let mut answer = sender.send_request(out).await.map_err(|e| e.to_string())?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else { return Err("the kubelet switched protocols unasked".to_owned()) };
        let kubelet = hyper::upgrade::on(&mut answer);
        tunnel("apiserver-tunnel", client, kubelet);
        let mut r = Response::new(Body::empty());
        *r.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *r.headers_mut() = answer.headers().clone();
        return Ok(r);
    }
    let (parts, incoming) = answer.into_parts();
    let mut r = Response::new(Body::new(incoming.map_err(axum::Error::new)));
    *r.status_mut() = parts.status;
    for name in [header::CONTENT_TYPE.as_str(), ROTATED_AWAY] {
        if let Some(value) = parts.headers.get(name) {
            r.headers_mut().insert(HeaderName::from_static(name), value.clone());
        }
    }
    Ok(r)
}

/// The container stands in the path there.
fn query_without_container(uri: &Uri) -> String {
    let q = uri.query().unwrap_or_default();
    q.split('&').filter(|p| !p.is_empty() && !p.starts_with("container=")).collect::<Vec<_>>().join("&")
}
