//! What an event must be, and what more one of events.k8s.io
//! (kubernetes: pkg/apis/core/validation/events.go).

use apimachinery::name;
use serde_json::Value;

use super::super::check::At;
use crate::object;
use crate::validation::Errors;

/// Bytes of who reports, what he did, and why.
const WORD_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

pub(super) fn event(o: &Value, errors: &mut Errors) {
    let o = At::root(o);
    let (space, about) = (object::namespace(o.v), o.of("involvedObject.namespace"));
    let mismatch = |errors: &mut Errors| {
        errors.invalid(about.path.as_str(), about.str(), "does not match event.namespace");
    };
    if !o.of("eventTime").given() {
        // Of what lies in no namespace old clients tell in the default one.
        let same = if about.str().is_empty() { "default" } else { about.str() };
        if space != same {
            mismatch(errors);
        }
        return;
    }
    if about.str().is_empty() && !matches!(space, "default" | "kube-system") {
        mismatch(errors);
    }
    let reporter = o.of("reportingComponent").renamed("reportingController");
    reporter.required(errors);
    reporter.name(name::qualified_name, errors);
    for field in ["reportingInstance", "action", "reason"] {
        let word = o.of(field);
        word.required(errors);
        bounded(&word, WORD_MAX, errors);
    }
    bounded(&o.of("message"), NOTE_MAX, errors);
}

fn bounded(at: &At<'_>, most: usize, errors: &mut Errors) {
    if at.str().len() > most {
        errors.invalid(at.path.as_str(), "", &format!("can have at most {most} characters"));
    }
}

pub(super) fn strict(o: &Value, errors: &mut Errors) {
    let o = At::root(o);
    o.of("metadata.name").name(name::dns_subdomain, errors);
    series(&o, errors);
    o.of("eventTime").required(errors);
    if !matches!(o.text("type"), "Normal" | "Warning") {
        errors.invalid("type", "", &format!("has invalid value: {}", o.text("type")));
    }
    let unset = [
        ("firstTimestamp", o.of("firstTimestamp").given()),
        ("lastTimestamp", o.of("lastTimestamp").given()),
        ("count", o.int("count").unwrap_or(0) != 0),
        ("source", !o.text("source.component").is_empty() || !o.text("source.host").is_empty()),
    ];
    for (field, _) in unset.iter().filter(|(_, given)| *given) {
        errors.invalid(*field, "", "needs to be unset");
    }
}

fn series(o: &At<'_>, errors: &mut Errors) {
    let Some(series) = o.get("series") else { return };
    if series.int("count").unwrap_or(0) < 2 {
        errors.invalid(series.of("count").path, "", "should be at least 2");
    }
    series.of("lastObservedTime").required(errors);
}

/// Only its series goes on.
pub(super) fn strict_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (new, old) = (At::root(new), At::root(old));
    if new.of("series").v != old.of("series").v {
        series(&new, errors);
    }
    for (field, told) in [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        new.of(field).renamed(told).immutable(&old.of(field), errors);
    }
}
