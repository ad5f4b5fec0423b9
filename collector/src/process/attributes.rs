//! Fields of JSON and logfmt lines as attributes, so that a question needs no parser.

use serde_json::Value;
use signal::{AttributeValue, LogRecord};

use crate::sender::exported;

/// Attributes taken from one line.
const MOST: usize = 128;
/// Longer values stay in the line alone.
const LONGEST: usize = 4096;
const DEEPEST: usize = 8;

/// Which lines are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Off,
    Json,
    Logfmt,
    /// JSON if it begins so, else logfmt if it is one throughout.
    Auto,
}

impl Format {
    pub(super) fn parse(name: &str) -> Result<Format, String> {
        match name {
            "off" => Ok(Format::Off),
            "json" => Ok(Format::Json),
            "logfmt" => Ok(Format::Logfmt),
            "auto" => Ok(Format::Auto),
            other => Err(format!("{other:?}: one of off, json, logfmt and auto")),
        }
    }
}

/// What the record has already wins.
pub(super) fn apply(format: Format, record: &mut LogRecord) {
    let text = record.body.trim_start();
    let json = text.starts_with('{');
    let mut found = Vec::new();
    match format {
        Format::Off => return,
        Format::Json | Format::Auto if json => {
            if let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(text) {
                for (name, value) in fields {
                    flatten(name, value, 0, &mut found);
                }
            }
        }
        Format::Json => return,
        Format::Logfmt => found = logfmt(text, false),
        Format::Auto => found = logfmt(text, true),
    }
    for (name, value) in found {
        let name = exported(&name).unwrap_or(name);
        if record.attributes.get(&name).is_none() {
            record.attributes.0.push((name, value));
        }
    }
}

fn flatten(name: String, value: Value, depth: usize, out: &mut Vec<(String, AttributeValue)>) {
    if out.len() >= MOST {
        return;
    }
    let value: AttributeValue = match value {
        Value::Null => return,
        Value::Object(o) if depth < DEEPEST => {
            for (n, v) in o {
                flatten(format!("{name}.{n}"), v, depth + 1, out);
            }
            return;
        }
        Value::Bool(b) => b.into(),
        Value::String(s) => s.into(),
        Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => i.into(),
            (None, Some(f)) => f.into(),
            _ => return,
        },
        other => other.to_string().into(),
    };
    keep(name, value, out);
}

fn keep(name: String, value: AttributeValue, out: &mut Vec<(String, AttributeValue)>) {
    let long = matches!(&value, AttributeValue::String(s) if s.len() > LONGEST);
    if !long && !name.is_empty() && out.len() < MOST {
        out.push((name, value));
    }
}

/// `a=b c="d e"`. If it must be `whole`, a word that is no pair makes it none.
fn logfmt(text: &str, whole: bool) -> Vec<(String, AttributeValue)> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && out.len() < MOST {
        let end = rest.find(['=', ' ']).unwrap_or(rest.len());
        let name = &rest[..end];
        if rest.as_bytes().get(end) != Some(&b'=') {
            if whole {
                return Vec::new();
            }
            rest = rest[end..].trim_start();
            continue;
        }
        let after = &rest[end + 1..];
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let Some(close) = closing(quoted) else { break };
                let text = serde_json::from_str::<String>(&after[..close + 2]);
                (text.unwrap_or_else(|_| quoted[..close].to_owned()), &quoted[close + 1..])
            }
            None => {
                let end = after.find(' ').unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        let named =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/@".contains(&b));
        if named {
            keep(name.to_owned(), number(value), &mut out);
        } else if whole {
            return Vec::new();
        }
        rest = next.trim_start();
    }
    out
}

/// Where a quoted value ends.
fn closing(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|b| {
        let ends = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        ends
    })
}

/// A whole number stays one; text that only looks like one (`007`, `1e3`) stays text.
fn number(text: String) -> AttributeValue {
    match text.parse::<i64>() {
        Ok(n) if n.to_string() == text => n.into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(format: Format, body: &str) -> String {
        let mut r = LogRecord { body: body.to_owned(), ..LogRecord::default() };
        apply(format, &mut r);
        r.attributes.iter().map(|(n, v)| format!("{n}={v};")).collect()
    }

    #[test]
    fn fields_of_lines() {
        assert_eq!(
            of(Format::Auto, r#"{"a":1,"b":{"c":"x"},"pod":"p","n":null}"#),
            "a=1;b.c=x;exported_pod=p;"
        );
        assert_eq!(
            of(Format::Auto, r#"level=info msg="a \"b\"" n=007 took=12"#),
            r#"level=info;msg=a "b";n=007;took=12;"#
        );
        assert_eq!(of(Format::Auto, "a sentence with x=1 in it"), "");
        assert_eq!(of(Format::Logfmt, "a sentence with x=1 in it"), "x=1;");
        assert_eq!(of(Format::Json, "x=1"), "");
        assert_eq!(of(Format::Off, r#"{"a":1}"#), "");
        assert_eq!(of(Format::Auto, r#"{"a":"#), "");
        assert_eq!(of(Format::Logfmt, r#"a="open"#), "");
    }
}
