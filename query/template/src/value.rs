//! What a template computes with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::{number, time};

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// Nanoseconds since 1970.
    Time(i64),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
    /// Labels: what is not there is empty.
    Texts(Arc<BTreeMap<String, String>>),
    /// A structure with fields in this order: to ask for another is an error.
    Record(Arc<Vec<(&'static str, Value)>>),
    /// Nanoseconds.
    Duration(i64),
    /// The dot a template begins with, whose fields the language looks up.
    Root,
}

/// A loop over a number counts this far at most.
const COUNTED: i64 = 100_000;

impl Value {
    /// As Go calls it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Text(_) => "string",
            Value::Time(_) => "time.Time",
            Value::Duration(_) => "time.Duration",
            Value::List(_) => "[]interface {}",
            Value::Map(_) => "map[string]interface {}",
            Value::Texts(_) => "map[string]string",
            Value::Record(_) | Value::Root => "struct",
        }
    }

    /// What counts as true in `if`.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            Value::Float(f) => *f != 0.0,
            Value::Text(t) => !t.is_empty(),
            Value::List(l) => !l.is_empty(),
            Value::Map(m) => !m.is_empty(),
            Value::Texts(m) => !m.is_empty(),
            Value::Duration(d) => *d != 0,
            Value::Time(_) | Value::Record(_) | Value::Root => true,
        }
    }

    /// What `range` goes over, with index or key.
    pub fn items(self) -> Result<Vec<(Value, Value)>, String> {
        match self {
            Value::Nil => Ok(Vec::new()),
            Value::List(l) => Ok((0..).map(Value::Int).zip(l).collect()),
            Value::Map(m) => Ok(m.into_iter().map(|(k, v)| (Value::Text(k), v)).collect()),
            Value::Texts(m) => {
                Ok(m.iter().map(|(k, v)| (Value::Text(k.clone()), Value::Text(v.clone()))).collect())
            }
            // Go counts up to a whole number.
            Value::Int(n) => Ok((0..n.clamp(0, COUNTED)).map(|i| (Value::Int(i), Value::Int(i))).collect()),
            v => Err(format!("range can't iterate over {v}")),
        }
    }

    /// As a number.
    pub fn float(&self) -> Result<f64, String> {
        match self {
            Value::Int(i) => Ok(*i as f64),
            Value::Float(f) => Ok(*f),
            Value::Bool(b) => Ok(f64::from(u8::from(*b))),
            // What is no number counts as nought, as the functions that Loki takes over have it.
            Value::Text(t) => Ok(t.trim().parse().unwrap_or(0.0)),
            Value::Nil => Ok(0.0),
            v => Err(format!("{v} is no number")),
        }
    }

    /// As a whole number.
    pub fn int(&self) -> Result<i64, String> {
        match self {
            Value::Int(i) => Ok(*i),
            Value::Text(t) => {
                Ok(t.trim().parse().unwrap_or_else(|_| t.trim().parse::<f64>().unwrap_or(0.0) as i64))
            }
            v => v.float().map(|f| f as i64),
        }
    }

    pub fn from_json(v: serde_json::Value) -> Value {
        match v {
            serde_json::Value::Null => Value::Nil,
            serde_json::Value::Bool(b) => Value::Bool(b),
            serde_json::Value::Number(n) => {
                n.as_i64().map(Value::Int).unwrap_or_else(|| Value::Float(n.as_f64().unwrap_or(f64::NAN)))
            }
            serde_json::Value::String(s) => Value::Text(s),
            serde_json::Value::Array(a) => Value::List(a.into_iter().map(Value::from_json).collect()),
            serde_json::Value::Object(o) => {
                Value::Map(o.into_iter().map(|(k, v)| (k, Value::from_json(v))).collect())
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Nil => f.write_str("<no value>"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(i) => write!(f, "{i}"),
            Value::Float(x) => f.write_str(&number::general(*x, None)),
            Value::Text(t) => f.write_str(t),
            Value::Time(n) => f.write_str(&time::plain(*n)),
            Value::Duration(n) => f.write_str(&time::duration(*n)),
            Value::List(l) => {
                let all: Vec<String> = l.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", all.join(" "))
            }
            Value::Map(m) => {
                let all: Vec<String> = m.iter().map(|(k, v)| format!("{k}:{v}")).collect();
                write!(f, "map[{}]", all.join(" "))
            }
            Value::Texts(m) => {
                let all: Vec<String> = m.iter().map(|(k, v)| format!("{k}:{v}")).collect();
                write!(f, "map[{}]", all.join(" "))
            }
            Value::Record(fields) => {
                let all: Vec<String> = fields.iter().map(|(_, v)| v.to_string()).collect();
                write!(f, "{{{}}}", all.join(" "))
            }
            Value::Root => f.write_str("map[]"),
        }
    }
}
