//! The door through which PromQL reads series: the TSDB, or an in-memory store in tests.

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
    pub timestamps: Vec<i64>,
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

/// Series one after the other, in order of labels. An error ends it.
pub type SeriesIter<'a> = Box<dyn Iterator<Item = Result<SeriesColumns, SourceError>> + Send + 'a>;

/// Reads series. Methods block on the CPU and on local disk: call them off the async threads.
pub trait SeriesSource: Send + Sync + 'static {
    /// Series with at least one sample in the range, each decoded only when asked for. Stale markers are included.
    fn select<'a>(&'a self, select: &Select) -> Result<SeriesIter<'a>, SourceError>;

    /// Label sets of the series that [`SeriesSource::select`] would give, without reading samples.
    fn series(&self, select: &Select) -> Result<Vec<Labels>, SourceError>;

    /// Names of labels that such series have, sorted.
    fn label_names(&self, select: &Select) -> Result<Vec<String>, SourceError>;

    /// Values that such series have for a label, sorted.
    fn label_values(&self, name: &str, select: &Select) -> Result<Vec<String>, SourceError>;
}
