//! Spans: a trace by its id, spans by what they are, and what a trace looks like in one line.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;

use signal::{Attributes, Labels, Matcher, Span, SpanStatus, SpanStream, Timestamp, TraceId};

use crate::block::{Builder, Name};
use crate::codec::{get_bytes, get_varint, take, trace_of_span};
use crate::column::ValueRef;
use crate::db::LogIndex;
use crate::error::Error;
use crate::head;
use crate::partition::Index;
use crate::search::{BlockView, Over, Plan, Search, Status};
use crate::summary::Entry;

/// What spans to look for. Everything must hold.
#[derive(Clone, Debug)]
pub struct SpanSearch {
    /// On the stream's labels, such as `service_name`.
    pub matchers: Vec<Matcher>,
    pub start: Timestamp,
    pub end: Timestamp,
    pub name: Option<String>,
    /// Nanoseconds.
    pub min_duration: Option<u64>,
    pub max_duration: Option<u64>,
    /// Attributes of the span, its resource or its stream, by their text. `status` and `kind` too.
    pub attributes: Vec<(String, String)>,
}

/// A trace in one line.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSummary {
    pub trace_id: TraceId,
    /// Of the root span; of the earliest one if the root has not come.
    pub root_service: String,
    pub root_name: String,
    pub start: Timestamp,
    /// Nanoseconds from the first start to the last end.
    pub duration: u64,
    pub spans: usize,
    pub errors: usize,
    /// Spans by service.
    pub services: BTreeMap<String, usize>,
}

impl LogIndex {
    /// All spans of a trace whose stream matches, by stream.
    pub fn trace(&self, id: TraceId, matchers: &[Matcher]) -> Result<Vec<SpanStream>, Error> {
        let mut s = Search::new(matchers.to_vec(), Timestamp::MIN, Timestamp::MAX);
        s.trace_id = Some(id);
        self.trace_over(&s, Over::Everything)
    }

    fn trace_over(&self, s: &Search, over: Over) -> Result<Vec<SpanStream>, Error> {
        let plan = Plan::new(self, s, over)?;
        let mut out: Vec<SpanStream> = Vec::new();
        for unit in 0..plan.len() {
            let read = || {
                let v = plan.view(unit)?;
                let spans = (0..v.len()).map(|i| v.span(i)).collect::<Result<Vec<Span>, Error>>()?;
                Ok((v, spans))
            };
            let Some((v, spans)) = self.sound(&s.progress, read())? else { continue };
            if spans.is_empty() {
                continue;
            }
            match out.iter_mut().find(|o| o.labels == *v.labels() && o.resource == *v.resource()) {
                Some(o) => o.spans.extend(spans),
                None => {
                    out.push(SpanStream { labels: v.labels().clone(), resource: v.resource().clone(), spans })
                }
            }
        }
        out.iter_mut().for_each(in_order_once);
        Ok(out)
    }

    /// As [`LogIndex::trace`] for several traces: what they lie in together is read once. Traces that are not known are
    /// left out.
    pub fn traces(
        &self,
        ids: &[TraceId],
        matchers: &[Matcher],
    ) -> Result<HashMap<TraceId, Vec<SpanStream>>, Error> {
        let s = Search::new(matchers.to_vec(), Timestamp::MIN, Timestamp::MAX);
        let wanted: HashSet<[u8; 16]> = ids.iter().map(|id| id.0).collect();
        let mut out: HashMap<TraceId, Vec<SpanStream>> = HashMap::new();
        let mut add = |labels: &Labels, resource: &Attributes, spans: Vec<Span>| {
            for span in spans {
                let of_trace = out.entry(span.trace_id).or_default();
                match of_trace.iter_mut().find(|o| o.labels == *labels && o.resource == *resource) {
                    Some(o) => o.spans.push(span),
                    None => of_trace.push(SpanStream {
                        labels: labels.clone(),
                        resource: resource.clone(),
                        spans: vec![span],
                    }),
                }
            }
        };
        // Under the lock only bytes are copied.
        let mut heads = Vec::new();
        let partitions = {
            let state = self.state.read();
            for head in [state.frozen.as_deref(), Some(&state.head)].into_iter().flatten() {
                for stream in head.streams.iter().filter(|stream| s.fits(&stream.labels)) {
                    let rows = stream.rows.iter().map(|r| (r.time, head::data(&head.chunks, r)));
                    let of_traces = |d: &[u8]| trace_of_span(d).is_some_and(|id| wanted.contains(&id));
                    let rows: Vec<(i64, Vec<u8>)> =
                        rows.filter(|(_, d)| of_traces(d)).map(|(t, d)| (t, d.to_vec())).collect();
                    if !rows.is_empty() {
                        heads.push((stream.labels.clone(), stream.resource.clone(), rows));
                    }
                }
            }
            state.partitions.clone()
        };
        for (labels, resource, mut rows) in heads {
            rows.sort_by_key(|(t, _)| *t);
            let mut builder = Builder::new(self.config.kind);
            for (t, d) in &rows {
                // What is in the head was encoded here or checked when the log was read.
                let _ = builder.push(*t, d);
            }
            let block = builder.into_block();
            add(&labels, &resource, (0..block.count()).map(|i| block.span(i)).collect::<Result<_, _>>()?);
        }
        for p in &partitions {
            let Some(index) = self.help(p.index())? else { continue };
            let mut blocks: BTreeSet<usize> = BTreeSet::new();
            for id in &wanted {
                let entry =
                    index.traces.as_ref().map(|table| self.help(table.get(p, id))).transpose()?.flatten();
                match entry {
                    Some(entry) => blocks.extend(entry.iter().flat_map(|e| &e.blocks).map(|b| *b as usize)),
                    // An old partition, or one whose table is damaged.
                    None => blocks.extend(0..index.blocks.len()),
                }
            }
            for b in blocks.into_iter().filter_map(|b| index.blocks.get(b)) {
                let Some((labels, resource)) =
                    index.streams.get(b.stream as usize).filter(|(labels, _)| s.fits(labels))
                else {
                    continue;
                };
                let read = || {
                    let block = p.block(b)?;
                    let Some(ids) = block.column(&Name::TraceId)? else { return Ok(Vec::new()) };
                    let is = |i: &usize| ids.wide(*i).is_some_and(|id| wanted.contains(&id));
                    (0..block.count()).filter(is).map(|i| block.span(i)).collect()
                };
                add(labels, resource, self.sound(&s.progress, read())?.unwrap_or_default());
            }
        }
        out.values_mut().flatten().for_each(in_order_once);
        Ok(out)
    }

    /// Every span that matches, newest blocks first, until `each` breaks.
    pub fn scan_spans(
        &self,
        q: &SpanSearch,
        mut each: impl FnMut(&Labels, &Attributes, Span) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let found = |v: &BlockView<'_>| {
            let mut spans = Vec::new();
            for i in q.rows(v)?.into_iter().rev() {
                spans.push(v.span(i)?);
            }
            Ok((v.labels().clone(), v.resource().clone(), spans))
        };
        self.map_blocks(&q.search(), found, |(labels, resource, spans)| {
            spans.into_iter().try_for_each(|s| each(&labels, &resource, s))
        })
    }

    /// Summaries of the newest traces with a span that matches, newest matching span first. Reads of the other spans
    /// nothing: what a trace is in one line stands in the index of traces.
    pub fn search_traces(&self, q: &SpanSearch, limit: usize) -> Result<Vec<TraceSummary>, Error> {
        let newest = |all: HashMap<[u8; 16], i64>| {
            let mut all: Vec<(i64, [u8; 16])> = all.into_iter().map(|(id, t)| (t, id)).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            all.truncate(limit);
            all
        };
        let found = |v: BlockView<'_>| {
            let mut ids: HashMap<[u8; 16], i64> = HashMap::new();
            for i in q.rows(&v)? {
                let t = ids.entry(v.trace_id(i)?.0).or_insert(i64::MIN);
                *t = (*t).max(v.time(i));
            }
            Ok(newest(ids))
        };
        let mut ids: Vec<(i64, [u8; 16])> = Vec::new();
        self.visit(&q.search(), found, |some, _, next| {
            let mut all: HashMap<[u8; 16], i64> = HashMap::new();
            for (t, id) in ids.drain(..).chain(some) {
                let e = all.entry(id).or_insert(t);
                *e = (*e).max(t);
            }
            ids = newest(all);
            // No later block has a span as new as the last one kept.
            let full = ids.len() >= limit && ids.last().is_none_or(|(t, _)| next.is_some_and(|n| n < *t));
            if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        // Only streams that the caller may see count, or a summary would tell of others.
        let scope: Vec<Matcher> = q.matchers.iter().filter(|m| m.name == "namespace").cloned().collect();
        let ids: Vec<TraceId> = ids.into_iter().map(|(_, id)| TraceId(id)).collect();
        self.summaries(&ids, &scope)
    }

    /// What each of the traces is in one line, as far as its streams match. Traces that are not known are left out.
    pub fn summaries(&self, ids: &[TraceId], matchers: &[Matcher]) -> Result<Vec<TraceSummary>, Error> {
        let mut all: HashMap<TraceId, Parts> = HashMap::new();
        let fits = |l: &Labels| matchers.iter().all(|m| m.matches(l.get(&m.name).unwrap_or("")));
        let partitions = {
            let state = self.state.read();
            let wanted: HashSet<[u8; 16]> = ids.iter().map(|i| i.0).collect();
            for head in [state.frozen.as_deref(), Some(&state.head)].into_iter().flatten() {
                for stream in head.streams.iter().filter(|s| fits(&s.labels)) {
                    for r in &stream.rows {
                        let data = head::data(&head.chunks, r);
                        let Some(id) = trace_of_span(data).filter(|id| wanted.contains(id)) else { continue };
                        let parts = all.entry(TraceId(id)).or_default();
                        if let Some(s) = span_facts(r.time, data) {
                            parts.add_span(&stream.labels, &s);
                        }
                    }
                }
            }
            state.partitions.clone()
        };
        for p in &partitions {
            let Some(index) = self.help(p.index())? else { continue };
            for id in ids {
                let entry = match &index.traces {
                    // Without its place in the table a trace's spans are looked for in all blocks.
                    Some(table) => match self.help(table.get(p, &id.0))? {
                        Some(Some(e)) => Some(e),
                        Some(None) => continue,
                        None => None,
                    },
                    None => None,
                };
                let seen = |stream: u32| index.streams.get(stream as usize).filter(|(l, _)| fits(l));
                let parts = all.entry(*id).or_default();
                match entry {
                    Some(e) if e.streams.iter().all(|(s, ..)| seen(*s).is_some()) => {
                        parts.add_entry(&e, &index)
                    }
                    // An old partition, or one that knows more of the trace than the caller may.
                    _ => {
                        let mut s = Search::new(matchers.to_vec(), Timestamp::MIN, Timestamp::MAX);
                        s.trace_id = Some(*id);
                        for stream in self.trace_over(&s, Over::Partition(p.meta.seq))? {
                            stream.spans.iter().for_each(|s| parts.add_span(&stream.labels, &s.into()));
                        }
                    }
                }
            }
        }
        Ok(ids.iter().filter_map(|id| all.remove(id)?.summary(*id)).collect())
    }

    /// Values of a stream label over the range, such as the names of services.
    pub fn stream_label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        start: Timestamp,
        end: Timestamp,
    ) -> Result<Vec<String>, Error> {
        let values: BTreeSet<String> = self
            .streams(matchers, start, end)?
            .iter()
            .filter_map(|s| s.labels.get(name).map(str::to_owned))
            .collect();
        Ok(values.into_iter().collect())
    }
}

/// A sender that repeats a batch after a lost answer must not double its spans.
fn in_order_once(s: &mut SpanStream) {
    s.spans.sort_by_key(|s| (s.start, s.span_id.0));
    s.spans.dedup_by_key(|s| s.span_id);
}

/// What a summary needs of a span.
struct SpanFacts<'a> {
    name: &'a str,
    is_root: bool,
    start: i64,
    end: i64,
    error: bool,
}

impl<'a> From<&'a Span> for SpanFacts<'a> {
    fn from(s: &'a Span) -> Self {
        SpanFacts {
            name: &s.name,
            is_root: !s.parent_span_id.is_valid(),
            start: s.start.nanos(),
            end: s.end.nanos(),
            error: matches!(s.status, SpanStatus::Error(_)),
        }
    }
}

fn span_facts(start: i64, mut d: &[u8]) -> Option<SpanFacts<'_>> {
    let d = &mut d;
    let name = std::str::from_utf8(get_bytes(d)?).ok()?;
    take(d, 24)?;
    let is_root = take(d, 8)? == [0; 8];
    take(d, 1)?;
    let end = start.wrapping_add(get_varint(d)?);
    Some(SpanFacts { name, is_root, start, end, error: take(d, 1)? == [2] })
}

/// A summary in the making.
#[derive(Default)]
struct Parts {
    /// Start and end.
    range: Option<(i64, i64)>,
    spans: usize,
    errors: usize,
    services: BTreeMap<String, usize>,
    /// Not a root, start, service, name.
    root: Option<(bool, i64, String, String)>,
}

fn service(labels: &Labels) -> &str {
    labels.get("service_name").unwrap_or("")
}

impl Parts {
    fn add(&mut self, labels: &Labels, start: i64, end: i64, spans: usize, errors: usize) {
        self.range = Some(self.range.map_or((start, end), |(a, b)| (a.min(start), b.max(end))));
        self.spans += spans;
        self.errors += errors;
        *self.services.entry(service(labels).to_owned()).or_default() += spans;
    }

    fn add_root(&mut self, labels: &Labels, is_root: bool, start: i64, name: &str) {
        if self.root.as_ref().is_none_or(|(not, t, ..)| (!is_root, start) < (*not, *t)) {
            self.root = Some((!is_root, start, service(labels).to_owned(), name.to_owned()));
        }
    }

    fn add_span(&mut self, labels: &Labels, s: &SpanFacts<'_>) {
        self.add(labels, s.start, s.end, 1, usize::from(s.error));
        self.add_root(labels, s.is_root, s.start, s.name);
    }

    fn add_entry(&mut self, e: &Entry, index: &Index) {
        let labels = |stream: u32| index.streams.get(stream as usize).map(|(l, _)| l);
        for (stream, spans, errors) in &e.streams {
            if let Some(l) = labels(*stream) {
                self.add(l, e.start, e.end, *spans as usize, *errors as usize);
            }
        }
        if let Some(r) = &e.root
            && let Some(l) = labels(r.stream)
        {
            self.add_root(l, r.is_root, r.start, &r.name);
        }
    }

    fn summary(self, trace_id: TraceId) -> Option<TraceSummary> {
        let (start, end) = self.range?;
        let (_, _, root_service, root_name) = self.root?;
        Some(TraceSummary {
            trace_id,
            root_service,
            root_name,
            start: Timestamp(start),
            duration: u64::try_from(end.saturating_sub(start)).unwrap_or(0),
            spans: self.spans,
            errors: self.errors,
            services: self.services,
        })
    }
}

impl SpanSearch {
    fn search(&self) -> Search {
        let mut s = Search::new(self.matchers.clone(), self.start, self.end);
        s.needles.extend(self.name.clone());
        s
    }

    /// Rows of the block that match.
    fn rows(&self, v: &BlockView<'_>) -> Result<Vec<usize>, Error> {
        let mut rows: Vec<usize> = (0..v.len()).collect();
        if let Some(name) = &self.name {
            keep(&mut rows, |i| Ok(v.text(i)? == name.as_str()))?;
        }
        if self.min_duration.is_some() || self.max_duration.is_some() {
            keep(&mut rows, |i| {
                let d = u64::try_from(v.duration(i)?).unwrap_or(0);
                Ok(self.min_duration.is_none_or(|m| d >= m) && self.max_duration.is_none_or(|m| d <= m))
            })?;
        }
        for (name, value) in &self.attributes {
            if rows.is_empty() {
                break;
            }
            match name.as_str() {
                "status" | "status.code" => {
                    let wanted = value.to_ascii_lowercase();
                    keep(&mut rows, |i| Ok(status_word(v.status(i)?) == wanted))?;
                }
                "error" => keep(&mut rows, |i| Ok((value == "true") == (v.status(i)? == Status::Error)))?,
                "kind" | "span.kind" => {
                    let wanted = value.to_ascii_lowercase();
                    keep(&mut rows, |i| Ok(v.kind(i)?.as_str() == wanted))?;
                }
                "name" => keep(&mut rows, |i| Ok(v.text(i)? == value.as_str()))?,
                "service.name" => {
                    let fits = v.labels().get("service_name") == Some(value);
                    rows.retain(|_| fits);
                }
                name => {
                    let column = v.attribute(name)?;
                    let other = v.resource().get(name).map(ToString::to_string);
                    let other = other.as_deref().or(v.labels().get(name)) == Some(value.as_str());
                    rows.retain(|i| match column.get(*i) {
                        Some(ValueRef::Text(t)) => t == value,
                        Some(found) => found.to_string() == *value,
                        None => other,
                    });
                }
            }
        }
        Ok(rows)
    }
}

fn keep(rows: &mut Vec<usize>, mut test: impl FnMut(usize) -> Result<bool, Error>) -> Result<(), Error> {
    let mut failure = None;
    rows.retain(|i| {
        test(*i).unwrap_or_else(|e| {
            failure.get_or_insert(e);
            false
        })
    });
    failure.map_or(Ok(()), Err)
}

fn status_word(s: Status) -> &'static str {
    match s {
        Status::Unset => "unset",
        Status::Ok => "ok",
        Status::Error => "error",
    }
}
