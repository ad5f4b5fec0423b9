//! What jobs and their calendars must be, and what of them stays
//! (kubernetes: pkg/apis/batch/validation/validation.go).

use std::collections::HashSet;

use apimachinery::name;
use apimachinery::selector::Selector;
use serde_json::{Value, json};

use super::super::check::At;
use super::super::workload;
use super::{CRON_NAME_MAX, NAME_LABEL, UID};
use crate::object;
use crate::validation::Errors;

/// Parallel pods, and failed indexes, of an indexed job: they are told in its status.
const INDEXED_MAX: i64 = 100_000;
/// Above so many completions with a limit per index, less of both.
const MANY: i64 = 100_000;
const WITH_MANY: i64 = 10_000;
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const MANAGED_BY_MAX: u64 = 63;
const INDEXES_MAX: usize = 64 << 10;

pub(super) fn job(o: &Value, errors: &mut Errors) {
    let o = At::root(o);
    let spec = o.of("spec");
    generated_selector(&o, errors);
    job_spec(&spec, errors);
    let selector = spec.of("selector");
    if selector.given() {
        selector.selector(errors);
    } else {
        errors.required(selector.path.as_str(), "");
    }
    if let Ok(parsed) = Selector::from_json(Some(selector.v).filter(|s| !s.is_null())) {
        workload::matching_labels(&spec.of("template"), &parsed, errors);
    }
}

/// An indexed job's pods are called by its name and their number.
pub(super) fn new_job(o: &Value, errors: &mut Errors) {
    let completions = object::int(o, "spec.completions").unwrap_or(0);
    if object::text(o, "spec.completionMode") == Some("Indexed") && completions > 0 {
        let host = format!("{}-{}", object::name(o), completions - 1);
        if name::dns_label(&host).is_err() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            errors.invalid("metadata.name", object::name(o), &detail);
        }
    }
}

/// Where the server chose the selector, nobody chose other labels.
fn generated_selector(o: &At<'_>, errors: &mut Errors) {
    if o.flag("spec.manualSelector") || !o.of("spec.selector").given() {
        return;
    }
    let (uid, name) = (o.of("metadata.uid").v, o.of("metadata.name").v);
    let labels = o.of("spec.template.metadata.labels");
    let wanted = [("controller-uid", uid), ("job-name", name), (UID, uid), (NAME_LABEL, name)];
    for (key, want) in wanted {
        let detail = format!("must be '{}'", want.as_str().unwrap_or_default());
        let at = format!("{}[{key}]", labels.path);
        match labels.v.get(key) {
            None => errors.required(at, &detail),
            Some(v) if v != want => errors.invalid(at, labels.v, &detail),
            Some(_) => {}
        }
    }
    let all: serde_json::Map<String, Value> =
        wanted.into_iter().map(|(k, v)| (k.to_owned(), v.clone())).collect();
    let selector = o.of("spec.selector");
    if let Ok(parsed) = Selector::from_json(Some(selector.v))
        && !parsed.matches_json(Some(&Value::Object(all)))
    {
        selector.invalid("`selector` not auto-generated", errors);
    }
}

fn job_spec(spec: &At<'_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.of(field).not_negative(errors);
    }
    let (per_index, failed) = (spec.of("backoffLimitPerIndex"), spec.of("maxFailedIndexes"));
    if failed.given() && !per_index.given() {
        errors.required(per_index.path.as_str(), "when maxFailedIndexes is specified");
    }
    if let Some(by) = spec.get("managedBy") {
        by.domain_path(errors);
        if by.str().len() as u64 > MANAGED_BY_MAX {
            errors.too_long(by.path.as_str(), MANAGED_BY_MAX);
        }
    }
    let mode = spec.of("completionMode");
    mode.one_of(&["NonIndexed", "Indexed"], errors);
    match mode.str() {
        "Indexed" => indexed(spec, errors),
        "NonIndexed" | "" => {
            for at in [&per_index, &failed] {
                if at.given() {
                    at.invalid("requires indexed completion mode", errors);
                }
            }
        }
        _ => {}
    }
    if let Some(policy) = spec.get("podFailurePolicy") {
        failure_policy(spec, &policy, errors);
    }
    if let Some(policy) = spec.get("successPolicy") {
        if mode.str() == "Indexed" {
            success_policy(spec, &policy, errors);
        } else {
            policy.invalid("requires indexed completion mode", errors);
        }
    }
    let replacements: &[&str] = match spec.of("podFailurePolicy").given() {
        true => &["Failed"],
        false => &["Failed", "TerminatingOrFailed"],
    };
    spec.of("podReplacementPolicy").one_of(replacements, errors);
    let template = spec.of("template");
    workload::template(&template, errors);
    let restart = template.of("spec.restartPolicy");
    match restart.str() {
        "" | "Always" => {
            errors.required(restart.path.as_str(), "valid values: \"OnFailure\", \"Never\"");
        }
        "OnFailure" if spec.of("podFailurePolicy").given() => {
            restart.invalid("only \"Never\" is supported when podFailurePolicy is specified", errors);
        }
        _ => restart.one_of(&["OnFailure", "Never"], errors),
    }
}

fn indexed(spec: &At<'_>, errors: &mut Errors) {
    let (parallelism, failed) = (spec.of("parallelism"), spec.of("maxFailedIndexes"));
    let completions = spec.int("completions");
    let above = |at: &At<'_>, max: i64| at.v.as_i64().is_some_and(|n| n > max);
    if completions.is_none() {
        errors.required(spec.of("completions").path, "when completion mode is Indexed");
    }
    if above(&parallelism, INDEXED_MAX) {
        let detail = format!("must be less than or equal to {INDEXED_MAX} when completion mode is Indexed");
        parallelism.invalid(&detail, errors);
    }
    if completions.is_some_and(|n| above(&failed, n)) {
        failed.invalid("must be less than or equal to completions", errors);
    }
    if above(&failed, INDEXED_MAX) {
        failed.invalid(&format!("must be less than or equal to {INDEXED_MAX}"), errors);
    }
    if completions.is_some_and(|n| n > MANY) && spec.of("backoffLimitPerIndex").given() {
        if !failed.given() {
            let detail = format!("must be specified when completions is above {MANY}");
            errors.required(failed.path.as_str(), &detail);
        }
        for at in [parallelism, failed] {
            if above(&at, WITH_MANY) {
                at.invalid(&format!("must be less than or equal to {WITH_MANY} when completions are above {MANY} and used with backoff limit per index"), errors);
            }
        }
    }
}

/// One of a list whose words are also told where there is none.
fn one_of_these(at: &At<'_>, supported: &[&str], errors: &mut Errors) {
    let quoted: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
    if at.required_for(&format!("valid values: [{}]", quoted.join(" ")), errors) {
        at.one_of(supported, errors);
    }
}

fn failure_policy(spec: &At<'_>, policy: &At<'_>, errors: &mut Errors) {
    let rules = policy.of("rules");
    if policy.len("rules") > RULES_MAX {
        errors.too_many(rules.path.as_str(), policy.len("rules") as u64, RULES_MAX as u64);
    }
    let containers: HashSet<&str> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| spec.each(&format!("template.spec.{list}")))
        .map(|c| c.text("name"))
        .collect();
    for rule in rules.items() {
        let action = rule.of("action");
        if action.str() == "FailIndex" {
            if !spec.of("backoffLimitPerIndex").given() {
                action.invalid("requires the backoffLimitPerIndex to be set", errors);
            }
        } else {
            one_of_these(&action, &["Count", "FailIndex", "FailJob", "Ignore"], errors);
        }
        let codes = rule.of("onExitCodes");
        if codes.given() {
            exit_codes(&codes, &containers, errors);
        }
        let patterns = rule.len("onPodConditions");
        if patterns > RULES_MAX {
            errors.too_many(rule.of("onPodConditions").path, patterns as u64, RULES_MAX as u64);
        }
        for pattern in rule.each("onPodConditions") {
            pattern.of("type").name(name::qualified_name, errors);
            one_of_these(&pattern.of("status"), &["False", "True", "Unknown"], errors);
        }
        match (codes.given(), patterns > 0) {
            (true, true) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.invalid_omitted(rule.path.as_str(), detail);
            }
            (false, false) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.invalid_omitted(rule.path.as_str(), detail);
            }
            _ => {}
        }
    }
}

fn exit_codes(codes: &At<'_>, containers: &HashSet<&str>, errors: &mut Errors) {
    one_of_these(&codes.of("operator"), &["In", "NotIn"], errors);
    if let Some(name) = codes.get("containerName").filter(|n| !containers.contains(n.str())) {
        name.invalid("must be one of the container or initContainer names in the pod template", errors);
    }
    let values = codes.of("values");
    match codes.len("values") {
        0 => errors.invalid(values.path.as_str(), &json!(values.v), "at least one value is required"),
        n if n > EXIT_CODES_MAX => errors.too_many(values.path.as_str(), n as u64, EXIT_CODES_MAX as u64),
        _ => {}
    }
    let (mut ordered, mut last, mut seen) = (true, None, HashSet::new());
    for value in values.clone().items() {
        let n = value.v.as_i64().unwrap_or(0);
        if n == 0 && codes.text("operator") == "In" {
            value.invalid("must not be 0 for the In operator", errors);
        }
        if !seen.insert(n) {
            errors.duplicate(value.path.as_str(), n);
        }
        ordered &= last.is_none_or(|last| last <= n);
        last = Some(n);
    }
    if !ordered {
        values.invalid("must be ordered", errors);
    }
}

fn success_policy(spec: &At<'_>, policy: &At<'_>, errors: &mut Errors) {
    let rules = policy.of("rules");
    match policy.len("rules") {
        0 => errors.required(
            rules.path.as_str(),
            "at least one rules must be specified when the successPolicy is specified",
        ),
        n if n > RULES_MAX => errors.too_many(rules.path.as_str(), n as u64, RULES_MAX as u64),
        _ => {}
    }
    let completions = spec.int("completions").unwrap_or(0);
    for rule in rules.items() {
        let (count, indexes) = (rule.of("succeededCount"), rule.of("succeededIndexes"));
        if !count.given() && !indexes.given() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            errors.required(rule.path.as_str(), detail);
        }
        let mut named = None;
        if indexes.given() {
            if indexes.str().len() > INDEXES_MAX {
                errors.too_long(indexes.path.as_str(), INDEXES_MAX as u64);
            }
            match parse_indexes(indexes.str(), completions) {
                Ok(n) => named = Some(n),
                Err(why) => {
                    indexes.invalid(&format!("error parsing succeededIndexes: {why}"), errors);
                }
            }
        }
        count.not_negative(errors);
        if let Some(n) = count.v.as_i64() {
            if n > completions {
                count.invalid(
                    &format!(
                        "must be less than or equal to {completions} (the number of specified completions)"
                    ),
                    errors,
                );
            }
            if let Some(named) = named.filter(|named| n > *named) {
                count.invalid(&format!("must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"), errors);
            }
        }
    }
}

/// How many indexes `0,2-4` names.
fn parse_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last): (i64, Option<i64>) = (0, None);
    if text.is_empty() {
        return Ok(0);
    }
    for interval in text.split(',') {
        let limits: Vec<&str> = interval.split('-').collect();
        if limits.len() > 2 {
            return Err(format!(
                "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let number = |s: &str| {
            s.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: {s:?}"))
        };
        let first = number(limits[0])?;
        if first >= completions {
            return Err(format!("too large index: {:?}", limits[0]));
        }
        if let Some(last) = last.filter(|last| first <= *last) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        let mut end = first;
        if let Some(limit) = limits.get(1) {
            end = number(limit)?;
            if end >= completions {
                return Err(format!("too large index: {limit:?}"));
            }
            if end <= first {
                return Err(format!("non-increasing order, previous: {first}, current: {end}"));
            }
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

pub(super) fn job_stays(new: &Value, old: &Value, errors: &mut Errors) {
    let (is, was) = (At::root(new).of("spec"), At::root(old).of("spec"));
    let completions = is.of("completions");
    if is.text("completionMode") != "Indexed" {
        completions.immutable(&was.of("completions"), errors);
    } else if completions.given()
        && completions.v != was.of("completions").v
        && completions.v != is.of("parallelism").v
    {
        completions.invalid("can only be modified in tandem with spec.parallelism", errors);
    }
    is.of("selector").immutable(&was.of("selector"), errors);
    // A suspended job that never began may still get another place to run.
    let mut before = was.of("template").v.clone();
    if was.flag("suspend") && object::get(old, "status.startTime").is_none() {
        take_placement(&mut before, is.of("template").v);
    }
    is.of("template").immutable(&At::new(&before, ""), errors);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        is.of(field).immutable(&was.of(field), errors);
    }
}

/// Gives a template what another says of where its pods run.
fn take_placement(to: &mut Value, from: &Value) {
    copy_all(object::child(to, "metadata"), &from["metadata"], &["labels", "annotations"]);
    let spec = object::child(to, "spec");
    copy_all(spec, &from["spec"], &["nodeSelector", "tolerations", "schedulingGates"]);
    let node = object::get(from, "spec.affinity.nodeAffinity");
    match (object::get(from, "spec.affinity").is_some(), object::get(spec, "affinity").is_some()) {
        (false, true) => {
            let affinity = &mut spec["affinity"];
            drop(object::remove(affinity, "nodeAffinity"));
            if affinity.as_object().is_some_and(serde_json::Map::is_empty) {
                drop(object::remove(spec, "affinity"));
            }
        }
        (true, _) => {
            let affinity = object::child(spec, "affinity");
            match node {
                Some(node) => affinity["nodeAffinity"] = node.clone(),
                None => drop(object::remove(affinity, "nodeAffinity")),
            }
        }
        (false, false) => {}
    }
}

fn copy_all(to: &mut Value, from: &Value, fields: &[&str]) {
    if let Value::Object(m) = to {
        fields.iter().for_each(|field| object::copy(m, from, field));
    }
}

pub(super) fn cron_job(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    let schedule = spec.of("schedule");
    if schedule.required(errors)
        && let Err(why) = apimachinery::cron::Schedule::parse(schedule.str())
    {
        schedule.invalid(&why, errors);
    }
    spec.of("startingDeadlineSeconds").not_negative(errors);
    if let Some(zone) = spec.get("timeZone") {
        time_zone(&zone, errors);
    }
    spec.of("concurrencyPolicy").must_be_one_of(&["Allow", "Forbid", "Replace"], errors);
    let job = spec.of("jobTemplate.spec");
    job_spec(&job, errors);
    if let Some(selector) = job.get("selector") {
        selector.invalid("`selector` will be auto-generated", errors);
    }
    if job.flag("manualSelector") {
        let at = job.of("manualSelector");
        errors.not_supported_value(at.path.as_str(), at.v, &["nil", "false"]);
    }
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.of(field).not_negative(errors);
    }
}

/// Older servers took longer names, and what they took may still be changed.
pub(super) fn new_cron_job(o: &Value, errors: &mut Errors) {
    let name = object::name(o);
    if name.len() > CRON_NAME_MAX {
        errors.invalid("metadata.name", name, "must be no more than 52 characters");
    }
}

fn time_zone(zone: &At<'_>, errors: &mut Errors) {
    const EXPLICIT: &str =
        "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
    let name = zone.str();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_+".contains(&b);
    let part = |p: &str| {
        !matches!(p, "" | "." | "..") && !p.starts_with('-') && p.len() <= 14 && p.bytes().all(plain)
    };
    if name.is_empty() {
        zone.invalid("timeZone must be nil or non-empty string", errors);
    } else if !name.split('/').all(part) {
        zone.invalid(&format!("unknown time zone {name}"), errors);
    } else {
        if name.eq_ignore_ascii_case("local") {
            zone.invalid(EXPLICIT, errors);
        }
        if name != "Local" && jiff::tz::TimeZone::get(name).is_err() {
            zone.invalid(&format!("unknown time zone {name}"), errors);
        }
    }
}
