//! Questions about pods that several controllers ask.

use std::cmp::{Ordering, Reverse};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

/// Neither finished nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !matches!(phase(pod), "Succeeded" | "Failed") && pod.metadata.deletion_timestamp.is_none()
}

pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_deref()?.iter().find(|c| c.type_ == type_)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// When the pod became ready, if it is.
fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready").filter(|c| c.status == "True")?.last_transition_time.as_ref().map(|t| t.0)
}

/// Ready for at least `min_ready_seconds`. If not yet, but ready: the time at which it will be.
pub(crate) fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Result<bool, Timestamp> {
    if !is_ready(pod) {
        return Ok(false);
    }
    if min_ready_seconds <= 0 {
        return Ok(true);
    }
    let Some(since) = ready_since(pod) else { return Ok(false) };
    let due = since + jiff::SignedDuration::from_secs(min_ready_seconds.into());
    if due <= now { Ok(true) } else { Err(due) }
}

/// Which pod to delete first: the smaller (kubernetes: pkg/controller ActivePodsWithRanks).
pub(crate) fn deletion_order(a: &Pod, b: &Pod) -> Ordering {
    let rank = |p: &Pod| {
        let assigned = p.spec.as_ref().is_some_and(|s| s.node_name.as_deref().is_some_and(|n| !n.is_empty()));
        let phase = match phase(p) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let cost: i32 = p
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost")?.parse().ok())
            .unwrap_or(0);
        let restarts: i32 = p
            .status
            .as_ref()
            .and_then(|s| s.container_statuses.as_ref())
            .map_or(0, |c| c.iter().map(|c| c.restart_count).max().unwrap_or(0));
        (
            assigned,
            phase,
            is_ready(p),
            cost,
            // Ready for less time, restarted more, created later: first.
            Reverse(ready_since(p)),
            Reverse(restarts),
            Reverse(p.metadata.creation_timestamp.as_ref().map(|t| t.0)),
        )
    };
    rank(a).cmp(&rank(b))
}
