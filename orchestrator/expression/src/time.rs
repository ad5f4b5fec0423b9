//! Durations and times as Go writes them.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::value::Value;

const UNITS: [(&str, i128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// `1h30m`, `-1.5s` (Go: time.ParseDuration).
pub(crate) fn parse_duration(s: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match s.strip_prefix('-') {
        Some(r) => (true, r),
        None => (false, s.strip_prefix('+').unwrap_or(s)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    let mut nanos: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = UNITS.iter().find(|(u, _)| *u == unit)?.1;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanos = nanos.checked_add(whole.checked_mul(scale)?)?;
        let mut part = scale;
        for d in fraction.bytes() {
            part /= 10;
            nanos += i128::from(d.checked_sub(b'0')?) * part;
        }
        rest = tail;
    }
    let nanos = i64::try_from(if negative { -nanos } else { nanos }).ok()?;
    Some(SignedDuration::from_nanos(nanos))
}

/// Seconds, as the language converts durations to text.
pub(crate) fn print_duration(d: SignedDuration) -> String {
    let nanos = d.subsec_nanos().unsigned_abs();
    let sign = if d.is_negative() { "-" } else { "" };
    if nanos == 0 {
        return format!("{sign}{}s", d.as_secs().unsigned_abs());
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{}.{}s", d.as_secs().unsigned_abs(), fraction.trim_end_matches('0'))
}

/// `getHours()` and its like, in a time zone.
pub(crate) fn part(t: Timestamp, method: &str, zone: Option<&str>) -> Option<Result<Value, String>> {
    let zone = match zone {
        None => TimeZone::UTC,
        Some(z) => match offset(z) {
            Some(o) => o,
            None => return Some(Err(format!("unknown time zone {z}"))),
        },
    };
    let z = t.to_zoned(zone);
    let n = match method {
        "getFullYear" => i64::from(z.year()),
        "getMonth" => i64::from(z.month()) - 1,
        "getDate" => i64::from(z.day()),
        "getDayOfMonth" => i64::from(z.day()) - 1,
        "getDayOfWeek" => i64::from(z.weekday().to_sunday_zero_offset()),
        "getDayOfYear" => i64::from(z.day_of_year()) - 1,
        "getHours" => i64::from(z.hour()),
        "getMinutes" => i64::from(z.minute()),
        "getSeconds" => i64::from(z.second()),
        "getMilliseconds" => i64::from(z.millisecond()),
        _ => return None,
    };
    Some(Ok(n.into()))
}

fn offset(zone: &str) -> Option<TimeZone> {
    if zone == "UTC" {
        return Some(TimeZone::UTC);
    }
    if let Some((h, m)) = zone.trim_start_matches(['+', '-']).split_once(':') {
        let secs = h.parse::<i32>().ok()? * 3600 + m.parse::<i32>().ok()? * 60;
        let secs = if zone.starts_with('-') { -secs } else { secs };
        return Some(TimeZone::fixed(jiff::tz::Offset::from_seconds(secs).ok()?));
    }
    TimeZone::get(zone).ok()
}

pub(crate) fn of_duration(d: SignedDuration, method: &str) -> Option<i64> {
    Some(match method {
        "getHours" => d.as_secs() / 3600,
        "getMinutes" => d.as_secs() / 60,
        "getSeconds" => d.as_secs(),
        "getMilliseconds" => i64::try_from(d.as_millis()).unwrap_or(i64::MAX),
        _ => return None,
    })
}
