//! Warnings and infos of a query, in Prometheus' words (util/annotations), each once.

use std::collections::BTreeMap;

use signal::histogram::general;

use crate::error::line_column;

/// Where a note points, and what is known of its repetitions.
#[derive(Clone, Debug)]
enum Detail {
    Plain,
    /// Buckets that had to be forced to grow: bounds, the largest fall, samples and times.
    Monotonicity {
        low: f64,
        high: f64,
        fall: f64,
        samples: u64,
        first: i64,
        last: i64,
    },
    /// How often a start time overlapped.
    Overlap(u64),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Annotations {
    warnings: BTreeMap<String, (usize, Detail)>,
    infos: BTreeMap<String, (usize, Detail)>,
}

impl Annotations {
    /// `at` is the byte of the query that the note is about.
    pub(crate) fn warn(&mut self, at: usize, message: String) {
        self.warnings.insert(message, (at, Detail::Plain));
    }

    pub(crate) fn inform(&mut self, at: usize, message: String) {
        self.infos.insert(message, (at, Detail::Plain));
    }

    pub(crate) fn overlap(&mut self, at: usize, metric: &str) {
        let message = format!(
            "sample has start time that overlaps with previous sample timestamp for metric {metric:?}"
        );
        let slot = self.warnings.entry(message).or_insert((at, Detail::Overlap(0)));
        if let Detail::Overlap(n) = &mut slot.1 {
            *n += 1;
        }
    }

    pub(crate) fn monotonicity(&mut self, at: usize, metric: &str, forced: Forced, time: i64) {
        let message = "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
        let message = with_metric(message, metric);
        let new = Detail::Monotonicity {
            low: forced.low,
            high: forced.high,
            fall: forced.fall,
            samples: 0,
            first: time,
            last: time,
        };
        let slot = self.infos.entry(message).or_insert((at, new));
        if let Detail::Monotonicity { low, high, fall, samples, first, last } = &mut slot.1 {
            *low = low.min(forced.low);
            *high = high.max(forced.high);
            *fall = fall.max(forced.fall);
            *samples += 1;
            *first = time.min(*first);
            *last = time.max(*last);
        }
    }

    /// Warnings and infos with their places in the query.
    pub(crate) fn finish(self, query: &str) -> (Vec<String>, Vec<String>) {
        let print = |kind: &str, (message, (at, detail)): (String, (usize, Detail))| {
            let (line, column) = line_column(query, at);
            let more = match detail {
                Detail::Plain | Detail::Overlap(0..=1) => String::new(),
                Detail::Overlap(n) => format!(" ({n} occurrences)"),
                Detail::Monotonicity { low, high, fall, samples, first, last } => format!(
                    ", from buckets {} to {}, with a max diff of {}, over {samples} samples from {} to {}",
                    general(low),
                    general(high),
                    two_digits(fall),
                    rfc3339(first),
                    rfc3339(last)
                ),
            };
            format!("PromQL {kind}: {message}{more} ({line}:{column})")
        };
        (
            self.warnings.into_iter().map(|w| print("warning", w)).collect(),
            self.infos.into_iter().map(|i| print("info", i)).collect(),
        )
    }
}

/// Where and by how much counts of a classic histogram fell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forced {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) fall: f64,
}

pub(crate) fn with_metric(message: &str, metric: &str) -> String {
    if metric.is_empty() { message.to_owned() } else { format!("{message} for metric name {metric:?}") }
}

/// The words for what went on between histograms.
#[derive(Clone, Copy)]
pub(crate) enum Doing {
    Addition,
    Subtraction,
    Aggregation,
}

impl Doing {
    fn word(self) -> &'static str {
        match self {
            Doing::Addition => "addition",
            Doing::Subtraction => "subtraction",
            Doing::Aggregation => "aggregation",
        }
    }
}

pub(crate) fn reset_conflict(doing: Doing) -> String {
    format!("conflicting counter resets during histogram {}", doing.word())
}

pub(crate) fn bounds_reconciled(doing: Doing) -> String {
    format!("mismatched custom buckets were reconciled during {}", doing.word())
}

pub(crate) fn mixed_kinds(metric: &str) -> String {
    format!("encountered a mix of histograms and floats for metric name {metric:?}")
}

pub(crate) fn mixed_schemas(metric: &str) -> String {
    format!(
        "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {metric:?}"
    )
}

pub(crate) fn not_a_counter(metric: &str) -> String {
    format!("this native histogram metric is not a counter: {metric:?}")
}

pub(crate) fn not_a_gauge(metric: &str) -> String {
    format!("this native histogram metric is not a gauge: {metric:?}")
}

pub(crate) fn ignored_in_range(metric: &str) -> String {
    format!("ignored histograms in a range containing both floats and histograms for metric name {metric:?}")
}

pub(crate) fn ignored_in_aggregation(op: &str) -> String {
    format!("ignored histogram in {op} aggregation")
}

/// As Go's `%.2g`.
fn two_digits(v: f64) -> String {
    let rounded: f64 = format!("{v:.1e}").parse().expect("a printed float parses");
    let exponent = rounded.abs().log10().floor();
    if rounded != 0.0 && exponent >= 2.0 {
        let mantissa = rounded / 10f64.powf(exponent);
        let mantissa = (mantissa * 10.0).round() / 10.0;
        return format!("{mantissa}e+{exponent:02}");
    }
    general(rounded)
}

fn rfc3339(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (y, m, d) = crate::functions::civil(seconds.div_euclid(86_400));
    let s = seconds.rem_euclid(86_400);
    format!("{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
}
