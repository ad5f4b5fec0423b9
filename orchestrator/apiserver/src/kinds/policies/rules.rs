//! What policies of expressions and their bindings must be
//! (kubernetes: pkg/apis/admissionregistration/validation/validation.go).

use std::collections::HashSet;

use apimachinery::name;
use serde_json::Value;

use super::super::check::At;
use super::super::webhook::rules::rule;
use crate::object;
use crate::policies::compile;
use crate::validation::Errors;

const MOST_ANNOTATIONS: usize = 20;

fn policy(spec: &At<'_>, errors: &mut Errors) {
    spec.of("failurePolicy").one_of(&["Fail", "Ignore"], errors);
    if let Some(param) = spec.get("paramKind") {
        param_kind(&param, errors);
    }
    let constraints = spec.of("matchConstraints");
    if !constraints.given() {
        return errors.required(constraints.path, "");
    }
    matches(&constraints, errors);
    if constraints.len("resourceRules") == 0 {
        errors.required(constraints.of("resourceRules").path, "");
    }
}

fn param_kind(param: &At<'_>, errors: &mut Errors) {
    let join = |why: &name::Faults| why.iter().collect::<Vec<_>>().join(",");
    let (at, kind) = (param.of("apiVersion"), param.of("kind"));
    if at.required(errors) {
        let (group, version) = at.str().split_once('/').unwrap_or(("", at.str()));
        if version.contains('/') {
            at.invalid(&format!("unexpected GroupVersion string: {}", at.str()), errors);
        } else {
            if !group.is_empty()
                && let Err(why) = name::dns_subdomain(group)
            {
                errors.invalid(at.path.as_str(), group, &join(&why));
            }
            if version.is_empty() {
                at.invalid("version must be specified", errors);
            } else if let Err(why) = name::dns1035_label(version) {
                errors.invalid(at.path.as_str(), version, &join(&why));
            }
        }
    }
    if kind.required(errors)
        && let Err(why) = name::dns1035_label(&kind.str().to_lowercase())
    {
        kind.invalid(&format!("may have mixed case, but should otherwise match: {}", join(&why)), errors);
    }
}

fn matches(m: &At<'_>, errors: &mut Errors) {
    m.of("matchPolicy").one_of(&["Equivalent", "Exact"], errors);
    for key in ["namespaceSelector", "objectSelector"] {
        m.of(key).selector(errors);
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        for r in m.each(key) {
            let mut seen = HashSet::new();
            for n in r.each("resourceNames") {
                n.name(name::path_segment, errors);
                if !seen.insert(n.str()) {
                    errors.duplicate(n.path.as_str(), n.str());
                }
            }
            rule(&r, errors);
        }
    }
}

pub(super) fn validating(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    policy(&spec, errors);
    if spec.len("validations") + spec.len("auditAnnotations") == 0 {
        let words = "validations or auditAnnotations must contain at least one item";
        errors.required("spec.validations", words);
        errors.required("spec.auditAnnotations", words);
    }
    compile::check_validating(o, errors);
    for v in spec.each("validations") {
        let (message, expression) = (v.of("message"), v.of("messageExpression"));
        let blank = |at: &At<'_>| !at.str().is_empty() && at.str().trim().is_empty();
        if blank(&expression) {
            expression.invalid("must be non-empty if specified", errors);
        }
        if blank(&message) {
            message.invalid("message must be non-empty if specified", errors);
        } else if message.str().trim().contains(['\n', '\r']) {
            message.invalid("message must not contain line breaks", errors);
        }
        v.of("reason").one_of(&["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"], errors);
    }
    annotations(o, &spec, errors);
}

fn annotations(o: &Value, spec: &At<'_>, errors: &mut Errors) {
    let all = spec.of("auditAnnotations");
    if spec.len("auditAnnotations") > MOST_ANNOTATIONS {
        all.invalid(&format!("must not have more than {MOST_ANNOTATIONS} auditAnnotations"), errors);
    }
    let mut seen = HashSet::new();
    for a in all.items() {
        let key = a.of("key");
        let whole = format!("{}/{}", object::name(o), key.str());
        if let Err(why) = name::qualified_name(&whole) {
            errors.invalid(key.path.as_str(), whole.as_str(), &why);
        }
        if !seen.insert(key.str()) {
            errors.duplicate(key.path.as_str(), key.str());
        }
    }
}

pub(super) fn mutating(o: &Value, errors: &mut Errors) {
    let spec = At::root(o).of("spec");
    policy(&spec, errors);
    if spec.len("mutations") == 0 {
        errors.required("spec.mutations", "mutations must contain at least one item");
    }
    spec.of("reinvocationPolicy").must_be_one_of(&["IfNeeded", "Never"], errors);
    compile::check_mutating(o, errors);
}

pub(super) fn binding(o: &Value, errors: &mut Errors) {
    const BOTH: &str = "name and selector are mutually exclusive";
    let spec = At::root(o).of("spec");
    spec.of("policyName").must_be_name(name::dns_subdomain, errors);
    if let Some(param) = spec.get("paramRef") {
        let (named, selector) = (param.of("name"), param.of("selector"));
        let is_named = !named.str().is_empty();
        named.name_if(name::path_segment, errors);
        if is_named && selector.given() {
            named.forbidden(BOTH, errors);
        }
        if selector.given() {
            selector.selector(errors);
            if is_named {
                selector.forbidden(BOTH, errors);
            }
        } else if !is_named {
            errors.required(param.path.as_str(), "one of name or selector must be specified");
        }
        param.of("parameterNotFoundAction").must_be_one_of(&["Deny", "Allow"], errors);
    }
    if let Some(m) = spec.get("matchResources") {
        // The path is upstream's.
        matches(&m.renamed("spec.matchResouces"), errors);
    }
}

pub(super) fn actions(o: &Value, errors: &mut Errors) {
    const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
    let all = At::root(o).of("spec.validationActions");
    let mut seen = HashSet::new();
    for a in all.clone().items() {
        a.one_of(&ACTIONS, errors);
        if !seen.insert(a.str()) {
            errors.duplicate(a.path.as_str(), a.str());
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        all.invalid("must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)", errors);
    }
    if seen.is_empty() {
        errors.required(all.path, "at least one validation action is required");
    }
}
