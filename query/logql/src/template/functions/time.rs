//! Times in templates, written in Go's layouts: `2006-01-02T15:04:05.000Z07:00`.

use jiff::Timestamp;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::TimeZone;

use super::super::value::Value;

/// Go's reference time piece by piece, and what says the same here; longer pieces first.
const PIECES: [(&str, &str); 27] = [
    ("January", "%B"),
    ("Monday", "%A"),
    ("2006", "%Y"),
    ("Z07:00", "%:z"),
    ("-07:00", "%:z"),
    ("-0700", "%z"),
    (".000000000", "%.9f"),
    (".000000", "%.6f"),
    (".000", "%.3f"),
    (".999999999", "%.f"),
    (".999999", "%.f"),
    (".999", "%.f"),
    ("Jan", "%b"),
    ("Mon", "%a"),
    ("MST", "%Z"),
    ("_2", "%e"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("PM", "%p"),
    ("1", "%-m"),
    ("2", "%-d"),
    ("3", "%-I"),
];

fn layout(go: &str) -> String {
    let mut out = String::new();
    let mut rest = go;
    while let Some(c) = rest.chars().next() {
        match PIECES.iter().find(|(piece, _)| rest.starts_with(piece)) {
            Some((piece, here)) => {
                out.push_str(here);
                rest = &rest[piece.len()..];
            }
            None => {
                out.push_str(if c == '%' { "%%" } else { &rest[..c.len_utf8()] });
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

pub(super) fn format(go: &str, nanos: i64) -> Result<String, String> {
    let t = Timestamp::from_nanosecond(i128::from(nanos)).map_err(|e| format!("template: date: {e}"))?;
    // Go writes Z where the offset is none.
    strtime::format(layout(&go.replace("Z07:00", "Z")), &t.to_zoned(TimeZone::UTC))
        .map_err(|e| format!("template: date: {e}"))
}

/// Nanoseconds of a text in a Go layout; without an offset in it, in `zone`.
pub(super) fn parse(go: &str, zone: &str, text: &str) -> Result<i64, String> {
    let fail = |e: jiff::Error| format!("template: toDate: {e}");
    let text = match text.strip_suffix('Z') {
        Some(local) if go.ends_with("Z07:00") => format!("{local}+00:00"),
        _ => text.to_owned(),
    };
    let parts = BrokenDownTime::parse(layout(go), &text).map_err(fail)?;
    let t = match parts.to_timestamp() {
        Ok(t) => t,
        Err(_) => {
            let zone = TimeZone::get(zone).map_err(fail)?;
            let date = parts.to_date().map_err(fail)?;
            let time = parts.to_time().unwrap_or(jiff::civil::Time::midnight());
            date.to_datetime(time).to_zoned(zone).map_err(fail)?.timestamp()
        }
    };
    Ok(i64::try_from(t.as_nanosecond()).unwrap_or(0))
}

/// A time, or text that is one.
pub(super) fn of(v: &Value) -> Result<i64, String> {
    match v {
        Value::Time(n) => Ok(*n),
        Value::Text(t) => {
            let t: Timestamp = t.parse().map_err(|e| format!("template: {t:?} is no time: {e}"))?;
            Ok(i64::try_from(t.as_nanosecond()).unwrap_or(0))
        }
        v => Err(format!("template: {v} is no time")),
    }
}

/// Days, seconds, milliseconds, microseconds or nanoseconds since 1970, by the number of digits.
pub(super) fn from_unix(text: &str) -> Result<i64, String> {
    let n: i64 = text.trim().parse().map_err(|_| format!("template: {text:?} is no Unix time"))?;
    let unit = match text.trim().trim_start_matches('-').len() {
        5 => 86_400_000_000_000,
        10 => 1_000_000_000,
        13 => 1_000_000,
        16 => 1_000,
        19 => 1,
        _ => return Err(format!("template: {text:?} is no Unix time: give 5, 10, 13, 16 or 19 digits")),
    };
    n.checked_mul(unit).ok_or_else(|| format!("template: {text:?} is too far away"))
}
