//! Jobs in all stages of their lives.

use super::*;
use serde_json::{Value, json};

fn at(s: &str) -> Timestamp {
    s.parse().expect("a time")
}

const NOW: &str = "2026-01-01T00:10:00Z";

fn job(spec: Value, status: Value) -> Job {
    let mut all = json!({"template": {"spec": {"containers": [], "restartPolicy": "Never"}},
        "parallelism": 1, "completions": 1, "backoffLimit": 2});
    for (k, v) in spec.as_object().expect("fields") {
        all[k] = v.clone();
    }
    serde_json::from_value(
        json!({"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": all, "status": status}),
    )
    .expect("a job")
}

fn a_pod(name: &str, phase: &str, tracked: bool) -> Arc<Pod> {
    let finalizers: &[&str] = if tracked { &[TRACKING] } else { &[] };
    let ended = json!([{"name": "c", "restartCount": 0, "ready": false, "image": "", "imageID": "",
        "state": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:09:55Z"}}}]);
    let statuses = if phase == "Running" { json!([]) } else { ended };
    let pod = json!({"metadata": {"name": name, "uid": name, "finalizers": finalizers}, "spec": {"containers": []},
        "status": {"phase": phase, "containerStatuses": statuses}});
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

#[test]
fn runs_to_its_end_and_counts_each_pod_once() {
    let p = plan(&job(json!({}), json!({})), &[], at(NOW));
    assert_eq!(p.create, [None]);
    // It ended: noted first, not counted yet.
    let pods = [a_pod("a", "Succeeded", true)];
    let p = plan(&job(json!({}), serde_json::to_value(&p.status).expect("json")), &pods, at(NOW));
    assert_eq!((p.create.len(), p.status.succeeded, p.release.as_slice()), (0, None, &["a".to_owned()][..]));
    assert!(!has(&p.status, "Complete"));
    // The finalizer went: counted, done.
    let pods = [a_pod("a", "Succeeded", false)];
    let p = plan(&job(json!({}), serde_json::to_value(&p.status).expect("json")), &pods, at(NOW));
    assert_eq!(p.status.succeeded, Some(1));
    assert!(has(&p.status, "Complete") && p.status.completion_time.is_some());
    // Again: nothing changes.
    let again = plan(&job(json!({}), serde_json::to_value(&p.status).expect("json")), &pods, at(NOW));
    assert_eq!((&again.status, again.events.len()), (&p.status, 0));
}

#[test]
fn failures_wait_longer_and_end_the_job_at_its_limit() {
    let status = json!({"failed": 1, "startTime": NOW});
    let p = plan(&job(json!({}), status), &[a_pod("a", "Failed", false)], at(NOW));
    assert_eq!((p.create.len(), p.look_again), (0, Some(at("2026-01-01T00:10:05Z"))));
    let status = json!({"failed": 3, "startTime": NOW});
    let p = plan(&job(json!({}), status), &[a_pod("a", "Failed", false)], at(NOW));
    assert!(has(&p.status, "Failed"));
    assert_eq!(p.events[0].1, "BackoffLimitExceeded");
}

#[test]
fn a_deadline_ends_what_runs() {
    let status = json!({"startTime": "2026-01-01T00:00:00Z"});
    let p = plan(&job(json!({"activeDeadlineSeconds": 60}), status), &[a_pod("a", "Running", true)], at(NOW));
    assert_eq!(p.delete, ["a"]);
    assert!(has(&p.status, "FailureTarget") && !has(&p.status, "Failed"));
}

#[test]
fn indexes_are_filled_from_below() {
    let spec = json!({"completionMode": "Indexed", "completions": 5, "parallelism": 3});
    let p = plan(&job(spec, json!({"succeeded": 2, "completedIndexes": "0,2"})), &[], at(NOW));
    assert_eq!(p.create, [Some(1), Some(3), Some(4)]);
    assert_eq!(print_indexes(&parse_indexes("0,2-4,7,8")), "0,2-4,7,8");
}

#[test]
fn suspended_jobs_run_nothing() {
    let p = plan(
        &job(json!({"suspend": true}), json!({"startTime": NOW})),
        &[a_pod("a", "Running", true)],
        at(NOW),
    );
    assert_eq!((p.delete.len(), p.status.start_time.is_some()), (1, false));
    assert!(has(&p.status, "Suspended"));
}

#[test]
fn a_work_queue_begins_nothing_behind_the_first_success() {
    let spec = json!({"completions": null, "parallelism": 2});
    let p = plan(&job(spec, json!({"succeeded": 1})), &[a_pod("a", "Running", true)], at(NOW));
    assert_eq!((p.create.len(), p.delete.len()), (0, 0));
}

#[test]
fn finished_jobs_expire() {
    let done = json!({"succeeded": 1, "conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:09:00Z"}]});
    let p = plan(&job(json!({"ttlSecondsAfterFinished": 30}), done.clone()), &[], at(NOW));
    assert_eq!(p.expired, Some(true));
    let p = plan(&job(json!({"ttlSecondsAfterFinished": 90}), done), &[], at(NOW));
    assert_eq!((p.expired, p.look_again), (Some(false), Some(at("2026-01-01T00:10:30Z"))));
}
