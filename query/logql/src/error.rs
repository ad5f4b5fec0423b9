//! What can go wrong.

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Loki's wording: `parse error at line 1, col 5: …`.
    #[error("parse error at line {line}, col {column}: {message}")]
    Parse { line: usize, column: usize, message: String },
    /// Loki's wording, too.
    #[error(
        "pipeline error: '{error}' for series: '{series}'.\nUse a label filter to intentionally skip this error. (e.g | __error__!=\"{error}\").\nTo skip all potential errors you can match empty errors.(e.g __error__=\"\")\nThe label filter can also be specified after unwrap. (e.g | unwrap latency | __error__=\"\" )"
    )]
    Pipeline { error: String, series: String },
    #[error(transparent)]
    Metric(#[from] promql::Error),
    #[error(transparent)]
    Index(#[from] log_index::Error),
    #[error("{0}")]
    Limit(String),
    #[error("query timed out; ask for less time or fewer streams")]
    Timeout,
    #[error("the query was canceled")]
    Canceled,
}

impl Error {
    pub(crate) fn at(text: &str, position: usize, message: impl Into<String>) -> Self {
        let before = text.get(..position).unwrap_or(text);
        Error::Parse {
            line: before.matches('\n').count() + 1,
            column: position - before.rfind('\n').map_or(0, |n| n + 1) + 1,
            message: message.into(),
        }
    }
}
