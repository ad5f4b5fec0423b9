//! OTLP metrics: gauges, cumulative sums, histograms (as classic buckets), exponential histograms (as native ones) and
//! summaries, with start times and exemplars.
//!
//! Delta temporality is refused with a partial success that says so.

mod exponential;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, NumberDataPoint, exemplar, number_data_point,
};
use signal::{
    HistogramSeries, Identity, Labels, LabelsBuilder, METRIC_NAME, Metadata, MetricBatch, MetricKind,
    StartTimes, stale_nan,
};

use super::attribute::attributes;
use super::name::{label_name, metric_name};
use super::{Exported, Receiver, stream_labels};
use crate::metrics::accepted;

/// Bit 0 of a data point's flags: no value was recorded.
const NO_RECORDED_VALUE: u32 = 1;

#[derive(Default)]
struct Converted {
    batch: MetricBatch,
    refused: usize,
    reason: Option<String>,
}

impl Converted {
    fn refuse(&mut self, points: usize, why: &str) {
        self.refused += points;
        self.reason = Some(why.to_owned());
    }

    fn push(
        &mut self,
        base: &LabelsBuilder,
        name: &str,
        attrs: &[KeyValue],
        extra: Option<(&str, String)>,
        nanos: u64,
        value: f64,
    ) {
        self.batch.push(labels(base, name, attrs, extra), millis(nanos), value);
    }

    /// A counter's sample: it has a start, and perhaps examples.
    fn count(&mut self, base: &LabelsBuilder, name: &str, p: &NumberDataPoint, value: f64) {
        let labels = labels(base, name, &p.attributes, None);
        let t = millis(p.time_unix_nano);
        if p.start_time_unix_nano > 0 {
            let times = vec![(t, millis(p.start_time_unix_nano))];
            self.batch.starts.push(StartTimes { labels: labels.clone(), times });
        }
        self.examples(&labels, &p.exemplars);
        self.batch.push(labels, t, value);
    }

    fn examples(&mut self, series: &Labels, exemplars: &[Exemplar]) {
        for e in exemplars {
            let value = match e.value {
                Some(exemplar::Value::AsDouble(v)) => v,
                Some(exemplar::Value::AsInt(v)) => v as f64,
                None => continue,
            };
            let attrs = attributes(&e.filtered_attributes);
            let mut b = LabelsBuilder::default();
            for (n, v) in attrs.iter() {
                b.set(&label_name(n), &v.to_string());
            }
            if e.trace_id.len() == 16 {
                b.set("trace_id", &hex::encode(&e.trace_id));
            }
            if e.span_id.len() == 8 {
                b.set("span_id", &hex::encode(&e.span_id));
            }
            self.batch.exemplars.push(signal::Exemplar {
                series: series.clone(),
                labels: b.build(),
                value,
                timestamp: millis(e.time_unix_nano),
            });
        }
    }
}

fn millis(nanos: u64) -> i64 {
    i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
}

/// A series' labels. What contradicts the platform's word is kept beside it (invariant 9).
fn labels(base: &LabelsBuilder, name: &str, attrs: &[KeyValue], extra: Option<(&str, String)>) -> Labels {
    let mut b = base.clone();
    for (n, v) in attributes(attrs).iter() {
        let n = label_name(n);
        if base.get(&n).is_some() {
            b.set(&format!("exported_{n}"), &v.to_string());
        } else {
            b.set(&n, &v.to_string());
        }
    }
    b.set(METRIC_NAME, name);
    if let Some((n, v)) = extra {
        b.set(n, &v);
    }
    b.build()
}

fn number(p: &NumberDataPoint) -> Option<f64> {
    if p.flags & NO_RECORDED_VALUE != 0 {
        return Some(stale_nan());
    }
    match p.value? {
        number_data_point::Value::AsDouble(v) => Some(v),
        number_data_point::Value::AsInt(v) => Some(v as f64),
    }
}

fn convert(request: &ExportMetricsServiceRequest, identity: &Identity) -> Converted {
    let mut out = Converted::default();
    for resource in &request.resource_metrics {
        let (mut labels, sent) = stream_labels(identity, resource.resource.as_ref());
        let service = labels.get("service_name").unwrap_or_default().to_owned();
        let job = match sent.get_str("service.namespace") {
            Some(ns) => format!("{ns}/{service}"),
            None => service,
        };
        labels.set("job", &job).remove("service_name");
        if let Some(instance) = sent.get_str("service.instance.id") {
            labels.set("instance", instance);
        }
        let mut newest = 0;
        for m in resource.scope_metrics.iter().flat_map(|s| &s.metrics) {
            let Some(data) = &m.data else { continue };
            let cumulative = |t: i32| t == AggregationTemporality::Cumulative as i32;
            let (name, kind) = match data {
                Data::Gauge(g) => {
                    let name = metric_name(&m.name, &m.unit, false);
                    for p in &g.data_points {
                        newest = newest.max(p.time_unix_nano);
                        if let Some(v) = number(p) {
                            out.push(&labels, &name, &p.attributes, None, p.time_unix_nano, v);
                        }
                    }
                    (name, MetricKind::Gauge)
                }
                Data::Sum(s) if cumulative(s.aggregation_temporality) => {
                    let name = metric_name(&m.name, &m.unit, s.is_monotonic);
                    for p in &s.data_points {
                        newest = newest.max(p.time_unix_nano);
                        if let Some(v) = number(p) {
                            out.count(&labels, &name, p, v);
                        }
                    }
                    (name, if s.is_monotonic { MetricKind::Counter } else { MetricKind::Gauge })
                }
                Data::Histogram(h) if cumulative(h.aggregation_temporality) => {
                    let name = metric_name(&m.name, &m.unit, false);
                    for p in &h.data_points {
                        newest = newest.max(p.time_unix_nano);
                        let (t, attrs) = (p.time_unix_nano, p.attributes.as_slice());
                        let mut sum = 0;
                        for (i, n) in p.bucket_counts.iter().enumerate() {
                            sum += n;
                            let le =
                                p.explicit_bounds.get(i).map_or_else(|| "+Inf".to_owned(), f64::to_string);
                            out.push(
                                &labels,
                                &format!("{name}_bucket"),
                                attrs,
                                Some(("le", le)),
                                t,
                                sum as f64,
                            );
                        }
                        out.push(&labels, &format!("{name}_count"), attrs, None, t, p.count as f64);
                        if let Some(s) = p.sum {
                            out.push(&labels, &format!("{name}_sum"), attrs, None, t, s);
                        }
                    }
                    (name, MetricKind::Histogram)
                }
                Data::Summary(s) => {
                    let name = metric_name(&m.name, &m.unit, false);
                    for p in &s.data_points {
                        newest = newest.max(p.time_unix_nano);
                        let (t, attrs) = (p.time_unix_nano, p.attributes.as_slice());
                        for q in &p.quantile_values {
                            let label = Some(("quantile", q.quantile.to_string()));
                            out.push(&labels, &name, attrs, label, t, q.value);
                        }
                        out.push(&labels, &format!("{name}_count"), attrs, None, t, p.count as f64);
                        out.push(&labels, &format!("{name}_sum"), attrs, None, t, p.sum);
                    }
                    (name, MetricKind::Summary)
                }
                Data::Sum(s) => {
                    out.refuse(
                        s.data_points.len(),
                        "sums must be cumulative: delta temporality is not taken yet",
                    );
                    continue;
                }
                Data::Histogram(h) => {
                    out.refuse(
                        h.data_points.len(),
                        "histograms must be cumulative: delta temporality is not taken yet",
                    );
                    continue;
                }
                Data::ExponentialHistogram(h) if cumulative(h.aggregation_temporality) => {
                    let name = metric_name(&m.name, &m.unit, false);
                    for p in &h.data_points {
                        newest = newest.max(p.time_unix_nano);
                        let series = self::labels(&labels, &name, &p.attributes, None);
                        match exponential::sample(p) {
                            Ok(sample) => {
                                out.examples(&series, &p.exemplars);
                                let samples = vec![sample];
                                out.batch.histograms.push(HistogramSeries { labels: series, samples });
                            }
                            Err(why) => out.refuse(1, why),
                        }
                    }
                    (name, MetricKind::Histogram)
                }
                Data::ExponentialHistogram(h) => {
                    out.refuse(
                        h.data_points.len(),
                        "histograms must be cumulative: delta temporality is not taken yet",
                    );
                    continue;
                }
            };
            out.batch.metadata.push(Metadata {
                family: name,
                kind,
                help: m.description.clone(),
                unit: m.unit.clone(),
            });
        }
        if newest > 0 {
            let mut info = labels.clone();
            for (n, v) in sent.iter().filter(|(n, _)| !n.starts_with("service.")) {
                info.set(&label_name(n), &v.to_string());
            }
            let labels = info.set(METRIC_NAME, "target_info").build();
            out.batch.push(labels, i64::try_from(newest / 1_000_000).unwrap_or(i64::MAX), 1.0);
        }
    }
    out
}

impl Receiver {
    pub(super) async fn export_metrics(
        &self,
        r: &ExportMetricsServiceRequest,
        identity: &Identity,
    ) -> Exported {
        let converted = convert(r, identity);
        let n = converted.batch.samples();
        let mut done = self.sink.write_metrics(converted.batch).await?;
        accepted("otlp", "metrics", n.saturating_sub(done.rejected));
        if converted.refused > 0 {
            done.rejected += converted.refused;
            done.reason = converted.reason;
        }
        Ok(done)
    }
}
