//! A private containerd where none answers: started from the installed binary, in a session and a cgroup of its own,
//! so that neither our end, nor a terminal's Ctrl-C, nor a service manager that ends our cgroup reaches it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Containerd, unmount_below};
use crate::Error;
use crate::cgroup::Hierarchy;

/// How long a containerd that we start may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);
const LOG: &str = "containerd.log";

/// Connects to the containerd at `socket`; if none answers, starts a private one under `<data_dir>/containerd`
/// that listens there. The private one lives in its own session: it survives us, and a later call finds it by
/// its socket. [`stop_private`] ends it.
pub async fn ensure(socket: &Path, data_dir: &Path, namespace: &str) -> Result<Containerd, Error> {
    let first = match Containerd::connect(socket, namespace).await {
        Ok(c) => return Ok(c),
        Err(e) => e,
    };
    tracing::info!(why = %first, "starting a private containerd");
    let dir = data_dir.join("containerd");
    let mut died = start(socket, &dir)?;
    let deadline = signal::time::monotonic() + START_TIMEOUT;
    loop {
        match Containerd::connect(socket, namespace).await {
            Ok(c) => return Ok(c),
            Err(e) if signal::time::monotonic() > deadline => return Err(e),
            Err(_) if died.try_recv().is_ok() => {
                return Err(Error::NoContainerd {
                    socket: socket.display().to_string(),
                    why: format!("containerd ended at once: {}", last_words(&dir)),
                });
            }
            // containerd tells nobody when it listens.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Starts the private containerd again if there is one and it does not answer: it may have been killed. Shims and
/// containers outlive it, and it finds them again.
pub(crate) async fn revive(socket: &Path, data_dir: &Path, namespace: &str) -> Result<(), Error> {
    let there = pid_file(&data_dir.join("containerd"));
    if !there.try_exists().map_err(Error::io(format!("look for {there:?}")))? {
        return Ok(());
    }
    ensure(socket, data_dir, namespace).await.map(|_| ())
}

fn pid_file(dir: &Path) -> PathBuf {
    dir.join("pid")
}

/// The last line of its log that says what went wrong.
fn last_words(dir: &Path) -> String {
    let text = crate::files::read_at_most(&dir.join(LOG), 8 << 10).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("its log is empty");
    line.strip_prefix("containerd: ").unwrap_or(line).to_owned()
}

/// The cgroup of the private containerd of a directory, in every hierarchy.
fn cgroup(dir: &Path) -> String {
    format!("/binnacle-containerd-{:08x}", crc32fast::hash(dir.as_os_str().as_encoded_bytes()))
}

/// Starts it; the receiver hears of its end.
fn start(socket: &Path, dir: &Path) -> Result<oneshot::Receiver<()>, Error> {
    let io = |what: &str| Error::io(format!("{what} in {dir:?}"));
    fs::create_dir_all(dir).map_err(io("create"))?;
    if let Some(parent) = socket.parent() {
        fs::create_dir_all(parent).map_err(io("create the socket's directory"))?;
    }
    let config = dir.join("config.toml");
    fs::write(&config, config_text(socket, dir)).map_err(io("write config.toml"))?;
    let log = fs::File::create(dir.join(LOG)).map_err(io("create its log"))?;
    let mut command = Command::new("containerd");
    command
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .current_dir("/");
    own_session(&mut command);
    let mut child = command.spawn().map_err(|e| Error::NoContainerd {
        socket: socket.display().to_string(),
        why: format!("the installed containerd could not be started: {e}"),
    })?;
    // Before it has children of its own. Without it containerd works as well, only less apart from us.
    if let Err(e) = Hierarchy::detect().and_then(|h| h.join(&cgroup(dir), child.id())) {
        tracing::warn!(error = %e, "containerd stays in our cgroup: who ends that ends it too");
    }
    fs::write(pid_file(dir), child.id().to_string()).map_err(io("write pid"))?;
    // Collected when it ends, however late: else it would stay a zombie for as long as we live.
    let (tell, died) = oneshot::channel();
    std::thread::Builder::new()
        .name("containerd-wait".to_owned())
        .stack_size(64 << 10)
        .spawn(move || {
            let ended = child.wait();
            // Only its starter waits for this word, and only for a while.
            let _heard = tell.send(());
            ended
        })
        .map_err(io("start a thread"))?;
    Ok(died)
}

/// A session of its own has no terminal and is in nobody's process group.
#[expect(unsafe_code, reason = "between fork and exec; setsid is safe to call there")]
fn own_session(command: &mut Command) {
    // SAFETY: the closure only makes one system call, which allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(Into::into));
    }
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
    Hierarchy::detect()?.remove(&cgroup(&dir))?;
    remove_sockets(&dir)?;
    fs::remove_dir_all(&dir).map_err(Error::io(format!("remove {dir:?}")))
}

/// What containerd leaves of the sockets that its configuration names.
fn remove_sockets(dir: &Path) -> Result<(), Error> {
    let config = fs::read_to_string(dir.join("config.toml")).unwrap_or_default();
    let Some(socket) = config.lines().find_map(|l| l.trim().strip_prefix("address = \"")?.strip_suffix('"'))
    else {
        return Ok(());
    };
    for path in [socket.to_owned(), format!("{socket}.ttrpc")] {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("remove {path:?}"))(e));
            }
            _ => {}
        }
    }
    Ok(())
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
