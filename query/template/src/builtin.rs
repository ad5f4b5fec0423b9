//! Go's own functions, and the methods of times.

use std::cmp::Ordering;

use crate::{Value, number, time};

const NAMES: [&str; 18] = [
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js", "urlquery",
    "eq", "ne", "lt", "le", "gt", "ge",
];

/// Text that a function makes at most.
const LONGEST: usize = 1 << 20;

pub(crate) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(crate) fn call(name: &str, a: &[Value]) -> Result<Value, String> {
    let arg = |i: usize| {
        a.get(i).ok_or_else(|| {
            format!("wrong number of args for {name}: want at least {}, got {}", i + 1, a.len())
        })
    };
    let said = |s: String| Ok(Value::Text(s));
    match name {
        "not" => Ok(Value::Bool(!arg(0)?.is_true())),
        "len" => Ok(Value::Int(match arg(0)? {
            Value::List(l) => l.len() as i64,
            Value::Map(m) => m.len() as i64,
            Value::Texts(m) => m.len() as i64,
            Value::Text(t) => t.len() as i64,
            v => return Err(format!("error calling len: len of type {}", v.type_name())),
        })),
        "index" => a.iter().skip(1).try_fold(arg(0)?.clone(), |v, key| match v {
            Value::List(l) => {
                let i = usize::try_from(key.int()?).ok();
                i.and_then(|i| l.get(i).cloned())
                    .ok_or_else(|| format!("error calling index: index out of range: {key}"))
            }
            Value::Map(m) => Ok(m.get(&key.to_string()).cloned().unwrap_or(Value::Nil)),
            Value::Texts(m) => Ok(Value::Text(m.get(&key.to_string()).cloned().unwrap_or_default())),
            v => Err(format!("error calling index: can't index item of type {}", v.type_name())),
        }),
        "slice" => {
            let (from, to) = (a.get(1).map(Value::int).transpose()?, a.get(2).map(Value::int).transpose()?);
            let bounds = |len: usize| {
                let from = usize::try_from(from.unwrap_or(0)).unwrap_or(usize::MAX);
                let to = usize::try_from(to.unwrap_or(len as i64)).unwrap_or(usize::MAX);
                if from <= to && to <= len {
                    Ok(from..to)
                } else {
                    Err("error calling slice: index out of range")
                }
            };
            match arg(0)? {
                Value::Text(t) => {
                    let range = bounds(t.len())?;
                    said(String::from_utf8_lossy(&t.as_bytes()[range]).into_owned())
                }
                Value::List(l) => Ok(Value::List(l[bounds(l.len())?].to_vec())),
                v => Err(format!("error calling slice: can't slice item of type {}", v.type_name())),
            }
        }
        "print" => said(print(a)),
        "println" => {
            let all: Vec<String> = a.iter().map(ToString::to_string).collect();
            said(all.join(" ") + "\n")
        }
        "printf" => match arg(0)? {
            Value::Text(format) => said(printf(format, a.get(1..).unwrap_or_default())?),
            v => Err(format!("wrong type for value; expected string; got {}", v.type_name())),
        },
        "html" => said(print(a).chars().fold(String::new(), |mut out, c| {
            match c {
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '&' => out.push_str("&amp;"),
                '"' => out.push_str("&#34;"),
                '\'' => out.push_str("&#39;"),
                c => out.push(c),
            }
            out
        })),
        "js" => said(print(a).chars().fold(String::new(), |mut out, c| {
            match c {
                '\\' | '\'' | '"' => out.extend(['\\', c]),
                '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
                c if c < ' ' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
                c => out.push(c),
            }
            out
        })),
        "urlquery" => said(form_urlencoded::byte_serialize(print(a).as_bytes()).collect()),
        "eq" => {
            let first = arg(0)?;
            arg(1).map_err(|_| "error calling eq: missing argument for comparison".to_owned())?;
            let mut any = false;
            for other in &a[1..] {
                any |= compare(name, first, other)? == Some(Ordering::Equal);
            }
            Ok(Value::Bool(any))
        }
        "ne" => Ok(Value::Bool(compare(name, arg(0)?, arg(1)?)? != Some(Ordering::Equal))),
        "lt" => Ok(Value::Bool(compare(name, arg(0)?, arg(1)?)?.is_some_and(Ordering::is_lt))),
        "le" => Ok(Value::Bool(compare(name, arg(0)?, arg(1)?)?.is_some_and(Ordering::is_le))),
        "gt" => Ok(Value::Bool(compare(name, arg(0)?, arg(1)?)?.is_some_and(Ordering::is_gt))),
        "ge" => Ok(Value::Bool(compare(name, arg(0)?, arg(1)?)?.is_some_and(Ordering::is_ge))),
        _ => Err(format!("function {name:?} not defined")),
    }
}

/// Go compares like with like only.
fn compare(name: &str, a: &Value, b: &Value) -> Result<Option<Ordering>, String> {
    match (a, b) {
        (Value::Text(x), Value::Text(y)) => Ok(Some(x.cmp(y))),
        (Value::Bool(x), Value::Bool(y)) if matches!(name, "eq" | "ne") => Ok(Some(x.cmp(y))),
        (Value::Int(x), Value::Int(y)) | (Value::Time(x), Value::Time(y)) => Ok(Some(x.cmp(y))),
        (Value::Duration(x), Value::Duration(y) | Value::Int(y)) | (Value::Int(x), Value::Duration(y)) => {
            Ok(Some(x.cmp(y)))
        }
        (Value::Float(x), Value::Float(y)) => Ok(x.partial_cmp(y)),
        (Value::Nil, Value::Nil) if matches!(name, "eq" | "ne") => Ok(Some(Ordering::Equal)),
        (Value::Nil, _) | (_, Value::Nil) if matches!(name, "eq" | "ne") => Ok(None),
        _ => Err(format!("error calling {name}: incompatible types for comparison")),
    }
}

/// Operands side by side; a space where neither is text.
fn print(a: &[Value]) -> String {
    let mut out = String::new();
    for (i, v) in a.iter().enumerate() {
        let texts = |v: &Value| matches!(v, Value::Text(_));
        if i > 0 && !texts(v) && !texts(&a[i - 1]) {
            out.push(' ');
        }
        out.push_str(&v.to_string());
    }
    out
}

/// What `$t.Format "15:04"` and its like give.
pub(crate) fn method(of: &Value, name: &str, a: &[Value]) -> Result<Value, String> {
    let part = |layout: &str, nanos: i64| -> Result<Value, String> {
        let text = time::format(layout, nanos)?;
        text.trim().parse().map(Value::Int).map_err(|_| format!("{text:?} is no number"))
    };
    match (of, name, a) {
        (Value::Time(n), "Format", [layout]) => Ok(Value::Text(time::format(&layout.to_string(), *n)?)),
        (Value::Time(n), "Unix", []) => Ok(Value::Int(n.div_euclid(1_000_000_000))),
        (Value::Time(n), "UnixMilli", []) => Ok(Value::Int(n.div_euclid(1_000_000))),
        (Value::Time(n), "UnixNano", []) => Ok(Value::Int(*n)),
        (Value::Time(n), "UTC" | "Local", []) => Ok(Value::Time(*n)),
        (Value::Time(n), "String", []) => Ok(Value::Text(time::plain(*n))),
        (Value::Time(n), "Year", []) => part("2006", *n),
        (Value::Time(n), "Day", []) => part("02", *n),
        (Value::Time(n), "Hour", []) => part("15", *n),
        (Value::Time(n), "Minute", []) => part("04", *n),
        (Value::Time(n), "Second", []) => part("05", *n),
        (Value::Time(n), "Month", []) => Ok(Value::Text(time::format("January", *n)?)),
        (Value::Time(n), "Weekday", []) => Ok(Value::Text(time::format("Monday", *n)?)),
        (Value::Time(n), "Add", [Value::Duration(d)]) => Ok(Value::Time(n.saturating_add(*d))),
        (Value::Time(n), "Sub", [Value::Time(m)]) => Ok(Value::Duration(n.saturating_sub(*m))),
        (Value::Duration(n), "String", []) => Ok(Value::Text(time::duration(*n))),
        (Value::Duration(n), "Seconds", []) => Ok(Value::Float(*n as f64 / 1e9)),
        (Value::Duration(n), "Minutes", []) => Ok(Value::Float(*n as f64 / 6e10)),
        (Value::Duration(n), "Hours", []) => Ok(Value::Float(*n as f64 / 3.6e12)),
        (Value::Duration(n), "Milliseconds", []) => Ok(Value::Int(n / 1_000_000)),
        _ => Err(format!("can't evaluate field {name} in type {}", of.type_name())),
    }
}

/// Go's verbs with flags, width and precision; what does not fit is said in the text, as Go says it.
fn printf(format: &str, arguments: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = format;
    let mut next = arguments.iter();
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let Some((end, verb)) = after.char_indices().find(|(_, c)| c.is_alphabetic() || *c == '%') else {
            out.push_str("%!(NOVERB)");
            rest = "";
            continue;
        };
        let flags = &after[..end];
        rest = &after[end + verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(v) = next.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let (width, precision) = flags
            .split_once('.')
            .map_or((flags, None), |(w, p)| (w, Some(p.parse::<usize>().unwrap_or(0).min(100))));
        let left = width.contains('-');
        let zero = width.trim_start_matches(['-', '+', ' ', '#']).starts_with('0');
        let digits: usize = width.trim_start_matches(['-', '+', ' ', '#', '0']).parse().unwrap_or(0);
        let sign = |s: String| match s.starts_with(['-', '+']) {
            false if width.contains('+') => format!("+{s}"),
            false if width.contains(' ') => format!(" {s}"),
            _ => s,
        };
        let shown = shown(verb, v, precision, width.contains('#'))
            .map(|s| if matches!(v, Value::Int(_) | Value::Float(_)) && verb != 'c' { sign(s) } else { s });
        let shown = shown.unwrap_or_else(|| match v {
            Value::Nil => format!("%!{verb}(<nil>)"),
            v => format!("%!{verb}({}={v})", v.type_name()),
        });
        let pad = digits.min(1000).saturating_sub(shown.chars().count());
        match (left, zero && matches!(v, Value::Int(_) | Value::Float(_))) {
            (true, _) => out.push_str(&(shown + &" ".repeat(pad))),
            (false, true) => {
                let (sign, number) = shown.split_at(usize::from(shown.starts_with(['-', '+', ' '])));
                out.push_str(&format!("{sign}{}{number}", "0".repeat(pad)));
            }
            (false, false) => out.push_str(&(" ".repeat(pad) + &shown)),
        }
        if out.len() > LONGEST {
            return Err("printf makes too long a text".to_owned());
        }
    }
    out.push_str(rest);
    let extra: Vec<String> = next.map(|v| format!("{}={v}", v.type_name())).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    Ok(out)
}

/// One operand by its verb; `None` if the verb is not for it.
fn shown(verb: char, v: &Value, precision: Option<usize>, sharp: bool) -> Option<String> {
    let cut = |s: String| match precision {
        Some(p) => s.chars().take(p).collect(),
        None => s,
    };
    Some(match (verb, v) {
        ('v', Value::Nil) => "<nil>".to_owned(),
        ('v', Value::Float(f)) => number::general(*f, precision),
        ('v', v) => v.to_string(),
        ('T', v) => v.type_name().to_owned(),
        ('s', Value::Text(t)) => cut(t.clone()),
        ('s', Value::Time(_) | Value::Duration(_)) => v.to_string(),
        ('s', Value::List(_) | Value::Map(_) | Value::Texts(_)) => v.to_string(),
        ('q', Value::Text(t)) if sharp && !t.contains('`') => format!("`{t}`"),
        ('q', Value::Text(t)) => format!("{:?}", cut(t.clone())),
        ('x', Value::Text(t)) => t.bytes().map(|b| format!("{b:02x}")).collect(),
        ('X', Value::Text(t)) => t.bytes().map(|b| format!("{b:02X}")).collect(),
        ('t', Value::Bool(b)) => b.to_string(),
        ('d', Value::Int(i) | Value::Duration(i)) => i.to_string(),
        ('x', Value::Int(i)) => format!("{}{:x}", if *i < 0 { "-" } else { "" }, i.unsigned_abs()),
        ('X', Value::Int(i)) => format!("{}{:X}", if *i < 0 { "-" } else { "" }, i.unsigned_abs()),
        ('o', Value::Int(i)) => format!("{}{:o}", if *i < 0 { "-" } else { "" }, i.unsigned_abs()),
        ('b', Value::Int(i)) => format!("{}{:b}", if *i < 0 { "-" } else { "" }, i.unsigned_abs()),
        ('c', Value::Int(i)) => {
            u32::try_from(*i).ok().and_then(char::from_u32).unwrap_or('\u{fffd}').to_string()
        }
        ('U', Value::Int(i)) => format!("U+{i:04X}"),
        ('q', Value::Int(i)) => format!("{:?}", u32::try_from(*i).ok().and_then(char::from_u32)?),
        ('f' | 'F', Value::Float(f)) if f.is_finite() => format!("{:.*}", precision.unwrap_or(6), f),
        ('e', Value::Float(f)) => number::exponent(*f, Some(precision.unwrap_or(6))),
        ('E', Value::Float(f)) => number::exponent(*f, Some(precision.unwrap_or(6))).to_uppercase(),
        ('f' | 'F' | 'g' | 'G', Value::Float(f)) => number::general(*f, precision),
        _ => return None,
    })
}
