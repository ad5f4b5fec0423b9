//! Functions over a long time at one step: by what the source knows of whole chunks, where it does.

use signal::{Select, Summary};

use crate::ast::{Edges, Expr, Kind};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::value::{Column, Grid};
use crate::window::Stretch;

/// Over less the samples are as quickly read.
const LONG: i64 = 6 * 3_600_000;

/// The functions that need no more than a summary.
fn value(name: &str, s: &Summary, start: i64, end: i64) -> Option<f64> {
    let rate = |counter: bool, per_second: bool| {
        if s.count < 2 {
            return None;
        }
        let delta = s.last.1 - s.first.1 + if counter { s.dropped } else { 0.0 };
        let stretch = Stretch::over(s.first.0, s.last.0, s.count, start, end);
        let seconds = if per_second { (end - start) as f64 / 1000.0 } else { 1.0 };
        Some(delta * (stretch.factor(delta, s.first.1, counter) / seconds))
    };
    match name {
        "min_over_time" => Some(s.low),
        "max_over_time" => Some(s.high),
        "sum_over_time" => Some(s.sum),
        "count_over_time" => Some(s.count as f64),
        "avg_over_time" => Some(s.sum / s.count as f64),
        "present_over_time" => Some(1.0),
        "first_over_time" => Some(s.first.1),
        "last_over_time" => Some(s.last.1),
        "rate" => rate(true, true),
        "increase" => rate(true, false),
        "delta" => rate(false, false),
        _ => None,
    }
}

const NAMES: [&str; 11] = [
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "avg_over_time",
    "present_over_time",
    "first_over_time",
    "last_over_time",
    "rate",
    "increase",
    "delta",
];

impl Evaluator<'_> {
    /// `None` if the samples must be read.
    pub(super) fn summed(&self, name: &str, matrix: &Expr, grid: Grid) -> Result<Option<Vec<Column>>, Error> {
        let Kind::Matrix { selector, range } = &matrix.unwrap_parens().kind else { return Ok(None) };
        if grid.n != 1 || selector.edges != Edges::Plain || !NAMES.contains(&name) {
            return Ok(None);
        }
        let length = self.range_length(range)?;
        let Some(end) = self.reference_times(selector.at, selector.offset.as_ref(), grid)?.first().copied()
        else {
            return Ok(None);
        };
        if length < LONG {
            return Ok(None);
        }
        let select = Select { matchers: self.enforced(&selector.matchers), start: end - length + 1, end };
        let Some(found) = self.source().summaries(&select, self.room())? else { return Ok(None) };
        let _held = self.held(found.len() * size_of::<(signal::Labels, Summary)>())?;
        let mut out = Vec::new();
        for (labels, s) in found {
            self.count_samples(s.count);
            // Infinities in a sum that was made in parts may not be those of one made in order.
            if !s.sum.is_finite() {
                return Ok(None);
            }
            if let Some(v) = value(name, &s, end - length, end) {
                let mut c = Column::floats(labels, false, vec![v]);
                self.hold(&mut c)?;
                out.push(c);
            }
        }
        Ok(Some(out))
    }
}
