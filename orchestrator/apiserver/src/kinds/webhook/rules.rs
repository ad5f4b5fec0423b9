//! What a configuration of webhooks must be, and rules of which requests are meant, for policies too
//! (kubernetes: pkg/apis/admissionregistration/validation/validation.go).

use std::collections::HashSet;

use apimachinery::name;
use serde_json::Value;

use super::super::check::At;
use crate::custom::webhook_check;
use crate::object;
use crate::policies::compile;
use crate::validation::Errors;

/// The answers this server understands.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

pub(super) fn configuration(o: &Value, errors: &mut Errors) {
    let mut names = HashSet::new();
    for hook in At::root(o).each("webhooks") {
        webhook(&hook, errors);
        versions(&hook.of("admissionReviewVersions"), errors);
        let named = hook.of("name");
        if !named.str().is_empty() && !names.insert(named.str()) {
            errors.duplicate(named.path.as_str(), named.str());
        }
    }
}

fn webhook(hook: &At<'_>, errors: &mut Errors) {
    let named = hook.of("name");
    if named.required(errors) {
        match name::dns_subdomain(named.str()) {
            Err(why) => named.invalid(&why.iter().collect::<Vec<_>>().join(","), errors),
            Ok(()) if named.str().split('.').count() < 3 => {
                named.invalid("should be a domain with at least three segments separated by dots", errors);
            }
            Ok(()) => {}
        }
    }
    hook.each("rules").for_each(|r| rule(&r, errors));
    hook.of("failurePolicy").one_of(&["Fail", "Ignore"], errors);
    hook.of("matchPolicy").one_of(&["Equivalent", "Exact"], errors);
    let effects = hook.of("sideEffects");
    if effects.given() {
        effects.one_of(&["None", "NoneOnDryRun"], errors);
    } else {
        errors.required(effects.path, "must specify one of None, NoneOnDryRun");
    }
    let timeout = hook.of("timeoutSeconds");
    if timeout.v.as_i64().is_some_and(|t| !(1..=30).contains(&t)) {
        timeout.invalid("the timeout value must be between 1 and 30 seconds", errors);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        hook.of(field).selector(errors);
    }
    // Only those that change may have it.
    hook.of("reinvocationPolicy").one_of(&["IfNeeded", "Never"], errors);
    let client = hook.of("clientConfig");
    let (url, service) = (client.of("url"), client.of("service"));
    match (url.given(), service.given()) {
        (true, false) => webhook_check::url(url.str(), &url.path, errors),
        (false, true) => webhook_check::service(service.v, &service.path, errors),
        _ => errors.required(client.path, "exactly one of url or service is required"),
    }
    let conditions = hook.of("matchConditions");
    compile::check_conditions(object::list(hook.v, "matchConditions"), &conditions.path, false, errors);
}

fn versions(versions: &At<'_>, errors: &mut Errors) {
    let all = versions.v.as_array().map_or(&[][..], Vec::as_slice);
    if all.is_empty() {
        return errors.required(versions.path.as_str(), "must specify one of v1, v1beta1");
    }
    let mut seen = HashSet::new();
    for v in versions.clone().items() {
        if seen.insert(v.str()) {
            v.name(name::dns1035_label, errors);
        } else {
            v.invalid("duplicate version", errors);
        }
    }
    if !VERSIONS.iter().any(|v| seen.contains(v)) {
        versions.invalid("must include at least one of v1, v1beta1", errors);
    }
}

/// Operations and what they are done to.
pub(in crate::kinds) fn rule(rule: &At<'_>, errors: &mut Errors) {
    let operations = rule.of("operations");
    some(&operations, "operations", errors);
    for op in operations.items().filter(|op| !OPERATIONS.contains(&op.str())) {
        errors.not_supported(op.path.as_str(), op.str(), &OPERATIONS);
    }
    some(&rule.of("apiGroups"), "API groups", errors);
    some(&rule.of("apiVersions"), "API versions", errors);
    for v in rule.each("apiVersions") {
        v.required(errors);
    }
    resources(&rule.of("resources"), errors);
    rule.of("scope").one_of(&["*", "Cluster", "Namespaced"], errors);
}

/// A list with something in it, of which a star stands alone.
fn some(list: &At<'_>, what: &str, errors: &mut Errors) {
    let all = list.v.as_array().map_or(&[][..], Vec::as_slice);
    if all.is_empty() {
        errors.required(list.path.as_str(), "");
    }
    if all.len() > 1 && all.iter().any(|v| v == "*") {
        list.invalid(&format!("if '*' is present, must not specify other {what}"), errors);
    }
}

fn resources(list: &At<'_>, errors: &mut Errors) {
    let all = list.v.as_array().map_or(&[][..], Vec::as_slice);
    if all.is_empty() {
        errors.required(list.path.as_str(), "");
    }
    // Resources all of whose subresources are meant, subresources of all resources.
    let (mut whole, mut everywhere) = (HashSet::new(), HashSet::new());
    let mut plain = false;
    for item in list.clone().items() {
        if !item.required(errors) {
            continue;
        }
        let text = item.str();
        let Some((resource, sub)) = text.split_once('/') else {
            plain |= text != "*";
            continue;
        };
        let covered = [
            (whole.contains(resource), format!("{resource}/*")),
            (everywhere.contains(sub), format!("*/{sub}")),
        ];
        for (_, by) in covered.iter().filter(|(is, _)| *is) {
            item.invalid(&format!("if '{by}' is present, must not specify {text}"), errors);
        }
        if sub == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            everywhere.insert(sub);
        }
    }
    let has = |word: &str| all.iter().any(|v| v == word);
    if all.len() > 1 && has("*/*") {
        list.invalid("if '*/*' is present, must not specify other resources", errors);
    }
    if has("*") && plain {
        let why = "if '*' is present, must not specify other resources without subresources";
        list.invalid(why, errors);
    }
}
