//! Who did what: a record for each request that the policy wants one of (audit.k8s.io/v1;
//! apiserver: pkg/audit, pkg/endpoints/filters/audit.go). Where records go is not known here.
//!
//! Whatever a policy says, of Secrets, ConfigMaps and tokens only the fact is written down, never the content.

pub(crate) mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::user::UserInfo;
use http::{HeaderMap, header};
use jiff::fmt::temporal::DateTimePrinter;
use serde::Serialize;
use serde_json::Value;
use signal::Timestamp;

use crate::admission::attributes::Trail;
use crate::error::ApiError;
use crate::metrics::METRICS;
use crate::object;
use crate::request::RequestInfo;

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
        let requests =
            |o: &Option<Value>, least| o.as_ref().filter(|_| w.level >= least).map(|o| self.shown(w, o));
        let (status, response) = match outcome {
            Some(Outcome::Refused(e)) => (Some(Status::refused(e)), None),
            Some(Outcome::Answered { code, body }) => {
                (Some(Status { code: *code, ..Status::default() }), requests(body, Level::RequestResponse))
            }
            None => (None, None),
        };
        let code = status.as_ref().map_or(0, |s| s.code);
        let mut event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: w.level.text(),
            audit_id: &trail.id,
            stage: stage.text(),
            request_uri: &w.uri,
            verb: &w.info.verb,
            user: User::of(&w.user),
            user_agent: &w.agent,
            request_received_timestamp: micros(w.received),
            stage_timestamp: micros(now),
            source_ips: w.from.as_deref().map(|from| [from]),
            impersonated_user: w.impersonated.as_ref().map(User::of),
            object_ref: w.info.is_resource.then(|| ObjectRef {
                resource: &w.info.resource,
                api_version: &w.info.version,
                namespace: &w.info.namespace,
                name,
                api_group: &w.info.group,
                subresource: &w.info.subresource,
            }),
            response_status: status,
            response_object: response,
            request_object: requests(&w.request, Level::Request),
            annotations: trail.annotations(),
        };
        let mut body = text(&event);
        if body.len() > MAX_BYTES {
            (event.request_object, event.response_object) = (None, None);
            event.annotations.insert("audit.k8s.io/truncated".to_owned(), "true".to_owned());
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

/// Event of audit.k8s.io/v1.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: User<'a>,
    user_agent: &'a str,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Option::is_none")]
    source_ips: Option<[&'a str; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<User<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectRef<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct User<'a> {
    username: &'a str,
    groups: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Vec<String>>,
}

impl<'a> User<'a> {
    fn of(u: &'a UserInfo) -> User<'a> {
        User { username: &u.name, groups: &u.groups, uid: &u.uid, extra: &u.extra }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef<'a> {
    resource: &'a str,
    api_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
}

#[derive(Default, Serialize)]
struct Status<'a> {
    metadata: Empty,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    code: u16,
}

/// An object with nothing in it.
#[derive(Default, Serialize)]
struct Empty {}

impl<'a> Status<'a> {
    fn refused(e: &'a ApiError) -> Status<'a> {
        Status {
            metadata: Empty {},
            status: Some("Failure"),
            message: Some(cut(&e.message)),
            reason: Some(&e.reason),
            code: e.code,
        }
    }
}

fn text(event: &Event<'_>) -> String {
    serde_json::to_string(event).expect("values are written without errors")
}

/// metav1.MicroTime
fn micros(t: Timestamp) -> String {
    const MICROS: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
    let at = jiff::Timestamp::from_nanosecond(i128::from(t.nanos())).unwrap_or_default();
    MICROS.timestamp_to_string(&at)
}
