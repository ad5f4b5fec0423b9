//! Values of TraceQL and what can be done with them.

use std::cmp::Ordering;
use std::fmt;

use signal::{AttributeValue, SpanKind, SpanStatus};

use super::ast::Op;

#[derive(Clone, Debug, PartialEq)]
pub enum Static {
    Nil,
    Int(i64),
    Float(f64),
    Text(String),
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    Status(Status),
    Kind(SpanKind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Unset,
    Ok,
    Error,
}

impl Status {
    pub(super) fn of(s: &SpanStatus) -> Status {
        match s {
            SpanStatus::Unset => Status::Unset,
            SpanStatus::Ok => Status::Ok,
            SpanStatus::Error(_) => Status::Error,
        }
    }
}

impl From<&AttributeValue> for Static {
    fn from(v: &AttributeValue) -> Self {
        match v {
            AttributeValue::Bool(v) => Static::Bool(*v),
            AttributeValue::Int(v) => Static::Int(*v),
            AttributeValue::Double(v) => Static::Float(*v),
            AttributeValue::String(v) => Static::Text(v.clone()),
        }
    }
}

impl fmt::Display for Static {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Static::Nil => f.write_str("nil"),
            Static::Int(v) => write!(f, "{v}"),
            Static::Float(v) => write!(f, "{v}"),
            Static::Text(v) => f.write_str(v),
            Static::Bool(v) => write!(f, "{v}"),
            Static::Duration(v) => f.write_str(&duration(*v)),
            Static::Status(Status::Unset) => f.write_str("unset"),
            Static::Status(Status::Ok) => f.write_str("ok"),
            Static::Status(Status::Error) => f.write_str("error"),
            Static::Kind(k) => f.write_str(k.as_str()),
        }
    }
}

/// As Go prints a duration.
fn duration(nanos: i64) -> String {
    let n = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let short = |v: f64, unit: &str| format!("{sign}{v}{unit}");
    match n {
        0 => "0s".to_owned(),
        1..1_000 => short(n as f64, "ns"),
        1_000..1_000_000 => short(n as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => short(n as f64 / 1e6, "ms"),
        _ => {
            let (minutes, seconds) = (n / 60_000_000_000, (n % 60_000_000_000) as f64 / 1e9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, m) => format!("{sign}{m}m{seconds}s"),
                (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
            }
        }
    }
}

impl Static {
    /// Numbers and lengths of time (in nanoseconds) as a number.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Static::Int(v) | Static::Duration(v) => Some(*v as f64),
            Static::Float(v) => Some(*v),
            _ => None,
        }
    }

    /// What series are made of: seconds for lengths of time.
    pub(super) fn measure(&self) -> Option<f64> {
        match self {
            Static::Duration(v) => Some(*v as f64 / 1e9),
            v => v.number(),
        }
    }

    fn order(&self, other: &Static) -> Option<Ordering> {
        match (self, other) {
            (Static::Text(a), Static::Text(b)) => Some(a.cmp(b)),
            (Static::Int(a) | Static::Duration(a), Static::Int(b) | Static::Duration(b)) => Some(a.cmp(b)),
            _ => self.number()?.partial_cmp(&other.number()?),
        }
    }

    /// A comparison of values that are there. What is of different types never compares.
    pub(super) fn compare(&self, op: Op, other: &Static) -> bool {
        let equal = || match (self, other) {
            (Static::Bool(a), Static::Bool(b)) => Some(a == b),
            (Static::Status(a), Static::Status(b)) => Some(a == b),
            (Static::Kind(a), Static::Kind(b)) => Some(a == b),
            _ => self.order(other).map(Ordering::is_eq),
        };
        match op {
            Op::Eq => equal() == Some(true),
            Op::Ne => equal() == Some(false),
            Op::Lt => self.order(other).is_some_and(Ordering::is_lt),
            Op::Le => self.order(other).is_some_and(Ordering::is_le),
            Op::Gt => self.order(other).is_some_and(Ordering::is_gt),
            Op::Ge => self.order(other).is_some_and(Ordering::is_ge),
            _ => false,
        }
    }

    /// Arithmetic; nil unless both are numbers. A length of time and a number make a length of time.
    pub(super) fn calculate(&self, op: Op, other: &Static) -> Static {
        let (Some(a), Some(b)) = (self.number(), other.number()) else { return Static::Nil };
        let v = match op {
            Op::Add => a + b,
            Op::Sub => a - b,
            Op::Mul => a * b,
            Op::Div => a / b,
            Op::Mod => a % b,
            Op::Pow => a.powf(b),
            _ => return Static::Nil,
        };
        match (self, other) {
            (Static::Duration(_), Static::Duration(_)) if op == Op::Div => Static::Float(v),
            (Static::Duration(_), _) | (_, Static::Duration(_)) => Static::Duration(v as i64),
            (Static::Int(_), Static::Int(_)) if v.fract() == 0.0 && v.abs() < 9e15 => Static::Int(v as i64),
            _ => Static::Float(v),
        }
    }
}
