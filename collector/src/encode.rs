//! Our batches as OTLP messages: for forwarding, and for logs of our own that hold batches. The identity that a sender
//! got here travels as resource attributes `binnacle.label.<name>`, so that another Binnacle gives it back.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1 as logs_v1;
use opentelemetry_proto::tonic::metrics::v1 as metrics_v1;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as trace_v1;
use signal::{AttributeValue, Attributes, Labels, LogBatch, MetricBatch, SpanBatch, SpanStatus};

/// Labels that resources carry.
pub(crate) const LABEL: &str = "binnacle.label.";

fn key_value(name: &str, value: &AttributeValue) -> KeyValue {
    let value = match value {
        AttributeValue::Bool(b) => Value::BoolValue(*b),
        AttributeValue::Int(n) => Value::IntValue(*n),
        AttributeValue::Double(n) => Value::DoubleValue(*n),
        AttributeValue::String(s) => Value::StringValue(s.clone()),
    };
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn pairs(a: &Attributes) -> Vec<KeyValue> {
    a.iter().map(|(n, v)| key_value(n, v)).collect()
}

/// OpenTelemetry's names for what labels say, and the labels themselves.
fn resource(labels: &Labels, sent: &Attributes) -> Resource {
    let mut attributes = pairs(sent);
    let known = |a: &[KeyValue], n: &str| a.iter().any(|k| k.key == n);
    for (label, name) in [
        ("service_name", "service.name"),
        ("namespace", "k8s.namespace.name"),
        ("pod", "k8s.pod.name"),
        ("container", "k8s.container.name"),
        ("node", "k8s.node.name"),
    ] {
        if let Some(value) = labels.get(label)
            && !known(&attributes, name)
        {
            attributes.push(key_value(name, &value.into()));
        }
    }
    attributes.extend(labels.iter().map(|(n, v)| key_value(&format!("{LABEL}{n}"), &v.into())));
    Resource { attributes, ..Resource::default() }
}

pub(crate) fn logs(batch: &LogBatch) -> ExportLogsServiceRequest {
    let streams = batch.streams.iter().map(|s| {
        let records = s.records.iter().map(|r| {
            let time = u64::try_from(r.timestamp.nanos()).unwrap_or(0);
            logs_v1::LogRecord {
                time_unix_nano: time,
                observed_time_unix_nano: time,
                severity_number: i32::from(r.severity.0),
                severity_text: if r.severity.0 == 0 {
                    String::new()
                } else {
                    r.severity.as_str().to_uppercase()
                },
                body: Some(AnyValue { value: Some(Value::StringValue(r.body.clone())) }),
                attributes: pairs(&r.attributes),
                trace_id: if r.trace_id.is_valid() { r.trace_id.0.to_vec() } else { Vec::new() },
                span_id: if r.span_id.is_valid() { r.span_id.0.to_vec() } else { Vec::new() },
                ..logs_v1::LogRecord::default()
            }
        });
        logs_v1::ResourceLogs {
            resource: Some(resource(&s.labels, &Attributes::default())),
            scope_logs: vec![logs_v1::ScopeLogs {
                log_records: records.collect(),
                ..logs_v1::ScopeLogs::default()
            }],
            ..logs_v1::ResourceLogs::default()
        }
    });
    ExportLogsServiceRequest { resource_logs: streams.collect() }
}

pub(crate) fn traces(batch: &SpanBatch) -> ExportTraceServiceRequest {
    let nanos = |t: signal::Timestamp| u64::try_from(t.nanos()).unwrap_or(0);
    let span = |s: &signal::Span| {
        let (code, message) = match &s.status {
            SpanStatus::Unset => (0, String::new()),
            SpanStatus::Ok => (1, String::new()),
            SpanStatus::Error(m) => (2, m.clone()),
        };
        trace_v1::Span {
            trace_id: s.trace_id.0.to_vec(),
            span_id: s.span_id.0.to_vec(),
            parent_span_id: if s.parent_span_id.is_valid() {
                s.parent_span_id.0.to_vec()
            } else {
                Vec::new()
            },
            name: s.name.clone(),
            kind: s.kind as i32,
            start_time_unix_nano: nanos(s.start),
            end_time_unix_nano: nanos(s.end),
            attributes: pairs(&s.attributes),
            events: s
                .events
                .iter()
                .map(|e| trace_v1::span::Event {
                    time_unix_nano: nanos(e.timestamp),
                    name: e.name.clone(),
                    attributes: pairs(&e.attributes),
                    ..trace_v1::span::Event::default()
                })
                .collect(),
            links: s
                .links
                .iter()
                .map(|l| trace_v1::span::Link {
                    trace_id: l.trace_id.0.to_vec(),
                    span_id: l.span_id.0.to_vec(),
                    attributes: pairs(&l.attributes),
                    ..trace_v1::span::Link::default()
                })
                .collect(),
            status: Some(trace_v1::Status { code, message }),
            ..trace_v1::Span::default()
        }
    };
    let streams = batch.streams.iter().map(|s| trace_v1::ResourceSpans {
        resource: Some(resource(&s.labels, &s.resource)),
        scope_spans: vec![trace_v1::ScopeSpans {
            spans: s.spans.iter().map(span).collect(),
            ..trace_v1::ScopeSpans::default()
        }],
        ..trace_v1::ResourceSpans::default()
    });
    ExportTraceServiceRequest { resource_spans: streams.collect() }
}

/// Float samples as gauges under their own names: counters keep the names that Prometheus gives them. Job and instance
/// travel as their resource's service. Histograms of the native kind, exemplars and metadata are left out.
pub(crate) fn metrics(batch: &MetricBatch) -> ExportMetricsServiceRequest {
    let mut by_target: BTreeMap<(&str, &str), Vec<metrics_v1::Metric>> = BTreeMap::new();
    for s in &batch.series {
        let of_resource = [signal::METRIC_NAME, "job", "instance"];
        let attributes: Vec<KeyValue> = s
            .labels
            .iter()
            .filter(|(n, _)| !of_resource.contains(n))
            .map(|(n, v)| key_value(n, &v.into()))
            .collect();
        let points = s.samples.iter().map(|p| metrics_v1::NumberDataPoint {
            attributes: attributes.clone(),
            time_unix_nano: u64::try_from(p.timestamp).unwrap_or(0).saturating_mul(1_000_000),
            // The point's flag for "this series has ended here".
            flags: u32::from(signal::is_stale_nan(p.value)),
            value: (!signal::is_stale_nan(p.value))
                .then_some(metrics_v1::number_data_point::Value::AsDouble(p.value)),
            ..metrics_v1::NumberDataPoint::default()
        });
        let target = (s.labels.get("job").unwrap_or_default(), s.labels.get("instance").unwrap_or_default());
        by_target.entry(target).or_default().push(metrics_v1::Metric {
            name: s.labels.metric_name().to_owned(),
            data: Some(metrics_v1::metric::Data::Gauge(metrics_v1::Gauge { data_points: points.collect() })),
            ..metrics_v1::Metric::default()
        });
    }
    let resources = by_target.into_iter().map(|((job, instance), metrics)| {
        let mut attributes = Vec::new();
        for (name, value) in [("service.name", job), ("service.instance.id", instance)] {
            if !value.is_empty() {
                attributes.push(key_value(name, &value.into()));
            }
        }
        metrics_v1::ResourceMetrics {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_metrics: vec![metrics_v1::ScopeMetrics { metrics, ..metrics_v1::ScopeMetrics::default() }],
            ..metrics_v1::ResourceMetrics::default()
        }
    });
    ExportMetricsServiceRequest { resource_metrics: resources.collect() }
}
