//! `selector smoothed`: between two samples lies a straight line (Prometheus: PROM-52, smoothSeries).

use super::Evaluator;
use crate::ast::{Expr, Selector};
use crate::error::Error;
use crate::functions::rate::between;
use crate::value::{ABSENT, Cell, Column, Grid};
use crate::window::interpolate;

impl Evaluator<'_> {
    pub(super) fn smoothed(
        &self,
        e: &Expr,
        s: &Selector,
        grid: Grid,
        f: &mut dyn FnMut(Column) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let ends = self.reference_times(s.at, s.offset.as_ref(), grid)?;
        self.select(&s.matchers, &ends, self.lookback, self.lookback, &mut |raw| {
            let name = raw.labels.metric_name();
            let floats: Vec<usize> = (0..raw.t.len()).filter(|i| !signal::is_stale_nan(raw.v[*i])).collect();
            let histograms: Vec<_> = raw.h.iter().filter(|h| !h.histogram.is_stale()).collect();
            let mut c = Column::floats(raw.labels.clone(), false, vec![ABSENT; grid.n]);
            for (i, at) in ends.iter().enumerate() {
                let (from, to) = (at - self.lookback, at + self.lookback);
                let lo = floats.partition_point(|i| raw.t[*i] <= from);
                let hi = floats.partition_point(|i| raw.t[*i] <= to);
                let h_lo = histograms.partition_point(|h| h.timestamp <= from);
                let h_hi = histograms.partition_point(|h| h.timestamp <= to);
                let (floats, histograms) = (&floats[lo..hi], &histograms[h_lo..h_hi]);
                if !floats.is_empty() && !histograms.is_empty() {
                    self.warn(e, crate::annotations::mixed_kinds(name));
                } else if !histograms.is_empty() {
                    let next = histograms.partition_point(|h| h.timestamp < *at);
                    let before = next.checked_sub(1).map(|i| histograms[i]);
                    if let Some(h) = between(self, e, name, before, histograms.get(next).copied(), *at) {
                        c.put(i, Cell::from(h));
                    }
                } else if !floats.is_empty() {
                    let point = |i: usize| (raw.t[i], raw.v[i]);
                    let next = floats.partition_point(|i| raw.t[*i] < *at);
                    let before = next.checked_sub(1).map(|i| point(floats[i]));
                    c.values[i] = match (before, floats.get(next).map(|i| point(*i))) {
                        (_, Some((t, v))) if t == *at => v,
                        (Some(a), Some(b)) => interpolate(a, b, *at, false),
                        (Some((_, v)), None) => v,
                        (None, _) => ABSENT,
                    };
                }
            }
            if c.is_empty() { Ok(()) } else { f(c) }
        })
    }
}
