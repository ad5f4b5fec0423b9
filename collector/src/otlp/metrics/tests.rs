//! Requests as senders build them, and what is stored of them.

use std::sync::Arc;

use async_trait::async_trait;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, ScopeMetrics, Sum,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use parking_lot::Mutex;
use signal::{Accepted, LogBatch, Sink, SinkError, SpanBatch};

use super::*;

const DELTA: i32 = AggregationTemporality::Delta as i32;
const SECOND: u64 = 1_000_000_000;

/// Keeps what it is given; refuses as long as it is told to.
fn nobody() -> super::Peer {
    super::Peer::new(Arc::default(), false)
}

#[derive(Default)]
struct Store {
    batches: Mutex<Vec<MetricBatch>>,
    is_full: Mutex<bool>,
}

#[async_trait]
impl Sink for Store {
    async fn write_metrics(&self, batch: MetricBatch) -> Result<Accepted, SinkError> {
        if *self.is_full.lock() {
            return Err(SinkError::Storage("full".to_owned()));
        }
        let accepted = batch.samples();
        self.batches.lock().push(batch);
        Ok(Accepted { accepted, ..Accepted::default() })
    }

    async fn write_logs(&self, _: LogBatch) -> Result<Accepted, SinkError> {
        Ok(Accepted::default())
    }

    async fn write_spans(&self, _: SpanBatch) -> Result<Accepted, SinkError> {
        Ok(Accepted::default())
    }
}

fn receiver(translation: Translation) -> (Arc<Store>, Receiver) {
    let store = Arc::new(Store::default());
    let clock = signal::time::system_clock();
    let r = Receiver::new(
        store.clone(),
        crate::Senders::new(Arc::default(), signal::Identity::default(), Vec::new()),
        translation,
        clock,
    );
    (store, r)
}

fn pair(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn request(metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let attributes = vec![
        pair("service.name", "shop"),
        pair("service.namespace", "eu"),
        pair("service.instance.id", "one"),
        pair("host.arch", "arm64"),
    ];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }],
    }
}

fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric { name: name.to_owned(), unit: unit.to_owned(), data: Some(data), ..Metric::default() }
}

fn sum(temporality: i32, points: &[(u64, u64, f64)]) -> Data {
    let data_points = points
        .iter()
        .map(|(start, end, v)| NumberDataPoint {
            start_time_unix_nano: start * SECOND,
            time_unix_nano: end * SECOND,
            value: Some(number_data_point::Value::AsDouble(*v)),
            ..NumberDataPoint::default()
        })
        .collect();
    Data::Sum(Sum { data_points, aggregation_temporality: temporality, is_monotonic: true })
}

/// All samples stored, as `series value@milliseconds`.
fn stored(store: &Store) -> Vec<String> {
    let mut out = Vec::new();
    for batch in store.batches.lock().drain(..) {
        for s in batch.series {
            out.extend(s.samples.iter().map(|x| format!("{} {}@{}", s.labels, x.value, x.timestamp)));
        }
        for s in batch.histograms {
            out.extend(s.samples.iter().map(|x| format!("{} {}@{}", s.labels, x.histogram, x.timestamp)));
        }
    }
    out
}

#[tokio::test]
async fn deltas_become_totals() {
    let (store, r) = receiver(Translation::default());
    let id = nobody();
    let first = request(vec![metric("jobs", "1", sum(DELTA, &[(0, 10, 2.0), (10, 20, 3.0)]))]);
    r.export_metrics(&first, &id).await.expect("stored");
    let series = "jobs_total{instance=\"one\", job=\"eu/shop\"}";
    let got = stored(&store);
    assert_eq!(got[..2], [format!("{series} 2@10000"), format!("{series} 5@20000")]);
    assert_eq!(got[2], "target_info{host_arch=\"arm64\", instance=\"one\", job=\"eu/shop\"} 1@10000");

    // What was not stored may be sent again.
    let next = request(vec![metric("jobs", "1", sum(DELTA, &[(20, 30, 4.0)]))]);
    *store.is_full.lock() = true;
    r.export_metrics(&next, &id).await.expect_err("the store is full");
    *store.is_full.lock() = false;
    r.export_metrics(&next, &id).await.expect("stored");
    assert_eq!(stored(&store)[0], format!("{series} 9@30000"));

    // What was stored may not: the sender is told, and the rest of its request is taken.
    let mut again = next.clone();
    let more = metric("other", "s", sum(DELTA, &[(20, 30, 1.0)]));
    again.resource_metrics[0].scope_metrics[0].metrics.push(more);
    let done = r.export_metrics(&again, &id).await.expect("stored");
    assert_eq!(done.rejected, 1);
    assert!(done.reason.is_some_and(|r| r.contains("out of order")));
    assert_eq!(stored(&store)[0], "other_seconds_total{instance=\"one\", job=\"eu/shop\"} 1@30000");
}

#[tokio::test]
async fn histograms_of_deltas_become_totals() {
    let (store, r) = receiver(Translation::default());
    let id = nobody();
    let explicit = |start: u64, end: u64| {
        let point = HistogramDataPoint {
            start_time_unix_nano: start * SECOND,
            time_unix_nano: end * SECOND,
            count: 3,
            sum: Some(4.5),
            bucket_counts: vec![1, 2],
            explicit_bounds: vec![0.5],
            ..HistogramDataPoint::default()
        };
        metric(
            "h",
            "",
            Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: DELTA }),
        )
    };
    let exponential = |start: u64, end: u64, scale: i32| {
        let buckets = Buckets { offset: 0, bucket_counts: vec![1, 1] };
        let point = ExponentialHistogramDataPoint {
            start_time_unix_nano: start * SECOND,
            time_unix_nano: end * SECOND,
            count: 2,
            sum: Some(3.0),
            scale,
            positive: Some(buckets),
            ..ExponentialHistogramDataPoint::default()
        };
        let h = ExponentialHistogram { data_points: vec![point], aggregation_temporality: DELTA };
        metric("e", "", Data::ExponentialHistogram(h))
    };
    r.export_metrics(&request(vec![explicit(0, 10), exponential(0, 10, 1)]), &id).await.expect("stored");
    stored(&store);
    // The finer one is merged down to the coarser.
    r.export_metrics(&request(vec![explicit(10, 20), exponential(10, 20, 0)]), &id).await.expect("stored");
    let got = stored(&store);
    let labels = "instance=\"one\", job=\"eu/shop\"";
    let expect = [
        format!("h_bucket{{{labels}, le=\"0.5\"}} 2@20000"),
        format!("h_bucket{{{labels}, le=\"+Inf\"}} 6@20000"),
        format!("h_count{{{labels}}} 6@20000"),
        format!("h_sum{{{labels}}} 9@20000"),
    ];
    assert_eq!(got[..4], expect);
    let native = got.last().expect("a histogram");
    assert_eq!(*native, format!("e{{{labels}}} {{count:4, sum:6, (1,2]:3, (2,4]:1}}@20000"));
}

#[tokio::test]
async fn names_that_become_one_have_both_values() {
    let point = NumberDataPoint {
        attributes: vec![pair("a_b", "2"), pair("a.b", "1"), pair("job", "theirs")],
        time_unix_nano: SECOND,
        value: Some(number_data_point::Value::AsInt(7)),
        ..NumberDataPoint::default()
    };
    let m = || metric("g.x", "1", Data::Gauge(Gauge { data_points: vec![point.clone()] }));
    let (store, r) = receiver(Translation::default());
    r.export_metrics(&request(vec![m()]), &nobody()).await.expect("stored");
    assert_eq!(
        stored(&store)[0],
        "g_x_ratio{a_b=\"1;2\", exported_job=\"theirs\", instance=\"one\", job=\"eu/shop\"} 7@1000"
    );
    let (store, r) = receiver(Translation::NoTranslation);
    r.export_metrics(&request(vec![m()]), &nobody()).await.expect("stored");
    assert!(stored(&store)[0].starts_with("g.x{a.b=\"1\", a_b=\"2\""));
}

#[tokio::test]
async fn who_says_no_temporality_is_told() {
    let (_, r) = receiver(Translation::default());
    let m = metric("x", "", sum(0, &[(0, 1, 1.0), (1, 2, 1.0)]));
    let done = r.export_metrics(&request(vec![m]), &nobody()).await.expect("taken");
    assert_eq!((done.rejected, done.reason.as_deref()), (2, Some("a metric has no aggregation temporality")));
}
