//! OTLP metrics: gauges, sums, histograms (as classic buckets), exponential histograms (as native ones) and summaries, with
//! start times and exemplars. Delta temporality is added up ([`delta`]).

pub(super) mod delta;
mod exponential;
mod number;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    SummaryDataPoint, exemplar,
};
use signal::{
    HistogramSample, HistogramSeries, Labels, LabelsBuilder, METRIC_NAME, Metadata, MetricBatch, MetricKind,
    StartTimes, stale_nan,
};

use self::delta::{Changes, Delta, Total};
use self::exponential::native;
use self::number::{number, recorded};
use super::attribute::attributes;
use super::name::{Kind, Translation, unit_name};
use super::{Exported, Peer, Receiver, stream_labels};
use crate::metrics::{accepted, refused};

/// Half of what an instant query looks back: so that `target_info` is found wherever a sample is.
const TARGET_INFO_EVERY: i64 = 150_000;
/// OpenMetrics 1.0: all names and values of an exemplar together.
const EXEMPLAR_CHARACTERS: usize = 128;

/// One request on its way.
struct Converter<'a, 'b> {
    translation: Translation,
    deltas: &'a mut Changes<'b>,
    batch: MetricBatch,
    refused: usize,
    reason: Option<String>,
    /// Of the resource's points, in milliseconds.
    range: Option<(i64, i64)>,
}

/// How one metric's points are taken.
struct Family {
    name: String,
    is_delta: bool,
}

fn millis(nanos: u64) -> i64 {
    i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX)
}

impl Converter<'_, '_> {
    fn refuse(&mut self, points: usize, why: &str) {
        self.refused += points;
        self.reason.get_or_insert_with(|| why.to_owned());
    }

    fn resource(&mut self, r: &ResourceMetrics, identity: &Peer) {
        let (mut base, sent) = stream_labels(identity, r.resource.as_ref());
        let service = base.get("service_name").unwrap_or_default().to_owned();
        let job = match sent.get_str("service.namespace") {
            Some(ns) => format!("{ns}/{service}"),
            None => service,
        };
        base.set("job", &job).remove("service_name");
        if let Some(instance) = sent.get_str("service.instance.id") {
            base.set("instance", instance);
        }
        self.range = None;
        for m in r.scope_metrics.iter().flat_map(|s| &s.metrics) {
            self.metric(&base, m);
        }
        let Some((first, last)) = self.range else { return };
        let about: Vec<(String, String)> = sent
            .iter()
            .filter(|(n, _)| !matches!(*n, "service.name" | "service.namespace" | "service.instance.id"))
            .map(|(n, v)| (n.to_owned(), v.to_string()))
            .collect();
        if about.is_empty() {
            // It would say nothing that the series do not say.
            return;
        }
        let labels = self.join(&base, about, "target_info", None);
        let mut t = first;
        while t < last {
            self.batch.push(labels.clone(), t, 1.0);
            t += TARGET_INFO_EVERY;
            // A request that spans days has its own end only.
            if last - first > TARGET_INFO_EVERY * 100 {
                break;
            }
        }
        self.batch.push(labels, last, 1.0);
    }

    fn metric(&mut self, base: &LabelsBuilder, m: &Metric) {
        let Some(data) = &m.data else { return };
        let (points, temporality, kind, in_name) = match data {
            Data::Gauge(g) => (g.data_points.len(), None, MetricKind::Gauge, Kind::Gauge),
            Data::Sum(s) if s.is_monotonic => {
                (s.data_points.len(), Some(s.aggregation_temporality), MetricKind::Counter, Kind::Counter)
            }
            Data::Sum(s) => {
                (s.data_points.len(), Some(s.aggregation_temporality), MetricKind::Gauge, Kind::Other)
            }
            Data::Histogram(h) => {
                (h.data_points.len(), Some(h.aggregation_temporality), MetricKind::Histogram, Kind::Other)
            }
            Data::ExponentialHistogram(h) => {
                (h.data_points.len(), Some(h.aggregation_temporality), MetricKind::Histogram, Kind::Other)
            }
            Data::Summary(s) => (s.data_points.len(), None, MetricKind::Summary, Kind::Other),
        };
        let is_delta = temporality == Some(AggregationTemporality::Delta as i32);
        if !is_delta && temporality.is_some_and(|t| t != AggregationTemporality::Cumulative as i32) {
            return self.refuse(points, "a metric has no aggregation temporality");
        }
        let name = self.translation.metric_name(&m.name, &m.unit, in_name);
        if name.is_empty() {
            return self.refuse(points, "a metric has no name, or none that can be kept");
        }
        let family = Family { name, is_delta };
        match data {
            Data::Gauge(g) => g.data_points.iter().for_each(|p| self.number(base, &family, p)),
            Data::Sum(s) => s.data_points.iter().for_each(|p| self.number(base, &family, p)),
            Data::Histogram(h) => h.data_points.iter().for_each(|p| self.histogram(base, &family, p)),
            Data::ExponentialHistogram(h) => {
                for p in &h.data_points {
                    match native(p) {
                        Ok(sample) => self.exponential(base, &family, p, sample),
                        Err(why) => self.refuse(1, why),
                    }
                }
            }
            Data::Summary(s) => s.data_points.iter().for_each(|p| self.summary(base, &family, p)),
        }
        self.batch.metadata.push(Metadata {
            family: family.name,
            kind,
            help: m.description.clone(),
            unit: unit_name(&m.unit),
        });
    }

    /// A series' labels. What contradicts the platform's word is kept beside it (invariant 9).
    fn labels(
        &self,
        base: &LabelsBuilder,
        attrs: &[KeyValue],
        name: &str,
        extra: Option<(&str, &str)>,
    ) -> Labels {
        let attrs = attributes(attrs).0.into_iter().map(|(n, v)| (n, v.to_string())).collect();
        self.join(base, attrs, name, extra)
    }

    fn join(
        &self,
        base: &LabelsBuilder,
        mut attrs: Vec<(String, String)>,
        name: &str,
        extra: Option<(&str, &str)>,
    ) -> Labels {
        // So that names that become one have their values in the same order each time.
        attrs.sort();
        let mut b = base.clone();
        for (n, v) in attrs {
            let mut n = self.translation.label_name(&n);
            if n == METRIC_NAME {
                continue;
            }
            if base.get(&n).is_some() {
                n = format!("exported_{n}");
            }
            let joined = b.get(&n).map(|before| format!("{before};{v}"));
            b.set(&n, joined.as_deref().unwrap_or(&v));
        }
        b.set(METRIC_NAME, name);
        if let Some((n, v)) = extra {
            b.set(n, v);
        }
        b.build()
    }

    fn push(&mut self, labels: Labels, timestamp: i64, start: u64, value: f64) {
        let (first, last) = self.range.unwrap_or((timestamp, timestamp));
        self.range = Some((first.min(timestamp), last.max(timestamp)));
        if start > 0 {
            let times = vec![(timestamp, millis(start))];
            self.batch.starts.push(StartTimes { labels: labels.clone(), times });
        }
        self.batch.push(labels, timestamp, value);
    }

    /// The point as a total: itself, or what its stream comes to. `None` if it was refused.
    fn total(&mut self, f: &Family, series: &Labels, point: Delta) -> Option<(Total, u64)> {
        if !f.is_delta {
            return Some((point.value, point.start));
        }
        match self.deltas.add(series, point) {
            Ok(done) => Some(done),
            Err(why) => {
                refused("otlp", "delta");
                self.refuse(1, why);
                None
            }
        }
    }

    fn number(&mut self, base: &LabelsBuilder, f: &Family, p: &NumberDataPoint) {
        let labels = self.labels(base, &p.attributes, &f.name, None);
        let t = millis(p.time_unix_nano);
        if !recorded(p.flags) {
            return self.push(labels, t, 0, stale_nan());
        }
        let Some(value) = number(p) else { return };
        let point =
            Delta { start: p.start_time_unix_nano, end: p.time_unix_nano, value: Total::Number(value) };
        let Some((Total::Number(value), start)) = self.total(f, &labels, point) else { return };
        self.examples(&labels, &p.exemplars);
        self.push(labels, t, start, value);
    }

    fn histogram(&mut self, base: &LabelsBuilder, f: &Family, p: &HistogramDataPoint) {
        let t = millis(p.time_unix_nano);
        let whole = self.labels(base, &p.attributes, &f.name, None);
        let value = Total::Explicit {
            bounds: p.explicit_bounds.clone(),
            counts: p.bucket_counts.iter().map(|n| *n as f64).collect(),
            count: p.count as f64,
            sum: p.sum,
        };
        let point = Delta { start: p.start_time_unix_nano, end: p.time_unix_nano, value };
        let is_recorded = recorded(p.flags);
        let total = if is_recorded { self.total(f, &whole, point) } else { Some((point.value, 0)) };
        let Some((Total::Explicit { bounds, counts, count, sum }, start)) = total else { return };
        let said = |v: f64| if is_recorded { v } else { stale_nan() };
        let named = |suffix: &str, le: Option<&str>| {
            let mut b = whole.builder();
            b.set(METRIC_NAME, &format!("{}{suffix}", f.name));
            le.map(|le| b.set("le", le));
            b.build()
        };
        // Both stand in ascending order: each example goes to the bucket that counts it.
        let mut examples: Vec<&Exemplar> = p.exemplars.iter().collect();
        examples.sort_by(|a, b| f64::total_cmp(&example_value(a), &example_value(b)));
        let mut examples = examples.into_iter().peekable();
        let mut so_far = 0.0;
        for (bound, n) in bounds.iter().zip(&counts) {
            so_far += n;
            let series = named("_bucket", Some(&bound.to_string()));
            while let Some(e) = examples.next_if(|e| example_value(e) <= *bound) {
                self.examples(&series, std::slice::from_ref(e));
            }
            self.push(series, t, start, said(so_far));
        }
        let series = named("_bucket", Some("+Inf"));
        for e in examples {
            self.examples(&series, std::slice::from_ref(e));
        }
        self.push(series, t, start, said(count));
        self.push(named("_count", None), t, start, said(count));
        if let Some(sum) = sum {
            self.push(named("_sum", None), t, start, said(sum));
        }
    }

    fn exponential(
        &mut self,
        base: &LabelsBuilder,
        f: &Family,
        p: &opentelemetry_proto::tonic::metrics::v1::ExponentialHistogramDataPoint,
        sample: HistogramSample,
    ) {
        let labels = self.labels(base, &p.attributes, &f.name, None);
        let (mut histogram, mut start) = (sample.histogram, p.start_time_unix_nano);
        if recorded(p.flags) {
            let point = Delta { start, end: p.time_unix_nano, value: Total::Native(histogram) };
            let Some((Total::Native(total), began)) = self.total(f, &labels, point) else { return };
            (histogram, start) = (total, began);
        }
        let t = sample.timestamp;
        let (first, last) = self.range.unwrap_or((t, t));
        self.range = Some((first.min(t), last.max(t)));
        self.examples(&labels, &p.exemplars);
        let sample = HistogramSample { timestamp: t, start: millis(start), histogram };
        self.batch.histograms.push(HistogramSeries { labels, samples: vec![sample] });
    }

    fn summary(&mut self, base: &LabelsBuilder, f: &Family, p: &SummaryDataPoint) {
        let (t, start) = (millis(p.time_unix_nano), p.start_time_unix_nano);
        let said = |v: f64| if recorded(p.flags) { v } else { stale_nan() };
        for q in &p.quantile_values {
            let quantile = q.quantile.to_string();
            let labels = self.labels(base, &p.attributes, &f.name, Some(("quantile", &quantile)));
            self.push(labels, t, start, said(q.value));
        }
        for (suffix, value) in [("_count", p.count as f64), ("_sum", p.sum)] {
            let labels = self.labels(base, &p.attributes, &format!("{}{suffix}", f.name), None);
            self.push(labels, t, start, said(value));
        }
    }

    fn examples(&mut self, series: &Labels, exemplars: &[Exemplar]) {
        for e in exemplars {
            let value = example_value(e);
            if e.value.is_none() {
                continue;
            }
            let mut b = LabelsBuilder::default();
            if e.trace_id.len() == 16 {
                b.set("trace_id", &hex::encode(&e.trace_id));
            }
            if e.span_id.len() == 8 {
                b.set("span_id", &hex::encode(&e.span_id));
            }
            let trace = b.build();
            for (n, v) in attributes(&e.filtered_attributes).iter() {
                b.set(&self.translation.label_name(n), &v.to_string());
            }
            let all = b.build();
            let characters: usize = all.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
            self.batch.exemplars.push(signal::Exemplar {
                series: series.clone(),
                // The trace is what it is for: the rest goes first.
                labels: if characters > EXEMPLAR_CHARACTERS { trace } else { all },
                value,
                timestamp: millis(e.time_unix_nano),
            });
        }
    }
}

fn example_value(e: &Exemplar) -> f64 {
    match e.value {
        Some(exemplar::Value::AsDouble(v)) => v,
        Some(exemplar::Value::AsInt(v)) => v as f64,
        None => f64::NAN,
    }
}

impl Receiver {
    pub(super) async fn export_metrics(&self, r: &ExportMetricsServiceRequest, identity: &Peer) -> Exported {
        // Held until the samples are stored: two requests of one stream must not add to the same total.
        let mut streams = self.deltas.lock().await;
        let mut changes = streams.begin(self.clock.now());
        let mut c = Converter {
            translation: self.translation,
            deltas: &mut changes,
            batch: MetricBatch::default(),
            refused: 0,
            reason: None,
            range: None,
        };
        for resource in &r.resource_metrics {
            c.resource(resource, identity);
        }
        let Converter { batch, refused, reason, .. } = c;
        let n = batch.samples();
        let mut done;
        if changes.is_empty() {
            drop(changes);
            drop(streams);
            done = self.sink.write_metrics(batch).await?;
        } else {
            done = self.sink.write_metrics(batch).await?;
            changes.commit();
        }
        accepted("otlp", "metrics", n.saturating_sub(done.rejected));
        if refused > 0 {
            done.rejected += refused;
            done.reason = reason.or(done.reason);
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests;
