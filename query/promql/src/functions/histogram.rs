//! Functions over classic histograms: series of cumulative buckets with the upper bound in the label `le`.

use std::collections::BTreeMap;

use signal::{Labels, METRIC_NAME};

use crate::ast::{Expr, Kind};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::value::{ABSENT, Column, Grid, Out, format_value, is_absent};

/// Bucket counts that differ by less than this share are taken for equal: float arithmetic made the difference.
const TOLERANCE: f64 = 1e-12;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    upper: f64,
    count: f64,
}

/// The buckets of each histogram, by labels without `le`.
struct Histogram {
    drop_name: bool,
    /// Upper bound and counts over the steps.
    buckets: Vec<(f64, Vec<f64>)>,
}

impl Evaluator<'_> {
    fn histograms(&self, arg: &Expr, grid: Grid) -> Result<BTreeMap<Labels, Histogram>, Error> {
        let mut out: BTreeMap<Labels, Histogram> = BTreeMap::new();
        for c in self.vector(arg, grid)? {
            let le = c.labels.get("le").unwrap_or("");
            let Some(upper) = parse_bound(le) else {
                let name = c.labels.metric_name();
                self.warn(
                    arg,
                    &format!("bucket label \"le\" is missing or has a malformed value of {le:?} for metric name {name:?}"),
                );
                continue;
            };
            let labels = Labels::from_pairs(c.labels.iter().filter(|(n, _)| *n != "le"));
            let h = out.entry(labels).or_insert(Histogram { drop_name: true, buckets: Vec::new() });
            h.drop_name |= c.drop_name;
            h.buckets.push((upper, c.values));
        }
        Ok(out)
    }

    fn per_step(
        &self,
        arg: &Expr,
        grid: Grid,
        mut f: impl FnMut(usize, &mut Vec<Bucket>, &Labels) -> f64,
    ) -> Result<Vec<Column>, Error> {
        let mut columns = Vec::new();
        for (labels, h) in self.histograms(arg, grid)? {
            let mut values = vec![ABSENT; grid.n];
            for (i, value) in values.iter_mut().enumerate() {
                let mut buckets: Vec<Bucket> = h
                    .buckets
                    .iter()
                    .filter_map(|(upper, v)| {
                        let count = *v.get(i)?;
                        (!is_absent(count)).then_some(Bucket { upper: *upper, count })
                    })
                    .collect();
                if !buckets.is_empty() {
                    *value = f(i, &mut buckets, &labels);
                }
            }
            self.charge(values.len() * 8)?;
            columns.push(Column { labels, drop_name: h.drop_name, values });
        }
        Ok(columns)
    }

    fn quantile_column(&self, arg: &Expr, grid: Grid, q: &[f64]) -> Result<Vec<Column>, Error> {
        self.per_step(arg, grid, |i, buckets, labels| {
            let (value, forced) = bucket_quantile(q[i], buckets);
            if forced {
                let name = labels.get(METRIC_NAME).unwrap_or("");
                self.inform(arg, &format!("input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile) for metric name {name:?}"));
            }
            value
        })
    }

    pub(super) fn histogram_quantile(&self, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        let q = self.scalar(&args[0], grid)?;
        self.check_quantiles(&args[0], &q);
        Ok(Out::Vector(self.quantile_column(&args[1], grid, &q)?))
    }

    pub(super) fn histogram_quantiles(&self, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        let Some(Kind::String(label)) = args.get(1).map(|a| &a.unwrap_parens().kind) else {
            return Err(Error::Execution("histogram_quantiles wants the name of a label".to_owned()));
        };
        let mut out = Vec::new();
        for a in args.iter().skip(2) {
            let q = self.scalar(a, grid)?;
            self.check_quantiles(a, &q);
            for mut c in self.quantile_column(&args[0], grid, &q)? {
                let mut b = c.labels.builder();
                b.set(label, &open_metrics(q.first().copied().unwrap_or(f64::NAN)));
                c.labels = b.build();
                out.push(c);
            }
        }
        Ok(Out::Vector(out))
    }

    pub(crate) fn check_quantiles(&self, arg: &Expr, q: &[f64]) {
        if let Some(q) = q.iter().find(|q| !(0.0..=1.0).contains(*q)) {
            self.warn(arg, &format!("quantile value should be between 0 and 1, got {}", format_value(*q)));
        }
    }

    pub(super) fn histogram_fraction(&self, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        let (low, high) = (self.scalar(&args[0], grid)?, self.scalar(&args[1], grid)?);
        Ok(Out::Vector(
            self.per_step(&args[2], grid, |i, buckets, _| bucket_fraction(low[i], high[i], buckets))?,
        ))
    }
}

/// As OpenMetrics writes a float in a label: always with a point.
fn open_metrics(v: f64) -> String {
    let s = format_value(v);
    if v.is_finite() && !s.contains('.') { s + ".0" } else { s }
}

fn parse_bound(le: &str) -> Option<f64> {
    match le {
        "+Inf" | "Inf" | "inf" | "+inf" => Some(f64::INFINITY),
        s => s.parse().ok(),
    }
}

/// Sorted, equal bounds joined, counts made to grow. True if one had to be forced.
fn normalise(buckets: &mut Vec<Bucket>) -> bool {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    buckets.dedup_by(|next, kept| {
        let same = next.upper == kept.upper;
        if same {
            kept.count += next.count;
        }
        same
    });
    let mut forced = false;
    let mut previous = buckets.first().map_or(0.0, |b| b.count);
    for b in buckets.iter_mut().skip(1) {
        if b.count == previous {
            continue;
        }
        let close = (b.count - previous).abs() <= TOLERANCE * b.count.abs().max(previous.abs());
        if close {
            b.count = previous;
        } else if b.count < previous {
            b.count = previous;
            forced = true;
        } else {
            previous = b.count;
        }
    }
    forced
}

/// Prometheus: promql/quantile.go BucketQuantile.
fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, bool) {
    if q.is_nan() {
        return (f64::NAN, false);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, false);
    }
    if q > 1.0 {
        return (f64::INFINITY, false);
    }
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    if !buckets.last().is_some_and(|b| b.upper == f64::INFINITY) {
        return (f64::NAN, false);
    }
    let forced = normalise(buckets);
    let n = buckets.len();
    if n < 2 {
        return (f64::NAN, false);
    }
    let observations = buckets[n - 1].count;
    if observations == 0.0 {
        return (f64::NAN, false);
    }
    let mut rank = q * observations;
    let at = buckets[..n - 1].iter().position(|b| b.count >= rank).unwrap_or(n - 1);
    if at == n - 1 {
        return (buckets[n - 2].upper, forced);
    }
    if at == 0 && buckets[0].upper <= 0.0 {
        return (buckets[0].upper, forced);
    }
    let end = buckets[at].upper;
    let (mut start, mut count) = (0.0, buckets[at].count);
    if at > 0 {
        start = buckets[at - 1].upper;
        count -= buckets[at - 1].count;
        rank -= buckets[at - 1].count;
    }
    (start + (end - start) * (rank / count), forced)
}

/// Prometheus: promql/quantile.go BucketFraction.
fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    if !buckets.last().is_some_and(|b| b.upper == f64::INFINITY) {
        return f64::NAN;
    }
    normalise(buckets);
    let count = buckets.last().map_or(0.0, |b| b.count);
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    // The number of observations at or below a value, by a straight line within its bucket.
    let rank = |v: f64| {
        let mut previous = Bucket { upper: f64::NEG_INFINITY, count: 0.0 };
        for (i, b) in buckets.iter().enumerate() {
            if v <= b.upper {
                let start = if i == 0 && b.upper > 0.0 { 0.0 } else { previous.upper };
                if v == b.upper {
                    return b.count;
                }
                if v <= start || start.is_infinite() || b.upper.is_infinite() {
                    return previous.count;
                }
                return previous.count + (b.count - previous.count) * (v - start) / (b.upper - start);
            }
            previous = *b;
        }
        count
    };
    let low = if lower == f64::NEG_INFINITY { 0.0 } else { rank(lower) };
    let high = if upper == f64::INFINITY { count } else { rank(upper) };
    (high - low) / count
}
