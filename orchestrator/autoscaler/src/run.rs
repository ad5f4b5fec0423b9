//! The tick: every second each HPA is measured, decided, carried out and told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::quantity::Quantity as Amount;
use apimachinery::selector::Selector;
use client::{EventRecorder, Informers, Key};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricSpec,
    MetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use signal::time::SharedClock;
use signal::{Attributes, Labels, LogBatch, LogRecord, LogStream, Severity, Sink, Timestamp as Nanos};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::decide::{Decision, History, Inputs, Measured, Observed, decide};
use crate::query::{Querier, Wanted, wanted};
use crate::replicas::{PodInput, Target};

/// How far rates look back unless the HPA is annotated `binnacle.io/metric-window: <seconds>s`.
const WINDOW: Duration = Duration::from_secs(5);
const WINDOW_ANNOTATION: &str = "binnacle.io/metric-window";
/// A pod's CPU right after its start is not its work (upstream: 5 min and metrics of 30 s; ours are of 1 s).
const CPU_INITIALIZATION: Duration = Duration::from_secs(10);
/// Metrics in the status are refreshed this often when nothing else changes.
const STATUS_EVERY: Duration = Duration::from_secs(15);
/// Verdicts that change nothing are recorded at most this often: a metric near its tolerance swings every second.
const UNCHANGED_EVERY: Duration = Duration::from_secs(15);

/// How HPAs are run.
#[derive(Clone)]
pub struct Config {
    pub clock: SharedClock,
    /// How often each HPA is evaluated.
    pub period: Duration,
    /// Identity labels of the decision records, beside the HPA's namespace.
    pub node: String,
}

struct Autoscaler {
    informers: Informers,
    querier: Querier,
    sink: Arc<dyn Sink>,
    recorder: EventRecorder,
    config: Config,
}

#[derive(Default)]
struct Memory {
    history: History,
    last_told: String,
    recorded: Option<i64>,
    status_written: Option<i64>,
}

/// Whether `every` has passed since `last`; both times in milliseconds.
fn due(last: Option<i64>, every: Duration, now: i64) -> bool {
    last.is_none_or(|t| now - t >= i64::try_from(every.as_millis()).unwrap_or(i64::MAX))
}

/// Evaluates every HPA each period until `stop`.
pub async fn run(
    informers: Informers,
    querier: Querier,
    sink: Arc<dyn Sink>,
    config: Config,
    stop: CancellationToken,
) {
    let hpas = informers.of::<HorizontalPodAutoscaler>();
    hpas.synced().await;
    informers.of::<Pod>().synced().await;
    let recorder = EventRecorder::new(informers.client().clone(), "horizontal-pod-autoscaler", None);
    let a = Autoscaler { informers, querier, sink, recorder, config };
    let mut memories: HashMap<String, Memory> = HashMap::new();
    let mut ticks = tokio::time::interval(a.config.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let all = hpas.list();
        memories.retain(|uid, _| all.iter().any(|h| h.uid().as_ref() == Some(uid)));
        for hpa in all.iter().filter(|h| h.metadata.deletion_timestamp.is_none()) {
            let memory = memories.entry(hpa.uid().unwrap_or_default()).or_default();
            if let Err(e) = a.evaluate(hpa, memory).await {
                let key = Key::of(&**hpa);
                let e = match e {
                    Failure::Scale(e) => {
                        if let Err(e) = a.unable(hpa, &e).await {
                            tracing::warn!(hpa = %key, error = %e, "its status was not written");
                        }
                        e
                    }
                    Failure::Other(e) => e,
                };
                if memory.last_told != e {
                    tracing::warn!(hpa = %key, error = %e, "not evaluated");
                    a.recorder.warning(&**hpa, "FailedGetScale", "Scale", e.clone()).await;
                    memory.last_told = e;
                }
            }
        }
    }
}

/// Why an autoscaler was not evaluated.
enum Failure {
    /// What it scales could not be read.
    Scale(String),
    Other(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Failure::Other(why)
    }
}

/// An error as the API server said it.
fn said(e: kube::Error) -> String {
    match e {
        kube::Error::Api(status) => status.message,
        e => e.to_string(),
    }
}

impl Autoscaler {
    async fn evaluate(&self, hpa: &HorizontalPodAutoscaler, memory: &mut Memory) -> Result<(), Failure> {
        let Some(spec) = &hpa.spec else { return Ok(()) };
        let namespace = hpa.namespace().unwrap_or_default();
        let reference = &spec.scale_target_ref;
        let path = scale_path(reference.api_version.as_deref(), &reference.kind, &namespace, &reference.name)
            .map_err(Failure::Scale)?;
        let client = self.informers.client();
        let get = http::Request::get(&path).body(Vec::new()).map_err(|e| e.to_string())?;
        let scale: Scale = client.request(get).await.map_err(|e| Failure::Scale(said(e)))?;
        let current = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let selector = scale.status.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default();
        let selector = Selector::parse(&selector).map_err(|e| e.to_string())?;
        let pods: Vec<Arc<Pod>> = self
            .informers
            .of::<Pod>()
            .list_in(&namespace)
            .into_iter()
            .filter(|p| selector.matches_labels(p.metadata.labels.as_ref()))
            .collect();
        let now = self.config.clock.now().millis();
        let window = hpa
            .annotations()
            .get(WINDOW_ANNOTATION)
            .and_then(|w| w.strip_suffix('s')?.parse().ok())
            .map_or(WINDOW, |s: u64| Duration::from_secs(s.clamp(2, 3600)));
        let mut metrics = Vec::new();
        for m in metric_specs(spec.metrics.as_ref()) {
            metrics.push(self.measure(&m, hpa, &namespace, &pods, window, now).await);
        }
        let ready = pods.iter().filter(|p| is_ready(p)).count();
        let mut decision = decide(Inputs {
            now,
            spec,
            current,
            ready: i32::try_from(ready).unwrap_or(i32::MAX),
            metrics,
            history: &memory.history,
        });
        decision.namespace.clone_from(&namespace);
        decision.hpa = hpa.name_any();
        decision.target = format!("{}/{}", reference.kind, reference.name);
        Ok(self.carry_out(hpa, memory, &path, decision, now).await?)
    }

    async fn measure(
        &self,
        spec: &MetricSpec,
        hpa: &HorizontalPodAutoscaler,
        namespace: &str,
        pods: &[Arc<Pod>],
        window: Duration,
        now: i64,
    ) -> Measured {
        let names: Vec<String> = pods.iter().map(|p| p.name_any()).collect();
        let w = match wanted(spec, namespace, &names, hpa.annotations(), window) {
            Ok(w) => w,
            Err(e) => {
                return Measured {
                    name: spec.type_.clone(),
                    query: String::new(),
                    samples: Vec::new(),
                    target: Target::Value(0.0),
                    value: Err(e),
                };
            }
        };
        let (samples, value) = match self.querier.instant(&w.query, namespace, now).await {
            Ok(samples) if w.per_pod => {
                let by_pod: BTreeMap<&str, f64> =
                    samples.iter().filter_map(|s| Some((s.labels.get("pod")?, s.value))).collect();
                let inputs = pods.iter().map(|p| pod_input(p, &w, &by_pod, now)).collect();
                (samples.clone(), Ok(Observed::Pods(inputs)))
            }
            Ok(samples) => {
                let value = match samples.as_slice() {
                    [one] => Ok(Observed::Total(one.value)),
                    [] => Err("the query gives no sample".to_owned()),
                    more => Err(format!("the query gives {} samples, one is needed", more.len())),
                };
                (samples, value)
            }
            Err(e) => (Vec::new(), Err(e)),
        };
        Measured { name: w.name, query: w.query, samples, target: w.target, value }
    }

    async fn carry_out(
        &self,
        hpa: &HorizontalPodAutoscaler,
        memory: &mut Memory,
        path: &str,
        decision: Decision,
        now: i64,
    ) -> Result<(), String> {
        let changed = decision.to != decision.from;
        // What a reader would call a new decision: another number, or another limit that held it.
        let told = format!(
            "{} {:?} {:?}",
            decision.to,
            decision.constraints.iter().map(|c| (&c.name, c.after)).collect::<Vec<_>>(),
            decision.metrics.iter().map(|m| (&m.error, m.within_tolerance)).collect::<Vec<_>>()
        );
        let new = changed || (told != memory.last_told && due(memory.recorded, UNCHANGED_EVERY, now));
        if new {
            let span = tracing::info_span!("hpa decision", namespace = %decision.namespace, hpa = %decision.hpa,
                from = decision.from, to = decision.to, reason = %decision.reason);
            let done = async {
                self.record(&decision).await;
                if changed {
                    self.scale(hpa, path, &decision).await?;
                }
                Ok::<(), String>(())
            };
            done.instrument(span).await?;
            memory.last_told = told;
            memory.recorded = Some(now);
        }
        memory.history.remember(&decision, now);
        let wrong = hpa
            .status
            .as_ref()
            .is_none_or(|s| s.current_replicas != Some(decision.from) || s.desired_replicas != decision.to);
        if new || wrong || due(memory.status_written, STATUS_EVERY, now) {
            self.status(hpa, &decision, changed).await?;
            memory.status_written = Some(now);
        }
        Ok(())
    }

    async fn scale(&self, hpa: &HorizontalPodAutoscaler, path: &str, d: &Decision) -> Result<(), String> {
        let body = serde_json::to_vec(&json!({"spec": {"replicas": d.to}})).map_err(|e| e.to_string())?;
        let mut request = http::Request::patch(path).header("content-type", "application/merge-patch+json");
        if let Some(trace) = telemetry::propagation::current_traceparent() {
            request = request.header("traceparent", trace);
        }
        let request = request.body(body).map_err(|e| e.to_string())?;
        let result: Result<Value, _> = self.informers.client().request(request).await;
        match result {
            Ok(_) => {
                let note = format!("New size: {}; reason: {}", d.to, d.reason);
                self.recorder.normal(hpa, "SuccessfulRescale", "Rescale", note).await;
                Ok(())
            }
            Err(e) => {
                let note = format!("New size: {}; reason: {}; error: {e}", d.to, d.reason);
                self.recorder.warning(hpa, "FailedRescale", "Rescale", note).await;
                Err(e.to_string())
            }
        }
    }

    /// Puts the record into the log index, in a stream of the HPA's namespace.
    async fn record(&self, d: &Decision) {
        let body = match serde_json::to_string(d) {
            Ok(b) => b,
            Err(e) => {
                tracing::error!(error = %e, "a decision cannot be written as JSON");
                return;
            }
        };
        let mut attributes = Attributes::default();
        attributes.set("hpa", d.hpa.as_str());
        attributes.set("from", i64::from(d.from));
        attributes.set("to", i64::from(d.to));
        attributes.set("reason", d.reason.as_str());
        let traceparent = telemetry::propagation::current_traceparent();
        let record = LogRecord {
            timestamp: Nanos::from_millis(d.time),
            severity: Severity::INFO,
            body,
            attributes,
            trace_id: traceparent.and_then(|t| telemetry::propagation::trace_id(&t)).unwrap_or_default(),
            ..LogRecord::default()
        };
        let labels = Labels::from_pairs([
            ("namespace", d.namespace.as_str()),
            ("component", "autoscaler"),
            ("service_name", "autoscaler"),
            ("record", "hpa-decision"),
            ("node", &self.config.node),
        ]);
        let batch =
            LogBatch { streams: vec![LogStream { labels, records: vec![record] }], checkpoints: Vec::new() };
        if let Err(e) = self.sink.write_logs(batch).await {
            tracing::warn!(hpa = %d.hpa, error = %e, "a decision record was not stored");
        }
    }

    /// Says in the status that what is to be scaled cannot be read.
    async fn unable(&self, hpa: &HorizontalPodAutoscaler, why: &str) -> Result<(), String> {
        let message = format!("the HPA controller was unable to get the target's current scale: {why}");
        let before = hpa.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let told = before.iter().any(|c| {
            c.type_ == "AbleToScale" && c.status == "False" && c.message.as_deref() == Some(&message)
        });
        if told {
            return Ok(());
        }
        let now = Timestamp::from_millisecond(self.config.clock.now().millis()).map_err(|e| e.to_string())?;
        let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        let mut all = before;
        set_condition(&mut all, &now, "AbleToScale", "False", "FailedGetScale", message);
        let namespace = hpa.namespace().unwrap_or_default();
        let api: kube::Api<HorizontalPodAutoscaler> =
            kube::Api::namespaced(self.informers.client().clone(), &namespace);
        let patch = json!({"status": {"conditions": all}});
        let done = api.patch_status(&hpa.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        client::error::optional(done).map(drop).map_err(|e| e.to_string())
    }

    async fn status(&self, hpa: &HorizontalPodAutoscaler, d: &Decision, scaled: bool) -> Result<(), String> {
        let now = Timestamp::from_millisecond(d.time).map_err(|e| e.to_string())?;
        let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        let before = hpa.status.clone().unwrap_or_default();
        let status = HorizontalPodAutoscalerStatus {
            observed_generation: hpa.metadata.generation,
            current_replicas: Some(d.from),
            desired_replicas: d.to,
            last_scale_time: if scaled { Some(now.clone()) } else { before.last_scale_time },
            current_metrics: Some(current_metrics(hpa, d)),
            conditions: Some(conditions(before.conditions.unwrap_or_default(), d, &now)),
        };
        let api: kube::Api<HorizontalPodAutoscaler> =
            kube::Api::namespaced(self.informers.client().clone(), &d.namespace);
        let patch = json!({"status": status});
        let done = api.patch_status(&d.hpa, &PatchParams::default(), &Patch::Merge(patch)).await;
        client::error::optional(done).map(drop).map_err(|e| e.to_string())
    }
}

/// An HPA without metrics means CPU at 80 % (upstream's default).
fn metric_specs(given: Option<&Vec<MetricSpec>>) -> Vec<MetricSpec> {
    match given {
        Some(m) if !m.is_empty() => m.clone(),
        _ => serde_json::from_value(json!([{"type": "Resource", "resource":
            {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]))
        .unwrap_or_default(),
    }
}

fn scale_path(api_version: Option<&str>, kind: &str, namespace: &str, name: &str) -> Result<String, String> {
    let plural = match kind {
        "Deployment" | "ReplicaSet" | "StatefulSet" | "ReplicationController" => {
            format!("{}s", kind.to_ascii_lowercase())
        }
        other => return Err(format!("the target's kind {other:?} has no scale subresource here")),
    };
    let version = api_version.unwrap_or("apps/v1");
    let root = if version.contains('/') { "apis" } else { "api" };
    Ok(format!("/{root}/{version}/namespaces/{namespace}/{plural}/{name}/scale"))
}

fn is_ready(p: &Pod) -> bool {
    p.status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

fn pod_input(p: &Pod, w: &Wanted, values: &BTreeMap<&str, f64>, now: i64) -> PodInput {
    let status = p.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("Pending");
    let name = p.name_any();
    let is_cpu = w.resource.as_ref().is_some_and(|(r, _)| r == "cpu");
    let ready_since = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "Ready" && c.status == "True")
        .and_then(|c| c.last_transition_time.as_ref())
        .map(|t| t.0.as_millisecond());
    let young = ready_since.is_none_or(|t| {
        let started = status.start_time.as_ref().map_or(t, |t| t.0.as_millisecond());
        let initializing = now - started < i64::try_from(CPU_INITIALIZATION.as_millis()).unwrap_or(0);
        initializing && now - t < 2000
    });
    let request =
        w.resource.as_ref().map_or(0.0, |(resource, container)| request(p, resource, container.as_deref()));
    PodInput {
        ignored: p.metadata.deletion_timestamp.is_some() || phase == "Failed" || phase == "Succeeded",
        unready: phase == "Pending" || is_cpu && young,
        request,
        value: values.get(name.as_str()).copied(),
        name,
    }
}

/// What a pod, or one of its containers, requests of a resource; 0 if any part does not say.
fn request(p: &Pod, resource: &str, container: Option<&str>) -> f64 {
    let mut sum = 0.0;
    let containers = p.spec.iter().flat_map(|s| &s.containers);
    for c in containers.filter(|c| container.is_none_or(|n| c.name == n)) {
        let asked = c.resources.as_ref().and_then(|r| r.requests.as_ref()?.get(resource));
        match asked.and_then(|q| q.0.parse::<Amount>().ok()) {
            Some(a) => sum += a.to_f64(),
            None => return 0.0,
        }
    }
    sum
}

/// `currentMetrics` in the shape of the specs: kubectl prints them beside the targets.
fn current_metrics(hpa: &HorizontalPodAutoscaler, d: &Decision) -> Vec<MetricStatus> {
    let specs = metric_specs(hpa.spec.as_ref().and_then(|s| s.metrics.as_ref()));
    let milli = |v: f64| format!("{}m", (v * 1000.0).round() as i64);
    let whole = |resource: &str, v: f64| {
        if resource == "memory" { format!("{}", v.round() as i64) } else { milli(v) }
    };
    let mut out = Vec::new();
    for (spec, m) in specs.iter().zip(&d.metrics) {
        let (Some(current), Some(average)) = (m.current, m.average) else { continue };
        let utilization = matches!(m.target, Target::Utilization(_)).then(|| current.round() as i32);
        let shown = if matches!(m.target, Target::Value(_)) {
            json!({"value": milli(current)})
        } else {
            json!({"averageValue": milli(average)})
        };
        let status = if let Some(r) = &spec.resource {
            json!({"type": "Resource", "resource": {"name": r.name, "current":
                {"averageValue": whole(&r.name, average), "averageUtilization": utilization}}})
        } else if let Some(r) = &spec.container_resource {
            json!({"type": "ContainerResource", "containerResource": {"name": r.name, "container": r.container,
                "current": {"averageValue": whole(&r.name, average), "averageUtilization": utilization}}})
        } else if let Some(p) = &spec.pods {
            json!({"type": "Pods", "pods": {"metric": p.metric, "current": {"averageValue": milli(average)}}})
        } else if let Some(o) = &spec.object {
            json!({"type": "Object", "object": {"metric": o.metric, "describedObject": o.described_object, "current": shown}})
        } else if let Some(e) = &spec.external {
            json!({"type": "External", "external": {"metric": e.metric, "current": shown}})
        } else {
            continue;
        };
        out.extend(serde_json::from_value::<MetricStatus>(status));
    }
    out
}

fn set_condition(
    all: &mut Vec<HorizontalPodAutoscalerCondition>,
    now: &Time,
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
) {
    match all.iter_mut().find(|c| c.type_ == type_) {
        Some(c) => {
            if c.status != status {
                c.last_transition_time = Some(now.clone());
            }
            status.clone_into(&mut c.status);
            c.reason = Some(reason.to_owned());
            c.message = Some(message);
        }
        None => all.push(HorizontalPodAutoscalerCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(now.clone()),
        }),
    }
}

fn conditions(
    mut all: Vec<HorizontalPodAutoscalerCondition>,
    d: &Decision,
    now: &Time,
) -> Vec<HorizontalPodAutoscalerCondition> {
    let mut set = |type_: &str, status: &str, reason: &str, message: String| {
        set_condition(&mut all, now, type_, status, reason, message);
    };
    let stabilized = d.constraints.iter().find(|c| c.name.ends_with("Stabilized"));
    match stabilized {
        Some(c) => set(
            "AbleToScale",
            "True",
            &c.name,
            format!(
                "recent recommendations were {} than current one, {}",
                if c.name.starts_with("ScaleDown") { "higher" } else { "lower" },
                c.message
            ),
        ),
        None if d.to != d.from => set(
            "AbleToScale",
            "True",
            "SucceededRescale",
            format!("the HPA controller was able to update the target scale to {}", d.to),
        ),
        None => {
            set("AbleToScale", "True", "ReadyForNewScale", "recommended size matches current size".to_owned())
        }
    }
    match (&d.selected, d.from) {
        (Some(name), _) => set(
            "ScalingActive",
            "True",
            "ValidMetricFound",
            format!("the HPA was able to successfully calculate a replica count from {name}"),
        ),
        (None, 0) => set("ScalingActive", "False", "ScalingDisabled", d.reason.clone()),
        (None, _) => set("ScalingActive", "False", "FailedGetMetrics", d.reason.clone()),
    }
    match d.constraints.iter().rev().find(|c| !c.name.ends_with("Stabilized")) {
        Some(c) => set("ScalingLimited", "True", &c.name, c.message.clone()),
        None => set(
            "ScalingLimited",
            "False",
            "DesiredWithinRange",
            "the desired count is within the acceptable range".to_owned(),
        ),
    }
    all
}
