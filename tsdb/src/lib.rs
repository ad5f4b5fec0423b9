//! The time-series database: samples in, columns out.
//!
//! Promises: [`Tsdb::append`] returns once the samples are in a synced log and queryable. Samples may come
//! out of order by up to [`Config::out_of_order`]; of two with the same time the later written wins. Stale
//! markers keep their bits, and end their series: it leaves memory with the next flush. Recovery yields what was acknowledged. Native histograms and start times are samples'
//! equals; exemplars are kept in memory and in the log, the newest ones only.
//!
//! Does not know: PromQL, HTTP, who scrapes, Kubernetes.
//!
//! Write path: `db/append.rs` → [`record`] (WAL record) → wal → [`head`] → [`flush`] → [`block`] →
//! [`compact`] → [`retention`], [`tombstones`]. Read path: [`select`] over head, frozen head and blocks, through [`index`].
//! Start reading at [`db`].
//!
//! Tasks: one, [`Tsdb::run`], which flushes, compacts and drops. Lock order: `gate` (held shared by an append,
//! exclusively by a flush while it swaps the head), then `order` (numbering and queueing), then `state`.

mod block;
mod codec;
mod compact;
mod config;
mod db;
mod error;
mod exemplars;
mod flush;
mod head;
mod import;
mod index;
mod key;
mod limits;
mod merge;
mod record;
mod retention;
mod select;
mod summary;
mod tombstones;

pub use config::Config;
pub use db::{Columns, Facts, Stats, Tsdb};
pub use error::Error;
pub use key::Key;
pub use limits::Limits;
