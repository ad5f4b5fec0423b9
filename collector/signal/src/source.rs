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

    /// Label sets of the series that [`SeriesSource::select`] would give, without reading samples.
    fn series(&self, select: &Select) -> Result<Vec<Labels>, SourceError>;

    /// Names of labels that such series have, sorted.
    fn label_names(&self, select: &Select) -> Result<Vec<String>, SourceError>;

    /// Values that such series have for a label, sorted.
    fn label_values(&self, name: &str, select: &Select) -> Result<Vec<String>, SourceError>;
}
