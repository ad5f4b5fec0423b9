//! Interfaces, addresses and routes, through netlink.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;

use futures::TryStreamExt;
use nix::libc::{EEXIST, ENODEV, ENOENT};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::Error;

/// A netlink connection of the calling thread's network namespace. Needs a tokio runtime.
pub(crate) fn connect() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    telemetry::task::spawn("netlink", connection);
    Ok(handle)
}

/// True if the error is the kernel's `errno`.
fn is(e: &rtnetlink::Error, errno: i32) -> bool {
    matches!(e, rtnetlink::Error::NetlinkError(m) if m.raw_code().abs() == errno)
}

/// `Ok` also if it is there already.
fn or_exists(r: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match r {
        Err(e) if is(&e, EEXIST) => Ok(()),
        r => r,
    }
}

/// An interface's index.
pub(crate) async fn index(h: &Handle, name: &str) -> Result<Option<u32>, Error> {
    let mut links = h.link().get().match_name(name).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.map(|l| l.header.index)),
        Err(e) if is(&e, ENODEV) || is(&e, ENOENT) => Ok(None),
        Err(e) => Err(Error::netlink(format!("find {name}"))(e)),
    }
}

/// Makes the bridge with its addresses and the services' route, or completes it. Gives its index.
pub(crate) async fn ensure_bridge(h: &Handle, config: &crate::Config) -> Result<u32, Error> {
    let name = config.bridge.as_str();
    let what = |w: &str| Error::netlink(format!("{w} {name}"));
    let index = match index(h, name).await? {
        Some(i) => i,
        None => {
            // A fixed address: else the bridge takes that of its first port, and changes it when that leaves,
            // which empties the neighbours' caches of all pods.
            let [a, b, c, d] = config.gateway().octets();
            let message = LinkBridge::new(name).address(vec![0x02, 0x42, a, b, c, d]).up().build();
            or_exists(h.link().add(message).execute().await).map_err(what("create"))?;
            self::index(h, name)
                .await?
                .ok_or_else(|| Error::io(format!("find {name}"))(io::ErrorKind::NotFound.into()))?
        }
    };
    let (gateway, prefix) = (config.gateway(), config.pod_cidr.prefix());
    or_exists(h.address().add(index, gateway.into(), prefix).execute().await).map_err(what("address"))?;
    or_exists(h.address().add(index, config.dns_ip.into(), 32).execute().await).map_err(what("address"))?;
    h.link().change(LinkUnspec::new_with_index(index).up().build()).execute().await.map_err(what("raise"))?;
    // A route for services, so that the node's own processes reach them where there is no default route.
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(config.service_cidr.network(), config.service_cidr.prefix())
        .output_interface(index)
        .scope(RouteScope::Link)
        .pref_source(gateway)
        .build();
    or_exists(h.route().add(route).execute().await).map_err(what("route services to"))?;
    Ok(index)
}

/// Makes a veth pair: `host` on the bridge and up, `eth0` in the namespace at `netns`.
pub(crate) async fn add_veth(h: &Handle, host: &str, bridge: u32, netns: &Path) -> Result<(), Error> {
    let ns = std::fs::File::open(netns).map_err(Error::io(format!("open {netns:?}")))?;
    let peer = LinkUnspec::new_with_name("eth0").setns_by_fd(ns.as_raw_fd()).build();
    let message = LinkVeth::new(host, "eth0")
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .controller(bridge)
        .up()
        .build();
    h.link().add(message).execute().await.map_err(Error::netlink(format!("create {host}")))?;
    // Where br_netfilter is on, a service's address is translated while the packet is still on the bridge: a pod
    // that is its own service's endpoint is then answered through the port the packet came from.
    let Some(port) = index(h, host).await? else { return Ok(()) };
    let hairpin = LinkBridgePort::new(port).hairpin(true).build();
    h.link().set_port(hairpin).execute().await.map_err(Error::netlink(format!("set hairpin on {host}")))
}

/// Within a pod's namespace: loopback and `eth0` up, the address, the routes.
pub(crate) async fn configure_pod(h: &Handle, ip: Ipv4Addr, gateway: Ipv4Addr) -> Result<(), Error> {
    let what = |w: &str| Error::netlink(format!("{w} a pod's eth0"));
    let lo = LinkUnspec::new_with_index(1).up().build();
    h.link().change(lo).execute().await.map_err(Error::netlink("raise a pod's loopback"))?;
    let eth0 = index(h, "eth0")
        .await?
        .ok_or_else(|| Error::io("find a pod's eth0")(io::ErrorKind::NotFound.into()))?;
    or_exists(h.address().add(eth0, ip.into(), 32).execute().await).map_err(what("address"))?;
    h.link().change(LinkUnspec::new_with_index(eth0).up().build()).execute().await.map_err(what("raise"))?;
    let to_gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(gateway, 32)
        .output_interface(eth0)
        .scope(RouteScope::Link)
        .build();
    or_exists(h.route().add(to_gateway).execute().await).map_err(what("route"))?;
    let default =
        RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(eth0).onlink().build();
    or_exists(h.route().add(default).execute().await).map_err(what("route"))
}

/// Removes an interface; one that is not there is fine.
pub(crate) async fn remove(h: &Handle, name: &str) -> Result<(), Error> {
    let Some(i) = index(h, name).await? else { return Ok(()) };
    match h.link().del(i).execute().await {
        Err(e) if !is(&e, ENODEV) => Err(Error::netlink(format!("remove {name}"))(e)),
        _ => Ok(()),
    }
}

/// Names of the interfaces on the bridge.
pub(crate) async fn ports(h: &Handle, bridge: u32) -> Result<Vec<String>, Error> {
    let links: Vec<_> =
        h.link().get().execute().try_collect().await.map_err(Error::netlink("list interfaces"))?;
    Ok(links
        .iter()
        .filter(|l| l.attributes.iter().any(|a| matches!(a, LinkAttribute::Controller(c) if *c == bridge)))
        .filter_map(|l| {
            l.attributes.iter().find_map(|a| match a {
                LinkAttribute::IfName(n) => Some(n.clone()),
                _ => None,
            })
        })
        .collect())
}

/// Turns on what routing pods' packets needs.
pub(crate) fn enable_forwarding(config: &crate::Config) -> Result<(), Error> {
    set("net/ipv4/ip_forward", "1")?;
    // Pods reach each other through the node on purpose: do not tell them of a shorter way.
    set(&format!("net/ipv4/conf/{}/send_redirects", config.bridge), "0")?;
    set(&format!("net/ipv4/conf/{}/rp_filter", config.bridge), "0")
}

fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(name);
    std::fs::write(&path, value).map_err(Error::io(format!("write {path:?}")))
}
