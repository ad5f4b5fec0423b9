//! What the database is told when it is opened.

use std::path::PathBuf;
use std::time::Duration;

use signal::time::{SharedClock, system_clock};
use wal::SyncPolicy;

use crate::limits::Limits;

#[derive(Clone)]
pub struct Config {
    /// Made if missing. Holds `wal/`, `*.blk` and `metadata.json`.
    pub dir: PathBuf,
    /// Blocks whose newest sample is older are dropped.
    pub retention: Duration,
    /// The oldest blocks are dropped while all of them are larger than this.
    pub retention_bytes: Option<u64>,
    /// When an append is acknowledged, see [`SyncPolicy`].
    pub sync: SyncPolicy,
    /// How much older than the newest sample of its series a sample may be. Of a series that the head does not know,
    /// because it is new or has said nothing for two flushes, any sample within the retention is taken.
    pub out_of_order: Duration,
    /// Samples further ahead of the clock are refused, so that one wrong clock cannot close the window for all.
    pub future: Duration,
    /// The head becomes a block once it is this old …
    pub head_span: Duration,
    /// … or once its samples take this many bytes, and 256 for each live series.
    pub head_bytes: usize,
    /// Live series beyond this are refused.
    pub series_limit: usize,
    /// Of each namespace; none by default.
    pub limits: Limits,
    /// Called when much memory was let go of, to give it back to the system.
    pub release: Option<fn()>,
    pub clock: SharedClock,
}

impl Config {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Config {
            dir: dir.into(),
            retention: Duration::from_secs(15 * 86_400),
            retention_bytes: None,
            sync: SyncPolicy::Batch,
            out_of_order: Duration::from_secs(30 * 60),
            future: Duration::from_secs(3600),
            head_span: Duration::from_secs(30 * 60),
            head_bytes: 24 << 20,
            series_limit: 1_000_000,
            limits: Limits::default(),
            release: None,
            clock: system_clock(),
        }
    }
}
