//! The life of a node: adopt, register, watch, serve.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use network::PodNetwork;
use signal::{CgroupTarget, Labels, LogFileTarget, Registry};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cgroup::Hierarchy;
use crate::containerd::{self, Containerd};
use crate::events::Events;
use crate::images::{self, Images};
use crate::logs::{Logs, StoredFn, Trouble};
use crate::node::{self, Machine};
use crate::pods::Pods;
use crate::runtime::{self, Runtime};
use crate::worker::Node;
use crate::{Config, Error, api, files};

/// How often images that nobody uses are looked for, and how full the disk must be.
const IMAGE_GC_EVERY: Duration = Duration::from_secs(300);
const IMAGE_GC_ABOVE_PERCENT: u64 = 85;
/// How full it may be afterwards, and how long an image must be unused (upstream's defaults).
const IMAGE_GC_DOWN_TO_PERCENT: u64 = 80;
const IMAGE_LEAST_AGE: Duration = Duration::from_secs(120);

/// Before containerd is asked again for its events.
const CONTAINERD_RETRY: Duration = Duration::from_secs(1);
/// Logs in trouble that may wait to be told of.
const TROUBLES: usize = 64;

/// What the kubelet fills for the collector.
#[derive(Clone, Default)]
pub struct Handles {
    pub cgroups: Arc<Registry<CgroupTarget>>,
    pub log_files: Arc<Registry<LogFileTarget>>,
    /// How far each log is stored: a file that is not is kept for a while longer. Without it none is.
    pub stored: Option<StoredFn>,
}

/// A node, ready to run.
pub struct Kubelet {
    node: Arc<Node>,
    pods: Arc<Pods>,
    machine: Machine,
    api: api::Server,
    troubles: mpsc::Receiver<Trouble>,
}

impl Kubelet {
    /// Connects to containerd (starting a private one if none answers), adopts what runs, makes the pod network
    /// and opens the node's API. Nothing is changed in the cluster yet.
    pub async fn new(config: Config, client: Client, handles: Handles) -> Result<Kubelet, Error> {
        for dir in [config.pods_dir(), config.logs_dir()] {
            std::fs::create_dir_all(&dir).map_err(Error::io(format!("create {dir:?}")))?;
        }
        let containerd =
            containerd::ensure(&config.containerd_socket, &config.data_dir, &config.containerd_namespace);
        let (containerd, network) =
            tokio::try_join!(containerd, async { Ok(PodNetwork::open(&config.network).await?) })?;
        let machine = Machine::look(&config, containerd.check().await?);
        let (tell, troubles) = mpsc::channel(TROUBLES);
        let logs = Logs::new(
            config.logs_dir(),
            config.node_name.clone(),
            config.clock.clone(),
            handles.log_files.clone(),
            tell,
            handles.stored.clone(),
        );
        let hierarchy = Hierarchy::detect()?;
        let runtime =
            Runtime::new(containerd.clone(), hierarchy, config.clock.clone(), config.pods_dir(), logs);
        let tasks = runtime.adopt().await?;
        // Nothing is created yet, so whatever runs beside the known tasks is nobody's.
        let (socket, namespace) = (&config.containerd_socket, &config.containerd_namespace);
        containerd::end_forgotten_shims(socket, namespace, &tasks).await?;
        register_roots(&config, &handles.cgroups);
        let pods: Arc<Pods> = Arc::default();
        let node = Arc::new(Node {
            events: Events::new(client.clone(), &config.node_name, config.clock.clone()),
            images: Images::new(containerd).with_mirrors(&config.registry_mirrors),
            client,
            runtime,
            network,
            cgroups: handles.cgroups,
            cpu: machine.cpu,
            memory: machine.memory,
            pods: pods.clone(),
            config,
        });
        let api = api::Server::bind(node.clone(), pods.clone()).await?;
        Ok(Kubelet { node, pods, machine, api, troubles })
    }

    /// Where the node's own API listens.
    pub fn api_addr(&self) -> SocketAddr {
        self.api.addr()
    }

    /// The image store.
    pub fn images(&self) -> Images {
        self.node.images.clone()
    }

    /// Registers the node and works until the token's word. Containers go on running after it.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let Kubelet { node, pods, machine, api, troubles } = self;
        let port = api.addr().port();
        let object = node::register(&node.client, &node.config, &machine, port).await?;
        tracing::info!(node = node.config.node_name, "node is ready");
        let keep = node::keep(node.client.clone(), node.config.clone(), machine, port, object, stop.clone());
        let tasks = [
            telemetry::task::spawn("node-lease", keep),
            telemetry::task::spawn("containerd-events", follow_containerd(node.clone(), stop.clone())),
            telemetry::task::spawn(
                "log-troubles",
                tell_of_logs(node.clone(), pods.clone(), troubles, stop.clone()),
            ),
            telemetry::task::spawn("pod-watch", pods.run(node.clone(), stop.clone())),
            telemetry::task::spawn("kubelet-api", api.serve(stop.clone())),
            telemetry::task::spawn("image-gc", collect_images(node.clone(), stop.clone())),
        ];
        for task in tasks {
            if let Err(e) = task.await {
                tracing::error!(error = %e, "a task of the kubelet failed");
            }
        }
        node.runtime.suspend().await;
        Ok(())
    }
}

/// The node's own cgroup and that of all pods.
fn register_roots(config: &Config, cgroups: &Registry<CgroupTarget>) {
    for path in ["/".to_owned(), format!("/{}", config.cgroup_root.trim_matches('/'))] {
        let labels = Labels::from_pairs([("id", path.as_str()), ("node", &config.node_name)]);
        cgroups.set(path.clone(), CgroupTarget { path, labels, netns: None });
    }
}

/// Hears of containers' ends. A containerd of our own that is gone is started again.
async fn follow_containerd(node: Arc<Node>, stop: CancellationToken) {
    loop {
        let broken = tokio::select! {
            () = stop.cancelled() => return,
            r = node.runtime.follow() => r,
        };
        if let Err(e) = broken {
            tracing::warn!(error = %e, "containerd's events ended; trying again");
        }
        let c = &node.config;
        if let Err(e) = containerd::revive(&c.containerd_socket, &c.data_dir, &c.containerd_namespace).await {
            tracing::error!(error = %e, "starting containerd again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CONTAINERD_RETRY) => {}
        }
    }
}

/// Says at a pod that its output waits because its log cannot be written.
async fn tell_of_logs(
    node: Arc<Node>,
    pods: Arc<Pods>,
    mut troubles: mpsc::Receiver<Trouble>,
    stop: CancellationToken,
) {
    loop {
        let t = tokio::select! {
            () = stop.cancelled() => return,
            t = troubles.recv() => t,
        };
        let Some(t) = t else { return };
        let Some(pod) = pods.find(&t.namespace, &t.pod) else { continue };
        let container = Some(t.container.as_str());
        match t.failure {
            Some(why) => {
                let note = format!("Container log cannot be written: {why}; its output waits until it can");
                node.events.warning(&pod, container, "FailedLogWrite", note);
            }
            None => {
                let note = "Container log is written again".to_owned();
                node.events.normal(&pod, container, "ResumedLogWrite", note);
            }
        }
    }
}

/// Removes images that no container uses while the disk is nearly full.
async fn collect_images(node: Arc<Node>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(IMAGE_GC_EVERY) => {}
        }
        let Ok(s) = nix::sys::statvfs::statvfs(&node.config.data_dir) else { continue };
        let Some(blocks) = to_free(s.blocks(), s.blocks_available()) else { continue };
        let used: HashSet<String> = node
            .runtime
            .pods()
            .iter()
            .flat_map(|p| node.runtime.of_pod(p))
            .map(|r| r.identity.image)
            .collect();
        let bytes = blocks.saturating_mul(s.fragment_size());
        if let Err(e) = node.images.collect(&used, node.now(), IMAGE_LEAST_AGE, bytes).await {
            tracing::warn!(error = %e, "collecting images");
        }
    }
}

/// How much must go, if the disk is too full at all.
fn to_free(all: u64, available: u64) -> Option<u64> {
    let used = all.saturating_sub(available);
    (used * 100 >= all * IMAGE_GC_ABOVE_PERCENT).then(|| used - all * IMAGE_GC_DOWN_TO_PERCENT / 100)
}

/// Ends all containers of this node, orderly first; for `binnacle down`. Records and logs stay.
pub async fn stop_pods(config: &Config) -> Result<(), Error> {
    let Ok(containerd) = Containerd::connect(&config.containerd_socket, &config.containerd_namespace).await
    else {
        return Ok(());
    };
    let runtime = offline_runtime(config, containerd.clone())?;
    runtime.adopt().await?;
    let ids = runtime::list_ids(&containerd).await?;
    for id in &ids {
        runtime.kill(id, libc::SIGTERM, false).await?;
    }
    let ended = async {
        for id in &ids {
            runtime.wait_exit(id).await;
        }
    };
    let follow = runtime.follow();
    tokio::select! {
        () = ended => {}
        r = follow => r?,
        () = tokio::time::sleep(Duration::from_secs(5)) => {}
    }
    for id in ids {
        runtime.delete(&id).await?;
    }
    Ok(())
}

fn offline_runtime(config: &Config, containerd: Containerd) -> Result<Runtime, Error> {
    let (nobody, _) = mpsc::channel(1);
    let logs = Logs::new(
        config.logs_dir(),
        config.node_name.clone(),
        config.clock.clone(),
        Arc::default(),
        nobody,
        None,
    );
    Ok(Runtime::new(containerd, Hierarchy::detect()?, config.clock.clone(), config.pods_dir(), logs))
}

/// Leaves nothing of this node behind: containers, mounts, network, cgroups, files, and a containerd that was
/// started for it.
pub async fn purge(config: &Config) -> Result<(), Error> {
    stop_pods(config).await?;
    if let Ok(c) = Containerd::connect(&config.containerd_socket, &config.containerd_namespace).await {
        images::purge(&c).await?;
    }
    network::purge(&config.network).await?;
    let none = HashSet::new();
    containerd::end_forgotten_shims(&config.containerd_socket, &config.containerd_namespace, &none).await?;
    containerd::unmount_below(&config.data_dir)?;
    Hierarchy::detect()?.remove(&config.cgroup_root)?;
    files::remove_dir(&config.pods_dir())?;
    files::remove_dir(&config.logs_dir())?;
    containerd::stop_private(&config.data_dir).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_go_when_the_disk_is_full_beyond_a_mark_and_down_to_another() {
        assert_eq!(to_free(100, 16), None);
        assert_eq!(to_free(100, 15), Some(5));
        assert_eq!(to_free(100, 0), Some(20));
    }
}
