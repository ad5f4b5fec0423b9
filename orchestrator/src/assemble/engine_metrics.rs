//! What the engines count about themselves, read when somebody asks for our metrics.

use std::fmt;
use std::sync::{Arc, Weak};

use log_index::LogIndex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

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

const COUNTERS: [(&str, &str, Read); 5] = [
    ("accepted_records", "Records made durable", |s| s.accepted),
    ("duplicate_records", "Records of batches that were stored before", |s| s.duplicates),
    ("tail_dropped_records", "Records that slow tails did not get", |s| s.tail_dropped),
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

/// Shows the indexes' facts among our metrics from now on.
pub(super) fn register(logs: &Arc<LogIndex>, traces: &Arc<LogIndex>) {
    let held = |i: &Arc<LogIndex>| Held(Arc::downgrade(i));
    let indexes = Indexes(vec![("logs", held(logs)), ("traces", held(traces))]);
    telemetry::metrics::register(|r| r.register_collector(Box::new(indexes)));
}
