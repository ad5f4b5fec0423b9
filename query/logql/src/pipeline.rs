//! The stages of a log query, applied to one record at a time.

use log_index::Search;
use signal::{Labels, LogRecord, MatchOp, Matcher, Timestamp};

use crate::ast::{Condition, Convert, LinePattern, LogExpr, Source, Stage};
use crate::fields;

/// A log query, ready to run.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub(crate) log: LogExpr,
}

/// A record that came through.
#[derive(Clone, Debug, PartialEq)]
pub struct Processed {
    pub line: String,
    /// The stream's labels, then what the record knows of itself, then what was read out of the line.
    pub labels: Labels,
    /// What `unwrap` read.
    pub(crate) value: Option<f64>,
}

/// Where a label came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Stream,
    /// The record's own attributes: what Loki calls structured metadata.
    Record,
    Parsed,
}

struct State {
    line: String,
    labels: Vec<(String, String, Origin)>,
    value: Option<f64>,
}

impl State {
    fn get(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _, _)| n == name).map(|(_, v, _)| v.as_str())
    }

    fn set(&mut self, name: &str, value: String, origin: Origin) {
        match self.labels.iter_mut().find(|(n, _, _)| n == name) {
            Some(l) => (l.1, l.2) = (value, origin),
            None => self.labels.push((name.to_owned(), value, origin)),
        }
    }

    /// What a stage could not do is said in labels, so that a filter on them can drop or keep the line.
    fn fail(&mut self, error: &str, details: &str) {
        self.set("__error__", error.to_owned(), Origin::Parsed);
        self.set("__error_details__", details.to_owned(), Origin::Parsed);
    }

    /// A field read out of the line never takes a stream label's place.
    fn set_parsed(&mut self, name: &str, value: String) {
        let taken = self.labels.iter().any(|(n, _, o)| n == name && *o == Origin::Stream);
        if taken {
            self.set(&format!("{name}_extracted"), value, Origin::Parsed)
        } else {
            self.set(name, value, Origin::Parsed)
        }
    }
}

impl Pipeline {
    pub(crate) fn new(log: LogExpr) -> Self {
        Pipeline { log }
    }

    /// The stream selector.
    pub fn matchers(&self) -> &[Matcher] {
        &self.log.matchers
    }

    /// What of the query the index can use: substrings every line must have, and a trace id.
    pub(crate) fn search(&self, enforce: &[Matcher], start: Timestamp, end: Timestamp) -> Search {
        let mut matchers = self.log.matchers.clone();
        matchers.extend(enforce.iter().cloned());
        let mut s = Search::new(matchers, start, end);
        for stage in &self.log.stages {
            match stage {
                Stage::Line { negate: false, any } => {
                    if let [LinePattern::Contains(needle)] = any.as_slice()
                        && !needle.is_empty()
                    {
                        s.needles.push(needle.clone());
                    }
                }
                Stage::Label(Condition::Match(m))
                    if m.op == MatchOp::Equal
                        && matches!(m.name.as_str(), "trace_id" | "traceID" | "trace_id_extracted") =>
                {
                    s.trace_id = m.value.parse().ok();
                }
                // From here on the line, or what is called trace_id, is no longer the record's.
                Stage::LineFormat(_) | Stage::LabelFormat(_) | Stage::Decolorize => break,
                _ => {}
            }
        }
        s
    }

    /// What a record becomes, or `None` if a filter stops it.
    pub fn apply(&self, stream: &Labels, record: &LogRecord) -> Option<Processed> {
        let state = self.run(stream, record)?;
        let labels = Labels::from_pairs(state.labels.iter().map(|(n, v, _)| (n, v)));
        Some(Processed { line: state.line, labels, value: state.value })
    }

    /// As [`Pipeline::apply`], with only those labels that make a series of a metric query: the stream's, those
    /// read out of the line, and of the record's own only those the query names.
    pub(crate) fn apply_for_series(
        &self,
        stream: &Labels,
        record: &LogRecord,
        names: &[String],
    ) -> Option<Processed> {
        let state = self.run(stream, record)?;
        let labels =
            state.labels.iter().filter(|(n, _, o)| *o != Origin::Record || names.iter().any(|x| x == n));
        let labels = Labels::from_pairs(labels.map(|(n, v, _)| (n, v)));
        Some(Processed { line: state.line, labels, value: state.value })
    }

    fn run(&self, stream: &Labels, record: &LogRecord) -> Option<State> {
        // Line filters come first in most queries and need no labels: ask them before anything is built.
        let early = self.log.stages.iter().take_while(|s| matches!(s, Stage::Line { .. }));
        let mut skip = 0;
        for s in early {
            if let Stage::Line { negate, any } = s
                && !line_passes(*negate, any, &record.body)
            {
                return None;
            }
            skip += 1;
        }
        let mut state = State { line: record.body.clone(), labels: Vec::new(), value: None };
        state.labels.extend(stream.iter().map(|(n, v)| (n.to_owned(), v.to_owned(), Origin::Stream)));
        for (n, v) in record.attributes.iter() {
            let n = fields::name(n);
            if stream.get(&n).is_none() {
                state.set(&n, v.to_string(), Origin::Record);
            }
        }
        if record.severity.0 != 0 {
            state.set("detected_level", record.severity.as_str().to_owned(), Origin::Record);
            if state.get("level").is_none() {
                state.set("level", record.severity.as_str().to_owned(), Origin::Record);
            }
        }
        if record.trace_id.is_valid() {
            state.set("trace_id", record.trace_id.to_string(), Origin::Record);
        }
        if record.span_id.is_valid() {
            state.set("span_id", record.span_id.to_string(), Origin::Record);
        }
        for stage in self.log.stages.iter().skip(skip) {
            if !stage.apply(&mut state, record.timestamp) {
                return None;
            }
        }
        Some(state)
    }
}

fn line_passes(negate: bool, any: &[LinePattern], line: &str) -> bool {
    let found = any.iter().any(|p| match p {
        LinePattern::Contains(s) => line.contains(s.as_str()),
        LinePattern::Regex(r) => r.is_match(line),
        LinePattern::Shape(s) => s.fits(line),
        LinePattern::Ip(range) => range.is_in(line),
    });
    found != negate
}

impl Stage {
    fn apply(&self, s: &mut State, time: Timestamp) -> bool {
        match self {
            Stage::Line { negate, any } => return line_passes(*negate, any, &s.line),
            Stage::Json(wanted) if wanted.is_empty() => {
                let mut found = Vec::new();
                if fields::json(&s.line, |k, v| found.push((k, v))) {
                    found.into_iter().for_each(|(k, v)| s.set_parsed(&k, v));
                } else {
                    s.fail("JSONParserErr", "the line is no JSON object");
                }
            }
            Stage::Json(wanted) => {
                for (to, path) in wanted {
                    let v = fields::json_path(&s.line, path).unwrap_or_default();
                    s.set_parsed(to, v);
                }
            }
            Stage::Logfmt(wanted) => {
                let mut found = Vec::new();
                fields::logfmt(&s.line, |k, v| found.push((k.to_owned(), v)));
                if wanted.is_empty() {
                    found.into_iter().for_each(|(k, v)| s.set_parsed(&fields::name(&k), v));
                } else {
                    for (to, from) in wanted {
                        let v =
                            found.iter().find(|(k, _)| k == from).map_or(String::new(), |(_, v)| v.clone());
                        s.set_parsed(to, v);
                    }
                }
            }
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
                _ => s.fail("JSONParserErr", "the line is no JSON object"),
            },
            Stage::Label(c) => return c.holds(s),
            Stage::LineFormat(t) => match render(t, s, time) {
                Ok(line) => s.line = line,
                Err(e) => s.fail("TemplateFormatErr", &e),
            },
            Stage::LabelFormat(all) => {
                for (to, source) in all {
                    match source {
                        Source::Label(from) => {
                            let v = s.get(from).unwrap_or("").to_owned();
                            s.labels.retain(|(n, _, _)| n != from);
                            s.set(to, v, Origin::Parsed);
                        }
                        Source::Template(t) => match render(t, s, time) {
                            Ok(v) => s.set(to, v, Origin::Parsed),
                            Err(e) => s.fail("TemplateFormatErr", &e),
                        },
                    }
                }
            }
            Stage::Drop(all) => s.labels.retain(|(n, v, _)| {
                !all.iter().any(|(name, m)| name == n && m.as_ref().is_none_or(|m| m.matches(v)))
            }),
            Stage::Keep(all) => s.labels.retain(|(n, v, _)| {
                all.iter().any(|(name, m)| name == n && m.as_ref().is_none_or(|m| m.matches(v)))
            }),
            Stage::Unwrap { label, convert } => {
                let Some(text) = s.get(label).map(str::to_owned) else { return false };
                s.labels.retain(|(n, _, _)| n != label);
                match number(&text, *convert) {
                    Some(v) => s.value = Some(v),
                    None => s.fail("SampleExtractionErr", &format!("{label}={text:?} is no such number")),
                }
            }
            Stage::Decolorize => s.line = decolorize(&s.line),
        }
        true
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
        Convert::Number => text.trim().parse().ok(),
        Convert::Duration => fields::duration(text.trim()),
        Convert::Bytes => fields::bytes(text.trim()),
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
    fn holds(&self, s: &State) -> bool {
        match self {
            Condition::And(a, b) => a.holds(s) && b.holds(s),
            Condition::Or(a, b) => a.holds(s) || b.holds(s),
            Condition::Match(m) => m.matches(s.get(&m.name).unwrap_or("")),
            Condition::Ip { label, negate, range } => s.get(label).is_some_and(|v| range.has(v)) != *negate,
            Condition::Compare { label, op, value, convert } => {
                let Some(v) = s.get(label).and_then(|t| number(t, *convert)) else { return false };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(query: &str, body: &str) -> Option<(String, Labels)> {
        let p = crate::parse_log_query(query).expect(query);
        let r = LogRecord {
            body: body.to_owned(),
            severity: signal::Severity::WARN,
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("id"),
            ..LogRecord::default()
        };
        p.apply(&Labels::from_pairs([("app", "a")]), &r).map(|p| (p.line, p.labels))
    }

    #[test]
    fn stages() {
        let passes =
            |q: &str, body: &str, expect: bool| assert_eq!(run(q, body).is_some(), expect, "{q} on {body}");
        passes(r#"{app="a"} |= "x" != "y""#, "x", true);
        passes(r#"{app="a"} |= "x" != "y""#, "xy", false);
        passes(r#"{app="a"} |= "x" or "z""#, "z", true);
        passes(r#"{app="a"} | json | status >= 500 and dur > 1s"#, r#"{"status": 503, "dur": "1.5s"}"#, true);
        passes(r#"{app="a"} | json | status >= 500, dur > 2s"#, r#"{"status": 503, "dur": "1.5s"}"#, false);
        passes(r#"{app="a"} | logfmt | level="info" or size > 1KB"#, "size=2KB", true);
        passes(r#"{app="a"} | level="warn""#, "anything", true);
        passes(r#"{app="a"} | trace_id="4bf92f3577b34da6a3ce929d0e0e4736""#, "anything", true);
        passes(r#"{app="a"} | json | __error__="""#, "no json", false);
        passes(r#"{app="a"} |> "took <_> ms""#, "took 5 ms", true);
        passes(r#"{app="a"} !> "took <_> ms""#, "took 5 ms", false);
        passes(r#"{app="a"} |= ip("10.0.0.0/8")"#, "from 10.1.2.3:80", true);
        passes(r#"{app="a"} != ip("10.0.0.0/8") | json"#, "from 10.1.2.3:80", false);
        passes(r#"{app="a"} | logfmt | addr = ip("10.0.0.1-10.0.0.9")"#, "addr=10.0.0.7", true);
        passes(r#"{app="a"} | logfmt | addr != ip("10.0.0.1-10.0.0.9")"#, "addr=10.0.0.7", false);
        passes(r#"{app="a"} | pattern "<method> <path> <_>" | path="/x""#, "GET /x 200", true);
        passes(r#"{app="a"} | line_format "{{ div 1 0 }}" | __error__="TemplateFormatErr""#, "x", true);
        let unpacked =
            run(r#"{app="a"} | unpack | keep pod"#, r#"{"_entry": "the line", "pod": "p", "n": 1}"#);
        let (line, labels) = unpacked.expect("passes");
        assert_eq!((line.as_str(), labels.to_string().as_str()), ("the line", r#"{pod="p"}"#));
        let (line, labels) =
            run(r#"{app="a"} | json | line_format "{{.msg}}!" | label_format m=msg | drop level, detected_level, trace_id"#, r#"{"msg": "hi", "app": "other"}"#)
                .expect("passes");
        assert_eq!(line, "hi!");
        assert_eq!(labels.to_string(), r#"{app="a", app_extracted="other", m="hi"}"#);
    }
}
