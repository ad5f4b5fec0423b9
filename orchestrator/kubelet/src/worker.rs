//! One pod's worker: observes, asks the plan, acts, reports, until the pod is gone.

mod report;
mod resize;
mod start;
mod teardown;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Client;
use network::{HostPort, PodAddr, PodNetwork, Protocol};
use parking_lot::Mutex;
use signal::{CgroupTarget, Registry, Timestamp};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::environment::Facts;
use crate::events::Events;
use crate::images::Images;
use crate::plan::{self, Action, Backoff, Held, Observed, Plan, plan};
use crate::pods::Pods;
use crate::probes::{self, ProbeEvent};
use crate::runtime::{Limits, Record, Runtime, State};
use crate::{Config, Error, lifecycle, metrics::METRICS, quantity, status, volumes};

pub(crate) use report::Reporter;
pub(crate) use teardown::remove_orphan;

/// What all workers of a node share.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) runtime: Runtime,
    pub(crate) images: Images,
    pub(crate) network: PodNetwork,
    pub(crate) events: Events,
    pub(crate) cgroups: Arc<Registry<CgroupTarget>>,
    /// Thousandths of a core, and bytes.
    pub(crate) cpu: i64,
    pub(crate) memory: i64,
    /// The pods of this node.
    pub(crate) pods: Arc<Pods>,
}

impl Node {
    pub(crate) fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    /// The pods that have room here: those that are not over.
    fn neighbours(&self) -> Vec<Arc<Pod>> {
        let over = |p: &Pod| {
            let phase = p.status.as_ref().and_then(|s| s.phase.as_deref());
            phase.is_some_and(|p| plan::Phase::parse(p).is_final())
        };
        self.pods.all().into_iter().filter(|p| !over(p)).collect()
    }
}

/// A span of this node's work on a pod, within the trace of the change that brought the pod here.
pub(crate) fn span(pod: &Pod, name: &'static str) -> tracing::Span {
    let (namespace, pod_name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
    let span = tracing::info_span!(
        "kubelet",
        otel.name = name,
        k8s.namespace.name = namespace,
        k8s.pod.name = pod_name,
        k8s.pod.uid = pod.metadata.uid.as_deref()
    );
    let parent =
        pod.metadata.annotations.as_ref().and_then(|a| a.get(apimachinery::trace::TRACEPARENT_ANNOTATION));
    if let Some(parent) = parent {
        telemetry::propagation::set_parent_from(&span, parent);
    }
    span
}

/// What a probe has said of a running container.
struct Watched {
    started: bool,
    ready: bool,
    probes: Vec<JoinHandle<()>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.probes.iter().for_each(JoinHandle::abort);
    }
}

pub(crate) struct Worker {
    node: Arc<Node>,
    uid: String,
    pod: watch::Receiver<Arc<Pod>>,
    reporter: Reporter,
    bell: Arc<Notify>,
    addr: Option<PodAddr>,
    set_up: bool,
    set_up_retry: Option<(Timestamp, Duration)>,
    released: bool,
    volumes: BTreeMap<String, PathBuf>,
    tokens: volumes::Tokens,
    volume_bell: Arc<Notify>,
    volume_task: Option<JoinHandle<()>>,
    /// By container id.
    watched: BTreeMap<String, Watched>,
    condemned: BTreeMap<String, String>,
    /// What probes that condemned a container say of its grace.
    probe_grace: BTreeMap<String, Duration>,
    /// When the first container was stopped because the pod ends.
    ending_since: Option<Instant>,
    stopping: Arc<Mutex<BTreeSet<String>>>,
    backoff: BTreeMap<String, Backoff>,
    image_backoff: BTreeMap<String, Held>,
    image_delay: BTreeMap<String, Duration>,
    held: BTreeMap<String, Held>,
    crash_looping: BTreeSet<String>,
    /// What running containers are limited to, by id.
    limits: BTreeMap<String, Limits>,
    /// Whether a resize waits for room, and what tells of it.
    deferred: bool,
    room: watch::Receiver<u64>,
    first_seen: Timestamp,
    counted_start: bool,
    was_ready: bool,
    probe_events: mpsc::Receiver<ProbeEvent>,
    probe_sender: mpsc::Sender<ProbeEvent>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(t) = &self.volume_task {
            t.abort();
        }
    }
}

impl Worker {
    pub(crate) fn new(node: Arc<Node>, pod: watch::Receiver<Arc<Pod>>) -> Self {
        let first = pod.borrow().clone();
        let uid = first.metadata.uid.clone().unwrap_or_default();
        let (probe_sender, probe_events) = mpsc::channel(64);
        Worker {
            bell: node.runtime.changes(&uid),
            reporter: Reporter::start(node.client.clone(), &first),
            first_seen: node.now(),
            tokens: volumes::Tokens::new(node.config.clock.clone()),
            room: node.pods.room(),
            deferred: false,
            node,
            uid,
            pod,
            addr: None,
            set_up: false,
            set_up_retry: None,
            released: false,
            volumes: BTreeMap::new(),
            volume_bell: Arc::default(),
            volume_task: None,
            watched: BTreeMap::new(),
            condemned: BTreeMap::new(),
            probe_grace: BTreeMap::new(),
            ending_since: None,
            stopping: Arc::default(),
            backoff: BTreeMap::new(),
            image_backoff: BTreeMap::new(),
            image_delay: BTreeMap::new(),
            held: BTreeMap::new(),
            crash_looping: BTreeSet::new(),
            limits: BTreeMap::new(),
            counted_start: false,
            was_ready: status::is_ready(&first.status.clone().unwrap_or_default()),
            probe_events,
            probe_sender,
        }
    }

    /// Works until the pod is gone from node and API.
    pub(crate) async fn run(mut self) {
        loop {
            let pod = self.pod.borrow_and_update().clone();
            self.room.mark_unchanged();
            let wake = match self.sync(&pod).await {
                Ok(Next::Gone) => return,
                Ok(Next::Wait(wake)) => wake,
                Err(e) => {
                    METRICS.sync_failures.inc();
                    tracing::warn!(pod = ?pod.metadata.name, error = %e, "syncing a pod; trying again");
                    Some(self.node.now().saturating_add(Duration::from_secs(2)))
                }
            };
            let pause = wake.map(|w| w.since(self.node.now()).max(Duration::from_millis(1)));
            tokio::select! {
                changed = self.pod.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.follow_metadata(&pod).await;
                }
                () = self.bell.notified() => {}
                Ok(()) = self.room.changed(), if self.deferred => {}
                () = self.volume_bell.notified() => self.refresh_volumes(&pod).await,
                Some(event) = self.probe_events.recv() => self.hear(&pod, event),
                () = tokio::time::sleep(pause.unwrap_or(Duration::MAX)), if pause.is_some() => {}
            }
        }
    }

    async fn sync(&mut self, pod: &Arc<Pod>) -> Result<Next, Error> {
        loop {
            let mut observed = self.observe(pod);
            self.resize(pod, &mut observed);
            let plan = plan(pod, &observed);
            self.report(pod, &observed, &plan);
            let mut again = false;
            for action in plan.actions {
                match action {
                    Action::SetUp => again |= self.try_set_up(pod).await,
                    Action::Start { name, attempt } => {
                        let span = span(pod, "kubelet sync pod");
                        self.start(pod, &name, attempt).instrument(span).await?;
                        again = true;
                        // The pod may have changed in the meantime.
                        if self.pod.has_changed().unwrap_or(true) {
                            return Ok(Next::Wait(Some(self.node.now())));
                        }
                    }
                    Action::Stop { name, id, message } => self.stop(pod, name, id, message),
                    Action::TearDown => {
                        self.tear_down(pod).await?;
                        return Ok(Next::Gone);
                    }
                }
            }
            if plan.phase.is_final() && !self.released && self.stopping.lock().is_empty() {
                self.release(pod).await?;
            }
            if !again {
                let retry = self.set_up_retry.map(|(at, _)| at).filter(|_| !self.set_up);
                let wake = [plan.wake, retry].into_iter().flatten().min();
                return Ok(Next::Wait(wake));
            }
        }
    }

    /// What is, in the plan's words. Probes of containers that run are started, those of others end.
    fn observe(&mut self, pod: &Arc<Pod>) -> Observed {
        let mut o = Observed {
            now: self.node.now(),
            set_up: self.set_up,
            start_time: Some(self.first_seen),
            ..Observed::default()
        };
        if let Some(t) = pod.status.as_ref().and_then(|s| s.start_time.as_ref()) {
            o.start_time = Some(Timestamp::from_secs(t.0.as_second()));
        }
        for r in self.node.runtime.of_pod(&self.uid) {
            let name = r.identity.container.clone();
            if let Some(old) = o.latest.insert(name.clone(), r)
                && let State::Exited(e) = old.state
            {
                o.previous.insert(name, (old.id, e));
            }
        }
        let running: BTreeMap<String, Record> = o
            .latest
            .values()
            .filter(|r| matches!(r.state, State::Running { .. }))
            .map(|r| (r.id.clone(), r.clone()))
            .collect();
        self.watched.retain(|id, _| running.contains_key(id));
        self.limits.retain(|id, _| running.contains_key(id));
        for (id, record) in &running {
            if !self.watched.contains_key(id) {
                let w = self.watch_container(pod, record);
                self.watched.insert(id.clone(), w);
            }
        }
        for (id, w) in &self.watched {
            let Some(r) = running.get(id) else { continue };
            let name = r.identity.container.clone();
            if w.started {
                o.started.insert(name.clone());
                if w.ready && pod.metadata.deletion_timestamp.is_none() {
                    o.ready.insert(name);
                }
            }
        }
        self.condemned
            .retain(|name, _| o.latest.get(name).is_some_and(|r| matches!(r.state, State::Running { .. })));
        o.condemned.clone_from(&self.condemned);
        o.stopping.clone_from(&self.stopping.lock());
        o.backoff.clone_from(&self.backoff);
        o.held.clone_from(&self.held);
        o
    }

    /// Registers a running container with the collector and starts its probes.
    fn watch_container(&self, pod: &Arc<Pod>, record: &Record) -> Watched {
        self.register_cgroup(pod, record);
        let mut w = Watched { started: true, ready: true, probes: Vec::new() };
        let Some(c) = find_container(pod, &record.identity.container) else { return w };
        w.started = c.startup_probe.is_none();
        w.ready = c.readiness_probe.is_none();
        // Adopted: what the status says holds until a probe says otherwise.
        let said = pod.status.iter().flat_map(|s| {
            s.container_statuses.iter().flatten().chain(s.init_container_statuses.iter().flatten())
        });
        let id = format!("containerd://{}", record.id);
        if let Some(s) = said.into_iter().find(|s| s.container_id.as_deref() == Some(id.as_str())) {
            w.started |= s.started == Some(true);
            w.ready |= s.ready;
        }
        let ip = self.addr.as_ref().map_or(self.node.config.node_ip, |a| a.ip);
        w.probes = probes::start(&self.node.runtime, &c, record, ip, w.started, self.probe_sender.clone());
        w
    }

    fn register_cgroup(&self, pod: &Arc<Pod>, record: &Record) {
        let id = &record.identity;
        let path = format!("{}/{}", id.cgroup, record.id);
        let labels = signal::Labels::from_pairs([
            ("namespace", id.namespace.as_str()),
            ("pod", &id.pod_name),
            ("container", &id.container),
            ("image", &id.image),
            ("id", &path),
            ("name", &record.id),
            ("node", &self.node.config.node_name),
        ]);
        self.node.cgroups.set(path.clone(), CgroupTarget { path, labels, netns: None });
        let pod_path = quantity::cgroup(&self.node.config.cgroup_root, pod);
        let labels = signal::Labels::from_pairs([
            ("namespace", id.namespace.as_str()),
            ("pod", &id.pod_name),
            ("id", &pod_path),
            ("node", &self.node.config.node_name),
        ]);
        let netns = self.addr.as_ref().map(|a| a.namespaces.net.clone());
        self.node.cgroups.set(pod_path.clone(), CgroupTarget { path: pod_path, labels, netns });
    }

    fn hear(&mut self, pod: &Arc<Pod>, event: ProbeEvent) {
        let Some(w) = self.watched.get_mut(&event.id) else { return };
        let name = event.container.as_str();
        if let Some(warning) = event.warning {
            let note = format!("{} probe warning: {warning}", event.kind.title());
            self.node.events.warning(pod, Some(name), "ProbeWarning", note);
        }
        match (event.kind, event.failure) {
            (probes::Kind::Startup, None) => w.started = true,
            (probes::Kind::Readiness, None) => w.ready = true,
            (probes::Kind::Liveness, None) => {}
            (kind, Some(f)) => {
                let note = format!("{} probe failed: {}", kind.title(), f.output);
                self.node.events.warning(pod, Some(name), "Unhealthy", note);
                if !f.decided {
                    return;
                }
                if kind == probes::Kind::Readiness {
                    w.ready = false;
                } else {
                    let lower = kind.title().to_ascii_lowercase();
                    let message = format!("Container {name} failed {lower} probe, will be restarted");
                    if let Some(grace) = event.grace {
                        self.probe_grace.insert(name.to_owned(), grace);
                    }
                    self.condemned.entry(event.container).or_insert(message);
                }
            }
        }
    }

    /// Tells the API, and counts what is new.
    fn report(&mut self, pod: &Arc<Pod>, o: &Observed, plan: &Plan) {
        let place = status::Place {
            host_ip: self.node.config.node_ip.to_string(),
            pod_ip: self.pod_ip(pod).map(|ip| ip.to_string()),
        };
        let s = status::build(pod, o, plan, &place);
        let ready = status::is_ready(&s);
        if ready && !self.was_ready {
            let span = span(pod, "pod ready");
            let elapsed = o.now.since(self.first_seen);
            span.in_scope(|| tracing::info!(pod = ?pod.metadata.name, ?elapsed, "pod is ready"));
        }
        self.was_ready = ready;
        if !self.counted_start && plan.phase == crate::plan::Phase::Running {
            self.counted_start = true;
            METRICS.pod_start_seconds.observe(o.now.since(self.first_seen).as_secs_f64());
        }
        let looping: BTreeSet<String> = plan.crash_looping.keys().cloned().collect();
        for name in looping.difference(&self.crash_looping) {
            let pod_name = status::full_name(pod);
            let note = format!("Back-off restarting failed container {name} in pod {pod_name}");
            self.node.events.warning(pod, Some(name), "BackOff", note);
        }
        self.crash_looping = looping;
        self.reporter.send(s);
    }

    fn pod_ip(&self, pod: &Pod) -> Option<Ipv4Addr> {
        if host_network(pod) {
            return self.set_up.then_some(self.node.config.node_ip);
        }
        self.addr.as_ref().map(|a| a.ip)
    }

    /// Network, volumes, files and cgroup, all at once. True if it worked.
    async fn try_set_up(&mut self, pod: &Arc<Pod>) -> bool {
        if self.set_up_retry.is_some_and(|(at, _)| at > self.node.now()) {
            return false;
        }
        match self.set_up(pod).await {
            Ok(()) => {
                self.set_up = true;
                self.set_up_retry = None;
                true
            }
            Err(e) => {
                let reason = match &e {
                    Error::Network(_) => "FailedCreatePodSandBox",
                    _ => "FailedMount",
                };
                self.node.events.warning(pod, None, reason, e.to_string());
                tracing::warn!(pod = ?pod.metadata.name, error = %e, "setting up a pod");
                let delay = self
                    .set_up_retry
                    .map_or(Duration::from_millis(500), |(_, d)| (d * 2).min(Duration::from_secs(120)));
                self.set_up_retry = Some((self.node.now().saturating_add(delay), delay));
                false
            }
        }
    }

    async fn set_up(&mut self, pod: &Arc<Pod>) -> Result<(), Error> {
        let node = self.node.clone();
        let dir = node.config.pod_dir(&self.uid);
        std::fs::create_dir_all(&dir).map_err(Error::io(format!("create {dir:?}")))?;
        let spec = pod.spec.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let network = async {
            if host_network(pod) {
                return Ok(None);
            }
            let host = crate::container::hostname(pod);
            let addr = node.network.attach(&self.uid, &namespace, &host).await?;
            node.network.set_host_ports(&self.uid, addr.ip, host_ports(&spec.containers)).await?;
            Ok::<_, Error>(Some(addr))
        }
        .instrument(span(pod, "network attach"));
        // The address stands already if the pod is adopted; else files that show it wait for the network below.
        let ip_text = node.network.address(&self.uid).map(|i| i.to_string()).unwrap_or_default();
        let host_ip = node.config.node_ip.to_string();
        let facts = facts(&node, pod, &host_ip, &ip_text);
        let (addr, volumes) =
            tokio::try_join!(network, volumes::set_up(&node.client, &facts, &self.tokens, &dir))?;
        let path = quantity::cgroup(&node.config.cgroup_root, pod);
        node.runtime.hierarchy().create_pod(&path, &quantity::pod_limits(&spec))?;
        crate::container::write_etc(pod, &dir, addr.as_ref().map(|a| a.ip), &node.config.network)?;
        self.addr = addr;
        self.volumes = volumes;
        if self.volume_task.is_none() {
            let task = volumes::follow(node.client.clone(), pod.clone(), self.volume_bell.clone());
            self.volume_task = Some(telemetry::task::spawn("pod-volumes", task));
        }
        Ok(())
    }

    /// Labels and annotations may stand in files of the pod.
    async fn follow_metadata(&mut self, before: &Arc<Pod>) {
        let now = self.pod.borrow().clone();
        let same = before.metadata.labels == now.metadata.labels
            && before.metadata.annotations == now.metadata.annotations;
        if !same {
            self.refresh_volumes(&now).await;
        }
    }

    async fn refresh_volumes(&mut self, pod: &Arc<Pod>) {
        if !self.set_up || self.released {
            return;
        }
        let ip = self.pod_ip(pod).map(|i| i.to_string()).unwrap_or_default();
        let host_ip = self.node.config.node_ip.to_string();
        let facts = facts(&self.node, pod, &host_ip, &ip);
        let dir = self.node.config.pod_dir(&self.uid);
        if let Err(e) = volumes::refresh(&self.node.client, &facts, &self.tokens, &dir).await {
            tracing::warn!(pod = ?pod.metadata.name, error = %e, "refreshing volumes");
        }
    }

    /// Stops a container on a task of its own: the pod may change meanwhile.
    fn stop(&mut self, pod: &Arc<Pod>, name: String, id: String, message: String) {
        self.stopping.lock().insert(name.clone());
        self.node.events.normal(pod, Some(&name), "Killing", message);
        if let Some(w) = self.watched.get_mut(&id) {
            w.probes.drain(..).for_each(|p| p.abort());
        }
        let ends = pod.metadata.deletion_timestamp.is_some();
        let since = ends.then(|| *self.ending_since.get_or_insert_with(signal::time::monotonic));
        let job = lifecycle::Stop {
            node: self.node.clone(),
            since,
            probe_grace: self.probe_grace.remove(&name),
            pod: self.pod.clone(),
            name: name.clone(),
            id,
            ip: self.addr.as_ref().map_or(self.node.config.node_ip, |a| a.ip),
        };
        let (stopping, bell) = (self.stopping.clone(), self.bell.clone());
        telemetry::task::spawn("container-stop", async move {
            job.run().await;
            stopping.lock().remove(&name);
            bell.notify_one();
        });
    }
}

enum Next {
    Gone,
    Wait(Option<Timestamp>),
}

pub(crate) fn facts<'a>(node: &'a Node, pod: &'a Pod, host_ip: &'a str, pod_ip: &'a str) -> Facts<'a> {
    Facts {
        pod,
        node_name: &node.config.node_name,
        host_ip,
        pod_ip,
        node_cpu: node.cpu,
        node_memory: node.memory,
    }
}

pub(crate) fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network) == Some(true)
}

pub(crate) fn find_container(pod: &Pod, name: &str) -> Option<Container> {
    let spec = pod.spec.as_ref()?;
    let mut own = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    own.find(|c| c.name == name).cloned().or_else(|| plan::ephemeral(spec).find(|c| c.name == name))
}

fn host_ports(containers: &[Container]) -> Vec<HostPort> {
    containers
        .iter()
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            Some(HostPort {
                host_ip: p.host_ip.as_deref().and_then(|i| i.parse().ok()),
                host_port: p.host_port.and_then(|h| u16::try_from(h).ok()).filter(|h| *h > 0)?,
                container_port: u16::try_from(p.container_port).ok()?,
                protocol: Protocol::parse(p.protocol.as_deref()),
            })
        })
        .collect()
}
