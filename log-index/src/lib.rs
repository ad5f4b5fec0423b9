//! Log lines and spans: one engine, two schemas.
//!
//! Promises: an append returns once its records are in a synced log, visible to queries and on their way to
//! tails; a source's checkpoint is committed with the lines it covers, so that none is lost or doubled. Every
//! hit is verified on the record itself: indexes only say where not to look.
//!
//! Does not know: LogQL, TraceQL, HTTP, where records come from.
//!
//! Write path: [`db`] (`append_logs`, `append_spans`) → [`frame`] (WAL record) → wal → [`head`] → [`tail`];
//! later [`flush`] → [`block`] (rows become columns) → [`partition`] with its dictionary ([`terms`]) and traces
//! ([`summary`]) → [`merge`] → retention; [`delete`] rewrites. Read path: [`search`] over partitions and head, watched by a
//! [`progress`]: a plan of blocks, read by several threads, handed out as views of columns; [`traces`] on top of it.
//! Start reading at [`db`].
//!
//! Tasks: [`LogIndex::run`], and one merge at a time beside it. Lock order: `gate` (shared by appends, exclusive while a flush swaps the head),
//! then `state`, then the tails. `rewriting` is held alone, by merges and deletions.

mod block;
mod codec;
mod column;
mod config;
mod db;
mod delete;
mod error;
mod flush;
mod frame;
mod head;
mod merge;
mod partition;
mod progress;
mod search;
mod summary;
mod tail;
mod terms;
mod tokens;
mod traces;

pub use column::ValueRef;
pub use config::{Config, Kind};
pub use db::{LogIndex, Stats};
pub use error::Error;
pub use progress::{Ended, Progress};
pub use search::{AttributeView, BlockView, Direction, Search, Status, StreamInfo, TextData, TextsView};
pub use tail::{Tail, TailBatch};
pub use traces::{SpanSearch, TraceSummary};
