//! What stages work on.

use signal::TraceId;

pub(crate) const ERROR: &str = "__error__";
pub(crate) const ERROR_DETAILS: &str = "__error_details__";
/// A label that lets an error through a metric query.
pub(crate) const PRESERVE_ERROR: &str = "__preserve_error__";

/// Where a label came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Stream,
    /// The record's own attributes: what Loki calls structured metadata.
    Record,
    Parsed,
}

pub(crate) struct State {
    pub(crate) line: String,
    pub(crate) labels: Vec<(String, String, Origin)>,
    /// What `unwrap` read.
    pub(crate) value: Option<f64>,
    pub(crate) trace: TraceId,
}

impl State {
    pub(crate) fn new(line: String, trace: TraceId) -> Self {
        State { line, labels: Vec::new(), value: None, trace }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _, _)| n == name).map(|(_, v, _)| v.as_str())
    }

    pub(crate) fn set(&mut self, name: &str, value: String, origin: Origin) {
        match self.labels.iter_mut().find(|(n, _, _)| n == name) {
            Some(l) => (l.1, l.2) = (value, origin),
            None => self.labels.push((name.to_owned(), value, origin)),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.labels.retain(|(n, _, _)| n != name);
    }

    /// What a stage could not do is said in labels, so that a filter on them can drop or keep the line.
    pub(crate) fn fail(&mut self, error: &str, details: &str) {
        self.set(ERROR, error.to_owned(), Origin::Parsed);
        self.set(ERROR_DETAILS, details.to_owned(), Origin::Parsed);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.get(ERROR).is_some_and(|e| !e.is_empty())
    }

    /// A field read out of the line never takes a stream label's place.
    pub(crate) fn set_parsed(&mut self, name: &str, value: String) {
        let taken = self.labels.iter().any(|(n, _, o)| n == name && *o == Origin::Stream);
        if taken {
            self.set(&format!("{name}_extracted"), value, Origin::Parsed)
        } else {
            self.set(name, value, Origin::Parsed)
        }
    }
}

/// Labels that `keep` keeps whatever it is told.
pub(crate) fn is_special(name: &str) -> bool {
    matches!(name, ERROR | ERROR_DETAILS | PRESERVE_ERROR)
}
