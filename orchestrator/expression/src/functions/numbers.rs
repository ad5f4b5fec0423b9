//! Mathematics, quantities and versions.

use apimachinery::quantity::Quantity;

use crate::eval::{Result, error};
use crate::signatures::opaque;
use crate::value::{Object, Value};

pub(crate) fn call(name: &str, args: &[Value]) -> Option<Result<Value>> {
    Some(match (name, args) {
        ("math.abs", [Value::Int(i)]) => {
            i.checked_abs().map_or_else(|| error("integer overflow"), |i| Ok(i.into()))
        }
        ("math.abs", [Value::Double(d)]) => Ok(Value::Double(d.abs())),
        ("math.sign", [Value::Int(i)]) => Ok(i.signum().into()),
        ("math.sign", [Value::Double(d)]) => Ok(Value::Double(if *d == 0.0 { 0.0 } else { d.signum() })),
        ("math.ceil", [Value::Double(d)]) => Ok(Value::Double(d.ceil())),
        ("math.floor", [Value::Double(d)]) => Ok(Value::Double(d.floor())),
        ("math.round", [Value::Double(d)]) => Ok(Value::Double(d.round())),
        ("math.trunc", [Value::Double(d)]) => Ok(Value::Double(d.trunc())),
        ("math.sqrt", [Value::Double(d)]) => Ok(Value::Double(d.sqrt())),
        ("math.sqrt", [Value::Int(i)]) => Ok(Value::Double((*i as f64).sqrt())),
        ("math.isNaN", [Value::Double(d)]) => Ok(d.is_nan().into()),
        ("math.isInf", [Value::Double(d)]) => Ok(d.is_infinite().into()),
        ("math.isFinite", [Value::Double(d)]) => Ok(d.is_finite().into()),
        ("math.bitAnd", [Value::Int(a), Value::Int(b)]) => Ok((a & b).into()),
        ("math.bitOr", [Value::Int(a), Value::Int(b)]) => Ok((a | b).into()),
        ("math.bitXor", [Value::Int(a), Value::Int(b)]) => Ok((a ^ b).into()),
        ("isQuantity", [Value::String(s)]) => Ok(s.parse::<Quantity>().is_ok().into()),
        ("quantity", [Value::String(s)]) => match s.parse::<Quantity>() {
            Ok(q) => Ok(Value::Opaque(std::sync::Arc::new(Amount(q)))),
            Err(e) => error(e.to_string()),
        },
        ("isSemver", [Value::String(s), rest @ ..]) => Ok(Version::parse(s, normal(rest)).is_some().into()),
        ("semver", [Value::String(s), rest @ ..]) => match Version::parse(s, normal(rest)) {
            Some(v) => Ok(Value::Opaque(std::sync::Arc::new(v))),
            None => error("No Major.Minor.Patch elements found"),
        },
        _ => return None,
    })
}

fn normal(rest: &[Value]) -> bool {
    matches!(rest, [Value::Bool(true)])
}

#[derive(Debug)]
struct Amount(Quantity);

impl Object for Amount {
    fn type_name(&self) -> &'static str {
        opaque("quantity").expect("quantities are a type")
    }

    fn call(&self, method: &str, args: &[Value]) -> Option<std::result::Result<Value, String>> {
        let zero = Quantity::default();
        let other = match args {
            [Value::Int(i)] => i.to_string().parse::<Quantity>().ok(),
            [v] => parse_shown(v),
            _ => None,
        };
        let amount = |q: Quantity| Value::Opaque(std::sync::Arc::new(Amount(q)));
        let order = |a: &Quantity, b: &Quantity| a.partial_cmp(b).map_or(0, |o| o as i64);
        let float = || self.0.to_f64();
        Some(Ok(match (method, other) {
            ("sign", None) => order(&self.0, &zero).into(),
            ("isInteger", None) => float().fract().eq(&0.0).into(),
            ("asInteger", None) => match float() {
                f if f.fract() == 0.0 && f.abs() < 9.2e18 => (f as i64).into(),
                _ => return Some(Err("cannot convert value to integer".to_owned())),
            },
            ("asApproximateFloat", None) => Value::Double(float()),
            ("add", Some(q)) => amount(self.0 + q),
            ("sub", Some(q)) => amount(self.0 - q),
            ("isLessThan", Some(q)) => (order(&self.0, &q) < 0).into(),
            ("isGreaterThan", Some(q)) => (order(&self.0, &q) > 0).into(),
            ("compareTo", Some(q)) => order(&self.0, &q).into(),
            ("#text", None) => self.0.to_string().into(),
            _ => return None,
        }))
    }

    fn equals(&self, other: &dyn Object) -> bool {
        format!("{other:?}") == format!("{self:?}")
            || other
                .call("compareTo", &[Value::Opaque(std::sync::Arc::new(Amount(self.0)))])
                .is_some_and(|v| matches!(v, Ok(Value::Int(0))))
    }
}

/// The quantity an object shows itself as.
fn parse_shown(v: &Value) -> Option<Quantity> {
    let Value::Opaque(o) = v else { return None };
    match o.call("#text", &[])? {
        Ok(Value::String(s)) => s.parse().ok(),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    core: (u64, u64, u64),
    /// Behind a release stand none.
    pre: (bool, Vec<(u64, String)>),
}

impl Version {
    fn parse(s: &str, normal: bool) -> Option<Version> {
        let s = if normal { s.strip_prefix('v').unwrap_or(s) } else { s };
        let (s, build) = s.split_once('+').map_or((s, None), |(s, b)| (s, Some(b)));
        if build.is_some_and(str::is_empty) {
            return None;
        }
        let (core, pre) = s.split_once('-').map_or((s, None), |(c, p)| (c, Some(p)));
        let number = |p: &str| {
            let plain = !p.is_empty()
                && p.bytes().all(|b| b.is_ascii_digit())
                && (normal || p == "0" || !p.starts_with('0'));
            if plain { p.parse::<u64>().ok() } else { None }
        };
        let mut parts: Vec<u64> = core.split('.').map(number).collect::<Option<_>>()?;
        if normal {
            parts.resize(parts.len().max(3), 0);
        }
        let [a, b, c] = parts[..] else { return None };
        let pre = match pre {
            None => (true, Vec::new()),
            Some(p) => {
                let ids = p.split('.').map(|id| {
                    let good = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                    // Numbers stand before words.
                    good.then(|| id.parse().map_or((u64::MAX, id.to_owned()), |n| (n, String::new())))
                });
                (false, ids.collect::<Option<_>>()?)
            }
        };
        Some(Version { core: (a, b, c), pre })
    }
}

impl Object for Version {
    fn type_name(&self) -> &'static str {
        opaque("semver").expect("versions are a type")
    }

    fn call(&self, method: &str, args: &[Value]) -> Option<std::result::Result<Value, String>> {
        let part = |n: u64| i64::try_from(n).unwrap_or(i64::MAX).into();
        let other = match args {
            [Value::Opaque(o)] => match o.call("#text", &[])? {
                Ok(Value::String(s)) => Version::parse(&s, false),
                _ => None,
            },
            _ => None,
        };
        Some(Ok(match (method, other) {
            ("major", None) => part(self.core.0),
            ("minor", None) => part(self.core.1),
            ("patch", None) => part(self.core.2),
            ("isLessThan", Some(v)) => (*self < v).into(),
            ("isGreaterThan", Some(v)) => (*self > v).into(),
            ("compareTo", Some(v)) => (self.cmp(&v) as i64).into(),
            ("#text", None) => self.text().into(),
            _ => return None,
        }))
    }
}

impl Version {
    fn text(&self) -> String {
        let (a, b, c) = self.core;
        let ids: Vec<String> =
            self.pre.1.iter().map(|(n, s)| if s.is_empty() { n.to_string() } else { s.clone() }).collect();
        if ids.is_empty() { format!("{a}.{b}.{c}") } else { format!("{a}.{b}.{c}-{}", ids.join(".")) }
    }
}
