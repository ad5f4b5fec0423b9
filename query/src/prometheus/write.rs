//! Remote write 1.0 (Prometheus: prompb/remote.proto).

use axum::extract::{Request, State};
use axum::response::Response;
use signal::{Labels, Metadata, MetricBatch, MetricKind, Sample, TimeSeries};

use super::{fail, no_content};
use crate::App;
use crate::error::Failure;
use crate::params::body;
use crate::scope::Scope;

#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
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
    samples: Vec<PbSample>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbLabel {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PbSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
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

pub(super) async fn write(State(app): State<App>, scope: Scope, req: Request) -> Result<Response, Response> {
    if !scope.may_write() {
        return Err(fail(Failure::Forbidden("only cluster-wide writers may use remote write".to_owned())));
    }
    let packed = body(req, app.config.body_bytes).await.map_err(fail)?;
    let batch = decode(&packed, app.config.unpacked_bytes).map_err(fail)?;
    let done = app.engines.sink.write_metrics(batch).await.map_err(|e| fail(e.into()))?;
    match done.reason {
        // Prometheus' senders drop what gets a 400 and must not send it again.
        Some(reason) if done.rejected > 0 => {
            Err(fail(Failure::Bad(format!("{} samples refused: {reason}", done.rejected))))
        }
        _ => Ok(no_content()),
    }
}

fn decode(packed: &[u8], limit: usize) -> Result<MetricBatch, Failure> {
    let raw = unpack(packed, limit)?;
    let request: WriteRequest = prost::Message::decode(raw.as_slice())
        .map_err(|e| Failure::Bad(format!("not a remote write request: {e}")))?;
    let series = request.timeseries.into_iter().map(|s| TimeSeries {
        labels: Labels::from_pairs(s.labels.iter().map(|l| (&l.name, &l.value))),
        samples: s.samples.iter().map(|p| Sample { timestamp: p.timestamp, value: p.value }).collect(),
    });
    let metadata = request.metadata.into_iter().map(|m| Metadata {
        family: m.family,
        kind: match m.kind {
            1 => MetricKind::Counter,
            2 => MetricKind::Gauge,
            3 => MetricKind::Histogram,
            4 => MetricKind::GaugeHistogram,
            5 => MetricKind::Summary,
            6 => MetricKind::Info,
            7 => MetricKind::StateSet,
            _ => MetricKind::Unknown,
        },
        help: m.help,
        unit: m.unit,
    });
    Ok(MetricBatch { series: series.collect(), metadata: metadata.collect() })
}

/// Snappy's block format; the length it claims is looked at before anything is unpacked.
pub(crate) fn unpack(packed: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
    let bad = |e: snap::Error| Failure::Bad(format!("not snappy: {e}"));
    let len = snap::raw::decompress_len(packed).map_err(bad)?;
    if len > limit {
        return Err(Failure::TooLarge(format!("{len} bytes unpacked, the limit is {limit}")));
    }
    snap::raw::Decoder::new().decompress_vec(packed).map_err(bad)
}
