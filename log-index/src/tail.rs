//! Following: what is appended, as it is appended, to whoever asked. A slow reader loses, and is told how much.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use signal::{LogStream, Matcher};
use tokio::sync::mpsc;

/// What one append brought that a tail asked for.
#[derive(Clone, Debug)]
pub struct TailBatch {
    pub streams: Vec<Arc<LogStream>>,
    /// Records that were dropped since the batch before because the reader was slow.
    pub dropped: u64,
}

/// A live view of new records. Dropping it ends it.
pub struct Tail {
    rx: mpsc::Receiver<Vec<Arc<LogStream>>>,
    dropped: Arc<AtomicU64>,
}

impl Tail {
    /// The next records; `None` once the index is closed. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<TailBatch> {
        let streams = self.rx.recv().await?;
        Some(TailBatch { streams, dropped: self.dropped.swap(0, Ordering::Relaxed) })
    }
}

struct Subscriber {
    matchers: Vec<Matcher>,
    tx: mpsc::Sender<Vec<Arc<LogStream>>>,
    dropped: Arc<AtomicU64>,
}

#[derive(Default)]
pub(crate) struct Tails {
    all: Mutex<Vec<Subscriber>>,
    pub(crate) dropped: AtomicU64,
}

impl Tails {
    pub(crate) fn subscribe(&self, matchers: Vec<Matcher>, batches: usize) -> Tail {
        let (tx, rx) = mpsc::channel(batches.max(1));
        let dropped = Arc::new(AtomicU64::new(0));
        self.all.lock().push(Subscriber { matchers, tx, dropped: dropped.clone() });
        Tail { rx, dropped }
    }

    pub(crate) fn wanted(&self) -> bool {
        !self.all.lock().is_empty()
    }

    pub(crate) fn publish(&self, streams: &[Arc<LogStream>]) {
        self.all.lock().retain(|s| {
            let fits =
                |l: &LogStream| s.matchers.iter().all(|m| m.matches(l.labels.get(&m.name).unwrap_or("")));
            let chosen: Vec<Arc<LogStream>> = streams.iter().filter(|l| fits(l)).cloned().collect();
            if chosen.is_empty() {
                return !s.tx.is_closed();
            }
            let records: usize = chosen.iter().map(|c| c.records.len()).sum();
            match s.tx.try_send(chosen) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    s.dropped.fetch_add(records as u64, Ordering::Relaxed);
                    self.dropped.fetch_add(records as u64, Ordering::Relaxed);
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
    }
}
