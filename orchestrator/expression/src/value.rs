//! Values while an expression is evaluated.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Number, Value as Json};

use crate::types::{Type, escape};

/// Something a library brings, with methods of its own.
pub trait Object: fmt::Debug + Send + Sync {
    /// As its [`Type::Opaque`] is named.
    fn type_name(&self) -> &'static str;

    /// Calls a method; `None` if there is no such one for these arguments.
    fn call(&self, method: &str, args: &[Value]) -> Option<Result<Value, String>>;

    /// Whether it is the same as another of its type.
    fn equals(&self, other: &dyn Object) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    Duration(SignedDuration),
    Timestamp(Timestamp),
    Type(Arc<str>),
    List(Arc<Vec<Value>>),
    /// In the order it was written in; objects are maps by their fields' names.
    Map(Arc<Vec<(Value, Value)>>),
    Optional(Option<Arc<Value>>),
    Opaque(Arc<dyn Object>),
}

impl From<&str> for Value {
    fn from(s: &str) -> Value {
        Value::String(s.into())
    }
}

impl From<String> for Value {
    fn from(s: String) -> Value {
        Value::String(s.into())
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Value {
        Value::Bool(b)
    }
}

impl From<i64> for Value {
    fn from(i: i64) -> Value {
        Value::Int(i)
    }
}

impl From<Vec<Value>> for Value {
    fn from(l: Vec<Value>) -> Value {
        Value::List(Arc::new(l))
    }
}

impl Value {
    /// JSON as a value of a type. What does not fit its type keeps the shape it has.
    pub fn of_json(v: &Json, ty: &Type) -> Value {
        match (v, ty) {
            (Json::Null, _) => Value::Null,
            (Json::Bool(b), _) => Value::Bool(*b),
            (Json::Number(n), Type::Double) => Value::Double(n.as_f64().unwrap_or(0.0)),
            (Json::Number(n), _) => match n.as_i64() {
                Some(i) => Value::Int(i),
                None => Value::Double(n.as_f64().unwrap_or(0.0)),
            },
            (Json::String(s), Type::Timestamp) => {
                timestamp(s).map_or_else(|| s.as_str().into(), Value::Timestamp)
            }
            (Json::String(s), Type::Duration) => {
                crate::time::parse_duration(s).map_or_else(|| s.as_str().into(), Value::Duration)
            }
            (Json::String(s), Type::Bytes(_)) => {
                STANDARD.decode(s).map_or_else(|_| s.as_str().into(), |b| Value::Bytes(b.into()))
            }
            (Json::String(s), _) => s.as_str().into(),
            (Json::Array(l), Type::List(element, _)) => {
                l.iter().map(|e| Value::of_json(e, element)).collect::<Vec<_>>().into()
            }
            (Json::Array(l), _) => l.iter().map(|e| Value::of_json(e, &Type::Dyn)).collect::<Vec<_>>().into(),
            (Json::Object(m), Type::Object(o)) => {
                let fields = m.iter().filter_map(|(k, v)| {
                    let name = escape(k)?;
                    let ty = o.fields.get(&name)?;
                    Some((name.into(), Value::of_json(v, ty)))
                });
                Value::Map(Arc::new(fields.collect()))
            }
            (Json::Object(m), ty) => {
                let inner = match ty {
                    Type::Map(_, v, _) => v,
                    _ => &Type::Dyn,
                };
                Value::Map(Arc::new(
                    m.iter().map(|(k, v)| (k.as_str().into(), Value::of_json(v, inner))).collect(),
                ))
            }
        }
    }

    /// A value as JSON; `None` for what has no such form.
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(i) => (*i).into(),
            Value::Uint(u) => (*u).into(),
            Value::Double(d) => Json::Number(Number::from_f64(*d)?),
            Value::String(s) => s.as_ref().into(),
            Value::Bytes(b) => STANDARD.encode(b).into(),
            Value::Timestamp(t) => t.to_string().into(),
            Value::Duration(d) => crate::time::print_duration(*d).into(),
            Value::List(l) => Json::Array(l.iter().map(Value::to_json).collect::<Option<_>>()?),
            Value::Map(m) => {
                let pair = |(k, v): &(Value, Value)| Some((k.text()?, v.to_json()?));
                Json::Object(m.iter().map(pair).collect::<Option<_>>()?)
            }
            Value::Optional(Some(v)) => v.to_json()?,
            Value::Optional(None) | Value::Type(_) | Value::Opaque(_) => return None,
        })
    }

    fn text(&self) -> Option<String> {
        match self {
            Value::String(s) => Some(s.as_ref().to_owned()),
            Value::Int(i) => Some(i.to_string()),
            Value::Uint(u) => Some(u.to_string()),
            Value::Bool(b) => Some(b.to_string()),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(s) => Some(s),
            _ => None,
        }
    }

    /// A map's value, numbers being equal across their types.
    pub(crate) fn get(&self, key: &Value) -> Option<&Value> {
        match self {
            Value::Map(m) => m.iter().find(|(k, _)| k.equals(key)).map(|(_, v)| v),
            _ => None,
        }
    }

    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Map(m) => m.iter().find(|(k, _)| k.as_str() == Some(name)).map(|(_, v)| v),
            _ => None,
        }
    }

    pub(crate) fn type_name(&self) -> &str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Type(_) => "type",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Optional(_) => "optional_type",
            Value::Opaque(o) => o.type_name(),
        }
    }

    /// Elements, pairs or characters; 1 for the rest.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Value::String(s) => s.chars().count() as u64,
            Value::Bytes(b) => b.len() as u64,
            Value::List(l) => l.len() as u64,
            Value::Map(m) => m.len() as u64,
            _ => 1,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Value::Int(i) => Some(*i as f64),
            Value::Uint(u) => Some(*u as f64),
            Value::Double(d) => Some(*d),
            _ => None,
        }
    }

    pub fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b)) | (Value::Type(a), Value::Type(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(b))
            }
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len() && a.iter().all(|(k, v)| other.get(k).is_some_and(|w| v.equals(w)))
            }
            (Value::Optional(a), Value::Optional(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.equals(b),
                _ => false,
            },
            (Value::Opaque(a), Value::Opaque(b)) => a.type_name() == b.type_name() && a.equals(&**b),
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }

    /// The order of two values, if they have one.
    pub(crate) fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
            (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            _ => self.number()?.partial_cmp(&other.number()?),
        }
    }

    /// As Go's zero values: what `ofNonZeroValue` leaves out.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(b) => !b,
            Value::Optional(o) => o.is_none(),
            Value::Duration(d) => d.is_zero(),
            Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => self.size() == 0,
            _ => self.number() == Some(0.0),
        }
    }
}

pub(crate) fn timestamp(s: &str) -> Option<Timestamp> {
    s.parse().ok()
}
