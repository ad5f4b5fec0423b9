//! Remote write 2.0 (Prometheus: prompb/io/prometheus/write/v2/types.proto): strings are numbers in a table.

use std::collections::{BTreeMap, HashSet};

use signal::{
    Exemplar, HistogramSeries, Labels, METRIC_NAME, Metadata, MetricKind, Sample, StartTimes, TimeSeries,
};

use super::fields::{Fields, Value};
use super::{Decoded, wire};
use crate::error::Failure;

#[derive(Clone, PartialEq, prost::Message)]
struct Series {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<wire::Sample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<wire::Histogram>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<PbExemplar>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<PbMetadata>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbExemplar {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
struct PbMetadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
    #[prost(uint32, tag = "4")]
    unit_ref: u32,
}

/// Labels by their numbers; names and values take turns.
fn labels(refs: &[u32], symbols: &[&str]) -> Result<Labels, String> {
    if !refs.len().is_multiple_of(2) {
        return Err(format!("invalid labelRefs length {}", refs.len()));
    }
    let text = |n: u32| {
        let n = n as usize;
        symbols
            .get(n)
            .copied()
            .ok_or_else(|| format!("labelRefs {n} outside of symbols table (size {})", symbols.len()))
    };
    let mut pairs = Vec::with_capacity(refs.len() / 2);
    for pair in refs.chunks_exact(2) {
        pairs.push((text(pair[0])?, text(pair[1])?));
    }
    let out = Labels::from_pairs(pairs.iter().copied());
    let given = pairs.iter().filter(|(_, v)| !v.is_empty()).count();
    if out.len() == given { Ok(out) } else { Err(format!("duplicate label in {out}")) }
}

/// A request whose series are, most of them, known: floats in columns under a key made of those of the symbols.
#[derive(Debug, Default)]
pub(super) struct Request<'a> {
    pub(super) columns: tsdb::Columns,
    /// The references of each of the columns' series, as they stand in the request.
    names: Vec<&'a [u8]>,
    symbols: Vec<&'a str>,
    keys: Vec<tsdb::Key>,
    metadata: BTreeMap<String, Metadata>,
    /// What was told of a metric last, by the numbers of its name, help and unit: most series repeat it.
    told: HashSet<(u32, PbMetadata)>,
    /// Everything else, and what was wrong.
    pub(super) rest: Decoded,
}

/// References of a packed field. `None`: they are none.
fn refs(mut b: &[u8]) -> Option<Vec<u32>> {
    let mut out = Vec::with_capacity(b.len());
    while let Some(n) = reference(&mut b) {
        out.push(n);
    }
    b.is_empty().then_some(out)
}

#[inline]
fn reference(b: &mut &[u8]) -> Option<u32> {
    let mut n = 0u32;
    for i in 0..5 {
        let (&byte, rest) = b.split_first()?;
        *b = rest;
        n |= u32::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

impl<'a> Request<'a> {
    /// What the labels of one of the columns' series say.
    pub(super) fn labels(&self, at: usize) -> Result<Labels, String> {
        let refs = self.names.get(at).and_then(|b| refs(b)).ok_or("malformed labelRefs")?;
        named(&refs, &self.symbols)
    }

    /// A series of nothing but labels, floats without start times, and metadata, as nearly all are. Leaves everything
    /// as it was if it is another.
    fn plain(&mut self, raw: &'a [u8], scratch: &mut Vec<u8>) -> Option<()> {
        let before = self.columns.samples.len();
        let taken = self.plain_parts(raw, scratch);
        if taken.is_none() {
            self.columns.samples.truncate(before);
        }
        let (name, metadata) = taken?;
        let n = self.columns.samples.len() - before;
        if let Some(m) = metadata {
            self.tell(name, &m);
        }
        if n > 0 {
            self.columns.series.push((tsdb::Key::of(scratch), n as u32));
            self.names.push(name);
        }
        Some(())
    }

    /// The references, whose symbols' keys are then in `scratch`, and the metadata.
    fn plain_parts(
        &mut self,
        raw: &'a [u8],
        scratch: &mut Vec<u8>,
    ) -> Option<(&'a [u8], Option<PbMetadata>)> {
        scratch.clear();
        let (mut name, mut metadata) = (&[][..], None);
        let mut fields = Fields::new(raw);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(b)) if name.is_empty() => {
                    let mut rest = b;
                    while !rest.is_empty() {
                        let n = reference(&mut rest)?;
                        scratch.extend_from_slice(&self.keys.get(n as usize)?.to_bytes());
                    }
                    name = b;
                }
                (2, Value::Bytes(b)) => self.columns.samples.push(super::v1::plain_sample(b)?),
                (5, Value::Bytes(b)) => metadata = Some(prost::Message::decode(b).ok()?),
                _ => return None,
            }
        }
        (!name.is_empty()).then_some((name, metadata))
    }

    fn tell(&mut self, name: &[u8], m: &PbMetadata) {
        let all = refs(name).unwrap_or_default();
        let pair = all.chunks_exact(2).find(|p| self.symbols.get(p[0] as usize) == Some(&METRIC_NAME));
        let Some(number) = pair.map(|p| p[1]) else { return };
        if self.told.contains(&(number, m.clone())) {
            return;
        }
        if let Some(family) = self.symbols.get(number as usize) {
            let family = (*family).to_owned();
            self.told.insert((number, m.clone()));
            self.keep(family, m);
        }
    }

    fn keep(&mut self, family: String, m: &PbMetadata) {
        let text = |n: u32| self.symbols.get(n as usize).map_or_else(String::new, |s| (*s).to_owned());
        let (kind, help, unit) = (wire::kind(m.kind), text(m.help_ref), text(m.unit_ref));
        if kind != MetricKind::Unknown || !help.is_empty() || !unit.is_empty() {
            self.metadata.insert(family.clone(), Metadata { family, kind, help, unit });
        }
    }

    /// Any series.
    fn take(&mut self, s: Series) {
        let n = s.samples.len() + s.histograms.len();
        let out = &mut self.rest;
        let series = match named(&s.labels_refs, &self.symbols) {
            Ok(l) => l,
            Err(why) => return out.refuse(n, why),
        };
        if !s.samples.is_empty() && !s.histograms.is_empty() {
            return out
                .refuse(n, format!("TimeSeries must not have both samples and histograms, got {series}"));
        }
        if s.samples.iter().any(|p| p.start_timestamp != 0) {
            let times = s.samples.iter().map(|p| (p.timestamp, p.start_timestamp)).collect();
            out.batch.starts.push(StartTimes { labels: series.clone(), times });
        }
        if !s.samples.is_empty() {
            let samples = s.samples.iter().map(|p| Sample { timestamp: p.timestamp, value: p.value });
            out.batch.series.push(TimeSeries { labels: series.clone(), samples: samples.collect() });
        }
        let histograms: Vec<_> = s.histograms.iter().filter_map(wire::Histogram::sample).collect();
        if histograms.len() < s.histograms.len() {
            out.refuse(s.histograms.len() - histograms.len(), "spans and buckets do not fit".to_owned());
        }
        if !histograms.is_empty() {
            out.batch.histograms.push(HistogramSeries { labels: series.clone(), samples: histograms });
        }
        for e in &s.exemplars {
            // Exemplars are examples: a bad one costs nobody a sample.
            if let Ok(labels) = labels(&e.labels_refs, &self.symbols) {
                let series = series.clone();
                out.batch.exemplars.push(Exemplar { series, labels, value: e.value, timestamp: e.timestamp });
            }
        }
        if let Some(m) = &s.metadata {
            self.keep(series.metric_name().to_owned(), m);
        }
    }
}

/// Labels of a series, which must have a name.
fn named(refs: &[u32], symbols: &[&str]) -> Result<Labels, String> {
    match labels(refs, symbols) {
        Ok(l) if l.get(METRIC_NAME).is_some() => Ok(l),
        Ok(l) => Err(format!("invalid metric name or labels, got {l}")),
        Err(why) => Err(format!("parsing labels for series {refs:?}: {why}")),
    }
}

fn read<'a>(raw: &'a [u8]) -> Option<Request<'a>> {
    let mut out = Request::default();
    let mut all: Vec<&'a [u8]> = Vec::new();
    let mut fields = Fields::new(raw);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (4, Value::Bytes(b)) => {
                out.symbols.push(std::str::from_utf8(b).ok()?);
                out.keys.push(tsdb::Key::of(b));
            }
            (5, Value::Bytes(b)) => all.push(b),
            (4 | 5, _) => return None,
            _ => {}
        }
    }
    let mut scratch = Vec::new();
    for raw in all {
        if out.plain(raw, &mut scratch).is_none() {
            out.take(prost::Message::decode(raw).ok()?);
        }
    }
    let metadata = std::mem::take(&mut out.metadata);
    out.rest.batch.metadata.extend(metadata.into_values());
    Some(out)
}

pub(super) fn decode(raw: &[u8]) -> Result<Request<'_>, Failure> {
    let request =
        read(raw).ok_or_else(|| Failure::Bad("not a remote write request: malformed protobuf".to_owned()))?;
    if request.symbols.first().is_some_and(|s| !s.is_empty()) {
        return Err(Failure::Bad("the first symbol must be the empty string".to_owned()));
    }
    Ok(request)
}
