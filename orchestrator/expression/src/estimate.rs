//! What an expression can cost at most, before it is evaluated (cel-go: checker/cost.go). Where nothing bounds a
//! list or a text, a whole request is assumed.

use std::collections::HashMap;

use crate::syntax::{Form, Kind, Node};
use crate::types::Type;

/// What a request can hold: bytes of text, or elements of two bytes each.
const MAX_REQUEST: u64 = 3 << 20;

pub(crate) struct Estimate<'a> {
    pub(crate) types: &'a HashMap<*const Node, Type>,
    /// Sizes of what macros bound.
    pub(crate) bound: Vec<(String, u64)>,
}

impl Estimate<'_> {
    fn ty(&self, node: &Node) -> &Type {
        self.types.get(&std::ptr::from_ref(node)).unwrap_or(&Type::Dyn)
    }

    fn size(&self, node: &Node) -> u64 {
        if let Kind::Ident(name) = &node.kind
            && let Some((_, n)) = self.bound.iter().rev().find(|(b, _)| b == name)
        {
            return *n;
        }
        match self.ty(node) {
            t @ Type::String(_) => t.bound().unwrap_or(MAX_REQUEST),
            t @ (Type::List(_, _) | Type::Map(_, _, _)) => t.bound().unwrap_or(MAX_REQUEST / 2),
            t @ Type::Bytes(_) => t.bound().unwrap_or(MAX_REQUEST),
            Type::Dyn => MAX_REQUEST / 2,
            _ => 1,
        }
    }

    pub(crate) fn cost(&mut self, node: &Node) -> u64 {
        let tenth = |n: u64| n.div_ceil(10).max(1);
        match &node.kind {
            Kind::Const(_) => 0,
            Kind::Ident(_) => 1,
            Kind::Select { of, .. } | Kind::Has { of, .. } => self.cost(of).saturating_add(1),
            Kind::List(l) => l.iter().fold(10, |sum, (e, _)| sum.saturating_add(self.cost(e))),
            Kind::Map(m) => m
                .iter()
                .fold(30, |sum, (k, v, _)| sum.saturating_add(self.cost(k)).saturating_add(self.cost(v))),
            Kind::Struct(_, f) => f.iter().fold(40, |sum, (_, v, _)| sum.saturating_add(self.cost(v))),
            Kind::Bind { init, body, .. } => self.cost(init).saturating_add(self.cost(body)),
            Kind::OptMap { of, body, .. } => self.cost(of).saturating_add(self.cost(body)),
            Kind::Loop(l) => {
                let range = self.cost(&l.range);
                let n = self.size(&l.range);
                let mut each = self.cost(&l.body).saturating_add(2);
                if let Some(f) = &l.filter {
                    each = each.saturating_add(self.cost(f));
                }
                if matches!(l.form, Form::Map | Form::Filter | Form::TransformList) {
                    each = each.saturating_add(11);
                }
                range.saturating_add(n.saturating_mul(each))
            }
            Kind::Call { name, target, args } => {
                let all: Vec<&Node> = target.iter().map(|t| &**t).chain(args).collect();
                let sum = all.iter().fold(0u64, |sum, a| sum.saturating_add(self.cost(a)));
                let size = |i: usize| all.get(i).map_or(1, |n| self.size(n));
                let wide = |i: usize| {
                    all.get(i).is_some_and(|n| {
                        matches!(
                            self.ty(n),
                            Type::String(_) | Type::Bytes(_) | Type::List(_, _) | Type::Map(_, _, _)
                        )
                    })
                };
                let own = match name.as_str() {
                    "matches" | "find" | "findAll" => {
                        tenth(size(0) + 1).saturating_mul(size(1).div_ceil(4).max(1))
                    }
                    "contains" => tenth(size(0)).saturating_mul(tenth(size(1))),
                    "startsWith" | "endsWith" => tenth(size(1)),
                    "@in" => size(1),
                    "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" if wide(0) && wide(1) => {
                        tenth(size(0).min(size(1)))
                    }
                    "_+_" if wide(0) && wide(1) => tenth(size(0).saturating_add(size(1))),
                    "isSorted" | "sum" | "min" | "max" | "indexOf" | "lastIndexOf" | "distinct" | "sort" => {
                        size(0)
                    }
                    "sets.contains" | "sets.equivalent" | "sets.intersects" => {
                        size(0).saturating_mul(size(1))
                    }
                    "lowerAscii" | "upperAscii" | "replace" | "split" | "join" | "trim" | "substring"
                    | "format" | "reverse" | "url" | "quantity" | "isURL" | "isQuantity" => tenth(size(0)),
                    "check" => 350_000,
                    _ => 1,
                };
                sum.saturating_add(own)
            }
        }
    }
}
