//! What can go wrong, in the store's words.

/// Why an operation did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the key exists already, at revision {mod_revision}")]
    Exists { mod_revision: u64 },
    #[error("the key does not exist")]
    NotFound,
    #[error("the key stands at revision {actual}, not {expected}")]
    Conflict { expected: u64, actual: u64 },
    #[error("revision {requested} has been compacted, history begins after {compacted}")]
    Compacted { requested: u64, compacted: u64 },
    #[error("revision {requested} is in the future, the store is at {current}")]
    Future { requested: u64, current: u64 },
    /// The write may or may not have happened.
    #[error("the store cannot write now: {0}")]
    Unavailable(String),
    #[error("the store is damaged: {0}; restore the data directory from a backup")]
    Corrupt(String),
    #[error("the store was written by a newer version (format {found}, this one reads {known})")]
    Format { found: u64, known: u64 },
    #[error(
        "{name} is encrypted with key {id}, which is not among the given ones: add it to the file of keys (--encryption-key-file)"
    )]
    Key { name: String, id: String },
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(self, Error::Unavailable(_))
    }
}

macro_rules! from_redb {
    ($($t:ty),+) => {$(
        impl From<$t> for Error {
            fn from(e: $t) -> Self {
                match redb::Error::from(e) {
                    redb::Error::Corrupted(m) => Error::Corrupt(m),
                    e => Error::Unavailable(e.to_string()),
                }
            }
        }
    )+};
}

from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);
