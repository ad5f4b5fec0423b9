//! Connections the kernel remembers: those of UDP that lead to an endpoint which is gone are forgotten.
//!
//! A UDP client that keeps its port would else be sent to the dead endpoint for as long as it sends. TCP needs none of
//! this: its client hears a reset and begins anew.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

use crate::{Protocol, Ruleset};

const UDP: u8 = 17;
/// nfnetlink's message types for connections: subsystem 1; new 0, get 1, delete 2.
const CT_GET: u16 = 0x0101;
const CT_DELETE: u16 = 0x0102;
const ATTR_ORIG: u16 = 1;
const ATTR_REPLY: u16 = 2;
const ATTR_ID: u16 = 12;
/// The kernel sends a dump in pieces of at most 32 KiB.
const BUFFER: usize = 64 << 10;

/// A remembered UDP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Connection {
    /// Where the client sends.
    to: SocketAddrV4,
    /// Who answers: the endpoint, if the destination was translated.
    from: SocketAddrV4,
    /// The kernel's own words for it, to name it by.
    orig: Vec<u8>,
    id: Option<Vec<u8>>,
}

/// Forgets the connections whose endpoint is gone, after `now` replaced `before`. Gives how many.
pub(crate) async fn forget_stale(before: Option<&Ruleset>, now: &Ruleset) -> io::Result<usize> {
    let answers = answers(before, now);
    if answers.is_empty() {
        return Ok(0);
    }
    // Netlink answers at once, but a dump of a busy node takes milliseconds.
    tokio::task::spawn_blocking(move || {
        let mut netlink = Netlink::open()?;
        let stale: Vec<Connection> = netlink.dump()?.into_iter().filter(|c| is_stale(&answers, c)).collect();
        stale.iter().try_for_each(|c| netlink.delete(c))?;
        Ok(stale.len())
    })
    .await
    .map_err(io::Error::other)?
}

/// Who may answer for each address that UDP clients send to. A port of the node has no address of its own.
#[derive(Debug, Default)]
struct Answers {
    by_address: HashMap<SocketAddrV4, Vec<SocketAddrV4>>,
    by_node_port: HashMap<u16, Vec<SocketAddrV4>>,
}

impl Answers {
    fn is_empty(&self) -> bool {
        self.by_address.is_empty() && self.by_node_port.is_empty()
    }
}

/// Only what changed is looked at; what is no service any more has nobody who may answer.
fn answers(before: Option<&Ruleset>, now: &Ruleset) -> Answers {
    let udp =
        |r: &Ruleset| -> Vec<_> { r.ports.iter().filter(|p| p.protocol == Protocol::Udp).cloned().collect() };
    let (old, new) = (before.map(udp).unwrap_or_default(), udp(now));
    let mut out = Answers::default();
    let mut add = |p: &crate::proxy::ServicePort, endpoints: &[SocketAddrV4]| {
        for ip in &p.cluster_ips {
            out.by_address.insert(SocketAddrV4::new(*ip, p.port), endpoints.to_vec());
        }
        if let Some(n) = p.node_port {
            out.by_node_port.insert(n, endpoints.to_vec());
        }
    };
    for p in old.iter().filter(|p| !new.contains(p)) {
        add(p, &[]);
    }
    for p in new.iter().filter(|p| !old.contains(p)) {
        let endpoints: Vec<_> = p.endpoints.iter().map(|e| SocketAddrV4::new(e.ip, e.port)).collect();
        add(p, &endpoints);
    }
    out
}

fn is_stale(answers: &Answers, c: &Connection) -> bool {
    let may_answer = match answers.by_address.get(&c.to) {
        Some(list) => list,
        None => match answers.by_node_port.get(&c.to.port()) {
            Some(list) => list,
            None => return false,
        },
    };
    if may_answer.is_empty() {
        // What was never translated belongs to somebody else, or to nobody: it does no harm.
        return c.from != c.to;
    }
    // Also one that began before the service had endpoints, and so leads nowhere.
    !may_answer.contains(&c.from) && (c.from != c.to || answers.by_address.contains_key(&c.to))
}

struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// In the network namespace of the calling thread.
    fn open() -> io::Result<Netlink> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Netlink { fd, sequence: 0 })
    }

    fn send(&mut self, kind: u16, flags: i32, attributes: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let mut m = Vec::with_capacity(20 + attributes.len());
        let len = u32::try_from(20 + attributes.len()).map_err(io::Error::other)?;
        m.extend_from_slice(&len.to_ne_bytes());
        m.extend_from_slice(&kind.to_ne_bytes());
        let flags = u16::try_from(libc::NLM_F_REQUEST | flags).map_err(io::Error::other)?;
        m.extend_from_slice(&flags.to_ne_bytes());
        m.extend_from_slice(&self.sequence.to_ne_bytes());
        m.extend_from_slice(&0u32.to_ne_bytes());
        m.extend_from_slice(&[libc::AF_INET as u8, 0, 0, 0]);
        m.extend_from_slice(attributes);
        send(self.fd.as_raw_fd(), &m, MsgFlags::empty())?;
        Ok(())
    }

    /// Hands each message's type and content to `each`, until the kernel says that it was the last.
    fn receive(&mut self, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buf = vec![0; BUFFER];
        loop {
            let n = recv(self.fd.as_raw_fd(), &mut buf, MsgFlags::empty())?;
            let mut rest = &buf[..n];
            while let Some((head, _)) = rest.split_first_chunk::<16>() {
                let len = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
                let kind = u16::from_ne_bytes([head[4], head[5]]);
                let Some(body) = rest.get(16..len) else { return Err(io::ErrorKind::InvalidData.into()) };
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => {
                        let code = body.first_chunk::<4>().map_or(0, |b| i32::from_ne_bytes(*b));
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _ => each(kind, body),
                }
                rest = rest.get(align(len)..).unwrap_or_default();
            }
        }
    }

    fn dump(&mut self) -> io::Result<Vec<Connection>> {
        self.send(CT_GET, libc::NLM_F_DUMP, &[])?;
        let mut out = Vec::new();
        self.receive(|_, body| out.extend(body.get(4..).and_then(parse)))?;
        Ok(out)
    }

    /// One that has ended by itself is fine.
    fn delete(&mut self, c: &Connection) -> io::Result<()> {
        let mut attributes = attribute(ATTR_ORIG | NESTED, &c.orig);
        if let Some(id) = &c.id {
            attributes.extend(attribute(ATTR_ID, id));
        }
        self.send(CT_DELETE, libc::NLM_F_ACK, &attributes)?;
        match self.receive(|_, _| {}) {
            Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
            r => r,
        }
    }
}

const NESTED: u16 = 0x8000;

fn align(n: usize) -> usize {
    (n + 3) & !3
}

fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + content.len()).expect("an address is short");
    let mut out = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    out.extend_from_slice(content);
    out.resize(align(out.len()), 0);
    out
}

/// The attributes of a message or of a nested attribute, by kind.
fn attributes(mut bytes: &[u8]) -> HashMap<u16, &[u8]> {
    let mut out = HashMap::new();
    while let Some((head, _)) = bytes.split_first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let Some(content) = bytes.get(4..len) else { break };
        out.insert(kind, content);
        bytes = bytes.get(align(len)..).unwrap_or_default();
    }
    out
}

/// Source and destination of a tuple, if it is UDP over IPv4.
fn tuple(bytes: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let all = attributes(bytes);
    let (ip, proto) = (attributes(all.get(&1)?), attributes(all.get(&2)?));
    if proto.get(&1)?.first() != Some(&UDP) {
        return None;
    }
    let address = |n: u16| Some(Ipv4Addr::from(*ip.get(&n)?.first_chunk::<4>()?));
    let port = |n: u16| Some(u16::from_be_bytes(*proto.get(&n)?.first_chunk::<2>()?));
    Some((SocketAddrV4::new(address(1)?, port(2)?), SocketAddrV4::new(address(2)?, port(3)?)))
}

fn parse(bytes: &[u8]) -> Option<Connection> {
    let all = attributes(bytes);
    let orig = *all.get(&ATTR_ORIG)?;
    let (_, to) = tuple(orig)?;
    let (from, _) = tuple(all.get(&ATTR_REPLY)?)?;
    Some(Connection { to, from, orig: orig.to_vec(), id: all.get(&ATTR_ID).map(|i| i.to_vec()) })
}

#[cfg(test)]
mod tests;
