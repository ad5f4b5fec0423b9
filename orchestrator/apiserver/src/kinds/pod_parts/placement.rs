//! Where a pod may be: affinity, spreading, and the selectors in them.

use std::collections::HashSet;

use apimachinery::name;
use serde_json::Value;

use super::{one_of, text};
use crate::object;
use crate::validation::Errors;

const SINGLE: &str = "must be specified single value when `operator` is 'Lt' or 'Gt'";
const VALUES: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const NO_VALUES: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";

/// The requirements of a label selector.
pub(in crate::kinds) fn selector(s: &Value, at: &str, errors: &mut Errors) {
    for (k, v) in s["matchLabels"].as_object().into_iter().flatten() {
        if let Err(e) = name::qualified_name(k) {
            errors.invalid(format!("{at}.matchLabels"), k.as_str(), &e);
        }
        if let Some(Err(e)) = v.as_str().map(name::label_value) {
            errors.invalid(format!("{at}.matchLabels"), v, &e);
        }
    }
    requirements(s, "matchExpressions", at, false, errors);
}

fn requirements(s: &Value, key: &str, at: &str, numbers: bool, errors: &mut Errors) {
    for (i, r) in object::list(s, key).iter().enumerate() {
        let at = format!("{at}.{key}[{i}]");
        let values = object::list(r, "values");
        match text(r, "operator") {
            "In" | "NotIn" if values.is_empty() => errors.required(format!("{at}.values"), VALUES),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(format!("{at}.values"), NO_VALUES);
            }
            "Gt" | "Lt" if numbers => {
                if values.len() != 1 {
                    errors.required(format!("{at}.values"), SINGLE);
                }
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(format!("{at}.operator"), other, "not a valid selector operator"),
        }
        if key == "matchExpressions"
            && let Err(e) = name::qualified_name(text(r, "key"))
        {
            errors.invalid(format!("{at}.key"), text(r, "key"), &e);
        }
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn weight(w: &Value, at: &str, errors: &mut Errors) {
    let n = w["weight"].as_i64().unwrap_or(0);
    if !(1..=100).contains(&n) {
        errors.invalid(format!("{at}.weight"), n, "must be in the range 1-100");
    }
}

fn node_term(t: &Value, at: &str, errors: &mut Errors) {
    requirements(t, "matchExpressions", at, true, errors);
    requirements(t, "matchFields", at, true, errors);
}

fn pod_term(t: &Value, at: &str, errors: &mut Errors) {
    selector(&t["labelSelector"], &format!("{at}.labelSelector"), errors);
    selector(&t["namespaceSelector"], &format!("{at}.namespaceSelector"), errors);
    for n in object::list(t, "namespaces").iter().filter_map(Value::as_str) {
        if let Err(e) = name::dns_label(n) {
            errors.invalid(format!("{at}.namespace"), n, &e);
        }
    }
    topology_key(t, at, errors);
}

fn topology_key(t: &Value, at: &str, errors: &mut Errors) {
    let key = text(t, "topologyKey");
    if key.is_empty() {
        errors.required(format!("{at}.topologyKey"), "can not be empty");
    } else if let Err(e) = name::qualified_name(key) {
        errors.invalid(format!("{at}.topologyKey"), key, &e);
    }
}

pub(in crate::kinds) fn affinity(spec: &Value, at: &str, errors: &mut Errors) {
    let Some(affinity) = object::get(spec, "affinity") else { return };
    let at = format!("{at}.affinity");
    if let Some(node) = object::get(affinity, "nodeAffinity") {
        let at = format!("{at}.nodeAffinity");
        if let Some(required) = object::get(node, REQUIRED) {
            let at = format!("{at}.{REQUIRED}.nodeSelectorTerms");
            let terms = object::list(required, "nodeSelectorTerms");
            if terms.is_empty() {
                errors.required(at.as_str(), "must have at least one node selector term");
            }
            for (i, t) in terms.iter().enumerate() {
                node_term(t, &format!("{at}[{i}]"), errors);
            }
        }
        for (i, w) in object::list(node, PREFERRED).iter().enumerate() {
            let at = format!("{at}.{PREFERRED}[{i}]");
            weight(w, &at, errors);
            node_term(&w["preference"], &format!("{at}.preference"), errors);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(a) = object::get(affinity, kind) else { continue };
        for (i, t) in object::list(a, REQUIRED).iter().enumerate() {
            pod_term(t, &format!("{at}.{kind}.{REQUIRED}[{i}]"), errors);
        }
        for (i, w) in object::list(a, PREFERRED).iter().enumerate() {
            let at = format!("{at}.{kind}.{PREFERRED}[{i}]");
            weight(w, &at, errors);
            pod_term(&w["podAffinityTerm"], &format!("{at}.podAffinityTerm"), errors);
        }
    }
}

pub(in crate::kinds) fn spreading(spec: &Value, at: &str, errors: &mut Errors) {
    const POSITIVE: &str = "must be greater than zero";
    let mut pairs = HashSet::new();
    for (i, c) in object::list(spec, "topologySpreadConstraints").iter().enumerate() {
        let at = format!("{at}.topologySpreadConstraints[{i}]");
        let skew = c["maxSkew"].as_i64().unwrap_or(0);
        if skew <= 0 {
            errors.invalid(format!("{at}.maxSkew"), skew, POSITIVE);
        }
        topology_key(c, &at, errors);
        let when = text(c, "whenUnsatisfiable");
        if !matches!(when, "DoNotSchedule" | "ScheduleAnyway") {
            let supported = ["DoNotSchedule", "ScheduleAnyway"];
            errors.not_supported(format!("{at}.whenUnsatisfiable"), when, &supported);
        }
        if !pairs.insert((text(c, "topologyKey"), when)) {
            let pair = format!("{{{}, {when}}}", text(c, "topologyKey"));
            errors.duplicate(format!("{at}.{{topologyKey, whenUnsatisfiable}}"), pair.as_str());
        }
        if let Some(n) = c["minDomains"].as_i64() {
            if n <= 0 {
                errors.invalid(format!("{at}.minDomains"), n, POSITIVE);
            }
            if when != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.invalid(format!("{at}.minDomains"), n, &detail);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            one_of(c, &at, policy, &["Honor", "Ignore"], errors);
        }
        selector(&c["labelSelector"], &format!("{at}.labelSelector"), errors);
    }
}
