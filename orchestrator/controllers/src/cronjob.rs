//! CronJob: makes a job at each of its times (kubernetes: pkg/controller/cronjob).

use std::sync::Arc;

use apimachinery::cron::Schedule;
use apimachinery::trace::TRACEPARENT_ANNOTATION;
use client::{EventRecorder, Key, Reconcile, WorkQueue};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Error};
use crate::owner::{controller_of, controller_ref, is_controlled_by};
use crate::replicaset::until;

/// When a job was meant to run.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Times that were missed beyond this are not looked through one by one.
const MISSED_MAX: usize = 100;

#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// The time a job is made for.
    create: Option<Timestamp>,
    /// Names of jobs.
    delete: Vec<String>,
    status: CronJobStatus,
    look_again: Option<Timestamp>,
    /// Warnings: reason and note.
    events: Vec<(&'static str, String)>,
}

fn finished(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.iter().flatten();
    conditions
        .into_iter()
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
        .map(|c| c.type_.as_str())
}

/// `jobs` are those the cron job controls.
fn plan(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let spec = cron.spec.clone().unwrap_or_default();
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Plan::default() };
    let active: Vec<&Arc<Job>> = jobs.iter().filter(|j| finished(j).is_none()).collect();
    plan.status.active =
        Some(active.iter().map(|j| reference(j)).collect::<Vec<_>>()).filter(|l| !l.is_empty());
    let ended = jobs.iter().filter(|j| finished(j) == Some("Complete"));
    let newest = ended.filter_map(|j| j.status.as_ref()?.completion_time.clone()).max_by_key(|t| t.0);
    if let Some(t) = newest
        && plan.status.last_successful_time.as_ref().is_none_or(|last| last.0 < t.0)
    {
        plan.status.last_successful_time = Some(t);
    }
    for (kind, keep) in [
        ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
    ] {
        let mut old: Vec<&Arc<Job>> = jobs.iter().filter(|j| finished(j) == Some(kind)).collect();
        old.sort_by_key(|j| j.metadata.creation_timestamp.as_ref().map(|t| t.0));
        let surplus = old.len().saturating_sub(usize::try_from(keep).unwrap_or(0));
        plan.delete.extend(old.iter().take(surplus).map(|j| j.name_any()));
    }
    if cron.metadata.deletion_timestamp.is_some() || spec.suspend == Some(true) {
        return plan;
    }
    let zone = match spec.time_zone.as_deref() {
        Some(name) => TimeZone::get(name),
        None => Ok(TimeZone::UTC),
    };
    let (schedule, zone) = match (Schedule::parse(&spec.schedule), zone) {
        (Ok(s), Ok(z)) => (s, z),
        (Err(e), _) => {
            plan.events
                .push(("UnparseableSchedule", format!("unparseable schedule {:?}: {e}", spec.schedule)));
            return plan;
        }
        (_, Err(e)) => {
            plan.events.push(("UnknownTimeZone", format!("invalid timeZone: {e}")));
            return plan;
        }
    };
    let made = cron.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let mut from = plan.status.last_schedule_time.as_ref().map_or(made, |t| t.0.max(made));
    let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if let Some(d) = deadline {
        from = from.max(now - d);
    }
    let next = |t: Timestamp| schedule.next(&t.to_zoned(zone.clone())).map(|z| z.timestamp());
    let (mut due, mut missed) = (None, 0);
    let mut upcoming = next(from);
    while let Some(t) = upcoming.filter(|t| *t <= now) {
        due = Some(t);
        missed += 1;
        if missed > MISSED_MAX {
            plan.events.push((
                "TooManyMissedTimes",
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew".to_owned(),
            ));
            // The one before now is found from close by.
            upcoming = next(now);
            break;
        }
        upcoming = next(t);
    }
    plan.look_again = upcoming;
    let Some(due) = due else { return plan };
    // A job of this time that the status does not know yet.
    if jobs.iter().any(|j| j.name_any() == job_name(cron, due)) {
        plan.status.last_schedule_time = Some(Time(due));
        return plan;
    }
    match spec.concurrency_policy.as_deref() {
        // It is tried again when the running one ends.
        Some("Forbid") if !active.is_empty() => return plan,
        Some("Replace") => plan.delete.extend(active.iter().map(|j| j.name_any())),
        _ => {}
    }
    plan.create = Some(due);
    plan
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        resource_version: job.resource_version(),
        ..ObjectReference { field_path: None, ..job.object_ref(&()) }
    }
}

/// The minutes of its time make a job's name its own.
fn job_name(cron: &CronJob, due: Timestamp) -> String {
    format!("{}-{}", cron.name_any(), due.as_second() / 60)
}

fn job_of(cron: &CronJob, due: Timestamp) -> Job {
    let template = cron.spec.as_ref().map(|s| s.job_template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), due.to_string());
    if let Some(trace) = telemetry::propagation::current_traceparent() {
        annotations.insert(TRACEPARENT_ANNOTATION.to_owned(), trace);
    }
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron, due)),
            namespace: cron.namespace(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

#[derive(Clone)]
struct Controller {
    context: Context,
    recorder: EventRecorder,
}

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("cronjob");
    let crons = context.informers.of::<CronJob>();
    let jobs = context.informers.of::<Job>();
    let q = queue.clone();
    crons.on_change(move |c| q.add(Key::of(&**c.object())));
    let q = queue.clone();
    jobs.on_change(move |c| {
        let job = c.object();
        if let Some(o) = controller_of(&job.metadata).filter(|o| o.kind == "CronJob") {
            q.add(Key::new(job.namespace().unwrap_or_default(), &o.name));
        }
    });
    crons.synced().await;
    jobs.synced().await;
    let c = Controller { recorder: context.recorder("cronjob-controller"), context };
    queue.run(2, stop, move |key| reconcile(c.clone(), key)).await;
}

async fn reconcile(c: Controller, key: Key) -> Result<Reconcile, Error> {
    let Some(cron) = c.context.informers.of::<CronJob>().get(&key) else { return Ok(Reconcile::Done) };
    let mut jobs = c.context.informers.of::<Job>().list_in(&key.namespace);
    jobs.retain(|j| is_controlled_by(&j.metadata, &*cron));
    let mut plan = plan(&cron, &jobs, c.context.now());
    for (reason, note) in std::mem::take(&mut plan.events) {
        c.recorder.warning(&*cron, reason, "Schedule", note).await;
    }
    let api: Api<Job> = Api::namespaced(c.context.client(), &key.namespace);
    for name in &plan.delete {
        client::error::optional(api.delete(name, &DeleteParams::background()).await.map(drop))?;
        let note = format!("Deleted job {name}");
        c.recorder.normal(&*cron, "SuccessfulDelete", "Delete", note).await;
    }
    if let Some(due) = plan.create {
        match api.create(&PostParams::default(), &job_of(&cron, due)).await {
            Ok(job) => {
                let note = format!("Created job {}", job.name_any());
                c.recorder.normal(&*cron, "SuccessfulCreate", "Create", note).await;
                plan.status.active.get_or_insert_default().push(reference(&job));
            }
            // The cache was behind.
            Err(e) if client::error::is_conflict(&e) => {}
            Err(e) => {
                let note = format!("Error creating job: {e}");
                c.recorder.warning(&*cron, "FailedCreate", "Create", note).await;
                return Err(e.into());
            }
        }
        plan.status.last_schedule_time = Some(Time(due));
    }
    if cron.status.as_ref() != Some(&plan.status) {
        let crons: Api<CronJob> = Api::namespaced(c.context.client(), &key.namespace);
        // Replaced as a whole: a merge would keep jobs that are over.
        let mut new = (*cron).clone();
        new.status = Some(plan.status);
        client::error::unless_newer(crons.replace_status(&key.name, &PostParams::default(), &new).await)?;
    }
    Ok(match plan.look_again {
        Some(at) => Reconcile::After(until(at, c.context.now())),
        None => Reconcile::Done,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cron(spec: Value, last: Option<&str>) -> CronJob {
        let mut all = json!({"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {}}}});
        for (k, v) in spec.as_object().expect("fields") {
            all[k] = v.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": all, "status": {"lastScheduleTime": last}}))
        .expect("a cron job")
    }

    fn job(name: &str, end: Option<&str>, created: &str) -> Arc<Job> {
        let conditions: Vec<_> = end.into_iter().map(|e| json!({"type": e, "status": "True"})).collect();
        let j = json!({"metadata": {"name": name, "namespace": "n", "creationTimestamp": created}, "status": {"conditions": conditions}});
        Arc::new(serde_json::from_value(j).expect("a job"))
    }

    fn at(s: &str) -> Timestamp {
        s.parse().expect("a time")
    }

    #[test]
    fn jobs_are_made_at_their_times() {
        let check = |spec: Value, last: Option<&str>, now: &str, due: Option<&str>, again: &str| {
            let p = plan(&cron(spec.clone(), last), &[], at(now));
            assert_eq!((p.create, p.look_again), (due.map(at), Some(at(again))), "{spec} {now}");
        };
        check(json!({}), None, "2026-01-01T00:03:00Z", None, "2026-01-01T00:05:00Z");
        check(json!({}), None, "2026-01-01T00:05:00Z", Some("2026-01-01T00:05:00Z"), "2026-01-01T00:10:00Z");
        let five = Some("2026-01-01T00:05:00Z");
        check(json!({}), five, "2026-01-01T00:06:00Z", None, "2026-01-01T00:10:00Z");
        // What was missed is made up for once.
        check(json!({}), five, "2026-01-01T00:21:00Z", Some("2026-01-01T00:20:00Z"), "2026-01-01T00:25:00Z");
        let late = json!({"startingDeadlineSeconds": 30});
        check(late, five, "2026-01-01T00:21:00Z", None, "2026-01-01T00:25:00Z");
    }

    #[test]
    fn policies_for_those_that_still_run() {
        let running = [job("c-1", None, "2026-01-01T00:00:00Z")];
        let now = at("2026-01-01T00:05:00Z");
        let of = |policy: &str| plan(&cron(json!({"concurrencyPolicy": policy}), None), &running, now);
        assert_eq!(of("Forbid").create, None);
        assert_eq!((of("Replace").create.is_some(), of("Replace").delete), (true, vec!["c-1".to_owned()]));
        assert_eq!((of("Allow").create.is_some(), of("Allow").delete.len()), (true, 0));
        let p = plan(&cron(json!({"suspend": true}), None), &running, now);
        assert_eq!((p.create, p.look_again), (None, None));
    }

    #[test]
    fn history_is_short() {
        let jobs = [
            job("a", Some("Failed"), "2026-01-01T00:00:00Z"),
            job("b", Some("Failed"), "2026-01-01T00:01:00Z"),
            job("c", Some("Complete"), "2026-01-01T00:02:00Z"),
        ];
        assert_eq!(plan(&cron(json!({}), None), &jobs, at("2026-01-01T00:03:00Z")).delete, ["a"]);
    }
}
