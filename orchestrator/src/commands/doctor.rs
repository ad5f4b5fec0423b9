//! `binnacle doctor`: checks the machine and says how to repair it. Exit code 1 if something must be repaired.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Result, bail};

use super::print;
use crate::config::{Config, ConfigArgs};

enum Found {
    Good(String),
    /// It works without, less well.
    Note(String, &'static str),
    Bad(String, String),
}

pub(crate) fn run(a: &ConfigArgs) -> Result<()> {
    let c = a.clone().load()?;
    let checks: Vec<(&str, Found)> = vec![
        ("user", user()),
        ("kernel", kernel()),
        ("cgroups", cgroups()),
        ("containerd", program("containerd")),
        ("runc", program("runc")),
        ("nftables", program("nft")),
        ("overlayfs", overlay()),
        ("data directory", data_dir(&c.data_dir)),
        ("disk", disk(&c.data_dir)),
        ("API port", port(c.api_addr, "--api-addr", &c)),
        ("HTTP port", port(c.http_addr, "--http-addr", &c)),
        ("OTLP gRPC port", port(c.otlp_grpc_addr, "--otlp-grpc-addr", &c)),
        ("OTLP HTTP port", port(c.otlp_http_addr, "--otlp-http-addr", &c)),
        ("node port", port(c.kubelet_addr, "--kubelet-addr", &c)),
    ];
    let mut bad = 0;
    for (name, found) in &checks {
        match found {
            Found::Good(what) => print(&format!("ok    {name:<16} {what}"))?,
            Found::Note(what, hint) => print(&format!("note  {name:<16} {what}\n      {:<16} → {hint}", ""))?,
            Found::Bad(what, repair) => {
                bad += 1;
                print(&format!("BAD   {name:<16} {what}\n      {:<16} → {repair}", ""))?;
            }
        }
    }
    if bad > 0 {
        bail!("{bad} of {} checks failed", checks.len());
    }
    print("This machine can run Binnacle.")
}

fn user() -> Found {
    if nix::unistd::geteuid().is_root() {
        Found::Good("root".to_owned())
    } else {
        Found::Bad("not root".to_owned(), "run with sudo; `binnacle server` alone needs no root".to_owned())
    }
}

fn kernel() -> Found {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if (major, minor) >= (5, 4) {
        Found::Good(release.to_owned())
    } else {
        Found::Bad(format!("Linux {release}"), "Linux 5.4 or newer is needed".to_owned())
    }
}

fn cgroups() -> Found {
    let there = |p: &str| Path::new(p).try_exists().unwrap_or(false);
    if there("/sys/fs/cgroup/cgroup.controllers") {
        Found::Good("version 2".to_owned())
    } else if there("/sys/fs/cgroup/memory") && there("/sys/fs/cgroup/cpu") {
        Found::Good("version 1".to_owned())
    } else {
        Found::Bad(
            "neither version 1 nor 2 is mounted".to_owned(),
            "mount -t cgroup2 none /sys/fs/cgroup".to_owned(),
        )
    }
}

fn program(name: &'static str) -> Found {
    let dirs = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = dirs.iter().map(|d| Path::new(d).join(name)).find(|p| p.try_exists().unwrap_or(false));
    match found {
        Some(p) => Found::Good(p.display().to_string()),
        None => {
            let package = if name == "nft" { "nftables" } else { name };
            Found::Bad(format!("{name} is not installed"), format!("apt-get install {package}"))
        }
    }
}

fn overlay() -> Found {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|l| l.ends_with("overlay")) {
        Found::Good("in the kernel".to_owned())
    } else {
        Found::Note("not loaded".to_owned(), "modprobe overlay; containers start slower without it")
    }
}

fn data_dir(dir: &Path) -> Found {
    // The nearest directory that is there tells whether the rest can be made.
    let nearest = dir.ancestors().find(|p| p.try_exists().unwrap_or(false)).unwrap_or(Path::new("/"));
    match nix::unistd::access(nearest, nix::unistd::AccessFlags::W_OK) {
        Ok(()) => Found::Good(dir.display().to_string()),
        Err(e) => Found::Bad(
            format!("{}: {e}", nearest.display()),
            "choose another with --data-dir, or run as root".to_owned(),
        ),
    }
}

fn disk(dir: &Path) -> Found {
    let nearest = dir.ancestors().find(|p| p.try_exists().unwrap_or(false)).unwrap_or(Path::new("/"));
    match nix::sys::statvfs::statvfs(nearest) {
        Ok(s) => {
            let free = s.blocks_available() * s.fragment_size();
            let shown = format!("{:.1} GiB free", free as f64 / (1u64 << 30) as f64);
            if free < 1 << 30 {
                Found::Bad(shown, "free at least 1 GiB, or choose another disk with --data-dir".to_owned())
            } else {
                Found::Good(shown)
            }
        }
        Err(e) => Found::Note(e.to_string(), "the free space is not known"),
    }
}

fn port(addr: std::net::SocketAddr, flag: &str, c: &Config) -> Found {
    if crate::assemble::directory::addresses(&c.data_dir).is_ok() {
        return Found::Good(format!("{addr} (a cluster of this directory is running)"));
    }
    match TcpListener::bind(addr) {
        Ok(_) => Found::Good(format!("{addr} is free")),
        Err(e) => Found::Bad(
            format!("{addr}: {e}"),
            format!("end what uses it, or choose another address with {flag}"),
        ),
    }
}
