//! What the network needs to know.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::Cidr;

/// The network of one node. Two configurations with different `data_dir`, `bridge`, `table` and networks live
/// beside each other on one machine.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    /// The node's own address; NodePorts answer on every local address.
    pub node_ip: Ipv4Addr,
    /// Holds `netns/<pod uid>/` and `ipam.json`.
    pub data_dir: PathBuf,
    /// The bridge's interface name, at most 15 characters.
    pub bridge: String,
    /// The nftables table of the service proxy; the pods' own table is `<table>_pods`.
    pub table: String,
    /// Where pods' addresses come from. The first is the bridge's.
    pub pod_cidr: Cidr,
    pub service_cidr: Cidr,
    /// Where cluster DNS answers: an address of `service_cidr` that is put on the bridge.
    pub dns_ip: Ipv4Addr,
    pub cluster_domain: String,
    /// Name servers for all other names. Empty means: those of the host's resolv.conf.
    pub upstreams: Vec<SocketAddr>,
}

impl Config {
    /// The defaults of a one-machine cluster.
    pub fn new(data_dir: PathBuf, node_name: String, node_ip: Ipv4Addr) -> Self {
        Config {
            node_name,
            node_ip,
            data_dir,
            bridge: "bnl0".to_owned(),
            table: "binnacle".to_owned(),
            pod_cidr: "10.42.0.0/16".parse().expect("a literal network"),
            service_cidr: "10.43.0.0/16".parse().expect("a literal network"),
            dns_ip: Ipv4Addr::new(10, 43, 0, 10),
            cluster_domain: "cluster.local".to_owned(),
            upstreams: Vec::new(),
        }
    }

    /// The bridge's address, which is every pod's gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        self.pod_cidr.host(1).expect("a network of at least four addresses has a first host")
    }

    pub(crate) fn pod_table(&self) -> String {
        format!("{}_pods", self.table)
    }

    pub(crate) fn netns_dir(&self) -> PathBuf {
        self.data_dir.join("netns")
    }

    pub(crate) fn ipam_file(&self) -> PathBuf {
        self.data_dir.join("ipam.json")
    }
}
