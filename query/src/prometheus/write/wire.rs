//! The parts that both versions' messages share (Prometheus: prompb/types.proto).

use signal::histogram::{CUSTOM_SCHEMA, ResetHint, Span};
use signal::{FloatHistogram, HistogramSample, MetricKind};

#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct Label {
    #[prost(string, tag = "1")]
    pub(in super::super) name: String,
    #[prost(string, tag = "2")]
    pub(in super::super) value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct Sample {
    #[prost(double, tag = "1")]
    pub(in super::super) value: f64,
    #[prost(int64, tag = "2")]
    pub(in super::super) timestamp: i64,
    /// Version 2 only.
    #[prost(int64, tag = "3")]
    pub(in super::super) start_timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(in super::super) struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    pub(super) count_int: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) count_float: Option<f64>,
    #[prost(double, tag = "3")]
    pub(super) sum: f64,
    #[prost(sint32, tag = "4")]
    pub(super) schema: i32,
    #[prost(double, tag = "5")]
    pub(super) zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    pub(super) zero_count_int: Option<u64>,
    #[prost(double, optional, tag = "7")]
    pub(super) zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "8")]
    pub(super) negative_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "9")]
    pub(super) negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    pub(super) negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    pub(super) positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    pub(super) positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    pub(super) positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    pub(super) reset_hint: i32,
    #[prost(int64, tag = "15")]
    pub(super) timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    pub(super) custom_values: Vec<f64>,
    /// Version 2 only.
    #[prost(int64, tag = "17")]
    pub(super) start_timestamp: i64,
}

impl Histogram {
    /// `None` if spans and counts do not fit each other.
    pub(super) fn sample(&self) -> Option<HistogramSample> {
        let side = |spans: &[BucketSpan], deltas: &[i64], counts: &[f64]| {
            let spans: Vec<Span> = spans.iter().map(|s| (s.offset, s.length)).collect();
            if counts.is_empty() {
                FloatHistogram::from_deltas(&spans, deltas)
            } else {
                FloatHistogram::from_spans(&spans, counts.iter().copied())
            }
        };
        let mut h = FloatHistogram {
            hint: match self.reset_hint {
                1 => ResetHint::Reset,
                2 => ResetHint::NotReset,
                3 => ResetHint::Gauge,
                _ => ResetHint::Unknown,
            },
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count_float.unwrap_or(self.zero_count_int.unwrap_or(0) as f64),
            count: self.count_float.unwrap_or(self.count_int.unwrap_or(0) as f64),
            sum: self.sum,
            positive: side(&self.positive_spans, &self.positive_deltas, &self.positive_counts)?,
            negative: side(&self.negative_spans, &self.negative_deltas, &self.negative_counts)?,
            bounds: self.custom_values.as_slice().into(),
        };
        // Schemas above 8 are reserved: they hold more than we need and are merged down.
        if h.schema > 8 && h.schema != CUSTOM_SCHEMA {
            h.reduce(8);
        }
        let (timestamp, start) = (self.timestamp, self.start_timestamp);
        Some(HistogramSample { timestamp, start, histogram: h.into() })
    }
}

pub(super) fn kind(n: i32) -> MetricKind {
    match n {
        1 => MetricKind::Counter,
        2 => MetricKind::Gauge,
        3 => MetricKind::Histogram,
        4 => MetricKind::GaugeHistogram,
        5 => MetricKind::Summary,
        6 => MetricKind::Info,
        7 => MetricKind::StateSet,
        _ => MetricKind::Unknown,
    }
}
