//! `kube_*` metrics of the cluster's objects, under kube-state-metrics' names.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::quantity::Quantity as Amount;
use client::{Informer, Informers, Key};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Container, Namespace, Node, Pod, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use signal::time::SharedClock;
use signal::{Labels, METRIC_NAME, MetricBatch, Sink, SinkError, stale_nan};
use tokio_util::sync::CancellationToken;

/// Between two readings of all objects. They are gauges of slow things.
const INTERVAL: Duration = Duration::from_secs(10);

/// Samples written at once.
const BATCH: usize = 4096;

pub(crate) async fn run(
    informers: Informers,
    sink: Arc<dyn Sink>,
    clock: SharedClock,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut pods = Told::new(&informers, pod);
    let mut nodes = Told::new(&informers, node);
    let mut deployments = Told::new(&informers, deployment);
    let mut replicasets = Told::new(&informers, replicaset);
    let mut hpas = Told::new(&informers, hpa);
    let mut namespaces = Told::new(&informers, namespace);
    let mut services = Told::new(&informers, service);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let mut out = Samples { batch: MetricBatch::default(), now: clock.now().millis() };
        let told = async {
            pods.tell(&mut out, &*sink).await?;
            nodes.tell(&mut out, &*sink).await?;
            deployments.tell(&mut out, &*sink).await?;
            replicasets.tell(&mut out, &*sink).await?;
            hpas.tell(&mut out, &*sink).await?;
            namespaces.tell(&mut out, &*sink).await?;
            services.tell(&mut out, &*sink).await?;
            out.write(&*sink).await
        };
        if let Err(e) = told.await {
            tracing::warn!(error = %e, "state metrics were not stored");
        }
    }
}

/// The objects of a kind, and what was told of them last: the objects themselves, which the informer holds anyway, and
/// not their series, which are many times as large.
struct Told<K> {
    informer: Informer<K>,
    last: Vec<Arc<K>>,
    series: fn(&mut Samples, &K),
}

impl<K> Told<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    fn new(informers: &Informers, series: fn(&mut Samples, &K)) -> Told<K> {
        Told { informer: informers.of::<K>(), last: Vec::new(), series }
    }

    /// Samples of all objects, and the ends of the series that they no longer have.
    async fn tell(&mut self, out: &mut Samples, sink: &dyn Sink) -> Result<(), SinkError> {
        let all = self.informer.list();
        let mut before = std::mem::replace(&mut self.last, all.clone()).into_iter().peekable();
        for o in &all {
            let key = Key::of(&**o);
            // Both are in order of their keys.
            while let Some(gone) = before.next_if(|b| Key::of(&**b) < key) {
                out.end(&*gone, None, self.series);
            }
            if let Some(was) = before.next_if(|b| Key::of(&**b) == key)
                && !Arc::ptr_eq(&was, o)
            {
                out.end(&*was, Some(&**o), self.series);
            }
            (self.series)(out, o);
            if out.batch.series.len() >= BATCH {
                out.write(sink).await?;
            }
        }
        before.for_each(|gone| out.end(&*gone, None, self.series));
        Ok(())
    }
}

struct Samples {
    batch: MetricBatch,
    now: i64,
}

impl Samples {
    /// Writes what has come together.
    async fn write(&mut self, sink: &dyn Sink) -> Result<(), SinkError> {
        sink.write_metrics(std::mem::take(&mut self.batch)).await.map(drop)
    }

    /// Ends the series that an object had and that what became of it has not.
    fn end<K>(&mut self, was: &K, is: Option<&K>, series: fn(&mut Samples, &K)) {
        let of = |o: &K| {
            let mut own = Samples { batch: MetricBatch::default(), now: self.now };
            series(&mut own, o);
            own.batch.series.into_iter().map(|s| s.labels)
        };
        let kept: HashSet<Labels> = is.into_iter().flat_map(of).collect();
        let ended: Vec<Labels> = of(was).filter(|l| !kept.contains(l)).collect();
        for labels in ended {
            self.batch.push(labels, self.now, stale_nan());
        }
    }

    fn push(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels = Labels::from_pairs(labels.iter().copied().chain([(METRIC_NAME, name)]));
        self.batch.push(labels, self.now, value);
    }

    fn some(&mut self, name: &str, labels: &[(&str, &str)], value: Option<i32>) {
        if let Some(v) = value {
            self.push(name, labels, f64::from(v));
        }
    }
}

fn flag(b: bool) -> f64 {
    f64::from(u8::from(b))
}

fn amount(name: &str, q: &Quantity) -> Option<(f64, &'static str)> {
    let a: Amount = q.0.parse().ok()?;
    Some((
        a.to_f64(),
        if name == "cpu" {
            "core"
        } else if name == "pods" {
            "integer"
        } else {
            "byte"
        },
    ))
}

fn pod(out: &mut Samples, p: &Pod) {
    let (ns, name, uid) = (p.namespace().unwrap_or_default(), p.name_any(), p.uid().unwrap_or_default());
    let base = [("namespace", ns.as_str()), ("pod", name.as_str()), ("uid", uid.as_str())];
    let with = |extra: &[(&'static str, String)]| -> Vec<(String, String)> {
        base.iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .chain(extra.iter().map(|(a, b)| ((*a).to_owned(), b.clone())))
            .collect()
    };
    let mut push = |metric: &str, extra: &[(&'static str, String)], value: f64| {
        let labels = with(extra);
        let labels: Vec<(&str, &str)> = labels.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        out.push(metric, &labels, value);
    };
    let spec = p.spec.clone().unwrap_or_default();
    let status = p.status.clone().unwrap_or_default();
    let node = spec.node_name.clone().unwrap_or_default();
    let owner = p.owner_references().iter().find(|o| o.controller == Some(true));
    push(
        "kube_pod_info",
        &[
            ("node", node.clone()),
            ("host_ip", status.host_ip.clone().unwrap_or_default()),
            ("pod_ip", status.pod_ip.clone().unwrap_or_default()),
            ("created_by_kind", owner.map(|o| o.kind.clone()).unwrap_or_default()),
            ("created_by_name", owner.map(|o| o.name.clone()).unwrap_or_default()),
        ],
        1.0,
    );
    if let Some(o) = owner {
        push(
            "kube_pod_owner",
            &[
                ("owner_kind", o.kind.clone()),
                ("owner_name", o.name.clone()),
                ("owner_is_controller", "true".to_owned()),
            ],
            1.0,
        );
    }
    let phase = status.phase.clone().unwrap_or_else(|| "Pending".to_owned());
    for one in ["Pending", "Running", "Succeeded", "Failed", "Unknown"] {
        push("kube_pod_status_phase", &[("phase", one.to_owned())], flag(phase == one));
    }
    if let Some(t) = &p.metadata.creation_timestamp {
        push("kube_pod_created", &[], t.0.as_second() as f64);
    }
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    push("kube_pod_status_ready", &[("condition", "true".to_owned())], flag(ready));
    for c in status.container_statuses.iter().flatten() {
        let who = ("container", c.name.clone());
        push(
            "kube_pod_container_status_restarts_total",
            std::slice::from_ref(&who),
            f64::from(c.restart_count),
        );
        push("kube_pod_container_status_ready", std::slice::from_ref(&who), flag(c.ready));
        let state = c.state.clone().unwrap_or_default();
        push("kube_pod_container_status_running", std::slice::from_ref(&who), flag(state.running.is_some()));
        if let Some(reason) = state.waiting.and_then(|w| w.reason) {
            push("kube_pod_container_status_waiting_reason", &[who.clone(), ("reason", reason)], 1.0);
        }
        if let Some(reason) = c.last_state.clone().and_then(|s| s.terminated).and_then(|t| t.reason) {
            push("kube_pod_container_status_last_terminated_reason", &[who, ("reason", reason)], 1.0);
        }
    }
    for c in &spec.containers {
        resources(c, &node, &mut push);
    }
}

fn resources(c: &Container, node: &str, push: &mut impl FnMut(&str, &[(&'static str, String)], f64)) {
    let r = c.resources.clone().unwrap_or_default();
    for (metric, amounts) in [
        ("kube_pod_container_resource_requests", r.requests),
        ("kube_pod_container_resource_limits", r.limits),
    ] {
        for (resource, q) in amounts.unwrap_or_default() {
            if let Some((value, unit)) = amount(&resource, &q) {
                push(
                    metric,
                    &[
                        ("container", c.name.clone()),
                        ("node", node.to_owned()),
                        ("resource", resource),
                        ("unit", unit.to_owned()),
                    ],
                    value,
                );
            }
        }
    }
}

fn node(out: &mut Samples, n: &Node) {
    let name = n.name_any();
    let status = n.status.clone().unwrap_or_default();
    let info = status.node_info.clone();
    let get = |f: fn(&k8s_openapi::api::core::v1::NodeSystemInfo) -> &String| {
        info.as_ref().map(|i| f(i).clone()).unwrap_or_default()
    };
    out.push(
        "kube_node_info",
        &[
            ("node", &name),
            ("kernel_version", &get(|i| &i.kernel_version)),
            ("container_runtime_version", &get(|i| &i.container_runtime_version)),
            ("kubelet_version", &get(|i| &i.kubelet_version)),
            ("os_image", &get(|i| &i.os_image)),
        ],
        1.0,
    );
    for c in status.conditions.iter().flatten() {
        for s in ["true", "false", "unknown"] {
            let labels = [("node", name.as_str()), ("condition", &c.type_), ("status", s)];
            out.push("kube_node_status_condition", &labels, flag(c.status.eq_ignore_ascii_case(s)));
        }
    }
    let unschedulable = n.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    out.push("kube_node_spec_unschedulable", &[("node", &name)], flag(unschedulable));
    for (metric, amounts) in
        [("kube_node_status_capacity", status.capacity), ("kube_node_status_allocatable", status.allocatable)]
    {
        for (resource, q) in amounts.unwrap_or_default() {
            if let Some((value, unit)) = amount(&resource, &q) {
                out.push(metric, &[("node", &name), ("resource", &resource), ("unit", unit)], value);
            }
        }
    }
}

fn deployment(out: &mut Samples, d: &Deployment) {
    let (ns, name) = (d.namespace().unwrap_or_default(), d.name_any());
    let l = [("namespace", ns.as_str()), ("deployment", name.as_str())];
    let s = d.status.clone().unwrap_or_default();
    out.some("kube_deployment_spec_replicas", &l, d.spec.as_ref().and_then(|s| s.replicas));
    out.some("kube_deployment_status_replicas", &l, Some(s.replicas.unwrap_or(0)));
    out.some("kube_deployment_status_replicas_ready", &l, Some(s.ready_replicas.unwrap_or(0)));
    out.some("kube_deployment_status_replicas_available", &l, Some(s.available_replicas.unwrap_or(0)));
    out.some("kube_deployment_status_replicas_unavailable", &l, Some(s.unavailable_replicas.unwrap_or(0)));
    out.some("kube_deployment_status_replicas_updated", &l, Some(s.updated_replicas.unwrap_or(0)));
    out.push("kube_deployment_metadata_generation", &l, d.metadata.generation.unwrap_or(0) as f64);
    out.push("kube_deployment_status_observed_generation", &l, s.observed_generation.unwrap_or(0) as f64);
}

fn replicaset(out: &mut Samples, r: &ReplicaSet) {
    let (ns, name) = (r.namespace().unwrap_or_default(), r.name_any());
    let l = [("namespace", ns.as_str()), ("replicaset", name.as_str())];
    out.some("kube_replicaset_spec_replicas", &l, r.spec.as_ref().and_then(|s| s.replicas));
    out.some("kube_replicaset_status_replicas", &l, r.status.as_ref().map(|s| s.replicas));
    out.some("kube_replicaset_status_ready_replicas", &l, r.status.as_ref().and_then(|s| s.ready_replicas));
    if let Some(o) = r.owner_references().iter().find(|o| o.controller == Some(true)) {
        let l = [l[0], l[1], ("owner_kind", o.kind.as_str()), ("owner_name", o.name.as_str())];
        out.push("kube_replicaset_owner", &l, 1.0);
    }
}

fn hpa(out: &mut Samples, h: &HorizontalPodAutoscaler) {
    let (ns, name) = (h.namespace().unwrap_or_default(), h.name_any());
    let l = [("namespace", ns.as_str()), ("horizontalpodautoscaler", name.as_str())];
    if let Some(spec) = &h.spec {
        out.some("kube_horizontalpodautoscaler_spec_min_replicas", &l, Some(spec.min_replicas.unwrap_or(1)));
        out.some("kube_horizontalpodautoscaler_spec_max_replicas", &l, Some(spec.max_replicas));
    }
    if let Some(s) = &h.status {
        out.some("kube_horizontalpodautoscaler_status_current_replicas", &l, s.current_replicas);
        out.some("kube_horizontalpodautoscaler_status_desired_replicas", &l, Some(s.desired_replicas));
    }
}

fn namespace(out: &mut Samples, n: &Namespace) {
    let phase = n.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_else(|| "Active".to_owned());
    for one in ["Active", "Terminating"] {
        out.push(
            "kube_namespace_status_phase",
            &[("namespace", &n.name_any()), ("phase", one)],
            flag(phase == one),
        );
    }
}

fn service(out: &mut Samples, s: &Service) {
    let ip = s.spec.as_ref().and_then(|s| s.cluster_ip.clone()).unwrap_or_default();
    let ns = s.namespace().unwrap_or_default();
    out.push(
        "kube_service_info",
        &[("namespace", &ns), ("service", &s.name_any()), ("cluster_ip", &ip)],
        1.0,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn series_that_an_object_no_longer_has_end() {
        let of = |node: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "web-1", "namespace": "shop", "uid": "u"},
                "spec": {"nodeName": node, "containers": [{"name": "web", "resources": {"requests": {"cpu": "1"}}}]},
                "status": {"phase": "Running"}
            }))
            .expect("a pod")
        };
        let ended = |was: &Pod, is: Option<&Pod>| {
            let mut out = Samples { batch: MetricBatch::default(), now: 7 };
            out.end(was, is, pod);
            let name = |l: &Labels| l.get(METRIC_NAME).unwrap_or_default().to_owned();
            let mut names: Vec<String> = out.batch.series.iter().map(|s| name(&s.labels)).collect();
            names.sort();
            names.dedup();
            names
        };
        assert!(ended(&of("a"), Some(&of("a"))).is_empty());
        assert_eq!(
            ended(&of("a"), Some(&of("b"))),
            ["kube_pod_container_resource_requests", "kube_pod_info"]
        );
        let all = [
            "kube_pod_container_resource_requests",
            "kube_pod_info",
            "kube_pod_status_phase",
            "kube_pod_status_ready",
        ];
        assert_eq!(ended(&of("a"), None), all);
    }
}
