//! What a PersistentVolumeClaim must be, and what of it stays
//! (kubernetes: pkg/apis/core/validation/validation.go ValidatePersistentVolumeClaimSpec).

use apimachinery::name;
use serde_json::{Value, json};

use super::super::check::At;
use crate::object;
use crate::validation::Errors;

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// `accessModes` of claims and volumes.
pub(super) fn access_modes(spec: &At<'_>, errors: &mut Errors) {
    let modes = spec.of("accessModes");
    let (mut alone, mut shared) = (false, false);
    for mode in spec.each("accessModes") {
        // Upstream does not say which.
        mode.clone().renamed(modes.path.as_str()).one_of(&MODES, errors);
        alone |= mode.str() == "ReadWriteOncePod";
        shared |= mode.str() != "ReadWriteOncePod" && MODES.contains(&mode.str());
    }
    if alone && shared {
        modes.forbidden("may not use ReadWriteOncePod with other access modes", errors);
    }
}

/// A claim's spec, also as a template of one.
pub(in crate::kinds) fn claim_spec(spec: &At<'_>, errors: &mut Errors) {
    if spec.len("accessModes") == 0 {
        errors.required(spec.of("accessModes").path, "at least 1 access mode is required");
    }
    spec.of("selector").selector(errors);
    access_modes(spec, errors);
    let size = spec.of("resources.requests.storage").renamed(format!("{}.resources[storage]", spec.path));
    if size.given() {
        size.quantity_positive(errors);
    } else {
        errors.required(size.path.as_str(), "");
    }
    spec.of("storageClassName").name_if(name::dns_subdomain, errors);
    spec.of("volumeMode").one_of(&["Block", "Filesystem"], errors);
    let (old, new) = (spec.of("dataSource"), spec.of("dataSourceRef"));
    for source in [&old, &new] {
        if source.given() {
            data_source(source, errors);
        }
    }
    new.of("namespace").name_if(name::dns_label, errors);
    if !new.text("namespace").is_empty() {
        if old.given() {
            let detail = "may not be specified when dataSourceRef.namespace is specified";
            errors.invalid(spec.path.as_str(), &json!({}), detail);
        }
    } else if old.given() && new.given() {
        let of = |s: &At<'_>| ["apiGroup", "kind", "name"].map(|f| s.of(f).v.clone());
        if of(&old) != of(&new) {
            errors.invalid(spec.path.as_str(), &json!({}), "must match dataSourceRef");
        }
    }
    spec.of("volumeAttributesClassName").name_if(name::dns_subdomain, errors);
}

fn data_source(source: &At<'_>, errors: &mut Errors) {
    source.of("name").required(errors);
    source.of("kind").required(errors);
    let (kind, group) = (source.text("kind"), source.of("apiGroup"));
    if group.str().is_empty() && kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.invalid(source.path.as_str(), kind, detail);
    }
    group.name_if(name::dns_subdomain, errors);
}

/// A claim may be bound, and grow once it is; nothing else changes.
pub(super) fn stays(new: &Value, old: &Value, errors: &mut Errors) {
    let (was, is) = (At::root(old), At::root(new));
    let mut spec = new["spec"].clone();
    if let Value::Object(m) = &mut spec {
        if was.text("spec.volumeName").is_empty() {
            object::copy(m, &old["spec"], "volumeName");
        }
        if !was.of("spec.storageClassName").given() {
            object::copy(m, &old["spec"], "storageClassName");
        }
        object::copy(m, &old["spec"], "volumeAttributesClassName");
    }
    let size = |o: &At<'_>, path: &str| o.of(path).quantity().unwrap_or_default();
    let requested = "spec.resources.requests.storage";
    let (old_size, new_size) = (size(&was, requested), size(&is, requested));
    if (is.text("status.phase") == "Bound" || old_size == new_size)
        && let Some(requests) = spec.get_mut("resources").and_then(|r| r.get_mut("requests"))
    {
        requests["storage"] = was.of(requested).v.clone();
    }
    if spec != old["spec"] {
        let diff = super::super::differ::text("core.PersistentVolumeClaimSpec", &old["spec"], &spec);
        errors.forbidden("spec", &format!("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{diff}"));
    }
    // Down to what there is, so that growth that failed may be taken back.
    if new_size < old_size && new_size <= size(&was, "status.capacity.storage") {
        errors.forbidden(requested, "field can not be less than status.capacity");
    }
    is.of("spec.volumeMode").renamed("volumeMode").immutable(&was.of("spec.volumeMode"), errors);
    let class = is.of("spec.volumeAttributesClassName");
    if was.of("spec.volumeAttributesClassName").given() {
        if !class.given() {
            class.forbidden("update from non-nil value to nil is forbidden", errors);
        } else if class.str().is_empty() {
            class.forbidden("update from non-nil value to an empty string is forbidden", errors);
        }
    }
}
