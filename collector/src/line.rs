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
    let nanos = match utc(time.as_bytes()) {
        Some(n) => n,
        None => {
            let timestamp: jiff::Timestamp = time.parse().ok()?;
            i64::try_from(timestamp.as_nanosecond()).ok()?
        }
    };
    Some(CriLine { timestamp: Timestamp::from_nanos(nanos), stderr, partial, text })
}

/// `2026-11-23T01:02:03.123456789Z` in nanoseconds, as every CRI runtime writes it; what is written otherwise is left to
/// a parser that knows all forms.
fn utc(b: &[u8]) -> Option<i64> {
    let number = |from: usize, to: usize| {
        b[from..to].iter().try_fold(0i64, |n, d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')))
    };
    let shaped = b.len() == 30
        && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (29, b'Z')]
            .iter()
            .all(|(i, c)| b[*i] == *c);
    if !shaped {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    let real =
        (1700..2262).contains(&year) && (1..=last).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !real {
        return None;
    }
    // Days since 1970-03-01 of a year that begins in March, then since 1970-01-01.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000 + number(20, 29)?)
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

    #[test]
    fn the_usual_form_of_a_time_is_read_as_any_other() {
        for day in [
            "1970-01-01",
            "1999-12-31",
            "2000-02-29",
            "2024-02-29",
            "2026-02-28",
            "2026-03-01",
            "2026-11-23",
            "2100-03-01",
            "1969-12-31",
            "1900-01-31",
        ] {
            for clock in ["00:00:00.000000000", "23:59:59.999999999", "10:11:12.000000001"] {
                let text = format!("{day}T{clock}Z");
                let expect: jiff::Timestamp = text.parse().expect("a time");
                assert_eq!(utc(text.as_bytes()).map(i128::from), Some(expect.as_nanosecond()), "{text}");
            }
        }
        for text in [
            "2026-02-29T00:00:00.000000000Z",
            "2026-13-01T00:00:00.000000000Z",
            "2026-01-01T24:00:00.000000000Z",
        ] {
            assert_eq!(utc(text.as_bytes()), None, "{text}");
        }
    }
}
