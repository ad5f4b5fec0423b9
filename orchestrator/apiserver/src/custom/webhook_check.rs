//! Whether `spec.conversion` of a definition can be carried out (apiserver: pkg/util/webhook/validation.go).

use apimachinery::name;
use base64::Engine as _;
use serde_json::Value;

use crate::object;
use crate::validation::Errors;

pub(crate) fn conversion(c: &Value, errors: &mut Errors) {
    let at = "spec.conversion";
    match c["strategy"].as_str().unwrap_or_default() {
        "None" => {
            if c["webhook"].is_object() {
                errors.forbidden(
                    format!("{at}.webhook"),
                    "should not be set when strategy is not set to Webhook",
                );
            }
            return;
        }
        "Webhook" => {}
        other => {
            errors.not_supported(format!("{at}.strategy"), other, &["None", "Webhook"]);
            return;
        }
    }
    let at = format!("{at}.webhookClientConfig");
    let Some(config) = c["webhook"].get("clientConfig").filter(|c| c.is_object()) else {
        errors.required(at, "required when strategy is set to Webhook");
        return review_versions(&c["webhook"], errors);
    };
    match (config["url"].as_str(), config.get("service").filter(|s| s.is_object())) {
        (Some(u), None) => url(u, &format!("{at}.url"), errors),
        (None, Some(s)) => service(s, &format!("{at}.service"), errors),
        _ => errors.required(&*at, "exactly one of url or service is required"),
    }
    if let Some(b) = config["caBundle"].as_str()
        && base64::engine::general_purpose::STANDARD.decode(b).is_err()
    {
        errors.invalid(format!("{at}.caBundle"), b, "unable to load root certificates: illegal base64 data");
    }
    review_versions(&c["webhook"], errors);
}

fn review_versions(webhook: &Value, errors: &mut Errors) {
    let at = "spec.conversion.conversionReviewVersions";
    let all = object::list(webhook, "conversionReviewVersions");
    if all.is_empty() {
        errors.required(at, "");
        return;
    }
    if !all.iter().any(|v| matches!(v.as_str(), Some("v1" | "v1beta1"))) {
        errors.invalid(at, &webhook["conversionReviewVersions"], "must include at least one of v1, v1beta1");
    }
}

pub(crate) fn url(url: &str, at: &str, errors: &mut Errors) {
    let form = "; desired format: https://host[/path]";
    let Some((scheme, rest)) = url.split_once("://") else {
        errors.invalid(at, url, &format!("'https' is the only allowed URL scheme{form}"));
        return;
    };
    if scheme != "https" {
        errors.invalid(at, scheme, &format!("'https' is the only allowed URL scheme{form}"));
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        errors.invalid(at, "", &format!("host must be specified{form}"));
    }
    if let Some((user, _)) = host.split_once('@') {
        errors.invalid(at, user, &format!("user information is not permitted in the URL{form}"));
    }
    if let Some((_, fragment)) = rest.split_once('#') {
        errors.invalid(at, fragment, &format!("fragments are not permitted in the URL{form}"));
    } else if let Some((_, query)) = rest.split_once('?') {
        errors.invalid(at, query, &format!("query parameters are not permitted in the URL{form}"));
    }
}

pub(crate) fn service(s: &Value, at: &str, errors: &mut Errors) {
    if s["name"].as_str().is_none_or(str::is_empty) {
        errors.required(format!("{at}.name"), "service name is required");
    }
    if s["namespace"].as_str().is_none_or(str::is_empty) {
        errors.required(format!("{at}.namespace"), "service namespace is required");
    }
    if let Some(p) = s["port"].as_i64().filter(|p| !(1..=65535).contains(p)) {
        errors.invalid(format!("{at}.port"), p, "port is not valid: must be between 1 and 65535, inclusive");
    }
    let Some(path) = s["path"].as_str() else { return };
    let at = format!("{at}.path");
    if path == "/" || path.is_empty() {
        return;
    }
    if path == "//" {
        errors.invalid(at, path, "segment[0] may not be empty");
        return;
    }
    if !path.starts_with('/') {
        errors.invalid(&*at, path, "must start with a '/'");
    }
    let steps: Vec<&str> = path[1..].trim_end_matches('/').split('/').collect();
    for (i, step) in steps.iter().enumerate() {
        if step.is_empty() {
            errors.invalid(&*at, path, &format!("segment[{i}] may not be empty"));
        } else if let Err(e) = name::dns_subdomain(step) {
            errors.invalid(&*at, path, &format!("segment[{i}]: {e}"));
        }
    }
}
