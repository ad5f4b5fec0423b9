//! `process_*` as every Prometheus client has them. None where there is no /proc.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// USER_HZ is 100 on every Linux we run on.
const TICKS: f64 = 100.0;
const PAGE: f64 = 4096.0;

#[derive(Debug)]
pub(super) struct Process;

/// Where the fields of proc_pid_stat(5) stand behind the name, which may hold anything.
const USER: usize = 11;
const SYSTEM: usize = 12;
const THREADS: usize = 17;
const STARTED: usize = 19;
const VIRTUAL: usize = 20;
const RESIDENT: usize = 21;

impl Collector for Process {
    fn encode(&self, mut e: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut put = |name, help, m: &dyn Encodable| m.put(&mut e, name, help);
        if let Some(stat) = Stat::read() {
            let cpu = ConstCounter::new((stat.field(USER) + stat.field(SYSTEM)) / TICKS);
            put("process_cpu_seconds", "User and system CPU time", &cpu)?;
            put("process_threads", "Threads of the process", &ConstGauge::new(stat.field(THREADS)))?;
            let size = ConstGauge::new(stat.field(VIRTUAL));
            put("process_virtual_memory_bytes", "Virtual memory", &size)?;
            let resident = ConstGauge::new(stat.field(RESIDENT) * PAGE);
            put("process_resident_memory_bytes", "Resident memory", &resident)?;
            if let Some(boot) = booted() {
                let started = ConstGauge::new(boot + stat.field(STARTED) / TICKS);
                put("process_start_time_seconds", "When the process started, since the epoch", &started)?;
            }
        }
        if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
            put("process_open_fds", "Open file descriptors", &ConstGauge::new(fds.count() as f64))?;
        }
        if let Some(max) = descriptors() {
            put("process_max_fds", "File descriptors there may be", &ConstGauge::new(max))?;
        }
        Ok(())
    }
}

trait Encodable {
    fn put(&self, e: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> std::fmt::Result;
}

impl<M: EncodeMetric> Encodable for M {
    fn put(&self, e: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> std::fmt::Result {
        let metric = e.encode_descriptor(name, &format!("{help}."), None, self.metric_type())?;
        self.encode(metric)
    }
}

struct Stat(String);

impl Stat {
    fn read() -> Option<Stat> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        Some(Stat(text.rsplit_once(") ")?.1.to_owned()))
    }

    fn field(&self, number: usize) -> f64 {
        self.0.split(' ').nth(number).and_then(|s| s.parse().ok()).unwrap_or(0.0)
    }
}

/// When the machine started, in seconds since the epoch.
fn booted() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()
}

fn descriptors() -> Option<f64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|l| l.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_process_is_seen() {
        let text = super::super::encode();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
        };
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_start_time_seconds") > 1.7e9);
        assert!(text.contains("# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total "));
    }
}
