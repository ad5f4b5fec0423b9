//! One priority level: so many seats, and queues before them that flows are dealt to as cards are
//! (apiserver: pkg/util/flowcontrol/fairqueuing, pkg/util/shufflesharding).
//!
//! A flow may wait in a few of many queues, its hand, and takes the emptiest. A flood fills its own hand; another
//! flow's hand is likely to hold a queue the flood is not in. Queues take turns by how much each was served.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How a level is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Every request goes at once.
    pub(crate) exempt: bool,
    pub(crate) seats: u32,
    /// 0: nobody waits, who finds no seat is refused.
    pub(crate) queues: usize,
    pub(crate) hand: usize,
    /// Requests that may wait in one queue.
    pub(crate) length: usize,
}

/// What becomes of a request at once.
pub(crate) enum Admission {
    Seated(Seat),
    Waits(oneshot::Receiver<Seat>),
    /// Upstream's word for why.
    Refused(&'static str),
}

/// The right to be served, given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    level: Arc<Level>,
    width: u32,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.level.leave(self.width);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Level {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    limits: Limits,
    seated: u32,
    waiting: usize,
    queues: Vec<Queue>,
    /// The turn that was last given: a queue that was empty begins here, not in the past.
    turn: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    /// Seats it was given so far.
    served: u64,
}

#[derive(Debug)]
struct Waiter {
    width: u32,
    ready: oneshot::Sender<Seat>,
}

impl Level {
    pub(crate) fn set(self: &Arc<Self>, limits: Limits) {
        let mut s = self.state.lock();
        if s.limits == limits {
            return;
        }
        s.limits = limits;
        // Queues that are no longer dealt are emptied by their turns.
        if s.queues.len() < limits.queues {
            s.queues.resize_with(limits.queues, Queue::default);
        }
        self.seat_waiters(&mut s);
    }

    /// (seats taken, requests that wait).
    pub(crate) fn load(&self) -> (u32, usize) {
        let s = self.state.lock();
        (s.seated, s.waiting)
    }

    /// A request of a flow, which takes `width` seats.
    pub(crate) fn enter(self: &Arc<Self>, flow: u64, width: u32) -> Admission {
        let mut s = self.state.lock();
        if s.limits.exempt {
            s.seated += width;
            return Admission::Seated(Seat { level: self.clone(), width });
        }
        let width = width.clamp(1, s.limits.seats.max(1));
        if s.waiting == 0 && s.seated + width <= s.limits.seats {
            s.seated += width;
            return Admission::Seated(Seat { level: self.clone(), width });
        }
        if s.limits.queues == 0 {
            return Admission::Refused("concurrency-limit");
        }
        let dealt = hand(flow, s.limits.queues, s.limits.hand);
        let Some(chosen) = dealt.into_iter().min_by_key(|q| s.queues[*q].waiters.len()) else {
            return Admission::Refused("concurrency-limit");
        };
        let (turn, length) = (s.turn, s.limits.length);
        let queue = &mut s.queues[chosen];
        let before = queue.waiters.len();
        if before >= length {
            // Who went away need not be waited behind.
            queue.waiters.retain(|w| !w.ready.is_closed());
        }
        let gone = before - queue.waiters.len();
        let full = queue.waiters.len() >= length;
        let (ready, seat) = oneshot::channel();
        if !full {
            if queue.waiters.is_empty() {
                queue.served = queue.served.max(turn);
            }
            queue.waiters.push_back(Waiter { width, ready });
        }
        s.waiting = s.waiting - gone + usize::from(!full);
        if full { Admission::Refused("queue-full") } else { Admission::Waits(seat) }
    }

    fn leave(self: &Arc<Self>, width: u32) {
        let mut s = self.state.lock();
        s.seated -= width;
        self.seat_waiters(&mut s);
    }

    /// Gives free seats to those whose turn it is.
    fn seat_waiters(self: &Arc<Self>, s: &mut State) {
        while s.waiting > 0 {
            let waiting = s.queues.iter_mut().filter(|q| !q.waiters.is_empty());
            let Some(queue) = waiting.min_by_key(|q| q.served) else { return };
            let Some(width) = queue.waiters.front().map(|w| w.width) else { return };
            // A limit that shrank must not keep a wide request out for ever.
            if s.seated > 0 && s.seated + width > s.limits.seats {
                return;
            }
            let Some(next) = queue.waiters.pop_front() else { return };
            s.waiting -= 1;
            if next.ready.is_closed() {
                continue;
            }
            s.turn = queue.served;
            queue.served += u64::from(width);
            s.seated += width;
            if let Err(seat) = next.ready.send(Seat { level: self.clone(), width }) {
                // It went away this moment. Its seat must not come back by Drop: we hold the lock.
                std::mem::forget(seat);
                s.seated -= width;
            }
        }
    }
}

/// The queues a flow may wait in: `size` different ones of `queues`, dealt by the flow's hash.
fn hand(mut flow: u64, queues: usize, size: usize) -> Vec<usize> {
    let mut cards: Vec<usize> = Vec::with_capacity(size);
    for dealt in 0..size.min(queues) {
        let left = (queues - dealt) as u64;
        let mut card = (flow % left) as usize;
        flow /= left;
        // The card-th of those that are not dealt yet.
        let mut sorted = cards.clone();
        sorted.sort_unstable();
        for c in sorted {
            if c <= card {
                card += 1;
            }
        }
        cards.push(card);
    }
    cards
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(seats: u32, queues: usize, hand: usize, length: usize) -> Arc<Level> {
        let level = Arc::new(Level::default());
        level.set(Limits { exempt: false, seats, queues, hand, length });
        level
    }

    fn seated(a: Admission) -> Seat {
        match a {
            Admission::Seated(s) => s,
            Admission::Waits(_) => panic!("it waits"),
            Admission::Refused(why) => panic!("refused: {why}"),
        }
    }

    fn waits(a: Admission) -> oneshot::Receiver<Seat> {
        match a {
            Admission::Waits(r) => r,
            Admission::Seated(_) => panic!("it is seated"),
            Admission::Refused(why) => panic!("refused: {why}"),
        }
    }

    #[test]
    fn hands_are_of_different_queues() {
        for flow in (0..5000).map(|n| n * 0x9e37_79b9_7f4a) {
            for (queues, size) in [(64, 6), (5, 5), (3, 8), (1, 1)] {
                let mut h = hand(flow, queues, size);
                assert_eq!(h.len(), size.min(queues));
                assert!(h.iter().all(|q| *q < queues));
                h.sort_unstable();
                h.dedup();
                assert_eq!(h.len(), size.min(queues), "{flow}");
            }
        }
    }

    #[test]
    fn seats_are_given_back_and_passed_on() {
        let l = level(2, 4, 2, 10);
        let (a, b) = (seated(l.enter(1, 1)), seated(l.enter(2, 1)));
        let mut c = waits(l.enter(3, 1));
        assert!(c.try_recv().is_err());
        drop(a);
        let c = c.try_recv().expect("its turn");
        assert_eq!(l.load(), (2, 0));
        drop((b, c));
        assert_eq!(l.load(), (0, 0));
    }

    #[test]
    fn without_queues_who_finds_no_seat_is_refused() {
        let l = level(1, 0, 0, 0);
        let _seat = seated(l.enter(1, 1));
        assert!(matches!(l.enter(1, 1), Admission::Refused("concurrency-limit")));
    }

    #[test]
    fn a_flood_is_refused_and_another_flow_takes_turns_with_it() {
        let l = level(1, 64, 4, 5);
        let first = seated(l.enter(7, 1));
        let mut flood = Vec::new();
        let refused = (0..100)
            .filter(|_| match l.enter(7, 1) {
                Admission::Waits(r) => {
                    flood.push(r);
                    false
                }
                Admission::Refused(why) => {
                    assert_eq!(why, "queue-full");
                    true
                }
                Admission::Seated(_) => panic!("there is no seat"),
            })
            .count();
        // Its hand is four queues of five.
        assert_eq!((flood.len(), refused), (20, 80));
        let mut other = waits(l.enter(0x1234_5678_9abc, 1));
        drop(first);
        let mut turns = 0;
        while other.try_recv().is_err() {
            let next = flood.iter_mut().find_map(|r| r.try_recv().ok()).expect("somebody's turn");
            turns += 1;
            drop(next);
        }
        assert!(turns <= 5, "the other flow waited {turns} turns behind a flood of 20");
    }

    #[test]
    fn who_goes_away_takes_no_seat_and_no_place() {
        let l = level(1, 1, 1, 2);
        let first = seated(l.enter(1, 1));
        drop((waits(l.enter(1, 1)), waits(l.enter(1, 1))));
        let mut third = waits(l.enter(1, 1));
        assert_eq!(l.load(), (1, 1));
        drop(first);
        third.try_recv().expect("its turn");
        assert_eq!(l.load(), (0, 0));
    }

    #[test]
    fn a_wide_request_waits_for_room_and_is_no_wider_than_the_level() {
        let l = level(4, 2, 1, 9);
        let one = seated(l.enter(1, 1));
        // Flow 2 is dealt the first queue, whose turn it is among equals.
        let mut wide = waits(l.enter(2, 10));
        let mut narrow = waits(l.enter(1, 1));
        drop(one);
        let wide = wide.try_recv().expect("all four seats");
        assert!(narrow.try_recv().is_err());
        drop(wide);
        narrow.try_recv().expect("its turn");
    }

    #[test]
    fn limits_change_under_way() {
        let l = level(1, 1, 1, 9);
        let _first = seated(l.enter(1, 1));
        let mut second = waits(l.enter(1, 1));
        l.set(Limits { exempt: false, seats: 2, queues: 1, hand: 1, length: 9 });
        second.try_recv().expect("there are two seats now");
    }
}
