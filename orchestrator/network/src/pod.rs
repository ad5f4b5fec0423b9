//! Puts pods on the network and takes them off.

mod rules;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rtnetlink::Handle;

use crate::ipam::Ipam;
use crate::metrics::METRICS;
use crate::namespace::{self, Namespaces};
use crate::{Config, Error, link, nft};

/// A pod's place on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAddr {
    pub ip: Ipv4Addr,
    pub namespaces: Namespaces,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// From Kubernetes' word, `TCP` if there is none.
    pub fn parse(s: Option<&str>) -> Self {
        match s {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        }
    }

    /// nft's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// A port of the node that leads to a pod's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `None` for all addresses of the node.
    pub host_ip: Option<Ipv4Addr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

/// The pods of this node. Cheap to clone.
#[derive(Clone)]
pub struct PodNetwork {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    netlink: Handle,
    bridge: u32,
    ipam: Mutex<Ipam>,
    host_ports: Mutex<BTreeMap<String, (Ipv4Addr, Vec<HostPort>)>>,
    /// Held while the pods' table is written, so that two writes cannot overtake each other.
    writing: tokio::sync::Mutex<()>,
}

impl PodNetwork {
    /// Makes the bridge, routing and masquerade, and remembers the addresses that are taken.
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let dir = config.netns_dir();
        std::fs::create_dir_all(&dir).map_err(Error::io(format!("create {dir:?}")))?;
        let ipam = match Ipam::open(&config.ipam_file(), config.pod_cidr) {
            // A power cut may tear the file, but then no pod is left that it could speak of.
            Err(Error::Damaged { path, why }) if !any_pinned(&dir) => {
                tracing::warn!(
                    ?path,
                    why,
                    "the address file is damaged and no pod is attached: it begins anew"
                );
                Ipam::anew(&config.ipam_file(), config.pod_cidr)
            }
            other => other?,
        };
        let netlink = link::connect().map_err(Error::io("open netlink"))?;
        let bridge = link::ensure_bridge(&netlink, config).await?;
        link::enable_forwarding(config)?;
        METRICS.pods.set(i64::try_from(ipam.len()).unwrap_or(i64::MAX));
        let this = PodNetwork {
            inner: Arc::new(Inner {
                config: config.clone(),
                netlink,
                bridge,
                ipam: Mutex::new(ipam),
                host_ports: Mutex::default(),
                writing: tokio::sync::Mutex::default(),
            }),
        };
        this.write_rules().await?;
        Ok(this)
    }

    /// Gives a pod namespaces and an address. Called again for the same pod it gives the same ones.
    ///
    /// `name` is the host name within the pod.
    pub async fn attach(&self, uid: &str, namespace: &str, name: &str) -> Result<PodAddr, Error> {
        let started = signal::time::monotonic();
        let inner = &self.inner;
        let ns = Namespaces::at(&inner.config.netns_dir().join(uid));
        let had_address = inner.ipam.lock().get(uid).is_some();
        let ip = inner.ipam.lock().allocate(uid)?;
        let addr = PodAddr { ip, namespaces: ns.clone() };
        if had_address && ns.pinned() && link::index(&inner.netlink, &host_interface(uid)).await?.is_some() {
            return Ok(addr);
        }
        // Whatever an attempt that was cut short left.
        link::remove(&inner.netlink, &host_interface(uid)).await?;
        namespace::remove(&ns)?;
        tracing::debug!(%namespace, name, %ip, "attaching pod");
        let runtime = tokio::runtime::Handle::current();
        let inside = namespace::create(&ns, name, || {
            let _runtime = runtime.enter();
            link::connect()
        })?;
        let host = host_interface(uid);
        let wired = async {
            link::add_veth(&inner.netlink, &host, inner.bridge, &ns.net).await?;
            link::configure_pod(&inside, ip, inner.config.gateway()).await
        }
        .await;
        if let Err(e) = wired {
            self.detach(uid).await?;
            return Err(e);
        }
        METRICS.pods.set(i64::try_from(inner.ipam.lock().len()).unwrap_or(i64::MAX));
        METRICS.attach_seconds.observe(signal::time::monotonic().duration_since(started).as_secs_f64());
        Ok(addr)
    }

    /// Sets the host ports of an attached pod; written at once if they changed.
    pub async fn set_host_ports(&self, uid: &str, ip: Ipv4Addr, ports: Vec<HostPort>) -> Result<(), Error> {
        {
            let mut all = self.inner.host_ports.lock();
            if all.get(uid).map_or(ports.is_empty(), |(i, p)| *i == ip && *p == ports) {
                return Ok(());
            }
            all.insert(uid.to_owned(), (ip, ports));
        }
        self.write_rules().await
    }

    /// Takes a pod off the network and frees its address. A pod that is not there is fine.
    pub async fn detach(&self, uid: &str) -> Result<(), Error> {
        let inner = &self.inner;
        let had_ports = inner.host_ports.lock().remove(uid).is_some_and(|(_, p)| !p.is_empty());
        if had_ports {
            self.write_rules().await?;
        }
        link::remove(&inner.netlink, &host_interface(uid)).await?;
        namespace::remove(&Namespaces::at(&inner.config.netns_dir().join(uid)))?;
        // Last: the address must not be another pod's while this one may still answer.
        let mut ipam = inner.ipam.lock();
        ipam.release(uid)?;
        METRICS.pods.set(i64::try_from(ipam.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Pods that hold an address, also those of an earlier process.
    pub fn attached(&self) -> Vec<String> {
        self.inner.ipam.lock().uids()
    }

    /// A pod's address, if it has one.
    pub fn address(&self, uid: &str) -> Option<Ipv4Addr> {
        self.inner.ipam.lock().get(uid)
    }

    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Takes all pods off and removes the bridge and the pods' rules.
    pub async fn purge(&self) -> Result<(), Error> {
        purge(&self.inner.config).await
    }

    async fn write_rules(&self) -> Result<(), Error> {
        let _writing = self.inner.writing.lock().await;
        let ports: Vec<_> = self.inner.host_ports.lock().values().cloned().collect();
        nft::apply(&rules::render(&self.inner.config, &ports)).await
    }
}

/// True if a namespace of some pod is pinned: pods of an earlier process may run.
fn any_pinned(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|e| Namespaces::at(&e.path()).pinned())
}

/// Removes what pods of this configuration left, also without an open `PodNetwork`.
pub(crate) async fn purge(config: &Config) -> Result<(), Error> {
    let netlink = link::connect().map_err(Error::io("open netlink"))?;
    if let Some(bridge) = link::index(&netlink, &config.bridge).await? {
        for port in link::ports(&netlink, bridge).await? {
            link::remove(&netlink, &port).await?;
        }
    }
    let dir = config.netns_dir();
    match std::fs::read_dir(&dir) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(Error::io(format!("read {dir:?}")))?;
                namespace::remove(&Namespaces::at(&entry.path()))?;
            }
            std::fs::remove_dir(&dir).map_err(Error::io(format!("remove {dir:?}")))?;
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io(format!("read {dir:?}"))(e)),
    }
    link::remove(&netlink, &config.bridge).await?;
    nft::delete_tables(&[config.pod_table()]).await?;
    match std::fs::remove_file(config.ipam_file()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {:?}", config.ipam_file()))(e))
        }
        _ => Ok(()),
    }
}

/// The node's end of a pod's veth pair: `bnl` and twelve hex digits of the uid's hash.
fn host_interface(uid: &str) -> String {
    let hash =
        uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("bnl{:012x}", hash & 0xffff_ffff_ffff)
}

/// Where a pod's network namespace is pinned, whether it exists or not.
impl Config {
    pub fn netns_path(&self, uid: &str) -> PathBuf {
        self.netns_dir().join(uid).join("net")
    }
}

#[cfg(test)]
mod tests;
