//! What admission is told about one write, and what it leaves behind beside its verdict.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use apimachinery::user::UserInfo;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::audit::{Level, Watched};
use crate::fairness::Mark;
use crate::kinds::Served;
use crate::registry::{DeleteOptions, Part, WriteContext};
use crate::slow::Stations;

/// Upstream's bound on all warnings of one answer (apiserver: pkg/endpoints/filters/warning.go).
const MAX_WARNINGS_BYTES: usize = 4 << 10;
/// Annotations of one request; more are dropped.
const MAX_ANNOTATIONS: usize = 200;

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As rules and reviews spell it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// What a request leaves behind beside its answer: its id, warnings for the client, annotations for the audit log.
#[derive(Debug)]
pub(crate) struct Trail {
    /// The `Audit-Id` of the answer.
    pub(crate) id: String,
    /// Where the request's time went.
    pub(crate) stations: Stations,
    /// Who decided when it was served.
    pub(crate) decided: OnceLock<Mark>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    warnings: Vec<String>,
    annotations: BTreeMap<String, String>,
    /// What the audit log wants to know, if anything.
    watched: Option<Watched>,
}

impl Default for Trail {
    fn default() -> Self {
        Trail {
            id: uuid::Uuid::new_v4().to_string(),
            stations: Stations::default(),
            decided: OnceLock::new(),
            kept: Mutex::default(),
        }
    }
}

impl Trail {
    /// A line for the client; the same line is said once.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        let (text, mut kept) = (text.into(), self.kept.lock());
        let bytes: usize = kept.warnings.iter().map(String::len).sum();
        if !text.is_empty() && bytes + text.len() <= MAX_WARNINGS_BYTES && !kept.warnings.contains(&text) {
            kept.warnings.push(text);
        }
    }

    /// The revision that a write made.
    pub(crate) fn wrote(&self, revision: u64) {
        if self.level().is_some() {
            self.annotate("binnacle.io/revision", revision.to_string());
        }
    }

    /// The first value of a key stays.
    pub(crate) fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        let mut kept = self.kept.lock();
        if kept.annotations.len() < MAX_ANNOTATIONS {
            kept.annotations.entry(key.into()).or_insert_with(|| value.into());
        }
    }

    pub(crate) fn watch(&self, watched: Option<Watched>) {
        self.kept.lock().watched = watched;
    }

    /// Adds to what the audit log is told.
    pub(crate) fn tell(&self, add: impl FnOnce(&mut Watched)) {
        if let Some(w) = &mut self.kept.lock().watched {
            add(w);
        }
    }

    /// How closely the request is watched, if it is.
    pub(crate) fn level(&self) -> Option<Level> {
        self.kept.lock().watched.as_ref().map(|w| w.level)
    }

    pub(crate) fn watched(&self) -> Option<Watched> {
        self.kept.lock().watched.clone()
    }

    pub(crate) fn annotations(&self) -> BTreeMap<String, String> {
        self.kept.lock().annotations.clone()
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.kept.lock().warnings.clone()
    }
}

/// One write, as admission sees it. Objects are in the storage version.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a> {
    pub(crate) operation: Operation,
    /// The resource as the request names it.
    pub(crate) served: &'a Served,
    pub(crate) subresource: &'a str,
    /// Empty for cluster-scoped resources.
    pub(crate) namespace: &'a str,
    /// Empty while a generated name is not there yet.
    pub(crate) name: &'a str,
    /// What is there now.
    pub(crate) old: Option<&'a Value>,
    pub(crate) dry_run: bool,
    pub(crate) field_manager: &'a str,
    /// For a deletion, how.
    pub(crate) deletion: Option<&'a DeleteOptions>,
    /// `None` is the server itself.
    pub(crate) user: Option<&'a UserInfo>,
    pub(crate) trail: &'a Trail,
}

impl<'a> Attributes<'a> {
    /// Of a write through the registry.
    pub(crate) fn new(
        operation: Operation,
        served: &'a Served,
        namespace: &'a str,
        name: &'a str,
        ctx: &'a WriteContext,
    ) -> Self {
        Attributes {
            operation,
            served,
            subresource: &ctx.subresource,
            namespace: if served.kind.namespaced { namespace } else { "" },
            name,
            old: None,
            dry_run: ctx.options.dry_run,
            field_manager: &ctx.options.field_manager,
            deletion: None,
            user: ctx.user.as_ref(),
            trail: &ctx.trail,
        }
    }

    /// The options object of a review.
    pub(crate) fn options(&self) -> Value {
        let kind = match self.operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return Value::Null,
        };
        let mut o = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            o["dryRun"] = json!(["All"]);
        }
        match self.deletion {
            None => o["fieldManager"] = self.field_manager.into(),
            Some(d) => {
                if let Some(g) = d.grace_s {
                    o["gracePeriodSeconds"] = g.into();
                }
                if let Some(p) = &d.propagation {
                    o["propagationPolicy"] = p.as_str().into();
                }
                for (key, v) in [("uid", &d.uid), ("resourceVersion", &d.resource_version)] {
                    if let Some(v) = v {
                        o["preconditions"][key] = v.as_str().into();
                    }
                }
            }
        }
        o
    }
}

/// The subresource that a part of an object is written through.
pub(crate) fn subresource_of(part: Part) -> &'static str {
    match part {
        Part::Main | Part::Internal => "",
        Part::Status => "status",
        Part::Finalize => "finalize",
        Part::Approval => "approval",
        Part::EphemeralContainers => "ephemeralcontainers",
        Part::Resize => "resize",
    }
}
