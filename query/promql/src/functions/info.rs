//! `info()`: labels of info series, such as `target_info`, added to series of the same instance and job
//! (Prometheus: promql/info.go).

use std::collections::{BTreeMap, HashMap};

use signal::{Labels, METRIC_NAME, Matcher};

use crate::ast::{Edges, Expr, Kind, Selector};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::value::{ABSENT, Column, Grid, Out, is_absent, merge_equal};

/// What says that two series are of the same target.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

fn identity(labels: &Labels) -> Labels {
    Labels::from_pairs(labels.iter().filter(|(n, _)| IDENTIFYING.contains(n)))
}

impl Evaluator<'_> {
    pub(super) fn info(&self, args: &[Expr], grid: Grid) -> Result<Out, Error> {
        let wanted: Vec<Matcher> = match args.get(1).map(|a| &a.kind) {
            Some(Kind::Selector(s)) => s.matchers.clone(),
            _ => Vec::new(),
        };
        let (mut names, data): (Vec<Matcher>, Vec<Matcher>) =
            wanted.into_iter().partition(|m| m.name == METRIC_NAME);
        if names.is_empty() {
            names.push(Matcher::equal(METRIC_NAME, "target_info"));
        }
        let is_info = |l: &Labels| names.iter().all(|m| m.matches(l.metric_name()));
        let base = self.vector(&args[0], grid)?;
        let selector = Selector {
            matchers: names.iter().chain(&data).cloned().collect(),
            name: None,
            offset: None,
            at: None,
            edges: Edges::Plain,
        };
        let span = args.get(1).unwrap_or(&args[0]).span;
        let infos = self.vector(&Expr { kind: Kind::Selector(selector), span }, grid)?;
        let mut by_identity: HashMap<Labels, Vec<&Column>, ahash::RandomState> = HashMap::default();
        for c in &infos {
            by_identity.entry(identity(&c.labels)).or_default().push(c);
        }
        // A series that no info series adds to stays, unless a label was asked for that it must have.
        let may_lack = data.iter().all(Matcher::matches_empty);
        let mut out = Vec::new();
        for c in base {
            let id = identity(&c.labels);
            let partners = by_identity.get(&id).map_or(&[][..], Vec::as_slice);
            if is_info(&c.labels) || id.is_empty() {
                out.push(c);
                continue;
            }
            let mut by_labels: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
            for (i, v) in c.values.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                let mut b = c.labels.builder();
                let mut added: BTreeMap<&str, &str> = BTreeMap::new();
                let mut seen: Vec<&str> = Vec::new();
                let here = partners.iter().filter(|p| p.values.get(i).is_some_and(|v| !is_absent(*v)));
                for p in here {
                    if seen.contains(&p.labels.metric_name()) {
                        return Err(Error::Execution(format!(
                            "found duplicate series for info metric: existing {}, new {}",
                            p.labels, p.labels
                        )));
                    }
                    seen.push(p.labels.metric_name());
                    let extra = p.labels.iter().filter(|(n, _)| {
                        *n != METRIC_NAME
                            && !IDENTIFYING.contains(n)
                            && (data.is_empty() || data.iter().any(|m| m.name == *n))
                    });
                    for (n, v) in extra {
                        if added.insert(n, v).is_some_and(|before| before != v) {
                            return Err(Error::Execution(format!("conflicting label: {n}")));
                        }
                        if c.labels.get(n).is_none() {
                            b.set(n, v);
                        }
                    }
                }
                if seen.is_empty() && !may_lack {
                    continue;
                }
                by_labels.entry(b.build()).or_insert_with(|| vec![ABSENT; grid.n])[i] = *v;
            }
            for (labels, values) in by_labels {
                self.charge(values.len() * 8 + 64)?;
                out.push(Column { labels, drop_name: c.drop_name, values });
            }
        }
        merge_equal(out).map(Out::Vector).ok_or_else(|| {
            Error::Execution("vector cannot contain metrics with the same labelset".to_owned())
        })
    }
}
