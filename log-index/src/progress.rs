//! How far a search has come, and what may end it before its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Why a search was ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Whoever asked is gone.
    Stopped,
    TimedOut,
    /// More bytes were read than the search may read.
    Budget,
}

/// Shared by a search and whoever started it.
#[derive(Debug)]
pub struct Progress {
    stop: Arc<AtomicBool>,
    deadline: Option<Instant>,
    /// Bytes of records that may be read.
    budget: u64,
    blocks: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    damaged: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Progress::new(Arc::default(), None, u64::MAX)
    }
}

impl Progress {
    pub fn new(stop: Arc<AtomicBool>, deadline: Option<Instant>, budget: u64) -> Self {
        Progress {
            stop,
            deadline,
            budget,
            blocks: AtomicU64::new(0),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        }
    }

    /// Counts a block that was read: its records, and their bytes before compression.
    pub(crate) fn read(&self, records: u64, bytes: u64) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a block, or a whole partition, that was left out because it is damaged.
    pub(crate) fn damage(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }

    /// Blocks and partitions that cannot be read and are missing from what was found.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// What an answer must say of [`Progress::damaged`].
    pub fn warning(&self) -> Option<String> {
        let n = self.damaged();
        (n > 0).then(|| {
            format!("damaged blocks left out, whose records are missing here: {n} (the server's log names the files)")
        })
    }

    /// Why the search must not go on; asked before each block.
    pub fn ended(&self) -> Option<Ended> {
        if self.stop.load(Ordering::Relaxed) {
            Some(Ended::Stopped)
        } else if self.bytes() > self.budget {
            Some(Ended::Budget)
        } else if self.deadline.is_some_and(|d| signal::time::monotonic() > d) {
            Some(Ended::TimedOut)
        } else {
            None
        }
    }

    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Bytes of records before compression.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
