//! A pod's interface counters, read through a file opened once inside its network namespace.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

pub(super) struct NetDev {
    /// `/proc/thread-self/net/dev` of a thread that was in the namespace: it keeps showing that namespace.
    file: File,
}

impl NetDev {
    pub(super) fn open(netns: &Path) -> io::Result<NetDev> {
        let netns = File::open(netns)?;
        // A thread of its own, so that no other work is ever done in the pod's namespace.
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            File::open("/proc/thread-self/net/dev")
        })?;
        let file = thread.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))??;
        Ok(NetDev { file })
    }

    pub(super) fn read(&mut self, out: &mut Vec<(&'static str, f64)>) {
        let mut buffer = [0; 4096];
        let n = self.file.read_at(&mut buffer, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&buffer[..n]);
        let Some(line) = text.lines().find_map(|l| l.trim_start().strip_prefix("eth0:")) else { return };
        let f: Vec<f64> = line.split_ascii_whitespace().filter_map(|w| w.parse().ok()).collect();
        let names = [
            (0, "container_network_receive_bytes_total"),
            (1, "container_network_receive_packets_total"),
            (2, "container_network_receive_errors_total"),
            (3, "container_network_receive_packets_dropped_total"),
            (8, "container_network_transmit_bytes_total"),
            (9, "container_network_transmit_packets_total"),
            (10, "container_network_transmit_errors_total"),
            (11, "container_network_transmit_packets_dropped_total"),
        ];
        out.extend(names.iter().filter_map(|(i, name)| Some((*name, *f.get(*i)?))));
    }
}
