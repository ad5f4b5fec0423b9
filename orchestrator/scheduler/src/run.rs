//! The loop: waits for pods, runs cycles, binds.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::trace::TRACEPARENT_ANNOTATION;
use client::{EventRecorder, Informers, Key};
use k8s_openapi::api::core::v1::{
    Binding, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use signal::time::SharedClock;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::cycle::{Outcome, Verdict, message, schedule};
use crate::metrics::{METRICS, QueueLabel, ResultLabel};
use crate::queue::Queue;
use crate::snapshot::Snapshot;
use crate::volumes::{self, Choice, Volumes};

/// Where the verdicts of the last attempt stand on a pending pod, as JSON `[{node, plugin, reason}]`.
pub const VERDICTS_ANNOTATION: &str = "binnacle.io/scheduling-verdicts";
/// Verdicts kept on a pod: an annotation has 256 KiB, a person less patience.
const VERDICTS_MOST: usize = 50;

/// How pods are placed.
#[derive(Clone)]
pub struct Config {
    /// Pods that name another scheduler are left alone.
    pub scheduler_name: String,
    pub clock: SharedClock,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    /// Rung at each change of a claim.
    claims: Notify,
}

/// Schedules until `stop`.
pub async fn run(informers: Informers, config: Config, stop: CancellationToken) {
    let shared = Arc::new(Shared { queue: Mutex::default(), wake: Notify::new(), claims: Notify::new() });
    let pods = informers.of::<Pod>();
    let nodes = informers.of::<Node>();
    watch(&informers, &config, &shared);
    pods.synced().await;
    nodes.synced().await;
    informers.of::<PersistentVolumeClaim>().synced().await;
    informers.of::<PersistentVolume>().synced().await;
    informers.of::<StorageClass>().synced().await;
    let (bound_tx, mut bound) = mpsc::unbounded_channel::<(Key, bool)>();
    let mut assumed: HashMap<Key, String> = HashMap::new();
    // By pods whose binding is on its way.
    let mut taken: HashMap<Key, Vec<String>> = HashMap::new();
    let recorder = EventRecorder::new(informers.client().clone(), &config.scheduler_name, None);
    loop {
        while let Ok((key, ok)) = bound.try_recv() {
            settle(&mut assumed, &shared, &pods, key, ok);
        }
        let (next, wake_at) = {
            let mut q = shared.queue.lock();
            let wake_at = q.flush(config.clock.monotonic());
            let next = q.pop();
            let count = |queue, n: usize| {
                METRICS
                    .pending
                    .get_or_create(&QueueLabel { queue })
                    .set(i64::try_from(n).unwrap_or(i64::MAX));
            };
            count("active", q.active_len());
            count("unschedulable", q.waiting_len());
            (next, wake_at)
        };
        let Some(key) = next else {
            tokio::select! {
                () = stop.cancelled() => return,
                () = shared.wake.notified() => {}
                () = sleep_until(wake_at) => {}
                Some((key, ok)) = bound.recv() => settle(&mut assumed, &shared, &pods, key, ok),
            }
            continue;
        };
        let Some(pod) = pods.get(&key).filter(|p| wants_node(p, &config.scheduler_name)) else { continue };
        if assumed.contains_key(&key) {
            continue;
        }
        let started = config.clock.monotonic();
        taken.retain(|key, _| assumed.contains_key(key));
        let mut snapshot = Snapshot::new(&nodes.list(), &pods.list(), |p| assumed.get(&Key::of(p)).cloned());
        snapshot.volumes = Volumes::of(&pod, &informers, taken.values().flatten().cloned().collect());
        let seed = pod.uid().unwrap_or_default();
        let outcome = schedule(&pod, &snapshot, |node| spread_ties(&seed, node));
        METRICS.latency.observe((config.clock.monotonic() - started).as_secs_f64());
        let span = tracing::info_span!("schedule pod", namespace = %key.namespace, pod = %key.name,
            node = tracing::field::Empty, result = tracing::field::Empty);
        if let Some(parent) = pod.annotations().get(TRACEPARENT_ANNOTATION) {
            telemetry::propagation::set_parent_from(&span, parent);
        }
        let client = informers.client().clone();
        let recorder = recorder.clone();
        match outcome {
            Outcome::Node { name, .. } => {
                span.record("node", &name);
                span.record("result", "scheduled");
                assumed.insert(key.clone(), name.clone());
                let node = snapshot.nodes.iter().find(|n| n.name == name);
                let wants = snapshot.volumes.wants(&pod);
                let chosen =
                    wants.ok().zip(node).and_then(|(w, n)| snapshot.volumes.choose(&w, &n.node).ok());
                let chosen = chosen.unwrap_or_default();
                taken.insert(key.clone(), chosen.iter().filter_map(Choice::taken).collect());
                let done = bound_tx.clone();
                let (informers, shared) = (informers.clone(), shared.clone());
                telemetry::task::spawn(
                    "bind",
                    async move {
                        let ready = prepare(&informers, &shared, &pod, &name, &chosen).await;
                        let ok = ready && bind(client, &recorder, &pod, &name).await;
                        // The loop has ended if nobody listens; then nothing is left to settle.
                        drop(done.send((key, ok)));
                    }
                    .instrument(span),
                );
            }
            Outcome::Unschedulable(verdicts) => {
                span.record("result", "unschedulable");
                METRICS.attempts.get_or_create(&ResultLabel { result: "unschedulable" }).inc();
                shared.queue.lock().unschedulable(&key, config.clock.monotonic());
                let nodes = snapshot.nodes.len();
                let told = async move { tell(client, &recorder, &pod, nodes, &verdicts).await };
                telemetry::task::spawn("unschedulable", told.instrument(span));
            }
        }
    }
}

/// Feeds the queue from the informers.
fn watch(informers: &Informers, config: &Config, shared: &Arc<Shared>) {
    let (s, name, clock) = (shared.clone(), config.scheduler_name.clone(), config.clock.clone());
    informers.of::<Pod>().on_change(move |c| {
        let key = Key::of(&**c.object());
        let mut q = s.queue.lock();
        match &c.new {
            Some(p) if wants_node(p, &name) => {
                // A pod that waits comes back by a change of its spec, not by what we wrote about it.
                let same = c.old.as_ref().is_some_and(|o| o.spec == p.spec);
                if !same {
                    q.add(p);
                }
            }
            other => {
                q.remove(&key);
                // Room may have become free.
                let freed = other.as_ref().is_none_or(|p| {
                    p.status
                        .as_ref()
                        .is_some_and(|s| matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")))
                });
                if freed {
                    q.something_changed(clock.monotonic());
                }
            }
        }
        drop(q);
        s.wake.notify_one();
    });
    let (s, clock) = (shared.clone(), config.clock.clone());
    informers.of::<PersistentVolumeClaim>().on_change(move |_| {
        s.claims.notify_waiters();
        s.queue.lock().something_changed(clock.monotonic());
        s.wake.notify_one();
    });
    let (s, clock) = (shared.clone(), config.clock.clone());
    informers.of::<PersistentVolume>().on_change(move |_| {
        s.queue.lock().something_changed(clock.monotonic());
        s.wake.notify_one();
    });
    let (s, clock) = (shared.clone(), config.clock.clone());
    informers.of::<StorageClass>().on_change(move |_| {
        s.queue.lock().something_changed(clock.monotonic());
        s.wake.notify_one();
    });
    let (s, clock) = (shared.clone(), config.clock.clone());
    informers.of::<Node>().on_change(move |c| {
        let matters = match (&c.old, &c.new) {
            (Some(o), Some(n)) => {
                o.spec != n.spec
                    || o.metadata.labels != n.metadata.labels
                    || o.status.as_ref().and_then(|s| s.allocatable.as_ref())
                        != n.status.as_ref().and_then(|s| s.allocatable.as_ref())
            }
            _ => true,
        };
        if matters {
            s.queue.lock().something_changed(clock.monotonic());
            s.wake.notify_one();
        }
    });
}

/// Volumes first. Whether the pod may be bound now.
async fn prepare(informers: &Informers, shared: &Shared, pod: &Pod, node: &str, chosen: &[Choice]) -> bool {
    if chosen.is_empty() {
        return true;
    }
    match volumes::bind(informers, &shared.claims, pod, node, chosen).await {
        Ok(bound) => bound,
        Err(e) => {
            METRICS.attempts.get_or_create(&ResultLabel { result: "error" }).inc();
            tracing::warn!(pod = %pod.name_any(), node, error = %e, "volumes not bound, the pod is tried again");
            false
        }
    }
}

fn wants_node(pod: &Pod, scheduler: &str) -> bool {
    let spec = pod.spec.as_ref();
    pod.metadata.deletion_timestamp.is_none()
        && spec.is_some_and(|s| {
            s.node_name.as_deref().unwrap_or("").is_empty()
                && s.scheduler_name.as_deref().unwrap_or(crate::DEFAULT_SCHEDULER) == scheduler
                && s.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
        })
}

/// Differs from pod to pod, so that equal nodes share the load; the same each time for the same pod.
fn spread_ties(seed: &str, node: &str) -> u64 {
    seed.bytes()
        .chain(node.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Ends an assumption. If the bind failed the pod is tried again.
fn settle(
    assumed: &mut HashMap<Key, String>,
    shared: &Shared,
    pods: &client::Informer<Pod>,
    key: Key,
    ok: bool,
) {
    assumed.remove(&key);
    let pod = pods.get(&key);
    if !ok && let Some(pod) = pod {
        shared.queue.lock().add(&pod);
    }
}

async fn sleep_until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn bind(client: kube::Client, recorder: &EventRecorder, pod: &Pod, node: &str) -> bool {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let api: Api<Pod> = Api::namespaced(client, &namespace);
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: pod.uid(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    match api
        .create_subresource::<_, serde_json::Value>("binding", &name, &PostParams::default(), &binding)
        .await
    {
        Ok(_) => {
            METRICS.attempts.get_or_create(&ResultLabel { result: "scheduled" }).inc();
            let note = format!("Successfully assigned {namespace}/{name} to {node}");
            recorder.normal(pod, "Scheduled", "Binding", note).await;
            true
        }
        Err(e) if client::error::is_not_found(&e) => true,
        Err(e) => {
            METRICS.attempts.get_or_create(&ResultLabel { result: "error" }).inc();
            tracing::warn!(pod = %name, node, error = %e, "bind failed, the pod is tried again");
            false
        }
    }
}

/// Says why: in the pod's condition, in an event, and node by node in an annotation.
async fn tell(client: kube::Client, recorder: &EventRecorder, pod: &Pod, nodes: usize, verdicts: &[Verdict]) {
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let text = message(nodes, verdicts);
    recorder.warning(pod, "FailedScheduling", "Scheduling", text.clone()).await;
    let there =
        pod.status.as_ref().and_then(|s| s.conditions.as_ref()).is_some_and(|c| {
            c.iter().any(|c| c.type_ == "PodScheduled" && c.message.as_deref() == Some(&text))
        });
    if there {
        return;
    }
    let shown = &verdicts[..verdicts.len().min(VERDICTS_MOST)];
    let shown = serde_json::to_string(shown).unwrap_or_default();
    let annotate = json!({"metadata": {"annotations": {VERDICTS_ANNOTATION: shown}}});
    let condition = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": text,
        "lastTransitionTime": jiff::Timestamp::from_second(signal::time::now().millis() / 1000).ok()}]}});
    let params = PatchParams::default();
    let name = pod.name_any();
    let written = async {
        api.patch(&name, &params, &Patch::Merge(annotate)).await?;
        api.patch_status(&name, &params, &Patch::Strategic(condition)).await
    };
    if let Err(e) = client::error::optional(written.await) {
        tracing::warn!(pod = %name, error = %e, "verdicts not written");
    }
}
