//! The machine's own figures under node_exporter's names: `node_cpu_seconds_total`, `node_memory_*_bytes`, …
//!
//! Left out on purpose: file systems and interfaces that belong to containers (overlay mounts, veth pairs); those
//! are measured per container under cAdvisor's names.

mod parse;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use signal::time::SharedClock;
use signal::{Labels, METRIC_NAME, Metadata, MetricBatch, MetricKind, Sink};
use tokio_util::sync::CancellationToken;

use crate::metrics::{accepted, refused};

const INTERVAL: Duration = Duration::from_secs(5);

/// One reading: name, labels beside the target's, value.
pub(crate) type Reading = (String, Vec<(&'static str, String)>, f64);

/// Measures the machine every five seconds under `labels` until `stop`.
pub async fn run(labels: Labels, sink: Arc<dyn Sink>, clock: SharedClock, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut first = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // statvfs can hang on a dead network file system: never on a thread that serves others.
        let readings = match tokio::task::spawn_blocking(read).await {
            Ok(r) => r,
            Err(e) => {
                tracing::error!(error = %e, "the machine cannot be measured");
                continue;
            }
        };
        let now = clock.now().millis();
        let mut batch = MetricBatch::default();
        if std::mem::take(&mut first) {
            batch.metadata = metadata(&readings);
        }
        for (name, own, value) in readings {
            let mut b = labels.builder();
            b.set(METRIC_NAME, &name);
            for (k, v) in &own {
                b.set(k, v);
            }
            batch.push(b.build(), now, value);
        }
        let n = batch.samples();
        match sink.write_metrics(batch).await {
            Ok(_) => accepted("machine", "metrics", n),
            Err(e) => {
                refused("machine", "sink");
                tracing::warn!(error = %e, "the machine's samples were not stored");
            }
        }
    }
}

/// What this kernel offers; a file that is missing (PSI, for one) is left out.
fn read() -> Vec<Reading> {
    let mut out = Vec::with_capacity(256);
    let mut file = |path: &str, parse: fn(&str, &mut Vec<Reading>)| {
        if let Ok(text) = fs::read_to_string(path) {
            parse(&text, &mut out);
        }
    };
    file("/proc/stat", parse::stat);
    file("/proc/meminfo", parse::meminfo);
    file("/proc/loadavg", parse::loadavg);
    file("/proc/diskstats", parse::diskstats);
    file("/proc/net/dev", parse::net_dev);
    file("/proc/vmstat", parse::vmstat);
    file("/proc/sys/fs/file-nr", parse::file_nr);
    file("/proc/pressure/cpu", |t, out| parse::pressure("cpu", t, out));
    file("/proc/pressure/io", |t, out| parse::pressure("io", t, out));
    file("/proc/pressure/memory", |t, out| parse::pressure("memory", t, out));
    if let Ok(mounts) = fs::read_to_string("/proc/mounts") {
        for m in parse::mounts(&mounts) {
            let Ok(s) = statvfs(m.mountpoint.as_str()) else { continue };
            let labels = || {
                vec![
                    ("device", m.device.clone()),
                    ("mountpoint", m.mountpoint.clone()),
                    ("fstype", m.fstype.clone()),
                ]
            };
            let unit = s.fragment_size() as f64;
            let mut push = |name: &str, v: f64| out.push((name.to_owned(), labels(), v));
            push("node_filesystem_size_bytes", s.blocks() as f64 * unit);
            push("node_filesystem_free_bytes", s.blocks_free() as f64 * unit);
            push("node_filesystem_avail_bytes", s.blocks_available() as f64 * unit);
            push("node_filesystem_files", s.files() as f64);
            push("node_filesystem_files_free", s.files_free() as f64);
        }
    }
    if let Ok(u) = nix::sys::utsname::uname() {
        let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
        let labels = vec![
            ("machine", text(u.machine())),
            ("nodename", text(u.nodename())),
            ("release", text(u.release())),
            ("sysname", text(u.sysname())),
            ("version", text(u.version())),
        ];
        out.push(("node_uname_info".to_owned(), labels, 1.0));
    }
    out
}

/// A name that ends in `_total` counts.
fn metadata(readings: &[Reading]) -> Vec<Metadata> {
    let mut names: Vec<&str> = readings.iter().map(|r| r.0.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let kind = |n: &str| if n.ends_with("_total") { MetricKind::Counter } else { MetricKind::Gauge };
    names
        .into_iter()
        .map(|n| Metadata {
            family: n.to_owned(),
            kind: kind(n),
            help: parse::help(n).to_owned(),
            unit: String::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_measured() {
        let readings = read();
        let value = |name: &str| readings.iter().find(|r| r.0 == name).map(|r| r.2);
        for name in
            ["node_cpu_seconds_total", "node_memory_MemTotal_bytes", "node_load1", "node_boot_time_seconds"]
        {
            assert!(value(name).is_some_and(|v| v > 0.0), "{name}: {:?}", value(name));
        }
        let root = readings.iter().find(|r| {
            r.0 == "node_filesystem_size_bytes" && r.1.iter().any(|(k, v)| *k == "mountpoint" && v == "/")
        });
        // A test may run where the root is an overlay.
        let overlay =
            fs::read_to_string("/proc/mounts").is_ok_and(|m| m.lines().any(|l| l.starts_with("overlay / ")));
        assert!(overlay || root.is_some_and(|r| r.2 > 0.0));
        let mut keys: Vec<String> = readings.iter().map(|r| format!("{} {:?}", r.0, r.1)).collect();
        keys.sort();
        let n = keys.len();
        keys.dedup();
        assert_eq!(n, keys.len(), "a series is there twice");
    }
}
