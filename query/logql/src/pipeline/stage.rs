//! What each stage does to a line and its labels.

use signal::{MatchOp, Timestamp, TraceId};

use super::state::{ERROR_DETAILS, Origin, State, is_special};
use super::trace;
use crate::ast::{Condition, Convert, LinePattern, LogfmtOptions, Source, Stage};
use crate::fields;

const JSON: &str = "JSONParserErr";
const LOGFMT: &str = "LogfmtParserErr";
const TEMPLATE: &str = "TemplateFormatErr";
const FILTER: &str = "LabelFilterErr";
const EXTRACTION: &str = "SampleExtractionErr";

pub(super) fn line_passes(negate: bool, any: &[LinePattern], line: &str, id: TraceId) -> bool {
    let found = any.iter().any(|p| match p {
        // Who looks for a trace's id looks for its records, whether they say it in their text or beside it.
        LinePattern::Contains(s) => {
            line.contains(s.as_str()) || id.is_valid() && !negate && trace(s) == Some(id)
        }
        LinePattern::Regex(r) => r.is_match(line),
        LinePattern::Shape(s) => s.fits(line),
        LinePattern::Ip(range) => range.is_in(line),
    });
    found != negate
}

impl Stage {
    /// False if the line goes no further.
    pub(super) fn apply(&self, s: &mut State, time: Timestamp) -> bool {
        match self {
            Stage::Line { negate, any } => return line_passes(*negate, any, &s.line, s.trace),
            Stage::Json(wanted) if wanted.is_empty() => {
                let mut found = Vec::new();
                if fields::json(&s.line, |k, v| found.push((k, v))) {
                    found.into_iter().for_each(|(k, v)| s.set_parsed(&k, v));
                } else {
                    s.fail(JSON, "the line is no JSON object");
                }
            }
            Stage::Json(wanted) => match fields::json_at(&s.line, wanted) {
                Some(found) => wanted.iter().zip(found).for_each(|((to, _), v)| s.set_parsed(to, v)),
                None => s.fail(JSON, "the line is not JSON"),
            },
            Stage::Logfmt(options, wanted) => logfmt(s, *options, wanted),
            Stage::Regexp(r) => {
                let line = s.line.clone();
                if let Some(c) = r.captures(&line) {
                    for n in r.capture_names().flatten() {
                        if let Some(m) = c.name(n) {
                            s.set_parsed(n, m.as_str().to_owned());
                        }
                    }
                }
            }
            Stage::Pattern(shape) => {
                let mut found = Vec::new();
                shape.captures(&s.line, |n, v| found.push((n.to_owned(), v.to_owned())));
                found.into_iter().for_each(|(n, v)| s.set_parsed(&n, v));
            }
            Stage::Unpack => match serde_json::from_str(&s.line) {
                Ok(serde_json::Value::Object(packed)) => {
                    for (k, v) in packed {
                        let serde_json::Value::String(v) = v else { continue };
                        if k == "_entry" { s.line = v } else { s.set_parsed(&fields::name(&k), v) }
                    }
                }
                _ => s.fail(JSON, "the line is no JSON object"),
            },
            Stage::Label(c) => return c.holds(s),
            Stage::LineFormat(t) => match render(t, s, time) {
                Ok(line) => s.line = line,
                Err(e) => s.fail(TEMPLATE, &e),
            },
            Stage::LabelFormat(all) => label_format(s, all, time),
            Stage::Drop(all) => {
                s.labels.retain(|(n, v, _)| {
                    !all.iter().any(|(name, m)| name == n && m.as_ref().is_none_or(|m| m.matches(v)))
                });
                if !s.has_failed() {
                    s.remove(ERROR_DETAILS);
                }
            }
            Stage::Keep(all) => s.labels.retain(|(n, v, _)| {
                is_special(n)
                    || all.iter().any(|(name, m)| name == n && m.as_ref().is_none_or(|m| m.matches(v)))
            }),
            Stage::Unwrap { label, convert } => {
                let Some(text) = s.get(label).map(str::to_owned) else { return false };
                s.remove(label);
                match number(&text, *convert) {
                    Some(v) => s.value = Some(v),
                    None => {
                        s.value = Some(0.0);
                        s.fail(EXTRACTION, &format!("{label}={text:?} is no such number"));
                    }
                }
            }
            Stage::Decolorize => s.line = decolorize(&s.line),
        }
        true
    }
}

fn logfmt(s: &mut State, options: LogfmtOptions, wanted: &[(String, String)]) {
    let mut found = Vec::new();
    let read = fields::logfmt(&s.line, |k, v| found.push((k.to_owned(), v)));
    if options.strict
        && let Err(e) = read
    {
        s.fail(LOGFMT, &e);
        return;
    }
    if wanted.is_empty() {
        for (k, v) in found {
            if options.keep_empty || !v.is_empty() {
                s.set_parsed(&fields::name(&k), v);
            }
        }
        return;
    }
    for (to, from) in wanted {
        let v = found.iter().find(|(k, _)| k == from || fields::name(k) == *from);
        s.set_parsed(to, v.map_or(String::new(), |(_, v)| v.clone()));
    }
}

fn label_format(s: &mut State, all: &[(String, Source)], time: Timestamp) {
    for (to, source) in all {
        match source {
            Source::Label(from) => {
                if let Some(v) = s.get(from).map(str::to_owned) {
                    s.remove(from);
                    s.set(to, v, Origin::Parsed);
                }
            }
            Source::Template(t) => match render(t, s, time) {
                Ok(v) => s.set(to, v, Origin::Parsed),
                Err(e) => s.fail(TEMPLATE, &e),
            },
        }
    }
}

fn render(t: &crate::template::Template, s: &State, time: Timestamp) -> Result<String, String> {
    t.render(&|n| match n {
        "__line__" => Some(s.line.clone()),
        "__timestamp__" => Some(time.nanos().to_string()),
        n => s.get(n).map(str::to_owned),
    })
}

fn number(text: &str, convert: Convert) -> Option<f64> {
    match convert {
        Convert::Number => text.parse().ok(),
        Convert::Duration => fields::duration(text),
        Convert::Bytes => fields::bytes(text),
    }
}

/// Without ANSI escape sequences.
fn decolorize(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("\u{1b}[") {
        out.push_str(&rest[..at]);
        let after = &rest[at + 2..];
        let end = after.find(|c: char| c.is_ascii_alphabetic()).map_or(after.len(), |i| i + 1);
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

impl Condition {
    /// Whether the line passes. A value that cannot be compared is an error in the labels, and passes, so that a
    /// filter on `__error__` may decide.
    fn holds(&self, s: &mut State) -> bool {
        match self {
            Condition::And(a, b) => a.holds(s) && b.holds(s),
            Condition::Or(a, b) => a.holds(s) || b.holds(s),
            Condition::Match(m) => {
                m.matches(s.get(&m.name).unwrap_or(""))
                    // A trace's id may stand in the line alone.
                    || m.op == MatchOp::Equal
                        && m.name == "trace_id"
                        && s.get("trace_id").is_none()
                        && trace(&m.value).is_some()
                        && s.line.contains(&m.value)
            }
            Condition::Ip { label, negate, range } => {
                s.has_failed() || s.get(label).is_some_and(|v| range.is_in(v) != *negate)
            }
            Condition::Compare { label, op, value, convert } => {
                if s.has_failed() {
                    return true;
                }
                let Some(text) = s.get(label) else { return false };
                let Some(v) = number(text, *convert) else {
                    let details = format!("{label}={text:?} cannot be compared with a {}", convert.name());
                    s.fail(FILTER, &details);
                    return true;
                };
                match *op {
                    "==" => v == *value,
                    "!=" => v != *value,
                    ">" => v > *value,
                    "<" => v < *value,
                    ">=" => v >= *value,
                    _ => v <= *value,
                }
            }
        }
    }
}

impl Convert {
    fn name(self) -> &'static str {
        match self {
            Convert::Number => "number",
            Convert::Duration => "duration",
            Convert::Bytes => "size",
        }
    }
}
