//! Job and CronJob: pods that run to their end, once or by the calendar.

mod rules;

use serde_json::{Value, json};
use signal::Timestamp;

use super::apps::default_template;
use super::{AGE, BASE, Kind, NAME, column, wide};
use crate::{object, table};

const GROUP: &str = "batch";
const UID: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// A job's name, its dash and its minutes must fit a label.
const CRON_NAME_MAX: usize = 52;

pub(crate) static JOB: Kind = Kind {
    group: GROUP,
    resource: "jobs",
    singular: "job",
    kind: "Job",
    categories: &["all"],
    generation: true,
    status: true,
    default: |o| default_job_spec(object::child(o, "spec")),
    prepare_create: prepare_job,
    validate: rules::job,
    validate_create: rules::new_job,
    validate_update: rules::job_stays,
    fields: &["status.successful"],
    columns: &[
        NAME,
        column("Status"),
        column("Completions"),
        column("Duration"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    row: job_row,
    validate_status: super::status::job,
    ..BASE
};

pub(crate) static CRON_JOB: Kind = Kind {
    group: GROUP,
    resource: "cronjobs",
    singular: "cronjob",
    kind: "CronJob",
    short: &["cj"],
    categories: &["all"],
    generation: true,
    status: true,
    default: default_cron_job,
    prepare_create: |o| o["status"] = json!({}),
    validate: rules::cron_job,
    validate_create: rules::new_cron_job,
    columns: &[
        NAME,
        column("Schedule"),
        column("Timezone"),
        column("Suspend"),
        column("Active"),
        column("Last Schedule"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    row: cron_job_row,
    ..BASE
};

fn default_job_spec(spec: &mut Value) {
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        spec["completions"] = 1.into();
    }
    object::default(spec, "parallelism", 1);
    object::default(spec, "completionMode", "NonIndexed");
    object::default(spec, "suspend", false);
    object::default(spec, "manualSelector", false);
    let indexed = object::get(spec, "backoffLimitPerIndex").is_some();
    object::default(spec, "backoffLimit", if indexed { i64::from(i32::MAX) } else { 6 });
    let failures = object::get(spec, "podFailurePolicy").is_some();
    object::default(spec, "podReplacementPolicy", if failures { "Failed" } else { "TerminatingOrFailed" });
    default_template(spec);
}

/// A job's pods are told by the job's uid (kubernetes: pkg/registry/batch/job/strategy.go).
fn prepare_job(o: &mut Value) {
    o["status"] = json!({});
    let (uid, name) = (o["metadata"]["uid"].clone(), o["metadata"]["name"].clone());
    let spec = object::child(o, "spec");
    if spec["manualSelector"] == true {
        return;
    }
    let template = object::child(spec, "template");
    let labels = object::child(object::child(template, "metadata"), "labels");
    for (key, v) in [(UID, &uid), (NAME_LABEL, &name), ("controller-uid", &uid), ("job-name", &name)] {
        object::default(labels, key, v.clone());
    }
    if object::get(spec, "selector").is_none() {
        spec["selector"] = json!({"matchLabels": {UID: uid}});
    }
}

fn default_cron_job(o: &mut Value) {
    let spec = object::child(o, "spec");
    object::default_text(spec, "concurrencyPolicy", "Allow");
    object::default(spec, "suspend", false);
    object::default(spec, "successfulJobsHistoryLimit", 3);
    object::default(spec, "failedJobsHistoryLimit", 1);
    let template = object::child(spec, "jobTemplate");
    object::child(template, "metadata");
    // Upstream defaults the pod template of a job template, and leaves the job's own fields to the job.
    default_template(object::child(template, "spec"));
}

fn job_status(o: &Value) -> &'static str {
    let is = |kind: &str| {
        object::list(o, "status.conditions").iter().any(|c| c["type"] == kind && c["status"] == "True")
    };
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if object::is_deleting(o) => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn job_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let succeeded = object::int(o, "status.succeeded").unwrap_or(0);
    let parallelism = object::int(o, "spec.parallelism").unwrap_or(0);
    let completions = match object::int(o, "spec.completions") {
        Some(n) => format!("{succeeded}/{n}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let time = |path: &str| object::text(o, path).and_then(object::parse_time);
    let duration = time("status.startTime").map(|start| {
        let end = time("status.completionTime").unwrap_or(now);
        table::human(end.since(start))
    });
    let (names, images) = table::containers(object::get(o, "spec.template.spec"));
    vec![
        object::name(o).into(),
        job_status(o).into(),
        completions.into(),
        duration.unwrap_or_default().into(),
        table::age(o, now),
        names,
        images,
        table::selector(object::get(o, "spec.selector")),
    ]
}

fn cron_job_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let last = match object::text(o, "status.lastScheduleTime") {
        Some(t) => table::since(Some(t), now),
        None => "<none>".to_owned(),
    };
    let (names, images) = table::containers(object::get(o, "spec.jobTemplate.spec.template.spec"));
    vec![
        object::name(o).into(),
        object::text(o, "spec.schedule").unwrap_or_default().into(),
        table::or_none(object::text(o, "spec.timeZone")),
        if object::flag(o, "spec.suspend") { "True" } else { "False" }.into(),
        object::list(o, "status.active").len().to_string().into(),
        last.into(),
        table::age(o, now),
        names,
        images,
        table::selector(object::get(o, "spec.jobTemplate.spec.selector")),
    ]
}
