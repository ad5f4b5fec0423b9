//! Linux capabilities by name.

/// In the kernel's order: the index is the bit.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containerd and Docker give a container.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Capabilities this machine can give at all: what it withholds from us it withholds from containers.
fn available() -> Vec<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status
        .lines()
        .find_map(|l| l.strip_prefix("CapBnd:"))
        .and_then(|h| u64::from_str_radix(h.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    NAMES.iter().enumerate().filter(|(i, _)| bounding >> i & 1 == 1).map(|(_, n)| *n).collect()
}

/// True if this process may lower OOM scores and raise limits.
pub(crate) fn may_set_resources() -> bool {
    available().contains(&"SYS_RESOURCE")
}

/// The set of a container, with the `CAP_` prefix.
pub(crate) fn set(privileged: bool, add: &[String], drop: &[String]) -> Vec<String> {
    let all = available();
    let plain = |s: &String| s.trim_start_matches("CAP_").to_ascii_uppercase();
    let (add, drop): (Vec<String>, Vec<String>) =
        (add.iter().map(plain).collect(), drop.iter().map(plain).collect());
    let wants = |name: &str| {
        if privileged || add.iter().any(|a| a == "ALL") {
            return !drop.iter().any(|d| d == name);
        }
        if add.iter().any(|a| a == name) {
            return true;
        }
        DEFAULT.contains(&name) && !drop.iter().any(|d| d == name || d == "ALL")
    };
    all.into_iter().filter(|n| wants(n)).map(|n| format!("CAP_{n}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn add_and_drop() {
        let names = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert!(set(false, &[], &[]).contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(set(false, &names(&["NET_ADMIN"]), &names(&["ALL"])), ["CAP_NET_ADMIN"]);
        assert!(!set(false, &[], &names(&["CAP_CHOWN"])).contains(&"CAP_CHOWN".to_owned()));
        assert!(set(true, &[], &[]).contains(&"CAP_SYS_ADMIN".to_owned()));
    }
}
