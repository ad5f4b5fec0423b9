//! The watch over this node's pods: one worker for each, by uid.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::METRICS;
use crate::worker::{Node, Worker, remove_orphan};

/// Pods with a worker, by uid.
#[derive(Default)]
pub(crate) struct Pods {
    by_uid: Mutex<HashMap<String, watch::Sender<Arc<Pod>>>>,
    /// Counts what may have made room: a pod that is gone, over, or asks for something else.
    room: watch::Sender<u64>,
}

impl Pods {
    /// A pod of this node by name.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let all = self.by_uid.lock();
        let is = |p: &Pod| {
            p.metadata.namespace.as_deref() == Some(namespace) && p.metadata.name.as_deref() == Some(name)
        };
        all.values().map(|s| s.borrow().clone()).find(|p| is(p))
    }

    /// Tells of room that another pod may have made.
    pub(crate) fn room(&self) -> watch::Receiver<u64> {
        self.room.subscribe()
    }

    /// All pods of this node, in order of namespace and name.
    pub(crate) fn all(&self) -> Vec<Arc<Pod>> {
        let mut all: Vec<Arc<Pod>> = self.by_uid.lock().values().map(|s| s.borrow().clone()).collect();
        all.sort_by(|a, b| {
            let key = |p: &Pod| (p.metadata.namespace.clone(), p.metadata.name.clone());
            key(a).cmp(&key(b))
        });
        all
    }

    /// Watches until the token's word. Workers end with it; what they run goes on.
    pub(crate) async fn run(self: Arc<Self>, node: Arc<Node>, stop: CancellationToken) {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", node.config.node_name));
        let stream = watcher(Api::<Pod>::all(node.client.clone()), config).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let mut listed: Vec<String> = Vec::new();
        let mut first = true;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                e = stream.next() => e,
            };
            match event {
                None => return,
                Some(Err(e)) => tracing::warn!(error = %e, "watching pods; trying again"),
                Some(Ok(watcher::Event::Init)) => listed.clear(),
                Some(Ok(watcher::Event::InitApply(p))) => {
                    listed.extend(p.metadata.uid.clone());
                    self.apply(&node, p, &stop);
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    self.forget_others(&listed);
                    if std::mem::take(&mut first) {
                        remove_orphans(&node, &listed).await;
                    }
                }
                Some(Ok(watcher::Event::Apply(p))) => self.apply(&node, p, &stop),
                Some(Ok(watcher::Event::Delete(p))) => self.forget(p),
            }
        }
    }

    fn apply(self: &Arc<Self>, node: &Arc<Node>, pod: Pod, stop: &CancellationToken) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let mut all = self.by_uid.lock();
        if let Some(sender) = all.get(&uid) {
            let pod = Arc::new(pod);
            let old = sender.send_replace(pod.clone());
            drop(all);
            if old.metadata.generation != pod.metadata.generation || phase(&old) != phase(&pod) {
                self.room.send_modify(|n| *n += 1);
            }
            return;
        }
        let (sender, receiver) = watch::channel(Arc::new(pod));
        all.insert(uid.clone(), sender);
        METRICS.running_pods.set(i64::try_from(all.len()).unwrap_or(i64::MAX));
        let (this, node, stop) = (self.clone(), node.clone(), stop.clone());
        telemetry::task::spawn("pod-worker", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = Worker::new(node, receiver).run() => {}
            }
            let mut all = this.by_uid.lock();
            all.remove(&uid);
            METRICS.running_pods.set(i64::try_from(all.len()).unwrap_or(i64::MAX));
            drop(all);
            this.room.send_modify(|n| *n += 1);
        });
    }

    /// A pod that is gone from the API without our word (a forced deletion): its worker ends it now.
    fn forget(&self, mut pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if let Some(sender) = self.by_uid.lock().get(&uid) {
            pod.metadata.deletion_timestamp.get_or_insert(Time(jiff::Timestamp::UNIX_EPOCH));
            pod.metadata.deletion_grace_period_seconds = Some(0);
            sender.send_replace(Arc::new(pod));
        }
    }

    /// After a new list: pods it does not have are gone.
    fn forget_others(&self, listed: &[String]) {
        let gone: Vec<Pod> = {
            let all = self.by_uid.lock();
            all.iter().filter(|(uid, _)| !listed.contains(uid)).map(|(_, s)| (**s.borrow()).clone()).collect()
        };
        gone.into_iter().for_each(|p| self.forget(p));
    }
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// What an earlier process left of pods that no longer exist.
async fn remove_orphans(node: &Arc<Node>, listed: &[String]) {
    let mut uids = node.runtime.pods();
    uids.extend(node.network.attached());
    let dirs = std::fs::read_dir(node.config.pods_dir()).into_iter().flatten().flatten();
    uids.extend(dirs.filter_map(|d| d.file_name().into_string().ok()));
    uids.sort();
    uids.dedup();
    for uid in uids.iter().filter(|u| !listed.contains(u)) {
        if let Err(e) = remove_orphan(node, uid).await {
            tracing::warn!(uid, error = %e, "removing what a gone pod left");
        }
    }
    for (uid, dir) in node.runtime.logs().pods() {
        if !listed.contains(&uid)
            && let Err(e) = crate::files::remove_dir(&dir)
        {
            tracing::warn!(error = %e, "removing a gone pod's logs");
        }
    }
}
