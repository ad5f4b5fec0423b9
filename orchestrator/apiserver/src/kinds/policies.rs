//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy with their bindings: admission by expressions
//! (kubernetes: pkg/apis/admissionregistration/{v1/defaults.go,validation/validation.go}).

mod rules;

use serde_json::{Value, json};
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column};
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
    validate: rules::validating,
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
        rules::binding(o, errors);
        rules::actions(o, errors);
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
    validate: rules::mutating,
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
    validate: rules::binding,
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
