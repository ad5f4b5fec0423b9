//! The Common Expression Language as Kubernetes speaks it: rules of custom resources, admission policies, match
//! conditions.
//!
//! Promises: an expression is checked against the types it will meet before it is evaluated; evaluation ends within
//! the cost it is given; failures are told in cel-go's words.
//! Does not know: objects, requests, schemas; who asks brings types and values.
//!
//! The road of an expression: [`compile`] reads it (`syntax.rs`, by the grammar of the `cel` crate, which is named here
//! only), gives it types (`check.rs`, by the lines of `signatures.rs`) and an estimate (`estimate.rs`);
//! [`Program::run`] evaluates it (`eval.rs`) with the functions of `functions.rs` and its rooms.

mod check;
mod estimate;
mod eval;
mod functions;
mod signatures;
mod syntax;
mod time;
mod types;
mod value;

pub use eval::{Failure, Variables};
pub use types::{ObjectType, Type, escape};
pub use value::{Object, Value};

use std::collections::{BTreeSet, HashMap};

use syntax::{Kind, Node};

/// The type of a library's own values by its short name, such as `authorizer`.
pub fn library_type(word: &str) -> Option<Type> {
    signatures::opaque(word).map(Type::Opaque)
}

/// An expression, ready.
#[derive(Debug)]
pub struct Program {
    root: Node,
    output: Type,
    /// What it costs at most.
    pub max_cost: u64,
    names: BTreeSet<String>,
}

/// Reads and checks an expression over variables of these types.
///
/// # Errors
/// What is wrong with it and where, as cel-go prints it.
pub fn compile(source: &str, variables: &[(&str, Type)]) -> Result<Program, String> {
    let root = syntax::parse(source)?;
    let mut checker = check::Checker {
        source,
        scope: variables.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect(),
        issues: Vec::new(),
        types: HashMap::new(),
    };
    let output = checker.check(&root);
    if !checker.issues.is_empty() {
        return Err(checker.issues.join("\n"));
    }
    let max_cost = estimate::Estimate { types: &checker.types, bound: Vec::new() }.cost(&root);
    let mut names = BTreeSet::new();
    collect(&root, &mut names);
    Ok(Program { root, output, max_cost, names })
}

impl Program {
    /// The type of its result.
    pub fn output(&self) -> &Type {
        &self.output
    }

    pub fn is_bool(&self) -> bool {
        matches!(self.output, Type::Bool | Type::Dyn)
    }

    pub fn is_string(&self) -> bool {
        matches!(self.output, Type::String(_) | Type::Dyn)
    }

    /// Whether it speaks of a variable.
    pub fn uses(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Evaluates it; the second part is what that cost.
    pub fn run(&self, variables: &dyn Variables, limit: u64) -> (Result<Value, Failure>, u64) {
        let mut evaluation = eval::Evaluation { variables, bound: Vec::new(), cost: 0, limit };
        let result = evaluation.eval(&self.root);
        (result, evaluation.cost)
    }
}

fn collect(node: &Node, out: &mut BTreeSet<String>) {
    match &node.kind {
        Kind::Const(_) => {}
        Kind::Ident(name) => drop(out.insert(name.clone())),
        Kind::Select { of, .. } | Kind::Has { of, .. } => collect(of, out),
        Kind::Call { target, args, .. } => {
            target.iter().for_each(|t| collect(t, out));
            args.iter().for_each(|a| collect(a, out));
        }
        Kind::List(l) => l.iter().for_each(|(e, _)| collect(e, out)),
        Kind::Map(m) => m.iter().for_each(|(k, v, _)| {
            collect(k, out);
            collect(v, out);
        }),
        Kind::Struct(_, f) => f.iter().for_each(|(_, v, _)| collect(v, out)),
        Kind::Loop(l) => {
            collect(&l.range, out);
            l.filter.iter().for_each(|f| collect(f, out));
            collect(&l.body, out);
        }
        Kind::Bind { init, body, .. } => {
            collect(init, out);
            collect(body, out);
        }
        Kind::OptMap { of, body, .. } => {
            collect(of, out);
            collect(body, out);
        }
    }
}

#[cfg(test)]
mod tests;
