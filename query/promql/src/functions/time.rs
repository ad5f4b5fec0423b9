//! Dates, and the times of samples. All in UTC.

use signal::Labels;

use crate::ast::{Expr, Kind, Selector};
use crate::error::Error;
use crate::eval::{Evaluator, Newest};
use crate::value::{ABSENT, Column, Grid, Out};

/// Days since 1970-01-01 as year, month, day (Howard Hinnant's civil_from_days).
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The part of a date that a function of this name gives, from seconds since 1970.
pub(super) fn part(name: &str) -> Option<fn(i64) -> i64> {
    fn day(s: i64) -> (i64, i64, i64) {
        civil(s.div_euclid(86_400))
    }
    Some(match name {
        "minute" => |s| s.rem_euclid(3600) / 60,
        "hour" => |s| s.rem_euclid(86_400) / 3600,
        "day_of_week" => |s| (s.div_euclid(86_400) + 4).rem_euclid(7),
        "day_of_month" => |s| day(s).2,
        "month" => |s| day(s).1,
        "year" => |s| day(s).0,
        "days_in_month" => |s| month_days(day(s).0, day(s).1),
        "day_of_year" => |s| {
            let (y, m, d) = day(s);
            (1..m).map(|m| month_days(y, m)).sum::<i64>() + d
        },
        _ => return None,
    })
}

impl Evaluator<'_> {
    pub(super) fn date(&self, args: &[Expr], part: fn(i64) -> i64, grid: Grid) -> Result<Out, Error> {
        let columns = match args.first() {
            Some(a) => self.vector(a, grid)?,
            None => {
                let values = grid.times().map(|t| t as f64 / 1000.0).collect();
                vec![Column::floats(Labels::empty(), false, values)]
            }
        };
        let of = |v: f64| if v.is_finite() { part(v as i64) as f64 } else { f64::NAN };
        Ok(Out::Vector(columns.into_iter().map(|c| c.map(of)).collect()))
    }

    pub(super) fn timestamp(&self, arg: &Expr, grid: Grid) -> Result<Out, Error> {
        if let Kind::Selector(s) = &arg.unwrap_parens().kind {
            return self.of_newest(s, grid, |n| n.timestamp);
        }
        let mut columns = self.vector(arg, grid)?;
        for c in &mut columns {
            c.drop_name = true;
            for i in 0..grid.n {
                if c.has(i) {
                    c.values[i] = grid.time(i) as f64 / 1000.0;
                }
            }
            c.histograms = None;
        }
        Ok(Out::Vector(columns))
    }

    /// Nothing for anything but a selector: results of expressions have no start times.
    pub(super) fn start_timestamp(&self, arg: &Expr, grid: Grid) -> Result<Out, Error> {
        match &arg.unwrap_parens().kind {
            Kind::Selector(s) => self.of_newest(s, grid, |n| n.start),
            _ => self.vector(arg, grid).map(|_| Out::Vector(Vec::new())),
        }
    }

    /// A time of each newest sample, in seconds.
    fn of_newest(&self, s: &Selector, grid: Grid, time: impl Fn(Newest<'_>) -> i64) -> Result<Out, Error> {
        let mut columns = Vec::new();
        self.instants(s, grid, &mut |raw, ends| {
            let mut c = Column::floats(raw.labels.clone(), true, vec![ABSENT; grid.n]);
            raw.newest(ends, self.lookback, |i, n| c.values[i] = time(n) as f64 / 1000.0);
            self.hold(&mut c)?;
            columns.push(c);
            Ok(())
        })?;
        Ok(Out::Vector(columns))
    }

    /// Start, end and step of the whole query, in milliseconds.
    pub(super) fn query_bounds(&self) -> (i64, i64, i64) {
        let q = self.query_grid();
        (q.start, q.time(q.n.saturating_sub(1)), if q.n > 1 { q.step } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let check =
            |name: &str, s: i64, expect: i64| assert_eq!(part(name).expect(name)(s), expect, "{name} {s}");
        check("year", 1_136_239_445, 2006);
        check("month", 1_136_239_445, 1);
        check("day_of_month", 1_136_239_445, 2);
        check("day_of_week", 1_136_239_445, 1);
        check("days_in_month", 1_456_790_399, 29);
        check("day_of_year", 1_483_228_799, 366);
    }
}
