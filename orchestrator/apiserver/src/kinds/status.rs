//! What a status must be that is written by itself
//! (kubernetes: pkg/apis/{core,apps,batch,policy,autoscaling}/validation).

use std::collections::HashSet;
use std::net::IpAddr;

use apimachinery::name;
use serde_json::Value;

use super::check::At;
use super::resources;
use crate::object;
use crate::validation::Errors;

const OF_ALL: &str = "cannot be greater than status.replicas";

fn status(o: &Value) -> At<'_> {
    At::root(o).of("status")
}

fn not_negative(status: &At<'_>, fields: &[&str], errors: &mut Errors) {
    fields.iter().for_each(|f| status.of(f).not_negative(errors));
}

/// Refuses more of one count than of another.
fn at_most(status: &At<'_>, part: &str, whole: &str, why: &str, errors: &mut Errors) {
    let n = status.int(part).unwrap_or(0);
    if n > status.int(whole).unwrap_or(0) {
        errors.invalid(status.of(part).path, n, why);
    }
}

/// Collisions are only ever more.
fn collisions(new: &Value, old: &Value, errors: &mut Errors) {
    let (now, before) = (status(new).of("collisionCount"), status(old).int("collisionCount"));
    if before.is_some_and(|b| now.v.as_i64().is_none_or(|n| n < b)) {
        errors.invalid(now.path.as_str(), now.v.as_i64().unwrap_or(0), "cannot be decremented");
    }
}

pub(super) fn replica_set(new: &Value, _: &Value, errors: &mut Errors) {
    let s = status(new);
    let counts =
        ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"];
    not_negative(&s, &counts, errors);
    for part in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        at_most(&s, part, "replicas", OF_ALL, errors);
    }
    at_most(&s, "availableReplicas", "readyReplicas", "cannot be greater than readyReplicas", errors);
}

pub(super) fn deployment(new: &Value, old: &Value, errors: &mut Errors) {
    let s = status(new);
    let counts = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "collisionCount",
    ];
    not_negative(&s, &counts, errors);
    for part in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
        at_most(&s, part, "replicas", OF_ALL, errors);
    }
    at_most(&s, "availableReplicas", "readyReplicas", "cannot be greater than readyReplicas", errors);
    collisions(new, old, errors);
}

pub(super) fn stateful_set(new: &Value, old: &Value, errors: &mut Errors) {
    let s = status(new);
    let counts = [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    not_negative(&s, &counts, errors);
    for part in ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"] {
        at_most(&s, part, "replicas", OF_ALL, errors);
    }
    at_most(&s, "availableReplicas", "readyReplicas", "cannot be greater than status.readyReplicas", errors);
    collisions(new, old, errors);
}

pub(super) fn daemon_set(new: &Value, old: &Value, errors: &mut Errors) {
    let counts = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
    ];
    not_negative(&status(new), &counts, errors);
    collisions(new, old, errors);
}

pub(super) fn autoscaler(new: &Value, _: &Value, errors: &mut Errors) {
    not_negative(&status(new), &["currentReplicas", "desiredReplicas"], errors);
}

pub(super) fn budget(new: &Value, _: &Value, errors: &mut Errors) {
    let s = status(new);
    conditions(&s, errors);
    let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
    not_negative(&s, &counts, errors);
}

/// Conditions as all kinds share them (apimachinery: pkg/apis/meta/v1/validation).
pub(super) fn conditions(status: &At<'_>, errors: &mut Errors) {
    const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
    const REASON_MAX: usize = 1024;
    const MESSAGE_MAX: usize = 32 << 10;
    let mut seen = HashSet::new();
    for c in status.each("conditions") {
        let kind = c.of("type");
        if !seen.insert(kind.str()) {
            errors.duplicate(kind.path.as_str(), kind.str());
        }
        kind.name(name::qualified_name, errors);
        c.of("status").one_of(&["False", "True", "Unknown"], errors);
        c.of("observedGeneration").not_negative(errors);
        c.of("lastTransitionTime").required_for("must be set", errors);
        let (reason, message) = (c.of("reason"), c.of("message"));
        if reason.str().len() > REASON_MAX {
            errors.too_long(reason.path.as_str(), REASON_MAX as u64);
        }
        let text = reason.str().as_bytes();
        let goes_on = |b: &u8| b.is_ascii_alphanumeric() || b"_,:".contains(b);
        let ends = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let fits = text.first().is_some_and(u8::is_ascii_alphabetic)
            && text.last().is_some_and(ends)
            && text.iter().all(goes_on);
        if text.is_empty() {
            errors.required(reason.path, "");
        } else if !fits {
            reason.invalid(REASON, errors);
        }
        if message.str().len() > MESSAGE_MAX {
            errors.too_long(message.path, MESSAGE_MAX as u64);
        }
    }
}

pub(super) fn namespace(new: &Value, _: &Value, errors: &mut Errors) {
    let phase = status(new).of("phase").renamed("status.Phase");
    if object::is_deleting(new) {
        if phase.str() != "Terminating" {
            let why = "may only be 'Terminating' if `deletionTimestamp` is not empty";
            errors.invalid(phase.path.as_str(), phase.str(), why);
        }
    } else if phase.str() != "Active" {
        let why = "may only be 'Active' if `deletionTimestamp` is empty";
        errors.invalid(phase.path.as_str(), phase.str(), why);
    }
}

pub(super) fn quota(new: &Value, _: &Value, errors: &mut Errors) {
    for part in ["hard", "used"] {
        for (name, amount) in status(new).entries(part) {
            resources::quota_name(name, &amount, errors);
            resources::amount(name, &amount, errors);
        }
    }
}

/// Where a service or an ingress is reached.
fn reached(ingress: &At<'_>, errors: &mut Errors) {
    let ip = ingress.of("ip");
    if !ip.str().is_empty() {
        ip.address(errors);
    }
    let host = ingress.of("hostname");
    if !host.str().is_empty() {
        host.name(name::dns_subdomain, errors);
        if host.str().parse::<IpAddr>().is_ok() {
            host.invalid("must be a DNS name, not an IP address", errors);
        }
    }
}

pub(super) fn service(new: &Value, _: &Value, errors: &mut Errors) {
    let all = status(new).of("loadBalancer.ingress");
    if object::text(new, "spec.type") != Some("LoadBalancer") && status(new).len("loadBalancer.ingress") > 0 {
        return all.forbidden("may only be used when `spec.type` is \"LoadBalancer\"", errors);
    }
    all.items().for_each(|i| reached(&i, errors));
}

pub(super) fn ingress(new: &Value, _: &Value, errors: &mut Errors) {
    status(new).each("loadBalancer.ingress").for_each(|i| reached(&i, errors));
}

/// What of a job's end is final, and what goes with it.
pub(super) fn job(new: &Value, old: &Value, errors: &mut Errors) {
    let s = status(new);
    not_negative(&s, &["active", "succeeded", "failed", "ready"], errors);
    uncounted(&s.of("uncountedTerminatedPods"), errors);
    let has = |o: &Value, kind: &str| {
        object::list(o, "status.conditions").iter().any(|c| c["type"] == kind && c["status"] == "True")
    };
    let (complete, failed) = (has(new, "Complete"), has(new, "Failed"));
    let at = s.of("conditions").path;
    for kind in ["Failed", "Complete", "FailureTarget", "SuccessCriteriaMet"] {
        if has(old, kind) && !has(new, kind) {
            errors
                .invalid_omitted(at.as_str(), &format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    if complete && failed {
        errors.invalid_omitted(at.as_str(), "cannot set Complete=True and Failed=true conditions");
    }
    if complete && has(new, "FailureTarget") {
        errors.invalid_omitted(at.as_str(), "cannot set Complete=True and FailureTarget=true conditions");
    }
    let ended = s.of("completionTime");
    if ended.given() && !complete {
        ended.invalid("cannot set completionTime when there is no Complete=True condition", errors);
    }
    if complete && !ended.given() {
        errors.required(ended.path, "completionTime is required for Complete jobs");
    }
    let active = s.int("active").unwrap_or(0);
    if (complete || failed) && active > 0 {
        errors.invalid(s.of("active").path, active, "active>0 is invalid for finished job");
    }
    if s.int("ready").is_some_and(|ready| ready > active) {
        let ready = s.of("ready");
        ready.invalid("cannot set more ready pods than active", errors);
    }
}

fn uncounted(pods: &At<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for list in ["succeeded", "failed"] {
        for uid in pods.each(list) {
            if uid.str().is_empty() {
                uid.invalid("must not be empty", errors);
            } else if !seen.insert(uid.str()) {
                errors.duplicate(uid.path.as_str(), uid.str());
            }
        }
    }
}

/// A container that ended for good does not run again.
pub(super) fn pod(new: &Value, old: &Value, errors: &mut Errors) {
    let s = status(new);
    for c in s.each("conditions") {
        c.of("type").renamed(format!("{}.Type", c.path)).name(name::qualified_name, errors);
    }
    s.of("nominatedNodeName").name_if(name::dns_subdomain, errors);
    let policy = object::text(new, "spec.restartPolicy").unwrap_or("Always");
    for (list, of) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", "ephemeralContainers"),
    ] {
        let policy = if list == "ephemeralContainerStatuses" { "Never" } else { policy };
        let specs = object::list(new, &format!("spec.{of}"));
        // One with a policy of its own comes back by that.
        let own =
            |n: &Value| specs.iter().any(|c| c["name"] == *n && object::get(c, "restartPolicy").is_some());
        for (i, before) in object::list(old, &format!("status.{list}")).iter().enumerate() {
            let Some(end) = object::get(before, "state.terminated") else { continue };
            let retried = policy == "OnFailure" && end["exitCode"].as_i64().unwrap_or(0) != 0;
            if policy == "Always" || retried || own(&before["name"]) {
                continue;
            }
            let again = object::list(new, &format!("status.{list}"))
                .iter()
                .any(|c| c["name"] == before["name"] && object::get(c, "state.terminated").is_none());
            if again {
                let at = format!("status.{list}[{i}].state");
                errors.forbidden(at, "may not be transitioned to non-terminated state");
            }
        }
    }
    addresses(&s, errors);
}

/// One of each family at most.
fn addresses(s: &At<'_>, errors: &mut Errors) {
    let all: Vec<Option<IpAddr>> = s.each("podIPs").map(|ip| ip.of("ip").address(errors)).collect();
    let alike = matches!(all[..], [Some(a), Some(b)] if a.is_ipv4() == b.is_ipv4());
    if alike || all.len() > 2 {
        s.of("podIPs").invalid("may specify no more than one IP for each IP family", errors);
    }
}
