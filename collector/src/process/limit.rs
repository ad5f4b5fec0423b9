//! Limits of each namespace: what is over them is refused as a whole, with the time after which it may come again.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use signal::{LogBatch, SinkError, SpanBatch, Timestamp};

use super::rules::Rules;

/// Seconds of a rate that may come at once.
const BURST_SECONDS: f64 = 30.0;
/// Namespaces whose rates are known; more would be names that somebody makes up.
const MOST_NAMESPACES: usize = 10_000;

#[derive(Default)]
pub(super) struct Limits {
    lines: Buckets,
    bytes: Buckets,
    spans: Buckets,
}

impl Limits {
    pub(super) fn take_lines(
        &self,
        batch: &LogBatch,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<(), SinkError> {
        let mut lines: HashMap<&str, (u64, u64)> = HashMap::new();
        let mut bytes: HashMap<&str, (u64, u64)> = HashMap::new();
        for s in &batch.streams {
            let r = rules.of(&s.labels);
            let namespace = s.labels.get("namespace").unwrap_or_default();
            if r.lines_per_second > 0 {
                let e = lines.entry(namespace).or_insert((0, r.lines_per_second));
                e.0 += s.records.len() as u64;
            }
            if r.bytes_per_second > 0 {
                let e = bytes.entry(namespace).or_insert((0, r.bytes_per_second));
                e.0 += s.records.iter().map(|r| r.body.len() as u64).sum::<u64>();
            }
        }
        self.lines.take(&lines, now, "lines")?;
        self.bytes.take(&bytes, now, "bytes of lines")
    }

    pub(super) fn take_spans(&self, batch: &SpanBatch, rate: u64, now: Timestamp) -> Result<(), SinkError> {
        if rate == 0 {
            return Ok(());
        }
        let mut spans: HashMap<&str, (u64, u64)> = HashMap::new();
        for s in &batch.streams {
            spans.entry(s.labels.get("namespace").unwrap_or_default()).or_insert((0, rate)).0 +=
                s.spans.len() as u64;
        }
        self.spans.take(&spans, now, "spans")
    }
}

/// What is left of each namespace's rate, and when that was.
#[derive(Default)]
struct Buckets(Mutex<HashMap<String, (f64, Timestamp)>>);

impl Buckets {
    /// All of it or nothing. A batch that is larger than a full bucket passes when it is full.
    fn take(&self, wanted: &HashMap<&str, (u64, u64)>, now: Timestamp, what: &str) -> Result<(), SinkError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut all = self.0.lock();
        if all.len() > MOST_NAMESPACES {
            all.clear();
        }
        for (namespace, (n, rate)) in wanted {
            let most = *rate as f64 * BURST_SECONDS;
            let (left, at) = all.get(*namespace).copied().unwrap_or((most, now));
            let left = (left + now.since(at).as_secs_f64() * *rate as f64).min(most);
            let missing = (*n as f64).min(most) - left;
            if missing > 0.0 {
                let retry_after = Duration::from_secs_f64(missing / *rate as f64);
                let what = format!("namespace {namespace:?} sends more than {rate} {what} a second");
                return Err(SinkError::Overloaded { what: what.into(), retry_after });
            }
            all.insert((*namespace).to_owned(), (left, now));
        }
        for (namespace, (n, _)) in wanted {
            if let Some((left, _)) = all.get_mut(*namespace) {
                *left = (*left - *n as f64).max(0.0);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_steady_excess_does_not() {
        let buckets = Buckets::default();
        let take = |n: u64, at: i64| {
            let wanted = HashMap::from([("a", (n, 10))]);
            buckets.take(&wanted, Timestamp::from_secs(at), "lines").map_err(|e| match e {
                SinkError::Overloaded { retry_after, .. } => retry_after.as_secs(),
                _ => 0,
            })
        };
        assert_eq!(take(300, 0), Ok(()));
        assert_eq!(take(20, 0), Err(2));
        assert_eq!(take(20, 1), Err(1));
        assert_eq!(take(20, 2), Ok(()));
        assert_eq!(take(1_000_000, 3), Err(29));
        assert_eq!(take(1_000_000, 32), Ok(()), "more than a bucket holds passes once it is full");
        assert_eq!(take(10, 32), Err(1));
    }
}
