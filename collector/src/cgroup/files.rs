//! The files of one cgroup, kept open.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// More than any of these files holds.
const BUFFER: usize = 8 << 10;

/// Open files of one cgroup. A missing controller's are `None` and give no samples.
pub(super) enum Files {
    V1 {
        usage: Option<File>,
        stat: Option<File>,
        throttle: Option<File>,
        quota: Option<File>,
        period: Option<File>,
        shares: Option<File>,
        memory: Option<File>,
        memory_stat: Option<File>,
        memory_limit: Option<File>,
        memory_failures: Option<File>,
        pids: Option<File>,
    },
    V2 {
        cpu: Option<File>,
        quota: Option<File>,
        memory: Option<File>,
        memory_stat: Option<File>,
        memory_limit: Option<File>,
        pids: Option<File>,
    },
}

/// True where the unified hierarchy carries the controllers.
fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").try_exists().unwrap_or(false)
}

impl Files {
    pub(super) fn open(path: &str) -> Files {
        let path = path.trim_start_matches('/');
        let open = |p: PathBuf| File::open(p).ok();
        if is_v2() {
            let f = |name: &str| open(Path::new(ROOT).join(path).join(name));
            return Files::V2 {
                cpu: f("cpu.stat"),
                quota: f("cpu.max"),
                memory: f("memory.current"),
                memory_stat: f("memory.stat"),
                memory_limit: f("memory.max"),
                pids: f("pids.current"),
            };
        }
        let f = |controllers: &[&str], name: &str| {
            controllers.iter().find_map(|c| open(Path::new(ROOT).join(c).join(path).join(name)))
        };
        let cpuacct = ["cpuacct", "cpu,cpuacct", "cpuacct,cpu"];
        let cpu = ["cpu", "cpu,cpuacct", "cpuacct,cpu"];
        Files::V1 {
            usage: f(&cpuacct, "cpuacct.usage"),
            stat: f(&cpuacct, "cpuacct.stat"),
            throttle: f(&cpu, "cpu.stat"),
            quota: f(&cpu, "cpu.cfs_quota_us"),
            period: f(&cpu, "cpu.cfs_period_us"),
            shares: f(&cpu, "cpu.shares"),
            memory: f(&["memory"], "memory.usage_in_bytes"),
            memory_stat: f(&["memory"], "memory.stat"),
            memory_limit: f(&["memory"], "memory.limit_in_bytes"),
            memory_failures: f(&["memory"], "memory.failcnt"),
            pids: f(&["pids"], "pids.current"),
        }
    }

    /// Appends `(metric name, value)`.
    pub(super) fn read(&self, out: &mut Vec<(&'static str, f64)>) {
        let mut push = |name, value: Option<f64>| out.extend(value.map(|v| (name, v)));
        match self {
            Files::V1 {
                usage,
                stat,
                throttle,
                quota,
                period,
                shares,
                memory,
                memory_stat,
                memory_limit,
                memory_failures,
                pids,
            } => {
                push("container_cpu_usage_seconds_total", number(usage).map(|n| n / 1e9));
                let stat = text(stat);
                push("container_cpu_user_seconds_total", key(&stat, "user").map(|n| n / 100.0));
                push("container_cpu_system_seconds_total", key(&stat, "system").map(|n| n / 100.0));
                if let Some(q) = number(quota).filter(|q| *q > 0.0) {
                    let throttle = text(throttle);
                    push("container_cpu_cfs_periods_total", key(&throttle, "nr_periods"));
                    push("container_cpu_cfs_throttled_periods_total", key(&throttle, "nr_throttled"));
                    push(
                        "container_cpu_cfs_throttled_seconds_total",
                        key(&throttle, "throttled_time").map(|n| n / 1e9),
                    );
                    push("container_spec_cpu_quota", Some(q));
                    push("container_spec_cpu_period", number(period));
                }
                push("container_spec_cpu_shares", number(shares));
                let usage = number(memory);
                let stat = text(memory_stat);
                push("container_memory_usage_bytes", usage);
                let inactive = key(&stat, "total_inactive_file").unwrap_or(0.0);
                push("container_memory_working_set_bytes", usage.map(|u| (u - inactive).max(0.0)));
                push("container_memory_rss", key(&stat, "total_rss"));
                push("container_memory_cache", key(&stat, "total_cache"));
                push("container_memory_failcnt", number(memory_failures));
                // Without a limit the kernel shows the largest page-aligned number.
                push(
                    "container_spec_memory_limit_bytes",
                    number(memory_limit).map(|n| if n > 9e18 { 0.0 } else { n }),
                );
                push("container_processes", number(pids));
            }
            Files::V2 { cpu, quota, memory, memory_stat, memory_limit, pids } => {
                let cpu = text(cpu);
                push("container_cpu_usage_seconds_total", key(&cpu, "usage_usec").map(|n| n / 1e6));
                push("container_cpu_user_seconds_total", key(&cpu, "user_usec").map(|n| n / 1e6));
                push("container_cpu_system_seconds_total", key(&cpu, "system_usec").map(|n| n / 1e6));
                let max = text(quota);
                let mut words = max.split_ascii_whitespace().map(str::parse::<f64>);
                if let (Some(Ok(q)), Some(Ok(p))) = (words.next(), words.next()) {
                    push("container_cpu_cfs_periods_total", key(&cpu, "nr_periods"));
                    push("container_cpu_cfs_throttled_periods_total", key(&cpu, "nr_throttled"));
                    push(
                        "container_cpu_cfs_throttled_seconds_total",
                        key(&cpu, "throttled_usec").map(|n| n / 1e6),
                    );
                    push("container_spec_cpu_quota", Some(q));
                    push("container_spec_cpu_period", Some(p));
                }
                let usage = number(memory);
                let stat = text(memory_stat);
                push("container_memory_usage_bytes", usage);
                let inactive = key(&stat, "inactive_file").unwrap_or(0.0);
                push("container_memory_working_set_bytes", usage.map(|u| (u - inactive).max(0.0)));
                push("container_memory_rss", key(&stat, "anon"));
                push("container_memory_cache", key(&stat, "file"));
                push("container_spec_memory_limit_bytes", Some(number(memory_limit).unwrap_or(0.0)));
                push("container_processes", number(pids));
            }
        }
    }
}

/// The file's text from its start; empty if it cannot be read, as when the cgroup has just gone.
fn text(file: &Option<File>) -> String {
    let Some(file) = file else { return String::new() };
    let mut buffer = vec![0; BUFFER];
    let n = file.read_at(&mut buffer, 0).unwrap_or(0);
    buffer.truncate(n);
    String::from_utf8(buffer).unwrap_or_default()
}

fn number(file: &Option<File>) -> Option<f64> {
    let mut buffer = [0; 32];
    let n = file.as_ref()?.read_at(&mut buffer, 0).ok()?;
    std::str::from_utf8(buffer.get(..n)?).ok()?.trim().parse().ok()
}

/// The number after a key, in files of `key number` lines.
fn key(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_keyed_numbers() {
        let text = "total_rss 12\ntotal_rss_huge 3\nuser 5\n";
        assert_eq!(
            (key(text, "total_rss"), key(text, "user"), key(text, "none")),
            (Some(12.0), Some(5.0), None)
        );
    }

    #[test]
    fn measures_the_root_cgroup_of_this_machine() {
        let mut values = Vec::new();
        Files::open("/").read(&mut values);
        let cpu = values.iter().find(|(n, _)| *n == "container_cpu_usage_seconds_total");
        assert!(cpu.is_some_and(|(_, v)| *v > 0.0), "no CPU time in {values:?}");
    }
}
