//! Times as people write them: `now`, `-5m`, RFC 3339, Unix seconds.

use anyhow::{Context, Result, bail};

/// Milliseconds since the Unix epoch.
pub(super) fn parse(text: &str, now: i64) -> Result<i64> {
    if text == "now" {
        return Ok(now);
    }
    if let Some(back) = text.strip_prefix('-') {
        return Ok(now - duration(back)?);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds * 1000.0) as i64);
    }
    let t: jiff::Timestamp = text.parse().with_context(|| {
        format!("{text:?} is no time: use now, -5m, 2026-01-31T12:00:00Z or Unix seconds")
    })?;
    Ok(t.as_millisecond())
}

/// Milliseconds of `90s`, `5m`, `1h30m`, `2d`.
pub(super) fn duration(text: &str) -> Result<i64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let factor = match unit {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            "w" => 604_800_000.0,
            _ => bail!("{text:?} is no duration: use forms such as 30s, 5m, 1h30m"),
        };
        total += number.parse::<f64>().with_context(|| format!("{text:?} is no duration"))? * factor;
        rest = after;
    }
    Ok(total as i64)
}

/// `2026-01-31 12:00:00.123` in UTC.
pub(super) fn show(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map(|t| t.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string())
        .unwrap_or_else(|_| millis.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let check = |s: &str, expect: i64| assert_eq!(parse(s, 1_000_000).expect(s), expect, "{s}");
        check("now", 1_000_000);
        check("-5m", 700_000);
        check("-1m30s", 910_000);
        check("12.5", 12_500);
        check("1970-01-01T00:00:01Z", 1000);
        assert!(parse("soon", 0).is_err());
        assert!(parse("-5", 0).is_err());
    }
}
