//! Functions over histograms: classic ones, which are series of cumulative buckets with the bound in the label `le`,
//! and native ones. Where both stand for the same thing at the same time, neither is used.

use std::collections::{BTreeMap, HashMap};

use signal::{FloatHistogram, Labels, METRIC_NAME};

use super::classic::{self, Bucket, parse_bound};
use super::native::{self, NanNote};
use crate::annotations::with_metric;
use crate::ast::{Expr, Kind};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::value::{ABSENT, Column, Grid, Histograms, Out, is_absent};

/// The histograms of one label set.
#[derive(Default)]
struct Family {
    /// Upper bound and counts over the steps.
    classic: Vec<(f64, Vec<f64>)>,
    native: Option<Histograms>,
}

/// One histogram at one step.
enum Histogram<'a> {
    Classic(&'a mut Vec<Bucket>),
    Native(&'a FloatHistogram),
}

impl Evaluator<'_> {
    fn families(&self, arg: &Expr, grid: Grid) -> Result<BTreeMap<Labels, Family>, Error> {
        let mut out: BTreeMap<Labels, Family> = BTreeMap::new();
        for c in self.vector(arg, grid)? {
            if c.values.iter().any(|v| !is_absent(*v)) {
                let le = c.labels.get("le").unwrap_or("");
                match parse_bound(le) {
                    Some(upper) => {
                        let labels = Labels::from_pairs(c.labels.iter().filter(|(n, _)| *n != "le"));
                        out.entry(labels).or_default().classic.push((upper, c.values));
                    }
                    None => {
                        let message =
                            format!("bucket label \"le\" is missing or has a malformed value of {le:?}");
                        self.warn(arg, with_metric(&message, c.labels.metric_name()));
                    }
                }
            }
            if let Some(h) = c.histograms {
                out.entry(c.labels).or_default().native = Some(h);
            }
        }
        Ok(out)
    }

    /// One column of floats for each label set.
    fn per_step(
        &self,
        arg: &Expr,
        grid: Grid,
        mut f: impl FnMut(usize, Histogram<'_>, &str) -> f64,
    ) -> Result<Vec<Column>, Error> {
        let mut columns = Vec::new();
        let mut buckets: Vec<Bucket> = Vec::new();
        for (labels, family) in self.families(arg, grid)? {
            let mut values = vec![ABSENT; grid.n];
            let metric = labels.get(METRIC_NAME).unwrap_or("").to_owned();
            for (i, value) in values.iter_mut().enumerate() {
                buckets.clear();
                buckets.extend(family.classic.iter().filter_map(|(upper, v)| {
                    let count = *v.get(i)?;
                    (!is_absent(count)).then_some(Bucket { upper: *upper, count })
                }));
                let native = family.native.as_ref().and_then(|h| h[i].as_ref());
                match (buckets.is_empty(), native) {
                    (true, None) => {}
                    (true, Some(h)) => *value = f(i, Histogram::Native(h), &metric),
                    (false, None) => *value = f(i, Histogram::Classic(&mut buckets), &metric),
                    (false, Some(_)) => {
                        let message = "vector contains a mix of classic and native histograms";
                        self.warn(arg, with_metric(message, &metric));
                    }
                }
            }
            self.charge(values.len() * 8)?;
            columns.push(Column::floats(labels, true, values));
        }
        Ok(columns)
    }

    fn quantile_of(&self, arg: &Expr, q: f64, h: Histogram<'_>, metric: &str, time: i64) -> f64 {
        match h {
            Histogram::Classic(buckets) => {
                let (value, forced) = classic::quantile(q, buckets);
                if let Some(forced) = forced {
                    self.notes.borrow_mut().monotonicity(arg.span.0, metric, forced, time);
                }
                value
            }
            Histogram::Native(h) => {
                let (value, note) = native::quantile(q, h);
                if let Some(note) = note {
                    let result = match note {
                        NanNote::ResultIsNan => "result is NaN",
                        NanNote::Skewed => "result is skewed higher",
                    };
                    let message = format!("input to histogram_quantile has NaN observations, {result}");
                    self.inform(arg, with_metric(&message, metric));
                }
                value
            }
        }
    }

    pub(super) fn histogram_quantile(&self, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        let q = self.scalar(&args[0], grid)?;
        self.check_quantiles(args[0].unwrap_parens(), &q);
        let arg = args[1].unwrap_parens();
        let columns =
            self.per_step(arg, grid, |i, h, metric| self.quantile_of(arg, q[i], h, metric, grid.time(i)))?;
        Ok(Out::Vector(columns))
    }

    pub(super) fn histogram_quantiles(&self, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        let Some(Kind::String(label)) = args.get(1).map(|a| &a.unwrap_parens().kind) else {
            return Err(Error::Execution("histogram_quantiles wants the name of a label".to_owned()));
        };
        let arg = args[0].unwrap_parens();
        let mut out: Vec<Column> = Vec::new();
        for a in args.iter().skip(2) {
            let q = self.scalar(a, grid)?;
            self.check_quantiles(a.unwrap_parens(), &q);
            for c in
                self.per_step(arg, grid, |i, h, metric| self.quantile_of(arg, q[i], h, metric, grid.time(i)))?
            {
                // The quantile may differ from step to step, and so may the series it belongs to.
                let mut by_quantile: HashMap<u64, Column, ahash::RandomState> = HashMap::default();
                for (i, v) in c.values.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                    let at = by_quantile.entry(q[i].to_bits()).or_insert_with(|| {
                        let mut b = c.labels.builder();
                        b.set(label, &open_metrics(q[i]));
                        Column::floats(b.build(), true, vec![ABSENT; grid.n])
                    });
                    at.values[i] = *v;
                }
                out.extend(by_quantile.into_values());
            }
        }
        super::labels::unique(out)
    }

    pub(crate) fn check_quantiles(&self, arg: &Expr, q: &[f64]) {
        for q in q.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
            let got = signal::histogram::general(*q);
            self.warn(arg, format!("quantile value should be between 0 and 1, got {got}"));
        }
    }

    pub(super) fn histogram_fraction(&self, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        let (low, high) = (self.scalar(&args[0], grid)?, self.scalar(&args[1], grid)?);
        let arg = args[2].unwrap_parens();
        let columns = self.per_step(arg, grid, |i, h, metric| match h {
            Histogram::Classic(buckets) => classic::fraction(low[i], high[i], buckets),
            Histogram::Native(h) => {
                let (value, left_out) = native::fraction(low[i], high[i], h);
                if left_out {
                    let message = "input to histogram_fraction has NaN observations, which are excluded from all fractions";
                    self.inform(arg, with_metric(message, metric));
                }
                value
            }
        })?;
        Ok(Out::Vector(columns))
    }

    /// Functions that pass over floats.
    pub(super) fn of_histograms(&self, name: &str, arg: &Expr, grid: Grid) -> Result<Out, Error> {
        let of = |h: &FloatHistogram| match name {
            "histogram_count" => h.count,
            "histogram_sum" => h.sum,
            "histogram_avg" => h.sum / h.count,
            "histogram_stdvar" => native::variance(h),
            _ => native::variance(h).sqrt(),
        };
        let mut columns = Vec::new();
        self.each(arg, grid, &mut |c| {
            let Some(histograms) = c.histograms else { return Ok(()) };
            let values: Vec<f64> = histograms.iter().map(|h| h.as_ref().map_or(ABSENT, |h| of(h))).collect();
            self.charge(values.len() * 8 + 64)?;
            columns.push(Column::floats(c.labels, true, values));
            Ok(())
        })?;
        Ok(Out::Vector(columns))
    }
}

/// As OpenMetrics writes a float in a label: always with a point or an exponent.
fn open_metrics(v: f64) -> String {
    let s = signal::histogram::general(v);
    if v.is_finite() && !s.contains(['.', 'e']) { s + ".0" } else { s }
}
