//! A log query applied to one record at a time.

pub(crate) mod literal;
mod stage;
mod state;

use log_index::Search;
use signal::{Labels, LogRecord, MatchOp, Matcher, Timestamp, TraceId};

use crate::ast::{Condition, LinePattern, LogExpr, Stage};
use crate::fields;
use state::{ERROR, Origin, PRESERVE_ERROR, State};

/// A log query, ready to run.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub(crate) log: LogExpr,
}

/// A record that came through.
#[derive(Clone, Debug, PartialEq)]
pub struct Processed {
    pub line: String,
    /// The stream's labels, then what the record knows of itself, then what was read out of the line.
    pub labels: Labels,
}

/// A record that came through, as a sample of a metric query.
pub(crate) struct Sample {
    /// What makes the series.
    pub(crate) labels: Labels,
    /// What `unwrap` read, else the bytes of the line.
    pub(crate) value: f64,
    /// What a stage could not do, and nobody filtered out.
    pub(crate) error: Option<String>,
}

impl Pipeline {
    pub(crate) fn new(log: LogExpr) -> Self {
        Pipeline { log }
    }

    /// The stream selector.
    pub fn matchers(&self) -> &[Matcher] {
        &self.log.matchers
    }

    /// Whether nothing follows the selector.
    pub fn is_selector(&self) -> bool {
        self.log.stages.is_empty()
    }

    pub(crate) fn unwraps(&self) -> bool {
        self.log.stages.iter().any(|s| matches!(s, Stage::Unwrap { .. }))
    }

    /// Whether nothing but filters on the line follows the selector.
    pub(crate) fn filters_only(&self) -> bool {
        self.log.stages.iter().all(|s| matches!(s, Stage::Line { .. }))
    }

    /// Whether the search itself does all that the query asks: its stages are substrings, and none is a trace's id.
    pub(crate) fn search_suffices(&self) -> bool {
        self.log.stages.iter().all(|s| match s {
            Stage::Line { negate: false, any } => {
                matches!(any.as_slice(), [LinePattern::Contains(n)] if trace(n).is_none())
            }
            _ => false,
        })
    }

    /// What of the query the index can use: substrings every line must have, and a trace id.
    pub(crate) fn search(&self, enforce: &[Matcher], start: Timestamp, end: Timestamp) -> Search {
        let mut matchers = self.log.matchers.clone();
        matchers.extend(enforce.iter().cloned());
        let mut s = Search::new(matchers, start, end);
        for stage in &self.log.stages {
            match stage {
                Stage::Line { negate: false, any } => {
                    if let [LinePattern::Contains(needle)] = any.as_slice()
                        && !needle.is_empty()
                    {
                        match trace(needle) {
                            Some(id) if s.trace_id.is_none_or(|t| t == id) => s.trace_id = Some(id),
                            Some(_) => {}
                            None => s.needles.push(needle.clone()),
                        }
                    } else {
                        s.any.extend(literal::needs(any));
                        s.folded.extend(literal::folded(any));
                    }
                }
                Stage::Label(Condition::Match(m))
                    if m.op == MatchOp::Equal
                        && matches!(m.name.as_str(), "trace_id" | "traceID" | "trace_id_extracted")
                        && s.trace_id.is_none() =>
                {
                    s.trace_id = m.value.parse().ok().filter(TraceId::is_valid);
                }
                // From here on the line, or what is called trace_id, is no longer the record's.
                Stage::LineFormat(_) | Stage::LabelFormat(_) | Stage::Decolorize | Stage::Unpack => break,
                _ => {}
            }
        }
        s
    }

    /// What a record becomes, or `None` if a filter stops it.
    pub fn apply(&self, stream: &Labels, record: &LogRecord) -> Option<Processed> {
        let state = self.run(stream, record)?;
        let labels = Labels::from_pairs(state.labels.iter().map(|(n, v, _)| (n, v)));
        Some(Processed { line: state.line, labels })
    }

    /// What a record is worth in a metric query. A series has the stream's labels and those read out of the line;
    /// of the record's own only those the query names, or every trace would be a series.
    pub(crate) fn sample(&self, stream: &Labels, record: &LogRecord, names: &[String]) -> Option<Sample> {
        let state = self.run(stream, record)?;
        let value = match (self.unwraps(), state.value) {
            (false, _) => state.line.len() as f64,
            (true, Some(v)) => v,
            // There is nothing to unwrap, and that is no error.
            (true, None) if state.get(ERROR).is_none() => return None,
            (true, None) => 0.0,
        };
        let preserve = state.get(PRESERVE_ERROR) == Some("true");
        let error = state.get(ERROR).filter(|e| !e.is_empty() && !preserve).map(str::to_owned);
        let labels = state.labels.iter().filter(|(n, _, o)| {
            n != PRESERVE_ERROR && (*o != Origin::Record || names.iter().any(|x| x == n))
        });
        Some(Sample { labels: Labels::from_pairs(labels.map(|(n, v, _)| (n, v))), value, error })
    }

    /// Line filters come first in most queries and need no labels: how many stood there, if all let the line through.
    pub(crate) fn line_filters(&self, line: &str, id: TraceId) -> Option<usize> {
        let mut passed = 0;
        for s in &self.log.stages {
            let Stage::Line { negate, any } = s else { break };
            if !stage::line_passes(*negate, any, line, id) {
                return None;
            }
            passed += 1;
        }
        Some(passed)
    }

    fn run(&self, stream: &Labels, record: &LogRecord) -> Option<State> {
        let skip = self.line_filters(&record.body, record.trace_id)?;
        let mut state = State::new(record.body.clone(), record.trace_id);
        state.labels.extend(stream.iter().map(|(n, v)| (n.to_owned(), v.to_owned(), Origin::Stream)));
        for (n, v) in record.attributes.iter() {
            let n = fields::name(n);
            if stream.get(&n).is_none() {
                state.set(&n, v.to_string(), Origin::Record);
            }
        }
        if record.severity.0 != 0 {
            state.set("detected_level", record.severity.as_str().to_owned(), Origin::Record);
            if state.get("level").is_none() {
                state.set("level", record.severity.as_str().to_owned(), Origin::Record);
            }
        }
        if record.trace_id.is_valid() {
            state.set("trace_id", record.trace_id.to_string(), Origin::Record);
        }
        if record.span_id.is_valid() {
            state.set("span_id", record.span_id.to_string(), Origin::Record);
        }
        for stage in self.log.stages.iter().skip(skip) {
            if !stage.apply(&mut state, record.timestamp) {
                return None;
            }
        }
        Some(state)
    }
}

/// The trace that a text is the id of: such a text finds the trace's records, too.
pub(crate) fn trace(text: &str) -> Option<TraceId> {
    let is_id = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    is_id.then(|| text.parse().ok()).flatten().filter(TraceId::is_valid)
}

#[cfg(test)]
mod tests;
