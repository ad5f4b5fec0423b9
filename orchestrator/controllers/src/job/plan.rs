//! What to do about one job. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::pod;

pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Most pods made in one reconcile.
const BURST: usize = 500;
/// The first wait behind a failure, and the longest.
const BACKOFF: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// One pod each, with its index in an indexed job.
    pub(super) create: Vec<Option<i32>>,
    /// Names of pods.
    pub(super) delete: Vec<String>,
    /// Names of pods whose finalizer goes once the status is written.
    pub(super) release: Vec<String>,
    pub(super) status: JobStatus,
    /// Warning or not, reason, note.
    pub(super) events: Vec<(bool, &'static str, String)>,
    pub(super) look_again: Option<Timestamp>,
    /// True: its time to live behind its end is over.
    pub(super) expired: Option<bool>,
}

fn is_failed(p: &Pod) -> bool {
    pod::phase(p) == "Failed" || p.metadata.deletion_timestamp.is_some() && pod::phase(p) != "Succeeded"
}

fn is_tracked(p: &Pod) -> bool {
    p.finalizers().iter().any(|f| f == TRACKING)
}

fn index_of(p: &Pod) -> Option<i32> {
    p.annotations().get(INDEX)?.parse().ok()
}

/// When the last container of a pod ended; else when it was marked deleted.
fn ended_at(p: &Pod) -> Option<Timestamp> {
    let statuses = p.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let ends = statuses.filter_map(|s| s.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ends.map(|t| t.0).max().or_else(|| p.metadata.deletion_timestamp.as_ref().map(|t| t.0))
}

fn restarts(p: &Pod) -> i32 {
    let status = p.status.as_ref();
    let all = status.iter().flat_map(|s| {
        s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten())
    });
    all.map(|c| c.restart_count).sum()
}

/// `0,2-4` ↔ {0, 2, 3, 4}
fn parse_indexes(text: &str) -> BTreeSet<i32> {
    let part = |p: &str| -> Option<std::ops::RangeInclusive<i32>> {
        let (a, b) = p.split_once('-').unwrap_or((p, p));
        Some(a.parse().ok()?..=b.parse().ok()?)
    };
    text.split(',').filter_map(part).flatten().collect()
}

fn print_indexes(all: &BTreeSet<i32>) -> String {
    let mut parts: Vec<(i32, i32)> = Vec::new();
    for i in all {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *i => *last = *i,
            _ => parts.push((*i, *i)),
        }
    }
    let words = parts.iter().map(|(a, b)| match b - a {
        0 => a.to_string(),
        1 => format!("{a},{b}"),
        _ => format!("{a}-{b}"),
    });
    words.collect::<Vec<_>>().join(",")
}

fn has(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

fn set(status: &mut JobStatus, kind: &str, is: bool, reason: &str, message: &str, now: Timestamp) {
    let word = if is { "True" } else { "False" };
    let all = status.conditions.get_or_insert_default();
    if all.iter().any(|c| c.type_ == kind && c.status == word) {
        return;
    }
    all.retain(|c| c.type_ != kind);
    all.push(JobCondition {
        type_: kind.to_owned(),
        status: word.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

/// `pods` are those the job controls.
pub(super) fn plan(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let spec = job.spec.clone().unwrap_or_default();
    let mut plan = Plan { status: job.status.clone().unwrap_or_default(), ..Plan::default() };
    count(&mut plan, pods);
    let finished = has(&plan.status, "Complete") || has(&plan.status, "Failed");
    let active: Vec<&Arc<Pod>> =
        pods.iter().filter(|p| !is_failed(p) && pod::phase(p) != "Succeeded").collect();
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let terminating = pods.iter().filter(|p| {
        p.metadata.deletion_timestamp.is_some() && pod::phase(p) != "Succeeded" && pod::phase(p) != "Failed"
    });
    plan.status.terminating = Some(number(terminating.count()));
    if finished {
        plan.delete = active.iter().map(|p| p.name_any()).collect();
        set_active(&mut plan.status, &[]);
        expire(&mut plan, spec.ttl_seconds_after_finished, now);
        return plan;
    }
    if job.metadata.deletion_timestamp.is_some() {
        set_active(&mut plan.status, &active);
        return plan;
    }
    if spec.suspend == Some(true) {
        set(&mut plan.status, "Suspended", true, "JobSuspended", "Job suspended", now);
        if plan.status.start_time.take().is_some() {
            plan.events.push((false, "Suspended", "Job suspended".to_owned()));
        }
        plan.delete = active.iter().map(|p| p.name_any()).collect();
        set_active(&mut plan.status, &[]);
        return plan;
    }
    if has(&plan.status, "Suspended") {
        set(&mut plan.status, "Suspended", false, "JobResumed", "Job resumed", now);
        plan.events.push((false, "Resumed", "Job resumed".to_owned()));
    }
    let start = plan.status.start_time.get_or_insert(Time(now)).0;

    // Those that wait to be counted have ended too.
    let waiting = plan.status.uncounted_terminated_pods.clone().unwrap_or_default();
    let all =
        |n: Option<i32>, more: &Option<Vec<String>>| n.unwrap_or(0) + number(more.iter().flatten().count());
    let succeeded = all(plan.status.succeeded, &waiting.succeeded);
    let failed = all(plan.status.failed, &waiting.failed);
    let limit = spec.backoff_limit.unwrap_or(6);
    let in_place = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) == Some("OnFailure");
    let restarted: i32 = if in_place { active.iter().map(|p| restarts(p)).sum() } else { 0 };
    let deadline = spec.active_deadline_seconds.map(|s| start + SignedDuration::from_secs(s));
    let failure = if failed > limit || in_place && restarted > 0 && restarted >= limit {
        Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
    } else if deadline.is_some_and(|d| d <= now) {
        Some(("DeadlineExceeded", "Job was active longer than specified deadline"))
    } else {
        None
    };
    let done = match spec.completions {
        Some(n) => succeeded >= n,
        None => succeeded > 0 && active.is_empty(),
    };
    if let Some((reason, message)) = failure {
        set(&mut plan.status, "FailureTarget", true, reason, message, now);
        plan.delete = active.iter().map(|p| p.name_any()).collect();
        set_active(&mut plan.status, &[]);
        if is_counted(&plan.status) && active.is_empty() {
            set(&mut plan.status, "Failed", true, reason, message, now);
            plan.events.push((true, reason, message.to_owned()));
        }
        return plan;
    }
    if done {
        let (reason, message) = ("CompletionsReached", "Reached expected number of succeeded pods");
        set(&mut plan.status, "SuccessCriteriaMet", true, reason, message, now);
        plan.delete = active.iter().map(|p| p.name_any()).collect();
        set_active(&mut plan.status, &[]);
        if is_counted(&plan.status) && active.is_empty() {
            set(&mut plan.status, "Complete", true, reason, message, now);
            plan.status.completion_time = Some(Time(now));
            plan.events.push((false, "Completed", "Job completed".to_owned()));
        }
        return plan;
    }
    set_active(&mut plan.status, &active);
    scale(&mut plan, &spec, pods, &active, (succeeded, failed), now);
    if let Some(d) = deadline {
        look(&mut plan, d);
    }
    plan
}

fn is_counted(status: &JobStatus) -> bool {
    let waiting = status.uncounted_terminated_pods.clone().unwrap_or_default();
    waiting.succeeded.is_none_or(|l| l.is_empty()) && waiting.failed.is_none_or(|l| l.is_empty())
}

fn look(plan: &mut Plan, at: Timestamp) {
    plan.look_again = Some(plan.look_again.map_or(at, |t| t.min(at)));
}

fn set_active(status: &mut JobStatus, active: &[&Arc<Pod>]) {
    let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    status.active = (!active.is_empty()).then(|| number(active.len()));
    status.ready = Some(number(active.iter().filter(|p| pod::is_ready(p)).count()));
}

/// Moves pods that ended one step on: noted, then let go, then counted.
fn count(plan: &mut Plan, pods: &[Arc<Pod>]) {
    let status = &mut plan.status;
    let mut waiting = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let held = |uid: &String| pods.iter().any(|p| p.uid().as_ref() == Some(uid) && is_tracked(p));
    let settle = |list: &mut Option<Vec<String>>, n: &mut Option<i32>| {
        let all = list.take().unwrap_or_default();
        let (kept, gone): (Vec<_>, Vec<_>) = all.into_iter().partition(|u| held(u));
        if !gone.is_empty() {
            *n = Some(n.unwrap_or(0) + i32::try_from(gone.len()).unwrap_or(i32::MAX));
        }
        *list = Some(kept);
    };
    settle(&mut waiting.succeeded, &mut status.succeeded);
    settle(&mut waiting.failed, &mut status.failed);
    let mut indexes = parse_indexes(status.completed_indexes.as_deref().unwrap_or_default());
    let indexed = !indexes.is_empty() || pods.iter().any(|p| index_of(p).is_some());
    for p in pods.iter().filter(|p| is_tracked(p)) {
        let uid = p.uid().unwrap_or_default();
        let list = match pod::phase(p) {
            "Succeeded" => &mut waiting.succeeded,
            _ if is_failed(p) => &mut waiting.failed,
            _ => continue,
        };
        let list = list.get_or_insert_default();
        if !list.contains(&uid) {
            list.push(uid);
        }
        if pod::phase(p) == "Succeeded" {
            indexes.extend(index_of(p));
        }
        plan.release.push(p.name_any());
    }
    let some = |l: Option<Vec<String>>| l.filter(|l| !l.is_empty());
    waiting.succeeded = some(waiting.succeeded);
    waiting.failed = some(waiting.failed);
    status.uncounted_terminated_pods = Some(waiting);
    if indexed {
        status.completed_indexes = Some(print_indexes(&indexes)).filter(|t| !t.is_empty());
    }
}

fn scale(
    plan: &mut Plan,
    spec: &k8s_openapi::api::batch::v1::JobSpec,
    pods: &[Arc<Pod>],
    active: &[&Arc<Pod>],
    (succeeded, failed): (i32, i32),
    now: Timestamp,
) {
    let parallelism = spec.parallelism.unwrap_or(1);
    let want = match spec.completions {
        Some(n) => parallelism.min(n - succeeded),
        // A work queue: once one has succeeded the others finish, and no more begin.
        None if succeeded > 0 => i32::try_from(active.len()).unwrap_or(i32::MAX).min(parallelism),
        None => parallelism,
    };
    let want = usize::try_from(want).unwrap_or(0);
    if active.len() > want {
        let mut order: Vec<&&Arc<Pod>> = active.iter().collect();
        order.sort_by(|a, b| pod::deletion_order(a, b));
        plan.delete = order.iter().take(active.len() - want).map(|p| p.name_any()).collect();
        return;
    }
    let missing = (want - active.len()).min(BURST);
    if missing == 0 {
        return;
    }
    if let Some(last) = pods.iter().filter(|p| is_failed(p)).filter_map(|p| ended_at(p)).max() {
        let doublings = u32::try_from(failed.max(1) - 1).unwrap_or(0).min(16);
        let wait = BACKOFF.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        let due = last + wait;
        if due > now {
            return look(plan, due);
        }
    }
    if spec.completion_mode.as_deref() != Some("Indexed") {
        plan.create = vec![None; missing];
        return;
    }
    let done = parse_indexes(plan.status.completed_indexes.as_deref().unwrap_or_default());
    let running: BTreeSet<i32> = active.iter().filter_map(|p| index_of(p)).collect();
    let free = (0..spec.completions.unwrap_or(0)).filter(|i| !done.contains(i) && !running.contains(i));
    plan.create = free.take(missing).map(Some).collect();
}

/// A finished job goes when its time to live is over.
fn expire(plan: &mut Plan, ttl: Option<i32>, now: Timestamp) {
    let Some(ttl) = ttl else { return };
    let ends = plan.status.conditions.iter().flatten();
    let end = ends
        .filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
        .find_map(|c| c.last_transition_time.as_ref());
    let Some(end) = end else { return };
    let due = end.0 + SignedDuration::from_secs(ttl.into());
    plan.expired = Some(due <= now);
    if due > now {
        look(plan, due);
    }
}

#[cfg(test)]
mod tests;
