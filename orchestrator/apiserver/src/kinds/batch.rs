//! Job and CronJob: pods that run to their end, once or by the calendar.

use serde_json::{Value, json};
use signal::Timestamp;

use super::apps::{default_template, not_negative};
use super::{AGE, BASE, Kind, NAME, column, pod_validation, wide};
use crate::validation::Errors;
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
    validate: |o, errors| validate_job(o, "", true, errors),
    validate_update: validate_job_update,
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
    validate: validate_cron_job,
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

fn validate_job(o: &Value, at: &str, made: bool, errors: &mut Errors) {
    let Some(spec) = object::get(o, "spec") else { return errors.required(format!("{at}spec"), "") };
    let path = |f: &str| format!("{at}spec.{f}");
    for field in
        ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"]
    {
        if let Some(n) = object::int(spec, field).filter(|n| *n < 0) {
            errors.invalid(path(field), n, "must be greater than or equal to 0");
        }
    }
    match object::text(spec, "completionMode") {
        Some("NonIndexed") | None => {}
        Some("Indexed") if object::int(spec, "completions").is_some() => {}
        Some("Indexed") => {
            errors.required(path("completions"), "when completion mode is Indexed");
        }
        Some(other) => errors.not_supported(path("completionMode"), other, &["Indexed", "NonIndexed"]),
    }
    if made && object::get(spec, "selector").is_none() {
        errors.required(path("selector"), "");
    }
    let template = &spec["template"];
    crate::registry::validate_labels(&template["metadata"], &path("template.metadata"), errors);
    pod_validation::validate_spec(&template["spec"], &path("template.spec"), errors);
    // Other words are no restart policy at all, which the pod's own rules say.
    if object::text(template, "spec.restartPolicy").is_none_or(|p| p == "Always") {
        errors.required(path("template.spec.restartPolicy"), "valid values: \"OnFailure\", \"Never\"");
    }
}

fn validate_job_update(new: &Value, old: &Value, errors: &mut Errors) {
    for field in ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy"] {
        let at = format!("spec.{field}");
        errors.immutable(at.as_str(), object::get(new, &at), object::get(old, &at));
    }
    let indexed = object::text(new, "spec.completionMode") == Some("Indexed");
    if !indexed {
        let at = "spec.completions";
        errors.immutable(at, object::get(new, at), object::get(old, at));
    }
    // A suspended job that never began may still get another place to run.
    let resting = object::flag(old, "spec.suspend") && object::get(old, "status.startTime").is_none();
    if !resting {
        let at = "spec.template";
        errors.immutable(at, object::get(new, at), object::get(old, at));
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

fn validate_cron_job(o: &Value, errors: &mut Errors) {
    let name = object::name(o);
    if name.len() > CRON_NAME_MAX {
        errors.invalid("metadata.name", name, "must be no more than 52 characters");
    }
    match object::text(o, "spec.schedule") {
        None | Some("") => errors.required("spec.schedule", ""),
        Some(s) => {
            if let Err(why) = apimachinery::cron::Schedule::parse(s) {
                errors.invalid("spec.schedule", s, &why);
            }
        }
    }
    if let Some(zone) = object::text(o, "spec.timeZone") {
        if zone.is_empty() {
            errors.invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string");
        } else if zone.eq_ignore_ascii_case("local") {
            errors.invalid(
                "spec.timeZone",
                zone,
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            );
        } else if jiff::tz::TimeZone::get(zone).is_err() {
            errors.invalid("spec.timeZone", zone, &format!("unknown time zone {zone}"));
        }
    }
    match object::text(o, "spec.concurrencyPolicy") {
        Some("Allow" | "Forbid" | "Replace") | None => {}
        Some(other) => {
            errors.not_supported("spec.concurrencyPolicy", other, &["Allow", "Forbid", "Replace"]);
        }
    }
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(o, field, errors);
    }
    validate_job(&o["spec"]["jobTemplate"], "spec.jobTemplate.", false, errors);
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
