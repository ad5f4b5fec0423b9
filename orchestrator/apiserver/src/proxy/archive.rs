//! Logs that no node has any more: of deleted pods, of containers' earlier lives, of nodes that do not answer, and what
//! nodes have rotated away. They come
//! from wherever lines are kept, for as long as they are.
//!
//! `kubectl logs NAME` reads the pod first. A deleted one is shown to that command alone, which says who it is in a
//! header (KEP-859): with the containers whose lines are kept, in phase `Unknown`, annotated as gone. No list and no
//! other command ever sees it.

use std::sync::Arc;

use apimachinery::logs::{ROTATED_AWAY, RotatedAway};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};
use signal::Timestamp;

use crate::body;
use crate::dispatch::Context;
use crate::error::{ApiError, Result};
use crate::object;
use crate::server::ApiServer;

/// What is wanted of a container's log, in the words of `kubectl logs`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PastLogQuery {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    /// Which of the container's lives; the last one that is known if `None`.
    pub life: Option<i64>,
    /// The life before the last one that is known.
    pub previous: bool,
    pub since: Option<Timestamp>,
    /// Lines before this time only.
    pub until: Option<Timestamp>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub timestamps: bool,
    /// `stdout` or `stderr`; both if `None`.
    pub stream: Option<String>,
}

/// A pod of which lines are kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PastPod {
    pub node: String,
    /// In order of name.
    pub containers: Vec<String>,
}

type Found<T> = BoxFuture<'static, std::result::Result<Option<T>, String>>;
type PodFn = Arc<dyn Fn(String, String) -> Found<PastPod> + Send + Sync>;
type LogFn = Arc<dyn Fn(PastLogQuery) -> Found<BoxStream<'static, std::io::Result<Bytes>>> + Send + Sync>;

/// Where lines are kept. `None` of either says that there is nothing.
#[derive(Clone)]
pub struct LogArchive {
    /// By namespace and name.
    pub pod: PodFn,
    pub log: LogFn,
}

/// The pod that `kubectl logs` asks for before it asks for lines.
pub(crate) async fn gone_pod(server: &ApiServer, ctx: &Context) -> Option<Value> {
    let asked = ctx.headers.get("kubectl-command").and_then(|v| v.to_str().ok())?;
    if !asked.split_whitespace().eq(["kubectl", "logs"]) {
        return None;
    }
    let (namespace, name) = (&ctx.info.namespace, &ctx.info.name);
    let pod = find(server, namespace, name).await?;
    let containers: Vec<Value> =
        pod.containers.iter().map(|c| json!({"name": c, "image": "unknown"})).collect();
    Some(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "annotations": {"binnacle.io/gone": "true"}},
        "spec": {"nodeName": pod.node, "containers": containers},
        "status": {"phase": "Unknown", "reason": "Gone", "message": "the pod is deleted; its lines are kept"},
    }))
}

async fn find(server: &ApiServer, namespace: &str, name: &str) -> Option<PastPod> {
    let archive = server.config.past_logs.as_ref()?;
    match (archive.pod)(namespace.to_owned(), name.to_owned()).await {
        Ok(found) => found.filter(|p| !p.containers.is_empty()),
        Err(e) => {
            tracing::warn!(namespace, pod = name, error = %e, "kept lines cannot be looked through");
            None
        }
    }
}

/// The lines that are kept; `otherwise` if there are none.
pub(crate) async fn respond(
    server: &ApiServer,
    ctx: &Context,
    container: Option<String>,
    otherwise: ApiError,
) -> Result<Response> {
    let Some(archive) = &server.config.past_logs else { return Err(otherwise) };
    let (namespace, name) = (&ctx.info.namespace, &ctx.info.name);
    let container = match container {
        Some(c) => c,
        None => {
            let Some(pod) = find(server, namespace, name).await else { return Err(otherwise) };
            match (ctx.query.get("container"), pod.containers.as_slice()) {
                (Some(c), known) if known.iter().any(|k| k == c) => c.to_owned(),
                (None, [only]) => only.clone(),
                (Some(c), _) => {
                    return Err(ApiError::bad_request(format!("container {c} is not valid for pod {name}")));
                }
                (None, many) => {
                    return Err(ApiError::bad_request(format!(
                        "a container name must be specified for pod {name}, choose one of: [{}]",
                        many.join(" ")
                    )));
                }
            }
        }
    };
    match (archive.log)(asked(server, ctx, container)).await {
        Ok(Some(lines)) => {
            let mut r = body::text(200, "");
            *r.headers_mut() = HeaderMap::from_iter([
                (header::CONTENT_TYPE, HeaderValue::from_static("text/plain")),
                (header::HeaderName::from_static("x-binnacle-source"), HeaderValue::from_static("log-index")),
            ]);
            *r.body_mut() = Body::from_stream(lines);
            Ok(r)
        }
        Ok(None) => Err(otherwise),
        Err(e) => {
            tracing::warn!(namespace, pod = name, error = %e, "kept lines cannot be read");
            Err(otherwise)
        }
    }
}

/// Puts in front of a node's answer the lines that the node has rotated away.
pub(crate) async fn complete(
    server: &ApiServer,
    ctx: &Context,
    pod: &Value,
    container: String,
    mut answer: Response,
) -> Response {
    let away = answer.headers_mut().remove(ROTATED_AWAY);
    let away = away.and_then(|v| v.to_str().ok()?.parse::<RotatedAway>().ok());
    let (Some(archive), Some(away)) = (&server.config.past_logs, away) else { return answer };
    let mut query = asked(server, ctx, container);
    // A pod of the same name may have been there before.
    let began = object::text(pod, "metadata.creationTimestamp")
        .and_then(|t| t.parse::<jiff::Timestamp>().ok())
        .and_then(|t| i64::try_from(t.as_nanosecond()).ok())
        .map(Timestamp);
    query.since = query.since.max(began);
    (query.life, query.previous, query.until) = (Some(away.life), false, Some(Timestamp(away.before)));
    query.tail_lines = away.lines;
    let limit = query.limit_bytes;
    match (archive.log)(query).await {
        Ok(Some(lines)) => {
            let node = std::mem::take(answer.body_mut()).into_data_stream();
            let all = lines.map_err(axum::Error::new).chain(node);
            *answer.body_mut() = match limit {
                None => Body::from_stream(all),
                Some(limit) => Body::from_stream(all.scan(limit, |left, piece| {
                    let piece = (*left > 0).then(|| {
                        piece.map(|mut p| {
                            p.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                            *left -= p.len() as u64;
                            p
                        })
                    });
                    std::future::ready(piece)
                })),
            };
        }
        Ok(None) => {}
        Err(e) => {
            tracing::warn!(namespace = ctx.info.namespace, pod = ctx.info.name, error = %e, "kept lines cannot be read");
        }
    }
    answer
}

/// What the request wants, of this container.
fn asked(server: &ApiServer, ctx: &Context, container: String) -> PastLogQuery {
    let (namespace, name) = (&ctx.info.namespace, &ctx.info.name);
    let number = |n: &str| ctx.query.get(n).and_then(|v| v.parse::<u64>().ok());
    let since = ctx
        .query
        .get("sinceTime")
        .and_then(|t| t.parse::<jiff::Timestamp>().ok())
        .and_then(|t| i64::try_from(t.as_nanosecond()).ok())
        .map(Timestamp)
        .or_else(|| {
            number("sinceSeconds")
                .map(|s| server.config.clock.now().saturating_sub(std::time::Duration::from_secs(s)))
        });
    let stream =
        ctx.query.get("stream").filter(|s| !s.is_empty() && *s != "All").map(str::to_ascii_lowercase);
    PastLogQuery {
        namespace: namespace.clone(),
        pod: name.clone(),
        container,
        life: None,
        previous: ctx.query.flag("previous"),
        since,
        until: None,
        tail_lines: number("tailLines"),
        limit_bytes: number("limitBytes"),
        timestamps: ctx.query.flag("timestamps"),
        stream,
    }
}
