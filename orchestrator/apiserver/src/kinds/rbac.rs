//! Roles and bindings: who may do what.

use serde_json::Value;
use signal::Timestamp;

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
    validate: |o, e| validate_rules(o, e, false),
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

fn validate_binding(o: &Value, errors: &mut Errors) {
    match object::text(o, "roleRef.kind") {
        Some("ClusterRole") => {}
        Some("Role") if o.get("metadata").and_then(|m| m.get("namespace")).is_some() => {}
        Some(other) => errors.not_supported("roleRef.kind", other, &["ClusterRole", "Role"]),
        None => errors.required("roleRef.kind", ""),
    }
    if object::text(o, "roleRef.name").is_none_or(str::is_empty) {
        errors.required("roleRef.name", "");
    }
    for (i, s) in object::list(o, "subjects").iter().enumerate() {
        if s["name"].as_str().is_none_or(str::is_empty) {
            errors.required(format!("subjects[{i}].name"), "");
        }
        match s["kind"].as_str() {
            Some("User" | "Group") => {}
            Some("ServiceAccount") => {
                if s["namespace"].as_str().is_none_or(str::is_empty) {
                    errors.required(format!("subjects[{i}].namespace"), "");
                }
            }
            Some(other) => {
                errors.not_supported(
                    format!("subjects[{i}].kind"),
                    other,
                    &["Group", "ServiceAccount", "User"],
                );
            }
            None => errors.required(format!("subjects[{i}].kind"), ""),
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
