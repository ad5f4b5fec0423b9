//! The templates of labels and annotations: Go's text/template with Prometheus' functions
//! (Prometheus: template/template.go).

mod humanize;

use std::sync::Arc;

use regex::Regex;
use signal::Labels;
use template::{Functions, Template, Value};

use humanize::float;

/// What every text may use without declaring it.
const DECLARED: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// Prometheus' own functions.
pub const NAMES: &[&str] = &[
    "query",
    "first",
    "label",
    "value",
    "strvalue",
    "args",
    "reReplaceAll",
    "safeHtml",
    "match",
    "title",
    "toUpper",
    "toLower",
    "graphLink",
    "tableLink",
    "sortByLabel",
    "stripPort",
    "stripDomain",
    "humanize",
    "humanize1024",
    "humanizeDuration",
    "humanizePercentage",
    "humanizeTimestamp",
    "toTime",
    "toDuration",
    "now",
    "pathPrefix",
    "externalURL",
    "parseDuration",
    "urlQueryEscape",
];

/// Asks PromQL at the time of the evaluation: label sets and values.
pub(crate) type Query<'a> = &'a dyn Fn(&str) -> Result<Vec<(Labels, f64)>, String>;

/// What the texts of one evaluation share.
pub(crate) struct Texts<'a> {
    pub(crate) query: Query<'a>,
    /// Milliseconds.
    pub(crate) now: i64,
    pub(crate) external_url: &'a str,
    pub(crate) external_labels: &'a Value,
}

/// What is wrong with a text, if it cannot be a template.
pub(crate) fn check(alert: &str, text: &str) -> Result<(), String> {
    let none = Texts { query: &|_| Ok(Vec::new()), now: 0, external_url: "", external_labels: &Value::Nil };
    let t = Template::parse(&format!("{DECLARED}{text}"), &none);
    t.map(|_| ()).map_err(|e| format!("template: __alert_{alert}:{}: {e}", e.line))
}

/// Labels as templates see them.
pub(crate) fn labels_value(labels: &Labels) -> Value {
    Value::Texts(Arc::new(labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()))
}

impl Texts<'_> {
    /// Expands a text for one series; what fails says so in its place, as Prometheus does.
    pub(crate) fn expand(&self, alert: &str, text: &str, labels: &Value, value: f64) -> String {
        // Most texts hold no template.
        if !text.contains("{{") {
            return text.to_owned();
        }
        let root = Value::Record(Arc::new(vec![
            ("Labels", labels.clone()),
            ("ExternalLabels", self.external_labels.clone()),
            ("ExternalURL", Value::Text(self.external_url.to_owned())),
            ("Value", Value::Float(value)),
        ]));
        let done = Template::parse(&format!("{DECLARED}{text}"), self)
            .map_err(|e| ("parsing", e))
            .and_then(|t| t.render(root, self).map_err(|e| ("executing", e)));
        done.unwrap_or_else(|(what, e)| {
            let name = format!("__alert_{alert}");
            tracing::warn!(alert, error = %e, "an alert's text could not be expanded");
            format!(
                "<error expanding template: error {what} template {name}: template: {name}:{}: {e}>",
                e.line
            )
        })
    }
}

fn sample(labels: &Labels, value: f64) -> Value {
    Value::Record(Arc::new(vec![("Labels", labels_value(labels)), ("Value", Value::Float(value))]))
}

fn field(of: &Value, name: &str) -> Option<Value> {
    match of {
        Value::Record(fields) => fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone()),
        _ => None,
    }
}

fn label(of: &Value, name: &str) -> Option<String> {
    match field(of, "Labels")? {
        Value::Texts(all) => Some(all.get(name).cloned().unwrap_or_default()),
        _ => None,
    }
}

impl Functions for Texts<'_> {
    fn knows(&self, name: &str) -> bool {
        NAMES.contains(&name)
    }

    fn root(&self, name: &str) -> Result<Value, String> {
        Err(format!("can't evaluate field {name}"))
    }

    fn call(&self, name: &str, a: &[Value]) -> Result<Value, String> {
        let wants = |n: usize| match a.len() == n {
            true => Ok(()),
            false => Err(format!("wrong number of args for {name}: want {n} got {}", a.len())),
        };
        let arg =
            |i: usize| a.get(i).ok_or_else(|| format!("wrong number of args for {name}: got {}", a.len()));
        let text = |i: usize| match arg(i)? {
            Value::Text(t) => Ok(t.clone()),
            v => Err(format!("wrong type for value; expected string; got {}", v.type_name())),
        };
        let said = |s: String| Ok(Value::Text(s));
        let failed = |e: String| format!("error calling {name}: {e}");
        let number = |i: usize| float(arg(i)?).map_err(failed);
        match name {
            "query" => {
                wants(1)?;
                let all = (self.query)(&text(0)?).map_err(failed)?;
                Ok(Value::List(all.iter().map(|(l, v)| sample(l, *v)).collect()))
            }
            "first" => match arg(0)? {
                Value::List(l) => l
                    .first()
                    .cloned()
                    .ok_or_else(|| failed("first() called on vector with no elements".to_owned())),
                v => Err(format!("wrong type for value; expected a query's result; got {}", v.type_name())),
            },
            "label" => label(arg(1)?, &text(0)?)
                .map(Value::Text)
                .ok_or_else(|| failed("no sample was given".to_owned())),
            "value" => field(arg(0)?, "Value").ok_or_else(|| failed("no sample was given".to_owned())),
            "strvalue" => said(label(arg(0)?, "__value__").unwrap_or_default()),
            "args" => Ok(Value::Map((0..).map(|i| format!("arg{i}")).zip(a.iter().cloned()).collect())),
            "sortByLabel" => match arg(1)? {
                Value::List(l) => {
                    let by = text(0)?;
                    let mut all = l.clone();
                    all.sort_by_key(|s| label(s, &by).unwrap_or_default());
                    Ok(Value::List(all))
                }
                v => Err(format!("wrong type for value; expected a query's result; got {}", v.type_name())),
            },
            "reReplaceAll" => {
                wants(3)?;
                let re = Regex::new(&text(0)?).map_err(|e| failed(e.to_string()))?;
                said(re.replace_all(&text(2)?, text(1)?.as_str()).into_owned())
            }
            "match" => {
                wants(2)?;
                let re = Regex::new(&text(0)?).map_err(|e| failed(e.to_string()))?;
                Ok(Value::Bool(re.is_match(&text(1)?)))
            }
            "safeHtml" => said(text(0)?),
            "title" => said(title(&text(0)?)),
            "toUpper" => said(text(0)?.to_uppercase()),
            "toLower" => said(text(0)?.to_lowercase()),
            "graphLink" => said(link(&text(0)?, 0)),
            "tableLink" => said(link(&text(0)?, 1)),
            "urlQueryEscape" => said(form_urlencoded::byte_serialize(text(0)?.as_bytes()).collect()),
            "stripPort" => {
                let all = text(0)?;
                said(split_host_port(&all).map_or(all.clone(), |(host, _)| host))
            }
            "stripDomain" => said(strip_domain(&text(0)?)),
            "humanize" => said(humanize::humanize(number(0)?)),
            "humanize1024" => said(humanize::humanize1024(number(0)?)),
            "humanizeDuration" => said(humanize::duration(number(0)?)),
            "humanizePercentage" => said(humanize::percentage(number(0)?)),
            "humanizeTimestamp" => humanize::timestamp(number(0)?).map(Value::Text).map_err(failed),
            "toTime" => humanize::time(number(0)?).map(Value::Time).map_err(failed),
            "toDuration" => Ok(Value::Duration((number(0)? * 1e9) as i64)),
            "now" => Ok(Value::Float(self.now as f64 / 1000.0)),
            "pathPrefix" => said(path(self.external_url).to_owned()),
            "externalURL" => said(self.external_url.to_owned()),
            "parseDuration" => {
                let all = text(0)?;
                let (sign, rest) = all.strip_prefix('-').map_or((1.0, all.as_str()), |r| (-1.0, r));
                let d = crate::file::parse_duration(rest).map_err(failed)?;
                Ok(Value::Float(sign * d.as_secs_f64()))
            }
            _ => Err(format!("function {name:?} not defined")),
        }
    }
}

/// A relative link to an expression's graph (0) or table (1), as Prometheus' own page takes it.
pub(crate) fn link(expr: &str, tab: u8) -> String {
    let escaped: String = form_urlencoded::byte_serialize(expr.as_bytes()).collect();
    format!("/graph?g0.expr={escaped}&g0.tab={tab}")
}

/// The path of a URL.
fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, r)| r);
    rest.find('/').map_or("", |i| &rest[i..])
}

/// A capital at the beginning of each word; the rest stays.
fn title(s: &str) -> String {
    let mut inside = false;
    s.chars()
        .flat_map(|c| {
            let begins = !inside && c.is_alphabetic();
            // An apostrophe does not end a word.
            inside = c.is_alphanumeric() || inside && matches!(c, '\'' | '’' | '_' | '.');
            if begins { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

/// `host:port` and `[v6]:port`.
fn split_host_port(s: &str) -> Option<(String, String)> {
    let (host, port) = s.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(inner) => Some((inner.strip_suffix(']')?.to_owned(), port.to_owned())),
        None if host.contains([':', '[', ']']) => None,
        None => Some((host.to_owned(), port.to_owned())),
    }
}

fn strip_domain(all: &str) -> String {
    let (host, port) = split_host_port(all).unwrap_or_else(|| (all.to_owned(), String::new()));
    if host.parse::<std::net::IpAddr>().is_ok() {
        return all.to_owned();
    }
    let first = host.split('.').next().unwrap_or_default();
    if port.is_empty() { first.to_owned() } else { format!("{first}:{port}") }
}

#[cfg(test)]
mod tests;
