//! Samples and series.

use serde::{Deserialize, Serialize};

use crate::{HistogramSample, Labels};

/// Prometheus' stale marker: "this series has ended here". Kept bit-exactly through every codec.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The stale marker as a value.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

#[inline]
pub fn is_stale_nan(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// One measured value. `timestamp` is in milliseconds since the Unix epoch, Prometheus' resolution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub timestamp: i64,
    pub value: f64,
}

/// Samples of one series, in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeSeries {
    /// Includes `__name__`.
    pub labels: Labels,
    pub samples: Vec<Sample>,
}

impl TimeSeries {
    pub fn single(labels: Labels, timestamp: i64, value: f64) -> Self {
        TimeSeries { labels, samples: vec![Sample { timestamp, value }] }
    }
}

/// What kind of metric a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
    Unknown,
}

impl MetricKind {
    /// The word Prometheus uses for it.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::GaugeHistogram => "gaugehistogram",
            MetricKind::Summary => "summary",
            MetricKind::Info => "info",
            MetricKind::StateSet => "stateset",
            MetricKind::Unknown => "unknown",
        }
    }
}

/// What is known of a metric family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub family: String,
    pub kind: MetricKind,
    pub help: String,
    pub unit: String,
}

/// Native histograms of one series, in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSeries {
    pub labels: Labels,
    pub samples: Vec<HistogramSample>,
}

/// When the counting behind float samples began: `(timestamp of the sample, start)`, both in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct StartTimes {
    pub labels: Labels,
    pub times: Vec<(i64, i64)>,
}

/// An example behind a series: one observation, and the trace it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// The series it belongs to.
    pub series: Labels,
    /// Its own labels, such as `trace_id`.
    pub labels: Labels,
    pub value: f64,
    /// Milliseconds.
    pub timestamp: i64,
}

/// What one scrape, one request or one tick brings.
#[derive(Clone, Debug, Default)]
pub struct MetricBatch {
    pub series: Vec<TimeSeries>,
    pub metadata: Vec<Metadata>,
    /// Apart from the floats, so that those stay narrow.
    pub histograms: Vec<HistogramSeries>,
    pub starts: Vec<StartTimes>,
    pub exemplars: Vec<Exemplar>,
}

impl MetricBatch {
    pub fn samples(&self) -> usize {
        self.series.iter().map(|s| s.samples.len()).sum::<usize>()
            + self.histograms.iter().map(|s| s.samples.len()).sum::<usize>()
    }

    pub fn push(&mut self, labels: Labels, timestamp: i64, value: f64) {
        self.series.push(TimeSeries::single(labels, timestamp, value));
    }
}
