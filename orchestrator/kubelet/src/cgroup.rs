//! Pods' cgroups, version 1 (one hierarchy per controller) and 2 (one for all).
//!
//! The runtime makes a container's own; the levels above it are ours: `/<root>/<class>/pod<uid>`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::runtime::Limits;

const ROOT: &str = "/sys/fs/cgroup";

/// The machine's cgroup hierarchies.
#[derive(Clone, Debug)]
pub(crate) enum Hierarchy {
    /// Mount points by controller, each once.
    V1(Vec<(String, PathBuf)>),
    V2(PathBuf),
}

impl Hierarchy {
    pub(crate) fn detect() -> Result<Self, Error> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(Error::io("read /proc/self/mounts"))?;
        Ok(parse_mounts(&mounts))
    }

    /// Directories of a cgroup in all hierarchies.
    fn dirs(&self, path: &str) -> Vec<PathBuf> {
        let path = path.trim_start_matches('/');
        match self {
            Hierarchy::V1(list) => list.iter().map(|(_, root)| root.join(path)).collect(),
            Hierarchy::V2(root) => vec![root.join(path)],
        }
    }

    fn v1_dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        match self {
            Hierarchy::V1(list) => list
                .iter()
                .find(|(c, _)| c.split(',').any(|c| c == controller))
                .map(|(_, root)| root.join(path.trim_start_matches('/'))),
            Hierarchy::V2(_) => None,
        }
    }

    /// Makes a pod's cgroup with the pod's limits.
    pub(crate) fn create_pod(&self, path: &str, limits: &Limits) -> Result<(), Error> {
        match self {
            Hierarchy::V1(_) => {
                if let Some(dir) = self.v1_dir("cpu", path) {
                    create(&dir)?;
                    write(&dir.join("cpu.shares"), limits.shares())?;
                    if let Some(q) = limits.quota() {
                        write(&dir.join("cpu.cfs_quota_us"), q)?;
                    }
                }
                if let Some(dir) = self.v1_dir("memory", path) {
                    create(&dir)?;
                    if let Some(m) = limits.memory_limit {
                        write(&dir.join("memory.limit_in_bytes"), m)?;
                    }
                }
            }
            Hierarchy::V2(root) => {
                let dir = root.join(path.trim_start_matches('/'));
                create(&dir)?;
                // Each level hands its controllers down to the next.
                let mut level = root.clone();
                for part in Path::new(path.trim_start_matches('/')).components() {
                    write(&level.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
                    level = level.join(part);
                }
                let weight = 1 + (limits.shares() - 2) * 9999 / 262_142;
                write(&dir.join("cpu.weight"), weight)?;
                if let Some(q) = limits.quota() {
                    write(&dir.join("cpu.max"), format!("{q} 100000"))?;
                }
                if let Some(m) = limits.memory_limit {
                    write(&dir.join("memory.max"), m)?;
                }
            }
        }
        Ok(())
    }

    /// Limits a cgroup that is there anew; what is not limited is open.
    pub(crate) fn update(&self, path: &str, limits: &Limits) -> Result<(), Error> {
        match self {
            Hierarchy::V1(_) => {
                if let Some(dir) = self.v1_dir("cpu", path) {
                    write(&dir.join("cpu.shares"), limits.shares())?;
                    write(&dir.join("cpu.cfs_quota_us"), limits.quota().unwrap_or(-1))?;
                }
                if let Some(dir) = self.v1_dir("memory", path) {
                    write(&dir.join("memory.limit_in_bytes"), limits.memory_limit.unwrap_or(-1))?;
                }
            }
            Hierarchy::V2(root) => {
                let dir = root.join(path.trim_start_matches('/'));
                let weight = 1 + (limits.shares() - 2) * 9999 / 262_142;
                write(&dir.join("cpu.weight"), weight)?;
                let quota = limits.quota().map_or_else(|| "max".to_owned(), |q| q.to_string());
                write(&dir.join("cpu.max"), format!("{quota} 100000"))?;
                let memory = limits.memory_limit.map_or_else(|| "max".to_owned(), |m| m.to_string());
                write(&dir.join("memory.max"), memory)?;
            }
        }
        Ok(())
    }

    /// Puts a process into a cgroup of its own in every hierarchy. Not in version 1's `cpuset`, which takes no process
    /// before it was given processors, and says nothing of who ends with whom.
    pub(crate) fn join(&self, path: &str, pid: u32) -> Result<(), Error> {
        let cpuset = self.v1_dir("cpuset", path);
        for dir in self.dirs(path).iter().filter(|d| Some(*d) != cpuset.as_ref()) {
            create(dir)?;
            write(&dir.join("cgroup.procs"), pid)?;
        }
        Ok(())
    }

    /// Removes a cgroup and all below it. Processes in it must be gone; one that is not there is fine.
    pub(crate) fn remove(&self, path: &str) -> Result<(), Error> {
        self.dirs(path).iter().try_for_each(|d| remove_tree(d).map_err(Error::io(format!("remove {d:?}"))))
    }

    /// How often the kernel killed a process of the cgroup for lack of memory.
    pub(crate) fn oom_kills(&self, path: &str) -> u64 {
        let file = match self {
            Hierarchy::V1(_) => self.v1_dir("memory", path).map(|d| d.join("memory.oom_control")),
            Hierarchy::V2(root) => Some(root.join(path.trim_start_matches('/')).join("memory.events")),
        };
        // A cgroup that is gone has nothing to say.
        let text = file.and_then(|f| fs::read_to_string(f).ok()).unwrap_or_default();
        text.lines()
            .find_map(|l| l.strip_prefix("oom_kill "))
            .and_then(|n| n.trim().parse().ok())
            .unwrap_or(0)
    }
}

fn parse_mounts(mounts: &str) -> Hierarchy {
    let mut v1: Vec<(String, PathBuf)> = Vec::new();
    let mut unified = PathBuf::from(ROOT);
    for line in mounts.lines() {
        let mut f = line.split(' ');
        let (Some(_), Some(target), Some(kind), Some(options)) = (f.next(), f.next(), f.next(), f.next())
        else {
            continue;
        };
        match kind {
            "cgroup" => {
                const KNOWN: [&str; 12] = [
                    "cpu",
                    "cpuacct",
                    "cpuset",
                    "memory",
                    "devices",
                    "freezer",
                    "blkio",
                    "pids",
                    "net_cls",
                    "net_prio",
                    "perf_event",
                    "hugetlb",
                ];
                let controllers: Vec<&str> = options.split(',').filter(|o| KNOWN.contains(o)).collect();
                let name = controllers.join(",");
                if !v1.iter().any(|(n, _)| *n == name) {
                    v1.push((name, PathBuf::from(target)));
                }
            }
            "cgroup2" if target == ROOT => unified = PathBuf::from(target),
            // Beside version 1 it has no controllers of ours, but runtimes make the cgroup there too: it must go with it.
            "cgroup2" => v1.push(("unified".to_owned(), PathBuf::from(target))),
            _ => {}
        }
    }
    if v1.iter().any(|(c, _)| c.split(',').any(|c| c == "memory")) {
        Hierarchy::V1(v1)
    } else {
        Hierarchy::V2(unified)
    }
}

fn create(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::io(format!("create {dir:?}")))
}

fn write(file: &Path, value: impl ToString) -> Result<(), Error> {
    fs::write(file, value.to_string()).map_err(Error::io(format!("write {file:?}")))
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let gone = |e: io::Error| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) };
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    remove_tree(&entry.path())?;
                }
            }
        }
        Err(e) => return gone(e),
    }
    fs::remove_dir(dir).or_else(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_versions_apart() {
        let v1 = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n";
        let h = parse_mounts(v1);
        assert_eq!(h.v1_dir("cpuacct", "/a/b"), Some("/sys/fs/cgroup/cpu,cpuacct/a/b".into()));
        assert!(matches!(parse_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"), Hierarchy::V2(_)));
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|e| panic!("{path:?}: {e}"))
    }

    const LIMITS: Limits =
        Limits { cpu_request: Some(250), cpu_limit: Some(500), memory_limit: Some(64 << 20) };

    /// Version 2 has one directory, and each level hands its controllers down.
    #[test]
    fn version_2_paths_and_values() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path();
        let h = Hierarchy::V2(root.to_owned());
        h.create_pod("/k/burstable/podx", &LIMITS).expect("create");
        let pod = root.join("k/burstable/podx");
        // (256 - 2) * 9999 / 262142 + 1, as runtimes turn shares into weights.
        assert_eq!(text(&pod.join("cpu.weight")), "10");
        assert_eq!(text(&pod.join("cpu.max")), "50000 100000");
        assert_eq!(text(&pod.join("memory.max")), (64 << 20).to_string());
        for level in ["", "k", "k/burstable"] {
            assert_eq!(text(&root.join(level).join("cgroup.subtree_control")), "+cpu +memory +pids");
        }
        assert!(fs::read(pod.join("cgroup.subtree_control")).is_err());
        h.update("/k/burstable/podx", &Limits { cpu_limit: None, ..LIMITS }).expect("update");
        assert_eq!(text(&pod.join("cpu.max")), "max 100000");
        assert_eq!(text(&pod.join("memory.max")), (64 << 20).to_string());
        fs::create_dir(pod.join("c")).expect("container");
        fs::write(pod.join("c/memory.events"), "low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
            .expect("events");
        assert_eq!(h.oom_kills("/k/burstable/podx/c"), 2);
        assert_eq!(h.oom_kills("/k/burstable/podx/gone"), 0);
        h.join("/own", 7).expect("join");
        assert_eq!(text(&root.join("own/cgroup.procs")), "7");
    }

    #[test]
    fn version_2_without_limits_writes_none() {
        let dir = tempfile::tempdir().expect("dir");
        let h = Hierarchy::V2(dir.path().to_owned());
        h.create_pod("/k/besteffort/podx", &Limits::default()).expect("create");
        let pod = dir.path().join("k/besteffort/podx");
        assert_eq!(text(&pod.join("cpu.weight")), "1");
        assert!(fs::read(pod.join("cpu.max")).is_err() && fs::read(pod.join("memory.max")).is_err());
    }

    #[test]
    fn version_1_paths_and_values() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path();
        let mounts = ["cpu,cpuacct", "memory", "cpuset"]
            .map(|c| format!("cgroup {} cgroup rw,{c} 0 0", root.join(c).display()));
        let h = parse_mounts(&mounts.join("\n"));
        h.create_pod("/k/podx", &LIMITS).expect("create");
        assert_eq!(text(&root.join("cpu,cpuacct/k/podx/cpu.shares")), "256");
        assert_eq!(text(&root.join("cpu,cpuacct/k/podx/cpu.cfs_quota_us")), "50000");
        assert_eq!(text(&root.join("memory/k/podx/memory.limit_in_bytes")), (64 << 20).to_string());
        h.join("/own", 7).expect("join");
        assert_eq!(text(&root.join("memory/own/cgroup.procs")), "7");
        assert!(fs::read_dir(root.join("cpuset/own")).is_err());
    }
}
