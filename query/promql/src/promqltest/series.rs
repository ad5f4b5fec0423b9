//! The notation of series: `name{a="b"} 0+10x5 _x3 stale`.

use signal::{Labels, METRIC_NAME, stale_nan};

use crate::lex::{Token, lex};

/// A series' labels and values; `None` is a missing sample. The flag says that there were native histograms.
pub(super) type Described = (Labels, Vec<Option<f64>>, bool);

pub(super) fn parse_series(line: &str) -> Result<Described, String> {
    let (head, tail) = split_head(line);
    let labels = parse_labels(head)?;
    let (values, native) = parse_values(tail)?;
    Ok((labels, values, native))
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
                c if c.is_whitespace() && depth == 0 && !line[i..].trim_start().starts_with('{') => {
                    return line.split_at(i);
                }
                // Values that are native histograms begin with two braces, but only behind a space.
                c if c.is_whitespace() && depth == 0 && line[i..].trim_start().starts_with("{{") => {
                    return line.split_at(i);
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

fn parse_values(mut text: &str) -> Result<(Vec<Option<f64>>, bool), String> {
    let mut out = Vec::new();
    let mut native = false;
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return Ok((out, native));
        }
        if text.starts_with("{{") {
            // A native histogram, perhaps repeated or added to; its samples are left out.
            native = true;
            let end = text.rfind("}}").map_or(text.len(), |_| text.find("}}").map_or(text.len(), |i| i + 2));
            text = &text[end..];
            let word = text.find(char::is_whitespace).unwrap_or(text.len());
            let (operation, rest) = if text.starts_with('+') || text.starts_with('-') {
                let end = text.find("}}").map_or(word, |i| i + 2);
                let stop = text[end..].find(char::is_whitespace).map_or(text.len(), |i| i + end);
                (&text[end..stop], &text[stop..])
            } else {
                text.split_at(word)
            };
            let times: usize = operation.strip_prefix('x').and_then(|n| n.parse().ok()).unwrap_or(0);
            out.extend(std::iter::repeat_n(None, times + 1));
            text = rest;
            continue;
        }
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        text = rest;
        if word.starts_with('@') {
            // A start timestamp, which only start_timestamps.test has.
            continue;
        }
        expand(word, &mut out)?;
    }
}

fn expand(word: &str, out: &mut Vec<Option<f64>>) -> Result<(), String> {
    let bad = || format!("not a value: {word:?}");
    if let Some(rest) = word.strip_prefix('_') {
        let times = match rest.strip_prefix('x') {
            Some(n) => n.parse().map_err(|_| bad())?,
            None if rest.is_empty() => 1usize,
            None => return Err(bad()),
        };
        out.extend(std::iter::repeat_n(None, times));
        return Ok(());
    }
    if word == "stale" {
        out.push(Some(stale_nan()));
        return Ok(());
    }
    if let Some(v) = number(word) {
        out.push(Some(v));
        return Ok(());
    }
    let (value, times) = word.rsplit_once('x').ok_or_else(bad)?;
    let times: usize = times.parse().map_err(|_| bad())?;
    if let Some(v) = number(value) {
        out.extend(std::iter::repeat_n(Some(v), times + 1));
        return Ok(());
    }
    // `a+bxn` or `a-bxn`: the last sign that is not an exponent's splits it.
    let split = value
        .char_indices()
        .skip(1)
        .filter(|(i, c)| {
            let before = &value[..*i];
            (*c == '+' || *c == '-') && !(before.ends_with(['e', 'E']))
        })
        .map(|(i, _)| i)
        .find(|i| number(&value[..*i]).is_some())
        .ok_or_else(bad)?;
    let start = number(&value[..split]).ok_or_else(bad)?;
    let step = number(&value[split..]).ok_or_else(bad)?;
    let mut v = start;
    for _ in 0..=times {
        out.push(Some(v));
        v += step;
    }
    Ok(())
}

pub(super) fn number(s: &str) -> Option<f64> {
    let (sign, digits) = match s.as_bytes().first()? {
        b'-' => (-1.0, &s[1..]),
        b'+' => (1.0, &s[1..]),
        _ => (1.0, s),
    };
    let v = match digits.to_ascii_lowercase().as_str() {
        "inf" => f64::INFINITY,
        "nan" => f64::NAN,
        l if l.starts_with(|c: char| c.is_ascii_digit() || c == '.') => l.parse().ok()?,
        _ => return None,
    };
    Some(sign * v)
}
