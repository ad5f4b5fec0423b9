//! Further processes in a running container: `kubectl exec`, probes and hooks.

use std::path::{Path, PathBuf};

use containerd_client::services::v1::{
    CloseIoRequest, DeleteProcessRequest, ExecProcessRequest, GetContainerRequest, KillRequest,
    ResizePtyRequest, StartRequest, WaitRequest,
};
use nix::sys::stat::Mode;
use oci_spec::runtime::Spec;
use serde_json::json;
use tokio::net::unix::pipe;

use super::create::STDIN;
use super::{Identity, Runtime};
use crate::error::{Error, found};

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// Our ends of an exec's pipes.
pub(crate) struct ExecIo {
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: pipe::Receiver,
    /// `None` with a terminal, which has one stream only.
    pub(crate) stderr: Option<pipe::Receiver>,
}

/// A running exec. [`Exec::finish`] must be called; else its pipes are removed with the pod.
pub(crate) struct Exec {
    runtime: Runtime,
    container: String,
    id: String,
    dir: PathBuf,
}

fn fifo(dir: &Path, name: &str) -> Result<PathBuf, Error> {
    let path = dir.join(name);
    nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(|e| Error::io(format!("make {path:?}"))(e.into()))?;
    Ok(path)
}

impl Runtime {
    /// Starts a process in a container, with the container's own user, environment and limits.
    pub(crate) async fn exec(
        &self,
        container: &str,
        args: Vec<String>,
        stdin: bool,
        terminal: bool,
    ) -> Result<(Exec, ExecIo), Error> {
        let c = self.containerd();
        let Some(record) = self.get(container) else {
            return Err(Error::Config(format!("container {container} is not known")));
        };
        let get = GetContainerRequest { id: container.to_owned() };
        let found =
            self.containers().get(c.request(get)).await.map_err(Error::containerd("find a container"))?;
        let spec = found.into_inner().container.and_then(|c| c.spec).map(|s| s.value).unwrap_or_default();
        let spec: Spec = serde_json::from_slice(&spec)
            .map_err(|e| Error::Config(format!("the container's spec cannot be read: {e}")))?;
        let mut process = serde_json::to_value(spec.process()).expect("a process is JSON");
        process["args"] = json!(args);
        process["terminal"] = json!(terminal);
        if terminal && let Some(env) = process["env"].as_array_mut() {
            env.push(json!("TERM=xterm"));
        }

        let id = uuid::Uuid::new_v4().simple().to_string();
        let dir = self.io_dir(&record.identity).join(format!("exec-{id}"));
        std::fs::create_dir_all(&dir).map_err(Error::io(format!("create {dir:?}")))?;
        let open = |path: &Path| {
            pipe::OpenOptions::new().open_receiver(path).map_err(Error::io(format!("open {path:?}")))
        };
        let out = fifo(&dir, "stdout")?;
        let stdout = open(&out)?;
        let (err, stderr) = if terminal {
            (None, None)
        } else {
            let err = fifo(&dir, "stderr")?;
            let stderr = open(&err)?;
            (Some(err), Some(stderr))
        };
        let (input, stdin) = if stdin {
            let path = fifo(&dir, "stdin")?;
            // Read-write, because nobody reads yet.
            let sender = pipe::OpenOptions::new().read_write(true).open_sender(&path);
            (Some(path.clone()), Some(sender.map_err(Error::io(format!("open {path:?}")))?))
        } else {
            (None, None)
        };
        let text = |p: Option<PathBuf>| p.map(|p| p.display().to_string()).unwrap_or_default();
        let request = ExecProcessRequest {
            container_id: container.to_owned(),
            stdin: text(input),
            stdout: text(Some(out)),
            stderr: text(err),
            terminal,
            spec: Some(prost_types::Any {
                type_url: PROCESS_TYPE.to_owned(),
                value: serde_json::to_vec(&process).expect("a process is JSON"),
            }),
            exec_id: id.clone(),
        };
        let exec = Exec { runtime: self.clone(), container: container.to_owned(), id, dir };
        let started = async {
            self.tasks().exec(c.request(request)).await?;
            let start = StartRequest { container_id: exec.container.clone(), exec_id: exec.id.clone() };
            self.tasks().start(c.request(start)).await
        }
        .await;
        match started {
            Ok(_) => Ok((exec, ExecIo { stdin, stdout, stderr })),
            Err(e) => {
                exec.finish().await;
                Err(Error::containerd("exec in a container")(e))
            }
        }
    }
}

/// The main process' own input and terminal, for `kubectl attach`.
impl Runtime {
    /// A container's input pipe; an error if it was started without one.
    pub(crate) fn stdin(&self, identity: &Identity) -> Result<pipe::Sender, Error> {
        let path = self.io_dir(identity).join(STDIN);
        pipe::OpenOptions::new().open_sender(&path).map_err(Error::io(format!("open {path:?}")))
    }

    /// Tells the container that there is no more input.
    pub(crate) async fn close_stdin(&self, id: &str) {
        let close = CloseIoRequest { container_id: id.to_owned(), exec_id: String::new(), stdin: true };
        if let Err(e) = self.tasks().close_io(self.containerd().request(close)).await {
            tracing::debug!(id, error = %e, "closing a container's stdin");
        }
    }

    pub(crate) async fn resize(&self, id: &str, width: u32, height: u32) -> Result<(), Error> {
        let resize = ResizePtyRequest { container_id: id.to_owned(), exec_id: String::new(), width, height };
        found(self.tasks().resize_pty(self.containerd().request(resize)).await)
            .map_err(Error::containerd("resize a terminal"))?;
        Ok(())
    }
}

impl Exec {
    /// Waits for the process' end; gives its exit code.
    pub(crate) async fn wait(&self) -> Result<i32, Error> {
        let wait = WaitRequest { container_id: self.container.clone(), exec_id: self.id.clone() };
        let c = self.runtime.containerd();
        let r = self
            .runtime
            .tasks()
            .wait(c.request(wait))
            .await
            .map_err(Error::containerd("wait for an exec"))?;
        Ok(i32::try_from(r.into_inner().exit_status).unwrap_or(-1))
    }

    pub(crate) async fn resize(&self, width: u32, height: u32) -> Result<(), Error> {
        let resize = ResizePtyRequest {
            container_id: self.container.clone(),
            exec_id: self.id.clone(),
            width,
            height,
        };
        let c = self.runtime.containerd();
        found(self.runtime.tasks().resize_pty(c.request(resize)).await)
            .map_err(Error::containerd("resize a terminal"))?;
        Ok(())
    }

    /// Tells the process that there is no more input.
    pub(crate) async fn close_stdin(&self) {
        let close =
            CloseIoRequest { container_id: self.container.clone(), exec_id: self.id.clone(), stdin: true };
        let c = self.runtime.containerd();
        if let Err(e) = self.runtime.tasks().close_io(c.request(close)).await {
            tracing::debug!(error = %e, "closing an exec's stdin");
        }
    }

    pub(crate) async fn kill(&self) {
        let kill = KillRequest {
            container_id: self.container.clone(),
            exec_id: self.id.clone(),
            signal: libc::SIGKILL as u32,
            all: false,
        };
        let c = self.runtime.containerd();
        if let Err(e) = self.runtime.tasks().kill(c.request(kill)).await {
            tracing::debug!(error = %e, "killing an exec");
        }
    }

    /// Removes what containerd and we keep of the process.
    pub(crate) async fn finish(self) {
        let delete = DeleteProcessRequest { container_id: self.container.clone(), exec_id: self.id.clone() };
        let c = self.runtime.containerd();
        if let Err(e) = self.runtime.tasks().delete_process(c.request(delete)).await {
            tracing::debug!(error = %e, "deleting an exec");
        }
        if let Err(e) = crate::files::remove_dir(&self.dir) {
            tracing::debug!(error = %e, "removing an exec's pipes");
        }
    }
}
