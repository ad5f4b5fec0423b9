//! CertificateSigningRequest: somebody with a key asks for a certificate
//! (kubernetes: pkg/apis/certificates/validation/validation.go).

use std::collections::HashSet;

use apimachinery::name;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column};
use crate::pki::request;
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static KIND: Kind = Kind {
    group: "certificates.k8s.io",
    resource: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    kind: "CertificateSigningRequest",
    short: &["csr"],
    namespaced: false,
    status: true,
    prepare_create: |o| o["status"] = serde_json::json!({}),
    prepare_update: |new, old| new["spec"] = old["spec"].clone(),
    validate,
    validate_update,
    fields: &["spec.signerName"],
    columns: &[
        NAME,
        AGE,
        column("SignerName"),
        column("Requestor"),
        column("RequestedDuration"),
        column("Condition"),
    ],
    row,
    ..BASE
};

/// Decisions that stay.
pub(crate) const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

/// The PEM inside.
pub(crate) fn pem(o: &Value) -> Vec<u8> {
    object::text(o, "spec.request").and_then(|r| STANDARD.decode(r).ok()).unwrap_or_default()
}

pub(crate) fn usages(o: &Value) -> Vec<String> {
    object::list(o, "spec.usages").iter().filter_map(|u| u.as_str().map(str::to_owned)).collect()
}

pub(crate) fn has_condition(o: &Value, kind: &str) -> bool {
    object::list(o, "status.conditions").iter().any(|c| c["type"] == kind)
}

fn validate(o: &Value, errors: &mut Errors) {
    let given = object::text(o, "spec.request").unwrap_or_default();
    if let Err(e) = request::read(&pem(o)) {
        errors.invalid("spec.request", given, &e);
    }
    let usages = usages(o);
    if usages.is_empty() {
        errors.required("spec.usages", "usages must be provided");
    }
    let mut seen = HashSet::new();
    for (i, u) in usages.iter().enumerate() {
        if !request::is_usage(u) {
            errors.invalid(format!("spec.usages[{i}]"), u.as_str(), "unknown usage");
        } else if !seen.insert(u) {
            errors.duplicate(format!("spec.usages[{i}]"), u.as_str());
        }
    }
    let signer = object::text(o, "spec.signerName").unwrap_or_default();
    if signer == "kubernetes.io/legacy-unknown" {
        errors.invalid(
            "spec.signerName",
            signer,
            "the legacy signerName is not allowed via this API version",
        );
    } else if signer.is_empty() {
        errors.required("spec.signerName", "");
    } else {
        let good = signer.split_once('/').is_some_and(|(domain, path)| {
            domain.contains('.')
                && name::dns_subdomain(domain).is_ok()
                && !path.is_empty()
                && path.split('.').all(|p| name::dns_label(&p.to_lowercase()).is_ok())
        });
        if !good {
            let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.invalid("spec.signerName", signer, form);
        }
    }
    if let Some(s) = object::int(o, "spec.expirationSeconds").filter(|s| *s < 600) {
        errors.invalid(
            "spec.expirationSeconds",
            s,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
    let mut kinds = HashSet::new();
    for (i, c) in object::list(o, "status.conditions").iter().enumerate() {
        let at = format!("status.conditions[{i}]");
        let kind = c["type"].as_str().unwrap_or_default();
        if kind.is_empty() {
            errors.required(format!("{at}.type"), "");
        }
        if !kinds.insert(kind) {
            errors.duplicate(format!("{at}.type"), kind);
        }
        match c["status"].as_str().unwrap_or_default() {
            "" => errors.required(format!("{at}.status"), ""),
            s @ ("False" | "Unknown") if FINAL.contains(&kind) => {
                errors.not_supported(format!("{at}.status"), s, &["True"]);
            }
            "True" | "False" | "Unknown" => {}
            other => errors.not_supported(format!("{at}.status"), other, &["False", "True", "Unknown"]),
        }
    }
    if kinds.contains("Approved") && kinds.contains("Denied") {
        let at = object::list(o, "status.conditions").iter().position(|c| c["type"] == "Denied").unwrap_or(0);
        errors.invalid(
            format!("status.conditions[{at}].type"),
            "Denied",
            "Approved and Denied conditions are mutually exclusive",
        );
    }
}

fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    for kind in FINAL.iter().filter(|k| has_condition(old, k) && !has_condition(new, k)) {
        errors
            .forbidden("status.conditions", &format!("updates may not remove a condition of type {kind:?}"));
    }
    let certificate = |o: &Value| object::text(o, "status.certificate").unwrap_or_default().to_owned();
    if !certificate(old).is_empty() && certificate(new) != certificate(old) {
        errors.forbidden("status.certificate", "updates may not modify existing certificate content");
    }
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    let mut condition = match (has_condition(o, "Approved"), has_condition(o, "Denied")) {
        (_, true) => "Denied".to_owned(),
        (true, _) => "Approved".to_owned(),
        _ => "Pending".to_owned(),
    };
    if has_condition(o, "Failed") {
        condition.push_str(",Failed");
    }
    if object::text(o, "status.certificate").is_some_and(|c| !c.is_empty()) {
        condition.push_str(",Issued");
    }
    let duration = match object::int(o, "spec.expirationSeconds").and_then(|s| u64::try_from(s).ok()) {
        Some(s) => table::human(std::time::Duration::from_secs(s)),
        None => "<none>".to_owned(),
    };
    vec![
        object::name(o).into(),
        table::age(o, now),
        table::or_none(object::text(o, "spec.signerName")),
        object::text(o, "spec.username").unwrap_or_default().into(),
        duration.into(),
        condition.into(),
    ]
}
