//! Containers' output: from their pipes into CRI log files, without loss or doubling.
//!
//! For each container one task: `logs::writer` peeks at a pipe with `tee`, turns whole lines into CRI text
//! (`logs::cri`), notes what it is about to do (`logs::intent`), appends to the file, and only then takes the bytes
//! out of the pipe. A successor reads the note and the pipe and goes on where this one was killed: see FORMAT.md.
//! The file is the buffer: readers never slow a container down, only a full disk does.

pub(crate) mod cri;
mod intent;
mod reader;
mod rotation;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use signal::time::SharedClock;
use signal::{Labels, LogFileTarget, Registry};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::Error;
use crate::runtime::Identity;

pub(crate) use reader::{Query, Reader};

/// Up to which position a source's lines are stored; `None` if none are.
pub type StoredFn = Arc<dyn Fn(&str) -> Option<u64> + Send + Sync>;

/// Where logs go, and who is told.
#[derive(Clone)]
pub(crate) struct Logs {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    node: String,
    clock: SharedClock,
    targets: Arc<Registry<LogFileTarget>>,
    scratch: writer::Scratches,
    troubles: mpsc::Sender<Trouble>,
    stored: Option<StoredFn>,
    /// How far each open log is written; kept after its end so that followers see the last bytes.
    written: Mutex<HashMap<PathBuf, watch::Sender<Progress>>>,
}

/// How far a log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes since the container's beginning.
    pub(crate) position: u64,
    pub(crate) ended: bool,
}

/// A log that cannot be written, most often because the disk is full; or (`None`) that it can again.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    pub(crate) failure: Option<String>,
}

/// A running log writer.
pub(crate) struct LogWriter {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl LogWriter {
    /// Writes what is in the pipes, also a last line without an end, and stops.
    pub(crate) async fn finish(self) {
        // The task may have ended by an error already.
        let _ended = self.stop.send(());
        if let Err(e) = self.task.await {
            tracing::error!(error = %e, "a log writer failed");
        }
    }
}

impl LogWriter {
    /// Stops at once and leaves what is in the pipes to a successor. A write is never cut: it has no await in it.
    pub(crate) async fn suspend(self) {
        self.task.abort();
        // Cancelled is what it shall be.
        let _cancelled = self.task.await;
    }
}

impl Logs {
    pub(crate) fn new(
        root: PathBuf,
        node: String,
        clock: SharedClock,
        targets: Arc<Registry<LogFileTarget>>,
        troubles: mpsc::Sender<Trouble>,
        stored: Option<StoredFn>,
    ) -> Self {
        let written = Mutex::default();
        Logs {
            inner: Arc::new(Inner {
                root,
                node,
                clock,
                targets,
                scratch: writer::Scratches::default(),
                troubles,
                stored,
                written,
            }),
        }
    }

    /// `<root>/<namespace>_<name>_<uid>`.
    pub(crate) fn pod_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.inner.root.join(format!("{namespace}_{name}_{uid}"))
    }

    /// The file now written to.
    pub(crate) fn path(&self, id: &Identity) -> PathBuf {
        let dir = self.pod_dir(&id.namespace, &id.pod_name, &id.pod_uid);
        dir.join(&id.container).join(format!("{}.log", id.attempt))
    }

    /// Opens a container's pipes, makes them if they are not there, and begins to write. A terminal's output is
    /// written as it comes, not only when its line is complete.
    pub(crate) async fn open(
        &self,
        id: &Identity,
        io_dir: &Path,
        terminal: bool,
    ) -> Result<LogWriter, Error> {
        let path = self.path(id);
        let written = Arc::new(Notify::new());
        let progress = self.progress_sender(&path);
        let mut writer = writer::Writer::open(&path, io_dir, self.inner.clock.clone())?;
        writer.announce(written.clone(), progress);
        writer.set_terminal(terminal);
        let (troubles, whose) = (self.inner.troubles.clone(), id.clone());
        writer.set_trouble(move |failure| {
            let trouble = Trouble {
                namespace: whose.namespace.clone(),
                pod: whose.pod_name.clone(),
                container: whose.container.clone(),
                failure,
            };
            // Logged already; if too many wait to be told, one more tells nothing new.
            let _told = troubles.try_send(trouble);
        });
        let source =
            format!("{}_{}_{}/{}/{}", id.namespace, id.pod_name, id.pod_uid, id.container, id.attempt);
        if let Some(stored) = self.inner.stored.clone() {
            let source = source.clone();
            writer.set_stored(move || stored(&source).unwrap_or(0));
        }
        let labels = Labels::from_pairs([
            ("namespace", id.namespace.as_str()),
            ("pod", &id.pod_name),
            ("container", &id.container),
            ("node", &self.inner.node),
            ("workload", &id.workload),
            ("service_name", if id.workload.is_empty() { &id.container } else { &id.workload }),
        ]);
        let target = LogFileTarget { source: source.clone(), path, labels, written };
        self.inner.targets.set(source, target);
        let (stop, stopped) = oneshot::channel();
        let this = self.clone();
        let task = telemetry::task::spawn("container-log", async move {
            writer.run(&this.inner.scratch, stopped).await;
        });
        Ok(LogWriter { stop, task })
    }

    fn progress_sender(&self, path: &Path) -> watch::Sender<Progress> {
        let mut all = self.inner.written.lock();
        all.entry(path.to_owned()).or_insert_with(|| watch::Sender::new(Progress::default())).clone()
    }

    /// Tells how far a log is, for followers. `None` if it was not written since we started.
    pub(crate) fn progress(&self, path: &Path) -> Option<watch::Receiver<Progress>> {
        self.inner.written.lock().get(path).map(watch::Sender::subscribe)
    }

    /// Forgets a pod's logs and removes its files.
    pub(crate) fn remove_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
        let prefix = format!("{namespace}_{name}_{uid}/");
        for (key, _) in self.inner.targets.snapshot() {
            if key.starts_with(&prefix) {
                self.inner.targets.remove(&key);
            }
        }
        let dir = self.pod_dir(namespace, name, uid);
        self.inner.written.lock().retain(|p, _| !p.starts_with(&dir));
        crate::files::remove_dir(&dir)
    }

    /// Directories of pods' logs: uid and path.
    pub(crate) fn pods(&self) -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(&self.inner.root).into_iter().flatten().flatten();
        entries
            .filter_map(|e| {
                let name = e.file_name().into_string().ok()?;
                Some((name.rsplit_once('_')?.1.to_owned(), e.path()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
