//! Asks other name servers for names that are not the cluster's.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_server::proto::op::{Message, Query};
use hickory_server::proto::rr::{Name, Record, RecordType};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// How long one name server has.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Questions under way at once; more wait.
const CONCURRENT: usize = 256;

pub(crate) struct Forward {
    upstreams: Vec<SocketAddr>,
    slots: Semaphore,
}

impl Forward {
    pub(crate) fn new(upstreams: Vec<SocketAddr>) -> Self {
        Forward { upstreams, slots: Semaphore::new(CONCURRENT) }
    }

    /// Asks a question of our own; gives the answers.
    pub(crate) async fn resolve(&self, name: Name, kind: RecordType) -> io::Result<Vec<Record>> {
        let mut m = Message::query();
        m.metadata.recursion_desired = true;
        m.add_query(Query::query(name, kind));
        let question = m.to_vec().map_err(io::Error::other)?;
        Ok(self.ask(&question).await?.answers)
    }

    /// Hands the question on as it came and gives the first answer that is one.
    pub(crate) async fn ask(&self, question: &[u8]) -> io::Result<Message> {
        let _slot = self.slots.acquire().await.map_err(io::Error::other)?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no name server is configured");
        for upstream in &self.upstreams {
            match tokio::time::timeout(TIMEOUT, ask_one(*upstream, question)).await {
                Ok(Ok(m)) => return Ok(m),
                Ok(Err(e)) => last = e,
                Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{upstream} is silent")),
            }
        }
        Err(last)
    }
}

async fn ask_one(upstream: SocketAddr, question: &[u8]) -> io::Result<Message> {
    let here: SocketAddr = if upstream.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    // A fresh socket each time: its random port is half of the protection against forged answers.
    let socket = UdpSocket::bind(here).await?;
    socket.connect(upstream).await?;
    socket.send(question).await?;
    let mut buf = vec![0; 4096];
    loop {
        let n = socket.recv(&mut buf).await?;
        let message = Message::from_vec(&buf[..n]).map_err(io::Error::other)?;
        if question.get(..2) != Some(&message.metadata.id.to_be_bytes()[..]) {
            continue;
        }
        return if message.metadata.truncation { ask_tcp(upstream, question).await } else { Ok(message) };
    }
}

async fn ask_tcp(upstream: SocketAddr, question: &[u8]) -> io::Result<Message> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(upstream).await?;
    let len = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes()[..], question].concat()).await?;
    let mut buf = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buf).await?;
    Message::from_vec(&buf).map_err(io::Error::other)
}

/// The host's name servers, without ourselves.
pub(crate) fn host_upstreams(own: Ipv4Addr) -> Vec<SocketAddr> {
    match std::fs::read_to_string("/etc/resolv.conf") {
        Ok(text) => parse_resolv_conf(&text).into_iter().filter(|a| a.ip() != own).collect(),
        Err(e) => {
            tracing::warn!(error = %e, "no /etc/resolv.conf: names outside the cluster will not resolve");
            Vec::new()
        }
    }
}

fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|l| l.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse().ok())
        .map(|ip: std::net::IpAddr| SocketAddr::from((ip, 53)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resolv_conf() {
        let got =
            parse_resolv_conf("# x\nnameserver 1.2.3.4\nsearch a b\nnameserver  ::1\nnameserver what\n");
        assert_eq!(got, ["1.2.3.4:53".parse().expect("addr"), "[::1]:53".parse().expect("addr")]);
    }
}
