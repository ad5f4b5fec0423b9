//! Which lines of a container's log make one record: stack traces by default, or whatever begins as a pattern says.
//!
//! By default a line waits for others only if it begins a trace, so that ordinary lines are seen at once. A line that
//! looks like the inside of a trace always belongs to the record before it.

use std::sync::LazyLock;

use regex::bytes::Regex;

/// A record of more lines or bytes is cut.
const MOST_LINES: usize = 1000;
const MOST_BYTES: usize = 512 << 10;

/// How lines are joined.
#[derive(Clone, Debug)]
pub(crate) enum Multiline {
    Off,
    Auto,
    /// What matches begins a record.
    Start(Regex),
}

impl Multiline {
    pub(super) fn parse(text: &str) -> Result<Multiline, String> {
        match text {
            "off" => Ok(Multiline::Off),
            "auto" => Ok(Multiline::Auto),
            pattern => Regex::new(pattern).map(Multiline::Start).map_err(|e| e.to_string()),
        }
    }
}

/// `java.lang.IllegalStateException: text`, also behind other text.
static JAVA: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"(?:^|[\s:])(?:[A-Za-z_$][\w$]*\.)+(?:[A-Z][\w$]*)?(?:Exception|Error|Throwable)\b")
});
static JAVA_WITHIN: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"^\s+(?:at |eval at )\S|^\s*(?:Caused by|Suppressed): |^\s*\.\.\. \d+ (?:more|common frames omitted)",
    )
});
static NODE: LazyLock<Regex> = LazyLock::new(|| regex(r"^(?:Uncaught )?(?:[A-Z]\w*)?Error(?:: | \[|$)"));
static PYTHON_LAST: LazyLock<Regex> = LazyLock::new(|| regex(r"^[A-Za-z_][\w.]*(?::|$)"));
static GO: LazyLock<Regex> = LazyLock::new(|| regex(r"^(?:panic: |fatal error: |goroutine \d+ \[)"));
static GO_WITHIN: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"^$|^\t|^goroutine \d+ \[|^created by |^\[signal |^panic: |^exit status \d|^[\w./*()\[\]…-]+\(.*\)$|^\[originating from goroutine|^\.\.\.additional frames",
    )
});

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a regular expression")
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ordinary,
    /// An exception's header or its frames.
    Java,
    Python,
    /// The last line of a Python trace has come; another may be chained to it.
    PythonEnd,
    Go,
}

/// Follows the lines of one log.
#[derive(Debug)]
pub(crate) struct Joiner<'a> {
    how: &'a Multiline,
    state: State,
    lines: usize,
    bytes: usize,
}

impl<'a> Joiner<'a> {
    pub(crate) fn new(how: &'a Multiline) -> Self {
        Joiner { how, state: State::Ordinary, lines: 0, bytes: 0 }
    }

    /// Takes the next line; true if it continues the record before it.
    pub(crate) fn continues(&mut self, line: &[u8]) -> bool {
        let joins = match self.how {
            Multiline::Off => false,
            Multiline::Start(start) => self.lines > 0 && !start.is_match(line),
            Multiline::Auto => self.auto(line),
        };
        let joins = joins && self.lines < MOST_LINES && self.bytes + line.len() < MOST_BYTES;
        if joins {
            self.lines += 1;
            self.bytes += line.len();
        } else {
            (self.lines, self.bytes) = (1, line.len());
        }
        joins
    }

    /// A line of another stream, or what is no line, ends the record.
    pub(crate) fn interrupt(&mut self) {
        (self.state, self.lines, self.bytes) = (State::Ordinary, 0, 0);
    }

    /// More lines of this record may follow soon.
    pub(crate) fn is_open(&self) -> bool {
        match self.how {
            Multiline::Off => false,
            Multiline::Start(_) => self.lines > 0,
            Multiline::Auto => self.state != State::Ordinary,
        }
    }

    fn auto(&mut self, line: &[u8]) -> bool {
        let first = line.first().copied().unwrap_or(b' ');
        let (next, joins) = match self.state {
            State::Python if first == b' ' || first == b'\t' => (State::Python, true),
            State::Python if PYTHON_LAST.is_match(line) => (State::PythonEnd, true),
            State::PythonEnd if line.is_empty() || chained(line) => (State::PythonEnd, true),
            State::PythonEnd if traceback(line) => (State::Python, true),
            State::Go if GO_WITHIN.is_match(line) => (State::Go, true),
            _ => (begins(line), false),
        };
        if joins {
            self.state = next;
            return true;
        }
        // Frames belong to whatever stands before them.
        if self.lines > 0 && within(line) {
            self.state = State::Java;
            return true;
        }
        self.state = next;
        false
    }
}

fn traceback(line: &[u8]) -> bool {
    line.starts_with(b"Traceback (most recent call last):")
}

fn chained(line: &[u8]) -> bool {
    line.starts_with(b"During handling of the above exception")
        || line.starts_with(b"The above exception was the direct cause")
}

/// A quick look first: this is asked for every line.
fn within(line: &[u8]) -> bool {
    let first = line.iter().find(|b| !matches!(b, b' ' | b'\t'));
    matches!(first, Some(b'a' | b'e' | b'C' | b'S' | b'.')) && JAVA_WITHIN.is_match(line)
}

fn begins(line: &[u8]) -> State {
    if traceback(line) {
        return State::Python;
    }
    let named = memchr::memmem::find(line, b"Error").is_some()
        || memchr::memmem::find(line, b"Exception").is_some()
        || memchr::memmem::find(line, b"Throwable").is_some();
    if named && (JAVA.is_match(line) || NODE.is_match(line)) {
        return State::Java;
    }
    match line.first() {
        Some(b'p' | b'f' | b'g') if GO.is_match(line) => State::Go,
        _ => State::Ordinary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of lines; `!` after the last one says that more may follow.
    fn join(how: &str, text: &str) -> Vec<String> {
        let how = Multiline::parse(how).expect("a way");
        let mut joiner = Joiner::new(&how);
        let mut out: Vec<String> = Vec::new();
        for line in text.split('\n') {
            match out.last_mut() {
                _ if !joiner.continues(line.as_bytes()) => out.push(line.to_owned()),
                Some(last) => {
                    last.push('\n');
                    last.push_str(line);
                }
                None => panic!("nothing to continue"),
            }
        }
        if joiner.is_open() {
            out.last_mut().expect("a record").push('!');
        }
        out
    }

    #[test]
    fn stack_traces_are_one_record() {
        let java = "2026 ERROR java.lang.RuntimeException: no\n\tat a.B.c(B.java:1)\nCaused by: a.IOException: x\n\tat d.E\n\t... 12 more";
        let python = "Traceback (most recent call last):\n  File \"x.py\", line 1\n    f()\nValueError: bad\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"x.py\"\nKeyError: 'a'";
        let go = "panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/x/main.go:4 +0x27\nexit status 2";
        let node = "TypeError: x is undefined\n    at f (/a.js:1:2)\n    at g";
        for trace in [java, python, go, node] {
            assert_eq!(join("auto", &format!("before\n{trace}\nafter all")), ["before", trace, "after all"]);
            assert_eq!(join("auto", trace), [format!("{trace}!")], "more may follow");
        }
        assert_eq!(join("off", "a\n\tat b"), ["a", "\tat b"]);
    }

    #[test]
    fn ordinary_lines_do_not_wait() {
        let lines = ["GET /error 200", "  indented", "an Error in a sentence", "at noon", "", "goroutine"];
        assert_eq!(join("auto", &lines.join("\n")), lines);
    }

    #[test]
    fn a_pattern_begins_records() {
        assert_eq!(join(r"^\d{4}-", "2026-01 a\nb\nc\n2026-02 d"), ["2026-01 a\nb\nc", "2026-02 d!"]);
        let long = "x\n".repeat(2500);
        assert_eq!(join("^never", long.trim_end()).len(), 3, "a record has an end");
    }
}
