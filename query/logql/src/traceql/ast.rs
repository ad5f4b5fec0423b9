//! What a query is once it is understood.

use regex::Regex;

use super::value::Static;

/// A pipeline over spansets, perhaps turned into series.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub(super) stages: Vec<Stage>,
    pub(super) metrics: Option<Metrics>,
    /// What is done with the series.
    pub(super) then: Vec<Then>,
    /// `with (…)`
    pub(super) hints: Vec<(String, Static)>,
}

impl Query {
    /// Whether it gives series, not traces.
    pub fn is_metrics(&self) -> bool {
        self.metrics.is_some()
    }

    /// What it measures, as a series without labels is called.
    pub fn measure_name(&self) -> &'static str {
        match self.metrics.as_ref().map(|m| &m.what) {
            Some(Measure::Rate) => "rate",
            Some(Measure::Count) => "count_over_time",
            Some(Measure::Over(Aggregate::Avg, _)) => "avg_over_time",
            Some(Measure::Over(Aggregate::Max, _)) => "max_over_time",
            Some(Measure::Over(Aggregate::Min, _)) => "min_over_time",
            Some(Measure::Over(Aggregate::Sum, _)) => "sum_over_time",
            Some(Measure::Quantiles(..)) => "quantile_over_time",
            Some(Measure::Histogram(_)) => "histogram_over_time",
            Some(Measure::Compare { .. }) => "compare",
            None => "",
        }
    }

    pub(super) fn hint(&self, name: &str) -> Option<&Static> {
        self.hints.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    Spanset(Spanset),
    By(Field),
    Coalesce,
    Select(Vec<Field>),
    /// `count() > 2`: spansets for which it holds.
    Compare {
        left: Scalar,
        op: Op,
        right: Scalar,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Spanset {
    /// `{ … }`; nothing in it is every span.
    Filter(Option<Field>),
    And(Box<Spanset>, Box<Spanset>),
    Or(Box<Spanset>, Box<Spanset>),
    Related {
        relation: Relation,
        /// Spans of the right side that are not so related to any of the left.
        negate: bool,
        /// The spans of both sides.
        union: bool,
        left: Box<Spanset>,
        right: Box<Spanset>,
    },
    /// `({ … } | count() > 1)`
    Pipeline(Vec<Stage>),
}

/// What the right side's span is to the left side's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// `>`
    Child,
    /// `<`
    Parent,
    /// `>>`
    Descendant,
    /// `<<`
    Ancestor,
    /// `~`
    Sibling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Match,
    NotMatch,
    And,
    Or,
}

impl Op {
    pub(super) fn compares(self) -> bool {
        matches!(self, Op::Eq | Op::Ne | Op::Lt | Op::Le | Op::Gt | Op::Ge | Op::Match | Op::NotMatch)
    }

    pub(super) fn calculates(self) -> bool {
        matches!(self, Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Mod | Op::Pow)
    }
}

/// An expression over one span.
#[derive(Clone, Debug)]
pub(super) enum Field {
    Static(Static),
    Attribute(Attribute),
    Intrinsic(Intrinsic),
    Not(Box<Field>),
    Negate(Box<Field>),
    Binary {
        op: Op,
        left: Box<Field>,
        right: Box<Field>,
    },
    /// `=~` and `!~`: the whole value fits, or does not.
    Regex {
        negate: bool,
        left: Box<Field>,
        regex: Regex,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// `.x`: the span's, else the resource's.
    Any,
    Span,
    Resource,
    Event,
    Link,
    Instrumentation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    /// Of the parent span.
    pub(super) parent: bool,
    pub(super) scope: Scope,
    pub(super) name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intrinsic {
    Name,
    Duration,
    Status,
    StatusMessage,
    Kind,
    Parent,
    ChildCount,
    SpanId,
    ParentId,
    NestedLeft,
    NestedRight,
    NestedParent,
    TraceId,
    TraceDuration,
    RootName,
    RootService,
    EventName,
    EventSinceStart,
    LinkTraceId,
    LinkSpanId,
    ScopeName,
    ScopeVersion,
}

/// Names as they are written.
pub(super) const INTRINSICS: [(&str, Intrinsic); 35] = [
    ("name", Intrinsic::Name),
    ("duration", Intrinsic::Duration),
    ("status", Intrinsic::Status),
    ("statusMessage", Intrinsic::StatusMessage),
    ("kind", Intrinsic::Kind),
    ("parent", Intrinsic::Parent),
    ("childCount", Intrinsic::ChildCount),
    ("traceDuration", Intrinsic::TraceDuration),
    ("rootName", Intrinsic::RootName),
    ("rootServiceName", Intrinsic::RootService),
    ("nestedSetLeft", Intrinsic::NestedLeft),
    ("nestedSetRight", Intrinsic::NestedRight),
    ("nestedSetParent", Intrinsic::NestedParent),
    ("span:name", Intrinsic::Name),
    ("span:duration", Intrinsic::Duration),
    ("span:status", Intrinsic::Status),
    ("span:statusMessage", Intrinsic::StatusMessage),
    ("span:kind", Intrinsic::Kind),
    ("span:id", Intrinsic::SpanId),
    ("span:parentID", Intrinsic::ParentId),
    ("span:childCount", Intrinsic::ChildCount),
    ("span:nestedSetLeft", Intrinsic::NestedLeft),
    ("span:nestedSetRight", Intrinsic::NestedRight),
    ("span:nestedSetParent", Intrinsic::NestedParent),
    ("trace:id", Intrinsic::TraceId),
    ("trace:duration", Intrinsic::TraceDuration),
    ("trace:rootName", Intrinsic::RootName),
    ("trace:rootService", Intrinsic::RootService),
    ("event:name", Intrinsic::EventName),
    ("event:timeSinceStart", Intrinsic::EventSinceStart),
    ("link:traceID", Intrinsic::LinkTraceId),
    ("link:spanID", Intrinsic::LinkSpanId),
    ("instrumentation:name", Intrinsic::ScopeName),
    ("instrumentation:version", Intrinsic::ScopeVersion),
    ("trace:rootServiceName", Intrinsic::RootService),
];

impl Intrinsic {
    /// Whether more than the span itself must be known.
    pub(super) fn needs_trace(self) -> bool {
        matches!(
            self,
            Intrinsic::ChildCount
                | Intrinsic::NestedLeft
                | Intrinsic::NestedRight
                | Intrinsic::NestedParent
                | Intrinsic::TraceDuration
                | Intrinsic::RootName
                | Intrinsic::RootService
        )
    }
}

impl Field {
    pub(super) fn needs_trace(&self) -> bool {
        match self {
            Field::Static(_) => false,
            Field::Attribute(a) => a.parent,
            Field::Intrinsic(i) => i.needs_trace(),
            Field::Not(f) | Field::Negate(f) | Field::Regex { left: f, .. } => f.needs_trace(),
            Field::Binary { left, right, .. } => left.needs_trace() || right.needs_trace(),
        }
    }

    /// What it is called in an answer.
    pub(super) fn label(&self) -> String {
        match self {
            Field::Attribute(a) => {
                let scope = match a.scope {
                    Scope::Any => ".",
                    Scope::Span => "span.",
                    Scope::Resource => "resource.",
                    Scope::Event => "event.",
                    Scope::Link => "link.",
                    Scope::Instrumentation => "instrumentation.",
                };
                format!("{}{scope}{}", if a.parent { "parent." } else { "" }, a.name)
            }
            Field::Intrinsic(i) => {
                INTRINSICS.iter().find(|(_, k)| k == i).map_or_else(String::new, |(n, _)| (*n).to_owned())
            }
            _ => "expression".to_owned(),
        }
    }
}

/// A number over the spans of a spanset.
#[derive(Clone, Debug)]
pub(super) enum Scalar {
    Static(Static),
    Count,
    Aggregate {
        op: Aggregate,
        field: Field,
    },
    Binary {
        op: Op,
        left: Box<Scalar>,
        right: Box<Scalar>,
    },
    /// `({ … } | count())`
    Pipeline(Vec<Stage>, Box<Scalar>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Avg,
    Max,
    Min,
    Sum,
}

#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) what: Measure,
    pub(super) by: Vec<Field>,
}

#[derive(Clone, Debug)]
pub(super) enum Measure {
    Rate,
    Count,
    Over(Aggregate, Field),
    Quantiles(Field, Vec<f64>),
    Histogram(Field),
    /// How the attributes of the spans that fit differ from those of the others.
    Compare {
        selection: Field,
        top: usize,
        /// Nanoseconds; the selection is within them.
        within: Option<(i64, i64)>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Then {
    Top(usize),
    Bottom(usize),
    Filter(Op, f64),
}
