//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy with their bindings: admission by expressions
//! (kubernetes: pkg/apis/admissionregistration/{v1/defaults.go,validation/validation.go}).

use serde_json::{Value, json};
use signal::Timestamp;

use super::check::At;
use super::{AGE, BASE, Kind, NAME, column};
use crate::policies::compile;
use crate::validation::Errors;
use crate::{object, table};

pub(crate) const GROUP: &str = "admissionregistration.k8s.io";

const POLICY: Kind =
    Kind { group: GROUP, categories: &["api-extensions"], namespaced: false, generation: true, ..BASE };

pub(crate) static VALIDATING: Kind = Kind {
    resource: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    kind: "ValidatingAdmissionPolicy",
    status: true,
    default: default_policy,
    validate: validate_validating,
    columns: &[NAME, column("Validations"), column("ParamKind"), AGE],
    row: |o, now| row(o, "spec.validations", now),
    ..POLICY
};

pub(crate) static VALIDATING_BINDING: Kind = Kind {
    resource: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
    kind: "ValidatingAdmissionPolicyBinding",
    default: default_binding,
    validate: |o, errors| {
        validate_binding(o, errors);
        validate_actions(o, errors);
    },
    columns: &[NAME, column("PolicyName"), column("ParamRef"), AGE],
    row: binding_row,
    ..POLICY
};

pub(crate) static MUTATING: Kind = Kind {
    version: "v1beta1",
    resource: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
    kind: "MutatingAdmissionPolicy",
    default: default_policy,
    validate: validate_mutating,
    columns: &[NAME, column("Mutations"), column("ParamKind"), AGE],
    row: |o, now| row(o, "spec.mutations", now),
    ..POLICY
};

pub(crate) static MUTATING_BINDING: Kind = Kind {
    version: "v1beta1",
    resource: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
    kind: "MutatingAdmissionPolicyBinding",
    default: default_binding,
    validate: validate_binding,
    columns: &[NAME, column("PolicyName"), column("ParamRef"), AGE],
    row: binding_row,
    ..POLICY
};

fn row(o: &Value, counted: &str, now: Timestamp) -> Vec<Value> {
    let kind = match (object::text(o, "spec.paramKind.apiVersion"), object::text(o, "spec.paramKind.kind")) {
        (Some(v), Some(k)) => format!("{v}/{k}"),
        _ => "<unset>".to_owned(),
    };
    let count = object::list(o, counted).len();
    vec![object::name(o).into(), count.into(), kind.into(), table::age(o, now)]
}

fn binding_row(o: &Value, now: Timestamp) -> Vec<Value> {
    let policy = object::text(o, "spec.policyName").unwrap_or_default();
    let param = match (object::text(o, "spec.paramRef.namespace"), object::text(o, "spec.paramRef.name")) {
        (Some(ns), Some(n)) => format!("{ns}/{n}"),
        (None, Some(n)) => n.to_owned(),
        _ if object::get(o, "spec.paramRef.selector").is_some() => "*".to_owned(),
        _ => "<unset>".to_owned(),
    };
    vec![object::name(o).into(), policy.into(), param.into(), table::age(o, now)]
}

fn default_matches(m: &mut Value) {
    if !m.is_object() {
        return;
    }
    object::default_text(m, "matchPolicy", "Equivalent");
    object::default(m, "namespaceSelector", json!({}));
    object::default(m, "objectSelector", json!({}));
    for key in ["resourceRules", "excludeResourceRules"] {
        for rule in object::list_mut(m, key) {
            object::default_text(rule, "scope", "*");
        }
    }
}

fn default_policy(o: &mut Value) {
    let spec = object::child(o, "spec");
    object::default_text(spec, "failurePolicy", "Fail");
    if let Some(m) = spec.get_mut("matchConstraints") {
        default_matches(m);
    }
    if spec.get("mutations").is_some() {
        object::default_text(spec, "reinvocationPolicy", "Never");
    }
}

fn default_binding(o: &mut Value) {
    if let Some(m) = o.get_mut("spec").and_then(|s| s.get_mut("matchResources")) {
        default_matches(m);
    }
}

fn one_of(o: &Value, path: &str, all: &[&str], errors: &mut Errors) {
    if let Some(v) = object::text(o, path).filter(|v| !all.contains(v)) {
        errors.not_supported(path, v, all);
    }
}

fn validate_policy(o: &Value, errors: &mut Errors) {
    one_of(o, "spec.failurePolicy", &["Fail", "Ignore"], errors);
    if let Some(param) = object::get(o, "spec.paramKind") {
        for key in ["apiVersion", "kind"] {
            if object::text(param, key).is_none_or(str::is_empty) {
                errors.required(format!("spec.paramKind.{key}"), "");
            }
        }
    }
    match object::get(o, "spec.matchConstraints") {
        None => errors.required("spec.matchConstraints", ""),
        Some(m) => {
            if object::list(m, "resourceRules").is_empty() {
                errors.required("spec.matchConstraints.resourceRules", "");
            }
            validate_matches(m, "spec.matchConstraints", errors);
        }
    }
}

fn validate_matches(m: &Value, at: &str, errors: &mut Errors) {
    for key in ["namespaceSelector", "objectSelector"] {
        At::new(m, at).of(key).selector(errors);
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        for (i, rule) in object::list(m, key).iter().enumerate() {
            for list in ["operations", "apiGroups", "apiVersions", "resources"] {
                if object::list(rule, list).is_empty() {
                    errors.required(format!("{at}.{key}[{i}].{list}"), "");
                }
            }
        }
    }
}

fn validate_validating(o: &Value, errors: &mut Errors) {
    validate_policy(o, errors);
    let (validations, audits) =
        (object::list(o, "spec.validations"), object::list(o, "spec.auditAnnotations"));
    if validations.is_empty() && audits.is_empty() {
        let words = "validations or auditAnnotations must contain at least one item";
        errors.required("spec.validations", words);
        errors.required("spec.auditAnnotations", words);
    }
    compile::check_validating(o, errors);
    for (i, v) in validations.iter().enumerate() {
        const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
        if let Some(r) = object::text(v, "reason").filter(|r| !REASONS.contains(r)) {
            errors.not_supported(format!("spec.validations[{i}].reason"), r, &REASONS);
        }
    }
}

fn validate_mutating(o: &Value, errors: &mut Errors) {
    validate_policy(o, errors);
    if object::list(o, "spec.mutations").is_empty() {
        errors.required("spec.mutations", "mutations must contain at least one item");
    }
    match object::text(o, "spec.reinvocationPolicy") {
        None => errors.required("spec.reinvocationPolicy", ""),
        Some(_) => one_of(o, "spec.reinvocationPolicy", &["IfNeeded", "Never"], errors),
    }
    compile::check_mutating(o, errors);
}

fn validate_binding(o: &Value, errors: &mut Errors) {
    if object::text(o, "spec.policyName").is_none_or(str::is_empty) {
        errors.required("spec.policyName", "");
    }
    if let Some(m) = object::get(o, "spec.matchResources") {
        validate_matches(m, "spec.matchResources", errors);
    }
    let Some(param) = object::get(o, "spec.paramRef") else { return };
    match (object::text(param, "name"), object::get(param, "selector")) {
        (Some(_), Some(_)) => {
            errors.forbidden("spec.paramRef.name", "name and selector are mutually exclusive")
        }
        (None, None) => errors.required("spec.paramRef", "one of name or selector must be specified"),
        _ => {}
    }
    match object::text(param, "parameterNotFoundAction") {
        None => errors.required("spec.paramRef.parameterNotFoundAction", ""),
        Some(_) => one_of(o, "spec.paramRef.parameterNotFoundAction", &["Deny", "Allow"], errors),
    }
}

fn validate_actions(o: &Value, errors: &mut Errors) {
    const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
    let all = object::list(o, "spec.validationActions");
    if all.is_empty() {
        errors.required("spec.validationActions", "");
    }
    for (i, a) in all.iter().filter_map(Value::as_str).enumerate() {
        if !ACTIONS.contains(&a) {
            errors.not_supported(format!("spec.validationActions[{i}]"), a, &ACTIONS);
        } else if all[..i].iter().any(|b| *b == *a) {
            errors.duplicate(format!("spec.validationActions[{i}]"), a);
        }
    }
    let has = |a: &str| all.iter().any(|b| *b == *a);
    if has("Deny") && has("Warn") {
        errors.invalid("spec.validationActions", &o["spec"]["validationActions"], "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
    }
}
