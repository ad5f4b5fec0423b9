//! The functions: their signatures, and how each is applied.

mod classic;
mod histogram;
mod info;
mod labels;
mod native;
pub(crate) mod over_time;
pub(crate) mod rate;
mod summed;
mod time;

use std::cell::Cell as Slot;

use signal::{Labels, METRIC_NAME, MatchOp};

use crate::ast::{Edges, Expr, Kind, ValueType};
use crate::error::Error;
use crate::eval::{Evaluator, Range};
use crate::value::{ABSENT, Column, Grid, Out, is_absent};
use crate::window::{self, Window};

pub(crate) use native::share_below;
use over_time::Mixed;
pub(crate) use time::civil;

/// What a function takes and gives.
pub(crate) struct Signature {
    pub(crate) args: &'static [ValueType],
    /// How many of the last arguments may be left out.
    pub(crate) optional: u8,
    /// The last argument may be repeated or left out.
    pub(crate) variadic: bool,
    pub(crate) returns: ValueType,
}

const S: ValueType = ValueType::Scalar;
const T: ValueType = ValueType::String;
const V: ValueType = ValueType::Vector;
const M: ValueType = ValueType::Matrix;

/// All functions, by name.
pub const FUNCTIONS: &[&str] = &[
    "abs",
    "absent",
    "absent_over_time",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "avg_over_time",
    "ceil",
    "changes",
    "clamp",
    "clamp_max",
    "clamp_min",
    "cos",
    "cosh",
    "count_over_time",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "deg",
    "delta",
    "deriv",
    "double_exponential_smoothing",
    "end",
    "exp",
    "first_over_time",
    "floor",
    "histogram_avg",
    "histogram_count",
    "histogram_fraction",
    "histogram_quantile",
    "histogram_quantiles",
    "histogram_stddev",
    "histogram_stdvar",
    "histogram_sum",
    "hour",
    "idelta",
    "increase",
    "info",
    "irate",
    "label_join",
    "label_replace",
    "last_over_time",
    "ln",
    "log10",
    "log2",
    "mad_over_time",
    "max_of",
    "max_over_time",
    "min_of",
    "min_over_time",
    "minute",
    "month",
    "pi",
    "predict_linear",
    "present_over_time",
    "quantile_over_time",
    "rad",
    "range",
    "rate",
    "resets",
    "round",
    "scalar",
    "sgn",
    "sin",
    "sinh",
    "sort",
    "sort_by_label",
    "sort_by_label_desc",
    "sort_desc",
    "sqrt",
    "start",
    "start_timestamp",
    "stddev_over_time",
    "stdvar_over_time",
    "step",
    "sum_over_time",
    "tan",
    "tanh",
    "time",
    "timestamp",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
    "vector",
    "year",
];

pub(crate) fn signature(name: &str) -> Option<Signature> {
    let f = |args, optional, variadic, returns| Some(Signature { args, optional, variadic, returns });
    match name {
        "pi" | "time" | "start" | "end" | "step" | "range" => f(&[], 0, false, S),
        "scalar" => f(&[V], 0, false, S),
        "min_of" | "max_of" => f(&[S, S], 0, false, S),
        "vector" => f(&[S], 0, false, V),
        "rate"
        | "irate"
        | "increase"
        | "delta"
        | "idelta"
        | "deriv"
        | "changes"
        | "resets"
        | "avg_over_time"
        | "sum_over_time"
        | "min_over_time"
        | "max_over_time"
        | "count_over_time"
        | "last_over_time"
        | "first_over_time"
        | "present_over_time"
        | "absent_over_time"
        | "stddev_over_time"
        | "stdvar_over_time"
        | "mad_over_time"
        | "ts_of_min_over_time"
        | "ts_of_max_over_time"
        | "ts_of_last_over_time"
        | "ts_of_first_over_time" => f(&[M], 0, false, V),
        "quantile_over_time" => f(&[S, M], 0, false, V),
        "predict_linear" => f(&[M, S], 0, false, V),
        "double_exponential_smoothing" | "holt_winters" => f(&[M, S, S], 0, false, V),
        "clamp" => f(&[V, S, S], 0, false, V),
        "clamp_min" | "clamp_max" => f(&[V, S], 0, false, V),
        "round" => f(&[V, S], 1, false, V),
        "histogram_quantile" => f(&[S, V], 0, false, V),
        "histogram_quantiles" => f(&[V, T, S, S], 0, true, V),
        "histogram_fraction" => f(&[S, S, V], 0, false, V),
        "label_replace" => f(&[V, T, T, T, T], 0, false, V),
        "label_join" => f(&[V, T, T, T], 0, true, V),
        "sort_by_label" | "sort_by_label_desc" => f(&[V, T], 0, true, V),
        "info" => f(&[V, V], 1, false, V),
        "day_of_month" | "day_of_week" | "day_of_year" | "days_in_month" | "hour" | "minute" | "month"
        | "year" => f(&[V], 1, false, V),
        "abs" | "absent" | "acos" | "acosh" | "asin" | "asinh" | "atan" | "atanh" | "ceil" | "cos"
        | "cosh" | "deg" | "exp" | "floor" | "ln" | "log10" | "log2" | "rad" | "sgn" | "sin" | "sinh"
        | "sqrt" | "tan" | "tanh" | "sort" | "sort_desc" | "timestamp" | "start_timestamp"
        | "histogram_avg" | "histogram_count" | "histogram_sum" | "histogram_stddev" | "histogram_stdvar" => {
            f(&[V], 0, false, V)
        }
        _ => None,
    }
}

/// Functions of a range vector that give one column for each series, and so can stream.
pub(crate) fn is_range_function(name: &str) -> bool {
    name != "absent_over_time" && signature(name).is_some_and(|f| f.args.contains(&M))
}

/// Which functions know what to do at the edges of an extended selector.
fn check_edges(name: &str, matrix: &Expr) -> Result<(), Error> {
    let Kind::Matrix { selector, .. } = &matrix.unwrap_parens().kind else { return Ok(()) };
    let (word, allowed) = match selector.edges {
        Edges::Plain => return Ok(()),
        Edges::Anchored => ("anchored", &["changes", "delta", "increase", "rate", "resets"][..]),
        Edges::Smoothed => ("smoothed", &["delta", "increase", "rate"][..]),
    };
    if allowed.contains(&name) {
        return Ok(());
    }
    let allowed = allowed.join(", ");
    Err(Error::Execution(format!("{word} modifier can only be used with: {allowed} - not with {name}")))
}

/// A function of a range vector's floats, with its other arguments.
struct OfFloats<'a> {
    ev: &'a Evaluator<'a>,
    name: &'a str,
    params: &'a [Vec<f64>],
    grid: Grid,
    /// The argument that a note about a quantile points at.
    quantile: &'a Expr,
    failure: Slot<Option<String>>,
}

impl OfFloats<'_> {
    fn param(&self, n: usize, i: usize) -> f64 {
        self.params.get(n).and_then(|p| p.get(i)).copied().unwrap_or(f64::NAN)
    }

    /// All windows of a series that has nothing but floats.
    fn column(&self, r: &Range<'_>) -> Vec<f64> {
        // The function is looked up once for all windows.
        match self.name {
            "rate" => r.rates(true),
            "increase" => r.rates(false),
            "delta" => r.map(|_, w| window::extrapolated(w, false, false)),
            "irate" => r.map(|_, w| window::instant_delta(w, true)),
            "idelta" => r.map(|_, w| window::instant_delta(w, false)),
            "sum_over_time" => r.map(|_, w| window::sum(w)),
            "avg_over_time" => r.map(|_, w| window::avg(w)),
            "min_over_time" => r.map(|_, w| window::min(w)),
            "max_over_time" => r.map(|_, w| window::max(w)),
            "count_over_time" => r.map(|_, w| Some(w.v.len() as f64)),
            "last_over_time" => r.map(|_, w| w.v.last().copied()),
            "first_over_time" => r.map(|_, w| w.v.first().copied()),
            "present_over_time" => r.map(|_, _| Some(1.0)),
            "changes" => r.map(|_, w| window::changes(w)),
            "resets" => r.map(|_, w| window::resets(w)),
            "ts_of_last_over_time" => r.map(|_, w| w.t.last().map(|t| *t as f64 / 1000.0)),
            "ts_of_first_over_time" => r.map(|_, w| w.t.first().map(|t| *t as f64 / 1000.0)),
            _ => r.map(|i, w| self.window(i, w)),
        }
    }

    /// One window, for functions that have no use for histograms.
    fn window(&self, i: usize, w: Window<'_>) -> Option<f64> {
        match self.name {
            "sum_over_time" => window::sum(w),
            "avg_over_time" => window::avg(w),
            "min_over_time" => window::min(w),
            "max_over_time" => window::max(w),
            "stdvar_over_time" => window::variance(w.v),
            "stddev_over_time" => window::variance(w.v).map(f64::sqrt),
            "mad_over_time" => window::mad(w),
            "ts_of_min_over_time" => window::time_of(w, |a, b| a <= b),
            "ts_of_max_over_time" => window::time_of(w, |a, b| a >= b),
            "quantile_over_time" => {
                let q = self.param(0, i);
                self.ev.check_quantiles(self.quantile, &[q]);
                Some(window::quantile(q, &mut w.v.to_vec()))
            }
            "deriv" if w.v.len() >= 2 => Some(window::regression(w, w.t[0])?.0),
            "predict_linear" if w.v.len() >= 2 => {
                // The line is taken at the step itself, wherever offset or `@` put the window.
                let (slope, value) = window::regression(w, self.grid.time(i))?;
                Some(slope * self.param(0, i) + value)
            }
            "double_exponential_smoothing" | "holt_winters" => {
                for (n, word, short) in [(0, "smoothing", "sf"), (1, "trend", "tf")] {
                    let v = self.param(n, i);
                    if v <= 0.0 || v >= 1.0 {
                        let message =
                            format!("invalid {word} factor. Expected: 0 < {short} < 1, got: {v:.6}");
                        self.failure.set(Some(message));
                        return None;
                    }
                }
                window::smooth(w, self.param(0, i), self.param(1, i))
            }
            _ => None,
        }
    }
}

impl Evaluator<'_> {
    pub(crate) fn range_call(
        &self,
        e: &Expr,
        name: &str,
        args: &[Expr],
        grid: Grid,
        f: &mut dyn FnMut(Column) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let at = args.iter().position(|a| a.value_type() == M).unwrap_or(0);
        let Some(matrix) = args.get(at) else { return Ok(()) };
        let mut params = Vec::new();
        for (i, a) in args.iter().enumerate() {
            if i != at {
                params.push(self.scalar(a, grid)?);
            }
        }
        let first = args.first().unwrap_or(e);
        check_edges(name, matrix)?;
        let keeps_name = matches!(name, "last_over_time" | "first_over_time");
        let f_ =
            OfFloats { ev: self, name, params: &params, grid, quantile: first, failure: Slot::default() };
        let arg = matrix.unwrap_parens();
        if let Some(columns) = self.summed(name, matrix, grid)? {
            for mut c in columns {
                c.drop_name = !keeps_name;
                if matches!(name, "rate" | "increase") {
                    self.check_counter_name(arg, &c.labels);
                }
                f(c)?;
            }
            return Ok(());
        }
        self.each_range(matrix, grid, &mut |r| {
            let mut c = if r.is_plain() {
                Column::floats(r.labels.clone(), r.drop_name, f_.column(r))
            } else {
                let metric = r.labels.metric_name();
                let mixed = Mixed { ev: self, arg, metric, edges: r.edges };
                r.cells(|i, w| mixed.value(name, w, |w| f_.window(i, w)))
            };
            c.drop_name |= !keeps_name;
            if let Some(message) = f_.failure.take() {
                return Err(Error::Execution(message));
            }
            if c.is_empty() {
                return Ok(());
            }
            if matches!(name, "rate" | "increase") && c.values.iter().any(|v| !is_absent(*v)) {
                self.check_counter_name(arg, r.labels);
            }
            f(c)
        })
    }

    pub(crate) fn call(&self, e: &Expr, name: &str, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        if is_range_function(name) {
            let mut columns = Vec::new();
            self.range_call(e, name, args, grid, &mut |mut c| {
                self.hold(&mut c)?;
                columns.push(c);
                Ok(())
            })?;
            return Ok(Out::Vector(columns));
        }
        let arg = |i: usize| args.get(i).ok_or_else(|| Error::Execution(format!("{name} lacks an argument")));
        let constant = |v: f64| Ok(Out::Scalar(vec![v; grid.n]));
        let seconds = |ms: i64| ms as f64 / 1000.0;
        match name {
            "pi" => constant(std::f64::consts::PI),
            "time" => Ok(Out::Scalar(grid.times().map(seconds).collect())),
            "start" => constant(seconds(self.query_bounds().0)),
            "end" => constant(seconds(self.query_bounds().1)),
            "step" => constant(seconds(self.query_bounds().2)),
            "range" => constant(seconds(self.query_bounds().1 - self.query_bounds().0)),
            "min_of" | "max_of" => {
                let (a, b) = (self.scalar(arg(0)?, grid)?, self.scalar(arg(1)?, grid)?);
                let pick = |(a, b)| if name == "min_of" { go_min(a, b) } else { go_max(a, b) };
                Ok(Out::Scalar(a.into_iter().zip(b).map(pick).collect()))
            }
            "scalar" => {
                let mut out = vec![f64::NAN; grid.n];
                let mut seen = vec![0u32; grid.n];
                self.each(arg(0)?, grid, &mut |c| {
                    for (i, v) in c.values.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                        seen[i] += 1;
                        out[i] = if seen[i] == 1 { *v } else { f64::NAN };
                    }
                    Ok(())
                })?;
                Ok(Out::Scalar(out))
            }
            "vector" => {
                let values = self.scalar(arg(0)?, grid)?;
                Ok(Out::Vector(vec![Column::floats(Labels::empty(), false, values)]))
            }
            "absent" | "absent_over_time" => self.absent(name, arg(0)?, grid),
            "clamp" | "clamp_min" | "clamp_max" | "round" => self.two_sided(name, args, grid),
            "sort" | "sort_desc" => {
                self.warn_of_sort(e);
                let mut c = self.vector(arg(0)?, grid)?;
                c.iter_mut().for_each(|c| c.histograms = None);
                let key = |c: &Column| c.values.first().copied().unwrap_or(ABSENT);
                c.sort_by(|a, b| {
                    let (a, b) = (key(a), key(b));
                    // NaN stands last in both orders.
                    match (a.is_nan(), b.is_nan()) {
                        (true, true) => std::cmp::Ordering::Equal,
                        (true, false) => std::cmp::Ordering::Greater,
                        (false, true) => std::cmp::Ordering::Less,
                        _ if name == "sort" => a.partial_cmp(&b).expect("neither is NaN"),
                        _ => b.partial_cmp(&a).expect("neither is NaN"),
                    }
                });
                Ok(Out::Vector(c))
            }
            "timestamp" => self.timestamp(arg(0)?, grid),
            "label_replace" => self.label_replace(args, grid),
            "label_join" => self.label_join(args, grid),
            "sort_by_label" | "sort_by_label_desc" => {
                self.warn_of_sort(e);
                self.sort_by_label(name, args, grid)
            }
            "histogram_quantile" => self.with_buckets(true, || self.histogram_quantile(args, grid)),
            "histogram_quantiles" => self.with_buckets(true, || self.histogram_quantiles(args, grid)),
            "histogram_fraction" => self.with_buckets(true, || self.histogram_fraction(args, grid)),
            "histogram_avg" | "histogram_count" | "histogram_sum" => {
                self.with_counts_only(|| self.of_histograms(name, arg(0)?, grid))
            }
            "histogram_stddev" | "histogram_stdvar" => self.of_histograms(name, arg(0)?, grid),
            "start_timestamp" => self.start_timestamp(arg(0)?, grid),
            "info" => self.info(args, grid),
            _ => match time::part(name) {
                Some(part) => self.date(args, part, grid),
                None => {
                    let f =
                        math(name).ok_or_else(|| Error::Execution(format!("{name} is not supported yet")))?;
                    Ok(Out::Vector(self.vector(arg(0)?, grid)?.into_iter().map(|c| c.map(f)).collect()))
                }
            },
        }
    }

    fn warn_of_sort(&self, e: &Expr) {
        if self.is_range_query() {
            self.warn(e, "sort is ineffective for range queries since results are always ordered by labels");
        }
    }

    fn two_sided(&self, name: &str, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        let mut params = Vec::new();
        for a in args.iter().skip(1) {
            params.push(self.scalar(a, grid)?);
        }
        let p = |n: usize, i: usize| params.get(n).and_then(|p: &Vec<f64>| p.get(i)).copied();
        let mut columns = self.vector(&args[0], grid)?;
        for c in &mut columns {
            c.drop_name = true;
            c.histograms = None;
            for (i, v) in c.values.iter_mut().enumerate().filter(|(_, v)| !is_absent(**v)) {
                let (a, b) = (p(0, i).unwrap_or(1.0), p(1, i).unwrap_or(f64::NAN));
                *v = match name {
                    "clamp" if b < a => ABSENT,
                    "clamp" => go_max(a, go_min(b, *v)),
                    "clamp_min" => go_max(a, *v),
                    "clamp_max" => go_min(a, *v),
                    _ => {
                        // Dividing by the inverse keeps round(x, 0.1) free of a second rounding error.
                        let inverse = 1.0 / a;
                        (*v * inverse + 0.5).floor() / inverse
                    }
                };
            }
        }
        Ok(Out::Vector(columns))
    }

    fn absent(&self, name: &str, arg: &Expr, grid: Grid) -> Result<Out, Error> {
        let mut present = vec![false; grid.n];
        if name == "absent" {
            self.each(arg, grid, &mut |c| {
                present.iter_mut().enumerate().for_each(|(i, p)| *p |= c.has(i));
                Ok(())
            })?;
        } else {
            check_edges(name, arg)?;
            self.each_range(arg, grid, &mut |r| {
                r.windows(|i, _| present[i] = true);
                Ok(())
            })?;
        }
        let values: Vec<f64> = present.iter().map(|p| if *p { ABSENT } else { 1.0 }).collect();
        let labels = match &arg.unwrap_parens().kind {
            Kind::Selector(s) | Kind::Matrix { selector: s, .. } => {
                let mut b = Labels::empty().builder();
                let mut seen: Vec<&str> = Vec::new();
                for m in s.matchers.iter().filter(|m| m.name != METRIC_NAME) {
                    // Only what is said once, and by equality, is known of the missing series.
                    if m.op == MatchOp::Equal && !seen.contains(&m.name.as_str()) {
                        b.set(&m.name, &m.value);
                        seen.push(&m.name);
                    } else {
                        b.remove(&m.name);
                        seen.push(&m.name);
                    }
                }
                b.build()
            }
            _ => Labels::empty(),
        };
        Ok(Out::Vector(vec![Column::floats(labels, false, values)]))
    }
}

/// Go's math.Max: infinity whatever the other side is, else NaN if either side is.
fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}

fn math(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "acos" => f64::acos,
        "acosh" => f64::acosh,
        "asin" => f64::asin,
        "asinh" => f64::asinh,
        "atan" => f64::atan,
        "atanh" => f64::atanh,
        "ceil" => f64::ceil,
        "cos" => f64::cos,
        "cosh" => f64::cosh,
        "deg" => f64::to_degrees,
        "exp" => f64::exp,
        "floor" => f64::floor,
        "ln" => f64::ln,
        "log10" => f64::log10,
        "log2" => f64::log2,
        "rad" => f64::to_radians,
        "sgn" => |v| {
            if v > 0.0 {
                1.0
            } else if v < 0.0 {
                -1.0
            } else {
                v
            }
        },
        "sin" => f64::sin,
        "sinh" => f64::sinh,
        "sqrt" => f64::sqrt,
        "tan" => f64::tan,
        "tanh" => f64::tanh,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_signature() {
        assert_eq!(FUNCTIONS.len(), 90);
        assert!(FUNCTIONS.is_sorted());
        assert!(FUNCTIONS.iter().all(|f| signature(f).is_some()));
    }
}
