//! Go's text/template, as far as `line_format`, `label_format` and alert texts use it: `{{ .label }}`, pipelines,
//! `if`, `range`, `with`, variables, and Loki's functions.
//!
//! The road: [`parse`] → a tree → `render`, with [`functions`] for what stands before arguments.

mod functions;
mod parse;
mod value;

use value::Value;

/// Output of one template at most: a loop over a large list must not fill the memory.
const LONGEST: usize = 1 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Template(Vec<Node>);

#[derive(Clone, Debug)]
enum Node {
    Text(String),
    Show(Pipeline),
    /// `$x := …` and `$x = …`.
    Assign(String, Pipeline),
    If(Vec<(Pipeline, Vec<Node>)>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range {
        names: Vec<String>,
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
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

/// What a template is rendered with: the labels by name, and the line and its time by `__line__` and
/// `__timestamp__`.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

struct Renderer<'a> {
    get: Lookup<'a>,
    variables: Vec<(String, Value)>,
    out: String,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Template, String> {
        parse::parse(text).map(Template)
    }

    pub(crate) fn render(&self, get: Lookup<'_>) -> Result<String, String> {
        let mut r = Renderer { get, variables: Vec::new(), out: String::new() };
        r.nodes(&self.0, &Value::Root)?;
        Ok(r.out)
    }
}

impl Renderer<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        let scope = self.variables.len();
        for n in nodes {
            self.node(n, dot)?;
            if self.out.len() > LONGEST {
                return Err(format!("template: the output is longer than {LONGEST} bytes"));
            }
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), String> {
        match node {
            Node::Text(t) => self.out.push_str(t),
            Node::Show(p) => {
                let v = self.pipeline(p, dot)?;
                self.out.push_str(&v.to_string());
            }
            Node::Assign(name, p) => {
                let v = self.pipeline(p, dot)?;
                self.variables.push((name.clone(), v));
            }
            Node::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.pipeline(condition, dot)?.is_true() {
                        return self.nodes(body, dot);
                    }
                }
                self.nodes(otherwise, dot)?;
            }
            Node::With(p, body, otherwise) => {
                let v = self.pipeline(p, dot)?;
                if v.is_true() { self.nodes(body, &v)? } else { self.nodes(otherwise, dot)? }
            }
            Node::Range { names, over, body, otherwise } => {
                let items = self.pipeline(over, dot)?.items()?;
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
                    self.nodes(body, &item)?;
                    self.variables.truncate(scope);
                }
            }
        }
        Ok(())
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
            return match name.as_str() {
                "__line__" | "__timestamp__" if arguments.is_empty() => self.field(&Value::Root, name),
                _ => functions::call(name, &arguments),
            };
        }
        if !rest.is_empty() || piped.is_some() {
            return Err("template: arguments stand behind what is no function".to_owned());
        }
        self.operand(first, dot)
    }

    fn operand(&self, o: &Operand, dot: &Value) -> Result<Value, String> {
        let (value, names) = match o {
            Operand::Field(names) => (dot.clone(), names.as_slice()),
            Operand::Variable(name, names) if name == "$" => (Value::Root, names.as_slice()),
            Operand::Variable(name, names) => {
                let found = self.variables.iter().rev().find(|(n, _)| n == name);
                let value = found.ok_or_else(|| format!("template: undefined variable {name:?}"))?;
                (value.1.clone(), names.as_slice())
            }
            Operand::Constant(v) => return Ok(v.clone()),
            Operand::Function(_) => return self.command(std::slice::from_ref(o), None, dot),
            Operand::Group(p, names) => (self.pipeline(p, dot)?, names.as_slice()),
        };
        names.iter().try_fold(value, |v, n| self.field(&v, n))
    }

    fn field(&self, of: &Value, name: &str) -> Result<Value, String> {
        match of {
            Value::Root if name == "__timestamp__" => {
                let nanos = (self.get)(name).and_then(|t| t.parse().ok()).unwrap_or(0);
                Ok(Value::Time(nanos))
            }
            Value::Root => Ok(Value::Text((self.get)(name).unwrap_or_default())),
            Value::Map(m) => Ok(m.get(name).cloned().unwrap_or(Value::Nil)),
            Value::Nil => Ok(Value::Nil),
            _ => Err(format!("template: can't evaluate field {name} of what is no map")),
        }
    }
}

#[cfg(test)]
mod tests;
