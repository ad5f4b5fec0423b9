//! Evaluation, each step of which costs something (kubernetes: staging/src/k8s.io/apiserver/pkg/cel/library/cost.go).

use std::sync::Arc;

use crate::functions;
use crate::syntax::{Form, Kind, Loop, Node};
use crate::value::Value;

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// In cel-go's words.
    Error(String),
    /// More than this expression may cost.
    Cost,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Error(e) => f.write_str(e),
            Failure::Cost => f.write_str("operation cancelled: actual cost limit exceeded"),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

pub(crate) fn error<T>(message: impl Into<String>) -> Result<T> {
    Err(Failure::Error(message.into()))
}

pub(crate) fn overload<T>() -> Result<T> {
    error("no such overload")
}

/// What gives variables their values; asked when they are used.
pub trait Variables {
    fn get(&self, name: &str) -> Option<std::result::Result<Value, Failure>>;
}

pub(crate) struct Evaluation<'a> {
    pub(crate) variables: &'a dyn Variables,
    /// What macros bound, innermost last.
    pub(crate) bound: Vec<(&'a str, Value)>,
    pub(crate) cost: u64,
    pub(crate) limit: u64,
}

impl<'a> Evaluation<'a> {
    pub(crate) fn charge(&mut self, cost: u64) -> Result<()> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(Failure::Cost) } else { Ok(()) }
    }

    pub(crate) fn eval(&mut self, node: &'a Node) -> Result<Value> {
        match &node.kind {
            Kind::Const(v) => Ok(v.clone()),
            Kind::Ident(name) => {
                self.charge(1)?;
                self.ident(name)
            }
            Kind::Select { of, field, optional } => {
                let of = self.eval(of)?;
                self.charge(1)?;
                select(&of, field, *optional)
            }
            Kind::Has { of, field } => {
                let of = self.eval(of)?;
                self.charge(1)?;
                match of {
                    Value::Map(_) => Ok(of.field(field).is_some().into()),
                    Value::Optional(o) => Ok(o.is_some_and(|v| v.field(field).is_some()).into()),
                    Value::Null => Ok(false.into()),
                    _ => overload(),
                }
            }
            Kind::Call { name, target, args } => self.call(name, target.as_deref(), args),
            Kind::List(elements) => {
                self.charge(10)?;
                let mut out = Vec::with_capacity(elements.len());
                for (e, optional) in elements {
                    match (self.eval(e)?, optional) {
                        (Value::Optional(o), true) => out.extend(o.map(|v| (*v).clone())),
                        (v, _) => out.push(v),
                    }
                }
                Ok(out.into())
            }
            Kind::Map(entries) => {
                self.charge(30)?;
                let mut out: Vec<(Value, Value)> = Vec::with_capacity(entries.len());
                for (k, v, optional) in entries {
                    let (k, v) = (self.eval(k)?, self.eval(v)?);
                    if out.iter().any(|(x, _)| x.equals(&k)) {
                        return error("Failed with repeated key");
                    }
                    match (v, optional) {
                        (Value::Optional(o), true) => out.extend(o.map(|v| (k, (*v).clone()))),
                        (v, _) => out.push((k, v)),
                    }
                }
                Ok(Value::Map(Arc::new(out)))
            }
            Kind::Struct(_, fields) => {
                self.charge(40)?;
                let mut out = Vec::with_capacity(fields.len());
                for (k, v, optional) in fields {
                    match (self.eval(v)?, optional) {
                        (Value::Optional(o), true) => {
                            out.extend(o.map(|v| (k.as_str().into(), (*v).clone())))
                        }
                        (v, _) => out.push((k.as_str().into(), v)),
                    }
                }
                Ok(Value::Map(Arc::new(out)))
            }
            Kind::Loop(l) => self.comprehension(l),
            Kind::Bind { var, init, body } => {
                let v = self.eval(init)?;
                self.within(vec![(var, v)], body)
            }
            Kind::OptMap { of, var, body, flat } => match self.eval(of)? {
                Value::Optional(None) => Ok(Value::Optional(None)),
                Value::Optional(Some(v)) => {
                    let made = self.within(vec![(var, (*v).clone())], body)?;
                    Ok(if *flat { made } else { Value::Optional(Some(Arc::new(made))) })
                }
                _ => overload(),
            },
        }
    }

    fn within(&mut self, names: Vec<(&'a str, Value)>, body: &'a Node) -> Result<Value> {
        let depth = self.bound.len();
        self.bound.extend(names);
        let v = self.eval(body);
        self.bound.truncate(depth);
        v
    }

    fn ident(&self, name: &str) -> Result<Value> {
        if let Some((_, v)) = self.bound.iter().rev().find(|(n, _)| *n == name) {
            return Ok(v.clone());
        }
        match self.variables.get(name) {
            Some(v) => v,
            None => match name {
                "int" | "uint" | "double" | "string" | "bytes" | "bool" | "list" | "map" | "null_type"
                | "type" => Ok(Value::Type(name.into())),
                _ => error(format!("no such attribute(s): {name}")),
            },
        }
    }

    /// Either side may decide alone, even where the other fails.
    fn logic(&mut self, args: &'a [Node], decides: bool) -> Result<Value> {
        let mut failed = None;
        for a in args {
            match self.eval(a) {
                Ok(Value::Bool(b)) if b == decides => return Ok(decides.into()),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(Failure::Error("no such overload".to_owned()))),
                Err(Failure::Cost) => return Err(Failure::Cost),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        match failed {
            Some(e) => Err(e),
            None => Ok((!decides).into()),
        }
    }

    fn call(&mut self, name: &'a str, target: Option<&'a Node>, args: &'a [Node]) -> Result<Value> {
        match (name, args) {
            ("_&&_", args) => return self.logic(args, false),
            ("_||_", args) => return self.logic(args, true),
            ("_?_:_", [condition, yes, no]) => {
                return match self.eval(condition)? {
                    Value::Bool(true) => self.eval(yes),
                    Value::Bool(false) => self.eval(no),
                    _ => overload(),
                };
            }
            _ => {}
        }
        let lazy = match (name, target, args) {
            ("orValue" | "or", Some(t), [other]) => Some((t, other)),
            _ => None,
        };
        if let Some((t, other)) = lazy {
            self.charge(1)?;
            return match (self.eval(t)?, name) {
                (Value::Optional(Some(v)), "orValue") => Ok((*v).clone()),
                (v @ Value::Optional(Some(_)), _) => Ok(v),
                (Value::Optional(None), _) => self.eval(other),
                _ => overload(),
            };
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        if let Some(t) = target {
            values.push(self.eval(t)?);
        }
        for a in args {
            values.push(self.eval(a)?);
        }
        let cost = functions::cost(name, &values);
        self.charge(cost)?;
        functions::call(name, target.is_some(), &values)
    }

    fn comprehension(&mut self, l: &'a Loop) -> Result<Value> {
        let range = self.eval(&l.range)?;
        let items: Vec<(Value, Value)> = match (&range, &l.second) {
            (Value::List(list), None) => list.iter().map(|v| (v.clone(), Value::Null)).collect(),
            (Value::List(list), Some(_)) => {
                list.iter().enumerate().map(|(i, v)| ((i as i64).into(), v.clone())).collect()
            }
            (Value::Map(m), _) => m.iter().cloned().collect(),
            _ => return overload(),
        };
        let (mut out, mut pairs) = (Vec::new(), Vec::new());
        let mut failed: Option<Failure> = None;
        let mut count = 0;
        for (a, b) in items {
            self.charge(1)?;
            let depth = self.bound.len();
            self.bound.push((&l.var, a.clone()));
            if let Some(second) = &l.second {
                self.bound.push((second, b));
            }
            let chosen = match &l.filter {
                Some(filter) => self.eval(filter),
                None => Ok(true.into()),
            };
            let body = match chosen {
                Ok(Value::Bool(true)) => Some(self.eval(&l.body)),
                Ok(Value::Bool(false)) => None,
                Ok(_) => Some(overload()),
                Err(e) => Some(Err(e)),
            };
            self.bound.truncate(depth);
            let Some(body) = body else { continue };
            let quantified = matches!(l.form, Form::All | Form::Exists);
            match (l.form, body) {
                (_, Err(Failure::Cost)) => return Err(Failure::Cost),
                // Another element may still decide.
                (_, Err(e)) if quantified => failed = failed.or(Some(e)),
                (_, Err(e)) => return Err(e),
                (Form::All, Ok(Value::Bool(false))) => return Ok(false.into()),
                (Form::Exists, Ok(Value::Bool(true))) => return Ok(true.into()),
                (Form::ExistsOne, Ok(Value::Bool(true))) => count += 1,
                (Form::Filter, Ok(Value::Bool(true))) => out.push(a),
                (Form::All | Form::Exists | Form::ExistsOne | Form::Filter, Ok(Value::Bool(_))) => {}
                (Form::Map | Form::TransformList, Ok(v)) => out.push(v),
                (Form::TransformMap, Ok(v)) => pairs.push((a, v)),
                (Form::TransformMapEntry, Ok(Value::Map(m))) => pairs.extend(m.iter().cloned()),
                _ => return overload(),
            }
        }
        if let Some(e) = failed {
            return Err(e);
        }
        Ok(match l.form {
            Form::All => true.into(),
            Form::Exists => false.into(),
            Form::ExistsOne => (count == 1).into(),
            Form::Map | Form::Filter | Form::TransformList => out.into(),
            Form::TransformMap | Form::TransformMapEntry => Value::Map(Arc::new(pairs)),
        })
    }
}

fn select(of: &Value, field: &str, optional: bool) -> Result<Value> {
    let present = |v: Option<&Value>| Value::Optional(v.map(|v| Arc::new(v.clone())));
    match of {
        Value::Map(_) if optional => Ok(present(of.field(field))),
        Value::Map(_) => match of.field(field) {
            Some(v) => Ok(v.clone()),
            None => error(format!("no such key: {field}")),
        },
        Value::Optional(o) => Ok(present(o.as_ref().and_then(|v| v.field(field)))),
        Value::Null if optional => Ok(Value::Optional(None)),
        _ => error(format!("no such key: {field}")),
    }
}
