//! `info()`: labels of info series, such as `target_info`, added to series of the same instance and job
//! (Prometheus: promql/info.go).

use std::collections::{BTreeMap, HashMap};

use signal::{Labels, METRIC_NAME, MatchOp, Matcher};

use crate::ast::{At, Expr, Kind};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::value::{Column, Grid, Out, merge_equal};

/// What says that two series are of the same target.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

fn identity(labels: &Labels) -> Labels {
    Labels::from_pairs(labels.iter().filter(|(n, _)| IDENTIFYING.contains(n)))
}

/// Which metrics are info metrics: what was asked for, `.+_info` if only exclusions were, else `target_info`.
fn info_names(asked: Vec<Matcher>) -> Result<Vec<Matcher>, Error> {
    if asked.is_empty() {
        return Ok(vec![Matcher::equal(METRIC_NAME, "target_info")]);
    }
    let mut names = asked;
    if names.iter().all(|m| matches!(m.op, MatchOp::NotEqual | MatchOp::NotRegex)) {
        let all = Matcher::new(METRIC_NAME, MatchOp::Regex, ".+_info");
        names.insert(0, all.map_err(|e| Error::Execution(e.to_string()))?);
    }
    Ok(names)
}

/// The labels and the time of the newest sample of an info series at each step.
struct Info {
    labels: Labels,
    at: Vec<Option<i64>>,
}

impl Evaluator<'_> {
    /// The time that governs the first argument's first selector: the innermost `@`, and all offsets up to it.
    fn info_time(&self, e: &Expr, offset: i64, at: Option<At>) -> Option<Result<(Option<At>, i64), Error>> {
        let first = |all: &[&Expr]| all.iter().find_map(|e| self.info_time(e, offset, at));
        match &e.kind {
            Kind::Number(_) | Kind::String(_) | Kind::Bytes(_) => None,
            Kind::Selector(s) | Kind::Matrix { selector: s, .. } => {
                let own = match s.offset.as_ref().map_or(Ok(0), |l| self.length(l)) {
                    Ok(own) => own,
                    Err(e) => return Some(Err(e)),
                };
                Some(Ok(if s.at.is_some() { (s.at, own) } else { (at, own + offset) }))
            }
            Kind::Subquery { expr, offset: own, at: own_at, .. } => {
                let own = match own.as_ref().map_or(Ok(0), |l| self.length(l)) {
                    Ok(own) => own,
                    Err(e) => return Some(Err(e)),
                };
                // An anchor of its own makes what stands further out irrelevant.
                match own_at {
                    Some(_) => self.info_time(expr, own, *own_at),
                    None => self.info_time(expr, own + offset, at),
                }
            }
            Kind::Unary { expr, .. } | Kind::Paren(expr) => self.info_time(expr, offset, at),
            Kind::Binary { lhs, rhs, .. } => first(&[lhs, rhs]),
            Kind::Call { args, .. } => first(&args.iter().collect::<Vec<_>>()),
            Kind::Aggregate(a) => first(&[&a.expr]),
        }
    }

    fn info_series(&self, arg: &Expr, matchers: &[Matcher], grid: Grid) -> Result<Vec<Info>, Error> {
        let (at, offset) = self.info_time(arg, 0, None).unwrap_or(Ok((None, 0)))?;
        let fixed = at.map(|a| self.fixed_time(a));
        let ends: Vec<i64> = grid.times().map(|t| fixed.unwrap_or(t) - offset).collect();
        let mut out = Vec::new();
        self.select(matchers, &ends, self.lookback, 0, &mut |raw| {
            let mut info = Info { labels: raw.labels.clone(), at: vec![None; grid.n] };
            let mut wrong = false;
            raw.newest(&ends, self.lookback, |i, n| {
                wrong |= n.histogram.is_some();
                info.at[i] = Some(n.timestamp);
            });
            if wrong {
                return Err(Error::Execution(format!(
                    "this should be an info metric, with float samples: {}",
                    info.labels
                )));
            }
            self.charge(grid.n * 16)?;
            out.push(info);
            Ok(())
        })?;
        Ok(out)
    }

    pub(super) fn info(&self, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        let wanted: Vec<Matcher> = match args.get(1).map(|a| &a.kind) {
            Some(Kind::Selector(s)) => s.matchers.clone(),
            _ => Vec::new(),
        };
        let (names, data): (Vec<Matcher>, Vec<Matcher>) =
            wanted.into_iter().partition(|m| m.name == METRIC_NAME);
        let names = info_names(names)?;
        let is_info = |l: &Labels| names.iter().all(|m| m.matches(l.metric_name()));
        let base = self.vector(&args[0], grid)?;
        let infos = if base.iter().any(|c| !is_info(&c.labels) && !identity(&c.labels).is_empty()) {
            let matchers: Vec<Matcher> = names.iter().chain(&data).cloned().collect();
            self.info_series(&args[0], &matchers, grid)?
        } else {
            Vec::new()
        };
        let mut by_identity: HashMap<Labels, Vec<&Info>, ahash::RandomState> = HashMap::default();
        for i in infos.iter().filter(|i| !identity(&i.labels).is_empty()) {
            by_identity.entry(identity(&i.labels)).or_default().push(i);
        }
        // A series that no info series adds to stays, unless a label was asked for that it must have.
        let may_lack = data.iter().all(Matcher::matches_empty);
        let mut out = Vec::new();
        for c in base {
            if is_info(&c.labels) {
                out.push(c);
                continue;
            }
            let partners = by_identity.get(&identity(&c.labels)).map_or(&[][..], Vec::as_slice);
            let mut by_labels: BTreeMap<Labels, Column> = BTreeMap::new();
            for i in 0..grid.n {
                let Some(cell) = c.cell(i) else { continue };
                let Some(labels) = enriched(&c.labels, partners, &data, i)? else {
                    if may_lack {
                        by_labels.entry(c.labels.clone()).or_insert_with(|| c.emptied()).put(i, cell);
                    }
                    continue;
                };
                let column =
                    by_labels.entry(labels.clone()).or_insert_with(|| Column { labels, ..c.emptied() });
                column.put(i, cell);
            }
            for mut c in by_labels.into_values() {
                self.hold(&mut c)?;
                out.push(c);
            }
        }
        merge_equal(out).map(Out::Vector).ok_or_else(|| {
            Error::Execution("vector cannot contain metrics with the same labelset".to_owned())
        })
    }
}

/// The labels with those of the info series at a step; `None` if there is none.
fn enriched(
    labels: &Labels,
    partners: &[&Info],
    data: &[Matcher],
    i: usize,
) -> Result<Option<Labels>, Error> {
    // Of several series of one info metric, the one with the newest sample counts.
    let mut newest: BTreeMap<&str, (&Info, i64)> = BTreeMap::new();
    for p in partners {
        let Some(t) = p.at[i] else { continue };
        match newest.get(p.labels.metric_name()) {
            Some((_, before)) if *before > t => {}
            Some((other, before)) if *before == t => {
                return Err(Error::Execution(format!(
                    "found duplicate series for info metric: existing {} @ {t}, new {} @ {t}",
                    other.labels, p.labels
                )));
            }
            _ => {
                newest.insert(p.labels.metric_name(), (p, t));
            }
        }
    }
    if newest.is_empty() {
        return Ok(None);
    }
    let mut b = labels.builder();
    let mut added: BTreeMap<&str, &str> = BTreeMap::new();
    for (info, _) in newest.values() {
        let extra = info.labels.iter().filter(|(n, _)| {
            *n != METRIC_NAME
                && !IDENTIFYING.contains(n)
                && (data.is_empty() || data.iter().any(|m| m.name == *n))
        });
        for (n, v) in extra {
            if labels.get(n).is_some() {
                continue;
            }
            if added.insert(n, v).is_some_and(|before| before != v) {
                return Err(Error::Execution(format!("conflicting label: {n}")));
            }
            b.set(n, v);
        }
    }
    Ok(Some(b.build()))
}
