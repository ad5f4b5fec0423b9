//! Two pods of a network that lives in a namespace of its own: addresses, routes, packets, nothing left.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::enter_network;

/// Moves this thread, and those it starts, into a fresh network namespace.
fn isolate() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace: run as root");
}

fn config(dir: &std::path::Path) -> Config {
    Config::new(dir.to_owned(), "n".to_owned(), Ipv4Addr::LOCALHOST)
}

#[tokio::test(flavor = "current_thread")]
async fn pods_reach_each_other_and_leave_nothing() {
    isolate();
    let dir = tempfile::tempdir().expect("dir");
    let config = config(dir.path());
    let net = PodNetwork::open(&config).await.expect("open");
    let a = net.attach("uid-a", "ns", "pod-a").await.expect("attach a");
    let b = net.attach("uid-b", "ns", "pod-b").await.expect("attach b");
    assert_ne!(a.ip, b.ip);
    assert_eq!(net.attach("uid-a", "ns", "pod-a").await.expect("again"), a);

    // Another process finds the same.
    let again = PodNetwork::open(&config).await.expect("reopen");
    assert_eq!(again.attach("uid-b", "ns", "pod-b").await.expect("adopt"), b);
    assert_eq!(again.attached(), ["uid-a", "uid-b"]);

    let port = HostPort { host_ip: None, host_port: 8080, container_port: 80, protocol: Protocol::Tcp };
    net.set_host_ports("uid-b", b.ip, vec![port]).await.expect("host port");
    let listener = enter_network(&b.namespaces.net, || TcpListener::bind(("0.0.0.0", 80)))
        .expect("enter")
        .expect("listen");
    for target in [SocketAddr::from((b.ip, 80)), SocketAddr::from((config.gateway(), 8080))] {
        let mut there =
            enter_network(&a.namespaces.net, || TcpStream::connect_timeout(&target, Duration::from_secs(5)))
                .expect("enter")
                .unwrap_or_else(|e| panic!("connect {target}: {e}"));
        let (mut here, _) = listener.accept().expect("accept");
        here.write_all(b"hello").expect("write");
        drop(here);
        let mut text = String::new();
        there.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
    }

    net.detach("uid-a").await.expect("detach");
    net.detach("uid-a").await.expect("detach again");
    crate::purge(&config).await.expect("purge");
    crate::purge(&config).await.expect("purge again");
    let netlink = link::connect().expect("netlink");
    assert_eq!(link::index(&netlink, &config.bridge).await.expect("index"), None);
    assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 0);
}

/// Many pods at once have an address each; another process knows them all, also after a kill in the middle of a write.
#[test]
fn many_at_once_and_after_a_kill() {
    isolate();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let dir = tempfile::tempdir().expect("dir");
        let config = config(dir.path());
        let net = PodNetwork::open(&config).await.expect("open");
        let tasks: Vec<_> = (0..24)
            .map(|n| {
                let net = net.clone();
                telemetry::task::spawn(
                    "attach",
                    async move { net.attach(&format!("uid-{n}"), "ns", "p").await },
                )
            })
            .collect();
        let mut ips = std::collections::BTreeSet::new();
        for t in tasks {
            ips.insert(t.await.expect("task").expect("attach").ip);
        }
        assert_eq!(ips.len(), 24);
        // What a process that was killed while it wrote leaves: a torn file beside the good one.
        std::fs::write(config.ipam_file().with_extension("tmp"), "{\"version\": 1, \"ch").expect("torn");
        let again = PodNetwork::open(&config).await.expect("reopen");
        let known: std::collections::BTreeSet<_> =
            (0..24).filter_map(|n| again.address(&format!("uid-{n}"))).collect();
        assert_eq!(known, ips);
        let fresh = again.attach("uid-new", "ns", "p").await.expect("attach");
        assert!(!ips.contains(&fresh.ip));

        // A torn file is not believed while pods are attached, and is no obstacle when none is.
        std::fs::write(config.ipam_file(), "{").expect("torn");
        assert!(matches!(PodNetwork::open(&config).await, Err(Error::Damaged { .. })));
        for n in 0..24 {
            again.detach(&format!("uid-{n}")).await.expect("detach");
        }
        again.detach("uid-new").await.expect("detach");
        std::fs::write(config.ipam_file(), "{").expect("torn");
        let anew = PodNetwork::open(&config).await.expect("open after a power cut");
        assert!(anew.attached().is_empty());
        crate::purge(&config).await.expect("purge");
    });
}
