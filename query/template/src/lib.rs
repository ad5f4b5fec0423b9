//! Go's text/template, as `line_format`, `label_format` and the texts of alerts use it: fields, variables,
//! pipelines, `if`, `with`, `range`, `break`, `continue`, `define`, `template`, `block`, and Go's own functions.
//!
//! Promises: a text that parses calls only functions that are known and names only variables that are declared, as
//! in Go; output, depth and loops are bounded.
//!
//! Does not know: what a language adds. Loki's and Prometheus' functions come from outside ([`Functions`]).
//!
//! The road: [`parse`] → a tree → [`render`], with [`builtin`] and the language's functions for what stands before
//! arguments. [`number`] and [`time`] print as Go prints.

mod builtin;
mod number;
mod parse;
mod render;
pub mod time;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use number::{exponent, general};
pub use value::Value;

/// What is wrong with a template, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Line of the template's text, from one.
    pub line: usize,
    pub message: String,
}

/// A language's own functions.
pub trait Functions {
    fn knows(&self, name: &str) -> bool;

    /// Calls a function; what was piped into it is the last argument.
    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, String>;

    /// A field of [`Value::Root`].
    fn root(&self, name: &str) -> Result<Value, String>;
}

#[derive(Clone, Debug)]
pub struct Template {
    nodes: Vec<Node>,
    /// What `define` and `block` gave names to.
    named: Arc<BTreeMap<String, Vec<Node>>>,
}

#[derive(Clone, Debug)]
struct Node {
    line: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Text(String),
    Show(Pipeline),
    /// `$x := …`
    Declare(String, Pipeline),
    /// `$x = …`
    Assign(String, Pipeline),
    If(Vec<(Condition, Vec<Node>)>, Vec<Node>),
    /// The dot becomes the value in the branch that is taken.
    With(Vec<(Condition, Vec<Node>)>, Vec<Node>),
    Range {
        names: Vec<String>,
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
    Template(String, Option<Pipeline>),
}

/// What `if` and `with` look at; `$x := …` keeps it for the branch and those behind it.
#[derive(Clone, Debug)]
struct Condition {
    name: Option<String>,
    value: Pipeline,
}

/// Commands joined by `|`: what one gives is the last argument of the next.
type Pipeline = Vec<Vec<Operand>>;

#[derive(Clone, Debug)]
enum Operand {
    /// `.a.b`; without names the dot itself.
    Field(Vec<String>),
    /// `$x.a`; `$` is the dot the template began with.
    Variable(String, Vec<String>),
    Constant(Value),
    Function(String),
    Group(Pipeline, Vec<String>),
}

impl Template {
    /// Parses a text that may call Go's functions and those that `functions` knows.
    pub fn parse(text: &str, functions: &dyn Functions) -> Result<Template, Error> {
        parse::parse(text, functions)
    }

    /// Renders with `root` as the dot.
    pub fn render(&self, root: Value, functions: &dyn Functions) -> Result<String, Error> {
        render::render(self, root, functions)
    }
}

#[cfg(test)]
mod tests;
