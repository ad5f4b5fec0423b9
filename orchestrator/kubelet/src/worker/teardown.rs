//! The end of a pod on this node.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::{Node, Worker};
use crate::{Error, files, quantity, volumes};

/// How long a busy cgroup is waited for.
const BUSY_LOOKS: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// How long a gone pod's log files stay, so that the collector reads them to their end.
const LOG_GRACE: Duration = Duration::from_secs(60);

impl Worker {
    /// A finished pod keeps its containers' records and logs, but neither network nor volumes.
    pub(super) async fn release(&mut self, pod: &Arc<Pod>) -> Result<(), Error> {
        if let Some(t) = self.volume_task.take() {
            t.abort();
        }
        self.watched.clear();
        release(&self.node, pod).await?;
        self.released = true;
        Ok(())
    }

    pub(super) async fn tear_down(&mut self, pod: &Arc<Pod>) -> Result<(), Error> {
        self.release(pod).await?;
        self.reporter.finish().await;
        remove(&self.node, pod).await?;
        let api =
            Api::<Pod>::namespaced(self.node.client.clone(), pod.metadata.namespace.as_deref().unwrap_or(""));
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(pod.metadata.name.as_deref().unwrap_or(""), &params).await {
            Err(e) if !client::error::is_not_found(&e) && !client::error::is_conflict(&e) => Err(e.into()),
            _ => Ok(()),
        }
    }
}

/// Network, volumes and cgroup of a pod whose containers do not run.
async fn release(node: &Node, pod: &Pod) -> Result<(), Error> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let cgroup = quantity::cgroup(&node.config.cgroup_root, pod);
    for r in node.runtime.of_pod(uid) {
        node.cgroups.remove(&format!("{cgroup}/{}", r.id));
    }
    node.cgroups.remove(&cgroup);
    node.network.detach(uid).await?;
    volumes::tear_down(&node.config.pod_dir(uid))
}

/// Containers, files and cgroup; logs a little later.
async fn remove(node: &Arc<Node>, pod: &Pod) -> Result<(), Error> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    for r in node.runtime.of_pod(uid) {
        node.runtime.delete(&r.id).await?;
    }
    remove_cgroup(node, &quantity::cgroup(&node.config.cgroup_root, pod)).await?;
    files::remove_dir(&node.config.pod_dir(uid))?;
    node.runtime.forget_changes(uid);
    let meta = &pod.metadata;
    let (namespace, name) =
        (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
    let (node, uid) = (node.clone(), uid.to_owned());
    telemetry::task::spawn("pod-log-removal", async move {
        tokio::time::sleep(LOG_GRACE).await;
        if let Err(e) = node.runtime.logs().remove_pod(&namespace, &name, &uid) {
            tracing::warn!(error = %e, "removing a gone pod's logs");
        }
    });
    Ok(())
}

/// The kernel keeps a cgroup busy for a moment after its last process has ended, and tells nobody when it is over.
async fn remove_cgroup(node: &Node, path: &str) -> Result<(), Error> {
    let mut looks = 0;
    loop {
        match node.runtime.hierarchy().remove(path) {
            Err(Error::Io { source, .. })
                if source.raw_os_error() == Some(nix::libc::EBUSY) && looks < BUSY_LOOKS =>
            {
                looks += 1;
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// A pod that is on the node but no longer in the API, found at start: all of it goes at once.
pub(crate) async fn remove_orphan(node: &Arc<Node>, uid: &str) -> Result<(), Error> {
    let records = node.runtime.of_pod(uid);
    let cgroups: std::collections::BTreeSet<String> =
        records.iter().map(|r| r.identity.cgroup.clone()).collect();
    for r in &records {
        node.runtime.delete(&r.id).await?;
    }
    node.network.detach(uid).await?;
    let dir = node.config.pod_dir(uid);
    volumes::tear_down(&dir)?;
    for c in cgroups {
        remove_cgroup(node, &c).await?;
    }
    files::remove_dir(&dir)
}
