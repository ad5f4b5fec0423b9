//! What a log is told when it is opened.

use std::path::PathBuf;
use std::time::Duration;

/// When an append is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// After the fsync that covers it. All appends waiting at that moment share it.
    #[default]
    Batch,
    /// After the write: it survives a crash of the process at once, and a power cut after at most this long.
    Every(Duration),
}

#[derive(Clone, Debug)]
pub struct Config {
    /// Made if missing.
    pub dir: PathBuf,
    /// A segment is closed once it is at least this long.
    pub segment_bytes: u64,
    pub sync: SyncPolicy,
    /// Bytes that may wait to be written; beyond that an append is refused with [`crate::Error::Full`].
    pub queue_bytes: usize,
    /// The longest frame taken, and the longest believed when reading back.
    pub frame_bytes: usize,
}

impl Config {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Config {
            dir: dir.into(),
            segment_bytes: 32 << 20,
            sync: SyncPolicy::Batch,
            queue_bytes: 64 << 20,
            frame_bytes: 64 << 20,
        }
    }
}
