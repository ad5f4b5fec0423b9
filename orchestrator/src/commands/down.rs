//! `binnacle down [--purge]`: stops every pod and takes away what they left on the machine.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::print;
use crate::assemble::node::kubelet_config;
use crate::cli::DownArgs;

/// How long a running server may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(15);

pub(crate) async fn run(a: DownArgs) -> Result<()> {
    let config = a.config.load()?;
    stop_server(&config.data_dir).await?;
    let kubelet = kubelet_config(&config);
    if a.purge {
        kubelet::purge(&kubelet).await.context("remove pods")?;
        network::purge(&config.network()).await.context("remove the pod network")?;
        match std::fs::remove_dir_all(&config.data_dir) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("remove {}", config.data_dir.display())),
        }
        return print("everything is removed");
    }
    kubelet::stop_pods(&kubelet).await.context("stop pods")?;
    network::purge(&config.network()).await.context("remove the pod network")?;
    print(&format!("all pods are stopped; the data is still in {}", config.data_dir.display()))
}

/// Ends the process that holds the directory's lock, if there is one.
async fn stop_server(data_dir: &std::path::Path) -> Result<()> {
    use nix::fcntl::{Flock, FlockArg};
    let Ok(lock) = std::fs::OpenOptions::new().write(true).open(data_dir.join("lock")) else { return Ok(()) };
    let mut lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(_) => return Ok(()),
        Err((lock, _)) => lock,
    };
    let pid =
        std::fs::read_to_string(data_dir.join("pid")).context("a server runs, but its pid is not known")?;
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().context("the pid file is damaged")?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
        .with_context(|| format!("stop process {pid}"))?;
    let deadline = signal::time::monotonic() + STOP_WITHIN;
    loop {
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(_) => return Ok(()),
            Err((l, _)) if signal::time::monotonic() < deadline => lock = l,
            Err(_) => bail!("process {pid} did not stop within {STOP_WITHIN:?}: end it, then run this again"),
        }
        // A lock tells nobody when it is free.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
