//! Values: columns while a query is evaluated, typed results at its end.

use std::sync::Arc;

use signal::{FloatHistogram, Labels, METRIC_NAME, STALE_NAN_BITS};

use crate::meter::Held;

/// What a query gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Scalar(Sample),
    String(String),
    /// One point for each series, in the order the query asks for.
    Vector(Vec<(Labels, Point)>),
    /// In order of labels.
    Matrix(Vec<Series>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds.
    pub timestamp: i64,
    pub value: f64,
}

/// A float or a native histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Milliseconds.
    pub timestamp: i64,
    /// NaN if the point is a histogram.
    pub value: f64,
    pub histogram: Option<Arc<FloatHistogram>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HistogramPoint {
    /// Milliseconds.
    pub timestamp: i64,
    pub histogram: Arc<FloatHistogram>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    pub labels: Labels,
    pub samples: Vec<Sample>,
    pub histograms: Vec<HistogramPoint>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct QueryResult {
    pub value: Value,
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
    /// Samples read from the source.
    pub samples_read: u64,
    /// The most bytes of columns held at once, about.
    pub peak_bytes: u64,
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

/// What one step of one series holds.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

impl From<FloatHistogram> for Cell {
    fn from(h: FloatHistogram) -> Self {
        Cell::Histogram(Arc::new(h))
    }
}

/// Native histograms over the steps; where one stands, the float is absent.
pub(crate) type Histograms = Vec<Option<Arc<FloatHistogram>>>;

/// One series of an instant vector, over all steps.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) labels: Labels,
    /// The name is to be removed at the end (Prometheus: delayed name removal).
    pub(crate) drop_name: bool,
    pub(crate) values: Vec<f64>,
    /// `None` for the many series without any, whose floats are then all there is.
    pub(crate) histograms: Option<Histograms>,
    /// What the query is charged for it, once it is kept.
    pub(crate) held: Held,
}

impl Column {
    pub(crate) fn floats(labels: Labels, drop_name: bool, values: Vec<f64>) -> Self {
        Column { labels, drop_name, values, histograms: None, held: Held::default() }
    }

    pub(crate) fn histogram(&self, i: usize) -> Option<&Arc<FloatHistogram>> {
        self.histograms.as_ref().and_then(|h| h.get(i)).and_then(Option::as_ref)
    }

    pub(crate) fn cell(&self, i: usize) -> Option<Cell> {
        match self.values.get(i) {
            Some(v) if !is_absent(*v) => Some(Cell::Float(*v)),
            _ => self.histogram(i).cloned().map(Cell::Histogram),
        }
    }

    pub(crate) fn has(&self, i: usize) -> bool {
        self.values.get(i).is_some_and(|v| !is_absent(*v)) || self.histogram(i).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.iter().all(|v| is_absent(*v))
            && self.histograms.as_ref().is_none_or(|h| h.iter().all(Option::is_none))
    }

    /// Leaves a step without a value.
    pub(crate) fn blank(&mut self, i: usize) {
        self.values[i] = ABSENT;
        if let Some(h) = &mut self.histograms {
            h[i] = None;
        }
    }

    pub(crate) fn put(&mut self, i: usize, cell: Cell) {
        match cell {
            Cell::Float(v) => self.values[i] = v,
            Cell::Histogram(h) => {
                let n = self.values.len();
                self.histograms.get_or_insert_with(|| vec![None; n])[i] = Some(h);
            }
        }
    }

    /// An empty column of this one's labels.
    pub(crate) fn emptied(&self) -> Self {
        Column::floats(self.labels.clone(), self.drop_name, vec![ABSENT; self.values.len()])
    }

    /// A function of floats: histograms have no part in it.
    pub(crate) fn map(mut self, f: impl Fn(f64) -> f64) -> Column {
        for v in &mut self.values {
            if !is_absent(*v) {
                *v = f(*v);
            }
        }
        self.histograms = None;
        self.drop_name = true;
        self
    }

    /// Bytes, about.
    pub(crate) fn size(&self) -> usize {
        let histograms = self.histograms.as_ref().map_or(0, |h| {
            h.len() * size_of::<Option<Arc<FloatHistogram>>>()
                + h.iter().flatten().map(|h| h.size()).sum::<usize>()
        });
        self.values.capacity() * size_of::<f64>() + size_of::<Column>() + histograms
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
            Some(at) => {
                let kept = out.get_mut(*at)?;
                for i in 0..c.values.len() {
                    if let Some(cell) = c.cell(i) {
                        if kept.has(i) {
                            return None;
                        }
                        kept.put(i, cell);
                    }
                }
            }
        }
    }
    Some(out)
}
