//! What kinds that make pods have in common: selectors, templates, rollouts
//! (kubernetes: pkg/apis/apps/validation/validation.go).

use apimachinery::selector::Selector;
use serde_json::{Value, json};

use super::check::At;
use super::pod_validation;
use crate::object;
use crate::validation::Errors;

/// A pod template: what its pods carry, and what they are.
pub(super) fn template(t: &At<'_>, errors: &mut Errors) {
    claimed_template(t, &[], errors);
}

/// As [`template`], with volumes that claims of these names will be.
fn claimed_template(t: &At<'_>, claims: &[&str], errors: &mut Errors) {
    t.of("metadata.labels").renamed(format!("{}.labels", t.path)).labels(errors);
    t.of("metadata.annotations").renamed(format!("{}.annotations", t.path)).annotations(errors);
    let spec = t.of("spec");
    if claims.is_empty() {
        pod_validation::validate_spec(spec.v, &spec.path, errors);
    } else {
        let mut with = spec.v.clone();
        let mut volumes: Vec<Value> = object::list(&with, "volumes").to_vec();
        volumes.retain(|v| v["name"].as_str().is_none_or(|n| !claims.contains(&n)));
        volumes.extend(
            claims.iter().map(|n| json!({"name": n, "persistentVolumeClaim": {"claimName": "placeholder"}})),
        );
        with["volumes"] = volumes.into();
        pod_validation::validate_spec(&with, &spec.path, errors);
    }
    let debug = spec.of("ephemeralContainers");
    if spec.len("ephemeralContainers") > 0 {
        debug.forbidden("ephemeral containers not allowed in pod template", errors);
    }
}

/// How a kind's selector and its template must go together.
pub(super) struct Rules {
    /// The kind as the message of an empty selector names it.
    pub(super) empty: &'static str,
    /// The kind as the message of a deadline names it.
    pub(super) deadline: &'static str,
    /// Whether a missing selector is told of.
    pub(super) required: bool,
}

/// A spec's `selector` and `template`.
pub(super) fn selected_template(spec: &At<'_>, rules: &Rules, errors: &mut Errors) {
    let selector = spec.of("selector");
    if selector.given() {
        selector.selector(errors);
        if selector.selects_all() {
            selector.invalid(&format!("empty selector is invalid for {}", rules.empty), errors);
        }
    } else if rules.required {
        errors.required(selector.path.as_str(), "");
    }
    // No selector finds nothing, which is no template's labels either.
    match Selector::from_json(Some(selector.v).filter(|s| !s.is_null())) {
        Err(_) => selector.invalid("invalid label selector", errors),
        Ok(parsed) => matching_template(spec, &parsed, rules.deadline, errors),
    }
}

/// A template that a selector must find.
pub(super) fn matching_template(spec: &At<'_>, selector: &Selector, kind: &str, errors: &mut Errors) {
    let t = spec.of("template");
    matching_labels(&t, selector, errors);
    let claims: Vec<&str> = object::list(spec.v, "volumeClaimTemplates")
        .iter()
        .filter_map(|c| object::text(c, "metadata.name"))
        .collect();
    claimed_template(&t, &claims, errors);
    always(&t, kind, errors);
}

pub(super) fn matching_labels(template: &At<'_>, selector: &Selector, errors: &mut Errors) {
    let labels = template.of("metadata.labels");
    if !selector.matches_json(Some(labels.v).filter(|l| !l.is_null())) {
        labels.invalid("`selector` does not match template `labels`", errors);
    }
}

/// Pods that are to run for ever.
fn always(template: &At<'_>, kind: &str, errors: &mut Errors) {
    template.of("spec.restartPolicy").one_of(&["Always"], errors);
    if let Some(deadline) = template.get("spec.activeDeadlineSeconds") {
        deadline.forbidden(&format!("activeDeadlineSeconds in {kind} is not Supported"), errors);
    }
}
