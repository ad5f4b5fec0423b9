//! A queue of keys to reconcile: each key waits at most once, is worked on by one worker at a time, and comes
//! back with growing delay when it fails (client-go: util/workqueue).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures::FutureExt;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use signal::time::monotonic;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// First delay after a failure; doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MOST: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabel {
    name: &'static str,
}

struct Metrics {
    depth: Family<NameLabel, Gauge>,
    adds: Family<NameLabel, Counter>,
    retries: Family<NameLabel, Counter>,
    queued: Family<NameLabel, Histogram>,
    worked: Family<NameLabel, Histogram>,
}

/// What one queue counts.
struct Counted {
    depth: Gauge,
    adds: Counter,
    retries: Counter,
    queued: Histogram,
    worked: Histogram,
}

impl Counted {
    fn of(name: &'static str) -> Counted {
        let l = NameLabel { name };
        Counted {
            depth: METRICS.depth.get_or_create_owned(&l),
            adds: METRICS.adds.get_or_create_owned(&l),
            retries: METRICS.retries.get_or_create_owned(&l),
            queued: METRICS.queued.get_or_create_owned(&l),
            worked: METRICS.worked.get_or_create_owned(&l),
        }
    }
}

fn durations() -> Histogram {
    Histogram::new([0.001, 0.01, 0.1, 1.0, 10.0, 100.0])
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let m = Metrics {
        depth: Family::default(),
        adds: Family::default(),
        retries: Family::default(),
        queued: Family::new_with_constructor(durations),
        worked: Family::new_with_constructor(durations),
    };
    telemetry::metrics::register(|r| {
        r.register("workqueue_depth", "Keys waiting", m.depth.clone());
        r.register("workqueue_adds", "Keys added", m.adds.clone());
        r.register("workqueue_retries", "Keys put back after a failure", m.retries.clone());
        r.register("workqueue_queue_duration_seconds", "How long keys waited", m.queued.clone());
        r.register("workqueue_work_duration_seconds", "How long keys were worked on", m.worked.clone());
    });
    m
});

struct State<T> {
    /// With the time since when.
    ready: VecDeque<(T, Instant)>,
    /// In `ready`, or to be put there when its worker is done.
    dirty: HashSet<T>,
    working: HashMap<T, Instant>,
    delayed: BTreeSet<(Instant, T)>,
    delays: BTreeMap<T, Instant>,
    failures: HashMap<T, u32>,
}

/// Bounded by the number of distinct keys: a key waits at most once.
pub struct WorkQueue<T> {
    name: &'static str,
    counted: Counted,
    state: Mutex<State<T>>,
    changed: Notify,
}

/// What a reconcile asks for when it succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconcile {
    /// Wait for the next change.
    Done,
    /// Come again after this time, change or not.
    After(Duration),
}

impl<T: Clone + Eq + Ord + Hash + Debug + Display + Send + Sync + 'static> WorkQueue<T> {
    pub fn new(name: &'static str) -> Arc<Self> {
        Arc::new(WorkQueue {
            name,
            counted: Counted::of(name),
            state: Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashSet::new(),
                working: HashMap::new(),
                delayed: BTreeSet::new(),
                delays: BTreeMap::new(),
                failures: HashMap::new(),
            }),
            changed: Notify::new(),
        })
    }

    pub fn add(&self, key: T) {
        let mut s = self.state.lock();
        if !s.dirty.insert(key.clone()) {
            return;
        }
        self.counted.adds.inc();
        if !s.working.contains_key(&key) {
            s.ready.push_back((key, monotonic()));
            self.counted.depth.set(s.ready.len() as i64);
            drop(s);
            self.changed.notify_one();
        }
    }

    /// Adds after a delay; an earlier delay for the same key wins.
    pub fn add_after(&self, key: T, delay: Duration) {
        let at = monotonic() + delay;
        let mut s = self.state.lock();
        if let Some(&before) = s.delays.get(&key) {
            if before <= at {
                return;
            }
            s.delayed.remove(&(before, key.clone()));
        }
        s.delays.insert(key.clone(), at);
        s.delayed.insert((at, key));
        drop(s);
        self.changed.notify_one();
    }

    async fn get(&self) -> T {
        loop {
            let next = {
                let mut s = self.state.lock();
                let now = monotonic();
                while let Some((at, key)) = s.delayed.first().cloned() {
                    if at > now {
                        break;
                    }
                    s.delayed.pop_first();
                    s.delays.remove(&key);
                    if s.dirty.insert(key.clone()) && !s.working.contains_key(&key) {
                        s.ready.push_back((key, now));
                    }
                }
                if let Some((key, since)) = s.ready.pop_front() {
                    self.counted.queued.observe(now.saturating_duration_since(since).as_secs_f64());
                    s.dirty.remove(&key);
                    s.working.insert(key.clone(), now);
                    self.counted.depth.set(s.ready.len() as i64);
                    if !s.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return key;
                }
                s.delayed.first().map(|(at, _)| *at)
            };
            match next {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    fn done(&self, key: T, result: Result<Reconcile, ()>) {
        let mut s = self.state.lock();
        let now = monotonic();
        if let Some(since) = s.working.remove(&key) {
            self.counted.worked.observe(now.saturating_duration_since(since).as_secs_f64());
        }
        if s.dirty.contains(&key) {
            s.ready.push_back((key.clone(), now));
            self.counted.depth.set(s.ready.len() as i64);
        }
        let delay = match result {
            Ok(outcome) => {
                s.failures.remove(&key);
                match outcome {
                    Reconcile::Done => None,
                    Reconcile::After(d) => Some(d),
                }
            }
            Err(()) => {
                let n = s.failures.entry(key.clone()).or_default();
                *n += 1;
                self.counted.retries.inc();
                Some(BACKOFF_FIRST.saturating_mul(1 << (*n - 1).min(20)).min(BACKOFF_MOST))
            }
        };
        drop(s);
        self.changed.notify_one();
        if let Some(d) = delay {
            self.add_after(key, d);
        }
    }

    /// Works on keys with `workers` tasks at once until `stop`. A failure or panic puts the key back with delay.
    pub async fn run<F, Fut, E>(self: Arc<Self>, workers: usize, stop: CancellationToken, reconcile: F)
    where
        F: Fn(T) -> Fut + Send + Sync + Clone + 'static,
        Fut: Future<Output = Result<Reconcile, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let tasks: Vec<_> = (0..workers.max(1))
            .map(|_| {
                let (queue, stop, reconcile) = (self.clone(), stop.clone(), reconcile.clone());
                telemetry::task::spawn(self.name, async move {
                    loop {
                        let key = tokio::select! {
                            () = stop.cancelled() => return,
                            key = queue.get() => key,
                        };
                        let result = AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await;
                        let result = match result {
                            Ok(Ok(outcome)) => Ok(outcome),
                            Ok(Err(e)) => {
                                tracing::warn!(queue = queue.name, key = %key, error = %e, "reconcile failed, trying again");
                                Err(())
                            }
                            Err(_) => {
                                tracing::error!(queue = queue.name, key = %key, "reconcile panicked, trying again");
                                Err(())
                            }
                        };
                        queue.done(key, result);
                    }
                })
            })
            .collect();
        for task in tasks {
            if let Err(e) = task.await {
                tracing::error!(queue = self.name, error = %e, "worker ended badly");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_key_waits_once_and_is_never_worked_on_twice_at_once() {
        let q = WorkQueue::new("test");
        q.add("a".to_owned());
        q.add("a".to_owned());
        q.add("b".to_owned());
        assert_eq!(q.get().await, "a");
        q.add("a".to_owned());
        assert_eq!(q.get().await, "b");
        q.done("a".to_owned(), Ok(Reconcile::Done));
        assert_eq!(q.get().await, "a");
    }

    #[tokio::test]
    async fn a_failing_or_panicking_key_comes_back() {
        let q = WorkQueue::new("test-fail");
        q.add("a".to_owned());
        let stop = CancellationToken::new();
        let tries = Arc::new(AtomicU32::new(0));
        let (t, s) = (tries.clone(), stop.clone());
        q.run(2, stop, move |_| {
            let (t, s) = (t.clone(), s.clone());
            async move {
                match t.fetch_add(1, Ordering::SeqCst) {
                    0 => Err("once"),
                    1 => panic!("twice"),
                    _ => {
                        s.cancel();
                        Ok(Reconcile::Done)
                    }
                }
            }
        })
        .await;
        assert_eq!(tries.load(Ordering::SeqCst), 3);
    }
}
