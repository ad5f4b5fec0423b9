//! Whether a CustomResourceDefinition is one
//! (apiextensions-apiserver: pkg/apis/apiextensions/validation/validation.go).

use std::collections::BTreeSet;

use apimachinery::name;
use serde_json::Value;

use super::{structural, webhook_check};
use crate::object;
use crate::validation::Errors;

const APPROVED: &str = "api-approved.kubernetes.io";
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const MAX_SELECTABLE: usize = 8;

pub(crate) fn definition(o: &Value, errors: &mut Errors) {
    let spec = &o["spec"];
    let (plural, group) = (text(&spec["names"], "plural"), text(spec, "group"));
    let name = object::name(o);
    if name != format!("{plural}.{group}") {
        errors.invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group");
    }
    if group.is_empty() {
        errors.required("spec.group", "");
    } else if let Err(e) = name::dns_subdomain(group) {
        errors.invalid("spec.group", group, &e);
    } else if !group.contains('.') {
        errors.invalid("spec.group", group, "should be a domain with at least one dot");
    }
    match text(spec, "scope") {
        "" => errors.required("spec.scope", ""),
        "Cluster" | "Namespaced" => {}
        other => errors.not_supported("spec.scope", other, &["Cluster", "Namespaced"]),
    }
    versions(spec, errors);
    required_names(&spec["names"], errors);
    names(&spec["names"], "spec.names", errors);
    if spec["preserveUnknownFields"] == true {
        errors.invalid("spec.preserveUnknownFields", &spec["preserveUnknownFields"], "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead");
    }
    webhook_check::conversion(&spec["conversion"], errors);
    names(&o["status"]["acceptedNames"], "status.acceptedNames", errors);
    approval(o, errors);
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_default()
}

fn versions(spec: &Value, errors: &mut Errors) {
    let all = object::list(spec, "versions");
    let mut seen = BTreeSet::new();
    let (mut unique, mut storage) = (true, 0);
    for (i, v) in all.iter().enumerate() {
        let at = format!("spec.versions[{i}]");
        if !v["schema"]["openAPIV3Schema"].is_object() {
            errors.required(format!("{at}.schema.openAPIV3Schema"), "");
        }
        storage += usize::from(v["storage"] == true);
        unique &= seen.insert(text(v, "name"));
        if let Err(e) = name::dns1035_label(text(v, "name")) {
            errors.invalid(format!("{at}.name"), text(v, "name"), &e);
        }
        deprecation(v, &at, errors);
    }
    if !unique {
        errors.invalid("spec.versions", &spec["versions"], "must contain unique version names");
    }
    if storage != 1 {
        let words = "must have exactly one version marked as storage version";
        errors.invalid("spec.versions", &spec["versions"], words);
    }
    let status = all.iter().any(|v| v["subresources"]["status"].is_object());
    each(all, "schema", "spec.validation", &mut |v, at| {
        if v["schema"]["openAPIV3Schema"].is_object() {
            structural::check(&v["schema"]["openAPIV3Schema"], at, status, errors);
        }
    });
    each(all, "subresources", "spec.subresources", &mut |v, at| {
        scale(&v["subresources"]["scale"], &format!("{at}.scale"), errors);
    });
    each(all, "additionalPrinterColumns", "spec.additionalPrinterColumns", &mut |v, at| {
        for (i, c) in object::list(v, "additionalPrinterColumns").iter().enumerate() {
            column(c, &format!("{at}[{i}]"), errors);
        }
    });
    each(all, "selectableFields", "spec.selectableFields", &mut |v, at| {
        let schema = &v["schema"]["openAPIV3Schema"];
        selectable(object::list(v, "selectableFields"), schema, at, errors);
    });
}

/// What all versions have alike is told once, as upstream's internal form has it.
fn each(versions: &[Value], key: &str, shared: &str, judge: &mut dyn FnMut(&Value, &str)) {
    let alike = versions.windows(2).all(|w| w[0].get(key) == w[1].get(key));
    match versions.first() {
        Some(v) if alike => judge(v, shared),
        _ => {
            for (i, v) in versions.iter().enumerate() {
                judge(v, &format!("spec.versions[{i}].{key}"));
            }
        }
    }
}

fn deprecation(v: &Value, at: &str, errors: &mut Errors) {
    let Some(w) = v["deprecationWarning"].as_str() else { return };
    let field = format!("{at}.deprecationWarning");
    if v["deprecated"] != true {
        errors.invalid(&*field, w, "can only be set for deprecated versions");
    }
    if w.len() > 256 {
        errors.invalid(&*field, w, "must be <= 256 characters long");
    }
    if w.is_empty() {
        errors.invalid(&*field, w, "must not be an empty string");
    }
}

fn simple_path(path: &str, at: &str, errors: &mut Errors) -> bool {
    if path.starts_with('.') {
        return true;
    }
    errors.invalid(at, path, "must be a simple json path starting with .");
    false
}

fn scale(scale: &Value, at: &str, errors: &mut Errors) {
    if !scale.is_object() {
        return;
    }
    for (key, roots, words) in [
        ("specReplicasPath", &[".spec."][..], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."][..], "should be a json path under .status"),
        (
            "labelSelectorPath",
            &[".spec.", ".status."][..],
            "should be a json path under either .spec or .status",
        ),
    ] {
        let (path, field) = (text(scale, key), format!("{at}.{key}"));
        if path.is_empty() {
            if key != "labelSelectorPath" {
                errors.required(field, "");
            }
        } else if simple_path(path, &field, errors) && !roots.iter().any(|r| path.starts_with(r)) {
            errors.invalid(field, path, words);
        }
    }
}

fn column(c: &Value, at: &str, errors: &mut Errors) {
    let must = |all: &[&str]| format!("must be one of {}", all.join(","));
    if text(c, "name").is_empty() {
        errors.required(format!("{at}.name"), "");
    }
    match text(c, "type") {
        "" => errors.required(format!("{at}.type"), &must(&COLUMN_TYPES)),
        t if !COLUMN_TYPES.contains(&t) => errors.invalid(format!("{at}.type"), t, &must(&COLUMN_TYPES)),
        _ => {}
    }
    let format = text(c, "format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        errors.invalid(format!("{at}.format"), format, &must(&COLUMN_FORMATS));
    }
    match text(c, "jsonPath") {
        "" => errors.required(format!("{at}.JSONPath"), ""),
        p => drop(simple_path(p, &format!("{at}.JSONPath"), errors)),
    }
}

fn selectable(fields: &[Value], schema: &Value, at: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, f) in fields.iter().enumerate() {
        let at = format!("{at}[{i}].jsonPath");
        let path = text(f, "jsonPath");
        if path.is_empty() {
            errors.required(at, "");
            continue;
        }
        let Some(rest) = path.strip_prefix('.') else {
            let first = path.split(['.', '[']).next().unwrap_or_default();
            errors.invalid(at, path, &format!("is an invalid path: expected [ or . but got: {first}"));
            continue;
        };
        if path.contains('[') {
            errors.invalid(at, path, "is an invalid path: array notation is not allowed");
            continue;
        }
        let found = rest.split('.').try_fold(schema, |s, p| s["properties"].get(p));
        let Some(found) = found else {
            errors.invalid(at, path, "is an invalid path: does not refer to a valid field");
            continue;
        };
        if rest.split('.').next() == Some("metadata") {
            errors.invalid(&*at, path, "must not point to fields in metadata");
        }
        if !matches!(text(found, "type"), "string" | "boolean" | "integer") {
            errors.invalid(&*at, path, "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.");
        }
        if !seen.insert(path) {
            errors.duplicate(at, path);
        }
    }
    if seen.len() > MAX_SELECTABLE {
        errors.too_many(at, seen.len() as u64, MAX_SELECTABLE as u64);
    }
}

fn required_names(names: &Value, errors: &mut Errors) {
    for key in ["plural", "singular", "kind", "listKind"] {
        if text(names, key).is_empty() {
            errors.required(format!("spec.names.{key}"), "");
        }
    }
}

fn names(names: &Value, at: &str, errors: &mut Errors) {
    for key in ["plural", "singular"] {
        let n = text(names, key);
        if let Err(e) = name::dns1035_label(n)
            && !n.is_empty()
        {
            errors.invalid(format!("{at}.{key}"), n, &e);
        }
    }
    for key in ["kind", "listKind"] {
        let n = text(names, key);
        if let Err(e) = name::dns1035_label(&n.to_lowercase())
            && !n.is_empty()
        {
            let words = format!("may have mixed case, but should otherwise match: {e}");
            errors.invalid(format!("{at}.{key}"), n, &words);
        }
    }
    if !text(names, "kind").is_empty() && names["kind"] == names["listKind"] {
        let n = text(names, "listKind");
        errors.invalid(format!("{at}.listKind"), n, "kind and listKind may not be the same");
    }
    for key in ["shortNames", "categories"] {
        for (i, n) in object::list(names, key).iter().filter_map(Value::as_str).enumerate() {
            if let Err(e) = name::dns1035_label(n) {
                errors.invalid(format!("{at}.{key}[{i}]"), n, &e);
            }
        }
    }
}

/// Groups of the community want a word that its people have looked.
fn approval(o: &Value, errors: &mut Errors) {
    let group = text(&o["spec"], "group");
    let protected =
        ["k8s.io", "kubernetes.io"].iter().any(|g| group == *g || group.ends_with(&format!(".{g}")));
    if !protected {
        return;
    }
    let at = format!("metadata.annotations[{APPROVED}]");
    match o["metadata"]["annotations"][APPROVED].as_str().unwrap_or_default() {
        "" => errors.required(at, "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111"),
        a if a.starts_with("unapproved") || a.starts_with("http://") || a.starts_with("https://") => {}
        a => errors.invalid(at, a, "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111"),
    }
}

pub(crate) fn definition_update(new: &Value, old: &Value, errors: &mut Errors) {
    let established = super::condition(old, "Established").is_some_and(|c| c["status"] == "True");
    if established {
        for path in ["spec.scope", "spec.names.kind"] {
            errors.immutable(path, object::get(new, path), object::get(old, path));
        }
    }
    for path in ["spec.group", "spec.names.plural"] {
        errors.immutable(path, object::get(new, path), object::get(old, path));
    }
    let versions = object::list(new, "spec.versions");
    for (i, v) in object::list(new, "status.storedVersions").iter().enumerate() {
        let v = v.as_str().unwrap_or_default();
        if !versions.iter().any(|x| x["name"] == *v) {
            let words = format!(
                "missing from spec.versions; {v} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {v} and removes {v} from status.storedVersions"
            );
            errors.invalid(format!("status.storedVersions[{i}]"), v, &words);
        }
    }
}
