//! Exponential histograms as native ones: the same buckets, counted from another end.

use std::sync::Arc;

use opentelemetry_proto::tonic::metrics::v1::ExponentialHistogramDataPoint;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use signal::histogram::Bucket;
use signal::{FloatHistogram, HistogramSample};

use super::millis;
use super::number::recorded;

/// A zero bucket must be wider than nothing to be told from one that is not there (Prometheus' default).
const ZERO_THRESHOLD: f64 = 1e-128;

/// SDKs have 160 by default.
const MOST_BUCKETS: usize = 10_000;

/// Bucket `i` here ends where bucket `i + 1` there does.
fn side(b: Option<&Buckets>) -> Vec<Bucket> {
    let Some(b) = b else { return Vec::new() };
    let first = b.offset.saturating_add(1);
    let all = (first..).zip(&b.bucket_counts).map(|(index, n)| Bucket { index, count: *n as f64 });
    all.filter(|b| b.count > 0.0).collect()
}

pub(super) fn native(p: &ExponentialHistogramDataPoint) -> Result<HistogramSample, &'static str> {
    let (timestamp, start) = (millis(p.time_unix_nano), millis(p.start_time_unix_nano));
    if !recorded(p.flags) {
        return Ok(HistogramSample { timestamp, start, histogram: Arc::new(FloatHistogram::stale()) });
    }
    if p.scale < -4 {
        return Err("exponential histograms need a scale of at least -4");
    }
    let mut h = FloatHistogram {
        schema: p.scale,
        zero_threshold: if p.zero_threshold > 0.0 { p.zero_threshold } else { ZERO_THRESHOLD },
        zero_count: p.zero_count as f64,
        count: p.count as f64,
        sum: p.sum.unwrap_or(0.0),
        positive: side(p.positive.as_ref()),
        negative: side(p.negative.as_ref()),
        ..FloatHistogram::default()
    };
    if h.positive.len() + h.negative.len() > MOST_BUCKETS {
        return Err("an exponential histogram has more than 10,000 buckets with observations");
    }
    h.reduce(8);
    Ok(HistogramSample { timestamp, start, histogram: Arc::new(h) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_end_at_the_same_values() {
        let buckets = Buckets { offset: -1, bucket_counts: vec![1, 0, 2] };
        let p = ExponentialHistogramDataPoint {
            scale: 1,
            count: 4,
            sum: Some(6.0),
            zero_count: 1,
            positive: Some(buckets),
            time_unix_nano: 5_000_000_000,
            start_time_unix_nano: 1_000_000_000,
            ..ExponentialHistogramDataPoint::default()
        };
        let s = native(&p).expect("converts");
        assert_eq!((s.timestamp, s.start), (5000, 1000));
        let h = &s.histogram;
        assert_eq!(h.positive, [Bucket { index: 0, count: 1.0 }, Bucket { index: 2, count: 2.0 }]);
        let last = h.above().last().expect("is there");
        assert_eq!((last.lower, last.upper), (std::f64::consts::SQRT_2, 2.0));
        h.validate().expect("is sound");
        let fine = ExponentialHistogramDataPoint { scale: 10, ..p.clone() };
        assert_eq!(native(&fine).expect("converts").histogram.schema, 8);
        assert!(native(&ExponentialHistogramDataPoint { scale: -5, ..p }).is_err());
    }
}
