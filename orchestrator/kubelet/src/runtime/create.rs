//! The beginning of a container: root file system, record, task, start.

use std::path::{Path, PathBuf};

use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{MountsRequest, PrepareSnapshotRequest};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, StartRequest, container::Runtime as RuntimeName,
};
use nix::sys::stat::Mode;
use signal::Timestamp;

use super::{Ask, Exit, Identity, Record, Runtime, State, Termination, spec};
use crate::error::Error;
use crate::images::{LocalImage, SNAPSHOTTER};
use crate::metrics;

const SHIM: &str = "io.containerd.runc.v2";
/// The name of the input pipe beside `stdout` and `stderr`.
pub(super) const STDIN: &str = "stdin";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

impl Runtime {
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
        termination: Termination,
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
        self.keep(identity, |k| {
            k.termination_log = Some(termination.file);
            k.or_end_of_log = termination.or_end_of_log;
            k.terminal = ask.terminal;
        })?;
        let create = CreateContainerRequest { container: Some(container) };
        match self.containers().create(c.request(create)).await {
            Err(e) if e.code() != tonic::Code::AlreadyExists => {
                return Err(Error::containerd("create a container")(e));
            }
            _ => {}
        }
        let record = Record { id: id.clone(), identity: identity.clone(), state: State::Created };
        self.inner.records.lock().insert(id.clone(), record);
        let writer = self.inner.logs.open(identity, &io_dir, ask.terminal).await?;
        if ask.stdin {
            make_stdin(&io_dir)?;
        }
        let path = |name: &str| io_dir.join(name).display().to_string();
        let task = CreateTaskRequest {
            container_id: id.clone(),
            rootfs,
            stdin: if ask.stdin { path(STDIN) } else { String::new() },
            stdout: path("stdout"),
            // A terminal has one stream only.
            stderr: if ask.terminal { String::new() } else { path("stderr") },
            terminal: ask.terminal,
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
}

/// The pipe of a container's input. The shim reads it and keeps it open: it has no end until it is told so.
fn make_stdin(dir: &Path) -> Result<(), Error> {
    let path = dir.join(STDIN);
    match nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(e) => Err(Error::io(format!("make {path:?}"))(e.into())),
    }
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
