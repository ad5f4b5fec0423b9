//! Text: the extended string library, regular expressions, named formats.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;

use crate::eval::{Result, error};
use crate::signatures::opaque;
use crate::time;
use crate::value::{Object, Value};

/// Expressions kept compiled, for each thread.
const MAX_KEPT: usize = 64;

thread_local! {
    static KEPT: RefCell<HashMap<String, Regex>> = RefCell::default();
}

fn regex(pattern: &str) -> Result<Regex> {
    KEPT.with_borrow_mut(|kept| {
        if let Some(r) = kept.get(pattern) {
            return Ok(r.clone());
        }
        let Ok(r) = Regex::new(pattern) else { return error(format!("error parsing regexp: {pattern}")) };
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(pattern.to_owned(), r.clone());
        Ok(r)
    })
}

/// A value as `string()` and messages show it.
pub(crate) fn print(v: &Value) -> String {
    match v {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => u.to_string(),
        Value::Double(d) if d.fract() == 0.0 && d.abs() < 1e21 => format!("{d:.0}"),
        Value::Double(d) => d.to_string(),
        Value::String(s) | Value::Type(s) => s.as_ref().to_owned(),
        Value::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
        Value::Duration(d) => time::print_duration(*d),
        Value::Timestamp(t) => t.to_string(),
        Value::List(l) => format!("[{}]", l.iter().map(print).collect::<Vec<_>>().join(", ")),
        Value::Map(m) => {
            let all: Vec<String> = m.iter().map(|(k, v)| format!("{}: {}", print(k), print(v))).collect();
            format!("{{{}}}", all.join(", "))
        }
        Value::Optional(None) => "optional.none()".to_owned(),
        Value::Optional(Some(v)) => format!("optional({})", print(v)),
        Value::Opaque(o) => match o.call("#text", &[]) {
            Some(Ok(Value::String(s))) => s.as_ref().to_owned(),
            _ => o.type_name().to_owned(),
        },
    }
}

fn place(s: &str, byte: Option<usize>) -> Value {
    byte.map_or(-1, |b| s[..b].chars().count() as i64).into()
}

/// The byte at a character, if it is within or at the end.
fn byte(s: &str, at: i64) -> Option<usize> {
    let at = usize::try_from(at).ok()?;
    s.char_indices().map(|(i, _)| i).chain(std::iter::once(s.len())).nth(at)
}

pub(crate) fn call(name: &str, args: &[Value]) -> Option<Result<Value>> {
    use Value::{Bytes, Int, List, String};
    let out_of = |at: i64| error(format!("index out of range: {at}"));
    Some(match (name, args) {
        ("contains", [String(s), String(x)]) => Ok(s.contains(&**x).into()),
        ("startsWith", [String(s), String(x)]) => Ok(s.starts_with(&**x).into()),
        ("endsWith", [String(s), String(x)]) => Ok(s.ends_with(&**x).into()),
        ("matches", [String(s), String(p)]) => regex(p).map(|r| r.is_match(s).into()),
        ("find", [String(s), String(p)]) => regex(p).map(|r| r.find(s).map_or("", |m| m.as_str()).into()),
        ("findAll", [String(s), String(p), rest @ ..]) => {
            let limit = match rest {
                [Int(n)] if *n >= 0 => usize::try_from(*n).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            regex(p)
                .map(|r| r.find_iter(s).take(limit).map(|m| m.as_str().into()).collect::<Vec<Value>>().into())
        }
        ("charAt", [String(s), Int(i)]) => match byte(s, *i) {
            Some(b) => Ok(s[b..].chars().next().map(|c| c.to_string()).unwrap_or_default().into()),
            None => out_of(*i),
        },
        ("indexOf", [String(s), String(x)]) => Ok(place(s, s.find(&**x))),
        ("indexOf", [String(s), String(x), Int(from)]) => match byte(s, *from) {
            Some(b) => Ok(place(s, s[b..].find(&**x).map(|i| i + b))),
            None => out_of(*from),
        },
        ("lastIndexOf", [String(s), String(x)]) => Ok(place(s, s.rfind(&**x))),
        ("lastIndexOf", [String(s), String(x), Int(to)]) => match byte(s, *to) {
            Some(b) => {
                let end = (b + x.len()).min(s.len());
                Ok(place(s, s.get(..end).and_then(|head| head.rfind(&**x))))
            }
            None => out_of(*to),
        },
        ("lowerAscii", [String(s)]) => Ok(s.to_ascii_lowercase().into()),
        ("upperAscii", [String(s)]) => Ok(s.to_ascii_uppercase().into()),
        ("replace", [String(s), String(a), String(b)]) => Ok(s.replace(&**a, b).into()),
        ("replace", [String(s), String(a), String(b), Int(n)]) => Ok(match usize::try_from(*n) {
            Ok(n) => s.replacen(&**a, b, n).into(),
            Err(_) => s.replace(&**a, b).into(),
        }),
        ("split", [String(s), String(by), rest @ ..]) => {
            let n = match rest {
                [Int(n)] => *n,
                _ => -1,
            };
            let parts: Vec<Value> = match (n, by.is_empty()) {
                (0, _) => Vec::new(),
                (_, true) => s.chars().map(|c| c.to_string().into()).collect(),
                (1.., _) => {
                    s.splitn(usize::try_from(n).unwrap_or(usize::MAX), &**by).map(Value::from).collect()
                }
                _ => s.split(&**by).map(Value::from).collect(),
            };
            Ok(parts.into())
        }
        ("substring", [String(s), Int(from), rest @ ..]) => {
            let to = match rest {
                [Int(to)] => *to,
                _ => s.chars().count() as i64,
            };
            match (byte(s, *from), byte(s, to)) {
                (Some(a), Some(b)) if a <= b => Ok(s[a..b].into()),
                (None, _) => out_of(*from),
                (_, None) => out_of(to),
                _ => error(format!("invalid substring range. start: {from}, end: {to}")),
            }
        }
        ("trim", [String(s)]) => Ok(s.trim().into()),
        ("reverse", [String(s)]) => Ok(s.chars().rev().collect::<std::string::String>().into()),
        ("join", [List(l), rest @ ..]) => {
            let by = rest.first().and_then(Value::as_str).unwrap_or_default();
            Ok(l.iter().map(print).collect::<Vec<_>>().join(by).into())
        }
        ("strings.quote", [String(s)]) => Ok(format!("{s:?}").into()),
        ("base64.encode", [Bytes(b)]) => Ok(STANDARD.encode(b).into()),
        ("base64.decode", [String(s)]) => match STANDARD.decode(&**s) {
            Ok(b) => Ok(Bytes(b.into())),
            Err(_) => error("illegal base64 data"),
        },
        ("format", [String(s), List(l)]) => format_text(s, l).map(Value::from),
        ("format.named", [String(n)]) => {
            Ok(Value::Optional(named(n).map(|f| Arc::new(Value::Opaque(Arc::new(f))))))
        }
        (n, []) if n.starts_with("format.") => match named(&n["format.".len()..]) {
            Some(f) => Ok(Value::Opaque(Arc::new(f))),
            None => return None,
        },
        _ => return None,
    })
}

/// `"%s is %d".format([…])` (cel-go: ext/formatting.go).
fn format_text(s: &str, args: &[Value]) -> Result<String> {
    let mut out = String::new();
    let (mut chars, mut next) = (s.chars().peekable(), 0);
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(d) = chars.next_if(char::is_ascii_digit) {
                digits.push(d);
            }
            precision = digits.parse::<usize>().ok();
        }
        let Some(clause) = chars.next() else { return error("unexpected end of string") };
        let Some(v) = args.get(next) else { return error(format!("index {next} out of range")) };
        next += 1;
        let number = match v {
            Value::Int(i) => Some(*i as f64),
            Value::Uint(u) => Some(*u as f64),
            Value::Double(d) => Some(*d),
            _ => None,
        };
        match (clause, v, number) {
            ('s', v, _) => out.push_str(&print(v)),
            ('d', Value::Int(_) | Value::Uint(_) | Value::Double(_), _) => out.push_str(&print(v)),
            ('f', _, Some(n)) => out.push_str(&format!("{n:.*}", precision.unwrap_or(6))),
            ('e', _, Some(n)) => out.push_str(&format!("{n:.*e}", precision.unwrap_or(6))),
            ('b', Value::Int(i), _) => out.push_str(&format!("{i:b}")),
            ('b', Value::Bool(b), _) => out.push(if *b { '1' } else { '0' }),
            ('x', Value::Int(i), _) => out.push_str(&format!("{i:x}")),
            ('X', Value::Int(i), _) => out.push_str(&format!("{i:X}")),
            ('x', Value::String(s), _) => s.bytes().for_each(|b| out.push_str(&format!("{b:02x}"))),
            ('o', Value::Int(i), _) => out.push_str(&format!("{i:o}")),
            _ => {
                return error(format!(
                    "error during formatting: unrecognized formatting clause \"{clause}\" for {}",
                    v.type_name()
                ));
            }
        }
    }
    Ok(out)
}

/// A format by its name: judges text.
#[derive(Debug)]
struct Named(&'static str);

const NAMED: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "qualifiedName",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

fn named(name: &str) -> Option<Named> {
    NAMED.iter().find(|n| **n == name).map(|n| Named(n))
}

impl Object for Named {
    fn type_name(&self) -> &'static str {
        opaque("format").expect("formats are a type")
    }

    fn call(&self, method: &str, args: &[Value]) -> Option<std::result::Result<Value, String>> {
        use apimachinery::name;
        let ("validate", [Value::String(s)]) = (method, args) else { return None };
        let bare = self.0.strip_suffix("Prefix");
        // A prefix may end in a dash, where more will follow.
        let text = if bare.is_some() && s.ends_with('-') { format!("{s}a") } else { s.as_ref().to_owned() };
        let says = |good: bool, words: &str| if good { Ok(()) } else { Err(name::Faults::from(words)) };
        let found = match bare.unwrap_or(self.0) {
            "dns1123Label" => name::dns_label(&text),
            "dns1123Subdomain" => name::dns_subdomain(&text),
            "dns1035Label" => name::dns1035_label(&text),
            "qualifiedName" => name::qualified_name(&text),
            "labelValue" => name::label_value(&text),
            "uri" => says(super::network::is_url(s), "invalid URI for request"),
            "uuid" => says(
                regex("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$")
                    .is_ok_and(|r| r.is_match(s)),
                "does not match the UUID format",
            ),
            "byte" => says(STANDARD.decode(s.as_bytes()).is_ok(), "invalid base64"),
            "date" => says(s.len() == 10 && s.parse::<jiff::civil::Date>().is_ok(), "invalid date"),
            _ => says(crate::value::timestamp(s).is_some(), "invalid datetime"),
        };
        let told = |e: name::Faults| e.iter().map(|why| Value::from(why.to_owned())).collect::<Vec<_>>();
        Some(Ok(Value::Optional(found.err().map(|e| Arc::new(told(e).into())))))
    }
}
