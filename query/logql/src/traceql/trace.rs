//! A trace as a tree, and what an expression is worth on one of its spans.

use std::collections::HashMap;

use signal::{Attributes, Labels, Span, SpanId, SpanStatus, SpanStream, Timestamp, TraceId};

use super::ast::{Attribute, Field, Intrinsic, Op, Scope};
use super::value::{Static, Status};

/// All spans of a trace that the caller may see.
pub(super) struct Trace {
    pub(super) id: TraceId,
    sources: Vec<(Labels, Attributes)>,
    pub(super) spans: Vec<Node>,
    /// The span without a parent; the earliest one if the root has not come.
    pub(super) root: usize,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

pub(super) struct Node {
    pub(super) span: Span,
    source: usize,
    pub(super) parent: Option<usize>,
    children: usize,
    /// The span's place in a walk of the tree: everything below lies between them.
    pub(super) left: i64,
    pub(super) right: i64,
}

/// One span and what is known around it.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) labels: &'a Labels,
    pub(super) resource: &'a Attributes,
    pub(super) span: &'a Span,
    pub(super) tree: Option<(&'a Trace, usize)>,
}

/// What an expression gives: events and links may give several values.
enum Values {
    One(Static),
    Many(Vec<Static>),
}

impl Trace {
    /// `None` if there are no spans.
    pub(super) fn new(id: TraceId, streams: Vec<SpanStream>) -> Option<Trace> {
        let mut sources = Vec::new();
        let mut spans: Vec<Node> = Vec::new();
        for s in streams {
            sources.push((s.labels, s.resource));
            let node =
                |span| Node { span, source: sources.len() - 1, parent: None, children: 0, left: 0, right: 0 };
            spans.extend(s.spans.into_iter().map(node));
        }
        spans.sort_by_key(|n| (n.span.start, n.span.span_id));
        let by_id: HashMap<SpanId, usize> =
            spans.iter().enumerate().map(|(i, n)| (n.span.span_id, i)).collect();
        for i in 0..spans.len() {
            let parent = spans[i].span.parent_span_id;
            let parent = by_id.get(&parent).copied().filter(|p| *p != i && parent.is_valid());
            spans[i].parent = parent;
            if let Some(p) = parent {
                spans[p].children += 1;
            }
        }
        let start = spans.iter().map(|n| n.span.start).min()?;
        let end = spans.iter().map(|n| n.span.end).max()?;
        let root = spans.iter().position(|n| !n.span.parent_span_id.is_valid()).unwrap_or(0);
        let mut t = Trace { id, sources, spans, root, start, end };
        t.number();
        Some(t)
    }

    /// Walks the trees, without recursion: a trace may be as deep as it is long.
    fn number(&mut self) {
        let mut below: Vec<Vec<usize>> = vec![Vec::new(); self.spans.len()];
        let mut roots = Vec::new();
        for (i, n) in self.spans.iter().enumerate() {
            match n.parent {
                Some(p) => below[p].push(i),
                None => roots.push(i),
            }
        }
        let mut next = 1;
        for root in roots {
            let mut stack = vec![(root, 0)];
            while let Some((at, done)) = stack.pop() {
                if done == 0 {
                    self.spans[at].left = next;
                    next += 1;
                }
                match below[at].get(done) {
                    Some(child) => {
                        stack.push((at, done + 1));
                        // Spans that are each other's parents are never reached from a root.
                        stack.push((*child, 0));
                    }
                    None => {
                        self.spans[at].right = next;
                        next += 1;
                    }
                }
            }
        }
    }

    pub(super) fn view(&self, at: usize) -> View<'_> {
        let n = &self.spans[at];
        let (labels, resource) = &self.sources[n.source];
        View { labels, resource, span: &n.span, tree: Some((self, at)) }
    }

    pub(super) fn service(&self, at: usize) -> &str {
        self.sources[self.spans[at].source].0.get("service_name").unwrap_or("")
    }

    pub(super) fn duration(&self) -> i64 {
        i64::try_from(self.end.since(self.start).as_nanos()).unwrap_or(i64::MAX)
    }
}

pub(super) fn duration(s: &Span) -> i64 {
    i64::try_from(s.end.since(s.start).as_nanos()).unwrap_or(i64::MAX)
}

fn text(s: impl ToString) -> Static {
    Static::Text(s.to_string())
}

impl View<'_> {
    /// Whether the span is one that a filter wants.
    pub(super) fn fits(&self, f: &Field) -> bool {
        match self.values(f) {
            Values::One(v) => v == Static::Bool(true),
            Values::Many(all) => all.contains(&Static::Bool(true)),
        }
    }

    /// The first value; nil if there is none.
    pub(super) fn value(&self, f: &Field) -> Static {
        match self.values(f) {
            Values::One(v) => v,
            Values::Many(all) => all.into_iter().next().unwrap_or(Static::Nil),
        }
    }

    /// Every value that is there.
    pub(super) fn all(&self, f: &Field) -> Vec<Static> {
        match self.values(f) {
            Values::One(Static::Nil) => Vec::new(),
            Values::One(v) => vec![v],
            Values::Many(all) => all,
        }
    }

    fn values(&self, f: &Field) -> Values {
        let one = |v| Values::One(v);
        match f {
            Field::Static(v) => one(v.clone()),
            Field::Attribute(a) => self.attribute(a),
            Field::Intrinsic(i) => self.intrinsic(*i),
            Field::Not(f) => one(match self.value(f) {
                Static::Bool(b) => Static::Bool(!b),
                _ => Static::Nil,
            }),
            Field::Negate(f) => one(Static::Int(0).calculate(Op::Sub, &self.value(f))),
            Field::Regex { negate, left, regex } => one(Static::Bool(self.any(left, |v| match v {
                Static::Text(t) => regex.is_match(t) != *negate,
                _ => false,
            }))),
            Field::Binary { op: Op::And, left, right } => {
                one(Static::Bool(self.fits(left) && self.fits(right)))
            }
            Field::Binary { op: Op::Or, left, right } => {
                one(Static::Bool(self.fits(left) || self.fits(right)))
            }
            Field::Binary { op, left, right } if op.compares() => {
                one(Static::Bool(self.compare(*op, left, right)))
            }
            Field::Binary { op, left, right } => one(self.value(left).calculate(*op, &self.value(right))),
        }
    }

    fn any(&self, f: &Field, holds: impl Fn(&Static) -> bool) -> bool {
        match self.values(f) {
            Values::One(v) => holds(&v),
            Values::Many(all) => all.iter().any(holds),
        }
    }

    /// What is not there compares with nil alone.
    fn compare(&self, op: Op, left: &Field, right: &Field) -> bool {
        let is_nil = |f: &Field| matches!(f, Field::Static(Static::Nil));
        if is_nil(left) || is_nil(right) {
            let f = if is_nil(left) { right } else { left };
            let there = match self.values(f) {
                Values::One(v) => v != Static::Nil,
                Values::Many(all) => !all.is_empty(),
            };
            return there == (op == Op::Ne);
        }
        let other = self.values(right);
        self.any(left, |a| match &other {
            Values::One(b) => a.compare(op, b),
            Values::Many(all) => all.iter().any(|b| a.compare(op, b)),
        })
    }

    fn attribute(&self, a: &Attribute) -> Values {
        if a.parent {
            let above = self.tree.and_then(|(t, at)| Some(t.view(t.spans[at].parent?)));
            let own = Attribute { parent: false, ..a.clone() };
            return above.map_or(Values::One(Static::Nil), |v| v.attribute(&own));
        }
        let own = || self.span.attributes.get(&a.name).map(Static::from);
        let resource = || {
            let identity = match a.name.as_str() {
                "service.name" => self.labels.get("service_name"),
                n => self.labels.get(n),
            };
            self.resource.get(&a.name).map(Static::from).or_else(|| identity.map(text))
        };
        let many = |sets: &mut dyn Iterator<Item = &Attributes>| {
            sets.filter_map(|s| s.get(&a.name)).map(Static::from).collect::<Vec<_>>()
        };
        let events = || many(&mut self.span.events.iter().map(|e| &e.attributes));
        let links = || many(&mut self.span.links.iter().map(|l| &l.attributes));
        let found = match a.scope {
            Scope::Span => own(),
            Scope::Resource => resource(),
            Scope::Event => return Values::Many(events()),
            Scope::Link => return Values::Many(links()),
            Scope::Instrumentation => {
                self.span.attributes.get(&format!("otel.scope.{}", a.name)).map(Static::from)
            }
            Scope::Any => match own().or_else(resource) {
                Some(v) => Some(v),
                None => {
                    let mut all = events();
                    all.extend(links());
                    return Values::Many(all);
                }
            },
        };
        Values::One(found.unwrap_or(Static::Nil))
    }

    fn intrinsic(&self, i: Intrinsic) -> Values {
        let s = self.span;
        let node = |f: &dyn Fn(&Trace, usize) -> Static| self.tree.map_or(Static::Nil, |(t, at)| f(t, at));
        let or_nil = |there: bool, v: Static| if there { v } else { Static::Nil };
        Values::One(match i {
            Intrinsic::Name => text(&s.name),
            Intrinsic::Duration => Static::Duration(duration(s)),
            Intrinsic::Status => Static::Status(Status::of(&s.status)),
            Intrinsic::StatusMessage => match &s.status {
                SpanStatus::Error(m) => text(m),
                _ => Static::Text(String::new()),
            },
            Intrinsic::Kind => Static::Kind(s.kind),
            Intrinsic::Parent | Intrinsic::ParentId => {
                or_nil(s.parent_span_id.is_valid(), text(s.parent_span_id))
            }
            Intrinsic::SpanId => text(s.span_id),
            Intrinsic::TraceId => text(s.trace_id),
            Intrinsic::ChildCount => {
                node(&|t, at| Static::Int(i64::try_from(t.spans[at].children).unwrap_or(i64::MAX)))
            }
            Intrinsic::NestedLeft => node(&|t, at| Static::Int(t.spans[at].left)),
            Intrinsic::NestedRight => node(&|t, at| Static::Int(t.spans[at].right)),
            // Tempo: a root's is -1.
            Intrinsic::NestedParent => {
                node(&|t, at| Static::Int(t.spans[at].parent.map_or(-1, |p| t.spans[p].left)))
            }
            Intrinsic::TraceDuration => node(&|t, _| Static::Duration(t.duration())),
            Intrinsic::RootName => node(&|t, _| text(&t.spans[t.root].span.name)),
            Intrinsic::RootService => node(&|t, _| text(t.service(t.root))),
            Intrinsic::EventName => return Values::Many(s.events.iter().map(|e| text(&e.name)).collect()),
            Intrinsic::EventSinceStart => {
                let since = |t: Timestamp| i64::try_from(t.since(s.start).as_nanos()).unwrap_or(i64::MAX);
                return Values::Many(s.events.iter().map(|e| Static::Duration(since(e.timestamp))).collect());
            }
            Intrinsic::LinkTraceId => {
                return Values::Many(s.links.iter().map(|l| text(l.trace_id)).collect());
            }
            Intrinsic::LinkSpanId => return Values::Many(s.links.iter().map(|l| text(l.span_id)).collect()),
            Intrinsic::ScopeName => s.attributes.get("otel.scope.name").map_or(Static::Nil, Static::from),
            Intrinsic::ScopeVersion => {
                s.attributes.get("otel.scope.version").map_or(Static::Nil, Static::from)
            }
        })
    }
}
