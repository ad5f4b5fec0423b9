//! Names of resources that are counted, and which amounts of them there can be
//! (kubernetes: pkg/apis/core/helper/helpers.go, pkg/apis/core/validation/validation.go).

use apimachinery::name;

use super::check::At;
use crate::validation::Errors;

const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
/// Counted one by one.
const WHOLE: [&str; 9] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Kubernetes' own: without a domain, or below its own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(super) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// What devices offer.
pub(super) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && name::qualified_name(&format!("requests.{name}")).is_ok()
}

/// Whether a container may be promised less than it may use.
pub(super) fn overcommits(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

fn in_quota(name: &str) -> bool {
    name != "storage" && STANDARD.contains(&name)
        || is_huge_page(name.strip_prefix("requests.").unwrap_or(name))
}

/// A name; tells whether it is well formed.
fn any_name(name: &str, at: &At<'_>, errors: &mut Errors) -> bool {
    if let Err(why) = name::qualified_name(name) {
        errors.invalid(at.path.as_str(), name, &why);
        return false;
    }
    let huge = is_huge_page(name.strip_prefix("requests.").unwrap_or(name));
    if !name.contains('/') && !STANDARD.contains(&name) && !huge {
        let detail = "must be a standard resource type or fully qualified";
        errors.invalid(at.path.as_str(), name, detail);
    }
    true
}

/// The name of what containers use.
pub(super) fn container_name(name: &str, at: &At<'_>, errors: &mut Errors) {
    any_name(name, at, errors);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
            errors.invalid(at.path.as_str(), name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(at.path.as_str(), name, "doesn't follow extended resource name standard");
    }
}

/// The name of what a quota counts.
pub(super) fn quota_name(name: &str, at: &At<'_>, errors: &mut Errors) {
    any_name(name, at, errors);
    if !name.contains('/') && !in_quota(name) {
        errors.invalid(at.path.as_str(), name, "must be a standard resource for quota");
    }
}

/// The name of what a range bounds, for things of this type.
pub(super) fn range_name(kind: &str, name: &str, at: &At<'_>, errors: &mut Errors) {
    if matches!(kind, "Pod" | "Container") {
        container_name(name, at, errors);
    } else {
        any_name(name, at, errors);
    }
}

/// An amount: not negative, and whole where it is counted.
pub(super) fn amount(name: &str, at: &At<'_>, errors: &mut Errors) {
    at.quantity_not_negative(errors);
    let whole = WHOLE.contains(&name) || is_extended(name);
    if whole && at.quantity().is_some_and(|q| q.milli() % 1000 != 0) {
        at.invalid("must be an integer", errors);
    }
}

/// Whether a quota may count this where it counts only within a scope.
pub(super) fn in_scope(scope: &str, name: &str) -> bool {
    let computed = matches!(
        name,
        "cpu" | "memory" | "limits.cpu" | "limits.memory" | "requests.cpu" | "requests.memory"
    );
    match scope {
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => name == "pods" || computed,
        _ => true,
    }
}

/// Whether scopes judge what a quota counts under this name.
pub(super) fn is_standard_in_quota(name: &str) -> bool {
    in_quota(name)
}
