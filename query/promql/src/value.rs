//! Values: columns while a query is evaluated, typed results at its end.

use signal::{Labels, METRIC_NAME, STALE_NAN_BITS};

/// What a query gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Scalar(Sample),
    String(String),
    /// One sample for each series, in the order the query asks for.
    Vector(Vec<(Labels, Sample)>),
    /// In order of labels.
    Matrix(Vec<Series>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds.
    pub timestamp: i64,
    pub value: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub labels: Labels,
    pub samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct QueryResult {
    pub value: Value,
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
    /// Samples read from the source.
    pub samples_read: u64,
}

/// As Prometheus prints a value: no exponent, `+Inf`, `-Inf`, `NaN`.
pub fn format_value(v: f64) -> String {
    if v.is_nan() {
        "NaN".to_owned()
    } else if v.is_infinite() {
        if v > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        v.to_string()
    }
}

/// Stands for "no value at this step". No query result can hold a stale marker, so its bits are free.
pub(crate) const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

pub(crate) fn is_absent(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}

/// One series of an instant vector, over all steps.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) labels: Labels,
    /// The name is to be removed at the end (Prometheus: delayed name removal).
    pub(crate) drop_name: bool,
    pub(crate) values: Vec<f64>,
}

impl Column {
    pub(crate) fn map(mut self, f: impl Fn(f64) -> f64) -> Column {
        for v in &mut self.values {
            if !is_absent(*v) {
                *v = f(*v);
            }
        }
        self.drop_name = true;
        self
    }
}

/// The value of an expression over all steps.
#[derive(Debug)]
pub(crate) enum Out {
    Scalar(Vec<f64>),
    String(String),
    Vector(Vec<Column>),
}

/// The steps of an evaluation, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grid {
    pub(crate) start: i64,
    pub(crate) step: i64,
    pub(crate) n: usize,
}

impl Grid {
    pub(crate) fn time(&self, i: usize) -> i64 {
        self.start + self.step * i as i64
    }

    pub(crate) fn times(self) -> impl Iterator<Item = i64> {
        (0..self.n).map(move |i| self.time(i))
    }
}

/// Labels that say what a metric is, not what it is about; they go where the name goes.
const DESCRIBING: [&str; 3] = [METRIC_NAME, "__type__", "__unit__"];

pub(crate) fn without_name(labels: &Labels) -> Labels {
    if labels.iter().all(|(n, _)| !DESCRIBING.contains(&n)) {
        return labels.clone();
    }
    Labels::from_pairs(labels.iter().filter(|(n, _)| !DESCRIBING.contains(n)))
}

/// Columns of equal labels become one. `None` if two of them have a value at the same step.
pub(crate) fn merge_equal(columns: Vec<Column>) -> Option<Vec<Column>> {
    let mut by_labels: std::collections::HashMap<Labels, usize, ahash::RandomState> = Default::default();
    let mut out: Vec<Column> = Vec::with_capacity(columns.len());
    for c in columns {
        match by_labels.get(&c.labels) {
            None => {
                by_labels.insert(c.labels.clone(), out.len());
                out.push(c);
            }
            Some(i) => {
                let kept = out.get_mut(*i)?;
                for (a, b) in kept.values.iter_mut().zip(c.values) {
                    match (is_absent(*a), is_absent(b)) {
                        (_, true) => {}
                        (true, false) => *a = b,
                        (false, false) => return None,
                    }
                }
            }
        }
    }
    Some(out)
}
