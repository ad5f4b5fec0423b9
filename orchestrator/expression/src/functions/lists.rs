//! Lists and sets.

use std::sync::Arc;

use crate::eval::{Result, error, overload};
use crate::value::Value;

pub(crate) fn call(name: &str, args: &[Value]) -> Option<Result<Value>> {
    let place = |at: Option<usize>| Ok(at.map_or(-1, |i| i as i64).into());
    Some(match (name, args) {
        ("isSorted", [Value::List(l)]) => {
            Ok(l.windows(2).all(|w| w[0].compare(&w[1]).is_some_and(std::cmp::Ordering::is_le)).into())
        }
        ("sum", [Value::List(l)]) => sum(l),
        ("min", [Value::List(l)]) => best(l, std::cmp::Ordering::Less, "min"),
        ("max", [Value::List(l)]) => best(l, std::cmp::Ordering::Greater, "max"),
        ("math.greatest", [Value::List(l)]) => best(l, std::cmp::Ordering::Greater, "max"),
        ("math.least", [Value::List(l)]) => best(l, std::cmp::Ordering::Less, "min"),
        ("math.greatest", all) => best(all, std::cmp::Ordering::Greater, "max"),
        ("math.least", all) => best(all, std::cmp::Ordering::Less, "min"),
        ("indexOf", [Value::List(l), v]) => place(l.iter().position(|e| e.equals(v))),
        ("lastIndexOf", [Value::List(l), v]) => place(l.iter().rposition(|e| e.equals(v))),
        ("distinct", [Value::List(l)]) => {
            let mut out: Vec<Value> = Vec::new();
            for v in l.iter() {
                if !out.iter().any(|o| o.equals(v)) {
                    out.push(v.clone());
                }
            }
            Ok(out.into())
        }
        ("reverse", [Value::List(l)]) => Ok(l.iter().rev().cloned().collect::<Vec<_>>().into()),
        ("sort", [Value::List(l)]) => {
            let mut out = l.to_vec();
            out.sort_by(|a, b| a.compare(b).unwrap_or(std::cmp::Ordering::Equal));
            Ok(out.into())
        }
        ("first", [Value::List(l)]) => Ok(Value::Optional(l.first().map(|v| Arc::new(v.clone())))),
        ("last", [Value::List(l)]) => Ok(Value::Optional(l.last().map(|v| Arc::new(v.clone())))),
        ("flatten", [Value::List(l)]) => {
            let mut out = Vec::new();
            for v in l.iter() {
                match v {
                    Value::List(inner) => out.extend(inner.iter().cloned()),
                    v => out.push(v.clone()),
                }
            }
            Ok(out.into())
        }
        ("slice", [Value::List(l), Value::Int(from), Value::Int(to)]) => {
            match (usize::try_from(*from), usize::try_from(*to)) {
                (Ok(from), Ok(to)) if from <= to && to <= l.len() => Ok(l[from..to].to_vec().into()),
                _ => error(format!("cannot slice({from}, {to}), list is length {}", l.len())),
            }
        }
        ("lists.range", [Value::Int(n)]) if (0..=100_000).contains(n) => {
            Ok((0..*n).map(Value::Int).collect::<Vec<_>>().into())
        }
        ("sets.contains", [Value::List(a), Value::List(b)]) => Ok(holds(a, b).into()),
        ("sets.equivalent", [Value::List(a), Value::List(b)]) => Ok((holds(a, b) && holds(b, a)).into()),
        ("sets.intersects", [Value::List(a), Value::List(b)]) => {
            Ok(a.iter().any(|x| b.iter().any(|y| x.equals(y))).into())
        }
        _ => return None,
    })
}

fn holds(a: &[Value], b: &[Value]) -> bool {
    b.iter().all(|x| a.iter().any(|y| x.equals(y)))
}

fn sum(l: &[Value]) -> Result<Value> {
    let Some(first) = l.first() else { return Ok(0.into()) };
    l[1..].iter().try_fold(first.clone(), |sum, v| super::call("_+_", false, &[sum, v.clone()]))
}

fn best(l: &[Value], wanted: std::cmp::Ordering, name: &str) -> Result<Value> {
    let Some(first) = l.first() else { return error(format!("{name} called on empty list")) };
    let mut best = first;
    for v in &l[1..] {
        match v.compare(best) {
            Some(o) if o == wanted => best = v,
            Some(_) => {}
            None => return overload(),
        }
    }
    Ok(best.clone())
}
