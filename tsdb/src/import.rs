//! Samples of any age, from elsewhere: they pass by the head and its window, straight into blocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use signal::{Accepted, HistogramSample, Labels, MetricBatch, SinkError};

use crate::block::{Block, Meta, SeriesData, Writer};
use crate::db::Tsdb;
use crate::error::Error;

/// A block covers no more than a UTC day, so that age drops it in time.
const SPAN: i64 = 24 * 3_600_000;

type Days = BTreeMap<i64, BTreeMap<Labels, SeriesData>>;

impl Tsdb {
    /// Stores the batch as blocks, one for each day it touches, and returns once they are synced and queryable. Samples past
    /// the retention, or from the future, are counted as rejected. Of two samples at one time the one imported wins.
    pub async fn import(self: &Arc<Self>, batch: MetricBatch) -> Result<Accepted, SinkError> {
        let now = self.config.clock.now();
        let latest = now.saturating_add(self.config.future).millis();
        let oldest = now.saturating_sub(self.config.retention).millis();
        let mut result = Accepted::default();
        let mut days = Days::new();
        let mut reject = |n: usize, why: &str| {
            result.rejected += n;
            result.reason.get_or_insert_with(|| why.to_owned());
        };
        let fits = |t: i64| (oldest..=latest).contains(&t);
        const OUTSIDE: &str = "samples older than the retention, or from the future";
        for s in batch.series {
            if s.labels.is_empty() {
                reject(s.samples.len(), "a series without labels");
                continue;
            }
            for sample in s.samples {
                if fits(sample.timestamp) {
                    day(&mut days, sample.timestamp, &s.labels).columns.push(sample.timestamp, sample.value);
                } else {
                    reject(1, OUTSIDE);
                }
            }
        }
        for s in batch.histograms {
            for sample in s.samples {
                if s.labels.is_empty() || !fits(sample.timestamp) {
                    reject(1, OUTSIDE);
                } else if sample.histogram.is_stale() || sample.histogram.validate().is_ok() {
                    day(&mut days, sample.timestamp, &s.labels).histograms.push(sample);
                } else {
                    reject(1, "a histogram that contradicts itself");
                }
            }
        }
        for samples in days.into_values() {
            result.accepted +=
                self.import_day(samples).await.map_err(|e| SinkError::Storage(e.to_string()))?;
        }
        Ok(result)
    }

    async fn import_day(self: &Arc<Self>, mut series: BTreeMap<Labels, SeriesData>) -> Result<usize, Error> {
        let _one = self.maintenance.lock().await;
        let seq = self.next_seq();
        let dir = self.config.dir.clone();
        let (block, n) = tokio::task::spawn_blocking(move || {
            let mut writer = Writer::create(&dir, Meta { seq, order: seq, ..Meta::default() })?;
            let mut n = 0;
            for (labels, data) in &mut series {
                order(data);
                n += data.columns.times.len() + data.histograms.len();
                writer.add(labels, data)?;
            }
            let block = match writer.finish()? {
                Some(path) => Some(Block::open(path)?),
                None => None,
            };
            Ok::<_, Error>((block, n))
        })
        .await
        .map_err(|e| Error::Damaged {
            path: self.config.dir.clone(),
            what: format!("import panicked: {e}"),
        })??;
        let mut state = self.state.write();
        state.blocks.extend(block.map(Arc::new));
        state.blocks.sort_by_key(|b| b.meta.order);
        Ok(n)
    }
}

fn day<'a>(days: &'a mut Days, t: i64, labels: &Labels) -> &'a mut SeriesData {
    days.entry(t.div_euclid(SPAN)).or_default().entry(labels.clone()).or_default()
}

/// In order of time; of two at one time the later in the batch stands. A float and a histogram at one time are two.
fn order(data: &mut SeriesData) {
    data.columns.settle();
    if !data.histograms.is_sorted_by(|a, b| a.timestamp < b.timestamp) {
        data.histograms.reverse();
        data.histograms.sort_by_key(|s: &HistogramSample| s.timestamp);
        data.histograms.dedup_by_key(|s| s.timestamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use signal::{Matcher, Select, SeriesSource};

    #[tokio::test]
    async fn old_samples_land_and_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = || Config::new(dir.path().to_owned());
        let db = Tsdb::open(config()).expect("opens");
        let labels = Labels::from_pairs([("__name__", "old")]);
        let now = signal::time::now().millis();
        let day = 86_400_000;
        let mut batch = MetricBatch::default();
        // Three days, out of order, one twice.
        for (t, v) in [(3, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)] {
            batch.push(labels.clone(), now - t * day, v);
        }
        batch.push(labels.clone(), now - 4000 * day, 1.0);
        batch.push(labels.clone(), now + day, 1.0);
        let done = db.import(batch).await.expect("imported");
        assert_eq!((done.accepted, done.rejected), (3, 2));
        let read = |db: &Tsdb| {
            let matchers = vec![Matcher::equal("__name__", "old")];
            let select = Select { matchers, start: i64::MIN, end: i64::MAX };
            let all: Vec<_> = db.select(&select).expect("selects").map(|s| s.expect("a series")).collect();
            assert_eq!(all.len(), 1);
            all[0].values.clone()
        };
        assert_eq!(read(&db), [4.0, 3.0, 2.0]);
        drop(db);
        assert_eq!(read(&Tsdb::open(config()).expect("opens again")), [4.0, 3.0, 2.0]);
    }
}
