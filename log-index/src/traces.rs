//! Spans: a trace by its id, spans by what they are, and what a trace looks like in one line.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use signal::{Attributes, Labels, Matcher, Span, SpanStatus, SpanStream, Timestamp, TraceId};

use crate::codec::decode_span;
use crate::db::LogIndex;
use crate::error::Error;
use crate::search::Search;

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
        let mut out: Vec<SpanStream> = Vec::new();
        self.visit(&s, |c, _| {
            let spans =
                c.rows.iter().filter_map(|r| decode_span(r.time, &r.data)).filter(|s| s.trace_id == id);
            let spans: Vec<Span> = spans.collect();
            if !spans.is_empty() {
                match out.iter_mut().find(|o| o.labels == *c.labels && o.resource == *c.resource) {
                    Some(o) => o.spans.extend(spans),
                    None => {
                        out.push(SpanStream { labels: c.labels.clone(), resource: c.resource.clone(), spans })
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        for o in &mut out {
            o.spans.sort_by_key(|s| (s.start, s.span_id.0));
            // A sender that repeats a batch after a lost answer must not double its spans.
            o.spans.dedup_by_key(|s| s.span_id);
        }
        Ok(out)
    }

    /// Every span that matches, newest blocks first, until `each` breaks.
    pub fn scan_spans(
        &self,
        q: &SpanSearch,
        mut each: impl FnMut(&Labels, &Attributes, Span) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut s = Search::new(q.matchers.clone(), q.start, q.end);
        s.needles.extend(q.name.clone());
        self.visit(&s, |c, _| {
            for r in c.rows.iter().rev() {
                let Some(span) = decode_span(r.time, &r.data) else { continue };
                if q.fits(c.labels, c.resource, &span) {
                    each(c.labels, c.resource, span)?;
                }
            }
            ControlFlow::Continue(())
        })
    }

    /// Summaries of the newest traces with a span that matches.
    pub fn search_traces(&self, q: &SpanSearch, limit: usize) -> Result<Vec<TraceSummary>, Error> {
        let mut ids: BTreeMap<TraceId, Timestamp> = BTreeMap::new();
        self.scan_spans(q, |_, _, span| {
            let newest = ids.entry(span.trace_id).or_insert(span.start);
            *newest = (*newest).max(span.start);
            // Some more than wanted, because blocks are only nearly in order of time.
            if ids.len() >= limit.saturating_mul(2).max(64) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let mut newest: Vec<(TraceId, Timestamp)> = ids.into_iter().collect();
        newest.sort_by_key(|(_, t)| std::cmp::Reverse(*t));
        newest.truncate(limit);
        let mut out = Vec::new();
        for (id, _) in newest {
            // Only streams that the caller may see count, or a summary would tell of others.
            let scope: Vec<Matcher> = q.matchers.iter().filter(|m| m.name == "namespace").cloned().collect();
            out.extend(summarize(id, &self.trace(id, &scope)?));
        }
        Ok(out)
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

impl SpanSearch {
    fn fits(&self, labels: &Labels, resource: &Attributes, s: &Span) -> bool {
        let duration = u64::try_from(s.end.since(s.start).as_nanos()).unwrap_or(u64::MAX);
        self.name.as_ref().is_none_or(|n| s.name == *n)
            && self.min_duration.is_none_or(|d| duration >= d)
            && self.max_duration.is_none_or(|d| duration <= d)
            && self.attributes.iter().all(|(name, value)| match name.as_str() {
                "status" | "status.code" => status_word(&s.status) == value.to_ascii_lowercase(),
                "error" => (value == "true") == matches!(s.status, SpanStatus::Error(_)),
                "kind" | "span.kind" => s.kind.as_str() == value.to_ascii_lowercase(),
                "name" => s.name == *value,
                "service.name" => labels.get("service_name") == Some(value),
                name => {
                    let at = s.attributes.get(name).or(resource.get(name));
                    at.map(ToString::to_string).as_deref().or(labels.get(name)) == Some(value.as_str())
                }
            })
    }
}

fn status_word(s: &SpanStatus) -> &'static str {
    match s {
        SpanStatus::Unset => "unset",
        SpanStatus::Ok => "ok",
        SpanStatus::Error(_) => "error",
    }
}

/// `None` if there are no spans.
pub(crate) fn summarize(trace_id: TraceId, streams: &[SpanStream]) -> Option<TraceSummary> {
    let all = || streams.iter().flat_map(|s| s.spans.iter().map(move |span| (s, span)));
    let start = all().map(|(_, s)| s.start).min()?;
    let end = all().map(|(_, s)| s.end).max()?;
    let (stream, root) = all().min_by_key(|(_, s)| (s.parent_span_id.is_valid(), s.start))?;
    let mut services: BTreeMap<String, usize> = BTreeMap::new();
    for (s, _) in all() {
        *services.entry(s.labels.get("service_name").unwrap_or("").to_owned()).or_default() += 1;
    }
    Some(TraceSummary {
        trace_id,
        root_service: stream.labels.get("service_name").unwrap_or("").to_owned(),
        root_name: root.name.clone(),
        start,
        duration: u64::try_from(end.since(start).as_nanos()).unwrap_or(u64::MAX),
        spans: all().count(),
        errors: all().filter(|(_, s)| matches!(s.status, SpanStatus::Error(_))).count(),
        services,
    })
}
