//! A sink for tests: keeps what it is given, or refuses as told.

use async_trait::async_trait;
use parking_lot::Mutex;
use signal::{Accepted, LogBatch, MetricBatch, Sink, SinkError, SpanBatch};

#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) logs: Mutex<Vec<LogBatch>>,
    pub(crate) spans: Mutex<Vec<SpanBatch>>,
    pub(crate) metrics: Mutex<Vec<MetricBatch>>,
    /// The next writes fail with these.
    pub(crate) failures: Mutex<Vec<SinkError>>,
}

impl Kept {
    /// All lines, in the order in which they came.
    pub(crate) fn bodies(&self) -> Vec<String> {
        let logs = self.logs.lock();
        logs.iter().flat_map(|b| &b.streams).flat_map(|s| &s.records).map(|r| r.body.clone()).collect()
    }

    fn taken(&self, accepted: usize) -> Result<Accepted, SinkError> {
        match self.failures.lock().pop() {
            Some(e) => Err(e),
            None => Ok(Accepted { accepted, ..Accepted::default() }),
        }
    }
}

#[async_trait]
impl Sink for Kept {
    async fn write_metrics(&self, batch: MetricBatch) -> Result<Accepted, SinkError> {
        let done = self.taken(batch.samples())?;
        self.metrics.lock().push(batch);
        Ok(done)
    }

    async fn write_logs(&self, batch: LogBatch) -> Result<Accepted, SinkError> {
        let done = self.taken(batch.records())?;
        self.logs.lock().push(batch);
        Ok(done)
    }

    async fn write_spans(&self, batch: SpanBatch) -> Result<Accepted, SinkError> {
        let done = self.taken(batch.spans())?;
        self.spans.lock().push(batch);
        Ok(done)
    }
}
