//! What the engines count about themselves, read when somebody asks for our metrics.

use std::fmt;
use std::sync::{Arc, Weak};

use log_index::LogIndex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tsdb::Tsdb;

/// The indexes by their names; weak, so that the registry, which lives for ever, does not keep them open.
#[derive(Debug)]
struct Indexes(Vec<(&'static str, Held)>);

struct Held(Weak<LogIndex>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogIndex")
    }
}

type Read = fn(&log_index::Stats) -> u64;

const GAUGES: [(&str, &str, Read); 8] = [
    ("head_records", "Records in memory, also in the write-ahead log", |s| s.head_records),
    ("head_bytes", "Memory of the records in memory", |s| s.head_bytes),
    ("streams", "Streams in memory", |s| s.streams),
    ("partitions", "Partitions on disk", |s| s.partitions),
    ("partition_bytes", "Size of the partitions on disk", |s| s.partition_bytes),
    ("partition_records", "Records in partitions", |s| s.partition_records),
    ("partition_raw_bytes", "Bytes of the partitions' records before compression", |s| s.partition_raw_bytes),
    ("wal_disk_bytes", "Size of the write-ahead log on disk", |s| s.wal.disk_bytes),
];

const COUNTERS: [(&str, &str, Read); 6] = [
    ("accepted_records", "Records made durable", |s| s.accepted),
    ("duplicate_records", "Records of batches that were stored before", |s| s.duplicates),
    ("tail_dropped_records", "Records that slow tails did not get", |s| s.tail_dropped),
    (
        "damaged_reads",
        "Readings of blocks and of what finds them that failed because those are damaged",
        |s| s.damaged,
    ),
    ("wal_bytes", "Bytes written to the write-ahead log", |s| s.wal.bytes),
    ("wal_syncs", "Times the write-ahead log was synced", |s| s.wal.syncs),
];

impl Collector for Indexes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats: Vec<_> = self
            .0
            .iter()
            .filter_map(|(name, held)| Some(([("index", *name)], held.0.upgrade()?.stats())))
            .collect();
        for (name, help, read) in GAUGES {
            let name = format!("binnacle_log_index_{name}");
            let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for (labels, s) in &stats {
                let gauge = ConstGauge::new(i64::try_from(read(s)).unwrap_or(i64::MAX));
                gauge.encode(metric.encode_family(labels)?)?;
            }
        }
        for (name, help, read) in COUNTERS {
            let name = format!("binnacle_log_index_{name}");
            let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (labels, s) in &stats {
                ConstCounter::new(read(s)).encode(metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

/// The metrics engine; weak for the same reason.
struct Samples(Weak<Tsdb>);

impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tsdb")
    }
}

type Fact = fn(&tsdb::Facts) -> f64;

const SAMPLES_GAUGES: [(&str, &str, Fact); 13] = [
    ("series", "Series in memory, ended ones included until the next flush", |f| f.series as f64),
    ("dead_series", "Series in memory that have ended", |f| f.dead_series as f64),
    ("head_samples", "Samples in memory, also in the write-ahead log", |f| f.head_samples as f64),
    ("head_bytes", "Bytes of the samples in memory", |f| f.head_bytes as f64),
    ("head_page_bytes", "Memory of the pages that samples in memory stand in", |f| f.head_page_bytes as f64),
    ("blocks", "Blocks on disk", |f| f.blocks as f64),
    ("block_bytes", "Size of the blocks on disk", |f| f.block_bytes as f64),
    ("wal_disk_bytes", "Size of the write-ahead log on disk", |f| f.wal.disk_bytes as f64),
    ("replay_seconds", "Time that reading the log took at the start", |f| f.replay.as_secs_f64()),
    ("replayed_samples", "Samples that the log held at the start", |f| f.replayed_samples as f64),
    ("quarantined_parts", "Damaged blocks and parts of the log set aside at the start", |f| {
        f.quarantined as f64
    }),
    ("lost_samples", "Samples lost with damaged parts of the log at the start", |f| f.samples_lost as f64),
    ("torn_bytes", "Bytes of an unfinished append cut off at the start", |f| f.torn_bytes as f64),
];

const SAMPLES_COUNTERS: [(&str, &str, Fact); 7] = [
    ("series_opened", "Series that came into memory", |f| f.series_opened as f64),
    ("series_dropped", "Series that left memory", |f| f.series_dropped as f64),
    ("samples_appended", "Samples acknowledged", |f| f.samples_appended as f64),
    ("wal_written_bytes", "Bytes written to the write-ahead log", |f| f.wal.bytes as f64),
    ("wal_records", "Records written to the write-ahead log", |f| f.wal.frames as f64),
    ("wal_syncs", "Times the write-ahead log was synced", |f| f.wal.syncs as f64),
    ("wal_sync_seconds", "Time that syncing the write-ahead log took", |f| f.wal.sync_time.as_secs_f64()),
];

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(facts) = self.0.upgrade().map(|db| db.facts()) else { return Ok(()) };
        for (name, help, read) in SAMPLES_GAUGES {
            let name = format!("binnacle_tsdb_{name}");
            let metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            ConstGauge::new(read(&facts)).encode(metric)?;
        }
        for (name, help, read) in SAMPLES_COUNTERS {
            let name = format!("binnacle_tsdb_{name}");
            let metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            ConstCounter::new(read(&facts)).encode(metric)?;
        }
        let help = "Samples refused, by reason";
        let mut metric =
            encoder.encode_descriptor("binnacle_tsdb_samples_refused", help, None, MetricType::Counter)?;
        for (reason, n) in facts.samples_refused {
            ConstCounter::new(n).encode(metric.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}

/// Shows the engines' facts among our metrics from now on.
pub(super) fn register(metrics: &Arc<Tsdb>, indexes: &[(&'static str, &Arc<LogIndex>)]) {
    let held = |i: &Arc<LogIndex>| Held(Arc::downgrade(i));
    let indexes = Indexes(indexes.iter().map(|(name, index)| (*name, held(index))).collect());
    let samples = Samples(Arc::downgrade(metrics));
    telemetry::metrics::register(|r| {
        r.register_collector(Box::new(indexes));
        r.register_collector(Box::new(samples));
    });
}
