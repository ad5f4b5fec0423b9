//! Namespaces of a pod, pinned as files: no process is needed to keep them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::Error;

/// The files that name a pod's namespaces, as an OCI spec wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces {
    pub dir: PathBuf,
    pub net: PathBuf,
    pub ipc: PathBuf,
    pub uts: PathBuf,
}

impl Namespaces {
    pub(crate) fn at(dir: &Path) -> Self {
        Namespaces { dir: dir.to_owned(), net: dir.join("net"), ipc: dir.join("ipc"), uts: dir.join("uts") }
    }

    fn files(&self) -> [(&Path, &'static str); 3] {
        [(&self.net, "net"), (&self.ipc, "ipc"), (&self.uts, "uts")]
    }

    /// True if all three files stand for a namespace. A plain file, as a reboot leaves it, does not.
    pub(crate) fn pinned(&self) -> bool {
        self.files().iter().all(|(path, _)| is_namespace(path))
    }
}

fn is_namespace(path: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    nix::sys::statfs::statfs(path).is_ok_and(|s| s.filesystem_type().0 == NSFS_MAGIC)
}

/// Makes a network, an IPC and a UTS namespace and pins them. `inside` runs in them, on a thread of its own.
///
/// Every step is done on that thread: namespaces belong to threads, and this one ends with them.
pub(crate) fn create<T: Send>(
    ns: &Namespaces,
    hostname: &str,
    inside: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T, Error> {
    fs::create_dir_all(&ns.dir).map_err(Error::io(format!("create {:?}", ns.dir)))?;
    let make = || -> io::Result<T> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
        nix::unistd::sethostname(hostname)?;
        sysctls()?;
        let value = inside()?;
        for (path, kind) in ns.files() {
            OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            let source = PathBuf::from(format!("/proc/thread-self/ns/{kind}"));
            mount(Some(&source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
        Ok(value)
    };
    let made = thread::scope(|s| {
        thread::Builder::new()
            .name("pod-namespaces".to_owned())
            .spawn_scoped(s, make)
            .map(|t| t.join().expect("the closure does not panic"))
    });
    match made {
        Ok(Ok(v)) => Ok(v),
        Ok(Err(e)) | Err(e) => {
            remove(ns)?;
            Err(Error::io("make a pod's namespaces")(e))
        }
    }
}

/// A pod must believe its routes: all its traffic goes through the node, also to its neighbours.
fn sysctls() -> io::Result<()> {
    for (name, value) in [
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/default/accept_redirects", "0"),
        ("net/ipv4/ip_unprivileged_port_start", "0"),
    ] {
        fs::write(Path::new("/proc/sys").join(name), value)?;
    }
    Ok(())
}

/// Unpins a pod's namespaces. The kernel removes them, and interfaces within, with their last process.
pub(crate) fn remove(ns: &Namespaces) -> Result<(), Error> {
    for (path, _) in ns.files() {
        // Each mount on top of another one is one call; EINVAL says that none is left.
        while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format!("remove {path:?}"))(e));
            }
            _ => {}
        }
    }
    match fs::remove_dir(&ns.dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(format!("remove {:?}", ns.dir))(e)),
        _ => Ok(()),
    }
}

/// Runs `f` on a thread of its own that is in the network namespace at `path`. Sockets made there stay there.
pub fn enter_network<T: Send>(path: &Path, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    let file = File::open(path)?;
    thread::scope(|s| {
        thread::Builder::new()
            .name("pod-network".to_owned())
            .spawn_scoped(s, move || {
                setns(&file, CloneFlags::CLONE_NEWNET)?;
                Ok(f())
            })?
            .join()
            .expect("the closure does not panic")
    })
}
