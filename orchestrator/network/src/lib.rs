//! Pods' network on one node: addresses, the service proxy, and cluster DNS.
//!
//! It promises: a pod keeps its address for its whole life, over restarts of this process; one nftables
//! transaction replaces the whole service table, so no packet sees half of one; a name of the cluster never
//! leaves the machine. It knows nothing of containers, images or scheduling: who wants a pod on the network
//! gives its uid and gets an address and the files of its namespaces.
//!
//! The road of a pod: `pod` (attach) → `namespace` (network, IPC and UTS namespaces pinned as files) → `ipam`
//! (an address, on disk before it is used) → `link` (veth, bridge, routes through netlink) → `pod::rules`
//! (masquerade and host ports).
//! The road of a service: `watch` (reflectors, debounced) → `proxy` (pure plan) → `proxy::render` (nft text) →
//! `nft` (one transaction) → `conntrack` (UDP connections to endpoints that are gone are forgotten). The same change →
//! `dns::zone` (pure) → `dns` (answers and forwards).
//!
//! Pods have `/32` addresses and a route through the bridge's address, so that traffic between two pods of one
//! node is routed, not bridged: the answer of a service's endpoint then passes conntrack and is translated back.
//!
//! Tasks: one netlink connection, one that watches and writes rules, and hickory's listeners. `PodNetwork` holds
//! one lock around allocations; nothing is awaited under it.

mod cidr;
mod config;
mod conntrack;
mod dns;
mod error;
mod ipam;
mod link;
mod metrics;
mod namespace;
mod nft;
mod pod;
mod proxy;
mod watch;

pub use cidr::Cidr;
pub use config::Config;
pub use error::Error;
pub use namespace::{Namespaces, enter_network};
pub use pod::{HostPort, PodAddr, PodNetwork, Protocol};
pub use proxy::{Ruleset, plan};
pub use watch::Network;

/// Removes everything this crate ever put on the machine for `config`: pods' interfaces and namespaces, the
/// bridge, the nftables tables, the address file. Nothing there is not an error.
pub async fn purge(config: &Config) -> Result<(), Error> {
    pod::purge(config).await?;
    nft::delete_tables(&[config.table.clone(), config.pod_table()]).await
}
