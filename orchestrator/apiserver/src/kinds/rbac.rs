//! Roles and bindings: who may do what.

use apimachinery::name;
use serde_json::Value;
use signal::Timestamp;

use super::check::At;
use super::{AGE, BASE, Kind, NAME, column, wide};
use crate::validation::Errors;
use crate::{object, table};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) static ROLE: Kind = Kind {
    resource: "roles",
    singular: "role",
    kind: "Role",
    validate: |o, e| validate_rules(o, e, true),
    ..ROLE_BASE
};

pub(crate) static CLUSTER_ROLE: Kind = Kind {
    resource: "clusterroles",
    singular: "clusterrole",
    kind: "ClusterRole",
    namespaced: false,
    validate: |o, e| {
        validate_rules(o, e, false);
        validate_aggregation(&At::root(o).of("aggregationRule"), e);
    },
    ..ROLE_BASE
};

pub(crate) static ROLE_BINDING: Kind =
    Kind { resource: "rolebindings", singular: "rolebinding", kind: "RoleBinding", ..BINDING_BASE };

pub(crate) static CLUSTER_ROLE_BINDING: Kind = Kind {
    resource: "clusterrolebindings",
    singular: "clusterrolebinding",
    kind: "ClusterRoleBinding",
    namespaced: false,
    ..BINDING_BASE
};

const ROLE_BASE: Kind = Kind {
    group: GROUP,
    name_rule: apimachinery::name::path_segment,
    default: |o| object::default(o, "rules", Value::Null),
    columns: &[NAME, column("Created At")],
    row: role_row,
    ..BASE
};

const BINDING_BASE: Kind = Kind {
    group: GROUP,
    name_rule: apimachinery::name::path_segment,
    default: default_binding,
    validate: validate_binding,
    validate_update: |new, old, errors| {
        if new.get("roleRef") != old.get("roleRef") {
            errors.invalid("roleRef", new.get("roleRef").unwrap_or(&Value::Null), "cannot change roleRef");
        }
    },
    columns: &[NAME, column("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")],
    row: binding_row,
    ..BASE
};

fn validate_rules(o: &Value, errors: &mut Errors, namespaced: bool) {
    for (i, rule) in object::list(o, "rules").iter().enumerate() {
        let at = |f: &str| format!("rules[{i}].{f}");
        if object::list(rule, "verbs").is_empty() {
            errors.required(at("verbs"), "verbs must contain at least one value");
        }
        let urls = !object::list(rule, "nonResourceURLs").is_empty();
        let some = |f: &str| !object::list(rule, f).is_empty();
        if urls {
            if namespaced {
                errors.invalid(
                    at("nonResourceURLs"),
                    &rule["nonResourceURLs"],
                    "namespaced rules cannot apply to non-resource URLs",
                );
            }
            if some("apiGroups") || some("resources") || some("resourceNames") {
                errors.invalid(
                    at("nonResourceURLs"),
                    &rule["nonResourceURLs"],
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if !some("apiGroups") {
            errors.required(at("apiGroups"), "resource rules must supply at least one api group");
        }
        if !some("resources") {
            errors.required(at("resources"), "resource rules must supply at least one resource");
        }
    }
}

fn default_binding(o: &mut Value) {
    if let Some(r) = o.get_mut("roleRef") {
        object::default_text(r, "apiGroup", GROUP);
    }
    for s in object::list_mut(o, "subjects") {
        if matches!(s["kind"].as_str(), Some("User" | "Group")) {
            object::default_text(s, "apiGroup", GROUP);
        }
    }
}

/// A role that is made of others says which.
fn validate_aggregation(rule: &At<'_>, errors: &mut Errors) {
    let selectors = rule.of("clusterRoleSelectors");
    if rule.given() && rule.len("clusterRoleSelectors") == 0 {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.required(selectors.path.as_str(), detail);
    }
    selectors.items().for_each(|s| s.selector(errors));
}

/// kubernetes: pkg/apis/rbac/validation/validation.go
fn validate_binding(o: &Value, errors: &mut Errors) {
    let o = At::root(o);
    let namespaced = o.of("metadata.namespace").given();
    let role = o.of("roleRef");
    if role.text("apiGroup") != GROUP {
        errors.not_supported("roleRef.apiGroup", role.text("apiGroup"), &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.text("kind")) {
        errors.not_supported("roleRef.kind", role.text("kind"), kinds);
    }
    role.of("name").must_be_name(name::path_segment, errors);
    for subject in o.each("subjects") {
        subject.of("name").required(errors);
        let (kind, group) = (subject.of("kind"), subject.of("apiGroup"));
        match kind.str() {
            "ServiceAccount" => {
                subject.of("name").name_if(name::dns_subdomain, errors);
                if !group.str().is_empty() {
                    errors.not_supported(group.path.as_str(), group.str(), &[""]);
                }
                subject.of("namespace").required(errors);
            }
            "User" | "Group" => {
                if group.str() != GROUP {
                    errors.not_supported(group.path.as_str(), group.str(), &[GROUP]);
                }
            }
            other => {
                errors.not_supported(kind.path.as_str(), other, &["ServiceAccount", "User", "Group"]);
            }
        }
    }
}

fn role_row(o: &Value, _: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), object::text(o, "metadata.creationTimestamp").unwrap_or_default().into()]
}

fn binding_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let role = format!(
        "{}/{}",
        object::text(o, "roleRef.kind").unwrap_or_default(),
        object::text(o, "roleRef.name").unwrap_or_default()
    );
    let of = |kind: &str| {
        let all = object::list(o, "subjects").iter().filter(|s| s["kind"] == kind);
        let names: Vec<String> = all
            .map(|s| {
                let name = s["name"].as_str().unwrap_or_default();
                match s["namespace"].as_str() {
                    Some(ns) if kind == "ServiceAccount" => format!("{ns}/{name}"),
                    _ => name.to_owned(),
                }
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![
        object::name(o).into(),
        role.into(),
        table::age(o, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}
