//! RegoPolicy: admission by Rego, cluster-wide (our own; what it does stands in `policies/rego`).

use serde_json::Value;
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column};
use crate::policies::rego;
use crate::validation::Errors;
use crate::{object, table};

pub(crate) const GROUP: &str = "policy.binnacle.io";
const MAX_BYTES: usize = 64 << 10;

pub(crate) static POLICY: Kind = Kind {
    group: GROUP,
    version: "v1alpha1",
    resource: "regopolicies",
    singular: "regopolicy",
    kind: "RegoPolicy",
    categories: &["api-extensions"],
    namespaced: false,
    generation: true,
    default: |o| {
        let spec = object::child(o, "spec");
        object::default_text(spec, "failurePolicy", "Fail");
    },
    validate,
    columns: &[NAME, column("FailurePolicy"), AGE],
    row: |o: &Value, now: Timestamp| {
        let policy = object::text(o, "spec.failurePolicy").unwrap_or_default();
        vec![object::name(o).into(), policy.into(), table::age(o, now)]
    },
    ..BASE
};

fn validate(o: &Value, errors: &mut Errors) {
    if let Some(p) = object::text(o, "spec.failurePolicy").filter(|p| !matches!(*p, "Fail" | "Ignore")) {
        errors.not_supported("spec.failurePolicy", p, &["Fail", "Ignore"]);
    }
    if object::list(o, "spec.matchConstraints.resourceRules").is_empty() {
        errors.required("spec.matchConstraints.resourceRules", "");
    }
    match object::text(o, "spec.rego").unwrap_or_default() {
        "" => errors.required("spec.rego", ""),
        text if text.len() > MAX_BYTES => errors.too_long("spec.rego", MAX_BYTES as u64),
        text => {
            if let Err(e) = rego::compile(text) {
                errors.invalid_omitted("spec.rego", &format!("compilation failed: {}", e.trim()));
            }
        }
    }
}
