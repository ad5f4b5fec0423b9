//! The functions: their signatures, and how each is applied.

mod histogram;
mod info;
mod labels;
mod time;

use signal::{Labels, METRIC_NAME, MatchOp};

use crate::ast::{Expr, Kind, ValueType};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::value::{ABSENT, Column, Grid, Out, is_absent};
use crate::window::{self, Window};

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
        let param = |n: usize, i: usize| params.get(n).and_then(|p| p.get(i)).copied().unwrap_or(f64::NAN);
        if name == "quantile_over_time"
            && let Some(q) = params.first().into_iter().flatten().find(|q| !(0.0..=1.0).contains(*q))
        {
            self.warn(
                args.first().unwrap_or(e),
                &format!("quantile value should be between 0 and 1, got {}", crate::value::format_value(*q)),
            );
        }
        let keeps_name = matches!(name, "last_over_time" | "first_over_time");
        let mut failure = None;
        self.each_range(matrix, grid, &mut |r| {
            if matches!(name, "rate" | "increase" | "irate") {
                self.check_counter_name(matrix, r.labels);
            }
            let mut scratch = Vec::new();
            let values = match name {
                "rate" => r.map(|_, w| window::extrapolated(w, true, true)),
                "increase" => r.map(|_, w| window::extrapolated(w, true, false)),
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
                "stdvar_over_time" => r.map(|_, w| window::variance(w.v)),
                "stddev_over_time" => r.map(|_, w| window::variance(w.v).map(f64::sqrt)),
                "mad_over_time" => r.map(|_, w| window::mad(w)),
                "changes" => r.map(|_, w| window::changes(w)),
                "resets" => r.map(|_, w| window::resets(w)),
                "ts_of_min_over_time" => r.map(|_, w| window::time_of(w, |a, b| a <= b)),
                "ts_of_max_over_time" => r.map(|_, w| window::time_of(w, |a, b| a >= b)),
                "ts_of_last_over_time" => r.map(|_, w| w.t.last().map(|t| *t as f64 / 1000.0)),
                "ts_of_first_over_time" => r.map(|_, w| w.t.first().map(|t| *t as f64 / 1000.0)),
                "quantile_over_time" => r.map(|i, w| {
                    scratch.clear();
                    scratch.extend_from_slice(w.v);
                    Some(window::quantile(param(0, i), &mut scratch))
                }),
                "deriv" => r.map(
                    |_, w: Window<'_>| {
                        if w.v.len() < 2 { None } else { Some(window::regression(w, w.t[0])?.0) }
                    },
                ),
                "predict_linear" => r.map(|i, w| {
                    if w.v.len() < 2 {
                        return None;
                    }
                    // The line is taken at the step itself, wherever offset or `@` put the window.
                    let (slope, value) = window::regression(w, grid.time(i))?;
                    Some(slope * param(0, i) + value)
                }),
                _ => r.map(|i, w| {
                    for (n, word) in [(0, "smoothing factor"), (1, "trend factor")] {
                        let v = param(n, i);
                        if v.is_nan() || v <= 0.0 || v >= 1.0 {
                            failure = Some(format!(
                                "invalid {word}. Expected: 0 < {} < 1, got: {v}",
                                &word[..2].replace("sm", "sf").replace("tr", "tf")
                            ));
                            return None;
                        }
                    }
                    window::smooth(w, param(0, i), param(1, i))
                }),
            };
            if values.iter().all(|v| is_absent(*v)) {
                return Ok(());
            }
            f(Column { labels: r.labels.clone(), drop_name: r.drop_name || !keeps_name, values })
        })?;
        failure.map_or(Ok(()), |m| Err(Error::Execution(m)))
    }

    pub(crate) fn call(&self, e: &Expr, name: &str, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        if is_range_function(name) {
            let mut columns = Vec::new();
            self.range_call(e, name, args, grid, &mut |c| {
                self.charge(c.values.len() * 8 + 64)?;
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
                let pick = |(a, b): (f64, f64)| {
                    if a.is_nan() || b.is_nan() {
                        f64::NAN
                    } else if name == "min_of" {
                        a.min(b)
                    } else {
                        a.max(b)
                    }
                };
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
                Ok(Out::Vector(vec![Column { labels: Labels::empty(), drop_name: false, values }]))
            }
            "absent" | "absent_over_time" => self.absent(name, arg(0)?, grid),
            "clamp" | "clamp_min" | "clamp_max" | "round" => self.two_sided(name, args, grid),
            "sort" | "sort_desc" => {
                self.warn_of_sort(e);
                let mut c = self.vector(arg(0)?, grid)?;
                let key = |c: &Column| c.values.first().copied().unwrap_or(ABSENT);
                c.sort_by(|a, b| {
                    let (a, b) = (key(a), key(b));
                    // NaN stands last in both orders.
                    match (a.is_nan(), b.is_nan()) {
                        (true, true) => std::cmp::Ordering::Equal,
                        (true, false) => std::cmp::Ordering::Greater,
                        (false, true) => std::cmp::Ordering::Less,
                        _ if name == "sort" => a.total_cmp(&b),
                        _ => b.total_cmp(&a),
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
            "histogram_quantile" => self.histogram_quantile(args, grid),
            "histogram_quantiles" => self.histogram_quantiles(args, grid),
            "histogram_fraction" => self.histogram_fraction(args, grid),
            // Only native histograms have these; floats are passed over, as Prometheus does.
            "histogram_avg" | "histogram_count" | "histogram_sum" | "histogram_stddev"
            | "histogram_stdvar" | "start_timestamp" => {
                self.vector(arg(0)?, grid)?;
                Ok(Out::Vector(Vec::new()))
            }
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
                c.values.iter().zip(&mut present).for_each(|(v, p)| *p |= !is_absent(*v));
                Ok(())
            })?;
        } else {
            self.each_range(arg, grid, &mut |r| {
                let has = r.map(|_, _| Some(1.0));
                has.iter().zip(&mut present).for_each(|(v, p)| *p |= !is_absent(*v));
                Ok(())
            })?;
        }
        let values: Vec<f64> = present.iter().map(|p| if *p { ABSENT } else { 1.0 }).collect();
        let labels = match &arg.kind {
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
        Ok(Out::Vector(vec![Column { labels, drop_name: false, values }]))
    }
}

/// Go's math.Max and math.Min give NaN if either side is.
fn go_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

fn go_min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
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
