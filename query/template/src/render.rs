//! A tree and values into text.

use std::borrow::Cow;

use crate::{Condition, Error, Functions, Node, Operand, Pipeline, Template, Value, What, builtin};

/// Output of one template at most: a loop over a large list must not fill the memory.
const LONGEST: usize = 1 << 20;
/// Templates that call templates.
const DEPTH: usize = 100;

pub(crate) fn render(t: &Template, root: Value, functions: &dyn Functions) -> Result<String, Error> {
    let mut r = Renderer { template: t, functions, variables: Vec::new(), out: String::new(), depth: 0 };
    r.variables.push(("$".to_owned(), root.clone()));
    r.nodes(&t.nodes, &root)?;
    Ok(r.out)
}

struct Renderer<'a> {
    template: &'a Template,
    functions: &'a dyn Functions,
    variables: Vec<(String, Value)>,
    out: String,
    depth: usize,
}

/// How a run of nodes ended.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    Through,
    Break,
    Continue,
}

impl Renderer<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, Error> {
        let scope = self.variables.len();
        let mut flow = Flow::Through;
        for n in nodes {
            flow = self.node(n, dot)?;
            if self.out.len() > LONGEST {
                let message = format!("the output is longer than {LONGEST} bytes");
                return Err(Error { line: n.line, message });
            }
            if flow != Flow::Through {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, Error> {
        let at = |message| Error { line: node.line, message };
        match &node.what {
            What::Text(t) => self.out.push_str(t),
            What::Show(p) => {
                let v = self.pipeline(p, dot).map_err(at)?;
                self.out.push_str(&v.to_string());
            }
            What::Declare(name, p) => {
                let v = self.pipeline(p, dot).map_err(at)?;
                self.variables.push((name.clone(), v));
            }
            What::Assign(name, p) => {
                let v = self.pipeline(p, dot).map_err(at)?;
                if let Some(slot) = self.variables.iter_mut().rev().find(|(n, _)| n == name) {
                    slot.1 = v;
                }
            }
            What::If(branches, otherwise) => return self.branch(node.line, branches, otherwise, dot, false),
            What::With(branches, otherwise) => return self.branch(node.line, branches, otherwise, dot, true),
            What::Range { names, over, body, otherwise } => {
                let items = self.pipeline(over, dot).and_then(Value::items).map_err(at)?;
                if items.is_empty() {
                    return self.nodes(otherwise, dot);
                }
                for (key, item) in items {
                    let scope = self.variables.len();
                    match names.as_slice() {
                        [value] => self.variables.push((value.clone(), item.clone())),
                        [k, value, ..] => {
                            self.variables.push((k.clone(), key));
                            self.variables.push((value.clone(), item.clone()));
                        }
                        [] => {}
                    }
                    let flow = self.nodes(body, &item)?;
                    self.variables.truncate(scope);
                    if flow == Flow::Break {
                        break;
                    }
                }
            }
            What::Break => return Ok(Flow::Break),
            What::Continue => return Ok(Flow::Continue),
            What::Template(name, p) => {
                let dot = match p {
                    Some(p) => self.pipeline(p, dot).map_err(at)?,
                    None => Value::Nil,
                };
                let template = self.template;
                let body =
                    template.named.get(name).ok_or_else(|| at(format!("template {name:?} not defined")))?;
                if self.depth >= DEPTH {
                    return Err(at(format!("exceeded maximum template depth ({DEPTH})")));
                }
                self.depth += 1;
                // A template sees none of its caller's variables.
                let outer = std::mem::replace(&mut self.variables, vec![("$".to_owned(), dot.clone())]);
                let done = self.nodes(body, &dot);
                self.variables = outer;
                self.depth -= 1;
                done?;
            }
        }
        Ok(Flow::Through)
    }

    fn branch(
        &mut self,
        line: usize,
        branches: &[(Condition, Vec<Node>)],
        otherwise: &[Node],
        dot: &Value,
        with: bool,
    ) -> Result<Flow, Error> {
        let scope = self.variables.len();
        for (condition, body) in branches {
            let v = self.pipeline(&condition.value, dot).map_err(|message| Error { line, message })?;
            let holds = v.is_true();
            if let Some(name) = &condition.name {
                self.variables.push((name.clone(), v.clone()));
            }
            if holds {
                let flow = self.nodes(body, if with { &v } else { dot })?;
                self.variables.truncate(scope);
                return Ok(flow);
            }
        }
        let flow = self.nodes(otherwise, dot)?;
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn pipeline(&self, p: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut piped = None;
        for command in p {
            piped = Some(self.command(command, piped, dot)?);
        }
        Ok(piped.unwrap_or(Value::Nil))
    }

    fn command(&self, command: &[Operand], piped: Option<Value>, dot: &Value) -> Result<Value, String> {
        let Some((first, rest)) = command.split_first() else { return Ok(Value::Nil) };
        if let Operand::Function(name) = first {
            // These two look at no more arguments than they need.
            if matches!(name.as_str(), "and" | "or") {
                let mut last = Value::Nil;
                for o in rest {
                    last = self.operand(o, dot)?;
                    if last.is_true() == (name == "or") {
                        return Ok(last);
                    }
                }
                return Ok(piped.unwrap_or(last));
            }
            let mut arguments = Vec::with_capacity(rest.len() + 1);
            for o in rest {
                arguments.push(self.operand(o, dot)?);
            }
            arguments.extend(piped);
            return if self.functions.knows(name) {
                self.functions.call(name, &arguments)
            } else {
                builtin::call(name, &arguments)
            };
        }
        // A time has methods: `$t.Format "15:04"`.
        let (value, names): (Cow<'_, Value>, &[String]) = match first {
            Operand::Field(names) => (Cow::Borrowed(dot), names),
            Operand::Variable(name, names) => (Cow::Borrowed(self.variable(name)?), names),
            Operand::Group(p, names) => (Cow::Owned(self.pipeline(p, dot)?), names),
            _ => (Cow::Borrowed(dot), &[]),
        };
        if let Some((method, path)) = names.split_last()
            && (!rest.is_empty() || piped.is_some())
        {
            let owner = self.path(&value, path)?;
            if matches!(owner, Value::Time(_) | Value::Duration(_)) {
                let mut arguments = Vec::new();
                for o in rest {
                    arguments.push(self.operand(o, dot)?);
                }
                arguments.extend(piped);
                return builtin::method(&owner, method, &arguments);
            }
        }
        if !rest.is_empty() || piped.is_some() {
            return Err("can't give argument to non-function".to_owned());
        }
        self.operand(first, dot)
    }

    fn variable(&self, name: &str) -> Result<&Value, String> {
        let found = self.variables.iter().rev().find(|(n, _)| n == name);
        found.map(|(_, v)| v).ok_or_else(|| format!("undefined variable {name:?}"))
    }

    fn path(&self, value: &Value, names: &[String]) -> Result<Value, String> {
        names.iter().try_fold(value.clone(), |v, n| self.field(&v, n))
    }

    fn operand(&self, o: &Operand, dot: &Value) -> Result<Value, String> {
        match o {
            Operand::Field(names) => self.path(dot, names),
            Operand::Variable(name, names) => self.path(self.variable(name)?, names),
            Operand::Constant(v) => Ok(v.clone()),
            Operand::Function(_) => self.command(std::slice::from_ref(o), None, dot),
            Operand::Group(p, names) => self.path(&self.pipeline(p, dot)?, names),
        }
    }

    fn field(&self, of: &Value, name: &str) -> Result<Value, String> {
        match of {
            Value::Root => self.functions.root(name),
            Value::Map(m) => Ok(m.get(name).cloned().unwrap_or(Value::Nil)),
            Value::Texts(m) => Ok(Value::Text(m.get(name).cloned().unwrap_or_default())),
            Value::Record(fields) => {
                let found = fields.iter().find(|(n, _)| *n == name);
                found.map(|(_, v)| v.clone()).ok_or_else(|| format!("can't evaluate field {name}"))
            }
            Value::Time(_) | Value::Duration(_) => builtin::method(of, name, &[]),
            Value::Nil => Ok(Value::Nil),
            v => Err(format!("can't evaluate field {name} in type {}", v.type_name())),
        }
    }
}
