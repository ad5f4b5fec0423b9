//! PromQL: parsing, printing and evaluating.
//!
//! Promises: the language as Prometheus 3 has it, experimental parts included, its error texts with
//! `line:column`, its warnings and infos. Every query has a deadline, a budget of bytes and can be cancelled.
//! The API blocks: call it off the async threads.
//!
//! Does not know: where series come from ([`signal::SeriesSource`]), HTTP, the wall clock except for the deadline.
//!
//! The road of a query: [`lex`] → [`parse`] → [`ast`] → [`check`] (types) → [`eval`], which hands each selector to
//! the source once for all steps and works series by series on columns of values, one per step; an absent
//! value is the stale marker's bits. [`functions`], [`aggregate`] and [`binary`] are the operators.
//! [`print`] turns an expression back into text; [`promqltest`] runs Prometheus' test scripts.

mod aggregate;
mod annotations;
mod ast;
mod binary;
mod check;
mod engine;
mod error;
mod eval;
mod functions;
mod lex;
pub mod memory;
mod meter;
mod pace;
mod parse;
mod print;
pub mod promqltest;
mod value;
mod window;

pub use ast::{
    Aggregation, At, BinaryOp, Cardinality, Expr, Kind, Length, Matching, OPERATORS, Selector, ValueType,
};
pub use engine::{Engine, Limits, Options};
pub use error::{Error, ParseError};
pub use functions::FUNCTIONS;
pub use lex::{parse_duration, print_duration};
pub use parse::parse;
pub use parse::parse_selector;
pub use print::pretty;
pub use value::{HistogramPoint, Point, QueryResult, Sample, Series, Value, format_value};
