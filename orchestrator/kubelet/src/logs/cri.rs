//! The CRI log format: `<time> <stream> <P|F> <text>`, one line each. Pure.
//!
//! `F` ends a line of the container; `P` is a part of one that was too long or is not over.

use signal::Timestamp;

/// Longest text of one CRI line, as containerd has it.
pub(crate) const MAX_TEXT: usize = 16 * 1024;

/// RFC 3339 with nine digits, as all CRI runtimes print it.
pub(crate) fn time_text(t: Timestamp) -> String {
    let t = jiff::Timestamp::from_nanosecond(i128::from(t.nanos())).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{t:.9}")
}

/// What becomes of text behind the last newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It waits for its newline.
    Waits,
    /// It is a part of a line that goes on: somebody at a terminal wants to see it.
    Shown,
    /// Nothing comes after it: it is a line.
    Ends,
}

/// Encodes as many lines of `raw` as are complete, and the rest as told; gives how many raw bytes that took.
pub(crate) fn encode(raw: &[u8], stream: &str, time: &str, last: Rest, out: &mut Vec<u8>) -> usize {
    let mut done = 0;
    loop {
        let rest = &raw[done..];
        let window = &rest[..rest.len().min(MAX_TEXT + 1)];
        let (text, tag, taken) = match window.iter().position(|b| *b == b'\n') {
            Some(n) => (&rest[..n], b'F', n + 1),
            None if rest.len() > MAX_TEXT => (&rest[..MAX_TEXT], b'P', MAX_TEXT),
            None if last == Rest::Ends && !rest.is_empty() => (rest, b'F', rest.len()),
            None if last == Rest::Shown && !rest.is_empty() => (rest, b'P', rest.len()),
            None => return done,
        };
        out.extend_from_slice(time.as_bytes());
        out.push(b' ');
        out.extend_from_slice(stream.as_bytes());
        out.extend_from_slice(&[b' ', tag, b' ']);
        out.extend_from_slice(text);
        out.push(b'\n');
        done += taken;
    }
}

/// Whether encoded text ends with a piece of a line that goes on.
pub(crate) fn ends_within_a_line(text: &[u8]) -> bool {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let last = text.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    Line::parse(last).is_some_and(|l| l.partial)
}

/// One CRI line, without its newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) time: &'a str,
    pub(crate) stream: &'a str,
    pub(crate) partial: bool,
    pub(crate) text: &'a [u8],
}

impl<'a> Line<'a> {
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = std::str::from_utf8(parts.next()?).ok()?;
        let partial = match parts.next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(Line { time, stream, partial, text: parts.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(raw: &str, last: Rest) -> (String, usize) {
        let mut out = Vec::new();
        let n = encode(raw.as_bytes(), "stdout", "T", last, &mut out);
        (String::from_utf8(out).expect("text"), n)
    }

    #[test]
    fn whole_lines_only_until_the_end() {
        assert_eq!(text("a\n\nb", Rest::Waits), ("T stdout F a\nT stdout F \n".to_owned(), 3));
        assert_eq!(text("a\nb", Rest::Ends), ("T stdout F a\nT stdout F b\n".to_owned(), 3));
        assert_eq!(text("a\nb", Rest::Shown), ("T stdout F a\nT stdout P b\n".to_owned(), 3));
        assert_eq!(text("", Rest::Ends), (String::new(), 0));
        assert_eq!(time_text(Timestamp(1)), "1970-01-01T00:00:00.000000001Z");
    }

    proptest! {
        /// However the bytes come in, joining the parts again gives them back.
        #[test]
        fn joins_back(lines in proptest::collection::vec("[a-c]{0,9}|x{16383,16386}|y{40000}", 0..5), cut in 0usize..100_000) {
            let raw = lines.iter().map(|l| format!("{l}\n")).collect::<String>();
            let cut = cut.min(raw.len());
            let mut out = Vec::new();
            let n = encode(&raw.as_bytes()[..cut], "stdout", "T", Rest::Waits, &mut out);
            let m = encode(&raw.as_bytes()[n..], "stdout", "T", Rest::Ends, &mut out);
            prop_assert_eq!(n + m, raw.len());
            let mut back = Vec::new();
            for line in out.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                let l = Line::parse(line).expect("a CRI line");
                prop_assert!(l.text.len() <= MAX_TEXT);
                back.extend_from_slice(l.text);
                if !l.partial {
                    back.push(b'\n');
                }
            }
            prop_assert_eq!(back, raw.as_bytes());
        }
    }
}
