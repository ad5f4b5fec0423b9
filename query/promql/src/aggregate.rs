//! Aggregations: groups by labels, each a column of accumulators.

use std::collections::HashMap;

use signal::histogram::{HistogramMean, HistogramSum};
use signal::{FloatHistogram, Labels, METRIC_NAME};

use crate::annotations::{Doing, bounds_reconciled, ignored_in_aggregation, mixed_schemas, reset_conflict};
use crate::ast::{Aggregation, Expr, Kind};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::meter::Held;
use crate::value::{ABSENT, Cell, Column, Grid, format_value, is_absent};
use crate::window::{kahan, quantile};

/// One group's floats at one step.
#[derive(Clone, Copy, Default)]
struct Floats {
    n: f64,
    value: f64,
    c: f64,
    aux: f64,
    aux_c: f64,
    incremental: bool,
}

/// One group's native histograms at one step.
#[derive(Clone, Default)]
enum Natives {
    #[default]
    None,
    Sum(Box<HistogramSum>),
    Mean(Box<HistogramMean>),
    /// Exponential and custom buckets met.
    Incompatible,
}

struct Group {
    labels: Labels,
    drop_name: bool,
    floats: Vec<Floats>,
    /// Empty while no native histogram has come.
    natives: Vec<Natives>,
    _held: Held,
}

impl Evaluator<'_> {
    pub(crate) fn aggregate(&self, e: &Expr, a: &Aggregation, grid: Grid) -> Result<Vec<Column>, Error> {
        match a.op.as_str() {
            "topk" | "bottomk" | "limitk" | "limit_ratio" => return self.pick(e, a, grid),
            "quantile" => return self.quantiles(a, grid),
            "count_values" => return self.count_values(a, grid),
            _ => {}
        }
        let mut by_labels: HashMap<Labels, usize, ahash::RandomState> = HashMap::default();
        let mut groups: Vec<Group> = Vec::new();
        let arg = a.expr.unwrap_parens();
        self.each(&a.expr, grid, &mut |column| {
            let labels = group_labels(&column.labels, a);
            let at = match by_labels.get(&labels) {
                Some(i) => *i,
                None => {
                    let held = self.held(grid.n * size_of::<Floats>() + size_of::<Group>() + 100)?;
                    by_labels.insert(labels.clone(), groups.len());
                    let floats = vec![Floats::default(); grid.n];
                    groups.push(Group { labels, drop_name: false, floats, natives: Vec::new(), _held: held });
                    groups.len() - 1
                }
            };
            let group = &mut groups[at];
            group.drop_name |= column.drop_name;
            add_floats(&mut group.floats, &a.op, &column.values);
            for (i, h) in column.histograms.iter().flatten().enumerate() {
                if let Some(h) = h {
                    self.add_histogram(arg, a, group, grid, i, h, column.labels.metric_name())?;
                }
            }
            Ok(())
        })?;
        let mut out = Vec::with_capacity(groups.len());
        for g in groups {
            let mut c = Column::floats(g.labels, g.drop_name, vec![ABSENT; grid.n]);
            for (i, f) in g.floats.iter().enumerate() {
                match g.natives.get(i).unwrap_or(&Natives::None) {
                    Natives::None if f.n > 0.0 => c.values[i] = f.finish(&a.op),
                    Natives::None => {}
                    _ if f.n > 0.0 => {
                        self.warn(arg, "encountered a mix of histograms and floats for aggregation");
                    }
                    natives => self.finish_histograms(arg, natives, &mut c, i),
                }
            }
            if !c.is_empty() {
                self.hold(&mut c)?;
                out.push(c);
            }
        }
        Ok(out)
    }

    #[expect(clippy::too_many_arguments, reason = "one sample and all that it is added to")]
    fn add_histogram(
        &self,
        arg: &Expr,
        a: &Aggregation,
        group: &mut Group,
        grid: Grid,
        i: usize,
        h: &FloatHistogram,
        metric: &str,
    ) -> Result<(), Error> {
        match a.op.as_str() {
            "count" | "group" => group.floats[i].n += 1.0,
            "sum" | "avg" => {
                if group.natives.is_empty() {
                    self.charge(grid.n * size_of::<Natives>())?;
                    group.natives = vec![Natives::None; grid.n];
                }
                let state = &mut group.natives[i];
                let done = match state {
                    Natives::None => {
                        self.charge(h.size() * 2)?;
                        *state = if a.op == "sum" {
                            Natives::Sum(Box::new(HistogramSum::new(h)))
                        } else {
                            Natives::Mean(Box::new(HistogramMean::new(h)))
                        };
                        Ok(false)
                    }
                    Natives::Sum(s) => s.add(h),
                    Natives::Mean(m) => m.add(h),
                    Natives::Incompatible => Ok(false),
                };
                match done {
                    Ok(true) => self.inform(arg, bounds_reconciled(Doing::Aggregation)),
                    Ok(false) => {}
                    Err(_) => {
                        self.warn(arg, mixed_schemas(metric));
                        *state = Natives::Incompatible;
                    }
                }
            }
            op => self.inform(arg, ignored_in_aggregation(op)),
        }
        Ok(())
    }

    fn finish_histograms(&self, arg: &Expr, natives: &Natives, c: &mut Column, i: usize) {
        let (conflict, h) = match natives {
            Natives::None | Natives::Incompatible => return,
            Natives::Sum(s) => (s.reset_conflict(), (**s).clone().finish()),
            Natives::Mean(m) => (m.reset_conflict(), (**m).clone().finish()),
        };
        if conflict {
            self.warn(arg, reset_conflict(Doing::Aggregation));
        }
        c.put(i, Cell::from(h));
    }

    /// Columns of the operand by group, for those that need all of a step at once.
    fn grouped(&self, a: &Aggregation, grid: Grid) -> Result<Vec<(Labels, Vec<Column>)>, Error> {
        let mut by_labels: HashMap<Labels, usize, ahash::RandomState> = HashMap::default();
        let mut groups: Vec<(Labels, Vec<Column>)> = Vec::new();
        for c in self.vector(&a.expr, grid)? {
            let labels = group_labels(&c.labels, a);
            let at = *by_labels.entry(labels.clone()).or_insert_with(|| {
                groups.push((labels, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(c);
        }
        Ok(groups)
    }

    fn param(&self, a: &Aggregation, grid: Grid) -> Result<Vec<f64>, Error> {
        a.param.as_deref().map_or(Ok(vec![f64::NAN; grid.n]), |p| self.scalar(p, grid))
    }

    /// The parameter of `topk` and its like. `None` if nothing can be picked by it.
    fn how_many(&self, a: &Aggregation, grid: Grid) -> Result<Option<Vec<f64>>, Error> {
        let param = self.param(a, grid)?;
        let fail = |m: String| Err(Error::Execution(m));
        let least = param.iter().copied().fold(f64::INFINITY, f64::min);
        let most = param.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let nan = param.iter().any(|p| p.is_nan());
        if a.op == "limit_ratio" {
            if most == 0.0 && least == 0.0 && !nan {
                return Ok(None);
            }
            if nan {
                return fail("Ratio value is NaN".to_owned());
            }
            for (p, cap) in [(most, 1.0), (least, -1.0)] {
                if p.abs() > 1.0 && p * cap > 0.0 {
                    let (p, cap) = (signal::histogram::general(p), signal::histogram::general(cap));
                    self.warn(
                        a.param.as_deref().unwrap_or(&a.expr).unwrap_parens(),
                        format!("ratio value should be between -1 and 1, got {p}, capping to {cap}"),
                    );
                }
            }
            return Ok(Some(param));
        }
        if most < 1.0 && !nan {
            return Ok(None);
        }
        if nan {
            return fail("Parameter value is NaN".to_owned());
        }
        if least <= i64::MIN as f64 {
            return fail(format!("Scalar value {} underflows int64", signal::histogram::general(least)));
        }
        if most >= i64::MAX as f64 {
            return fail(format!("Scalar value {} overflows int64", signal::histogram::general(most)));
        }
        Ok(Some(param))
    }

    /// `topk` and its like keep whole series and blank the steps at which they are not chosen.
    fn pick(&self, e: &Expr, a: &Aggregation, grid: Grid) -> Result<Vec<Column>, Error> {
        let Some(param) = self.how_many(a, grid)? else { return Ok(Vec::new()) };
        let by_value = matches!(a.op.as_str(), "topk" | "bottomk");
        let mut out = Vec::new();
        for (_, mut columns) in self.grouped(a, grid)? {
            let mut keep: Vec<Column> = Vec::with_capacity(columns.len());
            for c in &columns {
                let mut empty = c.emptied();
                self.hold(&mut empty)?;
                keep.push(empty);
            }
            if by_value && columns.iter().any(|c| c.histograms.is_some()) {
                self.inform(e, ignored_in_aggregation(&a.op));
                columns.iter_mut().for_each(|c| c.histograms = None);
            }
            let mut order: Vec<usize> = Vec::new();
            for (step, &param) in param.iter().enumerate().take(grid.n) {
                let value = |i: usize| columns[i].values[step];
                let mut here: Vec<usize> = (0..columns.len()).filter(|i| columns[*i].has(step)).collect();
                if a.op == "limit_ratio" {
                    here.retain(|i| ratio_keeps(param.clamp(-1.0, 1.0), &columns[*i].labels));
                } else {
                    let k = param.max(0.0) as usize;
                    if by_value {
                        here.sort_by(|x, y| {
                            let (x, y) = (value(*x), value(*y));
                            match (x.is_nan(), y.is_nan()) {
                                (true, true) => std::cmp::Ordering::Equal,
                                (true, false) => std::cmp::Ordering::Greater,
                                (false, true) => std::cmp::Ordering::Less,
                                _ if a.op == "topk" => y.partial_cmp(&x).expect("neither is NaN"),
                                _ => x.partial_cmp(&y).expect("neither is NaN"),
                            }
                        });
                    }
                    here.truncate(k);
                }
                for i in &here {
                    if let Some(cell) = columns[*i].cell(step) {
                        keep[*i].put(step, cell);
                    }
                }
                if step == 0 {
                    order = here;
                }
            }
            // An instant query wants them ranked; the rest follow in their own order.
            let rest: Vec<usize> = (0..columns.len()).filter(|i| !order.contains(i)).collect();
            let mut keep: Vec<Option<Column>> = keep.into_iter().map(Some).collect();
            let ranked = order.into_iter().chain(rest).filter_map(|i| keep[i].take());
            out.extend(ranked.filter(|c| !c.is_empty()));
        }
        Ok(out)
    }

    fn quantiles(&self, a: &Aggregation, grid: Grid) -> Result<Vec<Column>, Error> {
        let q = self.param(a, grid)?;
        if let Some(p) = &a.param {
            let nan = q.iter().copied().find(|q| q.is_nan());
            let most = q.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let least = q.iter().copied().fold(f64::INFINITY, f64::min);
            let bad =
                nan.into_iter().chain([most, least].into_iter().filter(|q| q.is_finite() || nan.is_none()));
            self.check_quantiles(p.unwrap_parens(), &bad.collect::<Vec<_>>());
        }
        let mut out = Vec::new();
        for (labels, columns) in self.grouped(a, grid)? {
            if columns.iter().any(|c| c.histograms.is_some()) {
                self.inform(a.expr.unwrap_parens(), ignored_in_aggregation("quantile"));
            }
            let mut here: Vec<f64> = Vec::with_capacity(columns.len());
            let values = (0..grid.n).map(|step| {
                here.clear();
                here.extend(columns.iter().map(|c| c.values[step]).filter(|v| !is_absent(*v)));
                if here.is_empty() { ABSENT } else { quantile(q[step], &mut here) }
            });
            let drop_name = columns.iter().any(|c| c.drop_name);
            let mut c = Column::floats(labels, drop_name, values.collect());
            if !c.is_empty() {
                self.hold(&mut c)?;
                out.push(c);
            }
        }
        Ok(out)
    }

    fn count_values(&self, a: &Aggregation, grid: Grid) -> Result<Vec<Column>, Error> {
        let label = match a.param.as_deref().map(|p| &p.unwrap_parens().kind) {
            Some(Kind::String(s)) if !s.is_empty() => s,
            Some(Kind::Bytes(s)) => return Err(Error::Execution(format!("invalid label name {s}"))),
            _ => return Err(Error::Execution("invalid label name \"\"".to_owned())),
        };
        // By final labels, because the counted value may take the place of a label that was grouped by.
        let mut counts: HashMap<Labels, Vec<f64>, ahash::RandomState> = HashMap::default();
        for (labels, columns) in self.grouped(a, grid)? {
            for c in &columns {
                for step in 0..grid.n {
                    let value = match c.cell(step) {
                        None => continue,
                        Some(Cell::Float(v)) => format_value(v),
                        Some(Cell::Histogram(h)) => h.to_string(),
                    };
                    let mut b = labels.builder();
                    b.set(label, &value);
                    let labels = b.build();
                    if !counts.contains_key(&labels) {
                        self.charge(grid.n * 8 + 64)?;
                    }
                    let column = counts.entry(labels).or_insert_with(|| vec![ABSENT; grid.n]);
                    column[step] = if is_absent(column[step]) { 1.0 } else { column[step] + 1.0 };
                }
            }
        }
        let columns = counts.into_iter().map(|(labels, values)| Column::floats(labels, false, values));
        let mut out: Vec<Column> = columns.collect();
        out.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(out)
    }
}

fn group_labels(labels: &Labels, a: &Aggregation) -> Labels {
    if a.without {
        let gone = |n: &str| n == METRIC_NAME || a.grouping.iter().any(|g| g == n);
        Labels::from_pairs(labels.iter().filter(|(n, _)| !gone(n)))
    } else if a.grouping.is_empty() {
        Labels::empty()
    } else {
        Labels::from_pairs(labels.iter().filter(|(n, _)| a.grouping.iter().any(|g| g == n)))
    }
}

/// A share of the series, chosen by their labels alone: the same ones in every query, and
/// `limit_ratio(r)` and `limit_ratio(r - 1)` together are all.
fn ratio_keeps(ratio: f64, labels: &Labels) -> bool {
    let place = labels.fingerprint() as f64 / u64::MAX as f64;
    if ratio >= 0.0 { place < ratio } else { place >= 1.0 + ratio }
}

/// Adds a column to a group. The operator is looked up once for all steps.
fn add_floats(cells: &mut [Floats], op: &str, values: &[f64]) {
    fn each(cells: &mut [Floats], values: &[f64], add: impl Fn(&mut Floats, f64)) {
        for (cell, v) in cells.iter_mut().zip(values).filter(|(_, v)| !is_absent(**v)) {
            add(cell, *v);
        }
    }
    match op {
        "sum" => each(cells, values, Floats::sum),
        "avg" => each(cells, values, Floats::avg),
        "min" => each(cells, values, Floats::min),
        "max" => each(cells, values, Floats::max),
        "stddev" | "stdvar" => each(cells, values, Floats::spread),
        _ => each(cells, values, Floats::count),
    }
}

impl Floats {
    fn count(&mut self, _: f64) {
        self.n += 1.0;
    }

    fn sum(&mut self, v: f64) {
        self.n += 1.0;
        (self.value, self.c) = kahan(v, self.value, self.c);
    }

    fn avg(&mut self, v: f64) {
        self.n += 1.0;
        if !self.incremental {
            let (s, c) = kahan(v, self.value, self.c);
            if self.n == 1.0 || !s.is_infinite() {
                (self.value, self.c) = (s, c);
                return;
            }
            // The sum no longer fits: go on with the mean itself.
            self.incremental = true;
            self.value /= self.n - 1.0;
            self.c /= self.n - 1.0;
        }
        let q = (self.n - 1.0) / self.n;
        (self.value, self.c) = kahan(v / self.n, q * self.value, q * self.c);
    }

    fn min(&mut self, v: f64) {
        self.n += 1.0;
        if self.n == 1.0 || v < self.value || self.value.is_nan() {
            self.value = v;
        }
    }

    fn max(&mut self, v: f64) {
        self.n += 1.0;
        if self.n == 1.0 || v > self.value || self.value.is_nan() {
            self.value = v;
        }
    }

    fn spread(&mut self, v: f64) {
        self.n += 1.0;
        let delta = v - (self.value + self.c);
        (self.value, self.c) = kahan(delta / self.n, self.value, self.c);
        let after = v - (self.value + self.c);
        (self.aux, self.aux_c) = kahan(delta * after, self.aux, self.aux_c);
    }

    fn finish(&self, op: &str) -> f64 {
        match op {
            "sum" => self.value + self.c,
            "avg" if self.incremental => self.value + self.c,
            "avg" => (self.value + self.c) / self.n,
            "count" => self.n,
            "group" => 1.0,
            "stdvar" => (self.aux + self.aux_c) / self.n,
            "stddev" => ((self.aux + self.aux_c) / self.n).sqrt(),
            _ => self.value,
        }
    }
}
