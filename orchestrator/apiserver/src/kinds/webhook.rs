//! MutatingWebhookConfiguration, ValidatingWebhookConfiguration: who else is asked about writes
//! (kubernetes: pkg/apis/admissionregistration/{v1/defaults.go,validation/validation.go}).

use std::collections::HashSet;

use apimachinery::name;
use serde_json::{Value, json};
use signal::Timestamp;

use super::check::At;
use super::{AGE, BASE, Kind, NAME, column};
use crate::policies::compile;
use crate::validation::Errors;
use crate::{object, table};

pub(crate) static MUTATING: Kind = Kind {
    resource: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    kind: "MutatingWebhookConfiguration",
    default: |o| {
        default(o);
        for hook in object::list_mut(o, "webhooks") {
            object::default_text(hook, "reinvocationPolicy", "Never");
        }
    },
    validate: |o, errors| {
        validate(o, errors);
        for (i, hook) in object::list(o, "webhooks").iter().enumerate() {
            one_of(hook, i, "reinvocationPolicy", &["IfNeeded", "Never"], errors);
        }
    },
    ..CONFIGURATION
};

pub(crate) static VALIDATING: Kind = Kind {
    resource: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    kind: "ValidatingWebhookConfiguration",
    default,
    validate,
    ..CONFIGURATION
};

const CONFIGURATION: Kind = Kind {
    group: "admissionregistration.k8s.io",
    categories: &["api-extensions"],
    namespaced: false,
    generation: true,
    columns: &[NAME, column("Webhooks"), AGE],
    row,
    ..BASE
};

/// The answers this server understands.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

fn default(o: &mut Value) {
    for hook in object::list_mut(o, "webhooks") {
        object::default_text(hook, "failurePolicy", "Fail");
        object::default_text(hook, "matchPolicy", "Equivalent");
        object::default(hook, "namespaceSelector", json!({}));
        object::default(hook, "objectSelector", json!({}));
        object::default(hook, "timeoutSeconds", 10);
        for rule in object::list_mut(hook, "rules") {
            object::default_text(rule, "scope", "*");
        }
        if let Some(service) = hook.get_mut("clientConfig").and_then(|c| c.get_mut("service")) {
            object::default(service, "port", 443);
        }
    }
}

fn validate(o: &Value, errors: &mut Errors) {
    let mut names = HashSet::new();
    for (i, hook) in object::list(o, "webhooks").iter().enumerate() {
        let at = format!("webhooks[{i}]");
        let n = object::text(hook, "name").unwrap_or_default();
        if n.is_empty() {
            errors.required(format!("{at}.name"), "");
        } else if let Err(e) = name::dns_subdomain(n) {
            errors.invalid(format!("{at}.name"), n, &e);
        } else if n.split('.').count() < 3 {
            errors.invalid(
                format!("{at}.name"),
                n,
                "should be a domain with at least three segments separated by dots",
            );
        }
        if !n.is_empty() && !names.insert(n) {
            errors.duplicate(format!("{at}.name"), n);
        }
        validate_versions(hook, &at, errors);
        for (j, rule) in object::list(hook, "rules").iter().enumerate() {
            validate_rule(rule, &format!("{at}.rules[{j}]"), errors);
        }
        one_of(hook, i, "failurePolicy", &["Fail", "Ignore"], errors);
        one_of(hook, i, "matchPolicy", &["Equivalent", "Exact"], errors);
        match object::text(hook, "sideEffects") {
            None => errors.required(format!("{at}.sideEffects"), "must specify one of None, NoneOnDryRun"),
            Some(_) => one_of(hook, i, "sideEffects", &["None", "NoneOnDryRun"], errors),
        }
        if let Some(t) = object::int(hook, "timeoutSeconds").filter(|t| !(1..=30).contains(t)) {
            errors.invalid(
                format!("{at}.timeoutSeconds"),
                t,
                "the timeout value must be between 1 and 30 seconds",
            );
        }
        for field in ["namespaceSelector", "objectSelector"] {
            At::new(hook, at.as_str()).of(field).selector(errors);
        }
        validate_client(hook, &at, errors);
        compile::check_conditions(
            object::list(hook, "matchConditions"),
            &format!("{at}.matchConditions"),
            false,
            errors,
        );
    }
}

fn one_of(hook: &Value, i: usize, field: &str, values: &[&str], errors: &mut Errors) {
    if let Some(v) = object::text(hook, field).filter(|v| !values.contains(v)) {
        errors.not_supported(format!("webhooks[{i}].{field}"), v, values);
    }
}

fn validate_versions(hook: &Value, at: &str, errors: &mut Errors) {
    let versions = object::list(hook, "admissionReviewVersions");
    let field = format!("{at}.admissionReviewVersions");
    if versions.is_empty() {
        errors.required(field, "must specify at least one of v1, v1beta1");
        return;
    }
    let mut seen = HashSet::new();
    for (i, v) in versions.iter().filter_map(Value::as_str).enumerate() {
        if let Err(e) = name::dns1035_label(v) {
            errors.invalid(format!("{field}[{i}]"), v, &e);
        }
        if !seen.insert(v) {
            errors.invalid(format!("{field}[{i}]"), v, "duplicate version");
        }
    }
    if !seen.iter().any(|v| VERSIONS.contains(v)) {
        errors.invalid(field, &Value::from(versions), "must include at least one of v1, v1beta1");
    }
}

pub(super) fn validate_rule(rule: &Value, at: &str, errors: &mut Errors) {
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let all = object::list(rule, field);
        if all.is_empty() {
            errors.required(format!("{at}.{field}"), "");
        }
        if all.len() > 1 && all.iter().any(|v| v == "*") {
            let detail = format!("if '*' is present, must not specify other {what}");
            errors.invalid(format!("{at}.{field}"), &Value::from(all), &detail);
        }
    }
    if object::list(rule, "apiVersions").iter().any(|v| v == "") {
        errors.required(format!("{at}.apiVersions"), "");
    }
    let resources = object::list(rule, "resources");
    if resources.is_empty() {
        errors.required(format!("{at}.resources"), "");
    }
    let words: Vec<&str> = resources.iter().filter_map(Value::as_str).collect();
    for (i, r) in words.iter().enumerate() {
        if r.is_empty() {
            errors.required(format!("{at}.resources[{i}]"), "");
        }
        if *r != "*/*" && words.contains(&"*/*") && words.len() > 1 {
            let detail = "if '*/*' is present, must not specify other resources";
            errors.invalid(format!("{at}.resources"), &Value::from(resources), detail);
            break;
        }
        if let Some((of, sub)) = r.split_once('/')
            && of != "*"
            && sub != "*"
            && words.contains(&format!("{of}/*").as_str())
        {
            let detail = format!("if '{of}/*' is present, must not specify {r}");
            errors.invalid(format!("{at}.resources[{i}]"), *r, &detail);
        }
    }
    let operations = object::list(rule, "operations");
    if operations.is_empty() {
        errors.required(format!("{at}.operations"), "");
    }
    if operations.len() > 1 && operations.iter().any(|v| v == "*") {
        errors.invalid(
            format!("{at}.operations"),
            &Value::from(operations),
            "if '*' is present, must not specify other operations",
        );
    }
    for (i, op) in operations.iter().filter_map(Value::as_str).enumerate() {
        if !OPERATIONS.contains(&op) {
            errors.not_supported(format!("{at}.operations[{i}]"), op, &OPERATIONS);
        }
    }
    if let Some(s) = object::text(rule, "scope").filter(|s| !matches!(*s, "*" | "Cluster" | "Namespaced")) {
        errors.not_supported(format!("{at}.scope"), s, &["*", "Cluster", "Namespaced"]);
    }
}

fn validate_client(hook: &Value, at: &str, errors: &mut Errors) {
    let at = format!("{at}.clientConfig");
    let (url, service) = (object::text(hook, "clientConfig.url"), object::get(hook, "clientConfig.service"));
    match (url, service) {
        (Some(url), None) => validate_url(url, &format!("{at}.url"), errors),
        (None, Some(s)) => {
            for field in ["name", "namespace"] {
                if object::text(s, field).is_none_or(str::is_empty) {
                    errors.required(format!("{at}.service.{field}"), &format!("service {field} is required"));
                }
            }
            if let Some(path) = object::text(s, "path") {
                if !path.starts_with('/') {
                    errors.invalid(format!("{at}.service.path"), path, "must start with a '/'");
                } else if path.len() > 1 && path[1..].trim_end_matches('/').contains("//") {
                    errors.invalid(format!("{at}.service.path"), path, "segment may not be empty");
                }
            }
            if let Some(p) = object::int(s, "port").filter(|p| !(1..=65535).contains(p)) {
                errors.invalid(
                    format!("{at}.service.port"),
                    p,
                    "port is not valid: must be between 1 and 65535, inclusive",
                );
            }
        }
        _ => errors.required(at, "exactly one of url or service is required"),
    }
}

/// `https://host[/path]` without user, query or fragment.
fn validate_url(url: &str, at: &str, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Some(rest) = url.strip_prefix("https://") else {
        errors.invalid(at, url, &format!("'https' is the only allowed URL scheme{FORM}"));
        return;
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, tail) = rest.split_at(end);
    if host.is_empty() {
        errors.invalid(at, host, &format!("host must be specified{FORM}"));
    }
    if host.contains('@') {
        errors.invalid(at, url, "user information is not permitted in the URL");
    }
    if let Some((_, fragment)) = tail.split_once('#') {
        errors.invalid(at, fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = tail.split_once('?') {
        errors.invalid(at, query, "query parameters are not permitted in the URL");
    }
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![object::name(o).into(), object::list(o, "webhooks").len().into(), table::age(o, now)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Value), expect: &str) {
        let mut o = json!({"metadata": {"name": "x"}, "webhooks": [{
            "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://localhost/x"},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
        }]});
        change(&mut o["webhooks"][0]);
        default(&mut o);
        let mut errors = Errors::default();
        validate(&o, &mut errors);
        assert_eq!(if errors.is_empty() { String::new() } else { errors.to_string() }, expect);
    }

    #[test]
    fn upstreams_words() {
        check(|_| {}, "");
        check(
            |h| h["name"] = "a.b".into(),
            "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
        );
        check(
            |h| drop(object::remove(h, "sideEffects")),
            "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
        );
        check(
            |h| h["clientConfig"] = json!({}),
            "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
        );
        check(
            |h| h["clientConfig"]["url"] = "http://localhost".into(),
            "webhooks[0].clientConfig.url: Invalid value: \"http://localhost\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
        );
        check(
            |h| h["timeoutSeconds"] = 31.into(),
            "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        );
        check(
            |h| h["admissionReviewVersions"] = json!(["v2"]),
            "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
        );
        check(
            |h| h["rules"][0]["operations"] = json!(["GET"]),
            "webhooks[0].rules[0].operations[0]: Unsupported value: \"GET\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
        );
        check(
            |h| h["failurePolicy"] = "Maybe".into(),
            "webhooks[0].failurePolicy: Unsupported value: \"Maybe\": supported values: \"Fail\", \"Ignore\"",
        );
    }
}
