//! Types: what can be known of an expression before any span is seen. An attribute may be anything.

use super::ast::{Field, Intrinsic, Op};
use super::value::Static;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Any,
    Nil,
    Number,
    Text,
    Bool,
    Status,
    Kind,
}

fn of(f: &Field) -> Type {
    match f {
        Field::Static(s) => match s {
            Static::Nil => Type::Nil,
            Static::Int(_) | Static::Float(_) | Static::Duration(_) => Type::Number,
            Static::Text(_) => Type::Text,
            Static::Bool(_) => Type::Bool,
            Static::Status(_) => Type::Status,
            Static::Kind(_) => Type::Kind,
        },
        Field::Attribute(_) => Type::Any,
        Field::Intrinsic(i) => match i {
            Intrinsic::Name
            | Intrinsic::StatusMessage
            | Intrinsic::SpanId
            | Intrinsic::ParentId
            | Intrinsic::TraceId
            | Intrinsic::RootName
            | Intrinsic::RootService
            | Intrinsic::EventName
            | Intrinsic::LinkTraceId
            | Intrinsic::LinkSpanId
            | Intrinsic::ScopeName
            | Intrinsic::ScopeVersion => Type::Text,
            Intrinsic::Parent => Type::Nil,
            Intrinsic::Status => Type::Status,
            Intrinsic::Kind => Type::Kind,
            _ => Type::Number,
        },
        Field::Not(_) | Field::Regex { .. } => Type::Bool,
        Field::Negate(_) => Type::Number,
        Field::Binary { op, .. } if op.calculates() => Type::Number,
        Field::Binary { .. } => Type::Bool,
    }
}

/// Whether the topmost operation can be done.
pub(super) fn field(f: &Field) -> Result<(), String> {
    let is = |f: &Field, t: Type| matches!(of(f), Type::Any) || of(f) == t;
    let illegal = || Err("illegal operation for the given types".to_owned());
    match f {
        Field::Not(inner) if !is(inner, Type::Bool) => illegal(),
        Field::Negate(inner) if !is(inner, Type::Number) => illegal(),
        Field::Regex { left, .. } if !is(left, Type::Text) => illegal(),
        Field::Binary { op, left, right } => {
            let (a, b) = (of(left), of(right));
            let nil = a == Type::Nil || b == Type::Nil;
            match op {
                Op::Eq | Op::Ne if nil => Ok(()),
                _ if nil => illegal(),
                _ if a != b && a != Type::Any && b != Type::Any => {
                    Err("binary operations must operate on the same type".to_owned())
                }
                Op::And | Op::Or if !is(left, Type::Bool) || !is(right, Type::Bool) => illegal(),
                Op::Lt | Op::Le | Op::Gt | Op::Ge => {
                    let both = |t| is(left, t) && is(right, t);
                    if both(Type::Number) || both(Type::Text) { Ok(()) } else { illegal() }
                }
                op if op.calculates() && !(is(left, Type::Number) && is(right, Type::Number)) => illegal(),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

pub(super) fn is_boolean(f: &Field) -> Result<(), String> {
    match of(f) {
        Type::Any | Type::Bool => Ok(()),
        _ => Err("span filter field expressions must resolve to a boolean".to_owned()),
    }
}

pub(super) fn is_number(f: &Field) -> Result<(), String> {
    match (of(f), f) {
        (_, Field::Static(_)) => Err("aggregate field expressions must reference the span".to_owned()),
        (Type::Any | Type::Number, _) => Ok(()),
        _ => Err("aggregate field expressions must resolve to a number type".to_owned()),
    }
}
