//! Series made of spans.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use signal::{Timestamp, TraceId};

use super::ast::{Aggregate, Field, Measure, Query, Then};
use super::engine::Limits;
use super::trace::View;
use super::value::Static;
use crate::error::Error;

/// Exemplars of a series at most.
const EXEMPLARS: usize = 20;
/// Attributes that `compare` looks at, and values of each that it counts.
const ATTRIBUTES: usize = 200;
const VALUES: usize = 2000;

#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub labels: Vec<(String, Static)>,
    /// Milliseconds and value; absent points are left out.
    pub samples: Vec<(i64, f64)>,
    pub exemplars: Vec<Exemplar>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    pub trace_id: TraceId,
    pub at: Timestamp,
    pub value: f64,
}

/// What is known of one step of one series.
#[derive(Clone, Debug)]
enum Cell {
    Sum {
        n: f64,
        sum: f64,
    },
    Extreme(f64),
    /// Every value, for quantiles.
    All(Vec<f64>),
}

struct Group {
    labels: Vec<(String, Static)>,
    cells: BTreeMap<usize, Cell>,
    exemplars: Vec<Exemplar>,
}

pub(super) struct Measured<'q> {
    what: &'q Measure,
    by: &'q [Field],
    then: &'q [Then],
    /// Milliseconds of the first point, and between points.
    first: i64,
    step: i64,
    steps: usize,
    limits: Limits,
    values: usize,
    exemplars: bool,
    /// By their labels in words.
    groups: HashMap<Vec<(String, String)>, Group>,
}

impl<'q> Measured<'q> {
    pub(super) fn new(
        q: &'q Query,
        start: Timestamp,
        end: Timestamp,
        step: Option<Duration>,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let Some(m) = &q.metrics else {
            return Err(Error::Limit(
                "a metrics query ends in rate(), count_over_time() or the like".to_owned(),
            ));
        };
        let (first, last, step) = match step {
            Some(step) => {
                let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
                // Points stand at multiples of the step, so that the next question has the same ones.
                let up = |t: i64| t.div_euclid(step) * step + if t.rem_euclid(step) == 0 { 0 } else { step };
                (up(start.millis().saturating_add(1)), up(end.millis()), step)
            }
            // One point for all of it.
            None => (end.millis(), end.millis(), (end.millis() - start.millis()).max(1)),
        };
        let steps = usize::try_from((last - first) / step + 1).unwrap_or(0).max(1);
        if steps > limits.steps {
            return Err(Error::Limit(format!(
                "exceeded maximum resolution of {} points per time series. Try a larger step",
                limits.steps
            )));
        }
        Ok(Measured {
            what: &m.what,
            by: &m.by,
            then: &q.then,
            first,
            step,
            steps,
            limits: limits.clone(),
            values: 0,
            exemplars: q.hint("exemplars") != Some(&Static::Bool(false)),
            groups: HashMap::new(),
        })
    }

    pub(super) fn needs_trace(&self) -> bool {
        let field = match self.what {
            Measure::Over(_, f) | Measure::Quantiles(f, _) | Measure::Histogram(f) => f.needs_trace(),
            Measure::Compare { selection, .. } => selection.needs_trace(),
            Measure::Rate | Measure::Count => false,
        };
        field || self.by.iter().any(Field::needs_trace)
    }

    fn step_of(&self, at: Timestamp) -> Option<usize> {
        let before = self.first - self.step;
        // A point has what began after the point before it, up to its own time.
        let n = (at.nanos() - before * 1_000_000 - 1).div_euclid(self.step * 1_000_000);
        usize::try_from(n).ok().filter(|n| *n < self.steps)
    }

    pub(super) fn add(&mut self, v: &View<'_>) -> Result<(), Error> {
        let Some(step) = self.step_of(v.span.start) else { return Ok(()) };
        let labels: Vec<(String, Static)> = self.by.iter().map(|f| (f.label(), v.value(f))).collect();
        let (mut labels, value) = match self.what {
            Measure::Rate | Measure::Count => (labels, 1.0),
            Measure::Over(_, f) | Measure::Quantiles(f, _) => match v.value(f).measure() {
                Some(value) => (labels, value),
                None => return Ok(()),
            },
            Measure::Histogram(f) => match v.value(f) {
                Static::Nil => return Ok(()),
                x => match x.measure() {
                    Some(value) => (with(labels, "__bucket", Static::Float(bucket(&x))), value),
                    None => return Ok(()),
                },
            },
            Measure::Compare { selection, within, .. } => {
                let inside = within.is_none_or(|(from, to)| (from..=to).contains(&v.span.start.nanos()));
                let kind = if inside && v.fits(selection) { "selection" } else { "baseline" };
                return self.compare(v, kind, step);
            }
        };
        labels.retain(|(n, _)| !n.is_empty());
        self.put(labels, step, value, v)
    }

    /// Counts each attribute's value among the spans that were selected, or among the others.
    fn compare(&mut self, v: &View<'_>, kind: &str, step: usize) -> Result<(), Error> {
        let mut all: Vec<(String, Static)> = vec![
            ("name".to_owned(), Static::Text(v.span.name.clone())),
            ("kind".to_owned(), Static::Kind(v.span.kind)),
            ("status".to_owned(), Static::Status(super::value::Status::of(&v.span.status))),
            (
                "resource.service.name".to_owned(),
                Static::Text(v.labels.get("service_name").unwrap_or("").to_owned()),
            ),
        ];
        let named =
            |scope: &str, n: &str, v: &signal::AttributeValue| (format!("{scope}.{n}"), Static::from(v));
        all.extend(v.span.attributes.iter().map(|(n, v)| named("span", n, v)));
        all.extend(
            v.resource.iter().filter(|(n, _)| *n != "service.name").map(|(n, v)| named("resource", n, v)),
        );
        for (name, value) in all.into_iter().take(ATTRIBUTES) {
            let meta = |kind: String| ("__meta_type".to_owned(), Static::Text(kind));
            self.put(vec![meta(format!("{kind}_total")), (name.clone(), Static::Nil)], step, 1.0, v)?;
            if self.groups.len() < self.limits.series.saturating_mul(VALUES / 100) {
                self.put(vec![meta(kind.to_owned()), (name, value)], step, 1.0, v)?;
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        labels: Vec<(String, Static)>,
        step: usize,
        value: f64,
        v: &View<'_>,
    ) -> Result<(), Error> {
        let comparing = matches!(self.what, Measure::Compare { .. });
        let key: Vec<(String, String)> = labels.iter().map(|(n, v)| (n.clone(), v.to_string())).collect();
        let known = self.groups.len();
        let g = self.groups.entry(key).or_insert_with(|| Group {
            labels,
            cells: BTreeMap::new(),
            exemplars: Vec::new(),
        });
        let cell = g.cells.entry(step).or_insert_with(|| match self.what {
            Measure::Quantiles(..) => Cell::All(Vec::new()),
            Measure::Over(Aggregate::Min, _) => Cell::Extreme(f64::INFINITY),
            Measure::Over(Aggregate::Max, _) => Cell::Extreme(f64::NEG_INFINITY),
            _ => Cell::Sum { n: 0.0, sum: 0.0 },
        });
        match (cell, self.what) {
            (Cell::Sum { n, sum }, _) => (*n, *sum) = (*n + 1.0, *sum + value),
            (Cell::Extreme(x), Measure::Over(Aggregate::Min, _)) => *x = x.min(value),
            (Cell::Extreme(x), _) => *x = x.max(value),
            (Cell::All(all), _) => {
                all.push(value);
                self.values += 1;
            }
        }
        if self.exemplars && !comparing && g.exemplars.len() < EXEMPLARS {
            g.exemplars.push(Exemplar { trace_id: v.span.trace_id, at: v.span.start, value });
        }
        if !comparing && known > self.limits.series || self.values > self.limits.values {
            return Err(Error::Limit(format!(
                "more than {} series or {} values; group by less, or ask for less time",
                self.limits.series, self.limits.values
            )));
        }
        Ok(())
    }

    fn at(&self, step: usize) -> i64 {
        self.first + i64::try_from(step).unwrap_or(i64::MAX).saturating_mul(self.step)
    }

    /// Every point of a count, and those of other measures that have a value.
    fn samples(&self, g: &Group, of: impl Fn(&Cell) -> f64) -> Vec<(i64, f64)> {
        let zeros = matches!(
            self.what,
            Measure::Rate | Measure::Count | Measure::Histogram(_) | Measure::Compare { .. }
        );
        if zeros {
            return (0..self.steps).map(|n| (self.at(n), g.cells.get(&n).map_or(0.0, &of))).collect();
        }
        g.cells.iter().map(|(n, c)| (self.at(*n), of(c))).collect()
    }

    pub(super) fn series(self) -> Vec<Series> {
        let seconds = self.step as f64 / 1000.0;
        let per = if matches!(self.what, Measure::Rate) { seconds } else { 1.0 };
        let mut out = Vec::new();
        for g in self.groups.values() {
            let labels = &g.labels;
            if let Measure::Quantiles(_, all) = self.what {
                for q in all {
                    let labels = with(labels.clone(), "p", Static::Float(*q));
                    let samples = self.samples(g, |c| match c {
                        Cell::All(v) => quantile(*q, v),
                        _ => f64::NAN,
                    });
                    out.push(Series { labels, samples, exemplars: g.exemplars.clone() });
                }
                continue;
            }
            let counts = matches!(self.what, Measure::Histogram(_));
            let average = matches!(self.what, Measure::Over(Aggregate::Avg, _));
            let samples = self.samples(g, |c| match c {
                Cell::Sum { n, sum } if average => sum / n,
                Cell::Sum { n, .. } if counts => *n,
                Cell::Sum { sum, .. } => sum / per,
                Cell::Extreme(v) => *v,
                Cell::All(_) => f64::NAN,
            });
            out.push(Series { labels: labels.clone(), samples, exemplars: g.exemplars.clone() });
        }
        let text = |s: &Series| s.labels.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>();
        out.sort_by_cached_key(text);
        if let Measure::Compare { top, .. } = self.what {
            keep_top_values(&mut out, *top);
        }
        for t in self.then {
            apply(*t, &mut out);
        }
        out.retain(|s| !s.samples.is_empty());
        out
    }
}

fn with(mut labels: Vec<(String, Static)>, name: &str, value: Static) -> Vec<(String, Static)> {
    labels.push((name.to_owned(), value));
    labels
}

/// The power of two that a value is not above; of a length of time in seconds, of powers of two of nanoseconds.
fn bucket(v: &Static) -> f64 {
    let up = |v: f64| if v <= 1.0 { 1.0 } else { 2f64.powf(v.log2().ceil()) };
    match v {
        Static::Duration(n) => up(*n as f64) / 1e9,
        v => up(v.number().unwrap_or(0.0)),
    }
}

fn quantile(q: f64, values: &[f64]) -> f64 {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    let rank = q * (v.len() as f64 - 1.0);
    let (low, high) = (rank.floor() as usize, rank.ceil() as usize);
    match (v.get(low), v.get(high)) {
        (Some(a), Some(b)) => a + (b - a) * (rank - rank.floor()),
        _ => f64::NAN,
    }
}

/// Of each attribute and side the values with the most spans.
fn keep_top_values(all: &mut Vec<Series>, top: usize) {
    let sum = |s: &Series| s.samples.iter().map(|(_, v)| v).sum::<f64>();
    let mut ranked: Vec<(f64, usize)> = all.iter().enumerate().map(|(i, s)| (sum(s), i)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut kept: HashMap<(String, String), usize> = HashMap::new();
    let mut keep = vec![false; all.len()];
    for (_, i) in ranked {
        let [(_, kind), (name, _)] = all[i].labels.as_slice() else { continue };
        let n = kept.entry((kind.to_string(), name.clone())).or_default();
        *n += 1;
        keep[i] = *n <= top || kind.to_string().ends_with("_total");
    }
    let mut i = 0;
    all.retain(|_| {
        i += 1;
        keep[i - 1]
    });
}

fn apply(t: Then, all: &mut [Series]) {
    let (n, largest) = match t {
        Then::Filter(op, v) => {
            let value = Static::Float(v);
            all.iter_mut().for_each(|s| s.samples.retain(|(_, x)| Static::Float(*x).compare(op, &value)));
            return;
        }
        Then::Top(n) => (n, true),
        Then::Bottom(n) => (n, false),
    };
    // At each time anew.
    let mut at: BTreeMap<i64, Vec<(f64, usize)>> = BTreeMap::new();
    for (i, s) in all.iter().enumerate() {
        s.samples.iter().for_each(|(t, v)| at.entry(*t).or_default().push((*v, i)));
    }
    for points in at.values_mut() {
        points.sort_by(|a, b| if largest { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) });
        points.truncate(n);
    }
    for (i, s) in all.iter_mut().enumerate() {
        s.samples.retain(|(t, _)| at.get(t).is_some_and(|p| p.iter().any(|(_, j)| *j == i)));
    }
}
