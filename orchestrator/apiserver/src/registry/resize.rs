//! What may be resized of a pod that runs: processors and memory of its containers and sidecars
//! (KEP-1287; kubernetes: pkg/apis/core/validation ValidatePodResize, pkg/registry/core/pod/strategy.go).

use serde_json::Value;

use crate::kinds::pod::qos;
use crate::object;
use crate::validation::Errors;

const LISTS: [&str; 2] = ["initContainers", "containers"];
const MUTABLE: [&str; 2] = ["cpu", "memory"];

/// The old pod with the resources of the new one: nothing else comes through this door.
pub(super) fn take(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    object::copy(object::metadata(&mut kept), &new["metadata"], "managedFields");
    for list in LISTS {
        for c in object::list_mut(&mut kept, &format!("spec.{list}")) {
            let given = object::list(new, &format!("spec.{list}")).iter().find(|g| g["name"] == c["name"]);
            if let (Some(given), Some(c)) = (given, c.as_object_mut()) {
                object::copy(c, given, "resources");
                object::copy(c, given, "resizePolicy");
            }
        }
    }
    *new = kept;
}

pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    for list in LISTS {
        let (now, before) =
            (object::list(new, &format!("spec.{list}")), object::list(old, &format!("spec.{list}")));
        for (i, (c, was)) in now.iter().zip(before).enumerate() {
            container(c, was, list == "initContainers", &format!("spec.{list}[{i}]"), errors);
        }
    }
    let (class, before) = (qos(&new["spec"]), qos(&old["spec"]));
    if class != before {
        errors.invalid("spec", class, "Pod QOS Class may not change as a result of resizing");
    }
}

fn container(c: &Value, was: &Value, init: bool, at: &str, errors: &mut Errors) {
    if c.get("resizePolicy") != was.get("resizePolicy") {
        errors.forbidden("spec", "only cpu and memory resources are mutable");
    }
    if c["resources"] == was["resources"] {
        return;
    }
    if init && c["restartPolicy"] != "Always" {
        errors
            .forbidden(format!("{at}.resources"), "resources for non-sidecar init containers are immutable");
        return;
    }
    let amounts = |o: &Value, kind: &str| {
        o["resources"].get(kind).and_then(Value::as_object).cloned().unwrap_or_default()
    };
    for kind in ["limits", "requests"] {
        let (now, before) = (amounts(c, kind), amounts(was, kind));
        let others = |m: &serde_json::Map<String, Value>| -> Vec<(String, Value)> {
            m.iter()
                .filter(|(k, _)| !MUTABLE.contains(&k.as_str()))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect()
        };
        if others(&now) != others(&before) {
            errors.forbidden("spec", "only cpu and memory resources are mutable");
        }
        if let Some(gone) = MUTABLE.iter().find(|k| before.contains_key(**k) && !now.contains_key(**k)) {
            errors.forbidden(
                format!("{at}.resources.{kind}"),
                &format!("resource {kind} cannot be removed: {gone}"),
            );
        }
    }
    if c["resources"].get("claims") != was["resources"].get("claims") {
        errors.forbidden("spec", "only cpu and memory resources are mutable");
    }
}
