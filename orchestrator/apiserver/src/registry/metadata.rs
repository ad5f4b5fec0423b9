//! What all objects share: what no update changes, which part an update changes, and what metadata must be.

use apimachinery::name;
use serde_json::{Map, Value, json};

use super::Part;
use crate::error::{ApiError, Result};
use crate::kinds::check::At;
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

/// What a new object's name begins with, as far as a name may begin so.
pub(super) fn validate_generated(kind: &Kind, o: &Value, errors: &mut Errors) {
    let prefix = object::text(o, "metadata.generateName").unwrap_or_default();
    // More letters follow a dash.
    let masked = match prefix.strip_suffix('-') {
        Some(more) if !more.is_empty() => format!("{}a", &prefix[..prefix.len() - 2]),
        _ => prefix.to_owned(),
    };
    if !prefix.is_empty()
        && let Err(why) = (kind.name_rule)(&masked)
    {
        errors.invalid("metadata.generateName", prefix, &why);
    }
}

/// Names, labels, annotations, owners, finalizers (apimachinery: pkg/api/validation/objectmeta.go).
pub(super) fn validate_metadata(kind: &Kind, o: &Value, errors: &mut Errors) {
    let meta = At::root(o).of("metadata");
    meta.of("name").name(kind.name_rule, errors);
    meta.of("labels").labels(errors);
    meta.of("annotations").annotations(errors);
    validate_owners(&meta, errors);
    let finalizers = meta.of("finalizers");
    for f in meta.each("finalizers") {
        f.renamed(finalizers.path.as_str()).name(name::qualified_name, errors);
    }
    let has = |f: &str| object::list(meta.v, "finalizers").iter().any(|has| has == f);
    if has("orphan") && has("foregroundDeletion") {
        finalizers.invalid("finalizer orphan and foregroundDeletion cannot be both set", errors);
    }
}

fn validate_owners(meta: &At<'_>, errors: &mut Errors) {
    let owners = meta.of("ownerReferences");
    let mut controller = String::new();
    for owner in meta.each("ownerReferences") {
        // Upstream does not say which.
        let owner = owner.renamed(owners.path.as_str());
        let version = owner.text("apiVersion");
        if version.is_empty() || version.ends_with('/') {
            errors.invalid(owner.of("apiVersion").path, version, "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if owner.text(field).is_empty() {
                errors.invalid(owner.of(field).path, "", "must not be empty");
            }
        }
        if (version, owner.text("kind")) == ("v1", "Event") {
            owner.invalid("/v1, Kind=Event is disallowed from being an owner", errors);
        }
        if owner.flag("controller") {
            let this = format!("{}/{}", owner.text("kind"), owner.text("name"));
            if controller.is_empty() {
                controller = this;
            } else {
                owners.invalid(&format!("Only one reference can have Controller set to true. Found \"true\" in references for {controller} and {this}"), errors);
            }
        }
    }
}

/// An object that goes away takes no new finalizers.
pub(super) fn validate_going(new: &Value, old: &Value, errors: &mut Errors) {
    if !object::is_deleting(old) {
        return;
    }
    let before = object::list(old, "metadata.finalizers");
    let mut more: Vec<String> = object::list(new, "metadata.finalizers")
        .iter()
        .filter(|f| !before.contains(f))
        .map(ToString::to_string)
        .collect();
    more.sort();
    if !more.is_empty() {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            more.join(", ")
        );
        errors.forbidden("metadata.finalizers", &detail);
    }
}
