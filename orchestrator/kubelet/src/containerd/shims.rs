//! Shims that containerd has forgotten: it happens when its client dies in the middle of creating a task.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;

/// How long a killed shim may take to go, in looks and their pause: nobody tells us.
const LOOKS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// Ends shims of this namespace none of whose processes is a task that containerd knows (`tasks`, by pid), with what
/// they run, and waits until they are gone. To be called while no task is being created.
pub(crate) async fn end_forgotten_shims(
    socket: &Path,
    namespace: &str,
    tasks: &HashSet<i32>,
) -> Result<usize, Error> {
    let shims: HashSet<i32> = pids()?
        .into_iter()
        // A process that has just ended has no command line.
        .filter(|p| {
            is_shim_of(&fs::read(format!("/proc/{p}/cmdline")).unwrap_or_default(), socket, namespace)
        })
        .collect();
    if shims.is_empty() {
        return Ok(0);
    }
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in pids()? {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some(parent) = parent_of(&stat).filter(|p| shims.contains(p)) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut ended = Vec::new();
    for pid in &shims {
        let own = children.get(pid).map_or(&[][..], Vec::as_slice);
        if own.iter().any(|c| tasks.contains(c)) {
            continue;
        }
        tracing::info!(pid, "ending a shim that containerd has forgotten");
        // The container first: without its shim nobody would collect it. Either may end by itself meanwhile.
        for p in own.iter().chain([pid]) {
            let _ended = kill(Pid::from_raw(*p), Signal::SIGKILL);
        }
        ended.push(*pid);
    }
    for _ in 0..LOOKS {
        if ended.iter().all(|p| !is_alive(*p)) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(ended.len())
}

/// A process that has ended but was not collected is as good as gone.
fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// All processes.
fn pids() -> Result<Vec<i32>, Error> {
    let io = || Error::io("list processes");
    let mut out = Vec::new();
    for entry in fs::read_dir("/proc").map_err(io())? {
        let entry = entry.map_err(io())?;
        out.extend(entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()));
    }
    Ok(out)
}

/// The parent in `pid (name) state parent …`; a name may hold blanks and parentheses.
fn parent_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
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
    fn parents_are_behind_the_name() {
        assert_eq!(parent_of("12 (a) b) S 7 12 12 0"), Some(7));
        assert_eq!(parent_of(""), None);
        assert!(is_alive(1) && !is_alive(i32::MAX));
    }

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
