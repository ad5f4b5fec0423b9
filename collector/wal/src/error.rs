//! What can go wrong.

use std::io;
use std::path::PathBuf;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Too many bytes wait to be written: try again later.
    #[error("write-ahead log queue is full ({waiting} bytes wait); send again later")]
    Full { waiting: usize },
    #[error("frame of {bytes} bytes is longer than the limit of {limit}; send smaller batches")]
    FrameTooLong { bytes: usize, limit: usize },
    /// The write failed and was undone, such as on a full disk. Trying again may succeed.
    #[error("write-ahead log could not be written, free disk space and try again: {0}")]
    Write(String),
    /// An fsync failed. Only a restart, which reads back what is really there, helps.
    #[error("write-ahead log is poisoned, restart to recover: {0}")]
    Poisoned(String),
    #[error("write-ahead log is closed")]
    Closed,
    #[error("{path}: {message}")]
    Io { path: PathBuf, message: String },
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |e| Error::Io { path, message: e.to_string() }
    }

    /// True if the same append may succeed later without a restart.
    pub fn retryable(&self) -> bool {
        matches!(self, Error::Full { .. } | Error::Write(_))
    }
}
