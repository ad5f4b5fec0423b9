//! The door through which PromQL reads series: the TSDB, or an in-memory store in tests.

use std::sync::Arc;

use crate::{HistogramSample, Labels, Matcher};

/// Which series, over which time.
#[derive(Clone, Debug)]
pub struct Select {
    /// All must hold.
    pub matchers: Vec<Matcher>,
    /// First millisecond wanted, inclusive.
    pub start: i64,
    /// Last millisecond wanted, inclusive.
    pub end: i64,
}

/// One series' samples in columns. The float columns have the same length; timestamps (milliseconds) ascend strictly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesColumns {
    pub labels: Labels,
    /// Series that were scraped together share theirs, where the source knows.
    pub timestamps: Arc<Vec<i64>>,
    pub values: Vec<f64>,
    /// When counting began, for each float; 0 if that is not known. Empty if none is known.
    pub starts: Vec<i64>,
    /// In order of time; no time is that of a float.
    pub histograms: Vec<HistogramSample>,
}

/// What functions over a long time need of a series' floats. None of them is NaN; stale markers are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    pub count: u64,
    /// The rest has no meaning while `count` is 0.
    pub low: f64,
    pub high: f64,
    pub sum: f64,
    /// Milliseconds and value.
    pub first: (i64, f64),
    pub last: (i64, f64),
    /// The sum of the values before those that were lower: what a counter lost by resets.
    pub dropped: f64,
}

impl Summary {
    pub fn of(time: i64, value: f64) -> Self {
        let one = (time, value);
        Summary { count: 1, low: value, high: value, sum: value, first: one, last: one, dropped: 0.0 }
    }

    /// Adds what comes after.
    pub fn add(&mut self, next: &Summary) {
        if self.count == 0 || next.count == 0 {
            if next.count > 0 {
                *self = *next;
            }
            return;
        }
        self.dropped += next.dropped;
        if next.first.1 < self.last.1 {
            self.dropped += self.last.1;
        }
        self.count += next.count;
        self.low = self.low.min(next.low);
        self.high = self.high.max(next.high);
        self.sum += next.sum;
        self.last = next.last;
    }
}

/// Why series could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("storage failed: {0}")]
    Storage(String),
    #[error("too much data: {0}")]
    Limit(String),
}

/// Series that were found.
pub struct Selected<'a> {
    pub series: SeriesIter<'a>,
    /// How many, about.
    pub count: usize,
    /// Bytes held until the last series was read, less with each of them; besides labels.
    pub held: usize,
    /// Bytes of label sets that were made for this answer: whoever keeps a series keeps its share.
    pub labels: usize,
}

/// What a reader lets a source hold who says nothing else.
const BYTES: usize = 256 << 20;

/// Series one after the other, in order of labels. An error ends it.
pub type SeriesIter<'a> = Box<dyn Iterator<Item = Result<SeriesColumns, SourceError>> + Send + 'a>;

/// Reads series. Methods block on the CPU and on local disk: call them off the async threads.
pub trait SeriesSource: Send + Sync + 'static {
    /// Series with at least one sample in the range, each decoded only when asked for. Stale markers are included.
    fn select<'a>(&'a self, select: &Select) -> Result<SeriesIter<'a>, SourceError> {
        self.select_within(select, BYTES).map(|s| s.series)
    }

    /// The same, holding at most so many bytes for the list of series; an error of kind `Limit` says that it is longer.
    fn select_within<'a>(&'a self, select: &Select, bytes: usize) -> Result<Selected<'a>, SourceError>;

    /// Each series' floats in the range summed up, if the source can do so faster than by reading them, and if they
    /// are all that the series have. `None` says: read the samples.
    fn summaries(
        &self,
        _select: &Select,
        _bytes: usize,
    ) -> Result<Option<Vec<(Labels, Summary)>>, SourceError> {
        Ok(None)
    }

    /// Label sets of the series that [`SeriesSource::select`] would give, without reading samples.
    fn series(&self, select: &Select) -> Result<Vec<Labels>, SourceError>;

    /// Names of labels that such series have, sorted.
    fn label_names(&self, select: &Select) -> Result<Vec<String>, SourceError>;

    /// Values that such series have for a label, sorted.
    fn label_values(&self, name: &str, select: &Select) -> Result<Vec<String>, SourceError>;
}
