//! Namespace: empties a namespace that is being deleted, then lets it go.

use std::time::Duration;

use client::{Key, Reconcile, WorkQueue};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::core::ObjectList;
use kube::{Api, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Error};
use crate::garbage::deletable_resources;

/// Between two looks at what is still there: pods need their grace period.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("namespace");
    let namespaces = context.informers.of::<Namespace>();
    let q = queue.clone();
    namespaces.on_change(move |c| {
        if c.new.as_ref().is_some_and(|n| n.metadata.deletion_timestamp.is_some()) {
            q.add(Key::of(&**c.object()));
        }
    });
    namespaces.synced().await;
    queue.run(2, stop, move |key| reconcile(context.clone(), key)).await;
}

async fn reconcile(context: Context, key: Key) -> Result<Reconcile, Error> {
    let Some(ns) = context.informers.of::<Namespace>().get(&key) else { return Ok(Reconcile::Done) };
    if ns.metadata.deletion_timestamp.is_none() {
        return Ok(Reconcile::Done);
    }
    let found = deletable_resources(&context).await?;
    let resources: Vec<ApiResource> =
        found.kinds.into_iter().filter(|r| r.namespaced).map(|r| r.resource).collect();
    // What a silent server has in the namespace must go first, as upstream has it.
    let mut failed: Vec<String> = found.silent.into_iter().map(|(gv, why)| format!("{gv}: {why}")).collect();
    let mut left = 0;
    for r in &resources {
        let api: Api<DynamicObject> = Api::namespaced_with(context.client(), &key.name, r);
        let there: ObjectList<DynamicObject> = match api.list(&ListParams::default()).await {
            Ok(l) => l,
            Err(e) => {
                failed.push(format!("{}: {e}", r.plural));
                continue;
            }
        };
        left += there.items.len();
        for object in there.items.iter().filter(|o| o.metadata.deletion_timestamp.is_none()) {
            let gone = api.delete(&object.name_any(), &DeleteParams::background()).await;
            if let Err(e) = client::error::optional(gone.map(drop)) {
                failed.push(format!("{} {}: {e}", r.plural, object.name_any()));
            }
        }
    }
    if !failed.is_empty() {
        return Err(Error::NamespaceContent(failed.len(), resources.len(), failed.join("; ")));
    }
    if left > 0 {
        return Ok(Reconcile::After(LOOK_AGAIN));
    }
    let mut done = (*ns).clone();
    if let Some(f) = done.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
        f.retain(|f| f != "kubernetes");
    }
    let body = serde_json::to_vec(&done)?;
    let request = http::Request::put(format!("/api/v1/namespaces/{}/finalize", key.name))
        .header("content-type", "application/json")
        .body(body)
        .map_err(kube::Error::HttpError)?;
    client::error::optional(context.client().request::<serde_json::Value>(request).await)?;
    Ok(Reconcile::Done)
}
