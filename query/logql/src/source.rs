//! The one door to the log index: which records a log query, a metric query and a tail's backlog read, and how.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use log_index::{BlockView, Direction, Ended, LogIndex, Progress, Search};
use signal::{Matcher, Timestamp};

use crate::error::Error;
use crate::pipeline::{Pipeline, Processed};

/// Which records: those of the pipeline's streams that the caller may see, from `start` (inclusive) to `end`
/// (exclusive).
pub(crate) struct Reading<'a> {
    pub(crate) pipeline: &'a Pipeline,
    /// Added to the stream selector.
    pub(crate) enforce: &'a [Matcher],
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) progress: &'a Arc<Progress>,
}

/// Watches one query: it ends once `stop` is set, `timeout` is over or `budget` bytes of records were read.
pub(crate) fn progress(stop: &Arc<AtomicBool>, timeout: Duration, budget: u64) -> Arc<Progress> {
    let deadline = signal::time::monotonic().checked_add(timeout);
    Arc::new(Progress::new(stop.clone(), deadline, budget))
}

impl Reading<'_> {
    fn search(&self) -> Search {
        let mut s = self.pipeline.search(self.enforce, self.start, self.end);
        s.progress = self.progress.clone();
        s
    }

    /// The first `limit` lines that come through, in the direction's order.
    pub(crate) fn first(
        &self,
        index: &LogIndex,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Timestamp, Processed)>, Error> {
        let mut s = self.search();
        s.direction = direction;
        let found = index.search_rows(&s, limit, |v, i| {
            // Most lines stop at the first filters, which need nothing but the line.
            match self.pipeline.line_filters(v.text(i)?, v.trace_id(i)?) {
                Some(_) => Ok(self.pipeline.apply(v.labels(), &v.log(i)?)),
                None => Ok(None),
            }
        })?;
        finished(self.progress).map(|()| found)
    }

    /// Makes something of every block with records that may come through, on several threads, and hands it on in no
    /// order.
    pub(crate) fn every<T: Send>(
        &self,
        index: &LogIndex,
        map: impl Fn(&BlockView<'_>) -> Result<T, log_index::Error> + Sync,
        each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        index.map_blocks(&self.search(), map, each)?;
        finished(self.progress)
    }
}

/// Deletes for good the records that come through; gives how many they were.
pub(crate) async fn delete(
    index: &Arc<LogIndex>,
    pipeline: Pipeline,
    start: Timestamp,
    end: Timestamp,
) -> Result<u64, Error> {
    let search = pipeline.search(&[], start, end);
    let gone = move |v: &BlockView<'_>, i: usize| Ok(pipeline.apply(v.labels(), &v.log(i)?).is_some());
    Ok(index.delete(search, gone).await?)
}

/// Half an answer is none.
fn finished(p: &Progress) -> Result<(), Error> {
    match p.ended() {
        None => Ok(()),
        Some(Ended::Stopped) => Err(Error::Canceled),
        Some(Ended::TimedOut) => Err(Error::Timeout),
        Some(Ended::Budget) => Err(Error::Limit(format!(
            "the query would read more than {} bytes of log lines; ask for less time or fewer streams",
            p.bytes()
        ))),
    }
}
