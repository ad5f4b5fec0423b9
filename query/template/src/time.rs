//! Times in templates, written in Go's layouts: `2006-01-02T15:04:05.000Z07:00`.

use jiff::Timestamp;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::TimeZone;

use crate::Value;

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

/// In a Go layout, in UTC.
pub fn format(go: &str, nanos: i64) -> Result<String, String> {
    let t = Timestamp::from_nanosecond(i128::from(nanos)).map_err(|e| format!("date: {e}"))?;
    // Go writes Z where the offset is none.
    strtime::format(layout(&go.replace("Z07:00", "Z")), &t.to_zoned(TimeZone::UTC))
        .map_err(|e| format!("date: {e}"))
}

/// Nanoseconds of a text in a Go layout; without an offset in it, in `zone`.
pub fn parse(go: &str, zone: &str, text: &str) -> Result<i64, String> {
    let fail = |e: jiff::Error| format!("toDate: {e}");
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
pub fn of(v: &Value) -> Result<i64, String> {
    match v {
        Value::Time(n) => Ok(*n),
        Value::Text(t) => {
            let t: Timestamp = t.parse().map_err(|e| format!("{t:?} is no time: {e}"))?;
            Ok(i64::try_from(t.as_nanosecond()).unwrap_or(0))
        }
        v => Err(format!("{v} is no time")),
    }
}

/// Days, seconds, milliseconds, microseconds or nanoseconds since 1970, by the number of digits.
pub fn from_unix(text: &str) -> Result<i64, String> {
    let n: i64 = text.trim().parse().map_err(|_| format!("{text:?} is no Unix time"))?;
    let unit = match text.trim().trim_start_matches('-').len() {
        5 => 86_400_000_000_000,
        10 => 1_000_000_000,
        13 => 1_000_000,
        16 => 1_000,
        19 => 1,
        _ => return Err(format!("{text:?} is no Unix time: give 5, 10, 13, 16 or 19 digits")),
    };
    n.checked_mul(unit).ok_or_else(|| format!("{text:?} is too far away"))
}

/// As Go prints a time in UTC that was not told how.
pub(crate) fn plain(nanos: i64) -> String {
    let t = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default();
    t.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

/// As Go prints a length of time: `1h30m0s`, `1.5s`, `20µs`.
pub(crate) fn duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let small = |unit: u64, name: &str| {
        let fraction = format!("{:09}", n % unit * (1_000_000_000 / unit));
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{point}{fraction}{name}", n / unit)
    };
    let text = match n {
        0 => "0s".to_owned(),
        n if n < 1_000 => format!("{n}ns"),
        n if n < 1_000_000 => small(1_000, "µs"),
        n if n < 1_000_000_000 => small(1_000_000, "ms"),
        _ => {
            let (hours, minutes) = (n / 3_600_000_000_000, n / 60_000_000_000 % 60);
            let seconds = n % 60_000_000_000;
            let fraction = format!("{:09}", seconds % 1_000_000_000);
            let fraction = fraction.trim_end_matches('0');
            let point = if fraction.is_empty() { "" } else { "." };
            let seconds = format!("{}{point}{fraction}s", seconds / 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, m) => format!("{m}m{seconds}"),
                (h, m) => format!("{h}h{m}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}
