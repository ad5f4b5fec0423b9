//! Templates of `line_format` and `label_format`: Go's text/template with Loki's functions
//! (Loki: docs/sources/query/template_functions.md).

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use regex::Regex;
use template::{Functions, Value, time};

use crate::fields;

/// What a template is rendered with: the labels by name, and the line and its time by `__line__` and
/// `__timestamp__`.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

#[derive(Clone, Debug)]
pub(crate) struct Template(template::Template);

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Template, String> {
        template::Template::parse(text, &Loki(&|_| None)).map(Template).map_err(|e| {
            let hint = e.message.strip_suffix(" not defined").and_then(|m| m.strip_prefix("function \""));
            let hint =
                hint.map(|n| format!("; a label is written .{}", n.trim_matches('"'))).unwrap_or_default();
            format!("template: {e}{hint}")
        })
    }

    pub(crate) fn render(&self, get: Lookup<'_>) -> Result<String, String> {
        self.0.render(Value::Root, &Loki(get)).map_err(|e| format!("template: {e}"))
    }
}

struct Loki<'a>(Lookup<'a>);

impl Functions for Loki<'_> {
    fn knows(&self, name: &str) -> bool {
        NAMES.contains(&name)
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, String> {
        match name {
            "__line__" | "__timestamp__" if arguments.is_empty() => self.root(name),
            _ => call(name, arguments),
        }
    }

    fn root(&self, name: &str) -> Result<Value, String> {
        if name == "__timestamp__" {
            let nanos = (self.0)(name).and_then(|t| t.parse().ok()).unwrap_or(0);
            return Ok(Value::Time(nanos));
        }
        Ok(Value::Text((self.0)(name).unwrap_or_default()))
    }
}

const NAMES: [&str; 76] = [
    "ToLower",
    "ToUpper",
    "lower",
    "upper",
    "title",
    "trunc",
    "substr",
    "replace",
    "Replace",
    "Trim",
    "trim",
    "TrimLeft",
    "TrimRight",
    "TrimPrefix",
    "TrimSuffix",
    "TrimSpace",
    "trimAll",
    "trimPrefix",
    "trimSuffix",
    "indent",
    "nindent",
    "repeat",
    "contains",
    "hasPrefix",
    "hasSuffix",
    "alignLeft",
    "alignRight",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "add",
    "sub",
    "mul",
    "div",
    "mod",
    "addf",
    "subf",
    "mulf",
    "divf",
    "max",
    "min",
    "maxf",
    "minf",
    "ceil",
    "floor",
    "round",
    "int",
    "float64",
    "count",
    "regexReplaceAll",
    "regexReplaceAllLiteral",
    "default",
    "fromJson",
    "urlencode",
    "urldecode",
    "b64enc",
    "b64dec",
    "bytes",
    "duration",
    "duration_seconds",
    "date",
    "toDate",
    "toDateInZone",
    "now",
    "unixEpoch",
    "unixEpochMillis",
    "unixEpochNanos",
    "unixToTime",
    "toString",
    "Count",
    "__line__",
    "__timestamp__",
    "coalesce",
];

/// Text that functions make at most.
const LONGEST: usize = 1 << 20;
/// Compiled expressions kept.
const REGEXES: usize = 64;

fn regex(pattern: &str) -> Result<Regex, String> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().map_err(|_| "a regular expression failed before".to_owned())?;
    if let Some(r) = known.get(pattern) {
        return Ok(r.clone());
    }
    let r = Regex::new(pattern).map_err(|e| format!("{e}"))?;
    if known.len() >= REGEXES {
        known.clear();
    }
    known.insert(pattern.to_owned(), r.clone());
    Ok(r)
}

/// Calls a function; what was piped into it is the last argument.
fn call(name: &str, a: &[Value]) -> Result<Value, String> {
    let arg = |i: usize| {
        a.get(i).ok_or_else(|| format!("wrong number of args for {name}: want more than {}", a.len()))
    };
    let text = |i: usize| arg(i).map(|v| if *v == Value::Nil { String::new() } else { v.to_string() });
    let int = |i: usize| arg(i)?.int();
    let float = |i: usize| arg(i)?.float();
    let size = |i: usize| int(i).map(|n| usize::try_from(n).unwrap_or(0).min(LONGEST));
    let said = |s: String| Ok(Value::Text(s));
    match name {
        "ToLower" | "lower" => said(text(0)?.to_lowercase()),
        "ToUpper" | "upper" => said(text(0)?.to_uppercase()),
        "title" => said(title(&text(0)?)),
        "trunc" => {
            let (n, s) = (int(0)?, text(1)?);
            let len = i64::try_from(s.chars().count()).unwrap_or(i64::MAX);
            let from = if n < 0 { (len + n).max(0) } else { 0 };
            let take = if n < 0 { len } else { n };
            said(s.chars().skip(from as usize).take(take as usize).collect())
        }
        "substr" => {
            let (from, to, s) = (int(0)?, int(1)?, text(2)?);
            let from = usize::try_from(from).unwrap_or(0);
            let to = usize::try_from(to).unwrap_or(usize::MAX);
            said(s.chars().take(to).skip(from).collect())
        }
        "replace" => said(text(2)?.replace(&text(0)?, &text(1)?)),
        "Replace" => match usize::try_from(int(3)?) {
            Ok(n) => said(text(0)?.replacen(&text(1)?, &text(2)?, n)),
            Err(_) => said(text(0)?.replace(&text(1)?, &text(2)?)),
        },
        "trim" | "TrimSpace" => said(text(0)?.trim().to_owned()),
        "Trim" => said(text(0)?.trim_matches(chars(&text(1)?).as_slice()).to_owned()),
        "TrimLeft" => said(text(0)?.trim_start_matches(chars(&text(1)?).as_slice()).to_owned()),
        "TrimRight" => said(text(0)?.trim_end_matches(chars(&text(1)?).as_slice()).to_owned()),
        "trimAll" => said(text(1)?.trim_matches(chars(&text(0)?).as_slice()).to_owned()),
        "TrimPrefix" => said(without_prefix(&text(0)?, &text(1)?)),
        "TrimSuffix" => said(without_suffix(&text(0)?, &text(1)?)),
        "trimPrefix" => said(without_prefix(&text(1)?, &text(0)?)),
        "trimSuffix" => said(without_suffix(&text(1)?, &text(0)?)),
        "indent" | "nindent" => {
            let pad = " ".repeat(size(0)?.min(1000));
            let body = text(1)?.replace('\n', &format!("\n{pad}"));
            said(format!("{}{pad}{body}", if name == "nindent" { "\n" } else { "" }))
        }
        "repeat" => {
            let (n, s) = (size(0)?, text(1)?);
            if s.len().saturating_mul(n) > LONGEST {
                return Err("repeat makes too long a text".to_owned());
            }
            said(s.repeat(n))
        }
        "contains" => Ok(Value::Bool(text(1)?.contains(&text(0)?))),
        "hasPrefix" => Ok(Value::Bool(text(1)?.starts_with(&text(0)?))),
        "hasSuffix" => Ok(Value::Bool(text(1)?.ends_with(&text(0)?))),
        "alignLeft" | "alignRight" => {
            let (n, s) = (size(0)?, text(1)?);
            let len = s.chars().count();
            let pad = " ".repeat(n.saturating_sub(len));
            said(match name {
                "alignLeft" => s.chars().take(n).collect::<String>() + &pad,
                _ => pad + &s.chars().skip(len.saturating_sub(n)).collect::<String>(),
            })
        }
        "eq" => {
            let first = arg(0)?;
            Ok(Value::Bool(a.iter().skip(1).any(|v| order(first, v) == Some(Ordering::Equal))))
        }
        "ne" => Ok(Value::Bool(order(arg(0)?, arg(1)?) != Some(Ordering::Equal))),
        "lt" => Ok(Value::Bool(order(arg(0)?, arg(1)?).is_some_and(Ordering::is_lt))),
        "le" => Ok(Value::Bool(order(arg(0)?, arg(1)?).is_some_and(Ordering::is_le))),
        "gt" => Ok(Value::Bool(order(arg(0)?, arg(1)?).is_some_and(Ordering::is_gt))),
        "ge" => Ok(Value::Bool(order(arg(0)?, arg(1)?).is_some_and(Ordering::is_ge))),
        "toString" => said(a.iter().map(ToString::to_string).collect()),
        "add" => Ok(Value::Int(a.iter().try_fold(0i64, |s, v| Ok::<_, String>(s.wrapping_add(v.int()?)))?)),
        "sub" => Ok(Value::Int(int(0)?.wrapping_sub(int(1)?))),
        "mul" => Ok(Value::Int(a.iter().try_fold(1i64, |s, v| Ok::<_, String>(s.wrapping_mul(v.int()?)))?)),
        "div" | "mod" => {
            let (x, y) = (int(0)?, int(1)?);
            let r = if name == "div" { x.checked_div(y) } else { x.checked_rem(y) };
            r.map(Value::Int).ok_or_else(|| "integer divide by zero".to_owned())
        }
        "addf" => Ok(Value::Float(a.iter().try_fold(0.0, |s, v| Ok::<_, String>(s + v.float()?))?)),
        "subf" => {
            Ok(Value::Float(a.iter().skip(1).try_fold(float(0)?, |s, v| Ok::<_, String>(s - v.float()?))?))
        }
        "mulf" => Ok(Value::Float(a.iter().try_fold(1.0, |s, v| Ok::<_, String>(s * v.float()?))?)),
        "divf" => {
            Ok(Value::Float(a.iter().skip(1).try_fold(float(0)?, |s, v| Ok::<_, String>(s / v.float()?))?))
        }
        "max" | "min" => {
            let all = a.iter().map(Value::int).collect::<Result<Vec<_>, _>>()?;
            let found = if name == "max" { all.iter().max() } else { all.iter().min() };
            Ok(Value::Int(found.copied().unwrap_or(0)))
        }
        "maxf" | "minf" => {
            let all = a.iter().map(Value::float).collect::<Result<Vec<_>, _>>()?;
            Ok(Value::Float(
                all.into_iter().reduce(if name == "maxf" { f64::max } else { f64::min }).unwrap_or(0.0),
            ))
        }
        "ceil" => Ok(Value::Float(float(0)?.ceil())),
        "floor" => Ok(Value::Float(float(0)?.floor())),
        "round" => {
            let scale = 10f64.powi(i32::try_from(int(1).unwrap_or(0)).unwrap_or(0).clamp(-15, 15));
            Ok(Value::Float((float(0)? * scale).round() / scale))
        }
        "int" => int(0).map(Value::Int),
        "float64" => float(0).map(Value::Float),
        "count" | "Count" => {
            let n = regex(&text(0)?)?.find_iter(&text(1)?).count();
            Ok(Value::Int(i64::try_from(n).unwrap_or(i64::MAX)))
        }
        "regexReplaceAll" => {
            // Go writes ${1}, as this library does; $1x means the group called 1x in both.
            said(regex(&text(0)?)?.replace_all(&text(1)?, text(2)?.as_str()).into_owned())
        }
        "regexReplaceAllLiteral" => {
            said(regex(&text(0)?)?.replace_all(&text(1)?, regex::NoExpand(&text(2)?)).into_owned())
        }
        "default" => Ok(if arg(1)?.is_true() { arg(1)?.clone() } else { arg(0)?.clone() }),
        "coalesce" => Ok(a.iter().find(|v| v.is_true()).cloned().unwrap_or(Value::Nil)),
        "fromJson" => {
            serde_json::from_str(&text(0)?).map(Value::from_json).map_err(|e| format!("fromJson: {e}"))
        }
        "urlencode" => said(form_urlencoded::byte_serialize(text(0)?.as_bytes()).collect()),
        "urldecode" => {
            // One value is read the way a query string's is.
            let pair = format!("v={}", text(0)?.replace('&', "%26"));
            said(
                form_urlencoded::parse(pair.as_bytes())
                    .next()
                    .map(|(_, v)| v.into_owned())
                    .unwrap_or_default(),
            )
        }
        "b64enc" => said(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text(0)?)),
        "b64dec" => {
            let raw = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text(0)?)
                .map_err(|e| format!("b64dec: {e}"))?;
            said(String::from_utf8_lossy(&raw).into_owned())
        }
        "bytes" => fields::bytes(&text(0)?)
            .map(Value::Float)
            .ok_or_else(|| format!("{:?} is no size", text(0).unwrap_or_default())),
        "duration" | "duration_seconds" => fields::duration(&text(0)?)
            .map(Value::Float)
            .ok_or_else(|| format!("{:?} is no duration", text(0).unwrap_or_default())),
        "now" => Ok(Value::Time(signal::time::now().nanos())),
        "date" => said(time::format(&text(0)?, time::of(arg(1)?)?)?),
        "toDate" => time::parse(&text(0)?, "UTC", &text(1)?).map(Value::Time),
        "toDateInZone" => time::parse(&text(0)?, &text(1)?, &text(2)?).map(Value::Time),
        "unixEpoch" => said((time::of(arg(0)?)? / 1_000_000_000).to_string()),
        "unixEpochMillis" => said((time::of(arg(0)?)? / 1_000_000).to_string()),
        "unixEpochNanos" => said(time::of(arg(0)?)?.to_string()),
        "unixToTime" => time::from_unix(&text(0)?).map(Value::Time),
        _ => Err(format!("function {name:?} not defined")),
    }
}

fn chars(s: &str) -> Vec<char> {
    s.chars().collect()
}

fn title(s: &str) -> String {
    let mut start = true;
    s.chars()
        .flat_map(|c| {
            let upper = start && c.is_alphabetic();
            start = c.is_whitespace();
            if upper { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

fn without_prefix(s: &str, prefix: &str) -> String {
    s.strip_prefix(prefix).unwrap_or(s).to_owned()
}

fn without_suffix(s: &str, suffix: &str) -> String {
    s.strip_suffix(suffix).unwrap_or(s).to_owned()
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Text(x), Value::Text(y)) => Some(x.cmp(y)),
        (Value::Bool(x), Value::Bool(y)) => Some(x.cmp(y)),
        (Value::Time(x), Value::Time(y)) => Some(x.cmp(y)),
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            a.float().ok()?.partial_cmp(&b.float().ok()?)
        }
        // A label is text: beside a number it is read as one.
        (Value::Text(t), Value::Int(_) | Value::Float(_)) => {
            t.parse::<f64>().ok()?.partial_cmp(&b.float().ok()?)
        }
        (Value::Int(_) | Value::Float(_), Value::Text(t)) => {
            a.float().ok()?.partial_cmp(&t.parse::<f64>().ok()?)
        }
        _ => (a == b).then_some(Ordering::Equal),
    }
}

#[cfg(test)]
mod tests;
