//! A script into commands.

use promql::promqltest::describe_labels;
use signal::{AttributeValue, Labels, LogRecord, LogStream, Severity, Timestamp};

pub(super) enum Command {
    Clear,
    Load(Vec<LogStream>),
    Eval(Eval),
}

pub(super) struct Eval {
    /// In the script, from 1.
    pub(super) line: usize,
    pub(super) when: When,
    pub(super) query: String,
    pub(super) fail: Option<Fail>,
    pub(super) ordered: bool,
    /// Lines of the answer, if only their number counts.
    pub(super) count: Option<usize>,
    pub(super) expected: Vec<Expected>,
}

pub(super) enum When {
    /// Milliseconds.
    Instant(i64),
    Range(i64, i64, i64),
    Log {
        start: i64,
        end: i64,
        limit: usize,
        forward: bool,
    },
    /// Only the query's text counts.
    Format,
}

pub(crate) enum Fail {
    Any,
    Message(String),
    Regex(regex::Regex),
}

pub(super) enum Expected {
    Entry { labels: Option<Labels>, at: i64, line: String },
    Series(Labels, Vec<Option<f64>>),
    Scalar(f64),
    Text(String),
}

pub(super) fn script(text: &str) -> Result<Vec<Command>, String> {
    let mut out = Vec::new();
    let mut lines = text.lines().enumerate().map(|(i, l)| (i + 1, l)).peekable();
    while let Some((number, line)) = lines.next() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut block = Vec::new();
        while let Some((n, l)) = lines.next_if(|(_, l)| l.starts_with([' ', '\t']) || l.trim().is_empty()) {
            let l = l.trim();
            if !l.is_empty() && !l.starts_with('#') {
                block.push((n, l));
            }
        }
        let wrong = |e: String| format!("line {number}: {e}");
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        out.push(match word {
            "clear" => Command::Clear,
            "load" => Command::Load(load(&block)?),
            "eval" => Command::Eval(eval(number, rest, &block).map_err(wrong)?),
            _ => return Err(wrong(format!("{word:?} is no command: clear, load or eval"))),
        });
    }
    Ok(out)
}

fn load(block: &[(usize, &str)]) -> Result<Vec<LogStream>, String> {
    let mut out: Vec<LogStream> = Vec::new();
    for (number, line) in block {
        let wrong = |e: String| format!("line {number}: {e}");
        if line.starts_with('{') {
            let labels = describe_labels(line).map_err(wrong)?;
            out.push(LogStream { labels, records: Vec::new() });
            continue;
        }
        let records = records(line).map_err(wrong)?;
        out.last_mut()
            .ok_or_else(|| wrong("a stream's labels come first".to_owned()))?
            .records
            .extend(records);
    }
    Ok(out)
}

/// `10s "line" a=b`, `0s..1m/10s "line {{i}}" a=b`
fn records(line: &str) -> Result<Vec<LogRecord>, String> {
    let (when, rest) = line.split_once(' ').ok_or("a time and a line in quotes are needed")?;
    let times: Vec<i64> = match when.split_once("..") {
        None => vec![millis(when)?],
        Some((from, rest)) => {
            let (to, step) = rest.split_once('/').ok_or("several times are written from..to/step")?;
            let (from, to, step) = (millis(from)?, millis(to)?, millis(step)?);
            if step <= 0 || (to - from) / step > 100_000 {
                return Err("the step is too small".to_owned());
            }
            (0..).map(|i| from + i * step).take_while(|t| *t <= to).collect()
        }
    };
    let (body, rest) = quoted(rest.trim_start())?;
    let mut record = LogRecord { body, ..LogRecord::default() };
    for (name, value) in pairs(rest)? {
        match name.as_str() {
            "severity" => record.severity = Severity::parse(&value),
            "trace_id" => record.trace_id = value.parse().map_err(|e| format!("trace_id: {e}"))?,
            "span_id" => record.span_id = value.parse().map_err(|e| format!("span_id: {e}"))?,
            _ => record.attributes.set(name, attribute(&value)),
        }
    }
    let numbered = times.into_iter().enumerate().map(|(i, t)| {
        let mut r = record.clone();
        r.timestamp = Timestamp::from_millis(t);
        r.body = r.body.replace("{{i}}", &i.to_string());
        r
    });
    Ok(numbered.collect())
}

pub(crate) fn attribute(text: &str) -> AttributeValue {
    match (text.parse::<i64>(), text.parse::<f64>(), text.parse::<bool>()) {
        (Ok(v), ..) => AttributeValue::Int(v),
        (_, Ok(v), _) => AttributeValue::Double(v),
        (.., Ok(v)) => AttributeValue::Bool(v),
        _ => AttributeValue::String(text.to_owned()),
    }
}

/// Milliseconds of `10s`, `1m30s`, `0`.
pub(crate) fn millis(text: &str) -> Result<i64, String> {
    let seconds = crate::fields::duration(text).ok_or_else(|| format!("{text:?} is no time: 10s, 1m30s"))?;
    Ok((seconds * 1000.0).round() as i64)
}

/// A text in quotes or backticks, and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    if let Some(raw) = text.strip_prefix('`') {
        let (inner, rest) = raw.split_once('`').ok_or("a ` is not closed")?;
        return Ok((inner.to_owned(), rest));
    }
    if !text.starts_with('"') {
        return Err(format!("a text in quotes is needed, not {text:?}"));
    }
    let (s, len) = crate::lex::quoted(text).map_err(|(_, e)| e.to_owned())?;
    Ok((s, &text[len..]))
}

/// `a=b c="d e"`
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(|| format!("{rest:?} is no name=value"))?;
        let (value, after) = match after.chars().next() {
            Some('"' | '`') => quoted(after)?,
            _ => {
                let end = after.find(' ').unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        out.push((name.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(out)
}

fn eval(line: usize, rest: &str, block: &[(usize, &str)]) -> Result<Eval, String> {
    let (when, query) = when(rest)?;
    let mut e = Eval { line, when, query, fail: None, ordered: false, count: None, expected: Vec::new() };
    for (number, text) in block {
        expectation(&mut e, text).map_err(|m| format!("(at {number}) {m}"))?;
    }
    Ok(e)
}

fn when(rest: &str) -> Result<(When, String), String> {
    let (kind, mut rest) = rest.split_once(' ').ok_or("instant, range, log or format is missing")?;
    if kind == "format" {
        return Ok((When::Format, rest.to_owned()));
    }
    let mut take = |word: &str| -> Option<String> {
        let after = rest.trim_start().strip_prefix(word)?.strip_prefix(' ')?.trim_start();
        let end = after.find(' ').unwrap_or(after.len());
        rest = &after[end..];
        Some(after[..end].to_owned())
    };
    let when = match kind {
        "instant" => When::Instant(millis(&take("at").ok_or("at TIME is missing")?)?),
        "range" | "log" => {
            let start = millis(&take("from").ok_or("from TIME is missing")?)?;
            let end = millis(&take("to").ok_or("to TIME is missing")?)?;
            if kind == "range" {
                When::Range(start, end, millis(&take("step").ok_or("step DURATION is missing")?)?)
            } else {
                let limit = match take("limit") {
                    Some(n) => n.parse().map_err(|_| "limit is a number")?,
                    None => 1000,
                };
                let forward = rest.trim_start().starts_with("forward ");
                rest = rest.trim_start().strip_prefix("forward ").unwrap_or(rest);
                When::Log { start, end, limit, forward }
            }
        }
        _ => return Err(format!("{kind:?}: instant, range, log or format is expected")),
    };
    Ok((when, rest.trim().to_owned()))
}

fn expectation(e: &mut Eval, text: &str) -> Result<(), String> {
    if let Some(what) = text.strip_prefix("expect ") {
        let (word, rest) = what.split_once(' ').unwrap_or((what, ""));
        match word {
            "fail" => {
                e.fail = Some(match rest.split_once(": ").or_else(|| rest.split_once(':')) {
                    Some(("msg", m)) => Fail::Message(m.trim().to_owned()),
                    Some(("regex", r)) => {
                        Fail::Regex(regex::Regex::new(r.trim()).map_err(|e| e.to_string())?)
                    }
                    _ if rest.is_empty() => Fail::Any,
                    _ => return Err("expect fail [msg: …|regex: …]".to_owned()),
                });
            }
            "ordered" => e.ordered = true,
            "lines" => e.count = Some(rest.trim().parse().map_err(|_| "expect lines N")?),
            _ => return Err(format!("expect {word}: fail, ordered or lines is known")),
        }
        return Ok(());
    }
    let expected = match &e.when {
        When::Format => Expected::Text(quoted(text)?.0),
        When::Log { .. } => entry(text)?,
        _ if text.starts_with('{') => series(text)?,
        _ => Expected::Scalar(text.parse().map_err(|_| format!("{text:?} is no series and no number"))?),
    };
    e.expected.push(expected);
    Ok(())
}

/// Where labels end.
fn split_labels(text: &str) -> Result<(&str, &str), String> {
    let mut quote = false;
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote => escaped = true,
            '"' => quote = !quote,
            '}' if !quote => return Ok((&text[..=i], text[i + 1..].trim_start())),
            _ => {}
        }
    }
    Err("labels are not closed".to_owned())
}

/// `{labels} 10s "line"`
fn entry(text: &str) -> Result<Expected, String> {
    let (labels, rest) = match text.starts_with('{') {
        true => split_labels(text).and_then(|(l, r)| Ok((Some(describe_labels(l)?), r)))?,
        false => (None, text),
    };
    let (at, line) = rest.split_once(' ').ok_or("a time and a line in quotes are needed")?;
    Ok(Expected::Entry { labels, at: millis(at)?, line: quoted(line.trim_start())?.0 })
}

/// `{labels} 1 _ 2.5 3x4`
fn series(text: &str) -> Result<Expected, String> {
    let (labels, values) = split_labels(text)?;
    let mut out = Vec::new();
    for word in values.split_whitespace() {
        let (value, times) = match word.split_once('x') {
            Some((v, n)) => (v, n.parse::<usize>().map_err(|_| format!("{word:?} is no value"))?),
            None => (word, 1),
        };
        let v = match value {
            "_" => None,
            v => Some(v.parse::<f64>().map_err(|_| format!("{word:?} is no value"))?),
        };
        out.extend(std::iter::repeat_n(v, times.min(11_000)));
    }
    Ok(Expected::Series(describe_labels(labels)?, out))
}
