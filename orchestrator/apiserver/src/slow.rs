//! Where a request's time goes, and the line about those that took long (upstream: a trace above half a second).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::request::RequestInfo;

/// Longer than this is worth a line.
pub(crate) const SLOW: Duration = Duration::from_millis(500);
/// A webhook that is called again is two stations; nothing passes more.
const MOST: usize = 16;

/// When a request left each part of its road.
#[derive(Debug, Default)]
pub(crate) struct Stations {
    all: Mutex<Vec<(&'static str, Instant)>>,
    /// Nanoseconds that others took: webhooks.
    webhooks: AtomicU64,
}

impl Stations {
    /// The part of this name ends now.
    pub(crate) fn left(&self, part: &'static str, now: Instant) {
        let mut all = self.all.lock();
        if all.len() < MOST {
            all.push((part, now));
        }
    }

    /// Webhooks were waited for.
    pub(crate) fn called(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.webhooks.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The time that was not the server's own: queues and webhooks.
    pub(crate) fn elsewhere(&self) -> Duration {
        let all = self.all.lock();
        let queue = all.iter().position(|(part, _)| *part == "queue").filter(|at| *at > 0);
        let queued = queue.map_or(Duration::ZERO, |at| all[at].1.saturating_duration_since(all[at - 1].1));
        queued + Duration::from_nanos(self.webhooks.load(Ordering::Relaxed))
    }

    /// `authentication 0.3ms, queue 812.1ms, …`, and the part that took longest.
    pub(crate) fn told(&self, started: Instant, ended: Instant) -> (String, &'static str) {
        let (mut text, mut longest, mut from) = (String::new(), ("", Duration::ZERO), started);
        let all = self.all.lock();
        for (part, at) in all.iter().copied().chain([("answer", ended)]) {
            let took = at.saturating_duration_since(from);
            from = at;
            if took > longest.1 || longest.0.is_empty() {
                longest = (part, took);
            }
            let comma = if text.is_empty() { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(text, "{comma}{part} {:.1}ms", took.as_secs_f64() * 1e3);
        }
        (text, longest.0)
    }
}

/// Says what was slow and which part of it, under the id that the client has in `Audit-Id`.
pub(crate) fn report(
    info: &RequestInfo,
    id: &str,
    took: Duration,
    code: u16,
    parts: &str,
    longest: &'static str,
) {
    tracing::warn!(
        target: "apiserver",
        audit_id = id,
        verb = info.verb,
        resource = info.resource,
        subresource = info.subresource,
        namespace = info.namespace,
        name = info.name,
        path = info.path,
        code,
        took_ms = took.as_millis() as u64,
        longest,
        parts,
        "slow request"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_part_is_named() {
        let start = signal::time::monotonic();
        let ms = Duration::from_millis;
        let s = Stations::default();
        s.left("authentication", start + ms(2));
        s.left("queue", start + ms(702));
        s.left("authorization", start + ms(703));
        let (text, longest) = s.told(start, start + ms(753));
        assert_eq!(text, "authentication 2.0ms, queue 700.0ms, authorization 1.0ms, answer 50.0ms");
        assert_eq!(longest, "queue");
    }
}
