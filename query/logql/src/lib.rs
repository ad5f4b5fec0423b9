//! LogQL and TraceQL: parsing and evaluating over the log index.
//!
//! Promises: stream selectors, line filters (text, regular expressions, shapes, addresses), the parsers `json`,
//! `logfmt`, `pattern`, `regexp` and `unpack`, label filters, `line_format` and `label_format` with Go's templates,
//! `decolorize`, `drop`, `keep`, `unwrap`; log queries and metric queries. A filter that the index can use is
//! handed to it, and every line is verified. The API blocks: call it off the async threads.
//!
//! Does not know: HTTP, and how sums, joins and `topk` work: what stands around the range aggregations of a
//! metric query is PromQL, word for word, and is evaluated by [`promql`].
//!
//! [`traceql`] is the language for traces; [`script`] runs test scripts for logs.
//!
//! Beside queries: [`words`], the search box's language; [`drain`], the patterns of lines, mined as they arrive by
//! [`patterns`]; and [`detect`], the fields a line has.
//!
//! The road of a query: [`lex`] → [`parse`] → [`pipeline`] (with [`fields`], [`shape`], [`ip`] and [`template`]) → [`eval`],
//! which reads the index through [`source`] alone.

mod ast;
pub mod drain;
mod error;
mod eval;
mod fields;
mod format;
mod ip;
mod lex;
mod parse;
pub mod patterns;
mod pipeline;
pub mod script;
mod shape;
mod source;
mod template;
pub mod traceql;
pub mod words;

pub use error::Error;
pub use eval::{Engine, Entry, Limits, LogResult, LogStreamResult, Options, Statistics};
pub use fields::detect;
pub use format::format;
pub use parse::{Query, parse, parse_log_query};
pub use pipeline::{Pipeline, Processed};
