//! AdmissionReview: the question to a webhook and its answer
//! (apiserver: pkg/admission/plugin/webhook/request/admissionreview.go).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::admission::attributes::Attributes;
use crate::admission::shown::Shown;
use crate::error::ApiError;
use crate::kinds::Served;
use crate::{object, review};

/// The question, about objects in the version that the webhook asked for.
pub(crate) fn request(
    version: &str,
    uid: &str,
    a: &Attributes<'_>,
    served: &Served,
    shown: &Shown<'_>,
    subject: Option<(&str, &str, &str)>,
) -> Value {
    let gvk = |s: &Served| match subject {
        Some((group, version, kind)) => json!({"group": group, "version": version, "kind": kind}),
        None => json!({"group": s.group, "version": s.version, "kind": s.kind.kind}),
    };
    let gvr = |s: &Served| json!({"group": s.group, "version": s.version, "resource": s.kind.resource});
    let mut request = json!({
        "uid": uid,
        "kind": gvk(served),
        "resource": gvr(served),
        "requestKind": gvk(a.served),
        "requestResource": gvr(a.served),
        "operation": a.operation.text(),
        "userInfo": a.user.map_or_else(|| json!({}), review::user_json),
        "object": shown.new.as_deref(),
        "oldObject": shown.old.as_deref(),
        "dryRun": a.dry_run,
        "options": a.options(),
    });
    for (key, v) in [
        ("subResource", a.subresource),
        ("requestSubResource", a.subresource),
        ("name", a.name),
        ("namespace", a.namespace),
    ] {
        if !v.is_empty() {
            request[key] = v.into();
        }
    }
    json!({"kind": "AdmissionReview", "apiVersion": version, "request": request})
}

/// What a webhook said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) allowed: bool,
    /// The Status of a refusal.
    status: Value,
    /// Operations of RFC 6902.
    pub(super) patch: Option<Vec<u8>>,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: Vec<(String, String)>,
}

impl Answer {
    /// Reads an answer; a webhook that breaks the rules has not answered.
    pub(super) fn parse(version: &str, uid: &str, mutating: bool, v: &Value) -> Result<Answer, String> {
        let Some(r) = object::get(v, "response") else {
            return Err("webhook response was absent".to_owned());
        };
        let text = |k: &str| object::text(r, k).unwrap_or_default();
        let (kind, api) =
            (v["kind"].as_str().unwrap_or_default(), v["apiVersion"].as_str().unwrap_or_default());
        if version.ends_with("/v1") {
            if text("uid") != uid {
                return Err(format!("expected response.uid={uid:?}, got {:?}", text("uid")));
            }
            if kind != "AdmissionReview" || api != version {
                return Err(format!(
                    "expected webhook response of {version}, Kind=AdmissionReview, got {api}, Kind={kind}"
                ));
            }
        }
        let (patch, patch_type) = (text("patch"), object::text(r, "patchType"));
        let patch = if mutating {
            match (patch.is_empty(), patch_type) {
                (true, None) => None,
                (false, None) if version.ends_with("/v1") => {
                    return Err("webhook returned response.patch but not response.patchType".to_owned());
                }
                (true, Some(_)) => {
                    return Err("webhook returned response.patchType but not response.patch".to_owned());
                }
                (false, None | Some("JSONPatch")) => Some(
                    STANDARD
                        .decode(patch)
                        .map_err(|e| format!("webhook returned an unreadable response.patch: {e}"))?,
                ),
                (false, Some(other)) => {
                    return Err(format!("webhook returned invalid response.patchType of {other:?}"));
                }
            }
        } else {
            if !patch.is_empty() {
                return Err("validating webhook may not return response.patch".to_owned());
            }
            if patch_type.is_some() {
                return Err("validating webhook may not return response.patchType".to_owned());
            }
            None
        };
        let strings = object::list(r, "warnings").iter().filter_map(|w| w.as_str().map(str::to_owned));
        let annotations = object::get(r, "auditAnnotations").and_then(Value::as_object);
        let annotations =
            annotations.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
        Ok(Answer {
            allowed: object::flag(r, "allowed"),
            status: r.get("status").cloned().unwrap_or_default(),
            patch,
            warnings: strings.collect(),
            annotations: annotations.collect(),
        })
    }

    /// The refusal, as the client reads it (apiserver: pkg/admission/plugin/webhook/errors/statuserror.go).
    pub(super) fn refusal(&self, name: &str) -> ApiError {
        let code =
            object::int(&self.status, "code").and_then(|c| u16::try_from(c).ok()).unwrap_or(0).max(400);
        let text = |k: &str| object::text(&self.status, k).unwrap_or_default();
        let denied = format!("admission webhook {name:?} denied the request");
        let message = match (text("message"), text("reason")) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        let mut e = ApiError::new(code.min(599), text("reason").to_owned(), message);
        e.details = object::get(&self.status, "details").cloned();
        e
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "admission.k8s.io/v1";

    fn check(mutating: bool, response: Value, expect: Result<bool, &str>) {
        let v = json!({"kind": "AdmissionReview", "apiVersion": V1, "response": response});
        let got = Answer::parse(V1, "u", mutating, &v).map(|a| a.allowed);
        assert_eq!(got, expect.map_err(str::to_owned), "{v}");
    }

    #[test]
    fn answers_that_break_the_rules() {
        check(true, Value::Null, Err("webhook response was absent"));
        check(true, json!({"allowed": true}), Err("expected response.uid=\"u\", got \"\""));
        check(true, json!({"uid": "u", "allowed": true}), Ok(true));
        check(
            true,
            json!({"uid": "u", "allowed": true, "patch": "W10="}),
            Err("webhook returned response.patch but not response.patchType"),
        );
        check(
            true,
            json!({"uid": "u", "patchType": "JSONPatch"}),
            Err("webhook returned response.patchType but not response.patch"),
        );
        check(
            true,
            json!({"uid": "u", "patch": "W10=", "patchType": "Merge"}),
            Err("webhook returned invalid response.patchType of \"Merge\""),
        );
        check(
            false,
            json!({"uid": "u", "patch": "W10="}),
            Err("validating webhook may not return response.patch"),
        );
    }

    #[test]
    fn refusals_in_upstreams_words() {
        let said = |status: Value| {
            let v = json!({"kind": "AdmissionReview", "apiVersion": V1, "response": {"uid": "u", "status": status}});
            let e = Answer::parse(V1, "u", false, &v).expect("an answer").refusal("a.b.c");
            (e.code, e.reason.into_owned(), e.message)
        };
        let denied = "admission webhook \"a.b.c\" denied the request";
        assert_eq!(said(Value::Null), (400, String::new(), format!("{denied} without explanation")));
        assert_eq!(
            said(json!({"code": 403, "reason": "Forbidden", "message": "no"})),
            (403, "Forbidden".to_owned(), format!("{denied}: no"))
        );
        assert_eq!(said(json!({"code": 200, "reason": "Why"})).2, format!("{denied}: Why"));
    }
}
