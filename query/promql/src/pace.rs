//! What queries are to each other: those that take long go one after the other, so that short ones always find a
//! processor, and all of them together hold only so much memory.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A query that has run for so long is a long one.
const LONG: Duration = Duration::from_millis(50);
/// How often a query that waits looks whether it still should.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes are told to the others in pieces of about this size.
const PIECE: usize = 1 << 20;

/// Shared by the queries of one engine.
#[derive(Debug)]
pub(crate) struct Pace {
    free: Mutex<usize>,
    freed: Condvar,
    /// Bytes that all queries hold, about.
    held: AtomicUsize,
}

impl Pace {
    /// Half of the processors are for long queries, one at least.
    pub(crate) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Pace { free: Mutex::new((processors / 2).max(1)), freed: Condvar::new(), held: AtomicUsize::new(0) }
    }

    fn take(&self) -> bool {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if *free == 0 {
            free = self.freed.wait_timeout(free, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        let got = *free > 0;
        *free -= usize::from(got);
        got
    }

    fn give(&self) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.freed.notify_one();
    }
}

/// One query's part in it.
pub(crate) struct Turn {
    pace: Arc<Pace>,
    began: Instant,
    long: Cell<bool>,
    told: RefCell<usize>,
}

impl Turn {
    pub(crate) fn new(pace: Arc<Pace>, began: Instant) -> Self {
        Turn { pace, began, long: Cell::new(false), told: RefCell::new(0) }
    }

    /// Returns at once for a short query, and for a long one that has its place; false if it must ask again.
    pub(crate) fn mine(&self, now: Instant) -> bool {
        if self.long.get() || now.saturating_duration_since(self.began) < LONG {
            return true;
        }
        self.long.set(self.pace.take());
        self.long.get()
    }

    /// Tells what this query holds; gives back what all hold.
    pub(crate) fn tell(&self, used: usize) -> usize {
        let mut told = self.told.borrow_mut();
        if used.abs_diff(*told) >= PIECE {
            if used > *told {
                self.pace.held.fetch_add(used - *told, Ordering::Relaxed);
            } else {
                self.pace.held.fetch_sub(*told - used, Ordering::Relaxed);
            }
            *told = used;
        }
        self.pace.held.load(Ordering::Relaxed)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.pace.held.fetch_sub(*self.told.borrow(), Ordering::Relaxed);
        if self.long.get() {
            self.pace.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_queries_wait_for_each_other_and_short_ones_for_nobody() {
        let pace = Arc::new(Pace { free: Mutex::new(1), freed: Condvar::new(), held: AtomicUsize::new(0) });
        let began = signal::time::monotonic();
        let later = began + LONG;
        let (a, b, c) =
            (Turn::new(pace.clone(), began), Turn::new(pace.clone(), began), Turn::new(pace.clone(), later));
        assert!(a.mine(later) && a.mine(later));
        assert!(!b.mine(later) && c.mine(later));
        assert_eq!(a.tell(5 * PIECE), 5 * PIECE);
        assert_eq!(c.tell(PIECE), 6 * PIECE);
        drop(a);
        assert!(b.mine(later));
        assert_eq!(b.tell(0), PIECE);
        drop(c);
        assert_eq!(b.tell(0), 0);
    }
}
