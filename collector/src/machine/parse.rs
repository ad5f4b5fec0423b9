//! The kernel's text files as readings. Fields as proc(5) names them; a line that does not fit is left out.

use super::Reading;

/// USER_HZ is 100 on every Linux we run on.
const TICKS: f64 = 100.0;
const SECTOR: f64 = 512.0;

fn push(out: &mut Vec<Reading>, name: &str, labels: Vec<(&'static str, String)>, value: f64) {
    out.push((name.to_owned(), labels, value));
}

fn numbers<'a>(fields: impl Iterator<Item = &'a str>) -> Vec<f64> {
    fields.map_while(|f| f.parse().ok()).collect()
}

/// `/proc/stat`.
pub(super) fn stat(text: &str, out: &mut Vec<Reading>) {
    const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let Some(key) = fields.next() else { continue };
        let n = numbers(fields);
        let Some(&first) = n.first() else { continue };
        match key {
            "ctxt" => push(out, "node_context_switches_total", vec![], first),
            "btime" => push(out, "node_boot_time_seconds", vec![], first),
            "processes" => push(out, "node_forks_total", vec![], first),
            "procs_running" => push(out, "node_procs_running", vec![], first),
            "procs_blocked" => push(out, "node_procs_blocked", vec![], first),
            _ => {
                let Some(cpu) = key.strip_prefix("cpu").filter(|c| !c.is_empty()) else { continue };
                for (mode, ticks) in MODES.iter().zip(&n) {
                    let labels = vec![("cpu", cpu.to_owned()), ("mode", (*mode).to_owned())];
                    push(out, "node_cpu_seconds_total", labels, ticks / TICKS);
                }
            }
        }
    }
}

/// `/proc/meminfo`: `node_memory_<field>_bytes`, parentheses as underscores.
pub(super) fn meminfo(text: &str, out: &mut Vec<Reading>) {
    for line in text.lines() {
        let Some((key, rest)) = line.split_once(':') else { continue };
        let mut fields = rest.split_ascii_whitespace();
        let Some(value) = fields.next().and_then(|v| v.parse::<f64>().ok()) else { continue };
        let key = key.replace('(', "_").replace(')', "");
        match fields.next() {
            Some("kB") => push(out, &format!("node_memory_{key}_bytes"), vec![], value * 1024.0),
            _ => push(out, &format!("node_memory_{key}"), vec![], value),
        }
    }
}

/// `/proc/loadavg`.
pub(super) fn loadavg(text: &str, out: &mut Vec<Reading>) {
    for (name, v) in
        ["node_load1", "node_load5", "node_load15"].iter().zip(numbers(text.split_ascii_whitespace()))
    {
        push(out, name, vec![], v);
    }
}

/// `/proc/diskstats`, without partitions' loop and ram devices.
pub(super) fn diskstats(text: &str, out: &mut Vec<Reading>) {
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let Some(device) = fields.next() else { continue };
        if device.starts_with("loop") || device.starts_with("ram") {
            continue;
        }
        let n = numbers(fields);
        if n.len() < 11 {
            continue;
        }
        for (name, value) in [
            ("node_disk_reads_completed_total", n[0]),
            ("node_disk_read_bytes_total", n[2] * SECTOR),
            ("node_disk_read_time_seconds_total", n[3] / 1000.0),
            ("node_disk_writes_completed_total", n[4]),
            ("node_disk_written_bytes_total", n[6] * SECTOR),
            ("node_disk_write_time_seconds_total", n[7] / 1000.0),
            ("node_disk_io_now", n[8]),
            ("node_disk_io_time_seconds_total", n[9] / 1000.0),
            ("node_disk_io_time_weighted_seconds_total", n[10] / 1000.0),
        ] {
            push(out, name, vec![("device", device.to_owned())], value);
        }
    }
}

/// `/proc/net/dev`, without the pods' ends of veth pairs.
pub(super) fn net_dev(text: &str, out: &mut Vec<Reading>) {
    for line in text.lines() {
        let Some((device, rest)) = line.split_once(':') else { continue };
        let device = device.trim();
        let n = numbers(rest.split_ascii_whitespace());
        if n.len() < 12 || device.starts_with("veth") {
            continue;
        }
        for (way, at) in [("receive", 0), ("transmit", 8)] {
            for (what, i) in [("bytes", 0), ("packets", 1), ("errs", 2), ("drop", 3)] {
                let name = format!("node_network_{way}_{what}_total");
                push(out, &name, vec![("device", device.to_owned())], n[at + i]);
            }
        }
    }
}

/// `/proc/vmstat`: the fields node_exporter keeps.
pub(super) fn vmstat(text: &str, out: &mut Vec<Reading>) {
    const KEPT: [&str; 7] = ["oom_kill", "pgfault", "pgmajfault", "pgpgin", "pgpgout", "pswpin", "pswpout"];
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(' ')
            && KEPT.contains(&key)
            && let Ok(v) = value.trim().parse()
        {
            push(out, &format!("node_vmstat_{key}"), vec![], v);
        }
    }
}

/// `/proc/sys/fs/file-nr`.
pub(super) fn file_nr(text: &str, out: &mut Vec<Reading>) {
    if let [allocated, _, maximum] = numbers(text.split_ascii_whitespace())[..] {
        push(out, "node_filefd_allocated", vec![], allocated);
        push(out, "node_filefd_maximum", vec![], maximum);
    }
}

/// `/proc/pressure/<resource>`: microseconds in which some, or all, waited.
pub(super) fn pressure(resource: &str, text: &str, out: &mut Vec<Reading>) {
    for line in text.lines() {
        let Some(micros) = line.rsplit_once("total=").and_then(|(_, t)| t.trim().parse::<f64>().ok()) else {
            continue;
        };
        let what = match line.split(' ').next() {
            Some("some") => "waiting",
            // For CPUs the kernel's "full" says nothing.
            Some("full") if resource != "cpu" => "stalled",
            _ => continue,
        };
        push(out, &format!("node_pressure_{resource}_{what}_seconds_total"), vec![], micros / 1e6);
    }
}

#[derive(Debug, PartialEq)]
pub(super) struct Mount {
    pub(super) device: String,
    pub(super) mountpoint: String,
    pub(super) fstype: String,
}

/// `/proc/mounts`: file systems on devices or memory that a person would count; each mount point once.
pub(super) fn mounts(text: &str) -> Vec<Mount> {
    const COUNTED: [&str; 12] =
        ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "vfat", "nfs", "nfs4", "tmpfs", "bcachefs"];
    let mut out: Vec<Mount> = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(mountpoint), Some(fstype)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let ours = mountpoint.starts_with("/var/lib/kubelet") || mountpoint.contains("/pods/");
        if !COUNTED.contains(&fstype)
            || ours
            || ["/proc", "/sys", "/dev"].iter().any(|p| mountpoint.starts_with(p))
        {
            continue;
        }
        // A later mount hides an earlier one at the same place. Spaces are written as \040.
        let mountpoint = mountpoint.replace("\\040", " ");
        out.retain(|m| m.mountpoint != mountpoint);
        out.push(Mount { device: device.to_owned(), mountpoint, fstype: fstype.to_owned() });
    }
    out
}

/// What a person reads beside a name.
pub(super) fn help(name: &str) -> &'static str {
    match name {
        "node_cpu_seconds_total" => "Seconds the CPUs spent in each mode",
        "node_boot_time_seconds" => "When the machine booted, in seconds since 1970",
        "node_load1" => "1 minute load average",
        "node_load5" => "5 minute load average",
        "node_load15" => "15 minute load average",
        "node_memory_MemAvailable_bytes" => "Memory that can be had without swapping",
        "node_memory_MemTotal_bytes" => "Memory of the machine",
        "node_filesystem_size_bytes" => "Size of the file system",
        "node_filesystem_avail_bytes" => "Room for processes that are not root",
        "node_disk_io_time_seconds_total" => "Seconds the disk was busy",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(parse: fn(&str, &mut Vec<Reading>), text: &str) -> Vec<String> {
        let mut out = Vec::new();
        parse(text, &mut out);
        out.into_iter()
            .map(|(n, l, v)| {
                let l: Vec<String> = l.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("{n}{{{}}} {v}", l.join(","))
            })
            .collect()
    }

    #[test]
    fn kernel_files_become_readings() {
        assert_eq!(
            shown(stat, "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 150 0 50 1000 0 0 0 0 0 0\nintr 5 1\nbtime 17\n")
                [..3],
            [
                "node_cpu_seconds_total{cpu=1,mode=user} 1.5",
                "node_cpu_seconds_total{cpu=1,mode=nice} 0",
                "node_cpu_seconds_total{cpu=1,mode=system} 0.5",
            ]
        );
        assert_eq!(
            shown(meminfo, "MemTotal:  2 kB\nActive(anon): 1 kB\nHugePages_Total:  3\nbroken\n"),
            [
                "node_memory_MemTotal_bytes{} 2048",
                "node_memory_Active_anon_bytes{} 1024",
                "node_memory_HugePages_Total{} 3"
            ]
        );
        assert_eq!(shown(loadavg, "0.5 1 2.25 2/345 678\n").len(), 3);
        let disk = shown(
            diskstats,
            " 8 0 sda 10 0 4 2000 20 0 6 3000 1 500 600\n 7 0 loop0 1 1 1 1 1 1 1 1 1 1 1\n",
        );
        assert_eq!(disk.len(), 9);
        assert_eq!(disk[1], "node_disk_read_bytes_total{device=sda} 2048");
        let net = shown(
            net_dev,
            "Inter-| x\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\nveth1: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n",
        );
        assert_eq!(net.len(), 8);
        assert_eq!(net[4], "node_network_transmit_bytes_total{device=eth0} 5");
        assert_eq!(
            shown(
                |t, o| pressure("io", t, o),
                "some avg10=0.00 avg60=0 avg300=0 total=1500000\nfull avg10=0 total=0\n"
            ),
            ["node_pressure_io_waiting_seconds_total{} 1.5", "node_pressure_io_stalled_seconds_total{} 0"]
        );
        assert_eq!(shown(file_nr, "10 0 99\n"), ["node_filefd_allocated{} 10", "node_filefd_maximum{} 99"]);
    }

    #[test]
    fn containers_mounts_are_left_out() {
        let text = "/dev/a / ext4 rw 0 0\noverlay /x overlay rw 0 0\n/dev/b /my\\040disk xfs rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n/dev/c / ext4 rw 0 0\n";
        let m: Vec<(String, String)> = mounts(text).into_iter().map(|m| (m.device, m.mountpoint)).collect();
        let s = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(m, [s("/dev/b", "/my disk"), s("/dev/c", "/")]);
    }
}
