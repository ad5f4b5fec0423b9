//! Measures cgroups every second, under cAdvisor's names. Version 1 and version 2.
//!
//! Files are opened once for each target and read from their start at each tick. All reading is done on one
//! blocking thread per tick; a node with 100 containers costs about 1,000 small reads a second.

mod files;
mod netdev;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use signal::time::SharedClock;
use signal::{
    CgroupTarget, Labels, METRIC_NAME, Metadata, MetricBatch, MetricKind, Registry, Sink, stale_nan,
};
use tokio_util::sync::CancellationToken;

use crate::metrics::{accepted, refused};
use files::Files;
use netdev::NetDev;

const INTERVAL: Duration = Duration::from_secs(1);

struct Measured {
    target: CgroupTarget,
    files: Files,
    net: Option<NetDev>,
    /// Made once: building a label set costs more than reading the number.
    labels: BTreeMap<&'static str, Labels>,
}

impl Measured {
    fn open(target: CgroupTarget) -> Self {
        let net = target.netns.as_deref().and_then(|p| match NetDev::open(p) {
            Ok(n) => Some(n),
            Err(e) => {
                tracing::warn!(netns = %p.display(), error = %e, "network counters cannot be read");
                None
            }
        });
        Measured { files: Files::open(&target.path), net, target, labels: BTreeMap::new() }
    }

    fn read(&mut self, now: i64, batch: &mut MetricBatch) {
        let mut values = Vec::with_capacity(24);
        self.files.read(&mut values);
        if let Some(net) = &mut self.net {
            net.read(&mut values);
        }
        for (name, value) in values {
            let labels = self.labels.entry(name).or_insert_with(|| {
                let mut b = self.target.labels.builder();
                b.set(METRIC_NAME, name);
                if name.starts_with("container_network_") {
                    b.set("interface", "eth0");
                }
                b.build()
            });
            batch.push(labels.clone(), now, value);
        }
    }

    fn end(&self, now: i64, batch: &mut MetricBatch) {
        self.labels.values().for_each(|l| batch.push(l.clone(), now, stale_nan()));
    }
}

/// Measures whatever the registry holds until `stop`.
pub async fn run(
    targets: Arc<Registry<CgroupTarget>>,
    sink: Arc<dyn Sink>,
    clock: SharedClock,
    stop: CancellationToken,
) {
    let mut changes = targets.changes();
    changes.mark_changed();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut measured: BTreeMap<String, Measured> = BTreeMap::new();
    let mut first = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let wanted = match changes.has_changed() {
            Ok(true) => {
                changes.borrow_and_update();
                Some(targets.snapshot())
            }
            _ => None,
        };
        let now = clock.now().millis();
        let work = tokio::task::spawn_blocking(move || {
            let mut batch = MetricBatch::default();
            if let Some(wanted) = wanted {
                update(&mut measured, wanted, now, &mut batch);
            }
            measured.values_mut().for_each(|m| m.read(now, &mut batch));
            (measured, batch)
        });
        let mut batch = match work.await {
            Ok((m, batch)) => {
                measured = m;
                batch
            }
            Err(e) => {
                tracing::error!(error = %e, "reading cgroups failed, starting anew");
                measured = BTreeMap::new();
                changes.mark_changed();
                continue;
            }
        };
        if batch.series.is_empty() {
            continue;
        }
        if std::mem::take(&mut first) {
            batch.metadata = metadata();
        }
        let n = batch.samples();
        match sink.write_metrics(batch).await {
            Ok(_) => accepted("cgroup", "metrics", n),
            Err(e) => {
                refused("cgroup", "sink");
                tracing::warn!(error = %e, "cgroup samples were not stored");
            }
        }
    }
}

fn update(
    measured: &mut BTreeMap<String, Measured>,
    wanted: Vec<(String, CgroupTarget)>,
    now: i64,
    batch: &mut MetricBatch,
) {
    let wanted: BTreeMap<String, CgroupTarget> = wanted.into_iter().collect();
    measured.retain(|key, m| {
        let keep = wanted.get(key) == Some(&m.target);
        if !keep {
            m.end(now, batch);
        }
        keep
    });
    for (key, target) in wanted {
        measured.entry(key).or_insert_with(|| Measured::open(target));
    }
}

fn metadata() -> Vec<Metadata> {
    let m = |family: &str, kind, help: &str| Metadata {
        family: family.to_owned(),
        kind,
        help: help.to_owned(),
        unit: String::new(),
    };
    vec![
        m("container_cpu_usage_seconds_total", MetricKind::Counter, "CPU time used, in seconds"),
        m(
            "container_cpu_cfs_throttled_seconds_total",
            MetricKind::Counter,
            "Time the container was throttled",
        ),
        m("container_memory_usage_bytes", MetricKind::Gauge, "Memory used, with page cache"),
        m("container_memory_working_set_bytes", MetricKind::Gauge, "Memory that cannot be reclaimed easily"),
        m("container_memory_rss", MetricKind::Gauge, "Anonymous memory"),
        m("container_network_receive_bytes_total", MetricKind::Counter, "Bytes received by the pod"),
        m("container_network_transmit_bytes_total", MetricKind::Counter, "Bytes sent by the pod"),
    ]
}
