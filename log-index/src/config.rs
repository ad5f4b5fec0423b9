//! What an index is told when it is opened.

use std::path::PathBuf;
use std::time::Duration;

use signal::time::{SharedClock, system_clock};

/// What an index holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Logs,
    Spans,
}

#[derive(Clone)]
pub struct Config {
    /// Made if missing. Holds `wal/` and `*.part`.
    pub dir: PathBuf,
    pub kind: Kind,
    /// Partitions whose newest record is older are dropped.
    pub retention: Duration,
    /// The oldest partitions are dropped while all of them are larger than this.
    pub retention_bytes: Option<u64>,
    /// How much older than the newest of its stream a log record may be that comes without a checkpoint; older ones are
    /// refused. A clock that ran ahead does not count: what is newer than now is taken for now.
    pub late: Duration,
    /// The head becomes a partition once its records take this many bytes …
    pub head_bytes: usize,
    /// … or once it is this old.
    pub head_age: Duration,
    /// While a head is flushed and the next one is four times as large, an append waits so long before it is refused.
    pub patience: Duration,
    /// So many partitions of about one size are merged into one …
    pub merge_fan: usize,
    /// … if it holds at most this many bytes of records before compression …
    pub merged_bytes: u64,
    /// … and at most this much time, so that retention can drop it.
    pub merged_span: Duration,
    /// Batches that wait for one slow tail; what does not fit is counted as dropped.
    pub tail_batches: usize,
    pub clock: SharedClock,
}

impl Config {
    pub fn new(dir: impl Into<PathBuf>, kind: Kind) -> Self {
        Config {
            dir: dir.into(),
            kind,
            retention: Duration::from_secs(7 * 86_400),
            retention_bytes: None,
            late: Duration::from_secs(3600),
            head_bytes: 16 << 20,
            head_age: Duration::from_secs(3600),
            patience: Duration::from_secs(5),
            merge_fan: 8,
            merged_bytes: match kind {
                Kind::Logs => 1 << 30,
                // What is known of each trace is in memory while they are merged.
                Kind::Spans => 256 << 20,
            },
            merged_span: Duration::from_secs(86_400),
            tail_batches: 256,
            clock: system_clock(),
        }
    }
}
