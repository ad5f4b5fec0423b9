//! Other systems' metric formats, in and out: Prometheus' chunks and blocks, the messages of remote read and remote
//! write, Parquet.
//!
//! Promises: what is read is checked (lengths, checksums) before it is believed, and never panics; what is written is
//! what the format's own readers read. Nothing here is how Binnacle itself stores samples.
//!
//! Does not know: the TSDB, HTTP. Series come and go as [`signal::SeriesColumns`] and [`signal::MetricBatch`].
//!
//! The road in: [`block`] (a Prometheus block directory) → [`chunk`] → [`signal::SeriesColumns`]. The road out:
//! [`chunk`] → [`remote`] (streamed remote read), or [`table`] (Parquet).

mod bits;
pub mod block;
pub mod chunk;
mod crc;
mod histogram;
pub mod remote;
pub mod table;
mod varbit;
mod xor;

/// Why something cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    Io { path: std::path::PathBuf, source: std::io::Error },
    /// It is not what it claims to be, or was changed.
    #[error("{what} is damaged: {why}")]
    Damaged { what: String, why: &'static str },
    /// It is sound, and of a kind that is not read here.
    #[error("{0}")]
    Unsupported(String),
    #[error("parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

impl Error {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_owned(), source }
    }
}
