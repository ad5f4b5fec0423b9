//! Containers in containerd: create, start, watch, stop, delete, and find again.
//!
//! A container's id is the hash of pod uid, name and attempt, so that a step repeated after a crash finds what
//! its first half made. What containerd does not keep (when it started, how it ended) stands in a small file
//! beside the container's pipes.

mod capability;
mod exec;
mod seccomp;
mod spec;
mod user;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest,
    GetRequest, KillRequest, ListContainersRequest, ListTasksRequest, StartRequest, SubscribeRequest,
    container::Runtime as RuntimeName, containers_client::ContainersClient, events_client::EventsClient,
    tasks_client::TasksClient,
};
use parking_lot::Mutex;
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use signal::{Timestamp, time::SharedClock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::cgroup::Hierarchy;
use crate::containerd::{Containerd, MAX_MESSAGE};
use crate::error::{Error, found};
use crate::images::{LocalImage, SNAPSHOTTER};
use crate::logs::{self, LogWriter};
use crate::metrics;

pub(crate) use exec::{Exec, ExecIo};
pub(crate) use spec::{Ask, Limits, Mount};
pub(crate) use user::{User, resolve as resolve_user};

const SHIM: &str = "io.containerd.runc.v2";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

const POD_UID: &str = "io.kubernetes.pod.uid";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const ATTEMPT: &str = "io.kubernetes.container.restartCount";
const SPEC_HASH: &str = "io.kubernetes.container.hash";
const IMAGE_ID: &str = "binnacle.io/image-id";
const CGROUP: &str = "binnacle.io/cgroup";
const WORKLOAD: &str = "binnacle.io/workload";

/// Which container: what its labels say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pod_uid: String,
    pub(crate) pod_name: String,
    pub(crate) namespace: String,
    pub(crate) container: String,
    pub(crate) attempt: u32,
    pub(crate) spec_hash: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) cgroup: String,
    /// What the pod belongs to, such as its Deployment's name; empty if nobody controls it.
    pub(crate) workload: String,
}

impl Identity {
    /// The same attempt has the same id, whoever computes it.
    pub(crate) fn id(&self) -> String {
        let text = format!("{}/{}/{}", self.pod_uid, self.container, self.attempt);
        hex::encode(Sha256::digest(text))
    }

    fn labels(&self) -> HashMap<String, String> {
        [
            (POD_UID, &self.pod_uid),
            (POD_NAME, &self.pod_name),
            (POD_NAMESPACE, &self.namespace),
            (CONTAINER_NAME, &self.container),
            (ATTEMPT, &self.attempt.to_string()),
            (SPEC_HASH, &self.spec_hash),
            (IMAGE_ID, &self.image_id),
            (CGROUP, &self.cgroup),
            (WORKLOAD, &self.workload),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.clone()))
        .collect()
    }

    fn from_record(c: &Container) -> Option<Self> {
        let get = |k: &str| c.labels.get(k).cloned();
        Some(Identity {
            pod_uid: get(POD_UID)?,
            pod_name: get(POD_NAME)?,
            namespace: get(POD_NAMESPACE)?,
            container: get(CONTAINER_NAME)?,
            attempt: get(ATTEMPT)?.parse().ok()?,
            spec_hash: get(SPEC_HASH)?,
            image: c.image.clone(),
            image_id: get(IMAGE_ID)?,
            cgroup: get(CGROUP)?,
            workload: get(WORKLOAD).unwrap_or_default(),
        })
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) oom_killed: bool,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    /// What it left in its termination message file.
    pub(crate) message: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running { pid: u32, started_at: Timestamp },
    Exited(Exit),
}

/// A container as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) identity: Identity,
    pub(crate) state: State,
}

/// What outlives us and containerd does not keep: see FORMAT.md.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    version: u32,
    started_at: Option<Timestamp>,
    exit: Option<Exit>,
    /// Where the termination message stands on the node.
    termination_log: Option<PathBuf>,
}

const KEPT_VERSION: u32 = 1;

/// The containers of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    containerd: Containerd,
    hierarchy: Hierarchy,
    clock: SharedClock,
    pods_dir: PathBuf,
    logs: logs::Logs,
    records: Mutex<BTreeMap<String, Record>>,
    writers: Mutex<HashMap<String, LogWriter>>,
    /// Rung at each change of a pod's containers.
    changed: Mutex<HashMap<String, Arc<Notify>>>,
    /// Grows with each change of any container, for those who wait for one of them.
    generation: tokio::sync::watch::Sender<u64>,
}

impl Runtime {
    pub(crate) fn new(
        containerd: Containerd,
        hierarchy: Hierarchy,
        clock: SharedClock,
        pods_dir: PathBuf,
        logs: logs::Logs,
    ) -> Self {
        Runtime {
            inner: Arc::new(Inner {
                containerd,
                hierarchy,
                clock,
                pods_dir,
                logs,
                records: Mutex::default(),
                writers: Mutex::default(),
                changed: Mutex::default(),
                generation: tokio::sync::watch::Sender::new(0),
            }),
        }
    }

    pub(crate) fn containerd(&self) -> &Containerd {
        &self.inner.containerd
    }

    pub(crate) fn hierarchy(&self) -> &Hierarchy {
        &self.inner.hierarchy
    }

    pub(crate) fn logs(&self) -> &logs::Logs {
        &self.inner.logs
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.inner.containerd.channel.clone())
    }

    fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.inner.containerd.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The directory of a container's pipes and state.
    pub(crate) fn io_dir(&self, identity: &Identity) -> PathBuf {
        self.inner
            .pods_dir
            .join(&identity.pod_uid)
            .join("io")
            .join(format!("{}-{}", identity.container, identity.attempt))
    }

    /// Rings when containers of the pod change.
    pub(crate) fn changes(&self, pod_uid: &str) -> Arc<Notify> {
        self.inner.changed.lock().entry(pod_uid.to_owned()).or_default().clone()
    }

    pub(crate) fn forget_changes(&self, pod_uid: &str) {
        self.inner.changed.lock().remove(pod_uid);
    }

    fn ring(&self, pod_uid: &str) {
        self.inner.generation.send_modify(|g| *g += 1);
        if let Some(n) = self.inner.changed.lock().get(pod_uid) {
            n.notify_one();
        }
    }

    /// All containers of a pod, by name and attempt.
    pub(crate) fn of_pod(&self, pod_uid: &str) -> Vec<Record> {
        let records = self.inner.records.lock();
        let mut out: Vec<Record> =
            records.values().filter(|r| r.identity.pod_uid == pod_uid).cloned().collect();
        out.sort_by(|a, b| {
            (&a.identity.container, a.identity.attempt).cmp(&(&b.identity.container, b.identity.attempt))
        });
        out
    }

    pub(crate) fn get(&self, id: &str) -> Option<Record> {
        self.inner.records.lock().get(id).cloned()
    }

    /// Uids of pods that have containers.
    pub(crate) fn pods(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.inner.records.lock().values().map(|r| r.identity.pod_uid.clone()).collect();
        all.sort();
        all.dedup();
        all
    }

    pub(crate) fn running(&self) -> usize {
        let records = self.inner.records.lock();
        records.values().filter(|r| matches!(r.state, State::Running { .. })).count()
    }

    fn set_state(&self, id: &str, state: State) {
        let uid = {
            let mut records = self.inner.records.lock();
            let Some(r) = records.get_mut(id) else { return };
            r.state = state;
            r.identity.pod_uid.clone()
        };
        metrics::METRICS.running_containers.set(i64::try_from(self.running()).unwrap_or(i64::MAX));
        self.ring(&uid);
    }

    fn kept(&self, identity: &Identity) -> Kept {
        let file = self.io_dir(identity).join("state.json");
        match std::fs::read(&file).map(|b| serde_json::from_slice::<Kept>(&b)) {
            Ok(Ok(k)) if k.version == KEPT_VERSION => k,
            Ok(_) => {
                tracing::warn!(?file, "a container's state file is damaged; its times are unknown");
                Kept::default()
            }
            Err(_) => Kept::default(),
        }
    }

    fn keep(&self, identity: &Identity, change: impl FnOnce(&mut Kept)) -> Result<(), Error> {
        let dir = self.io_dir(identity);
        let mut kept = self.kept(identity);
        kept.version = KEPT_VERSION;
        change(&mut kept);
        let bytes = serde_json::to_vec(&kept).expect("plain data is JSON");
        crate::files::replace(&dir.join("state.json"), &bytes)
    }

    /// Finds the containers of an earlier process. Those that run go on; how others ended is asked of containerd.
    pub(crate) async fn adopt(&self) -> Result<(), Error> {
        let c = &self.inner.containerd;
        let (mut containers, mut tasks) = (self.containers(), self.tasks());
        let list = containers.list(c.request(ListContainersRequest { filters: Vec::new() }));
        let list = list.await.map_err(Error::containerd("list containers"))?.into_inner().containers;
        let tasks = tasks.list(c.request(ListTasksRequest { filter: String::new() }));
        let tasks = tasks.await.map_err(Error::containerd("list tasks"))?.into_inner().tasks;
        let tasks: HashMap<String, _> = tasks.into_iter().map(|t| (t.id.clone(), t)).collect();
        let mut ended = Vec::new();
        for container in list {
            let Some(identity) = Identity::from_record(&container) else { continue };
            let kept = self.kept(&identity);
            let started_at = kept.started_at.unwrap_or_else(|| self.inner.clock.now());
            let state = match (kept.exit, tasks.get(&container.id)) {
                (Some(exit), _) => State::Exited(exit),
                (None, Some(t)) if t.status == 1 => State::Created,
                (None, Some(t)) => State::Running { pid: t.pid, started_at },
                // Never started, or its shim died with everything (a reboot).
                (None, None) if kept.started_at.is_none() => State::Created,
                (None, None) => State::Running { pid: 0, started_at },
            };
            let task = tasks.get(&container.id);
            if matches!(state, State::Running { .. }) && task.is_none_or(|t| t.status == 3) {
                ended.push(container.id.clone());
            }
            if let State::Running { .. } = state {
                let writer = self.inner.logs.open(&identity, &self.io_dir(&identity)).await?;
                self.inner.writers.lock().insert(container.id.clone(), writer);
            }
            let record = Record { id: container.id.clone(), identity, state };
            self.inner.records.lock().insert(container.id, record);
        }
        for id in ended {
            self.finish(&id, None).await;
        }
        metrics::METRICS.running_containers.set(i64::try_from(self.running()).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Follows containerd's events until the token's word. After each (re)connection it compares with what is.
    pub(crate) async fn follow(self, stop: CancellationToken) {
        loop {
            let result = tokio::select! {
                () = stop.cancelled() => return,
                r = self.follow_once() => r,
            };
            if let Err(e) = result {
                tracing::warn!(error = %e, "containerd's events ended; trying again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    async fn follow_once(&self) -> Result<(), Error> {
        let filter = format!("namespace==\"{}\",topic==\"/tasks/exit\"", self.inner.containerd.namespace);
        let what = || Error::containerd("follow events");
        let mut events = EventsClient::new(self.inner.containerd.channel.clone());
        let mut stream =
            events.subscribe(SubscribeRequest { filters: vec![filter] }).await.map_err(what())?.into_inner();
        self.reconcile().await?;
        while let Some(envelope) = stream.message().await.map_err(what())? {
            let Some(any) = envelope.event else { continue };
            let Ok(exit) = containerd_client::events::TaskExit::decode(&any.value[..]) else { continue };
            // An exec's exit has its own id; who started it waits for it.
            if exit.id == exit.container_id || exit.id.is_empty() {
                let at = exit.exited_at.as_ref().map(timestamp);
                let this = self.clone();
                let ended = (exit.exit_status, at);
                telemetry::task::spawn("container-exit", async move {
                    this.finish(&exit.container_id, Some(ended)).await;
                });
            }
        }
        Ok(())
    }

    /// Finds exits whose events nobody heard.
    async fn reconcile(&self) -> Result<(), Error> {
        let running: Vec<String> = {
            let records = self.inner.records.lock();
            let running = records.values().filter(|r| matches!(r.state, State::Running { .. }));
            running.map(|r| r.id.clone()).collect()
        };
        for id in running {
            let get = GetRequest { container_id: id.clone(), ..GetRequest::default() };
            let task = found(self.tasks().get(self.inner.containerd.request(get)).await)
                .map_err(Error::containerd("look up a task"))?;
            if task.and_then(|t| t.into_inner().process).is_none_or(|p| p.status == 3) {
                self.finish(&id, None).await;
            }
        }
        Ok(())
    }

    /// A container ended: take its last lines, its exit and its message, then let its shim go.
    async fn finish(&self, id: &str, seen: Option<(u32, Option<Timestamp>)>) {
        let Some(record) = self.get(id) else { return };
        let State::Running { started_at, .. } = record.state else { return };
        let oom = self.inner.hierarchy.oom_kills(&format!("{}/{id}", record.identity.cgroup)) > 0;
        let delete = DeleteTaskRequest { container_id: id.to_owned() };
        // The shim answers when the last byte of output is in our pipes.
        let deleted = found(self.tasks().delete(self.inner.containerd.request(delete)).await);
        let deleted = match deleted {
            Ok(d) => d.map(tonic::Response::into_inner),
            Err(e) => {
                tracing::debug!(id, error = %e, "deleting a task that ended");
                None
            }
        };
        let (code, at) = match (seen, deleted) {
            (_, Some(d)) => (d.exit_status, d.exited_at.as_ref().map(timestamp)),
            (Some(s), None) => s,
            // Gone without a trace: the machine or the shim was killed.
            (None, None) => (137, None),
        };
        let writer = self.inner.writers.lock().remove(id);
        if let Some(w) = writer {
            w.finish().await;
        }
        let code = i32::try_from(code).unwrap_or(-1);
        let mut exit = Exit {
            code,
            oom_killed: oom && code != 0,
            started_at,
            finished_at: at.filter(|t| t.0 > 0).unwrap_or_else(|| self.inner.clock.now()),
            message: None,
        };
        exit.message = self.termination_message(&record.identity, &exit);
        let kept = self.keep(&record.identity, |k| k.exit = Some(exit.clone()));
        if let Err(e) = kept {
            tracing::warn!(id, error = %e, "keeping how a container ended");
        }
        self.set_state(id, State::Exited(exit));
    }

    /// At most 4 KiB of the termination message file.
    fn termination_message(&self, identity: &Identity, _exit: &Exit) -> Option<String> {
        let file = self.kept(identity).termination_log?;
        let text = crate::files::read_at_most(&file, 4096).ok()?;
        (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
    }

    /// Lets go of all containers: they run on, and their output waits in the pipes.
    pub(crate) async fn suspend(&self) {
        let writers: Vec<LogWriter> = self.inner.writers.lock().drain().map(|(_, w)| w).collect();
        for w in writers {
            w.suspend().await;
        }
    }

    /// Prepares a container's root file system; gives its mounts. Repeating it is fine.
    pub(crate) async fn prepare(
        &self,
        identity: &Identity,
        image: &LocalImage,
    ) -> Result<Vec<containerd_client::types::Mount>, Error> {
        let c = &self.inner.containerd;
        let mut snapshots = SnapshotsClient::new(c.channel.clone());
        let key = identity.id();
        let prepare = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.clone(),
            parent: image.chain_id.clone(),
            // A root of its own for the garbage collector: it must not vanish before the container record
            // names it, and `delete` removes it by name. That is two calls less than a lease.
            labels: [("containerd.io/gc.root".to_owned(), "container".to_owned())].into(),
        };
        match snapshots.prepare(c.request(prepare)).await {
            Ok(r) => Ok(r.into_inner().mounts),
            Err(e) if e.code() == tonic::Code::AlreadyExists => {
                let mounts = MountsRequest { snapshotter: SNAPSHOTTER.to_owned(), key };
                let r = snapshots.mounts(c.request(mounts)).await;
                Ok(r.map_err(Error::containerd("find a container's root"))?.into_inner().mounts)
            }
            Err(e) => Err(Error::containerd("prepare a container's root")(e)),
        }
    }

    /// Creates the container and its task, with its output wired to the log writer. It does not run yet.
    pub(crate) async fn create(
        &self,
        identity: &Identity,
        ask: &Ask,
        rootfs: Vec<containerd_client::types::Mount>,
        termination_log: Option<PathBuf>,
    ) -> Result<String, Error> {
        let _timer = metrics::operation("create_container");
        let c = &self.inner.containerd;
        let id = identity.id();
        let spec = serde_json::to_vec(&spec::build(ask)?).expect("a spec is JSON");
        let container = Container {
            id: id.clone(),
            labels: identity.labels(),
            image: identity.image.clone(),
            runtime: Some(RuntimeName { name: SHIM.to_owned(), options: None }),
            spec: Some(prost_types::Any { type_url: SPEC_TYPE.to_owned(), value: spec }),
            snapshotter: SNAPSHOTTER.to_owned(),
            snapshot_key: id.clone(),
            ..Container::default()
        };
        let io_dir = self.io_dir(identity);
        std::fs::create_dir_all(&io_dir).map_err(Error::io(format!("create {io_dir:?}")))?;
        self.keep(identity, |k| k.termination_log = termination_log)?;
        let create = CreateContainerRequest { container: Some(container) };
        match self.containers().create(c.request(create)).await {
            Err(e) if e.code() != tonic::Code::AlreadyExists => {
                return Err(Error::containerd("create a container")(e));
            }
            _ => {}
        }
        let record = Record { id: id.clone(), identity: identity.clone(), state: State::Created };
        self.inner.records.lock().insert(id.clone(), record);
        let writer = self.inner.logs.open(identity, &io_dir).await?;
        let path = |name: &str| io_dir.join(name).display().to_string();
        let task = CreateTaskRequest {
            container_id: id.clone(),
            rootfs,
            stdin: String::new(),
            stdout: path("stdout"),
            stderr: path("stderr"),
            ..CreateTaskRequest::default()
        };
        match self.tasks().create(c.request(task)).await {
            Err(e) if e.code() != tonic::Code::AlreadyExists => {
                writer.finish().await;
                return Err(Error::containerd("create a task")(e));
            }
            _ => {}
        }
        self.inner.writers.lock().insert(id.clone(), writer);
        Ok(id)
    }

    /// Runs a created container.
    pub(crate) async fn start(&self, id: &str) -> Result<u32, Error> {
        let _timer = metrics::operation("start_container");
        let Some(record) = self.get(id) else {
            return Err(Error::Config(format!("container {id} is not known")));
        };
        let start = StartRequest { container_id: id.to_owned(), ..StartRequest::default() };
        // Running before it is started: an exit may be heard before the answer.
        let started_at = self.inner.clock.now();
        self.keep(&record.identity, |k| k.started_at = Some(started_at))?;
        self.set_state(id, State::Running { pid: 0, started_at });
        match self.tasks().start(self.inner.containerd.request(start)).await {
            Ok(r) => {
                let pid = r.into_inner().pid;
                if let Some(Record { state: State::Running { pid: p, .. }, .. }) =
                    self.inner.records.lock().get_mut(id)
                {
                    *p = pid;
                }
                Ok(pid)
            }
            Err(e) => {
                self.set_state(id, State::Created);
                Err(Error::containerd("start a container")(e))
            }
        }
    }

    /// A start that failed is an end: the container gets an exit, so that back-off and status see it.
    pub(crate) async fn fail(&self, identity: &Identity, code: i32, message: String) {
        let now = self.inner.clock.now();
        let exit = Exit {
            code,
            oom_killed: false,
            started_at: Timestamp(0),
            finished_at: now,
            message: Some(message),
        };
        let id = identity.id();
        let writer = self.inner.writers.lock().remove(&id);
        if let Some(w) = writer {
            w.finish().await;
        }
        if let Err(e) = self.keep(identity, |k| k.exit = Some(exit.clone())) {
            tracing::warn!(id, error = %e, "keeping how a container ended");
        }
        let record = Record { id: id.clone(), identity: identity.clone(), state: State::Exited(exit) };
        self.inner.records.lock().insert(id, record);
        self.ring(&identity.pod_uid);
    }

    /// Sends a signal; a container that is gone is fine.
    pub(crate) async fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), Error> {
        let kill = KillRequest {
            container_id: id.to_owned(),
            signal: u32::try_from(signal).unwrap_or(15),
            all,
            ..KillRequest::default()
        };
        match self.tasks().kill(self.inner.containerd.request(kill)).await {
            Err(e) if !matches!(e.code(), tonic::Code::NotFound | tonic::Code::FailedPrecondition) => {
                Err(Error::containerd("signal a container")(e))
            }
            _ => Ok(()),
        }
    }

    /// Waits until the container does not run.
    pub(crate) async fn wait_exit(&self, id: &str) {
        let mut generation = self.inner.generation.subscribe();
        while let Some(State::Running { .. }) = self.get(id).map(|r| r.state) {
            if generation.changed().await.is_err() {
                return;
            }
        }
    }

    /// Removes a container with everything it has: task, record, snapshot, pipes. Its logs stay.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), Error> {
        let _timer = metrics::operation("remove_container");
        let c = &self.inner.containerd;
        let record = self.get(id);
        if matches!(record.as_ref().map(|r| &r.state), Some(State::Running { .. } | State::Created)) {
            self.kill(id, libc::SIGKILL, true).await?;
            self.finish(id, None).await;
        }
        let task = DeleteTaskRequest { container_id: id.to_owned() };
        match found(self.tasks().delete(c.request(task)).await) {
            Ok(_) => {}
            Err(e) => tracing::debug!(id, error = %e, "deleting a task"),
        }
        let writer = self.inner.writers.lock().remove(id);
        if let Some(w) = writer {
            w.finish().await;
        }
        let delete = DeleteContainerRequest { id: id.to_owned() };
        found(self.containers().delete(c.request(delete)).await)
            .map_err(Error::containerd("delete a container"))?;
        let remove = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: id.to_owned() };
        found(SnapshotsClient::new(c.channel.clone()).remove(c.request(remove)).await)
            .map_err(Error::containerd("remove a container's root"))?;
        if let Some(r) = record {
            let dir = self.io_dir(&r.identity);
            crate::files::remove_dir(&dir)?;
            self.inner.records.lock().remove(id);
            self.ring(&r.identity.pod_uid);
        }
        Ok(())
    }
}

/// A protobuf time as ours.
fn timestamp(t: &prost_types::Timestamp) -> Timestamp {
    Timestamp(t.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(t.nanos)))
}

/// All containers of a namespace in containerd, by id: for `down` and `purge`, which know no pods.
pub(crate) async fn list_ids(c: &Containerd) -> Result<Vec<String>, Error> {
    let mut client = ContainersClient::new(c.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
    let list = client.list(c.request(ListContainersRequest { filters: Vec::new() })).await;
    let list = list.map_err(Error::containerd("list containers"))?.into_inner();
    Ok(list.containers.into_iter().map(|c| c.id).collect())
}

/// Where a container's files of the image can be read without mounting: overlay's layers, top first.
pub(crate) fn layers(mounts: &[containerd_client::types::Mount]) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for m in mounts {
        if m.r#type == "bind" {
            out.push(PathBuf::from(&m.source));
        }
        for o in &m.options {
            if let Some(lower) = o.strip_prefix("lowerdir=") {
                out.extend(lower.split(':').map(|p| Path::new(p).to_owned()));
            }
        }
    }
    out
}
