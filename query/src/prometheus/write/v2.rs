//! Remote write 2.0 (Prometheus: prompb/io/prometheus/write/v2/types.proto): strings are numbers in a table.

use std::collections::BTreeMap;

use signal::{
    Exemplar, HistogramSeries, Labels, METRIC_NAME, Metadata, MetricKind, Sample, StartTimes, TimeSeries,
};

use super::{Decoded, wire};
use crate::error::Failure;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Request {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<Series>,
}

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

#[derive(Clone, PartialEq, prost::Message)]
struct PbMetadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
    #[prost(uint32, tag = "4")]
    unit_ref: u32,
}

/// Labels by their numbers; names and values take turns.
fn labels(refs: &[u32], symbols: &[String]) -> Result<Labels, String> {
    if !refs.len().is_multiple_of(2) {
        return Err(format!("invalid labelRefs length {}", refs.len()));
    }
    let text = |n: u32| {
        let n = n as usize;
        symbols
            .get(n)
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

pub(super) fn decode(raw: &[u8]) -> Result<Decoded, Failure> {
    let request: Request =
        prost::Message::decode(raw).map_err(|e| Failure::Bad(format!("not a remote write request: {e}")))?;
    let symbols = request.symbols.as_slice();
    if symbols.first().is_some_and(|s| !s.is_empty()) {
        return Err(Failure::Bad("the first symbol must be the empty string".to_owned()));
    }
    let mut out = Decoded::default();
    let mut metadata: BTreeMap<String, Metadata> = BTreeMap::new();
    for s in request.timeseries {
        let n = s.samples.len() + s.histograms.len();
        let series = match labels(&s.labels_refs, symbols) {
            Ok(l) if l.get(METRIC_NAME).is_some() => l,
            Ok(l) => {
                out.refuse(n, format!("invalid metric name or labels, got {l}"));
                continue;
            }
            Err(why) => {
                out.refuse(n, format!("parsing labels for series {:?}: {why}", s.labels_refs));
                continue;
            }
        };
        if !s.samples.is_empty() && !s.histograms.is_empty() {
            out.refuse(n, format!("TimeSeries must not have both samples and histograms, got {series}"));
            continue;
        }
        if let Some(m) = &s.metadata {
            let text = |n: u32| symbols.get(n as usize).cloned().unwrap_or_default();
            let (kind, family) = (wire::kind(m.kind), series.metric_name().to_owned());
            let (help, unit) = (text(m.help_ref), text(m.unit_ref));
            if kind != MetricKind::Unknown || !help.is_empty() || !unit.is_empty() {
                metadata.insert(family.clone(), Metadata { family, kind, help, unit });
            }
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
            if let Ok(labels) = labels(&e.labels_refs, symbols) {
                let series = series.clone();
                out.batch.exemplars.push(Exemplar { series, labels, value: e.value, timestamp: e.timestamp });
            }
        }
    }
    out.batch.metadata.extend(metadata.into_values());
    Ok(out)
}
