//! What of a query can be asked of single spans, so that only traces that may answer it are read whole.

use log_index::SpanSearch;
use signal::{Attributes, Labels, Matcher, Span, Timestamp};

use super::ast::{Attribute, Field, Intrinsic, Op, Query, Scalar, Scope, Spanset, Stage};
use super::trace::View;
use super::value::Static;

/// The filters of which any span in the answer fits at least one.
pub(super) struct Plan<'q> {
    filters: Vec<Option<Field>>,
    /// Whether a span that fits is in the answer, whatever the rest of its trace is.
    pub(super) is_simple: bool,
    query: &'q Query,
}

impl<'q> Plan<'q> {
    pub(super) fn new(query: &'q Query) -> Self {
        let mut filters = Vec::new();
        // Later stages only take away from what the first one gives.
        match query.stages.first() {
            Some(Stage::Spanset(s)) => leaves(s, &mut filters),
            Some(Stage::Compare { left, right, .. }) => {
                scalar_leaves(left, &mut filters);
                scalar_leaves(right, &mut filters);
            }
            _ => filters.push(None),
        }
        let whole = |f: &Option<Field>| f.as_ref().is_none_or(|f| !f.needs_trace());
        let is_simple = query.stages.iter().all(|s| match s {
            Stage::Spanset(Spanset::Filter(f)) => whole(f),
            Stage::Select(_) => true,
            _ => false,
        });
        let filters = filters.into_iter().map(|f| f.and_then(relaxed)).collect();
        Plan { filters, is_simple, query }
    }

    pub(super) fn may_answer(&self, labels: &Labels, resource: &Attributes, span: &Span) -> bool {
        let v = View { labels, resource, span, tree: None };
        let first = self.filters.iter().any(|f| f.as_ref().is_none_or(|f| v.fits(f)));
        // Of a simple query every filter must hold of the span itself.
        first
            && (!self.is_simple
                || self.query.stages.iter().all(|s| match s {
                    Stage::Spanset(Spanset::Filter(Some(f))) => v.fits(f),
                    _ => true,
                }))
    }

    /// What the index can use of it.
    pub(super) fn search(&self, enforce: &[Matcher], start: Timestamp, end: Timestamp) -> SpanSearch {
        let mut s = SpanSearch {
            matchers: enforce.to_vec(),
            start,
            end,
            name: None,
            min_duration: None,
            max_duration: None,
            attributes: Vec::new(),
        };
        if let [Some(f)] = self.filters.as_slice() {
            narrow(f, &mut s);
        }
        s
    }
}

fn narrow(f: &Field, s: &mut SpanSearch) {
    let Field::Binary { op, left, right } = f else { return };
    match (op, &**left, &**right) {
        (Op::And, a, b) => {
            narrow(a, s);
            narrow(b, s);
        }
        (Op::Eq, Field::Attribute(a), Field::Static(Static::Text(v)))
            if a.scope == Scope::Resource && a.name == "service.name" && !v.is_empty() =>
        {
            s.matchers.push(Matcher::equal("service_name", v));
        }
        (Op::Eq, Field::Intrinsic(Intrinsic::Name), Field::Static(Static::Text(v))) if s.name.is_none() => {
            s.name = Some(v.clone());
        }
        (Op::Ge | Op::Gt, Field::Intrinsic(Intrinsic::Duration), Field::Static(v)) => {
            s.min_duration = v.number().map(|v| v.max(0.0) as u64).max(s.min_duration);
        }
        _ => {}
    }
}

fn leaves(s: &Spanset, out: &mut Vec<Option<Field>>) {
    match s {
        Spanset::Filter(f) => out.push(f.clone()),
        Spanset::And(a, b) | Spanset::Or(a, b) => {
            leaves(a, out);
            leaves(b, out);
        }
        Spanset::Related { left, right, .. } => {
            leaves(left, out);
            leaves(right, out);
        }
        Spanset::Pipeline(stages) => match stages.first() {
            Some(Stage::Spanset(s)) => leaves(s, out),
            _ => out.push(None),
        },
    }
}

fn scalar_leaves(s: &Scalar, out: &mut Vec<Option<Field>>) {
    match s {
        Scalar::Static(_) => {}
        Scalar::Count | Scalar::Aggregate { .. } => out.push(None),
        Scalar::Binary { left, right, .. } => {
            scalar_leaves(left, out);
            scalar_leaves(right, out);
        }
        // Of a trace without such spans the count is 0, which may be what is asked for.
        Scalar::Pipeline(..) => out.push(None),
    }
}

/// The part of a filter that a span alone can tell; `None` if that is nothing. It holds wherever the filter does.
fn relaxed(f: Field) -> Option<Field> {
    if !f.needs_trace() {
        return Some(f);
    }
    match f {
        Field::Binary { op: Op::And, left, right } => match (relaxed(*left), relaxed(*right)) {
            (Some(a), Some(b)) => Some(Field::Binary { op: Op::And, left: Box::new(a), right: Box::new(b) }),
            (a, b) => a.or(b),
        },
        Field::Binary { op: Op::Or, left, right } => Some(Field::Binary {
            op: Op::Or,
            left: Box::new(relaxed(*left)?),
            right: Box::new(relaxed(*right)?),
        }),
        _ => None,
    }
}

/// The attributes that a query speaks of: they stand in its answer.
pub(super) fn mentioned(q: &Query) -> Vec<Field> {
    let mut out: Vec<Field> = Vec::new();
    for s in &q.stages {
        match s {
            Stage::Spanset(s) => {
                let mut all = Vec::new();
                leaves(s, &mut all);
                all.iter().flatten().for_each(|f| fields(f, &mut out));
            }
            Stage::By(f) => fields(f, &mut out),
            Stage::Select(all) => all.iter().for_each(|f| fields(f, &mut out)),
            Stage::Compare { left: Scalar::Aggregate { field, .. }, .. } => fields(field, &mut out),
            _ => {}
        }
    }
    out
}

fn fields(f: &Field, out: &mut Vec<Field>) {
    match f {
        Field::Attribute(Attribute { .. }) | Field::Intrinsic(_) => {
            let said = f.label();
            if !out.iter().any(|o| o.label() == said) {
                out.push(f.clone());
            }
        }
        Field::Not(f) | Field::Negate(f) | Field::Regex { left: f, .. } => fields(f, out),
        Field::Binary { left, right, .. } => {
            fields(left, out);
            fields(right, out);
        }
        Field::Static(_) => {}
    }
}
