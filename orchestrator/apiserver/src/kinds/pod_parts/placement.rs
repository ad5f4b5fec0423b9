//! Where a pod may be: affinity, spreading, and the selectors in them.

use std::collections::HashSet;

use apimachinery::name;
use serde_json::Value;

use super::super::check::At;
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
        if let Err(e) = name::qualified_name(text(r, "key")) {
            errors.invalid(format!("{at}.key"), text(r, "key"), &e);
        }
        for (j, v) in values.iter().enumerate().filter(|_| !numbers) {
            if let Some(Err(e)) = v.as_str().map(name::label_value) {
                errors.invalid(format!("{at}.values[{j}]"), v, &e);
            }
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
    for r in At::new(t, at).each("matchFields") {
        let (operator, key, values) = (r.of("operator"), r.of("key"), r.of("values"));
        match operator.str() {
            "In" | "NotIn" if r.len("values") != 1 => errors.required(
                values.path.as_str(),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ),
            "In" | "NotIn" => {}
            other => errors.invalid(operator.path.as_str(), other, "not a valid selector operator"),
        }
        if key.str() == "metadata.name" {
            values.items().for_each(|v| v.name(name::dns_subdomain, errors));
        } else {
            errors.invalid(key.path.as_str(), key.str(), "not a valid field selector key");
        }
    }
}

/// What some node must be.
pub(in crate::kinds) fn node_selector(s: &Value, at: &str, errors: &mut Errors) {
    let at = format!("{at}.nodeSelectorTerms");
    let terms = object::list(s, "nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(at.as_str(), "must have at least one node selector term");
    }
    for (i, t) in terms.iter().enumerate() {
        node_term(t, &format!("{at}[{i}]"), errors);
    }
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
    At::new(t, at).of("topologyKey").name(name::qualified_name, errors);
}

fn topology_key(t: &Value, at: &str, errors: &mut Errors) {
    At::new(t, at).of("topologyKey").required_for("can not be empty", errors);
}

pub(in crate::kinds) fn affinity(spec: &Value, at: &str, errors: &mut Errors) {
    let Some(affinity) = object::get(spec, "affinity") else { return };
    let at = format!("{at}.affinity");
    if let Some(node) = object::get(affinity, "nodeAffinity") {
        let at = format!("{at}.nodeAffinity");
        if let Some(required) = object::get(node, REQUIRED) {
            node_selector(required, &format!("{at}.{REQUIRED}"), errors);
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
        spread_keys(&At::new(c, at.as_str()), errors);
        selector(&c["labelSelector"], &format!("{at}.labelSelector"), errors);
    }
}

/// Keys whose values a pod's own labels give.
fn spread_keys(c: &At<'_>, errors: &mut Errors) {
    let selector = c.of("labelSelector");
    let keys = c.of("matchLabelKeys");
    if c.len("matchLabelKeys") > 0 && !selector.given() {
        keys.forbidden("must not be specified when labelSelector is not set", errors);
    }
    for key in keys.items() {
        key.name(name::qualified_name, errors);
        let selected = selector.of("matchLabels").v.get(key.str()).is_some()
            || selector.each("matchExpressions").any(|e| e.text("key") == key.str());
        if selected {
            key.invalid("exists in both matchLabelKeys and labelSelector", errors);
        }
    }
}
