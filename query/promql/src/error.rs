//! What can go wrong, in Prometheus' words.

/// The query is not PromQL. Prints as Prometheus prints it: `1:5: parse error: …`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: parse error: {message}")]
pub struct ParseError {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl ParseError {
    pub(crate) fn at(text: &str, position: usize, message: impl Into<String>) -> Self {
        let (line, column) = line_column(text, position);
        ParseError { line, column, message: message.into() }
    }
}

pub(crate) fn line_column(text: &str, position: usize) -> (usize, usize) {
    let before = text.get(..position).unwrap_or(text);
    (before.matches('\n').count() + 1, position - before.rfind('\n').map_or(0, |n| n + 1) + 1)
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The query cannot be evaluated over this data.
    #[error("{0}")]
    Execution(String),
    #[error("query timed out in expression evaluation")]
    Timeout,
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// The budget of bytes or points is used up.
    #[error(
        "query would load too much data into memory ({0}); ask for fewer series, less time or larger steps"
    )]
    Limit(String),
    /// All queries together hold too much.
    #[error(
        "queries hold {0} bytes together, the limit is {1}; ask again when others have ended, or for less"
    )]
    Overloaded(usize, usize),
    #[error("storage failed: {0}")]
    Storage(String),
}

impl From<signal::SourceError> for Error {
    fn from(e: signal::SourceError) -> Self {
        match e {
            signal::SourceError::Storage(s) => Error::Storage(s),
            signal::SourceError::Limit(s) => Error::Limit(s),
        }
    }
}
