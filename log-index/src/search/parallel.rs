//! Work on several threads whose results are taken in order.

use std::collections::HashMap;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

/// More threads than this for one search leave none for others.
const THREADS: usize = 8;

struct Shared<T> {
    state: Mutex<State<T>>,
    /// A result is there, or there is room for more.
    changed: Condvar,
}

struct State<T> {
    next: usize,
    taken: usize,
    done: HashMap<usize, T>,
    stop: bool,
}

/// Ends the others if the thread that holds it panics: nobody waits for what will not come.
struct StopOnPanic<'a, T>(&'a Shared<T>);

impl<T> Drop for StopOnPanic<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state.lock().stop = true;
            self.0.changed.notify_all();
        }
    }
}

/// `each(i, map(i))` for every `i` below `count`, in order, until `each` breaks. The first is made on this thread:
/// many searches need no more.
pub(crate) fn in_order<T: Send>(
    count: usize,
    map: impl Fn(usize) -> T + Sync,
    mut each: impl FnMut(usize, T) -> ControlFlow<()>,
) {
    if count == 0 || each(0, map(0)).is_break() || count == 1 {
        return;
    }
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS).min(count - 1);
    if threads < 2 {
        let _ = (1..count).try_for_each(|i| each(i, map(i)));
        return;
    }
    let state = State { next: 1, taken: 1, done: HashMap::new(), stop: false };
    let shared = Shared { state: Mutex::new(state), changed: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&shared, count, threads * 2, &map));
        }
        let stop = StopOnPanic(&shared);
        for i in 1..count {
            let mut state = shared.state.lock();
            let found = loop {
                if let Some(found) = state.done.remove(&i) {
                    break found;
                }
                if state.stop {
                    return;
                }
                shared.changed.wait(&mut state);
            };
            state.taken = i + 1;
            drop(state);
            shared.changed.notify_all();
            if each(i, found).is_break() {
                break;
            }
        }
        shared.state.lock().stop = true;
        shared.changed.notify_all();
        drop(stop);
    });
}

/// `map(i)` for every `i` below `count`, on so many threads, this one among them.
pub(crate) fn all<T: Send>(count: usize, threads: usize, map: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if threads.min(count) < 2 {
        return (0..count).map(map).collect();
    }
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(count)));
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return;
            }
            let found = map(i);
            done.lock().push((i, found));
        }
    };
    std::thread::scope(|scope| {
        (1..threads.min(count)).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    let mut done = done.into_inner();
    done.sort_unstable_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, found)| found).collect()
}

fn work<T: Send>(shared: &Shared<T>, count: usize, ahead: usize, map: &(impl Fn(usize) -> T + Sync)) {
    let _stop = StopOnPanic(shared);
    loop {
        let i = {
            let mut state = shared.state.lock();
            while !state.stop && state.next < count && state.next >= state.taken + ahead {
                shared.changed.wait(&mut state);
            }
            if state.stop || state.next >= count {
                return;
            }
            state.next += 1;
            state.next - 1
        };
        let found = map(i);
        shared.state.lock().done.insert(i, found);
        shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_may_be_ended() {
        for count in [0, 1, 2, 100] {
            let mut got = Vec::new();
            in_order(
                count,
                |i| i * 2,
                |i, v| {
                    got.push((i, v));
                    ControlFlow::Continue(())
                },
            );
            assert_eq!(got, (0..count).map(|i| (i, i * 2)).collect::<Vec<_>>());
        }
        let mut got = 0;
        in_order(
            1000,
            |i| i,
            |i, _| {
                got = i;
                if i == 17 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        assert_eq!(got, 17);
    }

    #[test]
    fn all_is_made_once_and_in_order() {
        for (count, threads) in [(0, 4), (1, 4), (3, 1), (100, 4), (2, 9)] {
            let made = AtomicUsize::new(0);
            let got = all(count, threads, |i| {
                made.fetch_add(1, Ordering::Relaxed);
                i * 2
            });
            assert_eq!(got, (0..count).map(|i| i * 2).collect::<Vec<_>>());
            assert_eq!(made.into_inner(), count);
        }
    }

    #[test]
    fn a_panic_ends_it() {
        let run = || {
            in_order(100, |i| assert!(i != 50, "no fifty"), |_, ()| ControlFlow::Continue(()));
        };
        assert!(std::panic::catch_unwind(run).is_err());
    }
}
