//! What a controller has written but not yet seen in its cache.
//!
//! Without it a reconcile that runs before the watch has caught up would create the same pods again
//! (client-go: ControllerExpectations).

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use client::Key;
use parking_lot::Mutex;
use signal::time::monotonic;

/// After this the cache is believed again, whatever it shows.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Pending {
    /// Uids written as created and not seen yet.
    creations: HashSet<String>,
    /// Uids deleted and still seen.
    deletions: HashSet<String>,
    since: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct Expectations {
    by_owner: Mutex<HashMap<Key, Pending>>,
}

impl Expectations {
    /// `seen` tells whether the cache shows the uid already; it is asked under the lock, so that a
    /// notification cannot slip between.
    pub(crate) fn expect_creation(&self, owner: &Key, uid: String, seen: impl Fn() -> bool) {
        let mut map = self.by_owner.lock();
        if !seen() {
            let p = map.entry(owner.clone()).or_default();
            p.creations.insert(uid);
            p.since = Some(monotonic());
        }
    }

    pub(crate) fn expect_deletion(&self, owner: &Key, uid: String, still_there: impl Fn() -> bool) {
        let mut map = self.by_owner.lock();
        if still_there() {
            let p = map.entry(owner.clone()).or_default();
            p.deletions.insert(uid);
            p.since = Some(monotonic());
        }
    }

    pub(crate) fn created(&self, owner: &Key, uid: &str) {
        self.observe(owner, |p| p.creations.remove(uid));
    }

    /// The object is marked deleted or gone.
    pub(crate) fn deleted(&self, owner: &Key, uid: &str) {
        self.observe(owner, |p| p.creations.remove(uid) | p.deletions.remove(uid));
    }

    fn observe(&self, owner: &Key, f: impl Fn(&mut Pending) -> bool) {
        let mut map = self.by_owner.lock();
        if let Some(p) = map.get_mut(owner) {
            f(p);
            if p.creations.is_empty() && p.deletions.is_empty() {
                map.remove(owner);
            }
        }
    }

    /// True if the cache shows everything that was written.
    pub(crate) fn satisfied(&self, owner: &Key) -> bool {
        let mut map = self.by_owner.lock();
        match map.get(owner).and_then(|p| p.since) {
            Some(since) if since.elapsed() < TIMEOUT => false,
            Some(_) => {
                map.remove(owner);
                true
            }
            None => true,
        }
    }

    pub(crate) fn forget(&self, owner: &Key) {
        self.by_owner.lock().remove(owner);
    }
}
