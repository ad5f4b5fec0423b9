//! The end of a container: its exit and last words, signals, and its removal.

use containerd_client::services::v1::snapshots::RemoveSnapshotRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::{
    DeleteContainerRequest, DeleteTaskRequest, KillRequest, ListContainersRequest,
    containers_client::ContainersClient,
};
use signal::Timestamp;

use super::{Exit, Identity, Runtime, State, timestamp};
use crate::containerd::{Containerd, MAX_MESSAGE};
use crate::error::{Error, found};
use crate::images::SNAPSHOTTER;
use crate::logs::{Query, Reader};
use crate::metrics;

/// Most of a termination message, and of the log that stands in for one (kubernetes: container/types.go).
const MESSAGE: u64 = 4096;
const LOG_MESSAGE: usize = 2048;
const LOG_LINES: u64 = 80;

impl Runtime {
    /// A container ended: take its last lines, its exit and its message, then let its shim go.
    pub(super) async fn finish(&self, id: &str, seen: Option<(u32, Option<Timestamp>)>) {
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

    /// What the container left in its termination message file; if it left nothing and failed, perhaps the end of
    /// its log.
    fn termination_message(&self, identity: &Identity, exit: &Exit) -> Option<String> {
        let kept = self.kept(identity);
        let own = kept.termination_log.and_then(|f| crate::files::read_at_most(&f, MESSAGE).ok());
        let words = |b: &[u8]| Some(String::from_utf8_lossy(b).into_owned()).filter(|t| !t.is_empty());
        if let Some(text) = own.as_deref().and_then(words) {
            return Some(text);
        }
        if !kept.or_end_of_log || exit.code == 0 {
            return None;
        }
        let query = Query { tail_lines: Some(LOG_LINES), ..Query::default() };
        let mut reader = Reader::open(&self.logs().path(identity), query).ok()?;
        let mut text = Vec::new();
        while let Ok(Some(part)) = reader.read() {
            if part.is_empty() {
                break;
            }
            text.extend(part);
            text.drain(..text.len().saturating_sub(LOG_MESSAGE));
        }
        words(&text)
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

/// All containers of a namespace in containerd, by id: for `down` and `purge`, which know no pods.
pub(crate) async fn list_ids(c: &Containerd) -> Result<Vec<String>, Error> {
    let mut client = ContainersClient::new(c.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
    let list = client.list(c.request(ListContainersRequest { filters: Vec::new() })).await;
    let list = list.map_err(Error::containerd("list containers"))?.into_inner();
    Ok(list.containers.into_iter().map(|c| c.id).collect())
}
