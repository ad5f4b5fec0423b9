//! A segmented, checksummed log: what is appended here survives a crash.
//!
//! Promises: [`Wal::append`] resolves once the bytes are in a synced file (or, under
//! [`SyncPolicy::Every`], in a file that is synced at most that much later). Many waiting appends share
//! one write and one fsync. [`Wal::open`] gives back every acknowledged frame in order, cuts a torn tail,
//! sets damaged bytes aside in `*.bad` files and says so; it never panics on what it finds.
//! A failed fsync poisons the log for good: the kernel may have dropped the pages, so nothing later can be
//! trusted. A failed *write* (a full disk) is undone and may be tried again.
//!
//! Does not know: what the bytes mean. The users are `tsdb`, `log-index` and the collector's queue.
//!
//! The road of a frame: [`frame`] (length, checksum) → [`writer`] (queue, group commit) → [`segment`]
//! (files) → [`recovery`] (reading back). One thread per log owns the files; it sleeps while nothing is
//! queued. Lock order: the queue's mutex is the only lock.
//!
//! The format stands in FORMAT.md. [`bytes`] is what the formats on top of it share.

pub mod bytes;
mod config;
mod error;
mod frame;
mod recovery;
mod segment;
mod writer;

pub use config::{Config, SyncPolicy};
pub use error::Error;
pub use recovery::{Damage, Recovery};
pub use writer::{Pending, Stats, Wal};
