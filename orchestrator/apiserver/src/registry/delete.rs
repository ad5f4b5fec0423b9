//! The road of a deletion: at once, or marked where finalizers or a grace period hold the object.

use std::time::Duration;

use serde_json::Value;

use super::{RETRIES, WriteContext, with_revision, without_revision};
use crate::admission::attributes::{Attributes, Operation};
use crate::admission::reinvocation::Rounds;
use crate::cache::{object_key, store_key};
use crate::error::{ApiError, Result};
use crate::kinds::{Kind, Served};
use crate::object;
use crate::server::ApiServer;

#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_s: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) propagation: Option<String>,
    pub(crate) dry_run: bool,
}

/// What a deletion came to.
pub(crate) enum Deleted {
    /// Gone; the object as it last was.
    Gone(Value),
    /// Marked, waiting for finalizers or its grace period.
    Pending(Value),
}

impl ApiServer {
    /// Deletes an object, or marks it where finalizers or a grace period hold it.
    pub(crate) async fn delete(
        &self,
        served: &Served,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
        ctx: &WriteContext,
    ) -> Result<Deleted> {
        let kind = served.kind;
        for _ in 0..RETRIES {
            let current = self.get(served, namespace, name).await?;
            let old = current.value();
            check_preconditions(served, name, &old, options)?;
            let attributes = Attributes {
                old: Some(&old),
                dry_run: options.dry_run,
                deletion: Some(options),
                ..Attributes::new(Operation::Delete, served, namespace, name, ctx)
            };
            self.call_mutating(&attributes, None, None, &mut Rounds::default()).await?;
            self.admit_valid(&attributes, None).await?;
            let mut new = old.clone();
            propagate(&mut new, options.propagation.as_deref());
            let grace = self.grace(kind, &new, options);
            let held = !object::list(&new, "metadata.finalizers").is_empty()
                || kind.builtin() == "namespaces" && !object::list(&new, "spec.finalizers").is_empty();
            if grace == 0 && !held {
                if options.dry_run {
                    return Ok(Deleted::Gone(old));
                }
                let key = store_key(kind, &object_key(kind, namespace, name));
                let timed = self.timed("delete", kind, ctx);
                match timed.of(self.store.delete(key, Some(current.revision))).await {
                    Ok(r) => {
                        ctx.trail.wrote(r);
                        return Ok(Deleted::Gone(old));
                    }
                    Err(store::Error::Conflict { .. }) => continue,
                    Err(store::Error::NotFound) => return Err(ApiError::not_found(served, name)),
                    Err(e) => return Err(e.into()),
                }
            }
            let already = object::is_deleting(&old);
            let shorter = object::int(&old, "metadata.deletionGracePeriodSeconds").is_none_or(|g| grace < g);
            if !already || shorter {
                let until = self.now().saturating_add(Duration::from_secs(u64::try_from(grace).unwrap_or(0)));
                let meta = object::metadata(&mut new);
                meta.insert("deletionTimestamp".to_owned(), object::rfc3339(until).into());
                meta.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
                if kind.generation && !already {
                    let n = object::int(&old, "metadata.generation").unwrap_or(0);
                    object::metadata(&mut new).insert("generation".to_owned(), (n + 1).into());
                }
                if kind.builtin() == "namespaces" {
                    object::child(&mut new, "status")["phase"] = "Terminating".into();
                }
            }
            if new == old || options.dry_run {
                return Ok(Deleted::Pending(new));
            }
            let key = store_key(kind, &object_key(kind, namespace, name));
            let stored = without_revision(new);
            let written = self.store.update(key, object::to_bytes(&stored), current.revision);
            match self.timed("update", kind, ctx).of(written).await {
                Ok(r) => {
                    ctx.trail.wrote(r);
                    return Ok(Deleted::Pending(with_revision(stored, r)));
                }
                Err(store::Error::Conflict { .. }) => {}
                Err(store::Error::NotFound) => return Err(ApiError::not_found(served, name)),
                Err(e) => return Err(e.into()),
            }
        }
        Err(ApiError::modified(served, name))
    }

    /// Seconds a pod gets to end; 0 for everything that needs no farewell.
    fn grace(&self, kind: &Kind, o: &Value, options: &DeleteOptions) -> i64 {
        let bound = object::text(o, "spec.nodeName").is_some_and(|n| !n.is_empty());
        let over = matches!(object::text(o, "status.phase"), Some("Succeeded" | "Failed"));
        if kind.builtin() != "pods" || !bound || over {
            return 0;
        }
        let own = object::int(o, "spec.terminationGracePeriodSeconds").unwrap_or(30);
        let wanted = options.grace_s.unwrap_or(own);
        // Negative values mean one second, as upstream.
        if wanted < 0 { 1 } else { wanted }
    }
}

/// A marked object whose last finalizer went.
pub(super) fn is_finished(kind: &Kind, o: &Value) -> bool {
    object::is_deleting(o)
        && object::list(o, "metadata.finalizers").is_empty()
        && object::int(o, "metadata.deletionGracePeriodSeconds").unwrap_or(0) == 0
        && (kind.builtin() != "namespaces" || object::list(o, "spec.finalizers").is_empty())
}

fn check_preconditions(served: &Served, name: &str, o: &Value, options: &DeleteOptions) -> Result<()> {
    let uid = object::text(o, "metadata.uid").unwrap_or_default();
    if let Some(wanted) = &options.uid
        && wanted != uid
    {
        let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
        return Err(ApiError::conflict(served, name, &why));
    }
    let revision = object::text(o, "metadata.resourceVersion").unwrap_or_default();
    if let Some(wanted) = &options.resource_version
        && wanted != revision
    {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {revision}"
        );
        return Err(ApiError::conflict(served, name, &why));
    }
    Ok(())
}

/// Finalizers that tell the garbage collector what becomes of the dependents.
fn propagate(o: &mut Value, policy: Option<&str>) {
    const FOREGROUND: &str = "foregroundDeletion";
    const ORPHAN: &str = "orphan";
    let Some(policy) = policy else { return };
    let mut finalizers = object::list(o, "metadata.finalizers").to_vec();
    finalizers.retain(|f| f != FOREGROUND && f != ORPHAN);
    match policy {
        "Foreground" => finalizers.push(FOREGROUND.into()),
        "Orphan" => finalizers.push(ORPHAN.into()),
        _ => {}
    }
    if finalizers.is_empty() {
        object::metadata(o).shift_remove("finalizers");
    } else {
        object::metadata(o).insert("finalizers".to_owned(), finalizers.into());
    }
}
