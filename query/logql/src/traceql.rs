//! TraceQL: traces by what their spans are and how they stand to each other, and series made of spans
//! (Tempo: docs/sources/tempo/traceql).
//!
//! The road of a query: [`lex`] → [`parse`] with [`check`] (types) → [`plan`] (which traces may answer it) →
//! [`trace`] (a trace as a tree) → [`spanset`] → the answer of the [`engine`], or [`metrics`].

mod ast;
mod check;
mod engine;
mod lex;
mod metrics;
mod parse;
mod plan;
pub mod script;
mod spanset;
mod tag;
mod trace;
mod value;

pub use ast::Query;
pub use engine::{Engine, Found, FoundSet, FoundSpan, Limits, Options};
pub use metrics::{Exemplar, Series};
pub use parse::parse;
pub use tag::{INTRINSIC_TAGS, Tag};
pub use value::{Static, Status};
