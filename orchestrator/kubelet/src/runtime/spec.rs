//! The OCI runtime spec of a container. Pure but for the capabilities this machine has.

use std::path::PathBuf;

use network::Namespaces;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::{capability, devices, seccomp};
use crate::Error;

/// Processes and threads a container may have.
const PIDS_LIMIT: i64 = 4096;

/// A directory or file of the node that a container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    pub(crate) destination: String,
    pub(crate) read_only: bool,
    /// `private`, `rslave` or `rshared`.
    pub(crate) propagation: &'static str,
}

/// Limits of a container or pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Thousandths of a core.
    pub(crate) cpu_request: Option<i64>,
    pub(crate) cpu_limit: Option<i64>,
    /// Bytes.
    pub(crate) memory_limit: Option<i64>,
}

impl Limits {
    /// Relative weight: 1024 for a core (kubelet: cm/helpers_linux.go MilliCPUToShares).
    pub(crate) fn shares(&self) -> u64 {
        let milli = self.cpu_request.or(self.cpu_limit).unwrap_or(0);
        u64::try_from(milli * 1024 / 1000).unwrap_or(0).clamp(2, 262_144)
    }

    /// Microseconds of each 100 ms.
    pub(crate) fn quota(&self) -> Option<i64> {
        self.cpu_limit.filter(|m| *m > 0).map(|m| (m * 100).max(1000))
    }
}

/// Everything a container's spec is made from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) terminal: bool,
    /// True if the process reads what somebody may send.
    pub(crate) stdin: bool,
    pub(crate) privileged: bool,
    pub(crate) read_only_root: bool,
    pub(crate) no_new_privileges: bool,
    pub(crate) add_capabilities: Vec<String>,
    pub(crate) drop_capabilities: Vec<String>,
    pub(crate) unconfined: bool,
    pub(crate) unmasked_proc: bool,
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) limits: Limits,
    pub(crate) oom_score_adj: i32,
    pub(crate) cgroup: String,
    /// `None` for a pod in the node's network.
    pub(crate) namespaces: Option<Namespaces>,
    pub(crate) host_pid: bool,
    /// A process whose PID namespace this one shares.
    pub(crate) sees: Option<u32>,
    pub(crate) host_ipc: bool,
    pub(crate) pod_uid: String,
}

/// The spec as typed by the OCI crate, so that a wrong shape fails here and not in the runtime.
pub(crate) fn build(ask: &Ask) -> Result<Spec, Error> {
    let caps = capability::set(ask.privileged, &ask.add_capabilities, &ask.drop_capabilities);
    let mut process = json!({
        "terminal": ask.terminal,
        "user": {"uid": ask.uid, "gid": ask.gid, "umask": 18, "additionalGids": ask.groups},
        "args": ask.args,
        "env": ask.env,
        "cwd": if ask.cwd.is_empty() { "/" } else { &ask.cwd },
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        "noNewPrivileges": ask.no_new_privileges,
    });
    // A score below our own needs CAP_SYS_RESOURCE; without it the container runs with ours.
    if ask.oom_score_adj >= 0 || capability::may_set_resources() {
        process["oomScoreAdj"] = json!(ask.oom_score_adj);
    }
    let mut linux = json!({
        "cgroupsPath": ask.cgroup,
        "namespaces": namespaces(ask),
        "resources": resources(ask),
        "sysctl": ask.sysctls.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    });
    if ask.privileged {
        linux["devices"] = json!(devices::of_node());
    } else {
        if !ask.unmasked_proc {
            linux["maskedPaths"] = json!([
                "/proc/acpi",
                "/proc/asound",
                "/proc/interrupts",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/proc/scsi",
                "/sys/firmware",
                "/sys/devices/virtual/powercap",
            ]);
            linux["readonlyPaths"] =
                json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
        }
        if !ask.unconfined {
            linux["seccomp"] = seccomp::default_profile(&caps);
        }
    }
    if ask.mounts.iter().any(|m| m.propagation == "rshared") {
        linux["rootfsPropagation"] = json!("shared");
    } else if ask.mounts.iter().any(|m| m.propagation == "rslave") {
        linux["rootfsPropagation"] = json!("rslave");
    }
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs", "readonly": ask.read_only_root},
        "mounts": mounts(ask),
        // One shim serves all containers of a pod.
        "annotations": {"io.kubernetes.cri.sandbox-id": ask.pod_uid},
        "linux": linux,
    });
    serde_json::from_value(spec).map_err(|e| Error::Config(format!("the container's spec is wrong: {e}")))
}

fn namespaces(ask: &Ask) -> Value {
    let mut list = vec![json!({"type": "mount"})];
    match ask.sees {
        _ if ask.host_pid => {}
        Some(pid) => list.push(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")})),
        None => list.push(json!({"type": "pid"})),
    }
    match &ask.namespaces {
        Some(ns) => {
            list.push(json!({"type": "network", "path": ns.net}));
            list.push(json!({"type": "uts", "path": ns.uts}));
            if !ask.host_ipc {
                list.push(json!({"type": "ipc", "path": ns.ipc}));
            }
        }
        None if !ask.host_ipc => list.push(json!({"type": "ipc"})),
        None => {}
    }
    json!(list)
}

fn resources(ask: &Ask) -> Value {
    let mut cpu = json!({"shares": ask.limits.shares()});
    if let Some(quota) = ask.limits.quota() {
        cpu["quota"] = json!(quota);
        cpu["period"] = json!(100_000);
    }
    let mut r = json!({"cpu": cpu, "pids": {"limit": PIDS_LIMIT}});
    if let Some(limit) = ask.limits.memory_limit.filter(|l| *l > 0) {
        r["memory"] = json!({"limit": limit});
    }
    r["devices"] = if ask.privileged {
        json!([{"allow": true, "access": "rwm"}])
    } else {
        let char = |major: i64, minor: Value| json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"});
        json!([
            {"allow": false, "access": "rwm"},
            char(1, json!(3)), char(1, json!(5)), char(1, json!(7)), char(1, json!(8)), char(1, json!(9)),
            char(5, json!(0)), char(5, json!(1)), char(5, json!(2)),
            {"allow": true, "type": "c", "major": 136, "access": "rwm"},
        ])
    };
    r
}

fn mounts(ask: &Ask) -> Value {
    let m = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let writable = if ask.privileged { "rw" } else { "ro" };
    let mut list = vec![
        m("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        m("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        m(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        m("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        // A pod in the node's network keeps the node's sysfs: a fresh one needs a network namespace of its own.
        if ask.namespaces.is_some() {
            m("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", writable])
        } else {
            m("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", writable])
        },
        m("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", writable]),
    ];
    if !ask.mounts.iter().any(|x| x.destination == "/dev/shm") {
        list.push(m("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]));
    }
    // Parents before children: a mount hides what was below it.
    let mut own: Vec<&Mount> = ask.mounts.iter().collect();
    own.sort_by_key(|x| x.destination.matches('/').count());
    for x in own {
        let access = if x.read_only { "ro" } else { "rw" };
        list.push(json!({"destination": x.destination, "type": "bind", "source": x.source,
            "options": ["rbind", x.propagation, access]}));
    }
    json!(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(ask: &Ask) -> Value {
        serde_json::to_value(build(ask).expect("spec")).expect("json")
    }

    #[test]
    fn a_plain_container_is_confined() {
        let spec = value(&Ask { args: vec!["sh".to_owned()], ..Ask::default() });
        assert_eq!(spec["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        assert!(spec["linux"]["maskedPaths"].as_array().is_some_and(|a| !a.is_empty()));
        assert_eq!(spec["linux"]["resources"]["pids"]["limit"], PIDS_LIMIT);
        assert_eq!(spec["process"]["cwd"], "/");
    }

    #[test]
    fn a_privileged_one_is_not() {
        let spec = value(&Ask { args: vec!["sh".to_owned()], privileged: true, ..Ask::default() });
        assert!(spec["linux"]["seccomp"].is_null());
        assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], true);
    }

    #[test]
    fn limits_as_upstream_computes_them() {
        let l = Limits { cpu_request: Some(250), cpu_limit: Some(500), memory_limit: None };
        assert_eq!((l.shares(), l.quota()), (256, Some(50_000)));
        assert_eq!((Limits::default().shares(), Limits::default().quota()), (2, None));
        let tiny = Limits { cpu_limit: Some(1), ..Limits::default() };
        assert_eq!(tiny.quota(), Some(1000));
    }
}
