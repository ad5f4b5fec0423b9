//! The notation of series: `name{a="b"} 0+10x5 _x3 stale {{schema:0 count:3 sum:4 buckets:[1 2]}}x2`.

use std::sync::Arc;

use signal::histogram::{CUSTOM_SCHEMA, ResetHint};
use signal::{FloatHistogram, Labels, METRIC_NAME, stale_nan};

use crate::lex::{Token, lex, parse_duration};

/// One step of a described series.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Omitted,
    Float(f64),
    Histogram {
        histogram: Arc<FloatHistogram>,
        /// The description says what is known of a reset.
        with_hint: bool,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) labels: Labels,
    pub(super) items: Vec<Item>,
    /// Start times relative to the samples' own, in milliseconds; empty if none are given.
    pub(super) starts: Vec<Option<i64>>,
}

/// A series in this notation: its labels, and its values one for each step.
pub fn describe(labels: &str, values: &str) -> Result<(Labels, Vec<super::Described>), String> {
    let all = parse_values(values)?.into_iter().map(|item| match item {
        Item::Omitted => super::Described::Omitted,
        Item::Float(v) => super::Described::Float(v),
        Item::Histogram { histogram, .. } => super::Described::Histogram(histogram),
    });
    Ok((describe_labels(labels)?, all.collect()))
}

/// `name{a="b"}`; nothing is no label.
pub fn describe_labels(text: &str) -> Result<Labels, String> {
    let text = text.trim();
    if text.is_empty() { Ok(Labels::empty()) } else { parse_labels(text) }
}

pub(super) fn parse_series(line: &str) -> Result<Described, String> {
    let (head, tail) = split_head(line);
    Ok(Described { labels: parse_labels(head)?, items: parse_values(tail)?, starts: Vec::new() })
}

/// Splits behind the labels.
fn split_head(line: &str) -> (&str, &str) {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    let mut depth = 0;
    for (i, c) in line.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"' | '\'') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' | '`' => quote = Some(c),
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        return line.split_at(i + 1);
                    }
                }
                // Values that are native histograms begin with two braces, but only behind a space.
                c if c.is_whitespace() && depth == 0 => {
                    let rest = line[i..].trim_start();
                    if !rest.starts_with('{') || rest.starts_with("{{") {
                        return line.split_at(i);
                    }
                }
                _ => {}
            },
        }
    }
    (line, "")
}

pub(super) fn parse_labels(head: &str) -> Result<Labels, String> {
    let bad = || format!("not a series: {head:?}");
    let tokens = lex(head).map_err(|e| format!("{head:?}: {e}"))?;
    let mut t = tokens.iter().map(|l| &l.token).peekable();
    let mut b = Labels::empty().builder();
    if let Some(Token::Ident(name)) = t.peek() {
        b.set(METRIC_NAME, name);
        t.next();
    } else if let Some(Token::Number(_)) = t.peek() {
        return Err(bad());
    }
    if let Some(Token::Op("{")) = t.peek() {
        t.next();
        loop {
            match t.next() {
                Some(Token::Op("}")) => break,
                Some(Token::Op(",")) => {}
                Some(Token::Ident(name) | Token::Str(name)) => {
                    if let Some(Token::Op("=")) = t.peek() {
                        t.next();
                        let Some(Token::Str(value)) = t.next() else { return Err(bad()) };
                        b.set(name, value);
                    } else {
                        b.set(METRIC_NAME, name);
                    }
                }
                _ => return Err(bad()),
            }
        }
    }
    if t.next() == Some(&Token::End) { Ok(b.build()) } else { Err(bad()) }
}

fn parse_values(mut text: &str) -> Result<Vec<Item>, String> {
    let mut out = Vec::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return Ok(out);
        }
        if text.starts_with("{{") {
            text = histograms(text, &mut out)?;
            continue;
        }
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        text = rest;
        expand(word, &mut out)?;
    }
}

/// `{{…}}`, `{{…}}x3`, `{{…}}+{{…}}x3`: gives back what follows.
fn histograms<'a>(text: &'a str, out: &mut Vec<Item>) -> Result<&'a str, String> {
    let (base, mut with_hint, mut rest) = histogram(text)?;
    let sign = rest.chars().next().filter(|c| matches!(c, '+' | '-'));
    let mut change = None;
    if let Some(sign) = sign {
        let (h, hint, after) = histogram(&rest[1..])?;
        change = Some((sign, h));
        with_hint = hint;
        rest = after;
    }
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    let times: usize = match word.strip_prefix('x') {
        Some(n) => n.parse().map_err(|_| format!("not a repetition: {word:?}"))?,
        None if word.is_empty() && change.is_none() => 0,
        None => return Err(format!("not a repetition: {word:?}")),
    };
    let mut h = base;
    for i in 0..=times {
        if i > 0
            && let Some((sign, change)) = &change
        {
            if h.schema > change.schema {
                return Err(format!(
                    "error combining histograms: cannot merge from schema {} to {}",
                    change.schema, h.schema
                ));
            }
            let done = if *sign == '+' { h.add(change) } else { h.sub(change) };
            done.map_err(|e| e.to_string())?;
        }
        out.push(Item::Histogram { histogram: Arc::new(h.clone()), with_hint });
    }
    Ok(after)
}

/// One `{{…}}`; the flag says that a hint about resets was given.
fn histogram(text: &str) -> Result<(FloatHistogram, bool, &str), String> {
    let inner = text.strip_prefix("{{").ok_or_else(|| format!("not a histogram: {text:?}"))?;
    let (mut body, after) = inner.split_once("}}").ok_or_else(|| format!("not closed: {text:?}"))?;
    let mut h = FloatHistogram::default();
    let (mut buckets, mut n_buckets) = (Vec::new(), Vec::new());
    let (mut offset, mut n_offset) = (0, 0);
    let mut with_hint = false;
    loop {
        body = body.trim_start();
        if body.is_empty() {
            break;
        }
        let (key, rest) = body.split_once(':').ok_or_else(|| format!("not key:value: {body:?}"))?;
        let end = if rest.starts_with('[') {
            rest.find(']').map(|i| i + 1).ok_or_else(|| format!("not closed: {rest:?}"))?
        } else {
            rest.find(char::is_whitespace).unwrap_or(rest.len())
        };
        let (value, rest) = rest.split_at(end);
        body = rest;
        let float = || number(value).ok_or_else(|| format!("error parsing {key} number: {value:?}"));
        let int = || value.parse::<i32>().map_err(|_| format!("error parsing {key} number: {value:?}"));
        let list = || -> Result<Vec<f64>, String> {
            let inner = value.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
            let inner = inner.ok_or_else(|| format!("error parsing {key} float array: {value:?}"))?;
            let all =
                inner.split_whitespace().map(|w| number(w).ok_or_else(|| format!("not a number: {w:?}")));
            all.collect()
        };
        match key {
            "schema" => h.schema = int()?,
            "sum" => h.sum = float()?,
            "count" => h.count = float()?,
            "z_bucket" => h.zero_count = float()?,
            "z_bucket_w" => h.zero_threshold = float()?,
            "custom_values" => h.bounds = list()?.into(),
            "buckets" => buckets = list()?,
            "n_buckets" => n_buckets = list()?,
            "offset" => offset = int()?,
            "n_offset" => n_offset = int()?,
            "counter_reset_hint" => {
                with_hint = true;
                h.hint = match value {
                    "unknown" => ResetHint::Unknown,
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NotReset,
                    "gauge" => ResetHint::Gauge,
                    _ => return Err(format!("error parsing counter_reset_hint: unknown value {value:?}")),
                };
            }
            _ => return Err(format!("unexpected {key:?} in histogram description")),
        }
    }
    h.positive = FloatHistogram::buckets(offset, &buckets);
    h.negative = FloatHistogram::buckets(n_offset, &n_buckets);
    if h.schema != CUSTOM_SCHEMA {
        h.bounds = Arc::default();
    }
    Ok((h, with_hint, after))
}

/// Start times: `_`, `_x3`, `-1m`, `-1mx3`, `-1m-30sx3`.
pub(super) fn parse_starts(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut out = Vec::new();
    for word in text.split_whitespace() {
        let bad = || format!("invalid ST item {word:?}");
        if let Some(rest) = word.strip_prefix('_') {
            let times = match rest.strip_prefix('x') {
                Some(n) => n.parse().map_err(|_| bad())?,
                None if rest.is_empty() => 1usize,
                None => return Err(bad()),
            };
            out.extend(std::iter::repeat_n(None, times));
            continue;
        }
        let (value, times) = match word.split_once('x') {
            Some((value, times)) => (value, Some(times.parse::<usize>().map_err(|_| bad())?)),
            None => (word, None),
        };
        // The last sign behind the first character begins the step.
        let split = value.char_indices().skip(1).find(|(_, c)| matches!(c, '+' | '-')).map(|(i, _)| i);
        let (base, step) = split.map_or((value, None), |i| (&value[..i], Some(&value[i..])));
        let mut v = signed_duration(base).ok_or_else(bad)?;
        let step = match step {
            Some(s) if times.is_some() => signed_duration(s).ok_or_else(bad)?,
            Some(_) => return Err(bad()),
            None => 0,
        };
        for _ in 0..=times.unwrap_or(0) {
            out.push(Some(v));
            v += step;
        }
    }
    Ok(out)
}

fn signed_duration(s: &str) -> Option<i64> {
    match s.as_bytes().first()? {
        b'-' => parse_duration(&s[1..]).map(|ms| -ms),
        b'+' => parse_duration(&s[1..]),
        _ => parse_duration(s),
    }
}

fn expand(word: &str, out: &mut Vec<Item>) -> Result<(), String> {
    let bad = || format!("not a value: {word:?}");
    if let Some(rest) = word.strip_prefix('_') {
        let times = match rest.strip_prefix('x') {
            Some(n) => n.parse().map_err(|_| bad())?,
            None if rest.is_empty() => 1usize,
            None => return Err(bad()),
        };
        out.extend(std::iter::repeat_n(Item::Omitted, times));
        return Ok(());
    }
    let value = |s: &str| if s == "stale" { Some(stale_nan()) } else { decimal(s) };
    if let Some(v) = value(word) {
        out.push(Item::Float(v));
        return Ok(());
    }
    let (head, times) = word.rsplit_once('x').ok_or_else(bad)?;
    let times: usize = times.parse().map_err(|_| bad())?;
    if let Some(v) = value(head) {
        out.extend(std::iter::repeat_n(Item::Float(v), times + 1));
        return Ok(());
    }
    // `a+bxn` or `a-bxn`: the sign that leaves a number on either side splits it, not that of an exponent.
    let split = head
        .char_indices()
        .skip(1)
        .filter(|(_, c)| matches!(c, '+' | '-'))
        .find_map(|(i, _)| Some((value(&head[..i])?, decimal(&head[i..])?)));
    let (mut v, step) = split.ok_or_else(bad)?;
    for _ in 0..=times {
        out.push(Item::Float(v));
        v += step;
    }
    Ok(())
}

/// In series there are no hexadecimal numbers: `0x8` is zero, nine times.
fn decimal(s: &str) -> Option<f64> {
    if s.to_ascii_lowercase().trim_start_matches(['+', '-']).starts_with("0x") { None } else { number(s) }
}

pub(super) fn number(s: &str) -> Option<f64> {
    let (sign, digits) = match s.as_bytes().first()? {
        b'-' => (-1.0, &s[1..]),
        b'+' => (1.0, &s[1..]),
        _ => (1.0, s),
    };
    let lower = digits.to_ascii_lowercase();
    let v = match lower.as_str() {
        "inf" => f64::INFINITY,
        "nan" => f64::NAN,
        l if l.starts_with("0x") => i64::from_str_radix(&l[2..], 16).ok()? as f64,
        l if l.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            l.parse().ok().or_else(|| Some(parse_duration(digits)? as f64 / 1000.0))?
        }
        _ => return None,
    };
    Some(sign * v)
}
