//! Types of expressions before they are evaluated, with cel-go's words for what does not fit.

use std::collections::HashMap;

use crate::signatures::{FUNCTIONS, Pattern, Signature};
use crate::syntax::{Form, Kind, Loop, Node, issue};
use crate::types::Type;
use crate::value::Value;

pub(crate) struct Checker<'a> {
    pub(crate) source: &'a str,
    /// Innermost last.
    pub(crate) scope: Vec<(String, Type)>,
    pub(crate) issues: Vec<String>,
    /// What estimates need to know again.
    pub(crate) types: HashMap<*const Node, Type>,
}

impl Checker<'_> {
    fn wrong(&mut self, node: &Node, message: &str) -> Type {
        self.issues.push(issue(self.source, node.offset, message));
        Type::Dyn
    }

    pub(crate) fn check(&mut self, node: &Node) -> Type {
        let ty = self.infer(node);
        self.types.insert(std::ptr::from_ref(node), ty.clone());
        ty
    }

    fn infer(&mut self, node: &Node) -> Type {
        match &node.kind {
            Kind::Const(v) => constant(v),
            Kind::Ident(name) => self.ident(node, name),
            Kind::Select { of, field, optional } => {
                let ty = self.select(node, of, field);
                if *optional && !matches!(ty, Type::Optional(_)) { Type::Optional(Box::new(ty)) } else { ty }
            }
            Kind::Has { of, field } => {
                self.select(node, of, field);
                Type::Bool
            }
            Kind::Call { name, target, args } => {
                let target = target.as_ref().map(|t| self.check(t));
                let args: Vec<Type> = args.iter().map(|a| self.check(a)).collect();
                self.call(node, name, target, args)
            }
            Kind::List(elements) => {
                let mut ty = None;
                for (e, optional) in elements {
                    let mut t = self.check(e);
                    if let (true, Type::Optional(inner)) = (*optional, &t) {
                        t = (**inner).clone();
                    }
                    ty = Some(match ty {
                        None => t,
                        Some(before) => Type::join(before, t),
                    });
                }
                Type::List(Box::new(ty.unwrap_or(Type::Dyn)), Some(elements.len() as u64))
            }
            Kind::Map(entries) => {
                let mut ty: Option<(Type, Type)> = None;
                for (k, v, _) in entries {
                    let (k, v) = (self.check(k), self.check(v));
                    ty = Some(match ty {
                        None => (k, v),
                        Some((a, b)) => (a.join(k), b.join(v)),
                    });
                }
                let (k, v) = ty.unwrap_or((Type::Dyn, Type::Dyn));
                Type::Map(Box::new(k), Box::new(v), Some(entries.len() as u64))
            }
            Kind::Struct(name, fields) => {
                for (_, v, _) in fields {
                    self.check(v);
                }
                if name == "JSONPatch" || name == "Object" || name.starts_with("Object.") {
                    return Type::object(name.clone(), []);
                }
                self.wrong(node, &format!("undeclared reference to '{name}' (in container '')"))
            }
            Kind::Loop(l) => self.comprehension(l),
            Kind::Bind { var, init, body } => {
                let ty = self.check(init);
                self.within([(var.clone(), ty)], body)
            }
            Kind::OptMap { of, var, body, flat } => {
                let inner = match self.check(of) {
                    Type::Optional(t) => *t,
                    _ => Type::Dyn,
                };
                let ty = self.within([(var.clone(), inner)], body);
                if *flat { ty } else { Type::Optional(Box::new(ty)) }
            }
        }
    }

    fn within(&mut self, names: impl IntoIterator<Item = (String, Type)>, body: &Node) -> Type {
        let depth = self.scope.len();
        self.scope.extend(names);
        let ty = self.check(body);
        self.scope.truncate(depth);
        ty
    }

    fn ident(&mut self, node: &Node, name: &str) -> Type {
        if let Some((_, ty)) = self.scope.iter().rev().find(|(n, _)| n == name) {
            return ty.clone();
        }
        if matches!(
            name,
            "int" | "uint" | "double" | "string" | "bytes" | "bool" | "list" | "map" | "null_type" | "type"
        ) {
            return Type::Type;
        }
        self.wrong(node, &format!("undeclared reference to '{name}' (in container '')"))
    }

    fn select(&mut self, node: &Node, of: &Node, field: &str) -> Type {
        match self.check(of) {
            Type::Object(o) => match o.fields.get(field) {
                Some(ty) => ty.clone(),
                None if o.name.starts_with("Object") => Type::Dyn,
                None => self.wrong(node, &format!("undefined field '{field}'")),
            },
            Type::Map(_, v, _) => *v,
            Type::Optional(inner) => match *inner {
                Type::Object(o) => match o.fields.get(field) {
                    Some(ty) => Type::Optional(Box::new(ty.clone())),
                    None => self.wrong(node, &format!("undefined field '{field}'")),
                },
                Type::Map(_, v, _) => Type::Optional(v),
                _ => Type::Optional(Box::new(Type::Dyn)),
            },
            Type::Dyn => Type::Dyn,
            other => self.wrong(node, &format!("type '{other}' does not support field selection")),
        }
    }

    fn call(&mut self, node: &Node, name: &str, target: Option<Type>, args: Vec<Type>) -> Type {
        let Some(all) = FUNCTIONS.get(name) else {
            return self.wrong(node, &format!("undeclared reference to '{name}' (in container '')"));
        };
        let number = |t: &Type| matches!(t, Type::Int | Type::Uint | Type::Double);
        if matches!(name, "_<_" | "_<=_" | "_>_" | "_>=_") && args.iter().all(number) {
            return Type::Bool;
        }
        let mut found: Option<Type> = None;
        for s in all {
            if let Some(ty) = matches(s, target.as_ref(), &args) {
                found = Some(match found {
                    None => ty,
                    Some(before) => before.join(ty),
                });
            }
        }
        if let Some(ty) = found {
            return ty;
        }
        let shown: Vec<String> = args.iter().map(Type::to_string).collect();
        let shown = match &target {
            Some(t) => format!("{t}.({})", shown.join(", ")),
            None => format!("({})", shown.join(", ")),
        };
        self.wrong(node, &format!("found no matching overload for '{name}' applied to '{shown}'"))
    }

    fn comprehension(&mut self, l: &Loop) -> Type {
        let range = self.check(&l.range);
        let (first, second) = match (&range, &l.second) {
            (Type::List(e, _), None) => ((**e).clone(), Type::Dyn),
            (Type::Map(k, _, _), None) => ((**k).clone(), Type::Dyn),
            (Type::List(e, _), Some(_)) => (Type::Int, (**e).clone()),
            (Type::Map(k, v, _), Some(_)) => ((**k).clone(), (**v).clone()),
            (Type::Object(_), _) | (Type::Dyn, _) => (Type::Dyn, Type::Dyn),
            (other, _) => {
                let words = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.wrong(&l.range, &words);
                (Type::Dyn, Type::Dyn)
            }
        };
        let mut names = vec![(l.var.clone(), first.clone())];
        names.extend(l.second.clone().map(|n| (n, second.clone())));
        if let Some(filter) = &l.filter {
            let ty = self.within(names.clone(), filter);
            self.want_bool(filter, &ty);
        }
        let body = self.within(names, &l.body);
        let bound = range.bound();
        match l.form {
            Form::All | Form::Exists | Form::ExistsOne => {
                self.want_bool(&l.body, &body);
                Type::Bool
            }
            Form::Filter => {
                self.want_bool(&l.body, &body);
                Type::List(Box::new(first), bound)
            }
            Form::Map | Form::TransformList => Type::List(Box::new(body), bound),
            Form::TransformMap => Type::Map(Box::new(first), Box::new(body), bound),
            Form::TransformMapEntry => body,
        }
    }

    fn want_bool(&mut self, node: &Node, ty: &Type) {
        if !ty.fits(&Type::Bool) {
            self.wrong(node, &format!("expected type 'bool' but found '{ty}'"));
        }
    }
}

fn constant(v: &Value) -> Type {
    match v {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::String(s) => Type::String(Some(s.len() as u64)),
        Value::Bytes(b) => Type::Bytes(Some(b.len() as u64)),
        _ => Type::Dyn,
    }
}

/// The result, if the arguments fit.
fn matches(s: &Signature, target: Option<&Type>, args: &[Type]) -> Option<Type> {
    if s.target.is_some() != target.is_some() || s.args.len() != args.len() {
        return None;
    }
    let mut bound: HashMap<char, Type> = HashMap::new();
    for (p, t) in s.target.iter().zip(target).chain(s.args.iter().zip(args)) {
        if !unify(p, t, &mut bound) {
            return None;
        }
    }
    Some(instance(&s.result, &bound))
}

fn unify(p: &Pattern, t: &Type, bound: &mut HashMap<char, Type>) -> bool {
    match (p, t) {
        (Pattern::Is(Type::Dyn), _) => true,
        (_, Type::Dyn) => true,
        (Pattern::Is(w), t) => t.fits(w) && !matches!((t, w), (Type::Null, w) if !matches!(w, Type::Null)),
        (Pattern::Variable(c), t) => match bound.get(c) {
            None => {
                bound.insert(*c, t.clone());
                true
            }
            Some(before) if t.fits(before) => {
                if matches!(before, Type::Dyn | Type::Null) {
                    bound.insert(*c, t.clone());
                }
                true
            }
            // Numbers compare across their types.
            Some(_) => false,
        },
        (Pattern::List(p), Type::List(t, _)) => unify(p, t, bound),
        (Pattern::Map(k, v), Type::Map(tk, tv, _)) => unify(k, tk, bound) && unify(v, tv, bound),
        // Fields of objects can be asked for as keys where types are free.
        (Pattern::Optional(p), Type::Optional(t)) => unify(p, t, bound),
        _ => false,
    }
}

fn instance(p: &Pattern, bound: &HashMap<char, Type>) -> Type {
    match p {
        Pattern::Is(t) => t.clone(),
        Pattern::Variable(c) => bound.get(c).cloned().unwrap_or(Type::Dyn),
        Pattern::List(p) => Type::list(instance(p, bound)),
        Pattern::Map(k, v) => Type::map(instance(k, bound), instance(v, bound)),
        Pattern::Optional(p) => Type::Optional(Box::new(instance(p, bound))),
    }
}
