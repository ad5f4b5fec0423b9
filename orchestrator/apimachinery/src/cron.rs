//! When a CronJob runs: five fields, or a word such as `@daily`
//! (Kubernetes: the standard parser of robfig/cron).

use std::time::Duration;

use jiff::Zoned;
use jiff::civil::Weekday;

/// Which minutes of time are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    Calendar(Box<Calendar>),
    /// `@every 5m`
    Every(Duration),
}

/// Sets of bits: bit n is value n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// With both days named, either will do; with one free, the other decides.
    any_day: bool,
    any_weekday: bool,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// A schedule such as the 30th of February never comes.
const LOOK_AHEAD_DAYS: usize = 5 * 366;

struct Field {
    low: u32,
    high: u32,
    names: &'static [&'static str],
    /// The number of the first name.
    first: u32,
}

impl Schedule {
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let text = text.trim();
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            return Err("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".to_owned());
        }
        if let Some(word) = text.strip_prefix('@') {
            return descriptor(word);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        let plain = |low, high| Field { low, high, names: &[], first: 0 };
        let (days, any_day) = parse(day, &plain(1, 31))?;
        let (mut weekdays, any_weekday) =
            parse(weekday, &Field { low: 0, high: 6, names: &WEEKDAYS, first: 0 })?;
        weekdays &= 0x7f;
        Ok(Schedule::Calendar(Box::new(Calendar {
            minutes: parse(minute, &plain(0, 59))?.0,
            hours: parse(hour, &plain(0, 23))?.0,
            days,
            months: parse(month, &Field { low: 1, high: 12, names: &MONTHS, first: 1 })?.0,
            weekdays,
            any_day,
            any_weekday,
        })))
    }

    /// The first time behind `after`, in its time zone; `None` if there is none within years.
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        match self {
            Schedule::Every(d) => after.checked_add(*d).ok(),
            Schedule::Calendar(c) => c.next(after),
        }
    }
}

fn descriptor(word: &str) -> Result<Schedule, String> {
    let fields = match word {
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        _ => {
            let every = word.strip_prefix("every ").and_then(duration);
            return match every {
                Some(d) if d >= Duration::from_secs(1) => Ok(Schedule::Every(d)),
                _ => Err(format!("unrecognized descriptor: @{word}")),
            };
        }
    };
    Schedule::parse(fields)
}

/// `1h30m10s`
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let n: u64 = rest[..digits].parse().ok()?;
        let (unit, after) = rest[digits..].split_at_checked(1)?;
        let seconds = match unit {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        sum = sum.checked_add(Duration::from_secs(n.checked_mul(seconds)?))?;
        rest = after;
    }
    Some(sum)
}

/// The bits of one field, and whether it is free.
fn parse(text: &str, f: &Field) -> Result<(u64, bool), String> {
    let (mut bits, mut free) = (0, false);
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((r, s)) => (r, Some(s)),
            None => (part, None),
        };
        let number = |s: &str| -> Result<u32, String> {
            let named = f.names.iter().position(|n| n.eq_ignore_ascii_case(s));
            match named {
                Some(i) => Ok(i as u32 + f.first),
                None => s.parse().map_err(|_| format!("failed to parse int from {s}: invalid syntax")),
            }
        };
        let (low, high) = match range {
            "*" | "?" => {
                free |= step.is_none();
                (f.low, f.high)
            }
            r => match r.split_once('-') {
                Some((a, b)) => (number(a)?, number(b)?),
                None => {
                    let n = number(r)?;
                    // `N/step` means from N on.
                    (n, if step.is_some() { f.high } else { n })
                }
            },
        };
        let step = match step {
            None => 1,
            Some(s) => number(s)?,
        };
        if low < f.low {
            return Err(format!("beginning of range ({low}) below minimum ({}): {part}", f.low));
        }
        if high > f.high {
            return Err(format!("end of range ({high}) above maximum ({}): {part}", f.high));
        }
        if low > high {
            return Err(format!("beginning of range ({low}) beyond end of range ({high}): {part}"));
        }
        if step == 0 {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        (low..=high).step_by(step as usize).for_each(|n| bits |= 1 << n);
    }
    Ok((bits, free))
}

impl Calendar {
    fn is_day(&self, date: jiff::civil::Date) -> bool {
        let has = |bits: u64, n: i8| u32::try_from(n).is_ok_and(|n| bits >> n & 1 == 1);
        let weekday = match date.weekday() {
            Weekday::Sunday => 0,
            w => w.to_monday_one_offset(),
        };
        let (day, weekday) = (has(self.days, date.day()), has(self.weekdays, weekday));
        let wanted = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        wanted && has(self.months, date.month())
    }

    fn next(&self, after: &Zoned) -> Option<Zoned> {
        let set = |bits: u64, below: u32| (0..below).filter(move |n| bits >> n & 1 == 1);
        let mut date = after.date();
        for _ in 0..LOOK_AHEAD_DAYS {
            if self.is_day(date) {
                for hour in set(self.hours, 24) {
                    for minute in set(self.minutes, 60) {
                        let time = date.at(hour as i8, minute as i8, 0, 0);
                        let Ok(at) = time.to_zoned(after.time_zone().clone()) else { continue };
                        // A time that clocks skip does not come.
                        if at > *after && at.datetime() == time {
                            return Some(at);
                        }
                    }
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_times() {
        let check = |schedule: &str, after: &str, expect: &str| {
            let after: Zoned = after.parse().expect("a time");
            let next = Schedule::parse(schedule).expect("a schedule").next(&after);
            assert_eq!(next.map(|t| t.datetime().to_string()).unwrap_or_default(), expect, "{schedule}");
        };
        let noon = "2026-01-01T12:00:00[UTC]";
        check("* * * * *", noon, "2026-01-01T12:01:00");
        check("*/15 * * * *", noon, "2026-01-01T12:15:00");
        check("0 0 * * *", noon, "2026-01-02T00:00:00");
        check("30 8 * * mon-fri", "2026-01-02T09:00:00[UTC]", "2026-01-05T08:30:00");
        check("0 0 13 * 5", noon, "2026-01-02T00:00:00");
        check("0 0 29 feb *", noon, "2028-02-29T00:00:00");
        check("0 0 30 2 *", noon, "");
        check("5/20 1 * * *", noon, "2026-01-02T01:05:00");
        check("@hourly", noon, "2026-01-01T13:00:00");
        check("@every 1h30m", noon, "2026-01-01T13:30:00");
        // Clocks go from 2 to 3: half past two does not come on that day.
        check("30 2 * * *", "2026-03-28T12:00:00[Europe/Berlin]", "2026-03-30T02:30:00");
    }

    #[test]
    fn refused() {
        let check = |schedule: &str, expect: &str| {
            assert_eq!(Schedule::parse(schedule).err().as_deref(), Some(expect), "{schedule}");
        };
        check("* * * *", "expected exactly 5 fields, found 4: [* * * *]");
        check("60 * * * *", "end of range (60) above maximum (59): 60");
        check("a * * * *", "failed to parse int from a: invalid syntax");
        check("*/0 * * * *", "step of range should be a positive number: */0");
        check("@never", "unrecognized descriptor: @never");
        check("TZ=UTC * * * * *", "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    }
}
