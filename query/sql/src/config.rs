//! Bounds of a query.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of a statement's text: planning goes down one level for each operator of a chain.
    pub text_bytes: usize,
    /// Bytes that the operators of all running queries may hold together.
    pub memory_bytes: usize,
    /// From the first word of the query to the last row of its answer.
    pub timeout: Duration,
    /// Rows of an answer; the rest is cut off and `truncated` says so.
    pub rows: usize,
    /// Bytes of an answer, the same.
    pub answer_bytes: usize,
    /// Queries at once; others wait.
    pub concurrency: usize,
    /// Tables and table functions read by one query, each time one is named.
    pub scans: usize,
    /// How far back a scan looks that no condition on time bounds.
    pub default_range: Duration,
    /// Parts of a plan that run side by side.
    pub partitions: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            text_bytes: 16 << 10,
            memory_bytes: 256 << 20,
            timeout: Duration::from_secs(60),
            rows: 100_000,
            answer_bytes: 64 << 20,
            concurrency: 4,
            scans: 32,
            default_range: Duration::from_secs(3600),
            partitions: 2,
        }
    }
}
