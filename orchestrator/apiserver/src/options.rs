//! The options of requests, from their queries and bodies, checked as upstream checks them
//! (apimachinery: pkg/apis/meta/v1/validation, pkg/apis/meta/internalversion/validation).

use std::time::Duration;

use apimachinery::selector::{FieldSelector, Selector};
use http::{HeaderMap, header};
use serde_json::{Value, json};

use crate::body;
use crate::error::{ApiError, Result};
use crate::object;
use crate::patch::APPLY;
use crate::registry::DeleteOptions;
use crate::request::{Query, RequestInfo, parse_revision};
use crate::validation::Errors;

const GROUP: &str = "meta.k8s.io";
/// Of the name of a field manager, in bytes.
const MANAGER_MAX: usize = 128;
const EXACT: &str = "Exact";
const NOT_OLDER: &str = "NotOlderThan";

/// The options of list and watch.
#[derive(Clone, Debug)]
pub(crate) struct ListOptions {
    pub(crate) labels: Selector,
    pub(crate) fields: FieldSelector,
    pub(crate) limit: usize,
    pub(crate) continue_token: Option<String>,
    /// As given: empty, `0` or a revision.
    pub(crate) resource_version: String,
    pub(crate) exact: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
}

impl ListOptions {
    pub(crate) fn parse(q: &Query, info: &RequestInfo) -> Result<ListOptions> {
        let labels = Selector::parse(q.get("labelSelector").unwrap_or_default())
            .map_err(|e| ApiError::bad_request(e.to_string()))?;
        let mut fields = FieldSelector::parse(q.get("fieldSelector").unwrap_or_default())
            .map_err(|e| ApiError::bad_request(e.to_string()))?;
        if !info.name.is_empty() {
            // A watch of one object by its path.
            let named = fields.required("metadata.name");
            if !fields.terms.is_empty() && named != Some(&info.name) {
                return Err(ApiError::bad_request(
                    "fieldSelector metadata.name doesn't match requested name",
                ));
            }
            fields.terms.push(("metadata.name".to_owned(), true, info.name.clone()));
        }
        let list = ListOptions {
            labels,
            fields,
            limit: number(q, "limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
            continue_token: q.get("continue").map(str::to_owned),
            exact: q.get("resourceVersionMatch") == Some(EXACT),
            timeout: number(q, "timeoutSeconds")?
                .and_then(|s| u64::try_from(s).ok())
                .filter(|s| *s > 0)
                .map(Duration::from_secs),
            bookmarks: q.flag("allowWatchBookmarks"),
            send_initial_events: q.has("sendInitialEvents").then(|| q.flag("sendInitialEvents")),
            resource_version: q.get("resourceVersion").unwrap_or_default().to_owned(),
        };
        let mut errors = Errors::default();
        let matching = q.get("resourceVersionMatch");
        if info.verb == "watch" {
            list.check_watch(matching, &mut errors);
        } else {
            list.check_list(matching, &mut errors);
        }
        refuse("ListOptions", &errors)?;
        let versioned = !matches!(list.resource_version.as_str(), "" | "0");
        if list.continue_token.is_some() && versioned && info.verb != "watch" {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        Ok(list)
    }

    fn check_list(&self, matching: Option<&str>, errors: &mut Errors) {
        const AT: &str = "resourceVersionMatch";
        if let Some(m) = matching {
            if self.resource_version.is_empty() {
                errors.forbidden(AT, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if self.continue_token.is_some() {
                errors.forbidden(AT, "resourceVersionMatch is forbidden when continue is provided");
            }
            if !matches!(m, EXACT | NOT_OLDER) {
                errors.not_supported(AT, m, &[EXACT, NOT_OLDER, ""]);
            }
            if m == EXACT && self.resource_version == "0" {
                errors.forbidden(AT, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
        }
        if self.send_initial_events.is_some() {
            errors.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
    }

    fn check_watch(&self, matching: Option<&str>, errors: &mut Errors) {
        const AT: &str = "resourceVersionMatch";
        if self.send_initial_events.is_some() && matching != Some(NOT_OLDER) {
            let why = format!("sendInitialEvents requires setting resourceVersionMatch to {NOT_OLDER}");
            errors.forbidden(AT, &why);
        }
        let Some(m) = matching else { return };
        if self.send_initial_events.is_none() {
            errors.forbidden(
                AT,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        }
        if m != NOT_OLDER {
            errors.not_supported(AT, m, &[NOT_OLDER]);
        }
        if self.continue_token.is_some() {
            errors.forbidden(AT, "resourceVersionMatch is forbidden when continue is provided");
        }
    }

    pub(crate) fn revision(&self) -> Result<u64> {
        parse_revision(&self.resource_version)
    }
}

/// The options of creates, updates and patches.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_manager: String,
    pub(crate) field_validation: FieldValidation,
    pub(crate) force: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl WriteOptions {
    pub(crate) fn parse(q: &Query, headers: &HeaderMap, verb: &str) -> Result<WriteOptions> {
        let agent = headers.get(header::USER_AGENT).and_then(|a| a.to_str().ok()).unwrap_or("unknown");
        let given = q.get("fieldManager");
        let dry_run: Vec<&str> = q.all("dryRun").collect();
        let mut options = WriteOptions {
            dry_run: !dry_run.is_empty(),
            field_manager: given.map_or_else(|| manager(agent), str::to_owned),
            field_validation: FieldValidation::Warn,
            force: q.flag("force"),
        };
        let kind = match verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "patch" => "PatchOptions",
            // A deletion's options are its own.
            _ => return Ok(options),
        };
        let mut errors = Errors::default();
        if verb == "patch" {
            if body::media_type(headers) != APPLY {
                if q.has("force") {
                    errors.forbidden("force", "may not be specified for non-apply patch");
                }
            } else if given.is_none() {
                errors.required("fieldManager", "is required for apply patch");
            }
        }
        if let Some(manager) = given {
            check_manager(manager, &mut errors);
        }
        check_dry_run(&dry_run, &mut errors);
        options.field_validation = match q.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                errors.not_supported("fieldValidation", other, &["", "Ignore", "Strict", "Warn"]);
                FieldValidation::Warn
            }
        };
        refuse(kind, &errors)?;
        Ok(options)
    }
}

/// Who a client is that does not say so.
fn manager(agent: &str) -> String {
    let name = agent.split('/').next().unwrap_or_default().chars().filter(|c| is_printable(*c));
    let mut out = String::new();
    for c in name {
        if out.len() + c.len_utf8() > MANAGER_MAX {
            break;
        }
        out.push(c);
    }
    if out.is_empty() { "unknown".to_owned() } else { out }
}

/// Go: unicode.IsPrint.
fn is_printable(c: char) -> bool {
    c == ' ' || !c.is_control() && !c.is_whitespace()
}

fn check_manager(manager: &str, errors: &mut Errors) {
    if manager.len() > MANAGER_MAX {
        errors.too_long("fieldManager", MANAGER_MAX as u64);
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| !is_printable(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.invalid("fieldManager", manager, &why);
    }
}

fn check_dry_run(values: &[&str], errors: &mut Errors) {
    if values.iter().any(|v| *v != "All") {
        let list: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
        errors.not_supported_written("dryRun", &format!("[]string{{{}}}", list.join(", ")), &["All"]);
    }
}

fn refuse(kind: &'static str, errors: &Errors) -> Result<()> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid_of(GROUP, kind, "", errors)) }
}

/// A number of a query.
fn number(q: &Query, name: &str) -> Result<Option<i64>> {
    let Some(v) = q.get(name) else { return Ok(None) };
    let why = || ApiError::bad_request(format!("strconv.ParseInt: parsing {v:?}: invalid syntax"));
    v.parse().map(Some).map_err(|_| why())
}

/// The options of a deletion: from its body if it has one, or else from the query.
pub(crate) fn delete_options(q: &Query, headers: &HeaderMap, bytes: &[u8]) -> Result<DeleteOptions> {
    if !bytes.is_empty() {
        let given = body::decode(bytes, body::media_type(headers))?;
        let kind = object::text(&given, "kind").unwrap_or("DeleteOptions");
        if kind != "DeleteOptions" {
            return Err(ApiError::bad_request("decoded object cannot be converted to DeleteOptions"));
        }
        return delete_options_from(&given);
    }
    let text = |name: &str| q.get(name).map_or(Value::Null, Value::from);
    let dry_run: Vec<&str> = q.all("dryRun").collect();
    delete_options_from(&json!({
        "gracePeriodSeconds": number(q, "gracePeriodSeconds")?,
        "propagationPolicy": text("propagationPolicy"),
        "orphanDependents": q.has("orphanDependents").then(|| q.flag("orphanDependents")),
        "dryRun": dry_run,
    }))
}

/// `given` is a `DeleteOptions`, or null.
pub(crate) fn delete_options_from(given: &Value) -> Result<DeleteOptions> {
    const POLICIES: [&str; 3] = ["Foreground", "Background", "Orphan"];
    let mut errors = Errors::default();
    let policy = object::text(given, "propagationPolicy");
    let orphan = given.get("orphanDependents").and_then(Value::as_bool);
    if let Some(p) = policy {
        if orphan.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.invalid("propagationPolicy", p, why);
        }
        if !POLICIES.contains(&p) {
            errors.not_supported("propagationPolicy", p, &["Foreground", "Background", "Orphan", "nil"]);
        }
    }
    let dry_run: Vec<&str> = object::list(given, "dryRun").iter().filter_map(Value::as_str).collect();
    check_dry_run(&dry_run, &mut errors);
    refuse("DeleteOptions", &errors)?;
    let of_orphans = |orphan: bool| if orphan { "Orphan" } else { "Background" };
    Ok(DeleteOptions {
        grace_s: object::int(given, "gracePeriodSeconds"),
        propagation: policy.or(orphan.map(of_orphans)).map(str::to_owned),
        dry_run: !dry_run.is_empty(),
        uid: object::text(given, "preconditions.uid").map(str::to_owned),
        resource_version: object::text(given, "preconditions.resourceVersion").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T: std::fmt::Debug>(r: Result<T>) -> String {
        r.expect_err("refused").message
    }

    #[test]
    fn lists_and_watches() {
        let list = |q: &str| ListOptions::parse(&Query::parse(q), &RequestInfo::default());
        let info = RequestInfo { verb: "watch".to_owned(), ..RequestInfo::default() };
        let watch = |q: &str| ListOptions::parse(&Query::parse(q), &info);
        assert!(list("resourceVersion=5&resourceVersionMatch=Exact").expect("valid").exact);
        assert_eq!(
            said(list("resourceVersionMatch=Exact")),
            r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"#
        );
        assert_eq!(
            said(list("resourceVersion=1&resourceVersionMatch=x&sendInitialEvents=true")),
            r#"ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Unsupported value: "x": supported values: "Exact", "NotOlderThan", "", sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list]"#
        );
        assert_eq!(
            said(list("continue=a&resourceVersion=4")),
            "specifying resource version is not allowed when using continue"
        );
        assert_eq!(said(list("limit=x")), r#"strconv.ParseInt: parsing "x": invalid syntax"#);
        assert_eq!(
            said(watch("sendInitialEvents=true")),
            r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"#
        );
        assert!(
            watch("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
                .is_ok()
        );
    }

    #[test]
    fn writes() {
        let write = |q: &str, verb: &str, media: &'static str| {
            let mut h = HeaderMap::new();
            h.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(media));
            WriteOptions::parse(&Query::parse(q), &h, verb)
        };
        let merge = "application/merge-patch+json";
        assert_eq!(
            said(write("dryRun=x", "create", "")),
            r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: []string{"x"}: supported values: "All""#
        );
        assert_eq!(
            said(write("fieldValidation=x", "update", "")),
            r#"UpdateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "x": supported values: "", "Ignore", "Strict", "Warn""#
        );
        assert_eq!(
            said(write("force=true", "patch", merge)),
            r#"PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#
        );
        assert_eq!(
            said(write("", "patch", APPLY)),
            r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#
        );
        assert_eq!(
            said(write("fieldManager=a%07b", "update", "")),
            r#"UpdateOptions.meta.k8s.io "" is invalid: fieldManager: Invalid value: "a\u{7}b": invalid character U+0007 (at position 1)"#
        );
        assert!(write("dryRun=All&fieldManager=me", "create", "").expect("valid").dry_run);
        assert_eq!(manager(""), "unknown");
    }

    #[test]
    fn deletions() {
        let delete =
            |q: &str, body: &str| delete_options(&Query::parse(q), &HeaderMap::new(), body.as_bytes());
        let o = delete("gracePeriodSeconds=3&propagationPolicy=Orphan", "").expect("valid");
        assert_eq!((o.grace_s, o.propagation.as_deref()), (Some(3), Some("Orphan")));
        // A body counts alone.
        let o = delete("gracePeriodSeconds=3", r#"{"orphanDependents": true}"#).expect("valid");
        assert_eq!((o.grace_s, o.propagation.as_deref()), (None, Some("Orphan")));
        assert_eq!(
            said(delete("propagationPolicy=x", "")),
            r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "x": supported values: "Foreground", "Background", "Orphan", "nil""#
        );
        assert_eq!(
            said(delete("", r#"{"kind": "Pod"}"#)),
            "decoded object cannot be converted to DeleteOptions"
        );
    }
}
