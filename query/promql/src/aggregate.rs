//! Aggregations: groups by labels, each a column of accumulators.

use std::collections::HashMap;

use signal::{Labels, METRIC_NAME};

use crate::ast::{Aggregation, Kind};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::value::{ABSENT, Column, Grid, format_value, is_absent};
use crate::window::{kahan, quantile};

/// One group's state for one step.
#[derive(Clone, Copy, Default)]
struct Cell {
    n: f64,
    value: f64,
    c: f64,
    aux: f64,
    aux_c: f64,
    incremental: bool,
}

struct Group {
    labels: Labels,
    drop_name: bool,
    cells: Vec<Cell>,
}

impl Evaluator<'_> {
    pub(crate) fn aggregate(&self, a: &Aggregation, grid: Grid) -> Result<Vec<Column>, Error> {
        match a.op.as_str() {
            "topk" | "bottomk" | "limitk" | "limit_ratio" => return self.pick(a, grid),
            "quantile" => return self.quantiles(a, grid),
            "count_values" => return self.count_values(a, grid),
            _ => {}
        }
        let mut by_labels: HashMap<Labels, usize, ahash::RandomState> = HashMap::default();
        let mut groups: Vec<Group> = Vec::new();
        self.each(&a.expr, grid, &mut |column| {
            let labels = group_labels(&column.labels, a);
            let at = match by_labels.get(&labels) {
                Some(i) => *i,
                None => {
                    self.charge(grid.n * size_of::<Cell>() + 100)?;
                    by_labels.insert(labels.clone(), groups.len());
                    groups.push(Group { labels, drop_name: false, cells: vec![Cell::default(); grid.n] });
                    groups.len() - 1
                }
            };
            let group = &mut groups[at];
            group.drop_name |= column.drop_name;
            for (cell, v) in group.cells.iter_mut().zip(&column.values) {
                if !is_absent(*v) {
                    cell.add(&a.op, *v);
                }
            }
            Ok(())
        })?;
        Ok(groups
            .into_iter()
            .map(|g| Column {
                labels: g.labels,
                drop_name: g.drop_name,
                values: g.cells.iter().map(|c| if c.n == 0.0 { ABSENT } else { c.finish(&a.op) }).collect(),
            })
            .collect())
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

    /// `topk` and its like keep whole series and blank the steps at which they are not chosen.
    fn pick(&self, a: &Aggregation, grid: Grid) -> Result<Vec<Column>, Error> {
        let param = self.param(a, grid)?;
        if let Some(bad) =
            param.iter().find(|p| !p.is_finite()).filter(|p| a.op != "limit_ratio" || p.is_nan())
        {
            if bad.is_nan() {
                let word = if a.op == "limit_ratio" { "Ratio value" } else { "Parameter value" };
                return Err(Error::Execution(format!("{word} is NaN")));
            }
            let way = if *bad > 0.0 { "overflows" } else { "underflows" };
            return Err(Error::Execution(format!("Scalar value {} {way} int64", format_value(*bad))));
        }
        if let Some(big) = param.iter().find(|p| a.op != "limit_ratio" && p.abs() >= i64::MAX as f64) {
            let way = if *big > 0.0 { "overflows" } else { "underflows" };
            return Err(Error::Execution(format!("Scalar value {} {way} int64", format_value(*big))));
        }
        if let (Some(p), "limit_ratio", Some(e)) =
            (param.iter().find(|p| p.abs() > 1.0), a.op.as_str(), &a.param)
        {
            let cap = p.signum();
            self.warn(
                e,
                &format!(
                    "ratio value should be between -1 and 1, got {}, capping to {}",
                    format_value(*p),
                    format_value(cap)
                ),
            );
        }
        let mut out = Vec::new();
        for (_, columns) in self.grouped(a, grid)? {
            let mut keep: Vec<Vec<f64>> = vec![vec![ABSENT; grid.n]; columns.len()];
            let mut order: Vec<usize> = Vec::new();
            for step in 0..grid.n {
                let value = |i: usize| columns[i].values[step];
                let mut here: Vec<usize> = (0..columns.len()).filter(|i| !is_absent(value(*i))).collect();
                match a.op.as_str() {
                    "limit_ratio" => {
                        here.retain(|i| ratio_keeps(param[step].clamp(-1.0, 1.0), &columns[*i].labels))
                    }
                    op => {
                        let k = param[step].max(0.0) as usize;
                        if op != "limitk" {
                            here.sort_by(|x, y| {
                                let (x, y) = (value(*x), value(*y));
                                match (x.is_nan(), y.is_nan()) {
                                    (true, true) => std::cmp::Ordering::Equal,
                                    (true, false) => std::cmp::Ordering::Greater,
                                    (false, true) => std::cmp::Ordering::Less,
                                    _ if op == "topk" => y.total_cmp(&x),
                                    _ => x.total_cmp(&y),
                                }
                            });
                        }
                        here.truncate(k);
                    }
                }
                for i in &here {
                    keep[*i][step] = value(*i);
                }
                if step == 0 {
                    order = here;
                }
            }
            // An instant query wants them ranked; the rest follow in their own order.
            let mut columns: Vec<Option<Column>> = columns.into_iter().map(Some).collect();
            let rest: Vec<usize> = (0..columns.len()).filter(|i| !order.contains(i)).collect();
            for i in order.into_iter().chain(rest) {
                let values = std::mem::take(&mut keep[i]);
                if let Some(c) = columns[i].take()
                    && values.iter().any(|v| !is_absent(*v))
                {
                    out.push(Column { values, ..c });
                }
            }
        }
        Ok(out)
    }

    fn quantiles(&self, a: &Aggregation, grid: Grid) -> Result<Vec<Column>, Error> {
        let q = self.param(a, grid)?;
        if let Some(p) = &a.param {
            self.check_quantiles(p, &q);
        }
        let mut out = Vec::new();
        for (labels, columns) in self.grouped(a, grid)? {
            let values = (0..grid.n).map(|step| {
                let mut here: Vec<f64> =
                    columns.iter().map(|c| c.values[step]).filter(|v| !is_absent(*v)).collect();
                if here.is_empty() { ABSENT } else { quantile(q[step], &mut here) }
            });
            let values = values.collect();
            out.push(Column { labels, drop_name: columns.iter().any(|c| c.drop_name), values });
        }
        Ok(out)
    }

    fn count_values(&self, a: &Aggregation, grid: Grid) -> Result<Vec<Column>, Error> {
        let label = match a.param.as_deref().map(|p| &p.unwrap_parens().kind) {
            Some(Kind::String(s)) if !s.is_empty() => s,
            _ => return Err(Error::Execution("invalid label name \"\"".to_owned())),
        };
        // By final labels, because the counted value may take the place of a label that was grouped by.
        let mut counts: HashMap<Labels, Vec<f64>, ahash::RandomState> = HashMap::default();
        for (labels, columns) in self.grouped(a, grid)? {
            for c in &columns {
                for (step, v) in c.values.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                    let mut b = labels.builder();
                    b.set(label, &format_value(*v));
                    let labels = b.build();
                    if !counts.contains_key(&labels) {
                        self.charge(grid.n * 8 + 64)?;
                    }
                    let column = counts.entry(labels).or_insert_with(|| vec![ABSENT; grid.n]);
                    column[step] = if is_absent(column[step]) { 1.0 } else { column[step] + 1.0 };
                }
            }
        }
        let columns = counts.into_iter().map(|(labels, values)| Column { labels, drop_name: false, values });
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

impl Cell {
    fn add(&mut self, op: &str, v: f64) {
        self.n += 1.0;
        match op {
            "sum" => (self.value, self.c) = kahan(v, self.value, self.c),
            "avg" => {
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
            "min" if self.n == 1.0 || v < self.value || self.value.is_nan() => self.value = v,
            "max" if self.n == 1.0 || v > self.value || self.value.is_nan() => self.value = v,
            "stddev" | "stdvar" => {
                let delta = v - (self.value + self.c);
                (self.value, self.c) = kahan(delta / self.n, self.value, self.c);
                let after = v - (self.value + self.c);
                (self.aux, self.aux_c) = kahan(delta * after, self.aux, self.aux_c);
            }
            _ => {}
        }
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
