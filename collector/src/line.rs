//! Reads CRI log lines (`2026-11-23T01:02:03.123456789Z stdout F text`) and what can be seen in their text.

use signal::{LogRecord, Timestamp};

use crate::detect;

/// One line of the file, its text not yet joined.
#[derive(Debug, PartialEq)]
pub(crate) struct CriLine<'a> {
    pub(crate) timestamp: Timestamp,
    pub(crate) stderr: bool,
    /// More of the same line follows.
    pub(crate) partial: bool,
    pub(crate) text: &'a [u8],
}

/// `None` if the line is not in CRI format.
pub(crate) fn parse(line: &[u8]) -> Option<CriLine<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let tags = parts.next()?;
    let text = parts.next().unwrap_or_default();
    // Tags are separated by colons; the first one tells (kubernetes: cri-client/pkg/logs).
    let partial = match tags.split(|b| *b == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    let timestamp: jiff::Timestamp = time.parse().ok()?;
    let nanos = i64::try_from(timestamp.as_nanosecond()).ok()?;
    Some(CriLine { timestamp: Timestamp::from_nanos(nanos), stderr, partial, text })
}

/// A record of a whole line, with what its text says.
pub(crate) fn record(timestamp: Timestamp, stderr: bool, text: &[u8]) -> LogRecord {
    let body = String::from_utf8_lossy(text).into_owned();
    let mut record = LogRecord { timestamp, body, ..LogRecord::default() };
    record.attributes.set("log.iostream", if stderr { "stderr" } else { "stdout" });
    detect::complete(&mut record);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cri_lines() {
        let check = |line: &str, expect: Option<(bool, bool, &str)>| {
            let got = parse(line.as_bytes());
            assert_eq!(
                got.map(|l| (l.stderr, l.partial, String::from_utf8_lossy(l.text).into_owned())),
                expect.map(|(a, b, c)| (a, b, c.to_owned())),
                "{line}"
            );
        };
        check("2026-11-23T01:02:03.123456789Z stdout F hello  world", Some((false, false, "hello  world")));
        check("2026-11-23T01:02:03.1+02:00 stderr P:x part", Some((true, true, "part")));
        check("2026-11-23T01:02:03Z stdout F ", Some((false, false, "")));
        check("2026-11-23T01:02:03Z stdout X a", None);
        check("nonsense", None);
    }
}
