//! Pods that wait: active ones in order of priority and age; unschedulable ones until something changes
//! (kubernetes: pkg/scheduler/backend/queue).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use client::Key;
use k8s_openapi::api::core::v1::Pod;

/// First and longest wait of a pod that was tried in vain (`--pod-initial-backoff`, `--pod-max-backoff`).
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MOST: Duration = Duration::from_secs(10);

/// Higher priority first, then the older.
type Order = (Reverse<i32>, i64, Key);

#[derive(Default)]
pub(crate) struct Queue {
    active: BTreeSet<Order>,
    orders: BTreeMap<Key, Order>,
    /// Tried in vain: how often, and until when it backs off.
    failed: BTreeMap<Key, (u32, Instant)>,
    /// Those of `failed` that wait for their back-off only, since something has changed.
    backing_off: BTreeSet<(Instant, Key)>,
}

impl Queue {
    pub(crate) fn add(&mut self, pod: &Pod) {
        let key = Key::of(pod);
        let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
        let created = pod.metadata.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second());
        let order = (Reverse(priority), created, key.clone());
        self.active.insert(order.clone());
        self.orders.insert(key, order);
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(order) = self.orders.remove(key) {
            self.active.remove(&order);
        }
        if let Some((_, until)) = self.failed.remove(key) {
            self.backing_off.remove(&(until, key.clone()));
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Key> {
        self.active.pop_first().map(|(_, _, key)| key)
    }

    pub(crate) fn unschedulable(&mut self, key: &Key, now: Instant) {
        let entry = self.failed.entry(key.clone()).or_insert((0, now));
        entry.0 += 1;
        entry.1 = now + BACKOFF_FIRST.saturating_mul(1 << (entry.0 - 1).min(8)).min(BACKOFF_MOST);
    }

    /// Something changed that may help: every pod that waits may try again after its back-off.
    pub(crate) fn something_changed(&mut self, now: Instant) {
        for (key, (_, until)) in &self.failed {
            let Some(order) = self.orders.get(key) else { continue };
            if *until <= now {
                self.active.insert(order.clone());
            } else {
                self.backing_off.insert((*until, key.clone()));
            }
        }
    }

    /// Moves what has backed off long enough; tells when the next one will have.
    pub(crate) fn flush(&mut self, now: Instant) -> Option<Instant> {
        while let Some((until, key)) = self.backing_off.first().cloned() {
            if until > now {
                return Some(until);
            }
            self.backing_off.pop_first();
            if let Some(order) = self.orders.get(&key) {
                self.active.insert(order.clone());
            }
        }
        None
    }

    pub(crate) fn active_len(&self) -> usize {
        self.active.len()
    }

    pub(crate) fn waiting_len(&self) -> usize {
        self.failed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32, created: &str) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "n", "creationTimestamp": created},
            "spec": {"containers": [], "priority": priority}}),
        )
        .expect("a pod")
    }

    #[test]
    fn priority_then_age() {
        let mut q = Queue::default();
        q.add(&pod("late", 0, "2026-01-02T00:00:00Z"));
        q.add(&pod("early", 0, "2026-01-01T00:00:00Z"));
        q.add(&pod("vip", 9, "2026-01-03T00:00:00Z"));
        let order: Vec<_> = std::iter::from_fn(|| q.pop()).map(|k| k.name).collect();
        assert_eq!(order, ["vip", "early", "late"]);
    }

    #[test]
    fn a_pod_tried_in_vain_waits_for_a_change_and_its_back_off() {
        let mut q = Queue::default();
        let now = signal::time::monotonic();
        q.add(&pod("a", 0, "2026-01-01T00:00:00Z"));
        let key = q.pop().expect("a pod");
        q.unschedulable(&key, now);
        assert_eq!(q.flush(now + Duration::from_secs(60)), None);
        assert_eq!(q.pop(), None, "nothing has changed");
        q.something_changed(now);
        assert_eq!(q.flush(now), Some(now + BACKOFF_FIRST));
        assert_eq!(q.pop(), None, "it backs off");
        q.flush(now + BACKOFF_FIRST);
        assert_eq!(q.pop(), Some(key));
    }
}
