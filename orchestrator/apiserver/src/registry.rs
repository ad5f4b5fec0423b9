//! The road of a write: defaults, admission, validation, one compare-and-swap on the store
//! (apiserver: pkg/registry/generic/registry/store.go).

mod delete;
mod ephemeral;
mod metadata;
mod resize;

use std::sync::Arc;

use apimachinery::trace::TRACEPARENT_ANNOTATION;
use apimachinery::user::UserInfo;
use serde_json::{Value, json};

use crate::admission::attributes::{Attributes, Operation, Trail, subresource_of};
use crate::cache::{Object, object_key, store_key};
use crate::error::{ApiError, Result};
use crate::kinds::{Kind, Served};
use crate::managed::Writer;
use crate::metrics;
use crate::options::WriteOptions;
use crate::server::ApiServer;
use crate::validation::Errors;
use crate::{certificates, custom, managed, object};

pub(crate) use delete::{DeleteOptions, Deleted};

use delete::is_finished;
use metadata::{keep_metadata, keep_other_part, same_but_times, same_spec, validate_metadata};

/// How often a write that lost a race is tried again before the client is told.
const RETRIES: usize = 8;
/// Metadata of a new object that is the server's to say.
const SYSTEM: [&str; 7] = [
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "resourceVersion",
    "generation",
];
/// How many names are tried for a generateName.
const NAMES: usize = 8;

/// How something is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteContext {
    pub(crate) options: WriteOptions,
    /// This write is a server-side apply: its managed fields are already worked out.
    pub(crate) apply: bool,
    /// Who writes; `None` is the server itself, which may everything.
    pub(crate) user: Option<UserInfo>,
    /// A subresource whose rules are its own (scale, binding, …); empty for the object, its status and finalizers.
    pub(crate) subresource: String,
    /// Where admission leaves warnings and annotations.
    pub(crate) trail: Arc<Trail>,
}

/// An operation on the store that is timed.
pub(crate) struct Timed<'a> {
    server: &'a ApiServer,
    operation: &'static str,
    resource: &'static str,
    trail: &'a Trail,
}

impl Timed<'_> {
    pub(crate) async fn of<T, E>(
        self,
        work: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        let clock = &self.server.config.clock;
        let began = clock.monotonic();
        let done = work.await;
        let ended = clock.monotonic();
        let took = ended.saturating_duration_since(began);
        metrics::store::stored(self.operation, self.resource, took, done.is_ok());
        self.trail.stations.left("store", ended);
        done
    }
}

/// Which part of an object an update may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
    /// `spec.finalizers` of a Namespace.
    Finalize,
    /// The conditions of a CertificateSigningRequest.
    Approval,
    /// `spec.ephemeralContainers` of a Pod.
    EphemeralContainers,
    /// `resources` of a Pod's containers.
    Resize,
    /// What a subresource with its own rules changed (binding, scale): everything counts.
    Internal,
}

impl ApiServer {
    /// The object as the cache has it, once the cache has everything acknowledged so far.
    pub(crate) async fn get(&self, served: &Served, namespace: &str, name: &str) -> Result<Arc<Object>> {
        self.cache.fresh().await?;
        let key = object_key(served.kind, namespace, name);
        self.cache.get(served.index, &key).ok_or_else(|| ApiError::not_found(served, name))
    }

    /// Creates an object given in its storage version. Gives it as stored, with its resourceVersion.
    pub(crate) async fn create(
        &self,
        served: &Served,
        namespace: &str,
        mut o: Value,
        ctx: &WriteContext,
    ) -> Result<Value> {
        let kind = served.kind;
        self.begin_create(kind, namespace, &mut o)?;
        if kind.namespaced {
            self.check_namespace(served, namespace, object::name(&o)).await?;
        }
        let generated = object::name(&o).is_empty();
        if generated {
            match object::text(&o, "metadata.generateName") {
                Some(prefix) if !prefix.is_empty() => {
                    let generated = generate(prefix);
                    object::metadata(&mut o).insert("name".to_owned(), generated.into());
                }
                _ => {
                    let mut e = Errors::default();
                    e.required("metadata.name", "name or generateName is required");
                    return Err(ApiError::invalid(served, "", &e));
                }
            }
        }
        if kind.custom && kind.status {
            drop(object::remove(&mut o, "status"));
        }
        (kind.default)(&mut o);
        let given = if generated { String::new() } else { object::name(&o).to_owned() };
        let attributes = Attributes::new(Operation::Create, served, namespace, &given, ctx);
        let system = SYSTEM.map(|k| (k, o["metadata"].get(k).cloned()));
        if self.admit(&attributes, &mut o).await? {
            // Who was asked may change much, but not what the server alone says.
            for (key, value) in system {
                match value {
                    Some(v) => drop(object::metadata(&mut o).insert(key.to_owned(), v)),
                    None => drop(object::metadata(&mut o).shift_remove(key)),
                }
            }
        }
        self.left(&ctx.trail, "admission");
        (kind.prepare_create)(&mut o);
        certificates::stamp_requester(kind, ctx.user.as_ref(), &mut o);
        if kind.generation {
            object::metadata(&mut o).insert("generation".to_owned(), 1.into());
        }
        self.check_definition(served)?;
        validate(served, &o)?;
        if let Some(user) = &ctx.user {
            self.check_escalation(served, user, None, &o)?;
        }
        self.admit_valid(&attributes, Some(&o)).await?;
        self.trace_create(kind, &mut o);
        if !ctx.apply {
            let writer = Writer { manager: &ctx.options.field_manager, subresource: "", now: self.now() };
            managed::on_update(self, served, None, &mut o, writer).await?;
        }
        let _allocated = self.allocate(served, None, &mut o, ctx.options.dry_run).await?;
        let _counted = self.admit_quota(served, namespace, &o).await?;
        self.left(&ctx.trail, "validation");
        for _ in 0..NAMES {
            let key = object_key(kind, namespace, object::name(&o));
            if ctx.options.dry_run {
                self.cache.fresh().await?;
                if self.cache.get(served.index, &key).is_none() {
                    return Ok(o);
                }
            } else {
                let stored = match &served.custom {
                    Some(_) => object::to_bytes(&self.to_storage(served, o.clone()).await?),
                    None => object::to_bytes(&o),
                };
                let timed = self.timed("create", kind, ctx);
                match timed.of(self.store.create(store_key(kind, &key), stored)).await {
                    Ok(revision) => {
                        ctx.trail.wrote(revision);
                        return Ok(with_revision(o, revision));
                    }
                    Err(store::Error::Exists { .. }) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            if !generated {
                break;
            }
            let prefix = object::text(&o, "metadata.generateName").unwrap_or_default().to_owned();
            object::metadata(&mut o).insert("name".to_owned(), generate(&prefix).into());
            (kind.default)(&mut o);
        }
        Err(ApiError::already_exists(served, object::name(&o)))
    }

    /// Metadata as a new object has it.
    fn begin_create(&self, kind: &Kind, namespace: &str, o: &mut Value) -> Result<()> {
        o["apiVersion"] = if kind.group.is_empty() {
            kind.version.into()
        } else {
            format!("{}/{}", kind.group, kind.version).into()
        };
        o["kind"] = kind.kind.into();
        let now = object::rfc3339(self.now());
        let meta = object::metadata(o);
        if meta.get("resourceVersion").and_then(Value::as_str).is_some_and(|r| !r.is_empty()) {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        for key in
            ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"]
        {
            meta.shift_remove(key);
        }
        if kind.namespaced {
            let given = meta.get("namespace").and_then(Value::as_str).unwrap_or_default();
            if !given.is_empty() && given != namespace {
                return Err(ApiError::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            meta.insert("namespace".to_owned(), namespace.into());
        } else {
            meta.shift_remove("namespace");
        }
        meta.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
        meta.insert("creationTimestamp".to_owned(), now.into());
        Ok(())
    }

    /// Nothing is made of a kind that goes away.
    fn check_definition(&self, served: &Served) -> Result<()> {
        match &served.custom {
            Some(held) if held.custom.terminating => {
                let why = "create not allowed while custom resource definition is terminating";
                Err(ApiError::new(405, "MethodNotAllowed", why))
            }
            _ => Ok(()),
        }
    }

    /// Nothing is made in a namespace that is missing or going away.
    async fn check_namespace(&self, served: &Served, namespace: &str, name: &str) -> Result<()> {
        // Admission judges by the same cache: a policy that was just made counts at once.
        self.cache.fresh().await?;
        let spaces = crate::kinds::by_resource("", "namespaces").expect("namespaces are a kind");
        let Some(ns) = self.cache.get(spaces.index, namespace) else {
            return Err(ApiError::not_found(&spaces, namespace));
        };
        if ns.is_deleting() {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let mut e = ApiError::forbidden(served, name, &why);
            if let Some(d) = &mut e.details {
                let message = format!("namespace {namespace} is being terminated");
                d["causes"] = json!([{"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}]);
            }
            return Err(e);
        }
        Ok(())
    }

    /// Replaces an object by what `change` makes of it. Where the change names no resourceVersion, a lost
    /// race is run again on the newer object.
    pub(crate) async fn update(
        &self,
        served: &Served,
        namespace: &str,
        name: &str,
        ctx: &WriteContext,
        part: Part,
        change: &mut (dyn FnMut(&Value) -> Result<Value> + Send),
    ) -> Result<Value> {
        for _ in 0..RETRIES {
            let current = self.get(served, namespace, name).await?;
            let old = self.to_served(served, current.value()).await?;
            let new = change(&old)?;
            let named = object::text(&new, "metadata.resourceVersion").unwrap_or_default();
            let unconditional = named.is_empty() || named == current.revision.to_string();
            if !unconditional {
                return Err(ApiError::modified(served, name));
            }
            // Overtaken: a change that names its revision is refused in the next round.
            if let Some(done) =
                self.replace(served, namespace, name, ctx, part, &old, new, current.revision).await?
            {
                return Ok(done);
            }
        }
        Err(ApiError::modified(served, name))
    }

    /// One attempt; `None` if the object changed meanwhile.
    #[expect(clippy::too_many_arguments, reason = "the parts of one write, passed on once")]
    async fn replace(
        &self,
        served: &Served,
        namespace: &str,
        name: &str,
        ctx: &WriteContext,
        part: Part,
        old: &Value,
        mut new: Value,
        revision: u64,
    ) -> Result<Option<Value>> {
        let kind = served.kind;
        if object::name(&new) != name {
            let given = object::name(&new);
            return Err(ApiError::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        keep_metadata(served, &mut new, old)?;
        keep_other_part(kind, part, &mut new, old);
        let request = certificates::is_request(kind);
        if request {
            certificates::settle(part, &mut new, old, &object::rfc3339(self.now()));
        }
        if part != Part::Status {
            (kind.default)(&mut new);
        }
        let mut attributes = Attributes::new(Operation::Update, served, namespace, name, ctx);
        attributes.old = Some(old);
        if attributes.subresource.is_empty() {
            attributes.subresource = subresource_of(part);
        }
        if part != Part::Internal && self.admit(&attributes, &mut new).await? {
            keep_metadata(served, &mut new, old)?;
            keep_other_part(kind, part, &mut new, old);
        }
        self.left(&ctx.trail, "admission");
        if part == Part::Main {
            (kind.prepare_update)(&mut new, old);
        }
        // Without the subresource, a custom resource's status is a field like others.
        let plain_status = kind.custom && !kind.status && new.get("status") != old.get("status");
        let spec_changed = plain_status || !same_spec(&new, old);
        if kind.generation && spec_changed {
            let n = object::int(old, "metadata.generation").unwrap_or(0);
            object::metadata(&mut new).insert("generation".to_owned(), (n + 1).into());
        }
        let mut errors = Errors::default();
        metadata::validate_going(&new, old, &mut errors);
        validate_metadata(kind, &new, &mut errors);
        if part != Part::Status {
            (kind.validate)(&new, &mut errors);
        }
        if request && part == Part::Status {
            (kind.validate)(&new, &mut errors);
        }
        if part == Part::Status {
            (kind.validate_status)(&new, old, &mut errors);
        }
        if part == Part::Main || request {
            (kind.validate_update)(&new, old, &mut errors);
        }
        if let Some(alias) = served.alias.filter(|_| part == Part::Main) {
            (alias.validate_update)(&new, old, &mut errors);
        }
        if part == Part::EphemeralContainers {
            ephemeral::validate(&new, old, &mut errors);
        }
        if part == Part::Resize {
            resize::validate(&new, old, &mut errors);
        }
        if let Some(held) = &served.custom {
            custom::validate(held, &new, Some(old), &mut errors);
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(served, name, &errors));
        }
        if let Some(user) = &ctx.user {
            self.check_escalation(served, user, Some(old), &new)?;
        }
        if part != Part::Internal {
            self.admit_valid(&attributes, Some(&new)).await?;
        }
        self.trace_update(kind, &mut new, old, spec_changed && part != Part::Status && !ctx.options.dry_run);
        let _allocated = self.allocate(served, Some(old), &mut new, ctx.options.dry_run).await?;
        if !ctx.apply {
            let subresource = subresource_of(part);
            let writer = Writer { manager: &ctx.options.field_manager, subresource, now: self.now() };
            managed::on_update(self, served, Some(old), &mut new, writer).await?;
        }
        if same_but_times(&new, old) {
            return Ok(Some(old.clone()));
        }
        if ctx.options.dry_run {
            return Ok(Some(with_revision(new, revision)));
        }
        let key = store_key(kind, &object_key(kind, namespace, name));
        if is_finished(kind, &new) {
            return match self.store.delete(key, Some(revision)).await {
                Ok(r) => Ok(Some(with_revision(new, r))),
                Err(store::Error::Conflict { .. }) => Ok(None),
                Err(store::Error::NotFound) => Err(ApiError::not_found(served, name)),
                Err(e) => Err(e.into()),
            };
        }
        let new = without_revision(new);
        let stored = match &served.custom {
            Some(_) => object::to_bytes(&self.to_storage(served, new.clone()).await?),
            None => object::to_bytes(&new),
        };
        self.left(&ctx.trail, "validation");
        match self.timed("update", kind, ctx).of(self.store.update(key, stored, revision)).await {
            Ok(r) => {
                ctx.trail.wrote(r);
                Ok(Some(with_revision(new, r)))
            }
            Err(store::Error::Conflict { .. }) => Ok(None),
            Err(store::Error::NotFound) => Err(ApiError::not_found(served, name)),
            Err(e) => Err(e.into()),
        }
    }

    /// What takes the time of an operation on the store.
    pub(crate) fn timed<'a>(
        &'a self,
        operation: &'static str,
        kind: &Kind,
        ctx: &'a WriteContext,
    ) -> Timed<'a> {
        Timed { server: self, operation, resource: kind.resource, trail: &ctx.trail }
    }

    /// A new object carries the trace of its creation, unless its maker gave it one.
    fn trace_create(&self, kind: &Kind, o: &mut Value) {
        let has =
            object::get(o, "metadata.annotations").is_some_and(|a| a.get(TRACEPARENT_ANNOTATION).is_some());
        if is_traced(kind)
            && !has
            && let Some(t) = telemetry::propagation::current_traceparent()
        {
            set_annotation(o, TRACEPARENT_ANNOTATION, t);
        }
    }

    /// A changed spec carries the trace of the change; an update that says nothing keeps what was there.
    fn trace_update(&self, kind: &Kind, new: &mut Value, old: &Value, changed: bool) {
        let of = |o: &Value| {
            object::get(o, "metadata.annotations").and_then(|a| a.get(TRACEPARENT_ANNOTATION)).cloned()
        };
        let (before, now) = (of(old), of(new));
        if is_traced(kind)
            && changed
            && now == before
            && let Some(t) = telemetry::propagation::current_traceparent()
        {
            set_annotation(new, TRACEPARENT_ANNOTATION, t);
        } else if now.is_none()
            && let Some(Value::String(t)) = before
        {
            set_annotation(new, TRACEPARENT_ANNOTATION, t);
        }
    }
}

fn set_annotation(o: &mut Value, key: &str, value: String) {
    let meta = object::child(o, "metadata");
    object::child(meta, "annotations")[key] = value.into();
}

/// Kinds whose desired state starts something; the others would only churn.
fn is_traced(kind: &Kind) -> bool {
    matches!(
        kind.builtin(),
        "pods"
            | "deployments"
            | "replicasets"
            | "statefulsets"
            | "daemonsets"
            | "jobs"
            | "cronjobs"
            | "services"
            | "configmaps"
            | "secrets"
            | "horizontalpodautoscalers"
            | "namespaces"
    )
}

/// Five characters behind the prefix, from upstream's alphabet without vowels.
fn generate(prefix: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut name: String = prefix.chars().take(58).collect();
    for _ in 0..5 {
        name.push(char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]));
    }
    name
}

pub(crate) fn random_suffix() -> String {
    generate("")
}

fn with_revision(mut o: Value, revision: u64) -> Value {
    object::metadata(&mut o).insert("resourceVersion".to_owned(), revision.to_string().into());
    o
}

fn without_revision(mut o: Value) -> Value {
    object::metadata(&mut o).shift_remove("resourceVersion");
    o
}

fn validate(served: &Served, o: &Value) -> Result<()> {
    let mut errors = Errors::default();
    metadata::validate_generated(served.kind, o, &mut errors);
    validate_metadata(served.kind, o, &mut errors);
    (served.kind.validate)(o, &mut errors);
    (served.kind.validate_create)(o, &mut errors);
    if let Some(alias) = served.alias {
        (alias.validate_create)(o, &mut errors);
    }
    if let Some(held) = &served.custom {
        custom::validate(held, o, None, &mut errors);
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(served, object::name(o), &errors)) }
}
