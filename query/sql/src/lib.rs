//! SQL over every signal: metrics, logs, spans and the cluster's objects as tables of one database.
//!
//! Promises: reading only. A statement that would change anything is refused before it is planned. Every table holds
//! what the caller may see and nothing else. A query has bounds on its text, time, memory, scans and answer, and
//! each one that is reached is said in the answer or the error. Nothing is kept in memory before the first query.
//!
//! Does not know: HTTP, who the caller is, how objects are stored (an [`ObjectSource`] lists them as the caller).
//!
//! The road of a query: [`Engine`] (a place, a thread, a way to stop) → [`statement`] (is it allowed?) → DataFusion's
//! planner → [`filter`] (which conditions an engine can use itself) → [`table`] (scans in [`table::metrics`],
//! [`table::logs`], [`table::spans`], [`table::objects`], [`table::history`], [`table::decisions`], [`table::promql`], [`table::logql`]) → [`column`] (rows to Arrow) → DataFusion's
//! operators → [`answer`] (Arrow to JSON) or [`export`] (CSV, Arrow IPC).
//!
//! Tasks: one named `sql` for each query on threads of our own, made at the first query, so that no query takes a
//! thread from the control plane; each scan is a blocking thread that ends with its query.

mod answer;
mod column;
mod config;
mod engine;
mod error;
mod export;
mod filter;
mod function;
mod metrics;
mod plan;
mod reduce;
mod statement;
mod table;

pub use answer::{Answer, Column};
pub use config::Config;
pub use engine::{Caller, Engine, Sources};
pub use error::Error;
pub use export::Format;
pub use table::objects::{HistoryRow, ObjectRow, ObjectSelect, ObjectSource};

#[cfg(test)]
mod tests;
