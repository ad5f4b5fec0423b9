//! Reads expositions: the text formats in [`text`] and [`series`], and [`protobuf`].
//!
//! A scraper reads OpenMetrics as Prometheus does: what a line must look like is held to, what a family must be like is
//! not, since one odd family would cost all the others. [`Format::Strict`] holds to all of it.

pub(crate) mod protobuf;
pub(crate) mod series;
mod strict;
pub(crate) mod text;

use std::collections::HashMap;
use std::sync::Arc;

use signal::{FloatHistogram, Metadata, MetricKind};

pub use protobuf::parse as parse_protobuf;
pub use text::Format;
use text::{Item, Reader, Word};

/// One line's sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// Includes `__name__`; in the order written.
    pub labels: Vec<(String, String)>,
    pub value: f64,
    /// Milliseconds, if the line has a timestamp.
    pub timestamp: Option<i64>,
    /// When counting began, in milliseconds; 0 if that is not said.
    pub start: i64,
    /// An example behind the sample.
    pub example: Option<Box<Example>>,
}

/// One observation, as an example of those behind a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    pub labels: Vec<(String, String)>,
    pub value: f64,
    /// Milliseconds, if it has a time.
    pub timestamp: Option<i64>,
}

/// A native histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Native {
    /// Includes `__name__`.
    pub labels: Vec<(String, String)>,
    pub timestamp: Option<i64>,
    pub start: i64,
    pub histogram: Arc<FloatHistogram>,
    pub examples: Vec<Example>,
}

/// What an exposition holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    pub samples: Vec<Parsed>,
    pub metadata: Vec<Metadata>,
    /// Only the protobuf format has them.
    pub histograms: Vec<Native>,
}

/// A line that cannot be read.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    pub what: &'static str,
}

/// Reads a whole exposition.
pub fn parse(text: &str, format: Format) -> Result<Exposition, ParseError> {
    let strict = format == Format::Strict;
    let mut out = Exposition::default();
    let mut families: HashMap<String, usize> = HashMap::new();
    let mut rules = strict::Rules::default();
    let mut reader = Reader::new(text, format);
    while let Some(item) = reader.next() {
        let line = reader.line();
        let fail = |what| ParseError { line, what };
        match item? {
            Item::Sample(s) => {
                let mut labels = Vec::with_capacity(8);
                series::read(s.series, !format.is_text(), &mut labels).map_err(fail)?;
                if strict {
                    if s.series.ends_with(",}") {
                        return Err(fail("a comma stands before a closing brace"));
                    }
                    rules.sample(&labels, &s).map_err(fail)?;
                }
                let example = match s.example {
                    Some(text) => Some(Box::new(text::example(text, true).map_err(fail)?)),
                    None => None,
                };
                out.samples.push(Parsed {
                    labels,
                    value: s.value,
                    timestamp: s.timestamp,
                    start: 0,
                    example,
                });
            }
            Item::About { word, family, text } => {
                if strict {
                    rules.about(word, &family, text).map_err(fail)?;
                }
                let at = *families.entry(family.into_owned()).or_insert_with_key(|family| {
                    out.metadata.push(unknown(family));
                    out.metadata.len() - 1
                });
                describe(&mut out.metadata[at], word, text, format).map_err(fail)?;
            }
        }
    }
    rules.finish().map_err(|what| ParseError { line: reader.line(), what })?;
    Ok(out)
}

/// The samples of a whole exposition, one after the other; an error ends it. What stands about families is passed over.
pub fn samples(text: &str, format: Format) -> impl Iterator<Item = Result<Parsed, ParseError>> + '_ {
    let mut reader = Reader::new(text, format);
    std::iter::from_fn(move || {
        loop {
            let s = match reader.next()? {
                Ok(Item::Sample(s)) => s,
                Ok(Item::About { .. }) => continue,
                Err(e) => return Some(Err(e)),
            };
            let line = reader.line();
            let read = || {
                let mut labels = Vec::with_capacity(8);
                series::read(s.series, !format.is_text(), &mut labels)?;
                let example = match s.example {
                    Some(text) => Some(Box::new(text::example(text, true)?)),
                    None => None,
                };
                Ok(Parsed { labels, value: s.value, timestamp: s.timestamp, start: 0, example })
            };
            return Some(read().map_err(|what| ParseError { line, what }));
        }
    })
}

/// A family of which nothing is known yet.
pub(crate) fn unknown(family: &str) -> Metadata {
    Metadata {
        family: family.to_owned(),
        kind: MetricKind::Unknown,
        help: String::new(),
        unit: String::new(),
    }
}

/// Adds what a line says about a family.
pub(crate) fn describe(
    to: &mut Metadata,
    word: Word,
    text: &str,
    format: Format,
) -> Result<(), &'static str> {
    match word {
        Word::Help => to.help = series::unescape(text),
        Word::Unit => text.clone_into(&mut to.unit),
        Word::Type => {
            to.kind = match strict::kind(text) {
                Some(kind) => kind,
                None if format.is_text() => MetricKind::Unknown,
                None => return Err("not a type"),
            };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
