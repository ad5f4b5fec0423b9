//! Why a query has no answer, in words for the person who wrote it.

use std::time::Duration;

use datafusion::error::DataFusionError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The statement is wrong: it does not parse, names what is not there, or cannot be computed.
    #[error("{0}")]
    Query(String),
    /// The statement would change something.
    #[error(
        "{0} is not allowed: SQL here only reads (SELECT, WITH, EXPLAIN, DESCRIBE, SHOW TABLES, SHOW COLUMNS)"
    )]
    Refused(String),
    #[error(
        "the query needs more memory than the {limit_mib} MiB that queries may use: bound its time, choose fewer \
         columns or groups, or add a LIMIT ({detail})"
    )]
    Memory { limit_mib: usize, detail: String },
    #[error("the query did not end within {0:?}: bound its time or add a LIMIT")]
    Timeout(Duration),
    #[error("the query was stopped: {0}")]
    Canceled(String),
    #[error("reading failed: {0}")]
    Storage(String),
    #[error("the query failed unexpectedly: {0}")]
    Internal(String),
}

impl Error {
    /// The word that stands for this error in our own metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Error::Query(_) => "bad_query",
            Error::Refused(_) => "refused",
            Error::Memory { .. } => "memory",
            Error::Timeout(_) => "timeout",
            Error::Canceled(_) => "canceled",
            Error::Storage(_) => "storage",
            Error::Internal(_) => "internal",
        }
    }

    /// DataFusion's error without its wrappings.
    pub(crate) fn from_datafusion(e: DataFusionError, memory_bytes: usize) -> Error {
        match root(&e) {
            DataFusionError::ResourcesExhausted(m) => {
                Error::Memory { limit_mib: memory_bytes >> 20, detail: first_line(m) }
            }
            DataFusionError::External(source) => match source.downcast_ref::<ScanError>() {
                Some(ScanError::Storage(m)) => Error::Storage(m.clone()),
                Some(e) => Error::Query(e.to_string()),
                None => Error::Internal(source.to_string()),
            },
            DataFusionError::SQL(parser, _) => {
                Error::Query(format!("syntax error: {}", trim(&parser.to_string())))
            }
            DataFusionError::Plan(m)
            | DataFusionError::Execution(m)
            | DataFusionError::Configuration(m)
            | DataFusionError::NotImplemented(m) => Error::Query(trim(m)),
            DataFusionError::SchemaError(s, _) => Error::Query(trim(&s.to_string())),
            DataFusionError::ArrowError(a, _) => Error::Query(trim(&a.to_string())),
            other => Error::Internal(trim(&other.strip_backtrace())),
        }
    }
}

/// What a scan reports through DataFusion.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("{0}")]
    Storage(String),
    #[error("{0}")]
    Query(String),
    /// Of an operator that works within the scan.
    #[error("{0}")]
    Operator(Box<DataFusionError>),
}

impl From<ScanError> for DataFusionError {
    fn from(e: ScanError) -> Self {
        match e {
            ScanError::Operator(e) => *e,
            e => DataFusionError::External(Box::new(e)),
        }
    }
}

fn root(e: &DataFusionError) -> &DataFusionError {
    match e {
        DataFusionError::Context(_, e) | DataFusionError::Diagnostic(_, e) => root(e),
        DataFusionError::Shared(e) => root(e),
        DataFusionError::Collection(all) => all.first().map_or(e, root),
        DataFusionError::External(source) => source.downcast_ref::<DataFusionError>().map_or(e, root),
        // An Arrow kernel that ran inside an operator hands the operator's error on in its own wrapping.
        DataFusionError::ArrowError(a, _) => match a.as_ref() {
            arrow::error::ArrowError::ExternalError(source) => {
                source.downcast_ref::<DataFusionError>().map_or(e, root)
            }
            _ => e,
        },
        e => e,
    }
}

fn first_line(m: &str) -> String {
    m.lines().next().unwrap_or("").trim_end_matches('.').to_owned()
}

/// Messages say "Error during planning: …" and end in backtraces when those are on.
fn trim(m: &str) -> String {
    let m = m.split("\n\nbacktrace:").next().unwrap_or(m);
    let prefixes = ["sql parser error: ", "ParserError(\"", "Schema error: ", "Error during planning: "];
    let m = prefixes.iter().fold(m, |m, p| m.strip_prefix(p).unwrap_or(m));
    m.trim().trim_end_matches("\")").trim_end_matches('.').to_owned()
}
