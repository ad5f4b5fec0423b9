//! Reads CRI log lines (`2026-11-23T01:02:03.123456789Z stdout F text`) and what can be seen in their text.

use signal::{LogRecord, Severity, Timestamp, TraceId};

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

/// A record of a whole line: severity and trace id are taken from JSON or logfmt text if it has them.
pub(crate) fn record(timestamp: Timestamp, stderr: bool, text: &[u8]) -> LogRecord {
    let body = String::from_utf8_lossy(text).into_owned();
    let severity = field(&body, &["level", "severity", "lvl"]).map_or(Severity::UNSPECIFIED, Severity::parse);
    let id = |names: &[&str]| field(&body, names).map(str::to_owned);
    let trace_id =
        id(&["trace_id", "traceID", "traceId"]).and_then(|s| s.parse().ok()).unwrap_or(TraceId::INVALID);
    let span_id = id(&["span_id", "spanID", "spanId"]).and_then(|s| s.parse().ok()).unwrap_or_default();
    let mut record = LogRecord { timestamp, severity, trace_id, span_id, ..LogRecord::default() };
    record.attributes.set("log.iostream", if stderr { "stderr" } else { "stdout" });
    record.body = body;
    record
}

/// The value of the first of these fields, as `name=value`, `name="value"` or `"name":"value"`.
fn field<'a>(text: &'a str, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| {
        text.match_indices(name).find_map(|(i, _)| {
            let before = text[..i].bytes().next_back();
            let after = &text[i + name.len()..];
            let value = match before {
                None | Some(b' ' | b'\t') => after.strip_prefix('=')?,
                Some(b'"') => after.strip_prefix('"')?.trim_start().strip_prefix(':')?.trim_start(),
                _ => return None,
            };
            let value = value.strip_prefix('"').unwrap_or(value);
            let end = value.find(['"', ' ', ',', '}']).unwrap_or(value.len());
            Some(&value[..end])
        })
    })
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

    #[test]
    fn sees_level_and_trace_in_json_and_logfmt() {
        let check = |text: &str, level: &str, traced: bool| {
            let r = record(Timestamp(1), false, text.as_bytes());
            assert_eq!((r.severity.as_str(), r.trace_id.is_valid()), (level, traced), "{text}");
        };
        check(r#"{"level":"warn","trace_id":"0af7651916cd43dd8448eb211c80319c"}"#, "warn", true);
        check("level=ERROR msg=x trace_id=0af7651916cd43dd8448eb211c80319c", "error", true);
        check(r#"{"level": "info", "x": 1}"#, "info", false);
        check("a sublevel=error here", "unknown", false);
        check("trace_id=short", "unknown", false);
    }
}
