//! The protobuf exposition: length-delimited `MetricFamily` messages (prometheus/client_model, metrics.proto), the one
//! format that carries native histograms. Classic buckets beside them are kept too.

use prost::Message;
use signal::histogram::Span;
use signal::{FloatHistogram, METRIC_NAME, Metadata, MetricKind};

use super::{Example, Exposition, Native, Parsed};

#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, optional, tag = "5")]
    unit: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Counter>,
    #[prost(message, optional, tag = "4")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "5")]
    untyped: Option<Number>,
    #[prost(int64, optional, tag = "6")]
    timestamp_ms: Option<i64>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct LabelPair {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Counter {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
    #[prost(message, optional, tag = "2")]
    exemplar: Option<Exemplar>,
    #[prost(message, optional, tag = "3")]
    created: Option<Time>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(uint64, optional, tag = "1")]
    count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    quantile: Vec<Quantile>,
    #[prost(message, optional, tag = "4")]
    created: Option<Time>,
}

#[derive(Clone, PartialEq, Message)]
struct Quantile {
    #[prost(double, optional, tag = "1")]
    quantile: Option<f64>,
    #[prost(double, optional, tag = "2")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(double, optional, tag = "4")]
    count_float: Option<f64>,
    #[prost(sint32, optional, tag = "5")]
    schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    zero_count: Option<u64>,
    #[prost(double, optional, tag = "8")]
    zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "9")]
    negative_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "10")]
    negative_delta: Vec<i64>,
    #[prost(double, repeated, packed = "false", tag = "11")]
    negative_count: Vec<f64>,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, packed = "false", tag = "13")]
    positive_delta: Vec<i64>,
    #[prost(double, repeated, packed = "false", tag = "14")]
    positive_count: Vec<f64>,
    #[prost(message, optional, tag = "15")]
    created: Option<Time>,
    #[prost(message, repeated, tag = "16")]
    exemplars: Vec<Exemplar>,
}

#[derive(Clone, PartialEq, Message)]
struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    upper_bound: Option<f64>,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<Exemplar>,
    #[prost(double, optional, tag = "4")]
    count_float: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, optional, tag = "1")]
    offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    length: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(double, optional, tag = "2")]
    value: Option<f64>,
    #[prost(message, optional, tag = "3")]
    time: Option<Time>,
}

/// `google.protobuf.Timestamp`
#[derive(Clone, PartialEq, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Time {
    fn millis(&self) -> i64 {
        self.seconds.saturating_mul(1000).saturating_add(i64::from(self.nanos) / 1_000_000)
    }
}

/// Reads a whole exposition. The error says what is wrong with it.
pub fn parse(mut data: &[u8]) -> Result<Exposition, String> {
    let mut out = Exposition::default();
    while !data.is_empty() {
        let family = MetricFamily::decode_length_delimited(&mut data).map_err(|e| e.to_string())?;
        read_family(family, &mut out)?;
    }
    Ok(out)
}

fn pairs(labels: Vec<LabelPair>) -> Vec<(String, String)> {
    labels.into_iter().map(|l| (l.name.unwrap_or_default(), l.value.unwrap_or_default())).collect()
}

fn example(e: Option<Exemplar>) -> Option<Box<Example>> {
    let e = e?;
    let timestamp = e.time.as_ref().map(Time::millis);
    Some(Box::new(Example { labels: pairs(e.label), value: e.value.unwrap_or(0.0), timestamp }))
}

fn read_family(family: MetricFamily, out: &mut Exposition) -> Result<(), String> {
    let name = family.name.unwrap_or_default();
    if name.is_empty() {
        return Err("a metric family has no name".to_owned());
    }
    out.metadata.push(Metadata {
        family: name.clone(),
        kind: match family.kind.unwrap_or(0) {
            0 => MetricKind::Counter,
            1 => MetricKind::Gauge,
            2 => MetricKind::Summary,
            4 => MetricKind::Histogram,
            5 => MetricKind::GaugeHistogram,
            _ => MetricKind::Unknown,
        },
        help: family.help.unwrap_or_default(),
        unit: family.unit.unwrap_or_default(),
    });
    for m in family.metric {
        let mut one = One { labels: pairs(m.label), timestamp: m.timestamp_ms, start: 0, out };
        if let Some(g) = m.gauge.or(m.untyped) {
            one.push(&name, None, g.value.unwrap_or(0.0), None);
        } else if let Some(c) = m.counter {
            one.start = c.created.as_ref().map_or(0, Time::millis);
            one.push(&name, None, c.value.unwrap_or(0.0), example(c.exemplar));
        } else if let Some(s) = m.summary {
            one.start = s.created.as_ref().map_or(0, Time::millis);
            for q in s.quantile {
                let quantile = number(q.quantile.unwrap_or(0.0));
                one.push(&name, Some(("quantile", quantile)), q.value.unwrap_or(0.0), None);
            }
            one.push(&format!("{name}_count"), None, s.count.unwrap_or(0) as f64, None);
            one.push(&format!("{name}_sum"), None, s.sum.unwrap_or(0.0), None);
        } else if let Some(h) = m.histogram {
            one.start = h.created.as_ref().map_or(0, Time::millis);
            one.histogram(&name, h, family.kind == Some(5))?;
        }
    }
    Ok(())
}

/// A bound or a quantile as a label's value: always with a point, as OpenMetrics wants it.
pub(crate) fn number(v: f64) -> String {
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let s = signal::histogram::general(v);
    if s.contains(['.', 'e', 'N']) { s } else { s + ".0" }
}

/// The samples of one metric on their way out.
struct One<'a> {
    labels: Vec<(String, String)>,
    timestamp: Option<i64>,
    start: i64,
    out: &'a mut Exposition,
}

impl One<'_> {
    fn labelled(&self, name: &str, extra: Option<(&str, String)>) -> Vec<(String, String)> {
        let mut labels = Vec::with_capacity(self.labels.len() + 2);
        labels.push((METRIC_NAME.to_owned(), name.to_owned()));
        labels.extend(self.labels.iter().cloned());
        labels.extend(extra.map(|(n, v)| (n.to_owned(), v)));
        labels
    }

    fn push(&mut self, name: &str, extra: Option<(&str, String)>, value: f64, example: Option<Box<Example>>) {
        let labels = self.labelled(name, extra);
        let (timestamp, start) = (self.timestamp, self.start);
        self.out.samples.push(Parsed { labels, value, timestamp, start, example });
    }

    fn histogram(&mut self, name: &str, h: Histogram, gauge: bool) -> Result<(), String> {
        let count = h.count_float.filter(|c| *c > 0.0).unwrap_or(h.count.unwrap_or(0) as f64);
        let is_native = h.schema.is_some()
            && (h.zero_threshold.is_some_and(|t| t > 0.0)
                || h.zero_count.is_some_and(|n| n > 0)
                || !h.positive_span.is_empty()
                || !h.negative_span.is_empty());
        let mut examples: Vec<Example> =
            h.exemplars.into_iter().filter_map(|e| Some(*example(Some(e))?)).collect();
        if !h.bucket.is_empty() || !is_native {
            let mut has_all = false;
            for b in h.bucket {
                let upper = b.upper_bound.unwrap_or(f64::INFINITY);
                has_all |= upper == f64::INFINITY;
                let n = b.count_float.filter(|c| *c > 0.0).unwrap_or(b.count.unwrap_or(0) as f64);
                let e = example(b.exemplar);
                if is_native {
                    examples.extend(e.as_deref().cloned());
                }
                self.push(&format!("{name}_bucket"), Some(("le", number(upper))), n, e);
            }
            if !has_all {
                self.push(&format!("{name}_bucket"), Some(("le", "+Inf".to_owned())), count, None);
            }
            self.push(&format!("{name}_count"), None, count, None);
            self.push(&format!("{name}_sum"), None, h.sum.unwrap_or(0.0), None);
        }
        if !is_native {
            return Ok(());
        }
        let side = |spans: &[BucketSpan], deltas: &[i64], counts: &[f64]| {
            let spans: Vec<Span> =
                spans.iter().map(|s| (s.offset.unwrap_or(0), s.length.unwrap_or(0))).collect();
            let buckets = if counts.is_empty() {
                FloatHistogram::from_deltas(&spans, deltas)
            } else {
                FloatHistogram::from_spans(&spans, counts.iter().copied())
            };
            buckets.ok_or_else(|| format!("spans and buckets of {name} do not fit each other"))
        };
        let mut native = FloatHistogram {
            hint: if gauge { signal::histogram::ResetHint::Gauge } else { Default::default() },
            schema: h.schema.unwrap_or(0),
            zero_threshold: h.zero_threshold.unwrap_or(0.0),
            zero_count: h.zero_count_float.filter(|c| *c > 0.0).unwrap_or(h.zero_count.unwrap_or(0) as f64),
            count,
            sum: h.sum.unwrap_or(0.0),
            positive: side(&h.positive_span, &h.positive_delta, &h.positive_count)?,
            negative: side(&h.negative_span, &h.negative_delta, &h.negative_count)?,
            ..FloatHistogram::default()
        };
        native.reduce(8);
        native.validate()?;
        let labels = self.labelled(name, None);
        let (timestamp, start) = (self.timestamp, self.start);
        self.out.histograms.push(Native { labels, timestamp, start, histogram: native.into(), examples });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> Option<String> {
        Some(s.to_owned())
    }

    #[test]
    fn families_become_samples_and_native_histograms() {
        let label = vec![LabelPair { name: text("code"), value: text("200") }];
        let exemplar = Exemplar {
            label: vec![LabelPair { name: text("trace_id"), value: text("abc") }],
            value: Some(1.5),
            time: Some(Time { seconds: 7, nanos: 5_000_000 }),
        };
        let counter = MetricFamily {
            name: text("jobs_total"),
            help: text("all of it"),
            metric: vec![Metric {
                label,
                counter: Some(Counter {
                    value: Some(3.0),
                    exemplar: Some(exemplar.clone()),
                    created: Some(Time { seconds: 2, nanos: 0 }),
                }),
                ..Metric::default()
            }],
            ..MetricFamily::default()
        };
        let histogram = Histogram {
            count: Some(4),
            sum: Some(6.5),
            schema: Some(0),
            zero_threshold: Some(0.001),
            zero_count: Some(1),
            positive_span: vec![BucketSpan { offset: Some(0), length: Some(2) }],
            positive_delta: vec![1, 1],
            bucket: vec![Bucket { count: Some(4), upper_bound: Some(2.0), ..Bucket::default() }],
            exemplars: vec![exemplar],
            ..Histogram::default()
        };
        let family = MetricFamily {
            name: text("latency"),
            kind: Some(4),
            metric: vec![Metric { histogram: Some(histogram), timestamp_ms: Some(9), ..Metric::default() }],
            ..MetricFamily::default()
        };
        let mut data = counter.encode_length_delimited_to_vec();
        data.extend(family.encode_length_delimited_to_vec());
        let e = parse(&data).expect("reads");
        assert_eq!((e.samples[0].value, e.samples[0].start), (3.0, 2000));
        let example = e.samples[0].example.as_ref().expect("is there");
        assert_eq!((example.value, example.timestamp), (1.5, Some(7005)));
        let names: Vec<&str> = e.samples[1..].iter().map(|s| s.labels[0].1.as_str()).collect();
        assert_eq!(names, ["latency_bucket", "latency_bucket", "latency_count", "latency_sum"]);
        assert_eq!(e.samples[1].labels[1], ("le".to_owned(), "2.0".to_owned()));
        let h = &e.histograms[0];
        assert_eq!((h.timestamp, h.histogram.count, h.examples.len()), (Some(9), 4.0, 1));
        assert_eq!(h.histogram.positive, FloatHistogram::buckets(0, &[1.0, 2.0]));
        assert_eq!(e.metadata[1].kind, MetricKind::Histogram);
        assert!(parse(&data[..data.len() - 1]).is_err());
    }
}
