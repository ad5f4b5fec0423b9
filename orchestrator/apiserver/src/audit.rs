//! Who did what: a record for each request that the policy wants one of (audit.k8s.io/v1;
//! apiserver: pkg/audit, pkg/endpoints/filters/audit.go). Where records go is not known here.
//!
//! Whatever a policy says, of Secrets, ConfigMaps and tokens only the fact is written down, never the content.

pub(crate) mod policy;

use std::sync::Arc;

use apimachinery::user::UserInfo;
use http::{HeaderMap, header};
use serde_json::{Value, json};
use signal::Timestamp;

use crate::admission::attributes::Trail;
use crate::error::ApiError;
use crate::metrics::METRICS;
use crate::object;
use crate::request::RequestInfo;
use crate::review;

pub use policy::{AuditPolicy, Level, Stage};

/// Longer records are kept without the objects in them.
const MAX_BYTES: usize = 200 << 10;
/// Headers and paths are clients' words.
const MAX_WORDS: usize = 1024;

/// A record.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    pub time: Timestamp,
    pub level: Level,
    /// What searches begin with: `audit_id`, `verb`, `user`, `namespace`, `resource`, `name`, `code`, …
    pub fields: Vec<(&'static str, String)>,
    /// The Event of audit.k8s.io/v1, as JSON.
    pub body: String,
}

/// Takes records; it must not wait.
pub type AuditSink = Arc<dyn Fn(AuditEvent) + Send + Sync>;

/// What is audited, and where to.
#[derive(Clone)]
pub struct Audit {
    pub policy: Arc<AuditPolicy>,
    pub sink: AuditSink,
}

/// What is known of a request that is audited.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) level: Level,
    omit: Vec<Stage>,
    omit_managed: bool,
    received: Timestamp,
    user: UserInfo,
    info: RequestInfo,
    uri: String,
    agent: String,
    from: Option<String>,
    /// At level Request and above.
    pub(crate) request: Option<Value>,
    pub(crate) impersonated: Option<UserInfo>,
    /// Of what was created.
    pub(crate) name: Option<String>,
}

/// What became of a request.
pub(crate) enum Outcome<'a> {
    Answered { code: u16, body: Option<Value> },
    Refused(&'a ApiError),
}

fn cut(s: &str) -> String {
    s.chars().take(MAX_WORDS).collect()
}

/// Resources whose content stays out of every log.
fn is_secret(info: &RequestInfo) -> bool {
    match (info.group.as_str(), info.resource.as_str()) {
        ("", "secrets" | "configmaps") | ("authentication.k8s.io", "tokenreviews") => true,
        ("", "serviceaccounts") => info.subresource == "token",
        _ => false,
    }
}

impl Audit {
    /// Whether, and how closely, a request is watched.
    pub(crate) fn begin(
        &self,
        user: &UserInfo,
        info: &RequestInfo,
        uri: &str,
        headers: &HeaderMap,
        from: Option<String>,
        now: Timestamp,
    ) -> Option<Watched> {
        let decision = self.policy.decide(user, info)?;
        let level = if is_secret(info) { decision.level.min(Level::Metadata) } else { decision.level };
        let agent = headers.get(header::USER_AGENT).and_then(|a| a.to_str().ok()).unwrap_or_default();
        Some(Watched {
            level,
            omit: decision.omit_stages.clone(),
            omit_managed: decision.omit_managed_fields,
            received: now,
            user: user.clone(),
            info: info.clone(),
            uri: cut(uri),
            agent: cut(agent),
            from,
            request: None,
            impersonated: None,
            name: None,
        })
    }

    pub(crate) fn record(
        &self,
        w: &Watched,
        stage: Stage,
        outcome: Option<&Outcome<'_>>,
        trail: &Trail,
        now: Timestamp,
    ) {
        if w.omit.contains(&stage) {
            return;
        }
        let name = w.name.as_deref().unwrap_or(&w.info.name);
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": w.level.text(),
            "auditID": trail.id,
            "stage": stage.text(),
            "requestURI": w.uri,
            "verb": w.info.verb,
            "user": review::user_json(&w.user),
            "userAgent": w.agent,
            "requestReceivedTimestamp": micros(w.received),
            "stageTimestamp": micros(now),
        });
        if let Some(from) = &w.from {
            event["sourceIPs"] = json!([from]);
        }
        if let Some(other) = &w.impersonated {
            event["impersonatedUser"] = review::user_json(other);
        }
        if w.info.is_resource {
            let mut r = json!({"resource": w.info.resource, "apiVersion": w.info.version});
            for (key, v) in [
                ("namespace", w.info.namespace.as_str()),
                ("name", name),
                ("apiGroup", &w.info.group),
                ("subresource", &w.info.subresource),
            ] {
                if !v.is_empty() {
                    r[key] = v.into();
                }
            }
            event["objectRef"] = r;
        }
        let mut code = 0;
        match outcome {
            Some(Outcome::Refused(e)) => {
                code = e.code;
                event["responseStatus"] = json!({"metadata": {}, "status": "Failure", "message": cut(&e.message),
                    "reason": e.reason, "code": e.code});
            }
            Some(Outcome::Answered { code: c, body }) => {
                code = *c;
                event["responseStatus"] = json!({"metadata": {}, "code": c});
                if let Some(b) = body.as_ref().filter(|_| w.level >= Level::RequestResponse) {
                    event["responseObject"] = self.shown(w, b);
                }
            }
            None => {}
        }
        if let Some(r) = w.request.as_ref().filter(|_| w.level >= Level::Request) {
            event["requestObject"] = self.shown(w, r);
        }
        let annotations = trail.annotations();
        if !annotations.is_empty() {
            event["annotations"] = json!(annotations);
        }
        let mut body = text(&event);
        if body.len() > MAX_BYTES {
            for key in ["requestObject", "responseObject"] {
                drop(object::remove(&mut event, key));
            }
            object::child(&mut event, "annotations")["audit.k8s.io/truncated"] = "true".into();
            body = text(&event);
        }
        let mut fields = vec![
            ("audit_id", trail.id.clone()),
            ("stage", stage.text().to_owned()),
            ("verb", w.info.verb.clone()),
            ("user", w.user.name.clone()),
        ];
        if let Some(other) = &w.impersonated {
            fields.push(("impersonated", other.name.clone()));
        }
        for (key, v) in [
            ("group", w.info.group.as_str()),
            ("resource", &w.info.resource),
            ("subresource", &w.info.subresource),
            ("object_namespace", &w.info.namespace),
            ("name", name),
        ] {
            if !v.is_empty() {
                fields.push((key, v.to_owned()));
            }
        }
        if code > 0 {
            fields.push(("code", code.to_string()));
        }
        METRICS.audited();
        (self.sink)(AuditEvent { time: now, level: w.level, fields, body });
    }

    fn shown(&self, w: &Watched, o: &Value) -> Value {
        let mut o = o.clone();
        if w.omit_managed {
            if let Some(m) = o.get_mut("metadata").and_then(Value::as_object_mut) {
                m.shift_remove("managedFields");
            }
            for item in object::list_mut(&mut o, "items") {
                if let Some(m) = item.get_mut("metadata").and_then(Value::as_object_mut) {
                    m.shift_remove("managedFields");
                }
            }
        }
        o
    }
}

fn text(event: &Value) -> String {
    serde_json::to_string(event).expect("values are written without errors")
}

/// metav1.MicroTime
fn micros(t: Timestamp) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(t.nanos())).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
