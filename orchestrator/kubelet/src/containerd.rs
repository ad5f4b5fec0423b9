//! The connection to containerd, and a private containerd where none answers.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use containerd_client::services::v1::{
    CreateNamespaceRequest, Namespace, leases_client::LeasesClient, namespaces_client::NamespacesClient,
    version_client::VersionClient,
};
use tonic::transport::Channel;

use crate::Error;

/// The largest message containerd may send: lists of containers carry their whole specs.
pub(crate) const MAX_MESSAGE: usize = 64 << 20;

/// A containerd, and our namespace within it. Cheap to clone.
#[derive(Clone)]
pub struct Containerd {
    pub(crate) channel: Channel,
    pub(crate) namespace: String,
}

impl Containerd {
    /// Connects and makes the namespace if it is not there.
    pub async fn connect(socket: &Path, namespace: &str) -> Result<Self, Error> {
        let missing = |why: String| Error::NoContainerd { socket: socket.display().to_string(), why };
        let channel = containerd_client::connect(socket).await.map_err(|e| missing(chain(&e)))?;
        let this = Containerd { channel, namespace: namespace.to_owned() };
        this.version().await.map_err(|e| missing(e.to_string()))?;
        let request = CreateNamespaceRequest {
            namespace: Some(Namespace { name: namespace.to_owned(), ..Namespace::default() }),
        };
        match NamespacesClient::new(this.channel.clone()).create(request).await {
            Err(e) if e.code() != tonic::Code::AlreadyExists => {
                Err(Error::containerd("create the namespace")(e))
            }
            _ => Ok(this),
        }
    }

    /// containerd's version, such as `1.6.20~ds1`.
    pub async fn version(&self) -> Result<String, Error> {
        let mut client = VersionClient::new(self.channel.clone());
        Ok(client.version(()).await.map_err(Error::containerd("ask for its version"))?.into_inner().version)
    }

    /// A request within our namespace.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut r = tonic::Request::new(message);
        let name = self.namespace.parse().expect("a namespace's name is ASCII");
        r.metadata_mut().insert("containerd-namespace", name);
        r
    }

    /// A request whose new objects the lease keeps from the garbage collector.
    pub(crate) fn leased<T>(&self, lease: &Lease, message: T) -> tonic::Request<T> {
        let mut r = self.request(message);
        r.metadata_mut().insert("containerd-lease", lease.id.parse().expect("a lease's id is ASCII"));
        r
    }

    /// Takes a lease. It ends by itself after an hour if nobody ends it.
    pub(crate) async fn lease(&self) -> Result<Lease, Error> {
        use containerd_client::services::v1::CreateRequest;
        let id = format!("binnacle-{}", uuid::Uuid::new_v4());
        let expires = jiff::Timestamp::from_nanosecond(i128::from(signal::time::now().nanos()))
            .unwrap_or(jiff::Timestamp::MAX)
            .saturating_add(jiff::SignedDuration::from_hours(1))
            .unwrap_or(jiff::Timestamp::MAX);
        let labels = [("containerd.io/gc.expire".to_owned(), expires.to_string())].into();
        LeasesClient::new(self.channel.clone())
            .create(self.request(CreateRequest { id: id.clone(), labels }))
            .await
            .map_err(Error::containerd("take a lease"))?;
        Ok(Lease { id })
    }

    pub(crate) async fn end_lease(&self, lease: Lease) {
        use containerd_client::services::v1::DeleteRequest;
        let request = self.request(DeleteRequest { id: lease.id, sync: false });
        if let Err(e) = LeasesClient::new(self.channel.clone()).delete(request).await {
            tracing::debug!(error = %e, "ending a lease; it expires by itself");
        }
    }
}

/// Keeps fresh content and snapshots from containerd's garbage collector until something refers to them.
pub(crate) struct Lease {
    id: String,
}

/// An error with its causes: tonic's own text is only "transport error".
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(s) = source {
        text = format!("{text}: {s}");
        source = s.source();
    }
    text
}

/// How long a containerd that we start may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Connects to the containerd at `socket`; if none answers, starts a private one under `<data_dir>/containerd`
/// that listens there. The private one lives in its own session: it survives us, and a later call finds it by
/// its socket. [`stop_private`] ends it.
pub async fn ensure(socket: &Path, data_dir: &Path, namespace: &str) -> Result<Containerd, Error> {
    let first = match Containerd::connect(socket, namespace).await {
        Ok(c) => return Ok(c),
        Err(e) => e,
    };
    tracing::info!(error = %first, "starting a private containerd");
    let dir = data_dir.join("containerd");
    start(socket, &dir)?;
    let deadline = signal::time::monotonic() + START_TIMEOUT;
    loop {
        match Containerd::connect(socket, namespace).await {
            Ok(c) => return Ok(c),
            Err(e) if signal::time::monotonic() > deadline => return Err(e),
            // containerd tells nobody when it listens.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn pid_file(dir: &Path) -> PathBuf {
    dir.join("pid")
}

fn start(socket: &Path, dir: &Path) -> Result<(), Error> {
    let io = |what: &str| Error::io(format!("{what} in {dir:?}"));
    fs::create_dir_all(dir).map_err(io("create"))?;
    if let Some(parent) = socket.parent() {
        fs::create_dir_all(parent).map_err(io("create the socket's directory"))?;
    }
    let config = dir.join("config.toml");
    fs::write(&config, config_text(socket, dir)).map_err(io("write config.toml"))?;
    let log = fs::File::create(dir.join("containerd.log")).map_err(io("create containerd.log"))?;
    let mut command = Command::new("containerd");
    command
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .current_dir("/")
        // A terminal's Ctrl-C goes to a process group: containerd must not be in ours.
        .process_group(0);
    let mut child = command.spawn().map_err(|e| Error::NoContainerd {
        socket: socket.display().to_string(),
        why: format!("containerd could not be started: {e}"),
    })?;
    fs::write(pid_file(dir), child.id().to_string()).map_err(io("write pid"))?;
    // Collected when it ends, however late: else it would stay a zombie for as long as we live.
    std::thread::Builder::new()
        .name("containerd-wait".to_owned())
        .stack_size(64 << 10)
        .spawn(move || child.wait())
        .map_err(io("start a thread"))?;
    Ok(())
}

fn config_text(socket: &Path, dir: &Path) -> String {
    let quote = |p: PathBuf| format!("{:?}", p.display().to_string());
    format!(
        "version = 2
root = {root}
state = {state}
disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\", \
\"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\", \
\"io.containerd.snapshotter.v1.aufs\", \"io.containerd.snapshotter.v1.devmapper\"]
[grpc]
  address = {address}
[plugins.\"io.containerd.gc.v1.scheduler\"]
  startup_delay = \"10s\"
",
        root = quote(dir.join("root")),
        state = quote(dir.join("state")),
        address = quote(socket.to_owned()),
    )
}

/// Ends the private containerd of this data directory, if there is one, and removes its files.
pub async fn stop_private(data_dir: &Path) -> Result<(), Error> {
    let dir = data_dir.join("containerd");
    let Ok(text) = fs::read_to_string(pid_file(&dir)) else { return Ok(()) };
    if let Ok(pid) = text.trim().parse::<i32>() {
        // Only if the process is still that containerd: pids are used again.
        let cmdline = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if cmdline.contains(&dir.join("config.toml").display().to_string()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            terminate(pid).await;
        }
    }
    // Overlay mounts of snapshots and shims' bundles may still be there.
    unmount_below(&dir)?;
    fs::remove_dir_all(&dir).map_err(Error::io(format!("remove {dir:?}")))
}

async fn terminate(pid: nix::unistd::Pid) {
    use nix::sys::signal::{Signal, kill};
    for (signal, tries) in [(Signal::SIGTERM, 500), (Signal::SIGKILL, 200)] {
        if kill(pid, signal).is_err() {
            return;
        }
        for _ in 0..tries {
            if kill(pid, None).is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Unmounts everything mounted below a directory, the last first.
pub(crate) fn unmount_below(dir: &Path) -> Result<(), Error> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(Error::io("read /proc/self/mounts"))?;
    let below: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|l| l.split(' ').nth(1))
        .map(|p| PathBuf::from(p.replace("\\040", " ")))
        .filter(|p| p.starts_with(dir) && p != dir)
        .collect();
    for path in below.iter().rev() {
        match nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH) {
            Err(e) if !matches!(e, nix::Error::EINVAL | nix::Error::ENOENT) => {
                return Err(Error::io(format!("unmount {path:?}"))(e.into()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Ends shims of this namespace that no task needs any more. One is left behind when its client dies in the middle of
/// creating a task: containerd 1.6 forgets it. To be called only when all tasks are deleted.
pub(crate) async fn end_forgotten_shims(socket: &Path, namespace: &str) -> Result<(), Error> {
    let io = || Error::io("list processes");
    for entry in fs::read_dir("/proc").map_err(io())? {
        let entry = entry.map_err(io())?;
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        // A process that has just ended has no command line.
        let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if is_shim_of(&cmdline, socket, namespace) {
            tracing::info!(pid, "ending a shim that containerd has forgotten");
            // It may end by itself meanwhile.
            let _ended =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
    Ok(())
}

fn is_shim_of(cmdline: &[u8], socket: &Path, namespace: &str) -> bool {
    let args: Vec<&[u8]> = cmdline.split(|b| *b == 0).collect();
    let has = |flag: &[u8], value: &[u8]| args.windows(2).any(|w| w[0] == flag && w[1] == value);
    args.first().is_some_and(|a| a.ends_with(b"containerd-shim-runc-v2"))
        && has(b"-namespace", namespace.as_bytes())
        && has(b"-address", socket.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_shims_by_namespace_and_address() {
        let line = b"/usr/bin/containerd-shim-runc-v2\0-namespace\0binnacle\0-id\0x\0-address\0/run/c.sock\0";
        let check = |socket: &str, namespace: &str, expect: bool| {
            assert_eq!(is_shim_of(line, Path::new(socket), namespace), expect, "{socket} {namespace}");
        };
        check("/run/c.sock", "binnacle", true);
        check("/run/c.sock", "moby", false);
        check("/run/other.sock", "binnacle", false);
    }
}
