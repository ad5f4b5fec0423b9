//! What an evaluation stands on: the engine to ask, the store to write to, and what texts say of the house.

use std::time::Duration;

use promql::{Engine, Options};
use signal::time::SharedClock;
use signal::{Accepted, MetricBatch, SeriesSource};
use template::Value;

/// Writes samples; blocks until they are stored. The error is for people.
pub(crate) type Write<'a> = &'a dyn Fn(MetricBatch) -> Result<Accepted, String>;

pub(crate) struct Ground<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) options: Options,
    /// Raw samples, for what was known before a restart.
    pub(crate) source: &'a dyn SeriesSource,
    pub(crate) write: Write<'a>,
    pub(crate) clock: &'a SharedClock,
    pub(crate) external_labels: &'a Value,
    pub(crate) external_url: &'a str,
    /// An alert that goes on is told of again after this long.
    pub(crate) resend: Duration,
}
