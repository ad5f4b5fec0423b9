//! Searching and measuring over the index of spans.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use log_index::LogIndex;
use signal::{Attributes, Labels, Matcher, Span, SpanId, SpanStatus, Timestamp, TraceId};

use super::ast::Query;
use super::metrics::{Measured, Series};
use super::plan::{Plan, mentioned};
use super::spanset::{Set, run};
use super::trace::{Trace, duration};
use super::value::Static;
use crate::error::Error;

/// Traces that are read together, which mostly lie together.
const TOGETHER: usize = 16;

#[derive(Clone, Debug)]
pub struct Limits {
    /// Traces that one query may read whole.
    pub traces: usize,
    /// Series and values a metrics query may hold.
    pub series: usize,
    pub values: usize,
    /// Steps of a metrics query.
    pub steps: usize,
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            traces: 100_000,
            series: 2000,
            values: 5_000_000,
            steps: 11_000,
            timeout: Duration::from_secs(60),
        }
    }
}

/// What one caller asks on top of the query.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// On every stream of spans: what the caller may see.
    pub enforce: Vec<Matcher>,
    /// Traces wanted, and spans of each spanset.
    pub limit: usize,
    pub spans: usize,
    /// Ends the query once it is true.
    pub stop: Arc<AtomicBool>,
}

/// A trace of an answer, with the spans that were asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub trace_id: TraceId,
    pub root_service: String,
    pub root_name: String,
    pub start: Timestamp,
    /// Nanoseconds.
    pub duration: i64,
    pub spans: usize,
    /// Spans, and those with errors, by service.
    pub services: BTreeMap<String, (usize, usize)>,
    pub sets: Vec<FoundSet>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FoundSet {
    /// Spans that fit; not all of them need be given.
    pub matched: usize,
    pub attributes: Vec<(String, Static)>,
    pub spans: Vec<FoundSpan>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FoundSpan {
    pub span_id: SpanId,
    pub name: String,
    pub start: Timestamp,
    /// Nanoseconds.
    pub duration: i64,
    /// Those the query speaks of.
    pub attributes: Vec<(String, Static)>,
}

#[derive(Clone)]
pub struct Engine {
    index: Arc<LogIndex>,
    limits: Limits,
}

/// Counts down to the end of a query.
struct Pace<'a> {
    stop: &'a AtomicBool,
    deadline: Option<Instant>,
    seen: u32,
}

impl Pace<'_> {
    /// Why the query must end.
    fn ended(&mut self) -> Option<Error> {
        self.seen = self.seen.wrapping_add(1);
        if !self.seen.is_multiple_of(256) {
            return None;
        }
        if self.stop.load(Ordering::Relaxed) {
            Some(Error::Canceled)
        } else if self.deadline.is_some_and(|d| signal::time::monotonic() > d) {
            Some(Error::Timeout)
        } else {
            None
        }
    }
}

impl Engine {
    pub fn new(index: Arc<LogIndex>, limits: Limits) -> Self {
        Engine { index, limits }
    }

    pub fn index(&self) -> &Arc<LogIndex> {
        &self.index
    }

    fn pace<'a>(&self, o: &'a Options) -> Pace<'a> {
        let deadline = signal::time::monotonic().checked_add(self.limits.timeout);
        Pace { stop: &o.stop, deadline, seen: u32::MAX }
    }

    /// The newest traces that a query fits, newest first, and how many traces were read for that.
    pub fn search(
        &self,
        q: &Query,
        start: Timestamp,
        end: Timestamp,
        o: &Options,
    ) -> Result<(Vec<Found>, usize), Error> {
        if q.is_metrics() {
            return Err(Error::Limit(
                "a metrics query gives series, not traces: ask /api/metrics/query_range".to_owned(),
            ));
        }
        let plan = Plan::new(q);
        let mentioned = mentioned(q);
        let mut pace = self.pace(o);
        let mut known: HashSet<TraceId> = HashSet::new();
        let mut out: Vec<Found> = Vec::new();
        // Some more than wanted, because blocks are only nearly in order of time.
        let mut batch = o.limit.saturating_mul(2).max(64);
        loop {
            let (mut ids, complete) = self.candidates(&plan, o, (start, end), &known, batch, &mut pace)?;
            ids.sort_by_key(|(_, t)| std::cmp::Reverse(*t));
            let ids: Vec<TraceId> = ids.into_iter().map(|(id, _)| id).collect();
            known.extend(&ids);
            for some in ids.chunks(TOGETHER) {
                let mut loaded = self.index.traces(some, &o.enforce)?;
                for t in some.iter().filter_map(|id| Trace::new(*id, loaded.remove(id)?)) {
                    let sets = run(&t, &q.stages);
                    if !sets.is_empty() {
                        out.push(found(&t, &sets, &mentioned, o.spans));
                    }
                }
                if let Some(e) = pace.ended() {
                    return Err(e);
                }
            }
            if complete || out.len() >= o.limit {
                break;
            }
            if known.len() >= self.limits.traces {
                return Err(Error::Limit(format!(
                    "more than {} traces would have to be read; ask for less time, or name a service",
                    self.limits.traces
                )));
            }
            batch = batch.saturating_mul(4).min(self.limits.traces);
        }
        out.sort_by_key(|f| std::cmp::Reverse(f.start));
        out.truncate(o.limit);
        Ok((out, known.len()))
    }

    /// Traces with a span that may be in the answer, at most `most` that are not known yet, each with its newest
    /// such span's time; and whether these are all.
    fn candidates(
        &self,
        plan: &Plan<'_>,
        o: &Options,
        (start, end): (Timestamp, Timestamp),
        known: &HashSet<TraceId>,
        most: usize,
        pace: &mut Pace<'_>,
    ) -> Result<(Vec<(TraceId, Timestamp)>, bool), Error> {
        let mut ids: BTreeMap<TraceId, Timestamp> = BTreeMap::new();
        let (mut failure, mut complete) = (None, true);
        self.index.scan_spans(&plan.search(&o.enforce, start, end), |labels, resource, span| {
            if let Some(e) = pace.ended() {
                failure = Some(e);
                return ControlFlow::Break(());
            }
            if known.contains(&span.trace_id) || !plan.may_answer(labels, resource, &span) {
                return ControlFlow::Continue(());
            }
            let newest = ids.entry(span.trace_id).or_insert(span.start);
            *newest = (*newest).max(span.start);
            if ids.len() >= most {
                complete = false;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        match failure {
            Some(e) => Err(e),
            None => Ok((ids.into_iter().collect(), complete)),
        }
    }

    /// Every span that a query may want, newest blocks first, until `each` breaks.
    pub fn visit(
        &self,
        q: Option<&Query>,
        (start, end): (Timestamp, Timestamp),
        o: &Options,
        mut each: impl FnMut(&Labels, &Attributes, Span) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let open = Query::default();
        let plan = Plan::new(q.unwrap_or(&open));
        let mut pace = self.pace(o);
        let mut failure = None;
        self.index.scan_spans(&plan.search(&o.enforce, start, end), |labels, resource, span| {
            failure = pace.ended();
            if failure.is_some() {
                ControlFlow::Break(())
            } else if plan.may_answer(labels, resource, &span) {
                each(labels, resource, span)
            } else {
                ControlFlow::Continue(())
            }
        })?;
        failure.map_or(Ok(()), Err)
    }

    /// Series over `start` to `end`: a point at each multiple of `step`, of the spans that began within the step
    /// before it; without a step one point at the end, of all of them.
    pub fn measure(
        &self,
        q: &Query,
        start: Timestamp,
        end: Timestamp,
        step: Option<Duration>,
        o: &Options,
    ) -> Result<Vec<Series>, Error> {
        let mut m = Measured::new(q, start, end, step, &self.limits)?;
        let plan = Plan::new(q);
        let mut pace = self.pace(o);
        if plan.is_simple && !m.needs_trace() {
            let mut failure = None;
            self.index.scan_spans(&plan.search(&o.enforce, start, end), |labels, resource, span| {
                let view = super::trace::View { labels, resource, span: &span, tree: None };
                let ended = pace.ended();
                if ended.is_none() && !plan.may_answer(labels, resource, &span) {
                    return ControlFlow::Continue(());
                }
                failure = ended.map_or_else(|| m.add(&view).err(), Some);
                if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            return failure.map_or_else(|| Ok(m.series()), Err);
        }
        let most = self.limits.traces;
        let (ids, complete) = self.candidates(&plan, o, (start, end), &HashSet::new(), most, &mut pace)?;
        if !complete {
            return Err(Error::Limit(format!(
                "more than {most} traces would have to be read; ask for less time, or name a service"
            )));
        }
        let ids: Vec<TraceId> = ids.into_iter().map(|(id, _)| id).collect();
        for some in ids.chunks(TOGETHER) {
            let mut loaded = self.index.traces(some, &o.enforce)?;
            for t in some.iter().filter_map(|id| Trace::new(*id, loaded.remove(id)?)) {
                for at in run(&t, &q.stages).into_iter().flat_map(|s| s.spans) {
                    m.add(&t.view(at))?;
                }
            }
            if let Some(e) = pace.ended() {
                return Err(e);
            }
        }
        Ok(m.series())
    }
}

fn found(t: &Trace, sets: &[Set], mentioned: &[super::ast::Field], most: usize) -> Found {
    let mut services: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (at, n) in t.spans.iter().enumerate() {
        let s = services.entry(t.service(at).to_owned()).or_default();
        s.0 += 1;
        s.1 += usize::from(matches!(n.span.status, SpanStatus::Error(_)));
    }
    let sets = sets.iter().map(|set| FoundSet {
        matched: set.spans.len(),
        attributes: set.attributes.clone(),
        spans: set
            .spans
            .iter()
            .take(if most == 0 { usize::MAX } else { most })
            .map(|at| {
                let (view, s) = (t.view(*at), &t.spans[*at].span);
                let values = mentioned.iter().map(|f| (f.label(), view.value(f)));
                FoundSpan {
                    span_id: s.span_id,
                    name: s.name.clone(),
                    start: s.start,
                    duration: duration(s),
                    attributes: values.filter(|(_, v)| *v != Static::Nil).collect(),
                }
            })
            .collect(),
    });
    Found {
        trace_id: t.id,
        root_service: t.service(t.root).to_owned(),
        root_name: t.spans[t.root].span.name.clone(),
        start: t.start,
        duration: t.duration(),
        spans: t.spans.len(),
        services,
        sets: sets.collect(),
    }
}
