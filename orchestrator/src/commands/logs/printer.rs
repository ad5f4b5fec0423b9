//! Lines on the terminal, and where printing stopped.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cli::LogsArgs;
use crate::commands::print;
use crate::commands::time::show;

/// Colours of pods, as terminals name them; readable on dark and light.
const COLORS: [u8; 6] = [36, 33, 35, 32, 34, 31];

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) nanos: i64,
    pub(super) labels: Value,
    pub(super) line: String,
}

/// All lines of all streams, oldest first.
pub(super) fn entries(streams: &Value) -> Vec<Entry> {
    let mut out = Vec::new();
    for s in streams.as_array().into_iter().flatten() {
        let labels = &s["stream"];
        for v in s["values"].as_array().into_iter().flatten() {
            let nanos = v[0].as_str().and_then(|n| n.parse().ok()).unwrap_or(0);
            let line = v[1].as_str().unwrap_or_default().to_owned();
            out.push(Entry { nanos, labels: labels.clone(), line });
        }
    }
    out.sort_by_key(|e| e.nanos);
    out
}

/// How far one has read: up to a time, and so many lines of that very time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) nanos: i64,
    pub(super) lines: usize,
}

impl Cursor {
    /// `NANOSECONDS.LINES`
    pub(super) fn parse(text: &str) -> Result<Cursor> {
        let read = || {
            let (nanos, lines) = text.split_once('.').unwrap_or((text, "0"));
            Some(Cursor { nanos: nanos.parse().ok()?, lines: lines.parse().ok()? })
        };
        read().with_context(|| format!("{text:?} is no cursor; one is printed at the end of the logs"))
    }

    /// Without the lines that were read before.
    pub(super) fn after(&self, all: Vec<Entry>) -> Vec<Entry> {
        let mut same = 0;
        all.into_iter()
            .filter(|e| {
                same += usize::from(e.nanos == self.nanos);
                e.nanos > self.nanos || e.nanos == self.nanos && same > self.lines
            })
            .collect()
    }

    pub(super) fn advance(&mut self, nanos: i64) {
        match nanos.cmp(&self.nanos) {
            std::cmp::Ordering::Greater => *self = Cursor { nanos, lines: 1 },
            std::cmp::Ordering::Equal => self.lines += 1,
            std::cmp::Ordering::Less => {}
        }
    }
}

enum Output {
    Pretty,
    Raw,
    Json,
    /// Text with `{{.label}}` in it.
    Template(String),
}

pub(super) struct Printer {
    color: bool,
    output: Output,
    pub(super) cursor: Cursor,
}

impl Printer {
    pub(super) fn new(a: &LogsArgs) -> Printer {
        let output = match a.output.as_str() {
            "pretty" => Output::Pretty,
            "raw" => Output::Raw,
            "json" => Output::Json,
            t => Output::Template(t.to_owned()),
        };
        Printer { color: std::io::stdout().is_terminal(), output, cursor: Cursor::default() }
    }

    pub(super) fn resume(&mut self, c: Cursor) {
        self.cursor = c;
    }

    pub(super) fn entry(&mut self, e: &Entry) -> Result<()> {
        self.cursor.advance(e.nanos);
        let at = show(e.nanos / 1_000_000);
        let pod = e.labels["pod"].as_str().unwrap_or("-");
        match &self.output {
            // Asked for as it is, for another program to read.
            Output::Raw => print(&e.line),
            Output::Json => print(
                &json!({"time": at, "timestamp": e.nanos.to_string(), "labels": e.labels, "line": e.line})
                    .to_string(),
            ),
            Output::Template(t) => print(&inert(&render(t, e, &at))),
            Output::Pretty if self.color => {
                let n = pod.bytes().fold(0usize, |h, b| h.wrapping_mul(31).wrapping_add(usize::from(b)));
                let color = COLORS[n % COLORS.len()];
                print(&format!("\x1b[2m{at}\x1b[0m \x1b[{color}m{}\x1b[0m {}", inert(pod), inert(&e.line)))
            }
            Output::Pretty => print(&format!("{at} {} {}", inert(pod), inert(&e.line))),
        }
    }

    /// What is said about the lines is not among them.
    #[expect(clippy::print_stderr, reason = "a command's remarks")]
    pub(super) fn note(&self, text: &str) {
        eprintln!("{text}");
    }

    /// Says where to go on.
    pub(super) fn end(&self) {
        if self.cursor.nanos > 0 {
            self.note(&format!("--cursor {}.{}", self.cursor.nanos, self.cursor.lines));
        }
    }
}

/// A line without what a terminal would obey: control characters but tabs, and what escapes begin with. Characters
/// that turn the direction of text go, too: they make a line look like another.
fn inert(line: &str) -> String {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    line.chars().map(|c| if c.is_control() && c != '\t' || turns(c) { '\u{fffd}' } else { c }).collect()
}

/// `{{.name}}` is `time`, `line`, a label, or a field of a line that is a JSON object.
fn render(template: &str, e: &Entry, at: &str) -> String {
    let fields: Value = serde_json::from_str(&e.line).unwrap_or_default();
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            rest = after;
            break;
        };
        match name.trim().trim_start_matches('.') {
            "time" => out.push_str(at),
            "line" => out.push_str(&e.line),
            name => match [&e.labels[name], &fields[name]].into_iter().find(|v| !v.is_null()) {
                Some(Value::String(s)) => out.push_str(s),
                Some(v) => out.push_str(&v.to_string()),
                None => {}
            },
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: i64, line: &str) -> Entry {
        Entry { nanos, labels: json!({"pod": "a"}), line: line.to_owned() }
    }

    #[test]
    fn lines_are_printed_as_asked() {
        let e = at(0, r#"{"msg":"hi","n":1}"#);
        assert_eq!(render("{{.pod}}: {{ .msg }} {{.n}}{{.none}}!", &e, "T"), "a: hi 1!");
        assert_eq!(render("{{.time}} {{.line", &e, "T"), "T .line");
        assert_eq!(inert("a\x1b[31mred\tb\r"), "a\u{fffd}[31mred\tb\u{fffd}");
        assert_eq!(inert("\u{202e}txt.exe \u{9b}31m"), "\u{fffd}txt.exe \u{fffd}31m");
    }

    #[test]
    fn a_cursor_goes_on_behind_the_last_line_of_its_time() {
        let mut c = Cursor::default();
        [1, 5, 5, 3].into_iter().for_each(|t| c.advance(t));
        assert_eq!(c, Cursor { nanos: 5, lines: 2 });
        assert_eq!(Cursor::parse("5.2").expect("a cursor"), c);
        assert!(Cursor::parse("x").is_err() && Cursor::parse("5.x").is_err());
        let all = vec![at(5, "a"), at(5, "b"), at(5, "c"), at(6, "d")];
        let lines: Vec<String> = c.after(all).into_iter().map(|e| e.line).collect();
        assert_eq!(lines, ["c", "d"]);
    }
}
