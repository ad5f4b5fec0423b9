//! Containers in containerd: create, start, watch, stop, delete, and find again.
//!
//! A container's id is the hash of pod uid, name and attempt, so that a step repeated after a crash finds what
//! its first half made. What containerd does not keep (when it started, how it ended) stands in a small file
//! beside the container's pipes.

mod capability;
mod create;
mod devices;
mod end;
mod exec;
mod identity;
mod seccomp;
mod spec;
mod user;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use containerd_client::services::v1::{
    GetRequest, ListContainersRequest, ListTasksRequest, SubscribeRequest,
    containers_client::ContainersClient, events_client::EventsClient, tasks_client::TasksClient,
};
use parking_lot::Mutex;
use prost::Message;
use serde::{Deserialize, Serialize};
use signal::{Timestamp, time::SharedClock};
use tokio::sync::Notify;
use tonic::transport::Channel;

use crate::cgroup::Hierarchy;
use crate::containerd::{Containerd, MAX_MESSAGE};
use crate::error::{Error, found};
use crate::logs::{self, LogWriter};
use crate::metrics;

pub(crate) use create::layers;
pub(crate) use end::list_ids;
pub(crate) use exec::{Exec, ExecIo};
pub(crate) use identity::Identity;
pub(crate) use spec::{Ask, Limits, Mount};
pub(crate) use user::{User, resolve as resolve_user};

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
    /// If it is empty and the container failed, the end of the log stands in for it.
    #[serde(default)]
    or_end_of_log: bool,
    /// Somebody may sit at the other end: output is not held back until its line is complete.
    #[serde(default)]
    terminal: bool,
}

const KEPT_VERSION: u32 = 1;

/// Where a container's last words are looked for.
#[derive(Clone, Debug)]
pub(crate) struct Termination {
    pub(crate) file: PathBuf,
    pub(crate) or_end_of_log: bool,
}

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
    /// Gives the first processes of those that containerd still has.
    pub(crate) async fn adopt(&self) -> Result<HashSet<i32>, Error> {
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
            let state = match (kept.exit.clone(), tasks.get(&container.id)) {
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
                let writer = self.inner.logs.open(&identity, &self.io_dir(&identity), kept.terminal).await?;
                self.inner.writers.lock().insert(container.id.clone(), writer);
            }
            let record = Record { id: container.id.clone(), identity, state };
            self.inner.records.lock().insert(container.id, record);
        }
        for id in ended {
            self.finish(&id, None).await;
        }
        metrics::METRICS.running_containers.set(i64::try_from(self.running()).unwrap_or(i64::MAX));
        Ok(tasks.values().filter_map(|t| i32::try_from(t.pid).ok()).filter(|p| *p > 0).collect())
    }

    /// Follows containerd's events for as long as it tells them, after a comparison with what is.
    pub(crate) async fn follow(&self) -> Result<(), Error> {
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

    /// Lets go of all containers: they run on, and their output waits in the pipes.
    pub(crate) async fn suspend(&self) {
        let writers: Vec<LogWriter> = self.inner.writers.lock().drain().map(|(_, w)| w).collect();
        for w in writers {
            w.suspend().await;
        }
    }
}

/// A protobuf time as ours.
fn timestamp(t: &prost_types::Timestamp) -> Timestamp {
    Timestamp(t.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(t.nanos)))
}
