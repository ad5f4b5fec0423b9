//! `metrics.k8s.io/v1beta1`: what `kubectl top` shows, from the TSDB.

mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use apimachinery::selector::Selector;
use apiserver::LocalApi;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use client::{Informers, Key};
use k8s_openapi::api::core::v1::{Node, Pod};
use promql::{Engine, Value};
use serde::Deserialize;
use serde_json::json;
use signal::time::SharedClock;
use table::Shape;

/// Rates look back this far; it is also the `window` that the answer names.
const WINDOW_S: u32 = 15;
const VERSION: &str = "metrics.k8s.io/v1beta1";

#[derive(Clone)]
struct Api {
    engine: Arc<Engine>,
    clock: SharedClock,
    /// Whose labels selectors are about; known once the cluster's own clients are.
    informers: Arc<OnceLock<Informers>>,
}

type Labels = Option<BTreeMap<String, String>>;

pub(super) fn local_api(
    engine: Arc<Engine>,
    clock: SharedClock,
    informers: Arc<OnceLock<Informers>>,
) -> LocalApi {
    let root = "/apis/metrics.k8s.io/v1beta1";
    let router = Router::new()
        .route(&format!("{root}/nodes"), get(nodes))
        .route(&format!("{root}/nodes/{{name}}"), get(node))
        .route(&format!("{root}/pods"), get(pods))
        .route(&format!("{root}/namespaces/{{namespace}}/pods"), get(pods_in))
        .route(&format!("{root}/namespaces/{{namespace}}/pods/{{name}}"), get(pod))
        .with_state(Api { engine, clock, informers });
    let resource = |name: &str, kind: &str, namespaced: bool| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]});
    LocalApi {
        group: "metrics.k8s.io".to_owned(),
        version: "v1beta1".to_owned(),
        resources: vec![resource("nodes", "NodeMetrics", false), resource("pods", "PodMetrics", true)],
        router,
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selectors {
    #[serde(default)]
    label_selector: String,
    #[serde(default)]
    field_selector: String,
}

/// (labels, value) of an instant query.
type Samples = Vec<(signal::Labels, f64)>;

struct Failed(StatusCode, String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let reason = match self.0 {
            StatusCode::NOT_FOUND => "NotFound",
            StatusCode::BAD_REQUEST => "BadRequest",
            _ => "InternalError",
        };
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.1, "reason": reason, "code": self.0.as_u16()});
        (self.0, Json(status)).into_response()
    }
}

impl Selectors {
    fn labels(&self) -> Result<Selector, Failed> {
        Selector::parse(&self.label_selector).map_err(|e| Failed(StatusCode::BAD_REQUEST, e.to_string()))
    }
}

impl Api {
    /// A pod's labels; `None` if there is no such pod any more.
    fn labels_of_pod(&self, (namespace, name): &(String, String)) -> Option<Labels> {
        let pod = self.informers.get()?.of::<Pod>().get(&Key::new(namespace, name))?;
        Some(pod.metadata.labels.clone())
    }

    fn labels_of_node(&self, name: &str) -> Option<Labels> {
        let node = self.informers.get()?.of::<Node>().get(&Key::new("", name))?;
        Some(node.metadata.labels.clone())
    }

    async fn query(&self, expr: String) -> Result<Samples, Failed> {
        let (engine, now) = (self.engine.clone(), self.clock.now().millis());
        let failed = |e: String| Failed(StatusCode::INTERNAL_SERVER_ERROR, e);
        let result = tokio::task::spawn_blocking(move || engine.instant(&expr, now))
            .await
            .map_err(|e| failed(e.to_string()))?
            .map_err(|e| failed(e.to_string()))?;
        match result.value {
            Value::Vector(v) => Ok(v.into_iter().map(|(l, s)| (l, s.value)).collect()),
            _ => Err(failed("the query gives no vector".to_owned())),
        }
    }

    fn stamp(&self) -> String {
        let seconds = self.clock.now().millis() / 1000;
        jiff::Timestamp::from_second(seconds).map(|t| t.to_string()).unwrap_or_default()
    }

    /// Usage of each pod's containers: `(namespace, pod) → container → (cpu cores, bytes)`.
    async fn usage(
        &self,
        matchers: &str,
    ) -> Result<BTreeMap<(String, String), BTreeMap<String, (f64, f64)>>, Failed> {
        let by = "sum by (namespace, pod, container)";
        let cpu = self.query(format!(
            "{by} (rate(container_cpu_usage_seconds_total{{container!=\"\"{matchers}}}[{WINDOW_S}s]))"
        ));
        let memory =
            self.query(format!("{by} (container_memory_working_set_bytes{{container!=\"\"{matchers}}})"));
        let (cpu, memory) = tokio::try_join!(cpu, memory)?;
        let mut out: BTreeMap<_, BTreeMap<String, (f64, f64)>> = BTreeMap::new();
        let mut put = |samples: Samples, set: fn(&mut (f64, f64), f64)| {
            for (l, v) in samples {
                let get = |n: &str| l.get(n).unwrap_or_default().to_owned();
                set(
                    out.entry((get("namespace"), get("pod")))
                        .or_default()
                        .entry(get("container"))
                        .or_default(),
                    v,
                );
            }
        };
        put(cpu, |u, v| u.0 = v);
        put(memory, |u, v| u.1 = v);
        Ok(out)
    }

    fn pod_metrics(
        &self,
        key: &(String, String),
        containers: &BTreeMap<String, (f64, f64)>,
    ) -> serde_json::Value {
        let containers: Vec<_> =
            containers.iter().map(|(name, u)| json!({"name": name, "usage": amounts(*u)})).collect();
        let mut metadata = json!({"name": key.1, "namespace": key.0, "creationTimestamp": self.stamp()});
        if let Some(Some(labels)) = self.labels_of_pod(key) {
            metadata["labels"] = json!(labels);
        }
        json!({"kind": "PodMetrics", "apiVersion": VERSION, "metadata": metadata,
            "timestamp": self.stamp(), "window": format!("{WINDOW_S}s"), "containers": containers})
    }

    async fn node_usage(&self) -> Result<BTreeMap<String, (f64, f64)>, Failed> {
        let cpu = self.query(format!(
            "sum by (node) (rate(container_cpu_usage_seconds_total{{id=\"/\"}}[{WINDOW_S}s]))"
        ));
        let memory = self.query("sum by (node) (container_memory_working_set_bytes{id=\"/\"})".to_owned());
        let (cpu, memory) = tokio::try_join!(cpu, memory)?;
        let mut out: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for (l, v) in cpu {
            out.entry(l.get("node").unwrap_or_default().to_owned()).or_default().0 = v;
        }
        for (l, v) in memory {
            out.entry(l.get("node").unwrap_or_default().to_owned()).or_default().1 = v;
        }
        Ok(out)
    }

    fn node_metrics(&self, name: &str, usage: (f64, f64)) -> serde_json::Value {
        let mut metadata = json!({"name": name, "creationTimestamp": self.stamp()});
        if let Some(Some(labels)) = self.labels_of_node(name) {
            metadata["labels"] = json!(labels);
        }
        json!({"kind": "NodeMetrics", "apiVersion": VERSION, "metadata": metadata,
            "timestamp": self.stamp(), "window": format!("{WINDOW_S}s"), "usage": amounts(usage)})
    }
}

fn amounts((cores, bytes): (f64, f64)) -> serde_json::Value {
    json!({"cpu": format!("{}n", (cores * 1e9).round() as i64), "memory": format!("{}Ki", (bytes / 1024.0).round() as i64)})
}

fn list(kind: &str, items: Vec<serde_json::Value>) -> serde_json::Value {
    json!({"kind": kind, "apiVersion": VERSION, "metadata": {}, "items": items})
}

async fn nodes(State(api): State<Api>, Query(s): Query<Selectors>, shape: Shape) -> Result<Response, Failed> {
    let selector = s.labels()?;
    let usage = api.node_usage().await?;
    let chosen = usage.into_iter().filter(|(n, _)| {
        selector.is_everything() || api.labels_of_node(n).is_some_and(|l| selector.matches_labels(l.as_ref()))
    });
    Ok(shape.answer(list("NodeMetricsList", chosen.map(|(n, u)| api.node_metrics(&n, u)).collect())))
}

async fn node(State(api): State<Api>, Path(name): Path<String>, shape: Shape) -> Result<Response, Failed> {
    match api.node_usage().await?.get(&name) {
        Some(usage) => Ok(shape.answer(api.node_metrics(&name, *usage))),
        None => {
            Err(Failed(StatusCode::NOT_FOUND, format!("nodemetrics.metrics.k8s.io \"{name}\" not found")))
        }
    }
}

async fn pods(State(api): State<Api>, Query(s): Query<Selectors>, shape: Shape) -> Result<Response, Failed> {
    many(&api, "", &s, &shape).await
}

/// A string of PromQL. What a path names need not be a name.
fn quoted(s: &str) -> String {
    format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

async fn pods_in(
    State(api): State<Api>,
    Path(ns): Path<String>,
    Query(s): Query<Selectors>,
    shape: Shape,
) -> Result<Response, Failed> {
    many(&api, &format!(",namespace={}", quoted(&ns)), &s, &shape).await
}

async fn many(api: &Api, matchers: &str, s: &Selectors, shape: &Shape) -> Result<Response, Failed> {
    let name = s
        .field_selector
        .strip_prefix("metadata.name=")
        .map(|n| format!(",pod={}", quoted(n)))
        .unwrap_or_default();
    let selector = s.labels()?;
    let usage = api.usage(&format!("{matchers}{name}")).await?;
    let chosen = usage.iter().filter(|(k, _)| {
        selector.is_everything() || api.labels_of_pod(k).is_some_and(|l| selector.matches_labels(l.as_ref()))
    });
    Ok(shape.answer(list("PodMetricsList", chosen.map(|(k, c)| api.pod_metrics(k, c)).collect())))
}

async fn pod(
    State(api): State<Api>,
    Path((ns, name)): Path<(String, String)>,
    shape: Shape,
) -> Result<Response, Failed> {
    let usage = api.usage(&format!(",namespace={},pod={}", quoted(&ns), quoted(&name))).await?;
    match usage.iter().next() {
        Some((key, containers)) => Ok(shape.answer(api.pod_metrics(key, containers))),
        None => {
            Err(Failed(StatusCode::NOT_FOUND, format!("podmetrics.metrics.k8s.io \"{ns}/{name}\" not found")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn any_path_is_a_string_of_promql() {
        assert_eq!(quoted("shop"), r#""shop""#);
        assert_eq!(quoted("a\"b\\c\nd\u{18}é"), "\"a\\\"b\\\\c\\nd\u{18}é\"");
    }
}
