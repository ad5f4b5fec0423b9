//! The functions that take values: operators, conversions, and by their room the rest.

mod lists;
mod network;
mod numbers;
mod strings;

use std::cmp::Ordering;
use std::sync::Arc;

use crate::eval::{Result, error, overload};
use crate::time;
use crate::value::{Value, timestamp};

pub(crate) use strings::print;

/// What a call costs by its arguments (cel-go: interpreter/runtimecost.go).
pub(crate) fn cost(name: &str, args: &[Value]) -> u64 {
    let size = |i: usize| args.get(i).map_or(1, Value::size);
    let tenth = |n: u64| n.div_ceil(10).max(1);
    match name {
        "matches" | "find" | "findAll" => tenth(size(0) + 1) * size(1).div_ceil(4).max(1),
        "contains" if matches!(args.first(), Some(Value::String(_))) => tenth(size(0)) * tenth(size(1)),
        "startsWith" | "endsWith" => tenth(size(1)),
        "@in" => size(1),
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" | "_+_"
            if args.iter().any(|a| {
                matches!(a, Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))
            }) =>
        {
            if name == "_+_" {
                tenth(size(0) + size(1))
            } else {
                tenth(size(0).min(size(1)))
            }
        }
        "lowerAscii" | "upperAscii" | "substring" | "trim" | "url" | "quantity" | "isQuantity" | "isURL" => {
            1 + size(0) / 10
        }
        "replace" | "split" | "join" | "format" | "reverse" | "string" | "bytes" => 1 + size(0) / 10,
        "isSorted" | "sum" | "min" | "max" | "indexOf" | "lastIndexOf" | "distinct" | "sort" | "slice" => {
            size(0)
        }
        "sets.contains" | "sets.equivalent" | "sets.intersects" => size(0).saturating_mul(size(1)).max(1),
        // The authorizer is somebody to ask.
        "check" => 350_000,
        _ => 1,
    }
}

pub(crate) fn call(name: &str, member: bool, args: &[Value]) -> Result<Value> {
    if let Some(v) = operator(name, args)? {
        return Ok(v);
    }
    if member && let [Value::Opaque(o), rest @ ..] = args {
        return match o.call(name, rest) {
            Some(Ok(v)) => Ok(v),
            Some(Err(e)) => error(e),
            None => overload(),
        };
    }
    if let Some(v) = convert(name, args) {
        return v;
    }
    for room in [strings::call, lists::call, numbers::call, network::call] {
        if let Some(v) = room(name, args) {
            return v;
        }
    }
    moments(name, args)
}

fn operator(name: &str, args: &[Value]) -> Result<Option<Value>> {
    use Value::{Bytes, Double, Duration, Int, List, Map, Optional, String, Timestamp, Uint};
    let overflow = |v: Option<Value>, what: &str| v.map_or_else(|| error(format!("{what} overflow")), Ok);
    let int = |v: Option<i64>| overflow(v.map(Int), "integer");
    let uint = |v: Option<u64>| overflow(v.map(Uint), "unsigned integer");
    let ordered = |want: fn(Ordering) -> bool| match args {
        [a, b] => match a.compare(b) {
            Some(o) => Ok(want(o).into()),
            None => overload(),
        },
        _ => overload(),
    };
    let v = match (name, args) {
        ("!_", [Value::Bool(b)]) => (!b).into(),
        ("-_", [Int(i)]) => int(i.checked_neg())?,
        ("-_", [Double(d)]) => Double(-d),
        ("_==_", [a, b]) => a.equals(b).into(),
        ("_!=_", [a, b]) => (!a.equals(b)).into(),
        ("_<_", _) => ordered(Ordering::is_lt)?,
        ("_<=_", _) => ordered(Ordering::is_le)?,
        ("_>_", _) => ordered(Ordering::is_gt)?,
        ("_>=_", _) => ordered(Ordering::is_ge)?,
        ("_+_", [Int(a), Int(b)]) => int(a.checked_add(*b))?,
        ("_-_", [Int(a), Int(b)]) => int(a.checked_sub(*b))?,
        ("_*_", [Int(a), Int(b)]) => int(a.checked_mul(*b))?,
        ("_/_", [Int(_), Int(0)] | [Uint(_), Uint(0)]) => return error("division by zero"),
        ("_%_", [Int(_), Int(0)] | [Uint(_), Uint(0)]) => return error("modulus by zero"),
        ("_/_", [Int(a), Int(b)]) => int(a.checked_div(*b))?,
        ("_%_", [Int(a), Int(b)]) => int(a.checked_rem(*b))?,
        ("_+_", [Uint(a), Uint(b)]) => uint(a.checked_add(*b))?,
        ("_-_", [Uint(a), Uint(b)]) => uint(a.checked_sub(*b))?,
        ("_*_", [Uint(a), Uint(b)]) => uint(a.checked_mul(*b))?,
        ("_/_", [Uint(a), Uint(b)]) => Uint(a / b),
        ("_%_", [Uint(a), Uint(b)]) => Uint(a % b),
        ("_+_", [Double(a), Double(b)]) => Double(a + b),
        ("_-_", [Double(a), Double(b)]) => Double(a - b),
        ("_*_", [Double(a), Double(b)]) => Double(a * b),
        ("_/_", [Double(a), Double(b)]) => Double(a / b),
        ("_+_", [String(a), String(b)]) => format!("{a}{b}").into(),
        ("_+_", [Bytes(a), Bytes(b)]) => Bytes([&a[..], &b[..]].concat().into()),
        ("_+_", [List(a), List(b)]) => a.iter().chain(b.iter()).cloned().collect::<Vec<_>>().into(),
        ("_+_", [Duration(a), Duration(b)]) => overflow(a.checked_add(*b).map(Duration), "duration")?,
        ("_-_", [Duration(a), Duration(b)]) => overflow(a.checked_sub(*b).map(Duration), "duration")?,
        ("_+_", [Timestamp(t), Duration(d)] | [Duration(d), Timestamp(t)]) => {
            overflow(t.checked_add(*d).ok().map(Timestamp), "timestamp")?
        }
        ("_-_", [Timestamp(t), Duration(d)]) => overflow(t.checked_sub(*d).ok().map(Timestamp), "timestamp")?,
        ("_-_", [Timestamp(a), Timestamp(b)]) => Duration(a.duration_since(*b)),
        ("@in", [v, List(l)]) => l.iter().any(|e| e.equals(v)).into(),
        ("@in", [k, m @ Map(_)]) => m.get(k).is_some().into(),
        ("_[_]" | "_[?_]", [of, key]) => return index(of, key, name == "_[?_]").map(Some),
        ("size", [v @ (String(_) | Bytes(_) | List(_) | Map(_))]) => {
            i64::try_from(v.size()).unwrap_or(i64::MAX).into()
        }
        ("optional.of", [v]) => Optional(Some(Arc::new(v.clone()))),
        ("optional.none", []) => Optional(None),
        ("optional.ofNonZeroValue", [v]) => Optional((!v.is_zero()).then(|| Arc::new(v.clone()))),
        ("hasValue", [Optional(o)]) => o.is_some().into(),
        ("value", [Optional(Some(v))]) => (**v).clone(),
        ("value", [Optional(None)]) => return error("optional.none() dereference"),
        (n, _) if n.starts_with('_') || n.starts_with('@') || n == "!_" => return overload(),
        _ => return Ok(None),
    };
    Ok(Some(v))
}

fn index(of: &Value, key: &Value, optional: bool) -> Result<Value> {
    if let Value::Optional(o) = of {
        return match o {
            None => Ok(Value::Optional(None)),
            Some(v) => index(v, key, true),
        };
    }
    let found = match (of, key) {
        (Value::List(l), key) => {
            let place = match key {
                Value::Int(i) => *i,
                Value::Uint(u) => i64::try_from(*u).unwrap_or(i64::MAX),
                Value::Double(d) if d.fract() == 0.0 => *d as i64,
                _ => return overload(),
            };
            match usize::try_from(place).ok().and_then(|i| l.get(i)) {
                Some(v) => Ok(v),
                None => error(format!("index out of bounds: {place}")),
            }
        }
        (Value::Map(_), key) => match of.get(key) {
            Some(v) => Ok(v),
            None => error(format!("no such key: {}", print(key))),
        },
        _ => return overload(),
    };
    match found {
        Ok(v) if optional => Ok(Value::Optional(Some(Arc::new(v.clone())))),
        Ok(v) => Ok(v.clone()),
        Err(_) if optional => Ok(Value::Optional(None)),
        Err(e) => Err(e),
    }
}

fn convert(name: &str, args: &[Value]) -> Option<Result<Value>> {
    let [v] = args else { return None };
    let wrong =
        |what: &str| Some(error(format!("type conversion error from '{}' to '{what}'", v.type_name())));
    Some(match (name, v) {
        ("dyn", v) => Ok(v.clone()),
        ("type", v) => Ok(Value::Type(v.type_name().into())),
        ("int", Value::Int(_))
        | ("uint", Value::Uint(_))
        | ("double", Value::Double(_))
        | ("string", Value::String(_))
        | ("bytes", Value::Bytes(_))
        | ("bool", Value::Bool(_))
        | ("duration", Value::Duration(_))
        | ("timestamp", Value::Timestamp(_)) => Ok(v.clone()),
        ("int", Value::Uint(u)) => {
            i64::try_from(*u).map_or_else(|_| error("integer overflow"), |i| Ok(i.into()))
        }
        ("int", Value::Double(d)) if d.abs() < 9.2e18 => Ok((*d as i64).into()),
        ("int", Value::Double(_)) => error("integer overflow"),
        ("int", Value::Timestamp(t)) => Ok(t.as_second().into()),
        ("int", Value::Duration(d)) => Ok(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX).into()),
        ("int", Value::String(s)) => match s.parse::<i64>() {
            Ok(i) => Ok(i.into()),
            Err(_) => return wrong("int"),
        },
        ("uint", Value::Int(i)) => {
            u64::try_from(*i).map_or_else(|_| error("unsigned integer overflow"), |u| Ok(Value::Uint(u)))
        }
        ("uint", Value::Double(d)) if *d >= 0.0 && *d < 1.8e19 => Ok(Value::Uint(*d as u64)),
        ("uint", Value::String(s)) => match s.parse::<u64>() {
            Ok(u) => Ok(Value::Uint(u)),
            Err(_) => return wrong("uint"),
        },
        ("double", Value::Int(i)) => Ok(Value::Double(*i as f64)),
        ("double", Value::Uint(u)) => Ok(Value::Double(*u as f64)),
        ("double", Value::String(s)) => match s.parse::<f64>() {
            Ok(d) => Ok(Value::Double(d)),
            Err(_) => return wrong("double"),
        },
        ("string", Value::Bytes(b)) => match std::str::from_utf8(b) {
            Ok(s) => Ok(s.into()),
            Err(_) => error("invalid UTF-8 in bytes, cannot convert to string"),
        },
        ("string", v) => Ok(print(v).into()),
        ("bytes", Value::String(s)) => Ok(Value::Bytes(s.as_bytes().into())),
        ("bool", Value::String(s)) => match s.as_ref() {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true.into()),
            "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false.into()),
            _ => return wrong("bool"),
        },
        ("duration", Value::String(s)) => match time::parse_duration(s) {
            Some(d) => Ok(Value::Duration(d)),
            None => return wrong("google.protobuf.Duration"),
        },
        ("duration", Value::Int(i)) => Ok(Value::Duration(jiff::SignedDuration::from_nanos(*i))),
        ("timestamp", Value::String(s)) => match timestamp(s) {
            Some(t) => Ok(Value::Timestamp(t)),
            None => return wrong("google.protobuf.Timestamp"),
        },
        ("timestamp", Value::Int(i)) => match jiff::Timestamp::from_second(*i) {
            Ok(t) => Ok(Value::Timestamp(t)),
            Err(_) => error("timestamp overflow"),
        },
        _ => return None,
    })
}

fn moments(name: &str, args: &[Value]) -> Result<Value> {
    match args {
        [Value::Timestamp(t), zone @ ..] => {
            match time::part(*t, name, zone.first().and_then(Value::as_str)) {
                Some(Ok(v)) => Ok(v),
                Some(Err(e)) => error(e),
                None => overload(),
            }
        }
        [Value::Duration(d)] => time::of_duration(*d, name).map_or_else(overload, |i| Ok(i.into())),
        _ => overload(),
    }
}
