//! Remote write 1.0 (Prometheus: prompb/remote.proto).

use signal::{Exemplar, HistogramSeries, Labels, METRIC_NAME, Metadata, Sample, TimeSeries};

use super::{Decoded, wire};
use crate::error::Failure;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<PbSeries>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<PbMetadata>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<PbLabel>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<wire::Sample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<PbExemplar>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<wire::Histogram>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbLabel {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbExemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<PbLabel>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbMetadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    family: String,
    #[prost(string, tag = "4")]
    help: String,
    #[prost(string, tag = "5")]
    unit: String,
}

fn labels(all: &[PbLabel]) -> Labels {
    Labels::from_pairs(all.iter().map(|l| (&l.name, &l.value)))
}

pub(super) fn decode(raw: &[u8]) -> Result<Decoded, Failure> {
    let request: WriteRequest =
        prost::Message::decode(raw).map_err(|e| Failure::Bad(format!("not a remote write request: {e}")))?;
    let mut out = Decoded::default();
    for s in request.timeseries {
        let series = labels(&s.labels);
        let n = s.samples.len() + s.histograms.len();
        if series.get(METRIC_NAME).is_none() || series.len() != s.labels.len() {
            out.refuse(n, format!("invalid labels: {series}"));
            continue;
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
        out.batch.exemplars.extend(s.exemplars.iter().map(|e| Exemplar {
            series: series.clone(),
            labels: labels(&e.labels),
            value: e.value,
            timestamp: e.timestamp,
        }));
    }
    out.batch.metadata.extend(request.metadata.into_iter().map(|m| Metadata {
        family: m.family,
        kind: wire::kind(m.kind),
        help: m.help,
        unit: m.unit,
    }));
    Ok(out)
}
