//! What can be seen in a line's text: its level, its trace, its time. For lines of others, in whatever form they come.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use signal::{LogRecord, Severity, SpanId, Timestamp, TraceId};

/// A level stands near the beginning of a line, or nowhere.
const LEVEL_WITHIN: usize = 96;
/// A time stands at the very beginning.
const TIME_WITHIN: usize = 40;

pub(crate) const LEVELS: [&str; 6] = ["level", "severity", "lvl", "loglevel", "log.level", "severity_text"];
pub(crate) const TRACE_IDS: [&str; 4] = ["trace_id", "traceID", "traceId", "trace.id"];
pub(crate) const SPAN_IDS: [&str; 4] = ["span_id", "spanID", "spanId", "span.id"];

/// Fills in what the record's text says and its sender did not.
pub(crate) fn complete(record: &mut LogRecord) {
    if record.severity == Severity::UNSPECIFIED {
        record.severity = severity(&record.body);
    }
    if !record.trace_id.is_valid() && mentions(&record.body, b"race") {
        record.trace_id = first(&record.body, &TRACE_IDS).unwrap_or(TraceId::INVALID);
        if record.trace_id.is_valid() {
            record.span_id = first(&record.body, &SPAN_IDS).unwrap_or(SpanId::INVALID);
        }
    }
}

/// A quick look whether there can be such a field at all.
fn mentions(text: &str, part: &[u8]) -> bool {
    memchr::memmem::find(text.as_bytes(), part).is_some()
}

fn first<T: std::str::FromStr>(text: &str, names: &[&str]) -> Option<T> {
    field(text, names)?.parse().ok()
}

/// The level a text names: as a field of JSON or logfmt, in klog's header, or as a word near its beginning.
pub(crate) fn severity(text: &str) -> Severity {
    if (mentions(text, b"l") || mentions(text, b"everity"))
        && let Some(said) = field(text, &LEVELS)
    {
        let level = level(said);
        if level != Severity::UNSPECIFIED {
            return level;
        }
    }
    klog(text).unwrap_or_else(|| word(text))
}

/// A level by name, or by the number that pino and bunyan write.
pub(crate) fn level(said: &str) -> Severity {
    match said {
        "10" => Severity::TRACE,
        "20" => Severity::DEBUG,
        "30" => Severity::INFO,
        "40" => Severity::WARN,
        "50" => Severity::ERROR,
        "60" => Severity::FATAL,
        _ => Severity::parse(said),
    }
}

/// `E1123 10:11:12.000000       1 main.go:1] text`
fn klog(text: &str) -> Option<Severity> {
    let b = text.as_bytes();
    let header = b.get(1..5)?.iter().all(u8::is_ascii_digit) && b.get(5) == Some(&b' ');
    match b.first().filter(|_| header)? {
        b'I' => Some(Severity::INFO),
        b'W' => Some(Severity::WARN),
        b'E' => Some(Severity::ERROR),
        b'F' => Some(Severity::FATAL),
        _ => None,
    }
}

/// `ERROR …`, `[error] …`, `<warn> …`, `error: …`; a lower-case word in the middle of a sentence says nothing.
fn word(text: &str) -> Severity {
    let bytes = text.as_bytes();
    let bytes = &bytes[..bytes.len().min(LEVEL_WITHIN)];
    let mut at = 0;
    while at < bytes.len() {
        let Some(begin) = bytes[at..].iter().position(u8::is_ascii_alphabetic).map(|n| at + n) else { break };
        let end =
            bytes[begin..].iter().position(|b| !b.is_ascii_alphabetic()).map_or(bytes.len(), |n| begin + n);
        let before = begin.checked_sub(1).map(|i| bytes[i]);
        let after = bytes.get(end).copied();
        let all_upper = bytes[begin..end].iter().all(u8::is_ascii_uppercase);
        let apart = |b: Option<u8>| b.is_none_or(|b| !b.is_ascii_alphanumeric() && b != b'_' && b != b'-');
        let wrapped = matches!(
            (before, after),
            (Some(b'['), Some(b']')) | (Some(b'<'), Some(b'>')) | (Some(b'|'), Some(b'|'))
        );
        let heads = begin == 0 && after == Some(b':');
        if (3..=11).contains(&(end - begin))
            && apart(before)
            && apart(after)
            && (all_upper || wrapped || heads)
            && let Ok(w) = std::str::from_utf8(&bytes[begin..end])
        {
            let level = Severity::parse(w);
            if level != Severity::UNSPECIFIED {
                return level;
            }
        }
        at = end;
    }
    Severity::UNSPECIFIED
}

/// The value of the first of these fields, as `name=value`, `name="value"` or `"name":"value"`.
pub(crate) fn field<'a>(text: &'a str, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| {
        memchr::memmem::find_iter(text.as_bytes(), name.as_bytes()).find_map(|i| {
            let before = i.checked_sub(1).map(|b| text.as_bytes()[b]);
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

/// The time a text begins with: RFC 3339, `2026-11-23 10:11:12,123` (UTC if it names no zone) or, in brackets, the
/// Common Log Format's.
pub(crate) fn timestamp(text: &str) -> Option<Timestamp> {
    let head = text.trim_start_matches(['[', '(', '"', ' ']);
    if let Some(t) = iso(head) {
        return Some(t);
    }
    let bracket = text.find('[')?;
    let inside = text.get(bracket + 1..)?.split(']').next()?;
    // 23/Nov/2026:10:11:12 +0000
    jiff::fmt::strtime::parse("%d/%b/%Y:%H:%M:%S %z", inside).ok()?.to_timestamp().ok().and_then(ours)
}

fn ours(t: jiff::Timestamp) -> Option<Timestamp> {
    i64::try_from(t.as_nanosecond()).ok().map(Timestamp::from_nanos)
}

/// A date, a time with or without fraction, with or without a zone.
pub(crate) fn iso(text: &str) -> Option<Timestamp> {
    let b = text.as_bytes();
    let shaped =
        b.len() >= 19 && b[4] == b'-' && b[7] == b'-' && matches!(b[10], b'T' | b't' | b' ') && b[13] == b':';
    if !shaped {
        return None;
    }
    let fraction = match b.get(19) {
        Some(b'.' | b',') => b[20..].iter().take_while(|b| b.is_ascii_digit()).count() + 1,
        _ => 0,
    };
    let (clock, rest) = (text.get(..19 + fraction)?, text.get(19 + fraction..)?);
    let clock = clock.replacen(',', ".", 1);
    let zone = rest.get(..rest.len().min(TIME_WITHIN))?.trim_start();
    let civil: DateTime = clock.parse().ok()?;
    let end =
        zone.find(|c: char| !(c.is_ascii_digit() || matches!(c, '+' | '-' | ':'))).unwrap_or(zone.len());
    let tz = match zone.as_bytes().first() {
        Some(b'+' | b'-') if end >= 3 => offset(&zone[..end])?,
        _ => TimeZone::UTC,
    };
    ours(civil.to_zoned(tz).ok()?.timestamp())
}

/// `+02:00`, `+0200` or `+02`.
fn offset(text: &str) -> Option<TimeZone> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let hours: i32 = digits.get(..2)?.parse().ok()?;
    let minutes: i32 = digits.get(2..4).map_or(Some(0), |m| m.parse().ok())?;
    let seconds = (hours * 60 + minutes) * 60 * if text.starts_with('-') { -1 } else { 1 };
    Some(TimeZone::fixed(jiff::tz::Offset::from_seconds(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_in_every_form() {
        let check = |text: &str, expect: &str| assert_eq!(severity(text).as_str(), expect, "{text}");
        check(r#"{"level":"warn","a":1}"#, "warn");
        check(r#"{"level": 50, "msg": "x"}"#, "error");
        check("time=x level=ERROR msg=y", "error");
        check("E1123 10:11:12.000000       1 main.go:1] text", "error");
        check("I1123 starts", "info");
        check("I am 5 years old", "unknown");
        check("2026-11-23 10:11:12,123 - app - WARNING - text", "warn");
        check("2026-11-23T10:11:12Z [error] text", "error");
        check("<warn>  [123] device", "warn");
        check("error: no such file", "error");
        check("there is no error here", "unknown");
        check("GET /error 200", "unknown");
        check("a sublevel=error here", "unknown");
        check("FATAL: password", "fatal");
        check("", "unknown");
        check("é[ERROR]", "error");
    }

    #[test]
    fn times_at_the_beginning() {
        let check = |text: &str, expect: Option<&str>| {
            let expect = expect.map(|t| t.parse::<jiff::Timestamp>().expect("a time").as_nanosecond());
            assert_eq!(timestamp(text).map(|t| i128::from(t.nanos())), expect, "{text}");
        };
        check("2026-11-23T10:11:12Z x", Some("2026-11-23T10:11:12Z"));
        check("2026-11-23T10:11:12.5+02:00 x", Some("2026-11-23T08:11:12.5Z"));
        check("2026-11-23 10:11:12,123 INFO x", Some("2026-11-23T10:11:12.123Z"));
        check("[2026-11-23 10:11:12 +0200] x", Some("2026-11-23T08:11:12Z"));
        check("1.2.3.4 - - [23/Nov/2026:10:11:12 +0100] \"GET /\" 200", Some("2026-11-23T09:11:12Z"));
        check("2026-13-23T10:11:12Z", None);
        check("hello [world]", None);
        check("2026-11-23T10:11:12é", Some("2026-11-23T10:11:12Z"));
    }

    #[test]
    fn traces_in_json_and_logfmt() {
        let check = |text: &str, traced: bool| {
            let mut r = LogRecord { body: text.to_owned(), ..LogRecord::default() };
            complete(&mut r);
            assert_eq!(r.trace_id.is_valid(), traced, "{text}");
        };
        check(r#"{"level":"warn","trace_id":"0af7651916cd43dd8448eb211c80319c"}"#, true);
        check("level=ERROR msg=x trace_id=0af7651916cd43dd8448eb211c80319c", true);
        check("trace_id=short", false);
    }
}
