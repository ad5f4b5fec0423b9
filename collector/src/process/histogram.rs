//! A histogram of seconds, and its series as Prometheus has them.

use signal::{Exemplar, Labels, METRIC_NAME, MetricBatch, TraceId};

/// Upper bounds in seconds (Tempo: modules/generator/processor/spanmetrics/config.go).
const BOUNDS: [f64; 12] = [0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.02, 2.05, 4.10];

#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    /// Not cumulative; the last one has no bound.
    buckets: [u64; BOUNDS.len() + 1],
    sum: f64,
    count: u64,
    /// The slowest since the last time the series were written.
    slowest: Option<(TraceId, f64, i64)>,
}

impl Histogram {
    /// `time` in milliseconds.
    pub(super) fn add(&mut self, seconds: f64, trace: TraceId, time: i64) {
        self.buckets[bucket(seconds)] += 1;
        self.sum += seconds;
        self.count += 1;
        if self.slowest.is_none_or(|(_, s, _)| seconds > s) {
            self.slowest = Some((trace, seconds, time));
        }
    }

    /// Writes `<name>_bucket`, `_sum` and `_count`, with the slowest trace as an exemplar.
    pub(super) fn write(&mut self, name: &str, labels: &Labels, time: i64, batch: &mut MetricBatch) {
        let series = |suffix: &str, le: Option<&str>| {
            let mut b = labels.builder();
            b.set(METRIC_NAME, &format!("{name}{suffix}"));
            if let Some(le) = le {
                b.set("le", le);
            }
            b.build()
        };
        let slowest = self.slowest.take();
        let at = slowest.map(|(_, s, _)| bucket(s));
        let mut total = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            total += n;
            let le = BOUNDS.get(i).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let labels = series("_bucket", Some(&le));
            if at == Some(i)
                && let Some((trace, value, timestamp)) = slowest
            {
                let of = Labels::from_pairs([("trace_id", trace.to_string())]);
                batch.exemplars.push(Exemplar { series: labels.clone(), labels: of, value, timestamp });
            }
            batch.push(labels, time, total as f64);
        }
        batch.push(series("_sum", None), time, self.sum);
        batch.push(series("_count", None), time, self.count as f64);
    }
}

fn bucket(seconds: f64) -> usize {
    BOUNDS.iter().position(|b| seconds <= *b).unwrap_or(BOUNDS.len())
}

/// A counter's series.
pub(super) fn counter(name: &str, labels: &Labels, time: i64, value: u64, batch: &mut MetricBatch) {
    batch.push(labels.builder().set(METRIC_NAME, name).build(), time, value as f64);
}
