//! Pipelines over the spans of one trace.

use std::collections::BTreeSet;

use super::ast::{Aggregate, Field, Op, Relation, Scalar, Spanset, Stage};
use super::trace::Trace;
use super::value::Static;

/// Spans that belong together.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    /// Places in the trace, ascending.
    pub(super) spans: Vec<usize>,
    /// What `by()` put them together by, and what aggregates gave.
    pub(super) attributes: Vec<(String, Static)>,
}

/// What a pipeline leaves of a trace.
pub(super) fn run(t: &Trace, stages: &[Stage]) -> Vec<Set> {
    let all = Set { spans: (0..t.spans.len()).collect(), attributes: Vec::new() };
    let mut sets = vec![all];
    for stage in stages {
        sets = match stage {
            Stage::Spanset(s) => sets
                .into_iter()
                .filter_map(|set| {
                    let spans = select(t, s, &set.spans);
                    (!spans.is_empty()).then_some(Set { spans, attributes: set.attributes })
                })
                .collect(),
            Stage::By(f) => sets.into_iter().flat_map(|set| group(t, f, set)).collect(),
            Stage::Coalesce => {
                let spans: BTreeSet<usize> = sets.iter().flat_map(|s| s.spans.iter().copied()).collect();
                if spans.is_empty() {
                    Vec::new()
                } else {
                    vec![Set { spans: spans.into_iter().collect(), attributes: Vec::new() }]
                }
            }
            Stage::Select(_) => sets,
            Stage::Compare { left, op, right } => sets
                .into_iter()
                .filter_map(|mut set| {
                    let (a, b) = (scalar(t, left, &set)?, scalar(t, right, &set)?);
                    name(left, &a, &mut set);
                    a.compare(*op, &b).then_some(set)
                })
                .collect(),
        };
        if sets.is_empty() {
            return sets;
        }
    }
    sets
}

/// An aggregate stands in the answer, too.
fn name(s: &Scalar, value: &Static, set: &mut Set) {
    let called = match s {
        Scalar::Count => "count()".to_owned(),
        Scalar::Aggregate { op, field } => {
            let op = match op {
                Aggregate::Avg => "avg",
                Aggregate::Max => "max",
                Aggregate::Min => "min",
                Aggregate::Sum => "sum",
            };
            format!("{op}({})", field.label())
        }
        _ => return,
    };
    set.attributes.push((called, value.clone()));
}

fn group(t: &Trace, f: &Field, set: Set) -> Vec<Set> {
    let mut out: Vec<(Static, Set)> = Vec::new();
    for at in set.spans {
        let v = t.view(at).value(f);
        match out.iter_mut().find(|(known, _)| *known == v) {
            Some((_, s)) => s.spans.push(at),
            None => {
                let mut attributes = set.attributes.clone();
                attributes.push((format!("by({})", f.label()), v.clone()));
                out.push((v, Set { spans: vec![at], attributes }));
            }
        }
    }
    out.into_iter().map(|(_, s)| s).collect()
}

fn scalar(t: &Trace, s: &Scalar, set: &Set) -> Option<Static> {
    match s {
        Scalar::Static(v) => Some(v.clone()),
        Scalar::Count => Some(Static::Int(i64::try_from(set.spans.len()).unwrap_or(i64::MAX))),
        Scalar::Aggregate { op, field } => {
            aggregate(*op, set.spans.iter().map(|at| t.view(*at).value(field)))
        }
        Scalar::Binary { op, left, right } => {
            match scalar(t, left, set)?.calculate(*op, &scalar(t, right, set)?) {
                Static::Nil => None,
                v => Some(v),
            }
        }
        Scalar::Pipeline(stages, inner) => match run(t, stages).as_slice() {
            [] => scalar(t, inner, &Set::default()),
            [first, ..] => scalar(t, inner, first),
        },
    }
}

fn aggregate(op: Aggregate, values: impl Iterator<Item = Static>) -> Option<Static> {
    let mut n = 0i64;
    let mut acc: Option<Static> = None;
    for v in values.filter(|v| v.number().is_some()) {
        n += 1;
        acc = Some(match acc {
            None => v,
            Some(a) => match op {
                Aggregate::Max if v.compare(Op::Gt, &a) => v,
                Aggregate::Min if v.compare(Op::Lt, &a) => v,
                Aggregate::Max | Aggregate::Min => a,
                Aggregate::Avg | Aggregate::Sum => a.calculate(Op::Add, &v),
            },
        });
    }
    match op {
        Aggregate::Avg => acc.map(|a| match a {
            Static::Int(v) => Static::Float(v as f64 / n as f64),
            a => a.calculate(Op::Div, &Static::Int(n)),
        }),
        _ => acc,
    }
}

/// The spans of `within` that an expression gives, ascending.
fn select(t: &Trace, s: &Spanset, within: &[usize]) -> Vec<usize> {
    match s {
        Spanset::Filter(None) => within.to_vec(),
        Spanset::Filter(Some(f)) => within.iter().copied().filter(|at| t.view(*at).fits(f)).collect(),
        Spanset::And(a, b) => {
            let (a, b) = (select(t, a, within), select(t, b, within));
            if a.is_empty() || b.is_empty() { Vec::new() } else { union(a, b) }
        }
        Spanset::Or(a, b) => union(select(t, a, within), select(t, b, within)),
        Spanset::Related { relation, negate, union: both, left, right } => {
            let (left, right) = (select(t, left, within), select(t, right, within));
            if *negate {
                return right
                    .into_iter()
                    .filter(|r| !left.iter().any(|l| related(t, *relation, *l, *r)))
                    .collect();
            }
            let right: Vec<usize> =
                right.into_iter().filter(|r| left.iter().any(|l| related(t, *relation, *l, *r))).collect();
            if !*both {
                return right;
            }
            let left =
                left.into_iter().filter(|l| right.iter().any(|r| related(t, *relation, *l, *r))).collect();
            union(left, right)
        }
        Spanset::Pipeline(stages) => {
            let inside: BTreeSet<usize> = within.iter().copied().collect();
            let found: BTreeSet<usize> = run(t, stages).into_iter().flat_map(|s| s.spans).collect();
            found.intersection(&inside).copied().collect()
        }
    }
}

fn union(a: Vec<usize>, b: Vec<usize>) -> Vec<usize> {
    a.into_iter().chain(b).collect::<BTreeSet<usize>>().into_iter().collect()
}

/// Whether `r` is the child, parent, … of `l`.
fn related(t: &Trace, relation: Relation, l: usize, r: usize) -> bool {
    let (a, b) = (&t.spans[l], &t.spans[r]);
    let below = |up: &super::trace::Node, down: &super::trace::Node| {
        up.left > 0 && up.left < down.left && down.right < up.right
    };
    match relation {
        Relation::Child => b.parent == Some(l),
        Relation::Parent => a.parent == Some(r),
        Relation::Descendant => below(a, b),
        Relation::Ancestor => below(b, a),
        Relation::Sibling => l != r && a.parent.is_some() && a.parent == b.parent,
    }
}
