//! What a node needs to know.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use signal::time::SharedClock;

use crate::images::Mirror;

/// A node. Two configurations with different `data_dir`, `containerd_namespace`, `cgroup_root` and `network`
/// live beside each other on one machine.
#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    /// Holds `pods/` and `pod-logs/<namespace>_<name>_<uid>/<container>/<restart>.log`.
    pub data_dir: PathBuf,
    pub containerd_socket: PathBuf,
    /// The namespace within containerd: one per cluster and node.
    pub containerd_namespace: String,
    /// The cgroup above all pods', such as `kubepods`.
    pub cgroup_root: String,
    /// Where the node's own API listens; port 0 picks a free one.
    pub api_addr: SocketAddr,
    /// PEM: the certificate chain and key the node's API shows.
    pub serving_cert: String,
    pub serving_key: String,
    /// PEM: the CA whose certificates say who a client of the node's API is.
    pub client_ca: String,
    /// The pod network: pod and service networks, DNS address, cluster domain, bridge and table names.
    pub network: network::Config,
    /// Given to pods as `OTEL_EXPORTER_OTLP_ENDPOINT`, unless they set their own.
    pub otlp_endpoint: Option<String>,
    /// Most pods at once, as the node reports it.
    pub max_pods: u32,
    /// Where images are looked for before their own registries.
    pub registry_mirrors: Vec<Mirror>,
    pub clock: SharedClock,
}

impl Config {
    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.data_dir.join("pods")
    }

    /// Directories made for claims: they outlive their pods.
    pub(crate) fn local_volumes_dir(&self) -> PathBuf {
        self.data_dir.join("local-volumes")
    }

    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.data_dir.join("pod-logs")
    }

    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir().join(uid)
    }
}
