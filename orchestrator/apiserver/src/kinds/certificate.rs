//! CertificateSigningRequest: somebody with a key asks for a certificate
//! (kubernetes: pkg/apis/certificates/validation/validation.go).

use std::collections::HashSet;

use apimachinery::name;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use signal::Timestamp;

use super::check::At;
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
    name_rule: name::path_segment,
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

const EXCLUSIVE: &str = "Approved and Denied conditions are mutually exclusive";
const NO_BLOCKS: &str = "must contain one or more CERTIFICATE PEM blocks";

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
    signer_name(&At::root(o).of("spec.signerName"), errors);
    if let Some(s) = object::int(o, "spec.expirationSeconds").filter(|s| *s < 600) {
        errors.invalid(
            "spec.expirationSeconds",
            s,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
    conditions(o, errors);
    let certificate = object::text(o, "status.certificate").unwrap_or_default();
    if let Err(why) = STANDARD.decode(certificate).map_err(|_| NO_BLOCKS.to_owned()).and_then(|c| issued(&c))
    {
        errors.invalid("status.certificate", "<certificate data>", &why);
    }
}

/// `example.com/signer-name`
fn signer_name(at: &At<'_>, errors: &mut Errors) {
    const FORM: &str = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    const DOMAIN_MAX: usize = 253;
    const NAME_MAX: usize = 571;
    if at.str() == "kubernetes.io/legacy-unknown" {
        at.invalid("the legacy signerName is not allowed via this API version", errors);
    }
    if !at.required(errors) {
        return;
    }
    let (domain, path) = match at.str().split_once('/') {
        Some((domain, path)) if !path.contains('/') => (domain, path),
        _ => return at.invalid(FORM, errors),
    };
    if domain.len() > DOMAIN_MAX {
        errors.too_long(at.path.as_str(), DOMAIN_MAX as u64);
    }
    labels(at, domain, name::dns_label, errors);
    if domain.split('.').count() < 2 {
        let why = "should be a domain with at least two segments separated by dots";
        errors.invalid(at.path.as_str(), domain, why);
    }
    labels(at, path, name::dns_subdomain, errors);
    if at.str().len() > NAME_MAX {
        errors.too_long(at.path.as_str(), NAME_MAX as u64);
    }
}

fn labels(at: &At<'_>, of: &str, rule: fn(&str) -> Result<(), name::Faults>, errors: &mut Errors) {
    for label in of.split('.') {
        for why in rule(label).err().iter().flat_map(name::Faults::iter) {
            errors.invalid(at.path.as_str(), of, &format!("validating label {label:?}: {why}"));
        }
    }
}

fn conditions(o: &Value, errors: &mut Errors) {
    let mut kinds = HashSet::new();
    for c in At::root(o).each("status.conditions") {
        let (kind, status) = (c.of("type"), c.of("status"));
        kind.required(errors);
        if !kinds.insert(kind.str()) {
            errors.duplicate(kind.path.as_str(), kind.str());
        }
        match kind.str() {
            "Approved" if kinds.contains("Denied") => kind.invalid(EXCLUSIVE, errors),
            "Denied" if kinds.contains("Approved") => kind.invalid(EXCLUSIVE, errors),
            _ => {}
        }
        let allowed: &[&str] =
            if FINAL.contains(&kind.str()) { &["True"] } else { &["False", "True", "Unknown"] };
        status.must_be_one_of(allowed, errors);
    }
}

/// What a signer gave: certificates as PEM and nothing else.
fn issued(pem: &[u8]) -> Result<(), String> {
    if pem.is_empty() {
        return Ok(());
    }
    let mut blocks = 0;
    for block in x509_parser::pem::Pem::iter_from_buffer(pem) {
        let block = block.map_err(|_| NO_BLOCKS.to_owned())?;
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        block.parse_x509().map_err(|e| format!("x509: malformed certificate: {e}"))?;
        blocks += 1;
    }
    if blocks == 0 { Err(NO_BLOCKS.to_owned()) } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn signers_have_a_domain_and_a_path() {
        let check = |signer: &str, expect: &str| {
            let (o, mut errors) = (json!({"spec": {"signerName": signer}}), Errors::default());
            signer_name(&At::root(&o).of("spec.signerName"), &mut errors);
            assert_eq!(if errors.is_empty() { String::new() } else { errors.to_string() }, expect);
        };
        let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        check("example.com/own-signer.v1", "");
        check(
            "example.com",
            "spec.signerName: Invalid value: \"example.com\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        check(
            "example/x",
            "spec.signerName: Invalid value: \"example\": should be a domain with at least two segments separated by dots",
        );
        check(
            "Example.com/x",
            &format!(
                "spec.signerName: Invalid value: \"Example.com\": validating label \"Example\": {label}"
            ),
        );
    }

    #[test]
    fn conditions_exclude_each_other() {
        let o = json!({"status": {"conditions": [
            {"type": "Approved", "status": "True"}, {"type": "Denied", "status": "False"}, {"status": "True"},
        ]}});
        let mut errors = Errors::default();
        conditions(&o, &mut errors);
        assert_eq!(
            errors.to_string(),
            "[status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive, status.conditions[1].status: Unsupported value: \"False\": supported values: \"True\", status.conditions[2].type: Required value]"
        );
    }

    #[test]
    fn only_certificates_are_issued() {
        assert_eq!(issued(b""), Ok(()));
        assert_eq!(issued(b"nothing"), Err(NO_BLOCKS.to_owned()));
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(
            issued(key),
            Err("only CERTIFICATE PEM blocks are allowed, found \"PRIVATE KEY\"".to_owned())
        );
    }
}
