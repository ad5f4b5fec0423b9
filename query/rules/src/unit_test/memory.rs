//! The store of a test: input series that become known as time goes on, and what rules write.

use parking_lot::RwLock;
use promql::memory::MemorySeries;
use promql::promqltest::{Described, describe};
use signal::{Labels, MetricBatch, Select, Selected, SeriesSource, SourceError};

pub(crate) struct Memory {
    inner: RwLock<Inner>,
    start: i64,
    step: i64,
}

struct Inner {
    known: MemorySeries,
    /// Input that lies ahead: labels, values, and how many of them are known.
    ahead: Vec<(Labels, Vec<Described>, usize)>,
}

impl Memory {
    pub(crate) fn new<'a>(
        start: i64,
        step: i64,
        series: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Memory, String> {
        let mut ahead: Vec<(Labels, Vec<Described>, usize)> = Vec::new();
        for (labels, values) in series {
            let (labels, values) =
                describe(labels, values).map_err(|e| format!("error in input_series: {e}"))?;
            // A series that is described twice is the later one.
            ahead.retain(|(l, _, _)| *l != labels);
            ahead.push((labels, values, 0));
        }
        Ok(Memory { inner: RwLock::new(Inner { known: MemorySeries::default(), ahead }), start, step })
    }

    /// Makes the input known up to a time.
    pub(crate) fn load_until(&self, now: i64) {
        let inner = &mut *self.inner.write();
        for (labels, values, known) in &mut inner.ahead {
            while let Some(v) = values.get(*known) {
                let at = self.start + self.step * i64::try_from(*known).unwrap_or(i64::MAX);
                if at > now {
                    break;
                }
                match v {
                    Described::Omitted => {}
                    Described::Float(v) => inner.known.push(labels, at, *v),
                    Described::Histogram(h) => inner.known.push_histogram(labels, at, (**h).clone(), 0),
                }
                *known += 1;
            }
        }
    }

    pub(crate) fn append(&self, batch: &MetricBatch) {
        let known = &mut self.inner.write().known;
        for s in &batch.series {
            for p in &s.samples {
                known.push(&s.labels, p.timestamp, p.value);
            }
        }
        for s in &batch.histograms {
            for p in &s.samples {
                known.push_histogram(&s.labels, p.timestamp, (*p.histogram).clone(), p.start);
            }
        }
    }
}

impl SeriesSource for Memory {
    fn select_within<'a>(&'a self, select: &Select, bytes: usize) -> Result<Selected<'a>, SourceError> {
        let inner = self.inner.read();
        let found = inner.known.select_within(select, bytes)?;
        let (count, held, labels) = (found.count, found.held, found.labels);
        // Read at once: what is written meanwhile must not wait for a query.
        let all: Vec<_> = found.series.collect();
        Ok(Selected { series: Box::new(all.into_iter()), count, held, labels })
    }

    fn series(&self, select: &Select) -> Result<Vec<Labels>, SourceError> {
        self.inner.read().known.series(select)
    }

    fn label_names(&self, select: &Select) -> Result<Vec<String>, SourceError> {
        self.inner.read().known.label_names(select)
    }

    fn label_values(&self, name: &str, select: &Select) -> Result<Vec<String>, SourceError> {
        self.inner.read().known.label_values(name, select)
    }
}
