//! A script's lines into commands.

use signal::Labels;

use super::series::{number, parse_series};
use crate::lex::parse_duration;

pub(super) enum Command {
    Clear,
    /// Values of each series, one for each step from time zero.
    Load {
        step: i64,
        series: Vec<(Labels, Vec<Option<f64>>)>,
    },
    Eval(Box<Eval>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Instant(i64),
    Range(i64, i64, i64),
}

#[derive(Clone, Debug)]
pub(super) enum Expect {
    Any,
    None,
    Message(String),
    Pattern(String),
}

#[derive(Debug)]
pub(super) struct Eval {
    pub(super) line: usize,
    pub(super) query: String,
    pub(super) when: When,
    pub(super) fail: Option<Expect>,
    pub(super) warn: Option<Expect>,
    pub(super) info: Option<Expect>,
    pub(super) ordered: bool,
    pub(super) string: Option<String>,
    pub(super) scalar: Option<f64>,
    pub(super) series: Vec<(Labels, Vec<Option<f64>>)>,
    /// What `expect range vector from … to … step …` says.
    pub(super) vector_grid: Option<(i64, i64, i64)>,
    /// Native histograms are expected.
    pub(super) native: bool,
}

fn time(word: &str) -> Result<i64, String> {
    let (sign, word) = word.strip_prefix('-').map_or((1, word), |w| (-1, w));
    let ms = match number(word) {
        Some(seconds) => (seconds * 1000.0).round() as i64,
        None => parse_duration(word).ok_or_else(|| format!("not a time: {word:?}"))?,
    };
    Ok(sign * ms)
}

pub(super) fn parse_script(text: &str) -> Result<Vec<Command>, String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut commands = Vec::new();
    let mut i = 0;
    while i < lines.len() {
        let line = lines[i];
        let at = |e: String| format!("line {}: {e}", i + 1);
        if line.is_empty() || line.starts_with('#') {
            i += 1;
            continue;
        }
        // A command's block goes on until a blank line.
        let end = (i + 1..lines.len()).find(|j| lines[*j].is_empty()).unwrap_or(lines.len());
        let block: Vec<&str> = lines[i + 1..end].iter().copied().filter(|l| !l.starts_with('#')).collect();
        let word = line.split_whitespace().next().unwrap_or("");
        if word == "clear" {
            commands.push(Command::Clear);
            i += 1;
            continue;
        } else if word == "load" || word == "load_with_nhcb" {
            let step = time(line[word.len()..].trim()).map_err(at)?;
            let mut series = Vec::new();
            // Start timestamps stand in lines of their own, which only their own feature would read.
            for l in block.into_iter().filter(|l| !l.contains("@st")) {
                let (labels, values, _) = parse_series(l).map_err(at)?;
                series.push((labels, values));
            }
            commands.push(Command::Load { step, series });
        } else if word.starts_with("eval") {
            commands.push(Command::Eval(Box::new(parse_eval(line, &block, i + 1).map_err(at)?)));
        } else {
            return Err(at(format!("unknown command {word:?}")));
        }
        i = end;
    }
    Ok(commands)
}

fn parse_eval(line: &str, block: &[&str], number_of_line: usize) -> Result<Eval, String> {
    let mut words = line.split_whitespace();
    let command = words.next().unwrap_or("");
    let (query, when) = match words.next() {
        Some("instant") => {
            let rest = line.split_once("at ").map(|(_, r)| r.trim_start()).ok_or("no time")?;
            let (t, query) = rest.split_once(char::is_whitespace).ok_or("no query")?;
            (query.trim().to_owned(), When::Instant(time(t)?))
        }
        Some("range") => {
            let mut next = |name: &str| match (words.next(), words.next()) {
                (Some(w), Some(v)) if w == name => Ok(v),
                _ => Err(format!("expected {name}")),
            };
            let (from, to, step) = (next("from")?, next("to")?, next("step")?);
            let after = line.split_once("step").map(|(_, r)| r.trim_start()).ok_or("no step")?;
            let query = after.strip_prefix(step).ok_or("no query")?.trim();
            (query.to_owned(), When::Range(time(from)?, time(to)?, time(step)?))
        }
        _ => return Err("expected instant or range".to_owned()),
    };
    let mut e = Eval {
        line: number_of_line,
        query,
        when,
        fail: (command == "eval_fail").then_some(Expect::Any),
        warn: (command == "eval_warn").then_some(Expect::Any),
        info: (command == "eval_info").then_some(Expect::Any),
        ordered: command == "eval_ordered",
        string: None,
        scalar: None,
        series: Vec::new(),
        vector_grid: None,
        native: false,
    };
    for l in block {
        if let Some(rest) = l.strip_prefix("expect ") {
            expectation(&mut e, rest.trim())?;
        } else if let Some(m) = l.strip_prefix("expected_fail_message ") {
            e.fail = Some(Expect::Message(m.trim().to_owned()));
        } else if let Some(m) = l.strip_prefix("expected_fail_regexp ") {
            e.fail = Some(Expect::Pattern(m.trim().to_owned()));
        } else if let Some(v) = number(l) {
            e.scalar = Some(v);
        } else {
            let (labels, values, native) = parse_series(l)?;
            e.native |= native;
            e.series.push((labels, values));
        }
    }
    Ok(e)
}

fn expectation(e: &mut Eval, text: &str) -> Result<(), String> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let detail = if let Some(m) = rest.strip_prefix("msg:") {
        Expect::Message(m.trim().to_owned())
    } else if let Some(p) = rest.strip_prefix("regex:") {
        Expect::Pattern(p.trim().to_owned())
    } else {
        Expect::Any
    };
    match word {
        "fail" => e.fail = Some(detail),
        "warn" => e.warn = Some(detail),
        "info" => e.info = Some(detail),
        "no_warn" => e.warn = Some(Expect::None),
        "no_info" => e.info = Some(Expect::None),
        "ordered" => e.ordered = true,
        "string" => {
            let tokens = crate::lex::lex(rest).map_err(|e| e.to_string())?;
            match tokens.first().map(|t| &t.token) {
                Some(crate::lex::Token::Str(s)) => e.string = Some(s.clone()),
                _ => return Err(format!("not a string: {rest:?}")),
            }
        }
        "range" => {
            let w: Vec<&str> = rest.split_whitespace().collect();
            match w.as_slice() {
                ["vector", "from", a, "to", b, "step", c] => {
                    e.vector_grid = Some((time(a)?, time(b)?, time(c)?))
                }
                _ => return Err(format!("not understood: expect {text:?}")),
            }
        }
        _ => return Err(format!("not understood: expect {text:?}")),
    }
    Ok(())
}
