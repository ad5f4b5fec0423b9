//! The two text formats, line by line and without a copy: what a line says about its series stays text, so that a
//! scraper that has seen it before need not read it again.
//!
//! Sources: prometheus.io/docs/instrumenting/exposition_formats, OpenMetrics 1.0.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memchr3};

use super::series::{is_label_name, quoted, read_pairs};
use super::{Example, ParseError};

/// How a text is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 0.0.4: milliseconds, free spacing, comments.
    Text,
    /// OpenMetrics 1.0 as Prometheus takes it: its spacing and its end, but not its rules about families.
    OpenMetrics,
    /// OpenMetrics 1.0 to the letter.
    Strict,
}

impl Format {
    pub(crate) fn is_text(self) -> bool {
        self == Format::Text
    }
}

/// What a line about a family says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Type,
    Help,
    Unit,
}

/// One line.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    Sample(Line<'a>),
    /// The text still has its escapes.
    About {
        word: Word,
        family: Cow<'a, str>,
        text: &'a str,
    },
}

/// A sample, its series not yet read.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// `name{label="value"}` as it is written.
    pub(crate) series: &'a str,
    pub(crate) value: f64,
    /// Milliseconds.
    pub(crate) timestamp: Option<i64>,
    /// What stands behind ` # `.
    pub(crate) example: Option<&'a str>,
}

/// What Prometheus stores for any NaN but the stale marker.
const NORMAL_NAN: u64 = 0x7ff8_0000_0000_0001;

/// Reads one line after the other. After an error it gives nothing more.
pub(crate) struct Reader<'a> {
    rest: &'a str,
    format: Format,
    line: usize,
    ended: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str, format: Format) -> Self {
        Reader { rest: text, format, line: 0, ended: false }
    }

    /// Of the item given last, from 1.
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    fn fail(&mut self, what: &'static str) -> ParseError {
        self.rest = "";
        self.ended = true;
        ParseError { line: self.line, what }
    }

    /// `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Result<Item<'a>, ParseError>> {
        loop {
            if self.rest.is_empty() {
                if self.format.is_text() || self.ended {
                    return None;
                }
                return Some(Err(self.fail("data does not end with # EOF")));
            }
            let (line, rest) = match memchr(b'\n', self.rest.as_bytes()) {
                Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
                None => (self.rest, ""),
            };
            self.rest = rest;
            self.line += 1;
            if self.format.is_text() {
                let line = line.strip_suffix('\r').unwrap_or(line).trim_start_matches([' ', '\t']);
                if line.is_empty() {
                    continue;
                }
                if let Some(comment) = line.strip_prefix('#') {
                    match about(comment) {
                        Some(item) => return Some(Ok(item)),
                        None => continue,
                    }
                }
                return Some(sample(line).map(Item::Sample).map_err(|what| self.fail(what)));
            }
            if self.ended {
                return Some(Err(self.fail("unexpected data after # EOF")));
            }
            if line == "# EOF" {
                self.ended = true;
                continue;
            }
            let item = match line.strip_prefix("# ") {
                Some(comment) => strict_about(comment),
                None => strict_sample(line).map(Item::Sample),
            };
            return Some(item.map_err(|what| self.fail(what)));
        }
    }
}

/// The name of a family, quoted or not, and what follows it.
fn family(text: &str) -> Option<(Cow<'_, str>, &str)> {
    if let Some(inside) = text.strip_prefix('"') {
        return quoted(inside).ok();
    }
    let end = memchr2(b' ', b'\t', text.as_bytes()).unwrap_or(text.len());
    Some((Cow::Borrowed(&text[..end]), &text[end..]))
}

/// A comment of 0.0.4: anything may stand in one.
fn about(comment: &str) -> Option<Item<'_>> {
    let blank = [' ', '\t'];
    let comment = comment.trim_start_matches(blank);
    let (word, rest) = comment.split_once(blank)?;
    let word = match word {
        "TYPE" => Word::Type,
        "HELP" => Word::Help,
        "UNIT" => Word::Unit,
        _ => return None,
    };
    let (family, rest) = family(rest.trim_start_matches(blank))?;
    (!family.is_empty()).then(|| Item::About { word, family, text: rest.trim_matches(blank) })
}

fn strict_about(comment: &str) -> Result<Item<'_>, &'static str> {
    let (word, rest) = comment.split_once(' ').ok_or("not HELP, TYPE, UNIT or EOF")?;
    let word = match word {
        "TYPE" => Word::Type,
        "HELP" => Word::Help,
        "UNIT" => Word::Unit,
        _ => return Err("not HELP, TYPE, UNIT or EOF"),
    };
    let (family, rest) = family(rest).ok_or("a quote does not end")?;
    if family.is_empty() || rest.is_empty() {
        return Err("a line about a family needs its name and a text");
    }
    let text = rest.strip_prefix(' ').ok_or("a space is missing after the family's name")?;
    Ok(Item::About { word, family, text })
}

/// Where the series ends: after its braces, or before the first blank if it has none.
fn series_end(line: &str, blanks: bool) -> Result<usize, &'static str> {
    let bytes = line.as_bytes();
    let mut at = memchr3(b'{', b' ', b'\t', bytes).ok_or("a sample has no value")?;
    if blanks && bytes[at] != b'{' {
        // `name {…}`: a value cannot begin with a brace.
        let next = bytes[at..].iter().position(|b| !matches!(b, b' ' | b'\t')).map(|n| at + n);
        match next {
            Some(n) if bytes[n] == b'{' => at = n,
            _ => return Ok(at),
        }
    }
    if bytes[at] != b'{' {
        return Ok(at);
    }
    at += 1;
    loop {
        at += memchr2(b'"', b'}', &bytes[at..]).ok_or("a label set does not end")?;
        if bytes[at] == b'}' {
            return Ok(at + 1);
        }
        at += 1;
        loop {
            at += memchr2(b'"', b'\\', &bytes[at..]).ok_or("a quote does not end")?;
            if bytes[at] == b'"' {
                at += 1;
                break;
            }
            at += 2;
            if at > bytes.len() {
                return Err("a quote does not end");
            }
        }
    }
}

fn sample(line: &str) -> Result<Line<'_>, &'static str> {
    let (series, rest) = line.split_at(series_end(line, true)?);
    // This format has no exemplars; some write them all the same.
    let rest = match memchr(b'#', rest.as_bytes()) {
        Some(at) => &rest[..at],
        None => rest,
    };
    let mut words = rest.split([' ', '\t']).filter(|w| !w.is_empty());
    let value = number(words.next().ok_or("a sample has no value")?).ok_or("not a number")?;
    let timestamp = match words.next() {
        None => None,
        Some(w) => Some(w.parse().map_err(|_| "not a timestamp in milliseconds")?),
    };
    if words.next().is_some() {
        return Err("more than name, value and timestamp");
    }
    Ok(Line { series, value, timestamp, example: None })
}

/// ` word` up to the next space.
fn word(text: &str) -> Result<(&str, &str), &'static str> {
    let text = text.strip_prefix(' ').ok_or("a space is missing")?;
    let end = memchr(b' ', text.as_bytes()).unwrap_or(text.len());
    if end == 0 {
        return Err("a number is missing, or there are two spaces");
    }
    Ok(text.split_at(end))
}

fn strict_sample(line: &str) -> Result<Line<'_>, &'static str> {
    let (series, rest) = line.split_at(series_end(line, false)?);
    let (value, mut rest) = word(rest)?;
    let value = number(value).ok_or("not a number")?;
    let mut timestamp = None;
    if !rest.is_empty() && !rest.starts_with(" #") {
        let (seconds, after) = word(rest)?;
        timestamp = Some(millis(seconds)?);
        rest = after;
    }
    let example = match rest.strip_prefix(" # ") {
        Some(example) => Some(example),
        None if rest.is_empty() => None,
        None => return Err("more than name, value and timestamp"),
    };
    Ok(Line { series, value, timestamp, example })
}

/// `{trace_id="…"} value [seconds]`
pub(crate) fn example(text: &str, strict: bool) -> Result<Example, &'static str> {
    let end = series_end(text, false)?;
    let (set, rest) = text.split_at(end);
    if !set.starts_with('{') {
        return Err("an exemplar has no labels");
    }
    let mut labels = Vec::new();
    read_pairs(set, strict, &mut labels)?;
    if labels.iter().any(|(n, _)| !is_label_name(n)) && strict {
        return Err("not a label name");
    }
    // OpenMetrics 1.0: names and values together.
    if labels.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum::<usize>() > 128 {
        return Err("an exemplar's labels are longer than 128 characters");
    }
    let (value, rest) = word(rest)?;
    let value = number(value).ok_or("not a number")?;
    let timestamp = if rest.is_empty() {
        None
    } else {
        let (seconds, after) = word(rest)?;
        if !after.is_empty() {
            return Err("more than labels, value and timestamp");
        }
        Some(millis(seconds)?)
    };
    Ok(Example { labels, value, timestamp })
}

/// Whole numbers, which most are, are read without a detour.
pub(crate) fn number(word: &str) -> Option<f64> {
    let bytes = word.as_bytes();
    if bytes.len() <= 15 && bytes.iter().all(u8::is_ascii_digit) {
        let n = bytes.iter().fold(0u64, |n, b| n * 10 + u64::from(b - b'0'));
        return (!bytes.is_empty()).then_some(n as f64);
    }
    let v: f64 = word.parse().ok()?;
    if v.is_nan() {
        // A NaN has no sign in either format.
        return (bytes.len() == 3).then(|| f64::from_bits(NORMAL_NAN));
    }
    Some(v)
}

fn millis(seconds: &str) -> Result<i64, &'static str> {
    let n = number(seconds).filter(|n| n.is_finite()).ok_or("not a timestamp in seconds")?;
    Ok((n * 1000.0).round() as i64)
}
