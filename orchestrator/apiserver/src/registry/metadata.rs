//! What all objects share: what no update changes, which part an update changes, and what metadata must be.

use apimachinery::name;
use serde_json::{Map, Value, json};

use super::Part;
use crate::error::{ApiError, Result};
use crate::kinds::{Kind, Served};
use crate::object;
use crate::validation::Errors;

/// What no update changes.
pub(super) fn keep_metadata(served: &Served, new: &mut Value, old: &Value) -> Result<()> {
    let kind = served.kind;
    let given = object::text(new, "metadata.uid").unwrap_or_default().to_owned();
    let uid = object::text(old, "metadata.uid").unwrap_or_default();
    if !given.is_empty() && given != uid {
        let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {uid}");
        return Err(ApiError::conflict(served, object::name(old), &why));
    }
    let ns = object::namespace(new);
    if kind.namespaced && !ns.is_empty() && ns != object::namespace(old) {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    new["apiVersion"] = old["apiVersion"].clone();
    new["kind"] = old["kind"].clone();
    let from = &old["metadata"];
    let meta = object::metadata(new);
    meta.shift_remove("selfLink");
    for key in [
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "generateName",
    ] {
        object::copy(meta, from, key);
    }
    Ok(())
}

/// Main updates keep the status, status updates keep the rest.
pub(super) fn keep_other_part(kind: &Kind, part: Part, new: &mut Value, old: &Value) {
    match part {
        Part::Internal => {}
        Part::Main => {
            if kind.status
                && let Value::Object(m) = new
            {
                object::copy(m, old, "status");
            }
        }
        Part::Status => {
            let status = new.get("status").cloned();
            let mut kept = old.clone();
            if kind.status_metadata {
                for key in ["labels", "annotations"] {
                    object::copy(object::metadata(&mut kept), &new["metadata"], key);
                }
            }
            object::copy(object::metadata(&mut kept), &new["metadata"], "managedFields");
            match status {
                Some(s) => kept["status"] = s,
                None => drop(object::remove(&mut kept, "status")),
            }
            *new = kept;
        }
        Part::Approval => {
            let conditions = object::get(new, "status.conditions").cloned();
            let mut kept = old.clone();
            object::copy(object::metadata(&mut kept), &new["metadata"], "managedFields");
            let status = object::child(&mut kept, "status");
            match conditions {
                Some(c) => status["conditions"] = c,
                None => drop(object::remove(status, "conditions")),
            }
            *new = kept;
        }
        Part::EphemeralContainers => {
            let given = object::get(new, "spec.ephemeralContainers").cloned();
            let managed = new["metadata"].get("managedFields").cloned();
            *new = old.clone();
            if let Some(managed) = managed {
                object::metadata(new).insert("managedFields".to_owned(), managed);
            }
            let spec = object::child(new, "spec");
            match given {
                Some(list) => spec["ephemeralContainers"] = list,
                None => drop(object::remove(spec, "ephemeralContainers")),
            }
        }
        Part::Resize => super::resize::take(new, old),
        Part::Finalize => {
            let finalizers = object::get(new, "spec.finalizers").cloned().unwrap_or_else(|| json!([]));
            *new = old.clone();
            object::child(new, "spec")["finalizers"] = finalizers;
        }
    }
}

/// Whether two objects want the same: everything outside metadata and status.
pub(super) fn same_spec(a: &Value, b: &Value) -> bool {
    same_where(a, b, |k, v| k != "metadata" && k != "status" && !v.is_null())
}

/// Whether two maps have the same entries among those that count.
fn same_where(a: &Value, b: &Value, counts: impl Fn(&str, &Value) -> bool) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let of = |m: &Map<String, Value>| m.iter().filter(|(k, v)| counts(k, v)).count();
    let equal = |(k, v): (&String, &Value)| !counts(k, v) || b.get(k) == Some(v);
    of(a) == of(b) && a.iter().all(equal)
}

/// Whether a write changes anything but the times in managed fields.
pub(super) fn same_but_times(a: &Value, b: &Value) -> bool {
    let counts = |k: &str, v: &Value| match k {
        "resourceVersion" | "managedFields" => false,
        "annotations" | "labels" | "finalizers" | "ownerReferences" => match v {
            Value::Object(m) => !m.is_empty(),
            Value::Array(l) => !l.is_empty(),
            v => !v.is_null(),
        },
        _ => true,
    };
    let none = Value::Null;
    let (x, y) = (a.get("metadata").unwrap_or(&none), b.get("metadata").unwrap_or(&none));
    let managers = |o: &Value| object::list(o, "managedFields").len();
    let same_managers = managers(x) == managers(y)
        && object::list(x, "managedFields")
            .iter()
            .zip(object::list(y, "managedFields"))
            .all(|(m, n)| same_where(m, n, |k, _| k != "time"));
    same_managers && same_where(x, y, counts) && same_where(a, b, |k, _| k != "metadata")
}

/// Names, labels, annotations, finalizers, owners.
pub(super) fn validate_metadata(kind: &Kind, o: &Value, errors: &mut Errors) {
    let n = object::name(o);
    if let Err(e) = (kind.name_rule)(n) {
        errors.invalid("metadata.name", n, &e);
    }
    validate_labels(&o["metadata"], "metadata", errors);
    let mut size = 0;
    for (k, v) in object::get(o, "metadata.annotations").and_then(Value::as_object).into_iter().flatten() {
        size += k.len() + v.as_str().map_or(0, str::len);
        if let Err(e) = name::qualified_name(&k.to_lowercase()) {
            errors.invalid("metadata.annotations", k.as_str(), &e);
        }
    }
    if size > 256 << 10 {
        errors.invalid("metadata.annotations", "", "Too long: may not be more than 262144 bytes");
    }
    for f in object::list(o, "metadata.finalizers") {
        let f = f.as_str().unwrap_or_default();
        if let Err(e) = name::qualified_name(f) {
            errors.invalid("metadata.finalizers", f, &e);
        }
    }
    let mut controllers = 0;
    for (i, r) in object::list(o, "metadata.ownerReferences").iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if r[field].as_str().is_none_or(str::is_empty) {
                errors.invalid(format!("metadata.ownerReferences[{i}].{field}"), "", "must not be empty");
            }
        }
        controllers += usize::from(r["controller"] == true);
    }
    if controllers > 1 {
        errors.invalid("metadata.ownerReferences", "", "Only one reference can have Controller set to true");
    }
}

pub(crate) fn validate_labels(metadata: &Value, at: &str, errors: &mut Errors) {
    for (k, v) in metadata["labels"].as_object().into_iter().flatten() {
        if let Err(e) = name::qualified_name(k) {
            errors.invalid(format!("{at}.labels"), k.as_str(), &e);
        }
        let v = v.as_str().unwrap_or_default();
        if let Err(e) = name::label_value(v) {
            errors.invalid(format!("{at}.labels"), v, &e);
        }
    }
}
