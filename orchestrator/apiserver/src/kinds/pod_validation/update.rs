//! What of a pod may change once it is there (kubernetes: pkg/apis/core/validation/validation.go ValidatePodUpdate).

use serde_json::Value;

use super::super::check::At;
use super::super::differ;
use crate::object;
use crate::validation::Errors;

const MAY_CHANGE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(in crate::kinds) fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (is, was) = (At::root(new).of("spec"), At::root(old).of("spec"));
    for list in ["containers", "initContainers"] {
        if is.len(list) != was.len(list) {
            return is.of(list).forbidden("pod updates may not add or remove containers", errors);
        }
    }
    let deadline = is.of("activeDeadlineSeconds");
    match (deadline.v.as_i64(), was.int("activeDeadlineSeconds")) {
        (Some(n), Some(before)) if before < n => {
            return deadline.invalid("must be less than or equal to previous value", errors);
        }
        (None, Some(_)) => {
            deadline.invalid("must not update from a positive integer to nil value", errors);
        }
        _ => {}
    }
    added_tolerations(&is, &was, errors);
    let gates: Vec<&str> = was.each("schedulingGates").map(|g| g.text("name")).collect();
    for gate in is.each("schedulingGates").map(|g| g.of("name")).filter(|n| !gates.contains(&n.str())) {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.str());
        gate.forbidden(&detail, errors);
    }
    let mut masked = new["spec"].clone();
    mask(&mut masked, &old["spec"]);
    if !gates.is_empty() {
        gated(&mut masked, &is, &was, errors);
    }
    if masked != old["spec"] {
        let diff = differ::text("core.PodSpec", &old["spec"], &masked);
        let detail = format!("pod updates may not change fields other than {MAY_CHANGE}\n{diff}");
        errors.forbidden("spec", &detail);
    }
}

/// Tolerations may come, and last for another time.
fn added_tolerations(is: &At<'_>, was: &At<'_>, errors: &mut Errors) {
    let without_time = |t: &Value| {
        let mut t = t.clone();
        drop(object::remove(&mut t, "tolerationSeconds"));
        t
    };
    let now: Vec<Value> = is.each("tolerations").map(|t| without_time(t.v)).collect();
    if was.each("tolerations").any(|t| !now.contains(&without_time(t.v))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        is.of("tolerations").forbidden(detail, errors);
    }
}

/// Takes back what may change.
fn mask(masked: &mut Value, old: &Value) {
    for list in ["containers", "initContainers"] {
        for (c, before) in object::list_mut(masked, list).iter_mut().zip(object::list(old, list)) {
            if let Value::Object(m) = c {
                object::copy(m, before, "image");
            }
        }
    }
    let grace = "terminationGracePeriodSeconds";
    let spared = object::int(old, grace).is_some_and(|n| n < 0) && object::int(masked, grace) == Some(1);
    if let Value::Object(m) = masked {
        for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            object::copy(m, old, field);
        }
        if spared {
            object::copy(m, old, grace);
        }
    }
}

/// A pod that waits behind a gate may be told more of where it is to run.
fn gated(masked: &mut Value, is: &At<'_>, was: &At<'_>, errors: &mut Errors) {
    let selector = is.of("nodeSelector");
    if was.entries("nodeSelector").any(|(key, v)| selector.v.get(key) != Some(v.v)) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        selector.invalid(detail, errors);
    }
    if let Value::Object(m) = &mut *masked {
        object::copy(m, was.v, "nodeSelector");
    }
    let at = "affinity.nodeAffinity";
    let required = "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let (affinity, before) = (is.of(at), was.of(at));
    if affinity.v == before.v {
        return;
    }
    let terms = affinity.of(required);
    if before.len(required) > 0 {
        if affinity.len(required) != before.len(required) {
            terms.invalid("no additions/deletions to non-empty NodeSelectorTerms list are allowed", errors);
        } else {
            for (term, old) in terms.items().zip(before.each(required)) {
                let grown = ["matchExpressions", "matchFields"]
                    .iter()
                    .all(|list| object::list(term.v, list).starts_with(object::list(old.v, list)));
                if !grown {
                    term.invalid("only additions are allowed (no mutations or deletions)", errors);
                }
            }
        }
    }
    // Compared no more.
    match was.get("affinity") {
        Some(old) if is.of("affinity").given() => {
            if let Some(Value::Object(m)) = masked.get_mut("affinity") {
                object::copy(m, old.v, "nodeAffinity");
            }
        }
        Some(old) if object::get(old.v, "nodeAffinity").is_some() => {
            masked["affinity"] = serde_json::json!({"nodeAffinity": old.of("nodeAffinity").v});
        }
        _ => {
            let rest = masked["affinity"].as_object().is_some_and(|a| a.keys().any(|k| k != "nodeAffinity"));
            if !rest {
                drop(object::remove(masked, "affinity"));
            }
        }
    }
}
