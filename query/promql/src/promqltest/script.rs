//! A script's lines into commands.

use regex::Regex;

use super::series::{Described, number, parse_series, parse_starts};
use crate::lex::parse_duration;

pub(super) enum Command {
    Clear,
    /// Values of each series, one for each step from time zero.
    Load {
        step: i64,
        series: Vec<Described>,
        /// Classic histograms are loaded as native ones too.
        with_custom: bool,
    },
    Eval(Box<Eval>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Instant(i64),
    Range(i64, i64, i64),
}

#[derive(Clone, Debug)]
pub(super) enum Match {
    Any,
    Message(String),
    Pattern(Regex),
}

#[derive(Clone, Debug)]
pub(super) enum Expect {
    Fail(Match),
    Warn(Match),
    Info(Match),
    NoWarn,
    NoInfo,
    Ordered,
}

#[derive(Debug)]
pub(super) struct Eval {
    pub(super) line: usize,
    pub(super) query: String,
    pub(super) when: When,
    pub(super) expects: Vec<Expect>,
    pub(super) string: Option<String>,
    pub(super) scalar: Option<f64>,
    pub(super) series: Vec<Described>,
    /// What `expect range vector from … to … step …` says.
    pub(super) vector_grid: Option<(i64, i64, i64)>,
}

impl Eval {
    pub(super) fn fails(&self) -> bool {
        self.expects.iter().any(|e| matches!(e, Expect::Fail(_)))
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.expects.iter().any(|e| matches!(e, Expect::Ordered))
    }
}

fn time(word: &str) -> Result<i64, String> {
    let (sign, word) = word.strip_prefix('-').map_or((1, word), |w| (-1, w));
    let ms = match parse_duration(word) {
        Some(ms) => ms,
        None => (number(word).ok_or_else(|| format!("not a time: {word:?}"))? * 1000.0).round() as i64,
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
        let word = line.split_whitespace().next().unwrap_or("").to_ascii_lowercase();
        match word.as_str() {
            "clear" => {
                commands.push(Command::Clear);
                i += 1;
                continue;
            }
            "load" | "load_with_nhcb" => {
                let step = time(line[word.len()..].trim()).map_err(at)?;
                let series = parse_load(&block).map_err(at)?;
                commands.push(Command::Load { step, series, with_custom: word != "load" });
            }
            "eval" | "eval_fail" | "eval_warn" | "eval_info" | "eval_ordered" => {
                commands.push(Command::Eval(Box::new(parse_eval(&word, line, &block, i + 1).map_err(at)?)));
            }
            _ => return Err(at(format!("invalid command {line:?}"))),
        }
        i = end;
    }
    Ok(commands)
}

fn parse_load(block: &[&str]) -> Result<Vec<Described>, String> {
    let mut all: Vec<Described> = Vec::new();
    let mut starts: Option<Described> = None;
    for l in block {
        if let Some((head, tail)) = l.split_once(char::is_whitespace)
            && let Some(head) = head.strip_suffix("@st")
        {
            let mut described = parse_series(head)?;
            described.starts = parse_starts(tail)?;
            if starts.replace(described).is_some() {
                return Err("@st line has no following sample line".to_owned());
            }
            continue;
        }
        let mut described = parse_series(l)?;
        if let Some(s) = starts.take() {
            if s.labels != described.labels {
                return Err("@st metric does not match the following sample line metric".to_owned());
            }
            if s.starts.len() != described.items.len() {
                return Err(format!(
                    "@st line has {} values but sample line has {}",
                    s.starts.len(),
                    described.items.len()
                ));
            }
            described.starts = s.starts;
        }
        // A series that is described twice is the later one.
        all.retain(|s| s.labels != described.labels);
        all.push(described);
    }
    if starts.is_some() {
        return Err("@st line has no following sample line".to_owned());
    }
    Ok(all)
}

/// Takes the next word off a text.
fn word<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let text = rest.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    *rest = after;
    (!word.is_empty()).then_some(word)
}

fn parse_eval(command: &str, line: &str, block: &[&str], number_of_line: usize) -> Result<Eval, String> {
    let mut rest = line.get(command.len()..).unwrap_or("");
    let when = match word(&mut rest) {
        Some("instant") => {
            let before = rest;
            match word(&mut rest) {
                Some("at") => When::Instant(time(word(&mut rest).ok_or("no time")?)?),
                _ => {
                    rest = before;
                    When::Instant(0)
                }
            }
        }
        Some("range") => {
            let mut next = |wanted: &str| match (word(&mut rest), word(&mut rest)) {
                (Some(w), Some(v)) if w == wanted => time(v),
                _ => Err(format!("expected {wanted} and a time")),
            };
            When::Range(next("from")?, next("to")?, next("step")?)
        }
        _ => return Err("expected instant or range".to_owned()),
    };
    let mut e = Eval {
        line: number_of_line,
        query: rest.trim().to_owned(),
        when,
        expects: match command {
            "eval_fail" => vec![Expect::Fail(Match::Any)],
            "eval_warn" => vec![Expect::Warn(Match::Any)],
            "eval_info" => vec![Expect::Info(Match::Any)],
            "eval_ordered" => vec![Expect::Ordered],
            _ => Vec::new(),
        },
        string: None,
        scalar: None,
        series: Vec::new(),
        vector_grid: None,
    };
    if e.query.is_empty() {
        return Err("no query".to_owned());
    }
    for l in block {
        if let Some(rest) = l.strip_prefix("expect ") {
            expectation(&mut e, rest.trim())?;
        } else if let Some(m) = l.strip_prefix("expected_fail_message") {
            e.expects = vec![Expect::Fail(Match::Message(m.trim().to_owned()))];
        } else if let Some(m) = l.strip_prefix("expected_fail_regexp") {
            e.expects = vec![Expect::Fail(pattern(m.trim())?)];
        } else if let Some(v) = number(l) {
            e.scalar = Some(v);
        } else {
            let described = parse_series(l)?;
            if described.items.len() > 1 && matches!(e.when, When::Instant(_)) && e.vector_grid.is_none() {
                return Err("expecting multiple values in instant evaluation not allowed".to_owned());
            }
            e.series.push(described);
        }
    }
    Ok(e)
}

fn pattern(text: &str) -> Result<Match, String> {
    Regex::new(text).map(Match::Pattern).map_err(|e| e.to_string())
}

fn expectation(e: &mut Eval, text: &str) -> Result<(), String> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let detail = || {
        Ok(if let Some(m) = rest.strip_prefix("msg:") {
            Match::Message(m.trim().to_owned())
        } else if let Some(p) = rest.strip_prefix("regex:") {
            pattern(p.trim())?
        } else if rest.is_empty() {
            Match::Any
        } else {
            return Err(format!("invalid token {rest:?} after {word}"));
        })
    };
    match word {
        "fail" => e.expects.push(Expect::Fail(detail()?)),
        "warn" => e.expects.push(Expect::Warn(detail()?)),
        "info" => e.expects.push(Expect::Info(detail()?)),
        "no_warn" => e.expects.push(Expect::NoWarn),
        "no_info" => e.expects.push(Expect::NoInfo),
        "ordered" => e.expects.push(Expect::Ordered),
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
                    e.vector_grid = Some((time(a)?, time(b)?, time(c)?));
                }
                _ => return Err(format!("not understood: expect {text:?}")),
            }
        }
        _ => return Err(format!("not understood: expect {text:?}")),
    }
    Ok(())
}
