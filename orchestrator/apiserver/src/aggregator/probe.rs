//! Whether the servers of aggregated APIs are there, in the condition `Available`, and what they have, for discovery
//! (kubernetes: staging/src/k8s.io/kube-aggregator/pkg/controllers/status/remote).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::user::{MASTERS, UserInfo};
use axum::body::Body;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use std::time::Instant;

use super::document::Document;
use super::metrics;
use super::{Known, Remote, proxy, services};
use crate::error::Result;
use crate::kinds::{self, apiregistration};
use crate::object;
use crate::registry::{Part, WriteContext};
use crate::server::ApiServer;

/// A server that is there is asked again after this, one that is not after more and more time up to this.
const EVERY: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const MAX_ANSWER: usize = 8 << 20;

/// What a probe found.
struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
    heard: Option<Known>,
}

impl Verdict {
    fn no(reason: &'static str, message: String) -> Self {
        Verdict { status: "False", reason, message, heard: None }
    }
}

/// When a server is asked next.
struct Plan {
    /// What it was asked for: its row and its service as they were.
    seen: (u64, u64),
    at: Instant,
    failures: u32,
}

/// Follows all APIServices until the server stops.
pub(crate) async fn run(server: Arc<ApiServer>) {
    let mut published = server.cache.subscribe();
    let mut plans: HashMap<String, Plan> = HashMap::new();
    loop {
        let remotes = server.aggregator.remotes();
        plans.retain(|name, _| remotes.iter().any(|r| r.name == *name));
        server.aggregator.forget(|name| remotes.iter().any(|r| r.name == name));
        let looked = marks(&server, !remotes.is_empty());
        let now = server.config.clock.monotonic();
        let due: Vec<&Arc<Remote>> = remotes
            .iter()
            .filter(|r| plans.get(&r.name).is_none_or(|p| p.at <= now || p.seen != seen(&server, r)))
            .collect();
        let asked = due.iter().map(|remote| async {
            let before = seen(&server, remote);
            (remote.name.clone(), before, look(&server, remote).await)
        });
        for (name, before, good) in futures::future::join_all(asked).await {
            let failures = if good { 0 } else { plans.get(&name).map_or(0, |p| p.failures) + 1 };
            let pause = match failures {
                0 => EVERY,
                n => (FIRST_RETRY * 2u32.saturating_pow(n - 1)).min(EVERY),
            };
            plans.insert(name, Plan { seen: before, at: server.config.clock.monotonic() + pause, failures });
        }
        let next = plans.values().map(|p| p.at).min();
        let pause = next.map(|at| at.saturating_duration_since(server.config.clock.monotonic()));
        let moved = async {
            while marks(&server, !remotes.is_empty()) == looked {
                if published.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = server.stop.cancelled() => return,
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            () = moved => {}
        }
    }
}

/// When what matters changed last; services matter if there is somebody behind one.
fn marks(server: &ApiServer, remotes: bool) -> (u64, u64, u64) {
    let changed = |group: &str, resource: &str| {
        kinds::by_resource(group, resource).map_or(0, |s| server.cache.changed(s.index))
    };
    let rows = server.cache.changed(services().index);
    if !remotes {
        return (rows, 0, 0);
    }
    (rows, changed("", "services"), changed("discovery.k8s.io", "endpointslices"))
}

/// What a remote's row asks for and where its service is, as far as a probe depends on it.
fn seen(server: &ApiServer, remote: &Remote) -> (u64, u64) {
    let hash = |text: &str| {
        let digest = <sha2::Sha256 as sha2::Digest>::digest(text.as_bytes());
        digest.iter().take(8).fold(0u64, |n, b| n << 8 | u64::from(*b))
    };
    let row =
        server.cache.get(services().index, &remote.name).map_or(0, |o| hash(&o.value()["spec"].to_string()));
    let services = kinds::by_resource("", "services").expect("services are a kind");
    let service = server.cache.get(services.index, &format!("{}/{}", remote.namespace, remote.service));
    let mut text = service.map_or(String::new(), |s| s.value()["spec"].to_string());
    for slice in slices(server, remote) {
        text.push_str(&slice["endpoints"].to_string());
        text.push_str(&slice["ports"].to_string());
    }
    (row, hash(&text))
}

fn slices(server: &ApiServer, remote: &Remote) -> Vec<Value> {
    let kind = kinds::by_resource("discovery.k8s.io", "endpointslices").expect("slices are a kind");
    let all = server.cache.list(kind.index, Some(&remote.namespace)).objects;
    let own = all.iter().filter(|s| s.label("kubernetes.io/service-name") == Some(remote.service.as_str()));
    own.map(|s| s.value()).collect()
}

/// Asks one and writes down what was found. Whether it is there.
async fn look(server: &ApiServer, remote: &Remote) -> bool {
    let verdict = judge(server, remote).await;
    let good = verdict.status == "True";
    metrics::probed(&remote.name, (!good).then_some(verdict.reason));
    if let Err(e) = write(server, remote, &verdict).await {
        tracing::warn!(name = remote.name, error = %e.message, "an APIService's status could not be written");
        return false;
    }
    server.aggregator.learn(&remote.name, verdict.heard);
    good
}

async fn judge(server: &ApiServer, remote: &Remote) -> Verdict {
    let (ns, name, port) = (&remote.namespace, &remote.service, remote.port);
    let services = kinds::by_resource("", "services").expect("services are a kind");
    let Some(service) = server.cache.get(services.index, &format!("{ns}/{name}")) else {
        return Verdict::no("ServiceNotFound", format!("service/{name} in {ns:?} is not present"));
    };
    let service = service.value();
    if object::text(&service, "spec.type").is_none_or(|t| t == "ClusterIP") {
        let ports = object::list(&service, "spec.ports");
        let Some(found) = ports.iter().find(|p| p["port"].as_u64() == Some(port.into())) else {
            let message = format!("service/{name} in {ns:?} is not listening on port {port}");
            return Verdict::no("ServicePortError", message);
        };
        let port_name = found["name"].as_str().unwrap_or_default();
        let slices = slices(server, remote);
        if slices.is_empty() {
            let message = format!("cannot find endpointslices for service/{name} in {ns:?}");
            return Verdict::no("EndpointsNotFound", message);
        }
        let served = slices.iter().any(|s| {
            let named = |p: &Value| p["name"].as_str().unwrap_or_default() == port_name;
            let ready = |e: &Value| object::get(e, "conditions.ready").is_none_or(|r| r != false);
            object::list(s, "ports").iter().any(named) && object::list(s, "endpoints").iter().any(ready)
        });
        if !served {
            let message = format!(
                "endpointslices for service/{name} in {ns:?} have no addresses with port name {port_name:?}"
            );
            return Verdict::no("MissingEndpoints", message);
        }
    }
    let ip = object::text(&service, "spec.clusterIP").filter(|ip| !matches!(*ip, "" | "None"));
    let at = ip.map_or_else(|| format!("{name}.{ns}.svc"), str::to_owned);
    let path = format!("/apis/{}/{}", remote.group, remote.version);
    let url = format!("https://{at}:{port}{path}");
    let failing = |why: String| {
        Verdict::no("FailedDiscoveryCheck", format!("failing or missing response from {url}: {why}"))
    };
    let body = match fetch(server, remote, &path).await {
        Ok((200..=299, body)) => body,
        Ok((code, _)) => return failing(format!("bad status from {url}: {code}")),
        Err(why) => return failing(format!("Get \"{url}\": {why}")),
    };
    let resources = serde_json::from_slice::<Value>(&body).ok().filter(|v| v["resources"].is_array());
    let openapi = openapi(server, remote).await;
    let before = server.aggregator.known(&remote.name);
    // Its document is large, and the hash in version 3's index says whether it is another one.
    let document = match before.document {
        Some(d) if openapi.is_some() && before.openapi == openapi => Some(d),
        _ => document(server, remote).await.map(Arc::new),
    };
    Verdict {
        status: "True",
        reason: "Passed",
        message: "all checks passed".to_owned(),
        heard: Some(Known { resources: resources.map(Arc::new), openapi, document, fresh: true }),
    }
}

/// What stands behind the `?` of its document's address.
async fn openapi(server: &ApiServer, remote: &Remote) -> Option<String> {
    let (200, body) = fetch(server, remote, "/openapi/v3").await.ok()? else { return None };
    let index: Value = serde_json::from_slice(&body).ok()?;
    let document = &index["paths"][format!("apis/{}/{}", remote.group, remote.version)];
    let (_, query) = document["serverRelativeURL"].as_str()?.split_once('?')?;
    Some(query.to_owned())
}

/// What it adds to OpenAPI v2, if it has one.
async fn document(server: &ApiServer, remote: &Remote) -> Option<Document> {
    let (200, body) = fetch(server, remote, "/openapi/v2").await.ok()? else { return None };
    Document::of(&serde_json::from_slice(&body).ok()?, &remote.group, &remote.version)
}

/// Asks as one who may everything, as the aggregator itself.
async fn fetch(server: &ApiServer, remote: &Remote, path: &str) -> std::result::Result<(u16, Bytes), String> {
    let mut req = Request::get(proxy::url(remote, path))
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "kube-aggregator")
        .body(Body::empty())
        .map_err(|e| e.to_string())?;
    proxy::identify(
        req.headers_mut(),
        &UserInfo {
            name: "system:kube-aggregator".to_owned(),
            groups: vec![MASTERS.to_owned()],
            ..UserInfo::default()
        },
    )?;
    let exchange = async {
        let answer = proxy::send(server, remote, req).await?;
        let code = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| e.to_string())?;
        Ok((code, body.to_bytes()))
    };
    let answered = tokio::time::timeout(ANSWER_WITHIN, exchange).await;
    answered.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
}

async fn write(server: &ApiServer, remote: &Remote, verdict: &Verdict) -> Result<()> {
    let now = object::rfc3339(server.now());
    let mut change = |old: &Value| {
        let was = apiregistration::available(old);
        let since = match was {
            Some(c) if c["status"] == verdict.status => c["lastTransitionTime"].clone(),
            _ => now.as_str().into(),
        };
        let condition = json!({"type": "Available", "status": verdict.status, "reason": verdict.reason,
            "message": verdict.message, "lastTransitionTime": since});
        let mut all = object::list(old, "status.conditions").to_vec();
        all.retain(|c| c["type"] != "Available");
        all.push(condition);
        let mut new = old.clone();
        object::child(&mut new, "status")["conditions"] = all.into();
        Ok(new)
    };
    let mut ctx = WriteContext::default();
    "binnacle".clone_into(&mut ctx.options.field_manager);
    match server.update(&services(), "", &remote.name, &ctx, Part::Status, &mut change).await {
        Err(e) if e.code != 404 => Err(e),
        _ => Ok(()),
    }
}
