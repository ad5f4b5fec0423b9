//! What can go wrong.

use std::io;
use std::path::PathBuf;

use signal::SinkError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Wal(#[from] wal::Error),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is damaged ({what}); move it away to go on without it")]
    Damaged { path: PathBuf, what: String },
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }

    pub fn retryable(&self) -> bool {
        matches!(self, Error::Wal(e) if e.retryable())
    }
}

/// What a writer is told when the log refuses.
pub(crate) fn sink_error(e: wal::Error) -> SinkError {
    match e {
        wal::Error::Full { .. } => SinkError::Overloaded {
            what: "write-ahead log of the log index".into(),
            retry_after: std::time::Duration::from_secs(1),
        },
        wal::Error::FrameTooLong { .. } => SinkError::Invalid(e.to_string()),
        wal::Error::Closed => SinkError::Closed,
        e => SinkError::Storage(e.to_string()),
    }
}
