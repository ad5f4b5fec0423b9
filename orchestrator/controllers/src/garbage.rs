//! Garbage collector: deletes objects whose owners are gone, and carries out foreground and orphan deletion.
//!
//! It watches only the metadata of every deletable kind and keeps a small graph of it
//! (kubernetes: pkg/controller/garbagecollector).

mod node;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use client::{Reconcile, WorkQueue};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResourceList, ObjectMeta, OwnerReference};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy,
};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Resource, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Error};
use node::Node;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// An owner that the graph does not know may be on its way through another kind's watch.
const SETTLE: Duration = Duration::from_millis(500);
/// Kinds that nobody owns and that change often: not worth a watch.
const IGNORED: [&str; 2] = ["events", "leases"];
const DEFINITIONS: &str = "customresourcedefinitions";
/// What tells that other servers have kinds, too.
const API_SERVICES: &str = "apiservices";
/// Until a server that said nothing is asked again.
const ASK_THE_SILENT: Duration = Duration::from_secs(30);

/// A kind that can be listed, watched and deleted.
#[derive(Clone, Debug)]
pub(crate) struct Deletable {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
}

/// What the server says of its kinds.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    pub(crate) kinds: Vec<Deletable>,
    /// Group-versions that their servers say nothing of (aggregated APIs), and why.
    pub(crate) silent: Vec<(String, String)>,
}

/// Asks the server which kinds there are.
pub(crate) async fn deletable_resources(context: &Context) -> Result<Discovered, Error> {
    let client = context.client();
    let mut silent = Vec::new();
    let mut lists: Vec<APIResourceList> = vec![client.list_core_api_resources("v1").await?];
    for group in client.list_api_groups().await?.groups {
        let version = group.preferred_version.or_else(|| group.versions.first().cloned());
        if let Some(v) = version {
            match client.list_api_group_resources(&v.group_version).await {
                Ok(list) => lists.push(list),
                Err(e) => silent.push((v.group_version, e.to_string())),
            }
        }
    }
    let mut found: Vec<Deletable> = Vec::new();
    for list in lists {
        let (group, version) = list.group_version.split_once('/').unwrap_or(("", &list.group_version));
        for r in list.resources {
            let has = |verb: &str| r.verbs.iter().any(|v| v == verb);
            // Events stand in two groups on one storage: once is enough.
            let twice = group == "events.k8s.io";
            if r.name.contains('/') || twice || !(has("delete") && has("list") && has("watch")) {
                continue;
            }
            found.push(Deletable {
                resource: ApiResource {
                    group: group.to_owned(),
                    version: version.to_owned(),
                    api_version: list.group_version.clone(),
                    kind: r.kind,
                    plural: r.name,
                },
                namespaced: r.namespaced,
            });
        }
    }
    Ok(Discovered { kinds: found, silent })
}

#[derive(Clone)]
struct Object {
    resource: Arc<Deletable>,
    namespace: String,
    name: String,
    owners: Vec<OwnerReference>,
    deleting: bool,
    finalizers: Vec<String>,
}

#[derive(Default)]
struct Graph {
    objects: HashMap<String, Object>,
    /// Owner uid → uids of its dependents.
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    /// Returns the uids worth a look.
    fn set(&mut self, resource: &Arc<Deletable>, meta: &ObjectMeta) -> Vec<String> {
        let Some(uid) = meta.uid.clone() else { return Vec::new() };
        let object = Object {
            resource: resource.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
        };
        self.unlink(&uid);
        for o in &object.owners {
            self.dependents.entry(o.uid.clone()).or_default().insert(uid.clone());
        }
        let look = !object.owners.is_empty() || object.deleting;
        self.objects.insert(uid.clone(), object);
        if look { vec![uid] } else { Vec::new() }
    }

    fn unlink(&mut self, uid: &str) {
        let Some(old) = self.objects.get(uid) else { return };
        for o in &old.owners {
            if let Some(d) = self.dependents.get_mut(&o.uid) {
                d.remove(uid);
                if d.is_empty() {
                    self.dependents.remove(&o.uid);
                }
            }
        }
    }

    fn remove(&mut self, uid: &str) -> Vec<String> {
        self.unlink(uid);
        let owners = self.objects.remove(uid).map(|o| o.owners).unwrap_or_default();
        let mut look: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        look.extend(owners.into_iter().map(|o| o.uid));
        look
    }

    fn decide(&self, uid: &str) -> Decision {
        let Some(o) = self.objects.get(uid) else { return Decision::Nothing };
        let dependents =
            || self.dependents.get(uid).into_iter().flatten().filter_map(|u| Some((u, self.objects.get(u)?)));
        if o.deleting {
            if o.finalizers.iter().any(|f| f == ORPHAN) {
                return Decision::Orphan(dependents().map(|(u, _)| u.clone()).collect());
            }
            if o.finalizers.iter().any(|f| f == FOREGROUND) {
                let blocking: Vec<String> = dependents()
                    .filter(|(_, d)| {
                        d.owners.iter().any(|r| r.uid == uid && r.block_owner_deletion == Some(true))
                    })
                    .map(|(u, _)| u.clone())
                    .collect();
                return if blocking.is_empty() {
                    Decision::Finish
                } else {
                    Decision::DeleteDependents(
                        dependents().filter(|(_, d)| !d.deleting).map(|(u, _)| u.clone()).collect(),
                    )
                };
            }
            return Decision::Nothing;
        }
        if o.owners.is_empty() {
            return Decision::Nothing;
        }
        let absent: Vec<&OwnerReference> =
            o.owners.iter().filter(|r| !self.objects.contains_key(&r.uid)).collect();
        if absent.len() == o.owners.len() { Decision::CheckOwners } else { Decision::Nothing }
    }
}

#[derive(Debug, PartialEq)]
enum Decision {
    Nothing,
    /// None of the owners is known: ask the server, then delete.
    CheckOwners,
    /// Remove our finalizer: all blocking dependents are gone.
    Finish,
    DeleteDependents(Vec<String>),
    /// Take the owner's name out of these, then remove the finalizer.
    Orphan(Vec<String>),
}

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("garbage-collector");
    let graph = Arc::new(Mutex::new(Graph::default()));
    let watching = watch_all(context.clone(), graph.clone(), queue.clone(), stop.clone());
    telemetry::task::spawn("garbage-kinds", watching);
    queue.run(2, stop, move |uid| reconcile(context.clone(), graph.clone(), uid)).await;
}

/// Watches every kind there is; kinds come and go with their definitions.
async fn watch_all(
    context: Context,
    graph: Arc<Mutex<Graph>>,
    queue: Arc<WorkQueue<String>>,
    stop: CancellationToken,
) {
    // The watch of definitions itself tells that there may be other kinds.
    let changed = Arc::new(Notify::new());
    let mut watched: HashMap<String, CancellationToken> = HashMap::new();
    loop {
        let again = match deletable_resources(&context).await {
            Ok(Discovered { kinds: found, silent }) => {
                let path = |r: &Deletable| format!("{}/{}", r.resource.api_version, r.resource.plural);
                let there: HashSet<String> = found.iter().map(path).collect();
                watched.retain(|path, ends| {
                    // Who says nothing may have what it had.
                    let of = |gv: &str| path.strip_prefix(gv).is_some_and(|rest| rest.starts_with('/'));
                    let keep = there.contains(path) || silent.iter().any(|(gv, _)| of(gv));
                    if !keep {
                        ends.cancel();
                    }
                    keep
                });
                for r in found.into_iter().filter(|r| !is_ignored(r)) {
                    let ends = stop.child_token();
                    if watched.contains_key(&path(&r)) {
                        continue;
                    }
                    watched.insert(path(&r), ends.clone());
                    let r = Arc::new(r);
                    let tells = [DEFINITIONS, API_SERVICES].contains(&r.resource.plural.as_str());
                    let notify = tells.then(|| changed.clone());
                    let watch = watch(context.clone(), r.clone(), graph.clone(), queue.clone(), notify);
                    let graph = graph.clone();
                    telemetry::task::spawn("garbage-watch", async move {
                        tokio::select! {
                            () = ends.cancelled() => {}
                            () = watch => {}
                        }
                        let mut g = graph.lock();
                        let gone = g.objects.iter().filter(|(_, o)| Arc::ptr_eq(&o.resource, &r));
                        for uid in gone.map(|(u, _)| u.clone()).collect::<Vec<_>>() {
                            g.remove(&uid);
                        }
                    });
                }
                (!silent.is_empty()).then_some(ASK_THE_SILENT)
            }
            Err(e) => {
                tracing::warn!(error = %e, "kinds cannot be listed, trying again");
                Some(Duration::from_secs(1))
            }
        };
        let pause = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = changed.notified() => {}
            () = pause => {}
        }
    }
}

fn is_ignored(r: &Deletable) -> bool {
    // Others may name their kinds so, too.
    let ours = !r.resource.group.contains('.') || r.resource.group.ends_with(".k8s.io");
    ours && IGNORED.contains(&r.resource.plural.as_str())
}

async fn watch(
    context: Context,
    r: Arc<Deletable>,
    graph: Arc<Mutex<Graph>>,
    queue: Arc<WorkQueue<String>>,
    changed: Option<Arc<Notify>>,
) {
    let api: Api<Node> = Api::all_with(context.client(), &r.resource);
    let config = watcher::Config::default().any_semantic();
    let mut stream = pin!(watcher(api, config).default_backoff());
    let mut listed: Option<HashSet<String>> = None;
    let look = |uids: Vec<String>| uids.into_iter().for_each(|u| queue.add(u));
    while let Some(event) = stream.next().await {
        if let Some(changed) = &changed {
            changed.notify_one();
        }
        match event {
            Ok(watcher::Event::Init) => listed = Some(HashSet::new()),
            Ok(watcher::Event::InitApply(o)) => {
                if let (Some(l), Some(uid)) = (&mut listed, o.uid()) {
                    l.insert(uid);
                }
                look(set(&graph, &r, &o));
            }
            Ok(watcher::Event::InitDone) => {
                let listed = listed.take().unwrap_or_default();
                let mut g = graph.lock();
                let gone: Vec<String> = g
                    .objects
                    .iter()
                    .filter(|(u, o)| Arc::ptr_eq(&o.resource, &r) && !listed.contains(*u))
                    .map(|(u, _)| u.clone())
                    .collect();
                let uids = gone.iter().flat_map(|u| g.remove(u)).collect();
                drop(g);
                look(uids);
            }
            Ok(watcher::Event::Apply(o)) => look(set(&graph, &r, &o)),
            Ok(watcher::Event::Delete(o)) => {
                let uids = graph.lock().remove(&o.uid().unwrap_or_default());
                look(uids);
            }
            Err(e) => {
                tracing::warn!(resource = %r.resource.plural, error = %e, "metadata watch failed, trying again")
            }
        }
    }
}

fn set(graph: &Mutex<Graph>, r: &Arc<Deletable>, o: &Node) -> Vec<String> {
    let mut g = graph.lock();
    let mut uids = g.set(r, o.meta());
    // An owner in foreground deletion waits for this one.
    uids.extend(
        o.owner_references()
            .iter()
            .map(|r| r.uid.clone())
            .filter(|u| g.objects.get(u).is_some_and(|o| o.deleting)),
    );
    uids
}

async fn reconcile(context: Context, graph: Arc<Mutex<Graph>>, uid: String) -> Result<Reconcile, Error> {
    let (decision, object) = {
        let g = graph.lock();
        (g.decide(&uid), g.objects.get(&uid).cloned())
    };
    let Some(object) = object else { return Ok(Reconcile::Done) };
    match decision {
        Decision::Nothing => {}
        Decision::CheckOwners => {
            for owner in &object.owners {
                if owner_exists(&context, &graph, &object, owner).await? {
                    return Ok(Reconcile::After(SETTLE));
                }
            }
            let policy = if object.finalizers.iter().any(|f| f == ORPHAN) {
                PropagationPolicy::Orphan
            } else {
                PropagationPolicy::Background
            };
            delete(&context, &object, &uid, policy).await?;
            tracing::info!(kind = %object.resource.resource.kind, namespace = %object.namespace, name = %object.name,
                "deleted an object whose owners are gone");
        }
        Decision::DeleteDependents(uids) => {
            for d in uids {
                let dependent = graph.lock().objects.get(&d).cloned();
                if let Some(dependent) = dependent {
                    delete(&context, &dependent, &d, PropagationPolicy::Foreground).await?;
                }
            }
        }
        Decision::Finish => remove_finalizer(&context, &object, FOREGROUND).await?,
        Decision::Orphan(uids) => {
            for d in uids {
                let dependent = graph.lock().objects.get(&d).cloned();
                if let Some(dependent) = dependent {
                    let owners: Vec<_> = dependent.owners.iter().filter(|o| o.uid != uid).collect();
                    let patch = json!({"metadata": {"uid": d, "ownerReferences": owners}});
                    let patched = api(&context, &dependent)
                        .patch(&dependent.name, &PatchParams::default(), &Patch::Merge(patch))
                        .await;
                    client::error::optional(patched)?;
                }
            }
            remove_finalizer(&context, &object, ORPHAN).await?;
        }
    }
    Ok(Reconcile::Done)
}

fn api(context: &Context, o: &Object) -> Api<DynamicObject> {
    if o.resource.namespaced {
        Api::namespaced_with(context.client(), &o.namespace, &o.resource.resource)
    } else {
        Api::all_with(context.client(), &o.resource.resource)
    }
}

/// The server's word, since the graph may be behind.
async fn owner_exists(
    context: &Context,
    graph: &Mutex<Graph>,
    dependent: &Object,
    owner: &OwnerReference,
) -> Result<bool, Error> {
    if graph.lock().objects.contains_key(&owner.uid) {
        return Ok(true);
    }
    let Some(kind) = deletable_resources(context)
        .await?
        .kinds
        .into_iter()
        .find(|d| d.resource.kind == owner.kind && d.resource.api_version == owner.api_version)
    else {
        // A kind that is not served: its objects cannot be judged, so nothing is deleted for them.
        return Ok(true);
    };
    let api: Api<DynamicObject> = if kind.namespaced {
        Api::namespaced_with(context.client(), &dependent.namespace, &kind.resource)
    } else {
        Api::all_with(context.client(), &kind.resource)
    };
    Ok(api.get_opt(&owner.name).await?.is_some_and(|o| o.uid().as_deref() == Some(&owner.uid)))
}

async fn delete(context: &Context, o: &Object, uid: &str, policy: PropagationPolicy) -> Result<(), Error> {
    let params = DeleteParams {
        propagation_policy: Some(policy),
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    match api(context, o).delete(&o.name, &params).await {
        Ok(_) => Ok(()),
        Err(e) if client::error::is_not_found(&e) || client::error::is_conflict(&e) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

async fn remove_finalizer(context: &Context, o: &Object, finalizer: &str) -> Result<(), Error> {
    let left: Vec<_> = o.finalizers.iter().filter(|f| *f != finalizer).collect();
    let patch = json!({"metadata": {"finalizers": left}});
    let patched = api(context, o).patch(&o.name, &PatchParams::default(), &Patch::Merge(patch)).await;
    client::error::optional(patched)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> Arc<Deletable> {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            plural: "pods".to_owned(),
        };
        Arc::new(Deletable { resource, namespaced: true })
    }

    fn meta(uid: &str, owner: Option<&str>, finalizers: &[&str], deleting: bool) -> ObjectMeta {
        serde_json::from_value(json!({
            "uid": uid, "name": uid, "namespace": "n", "finalizers": finalizers,
            "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z"),
            "ownerReferences": owner.map(|o| json!([{"apiVersion": "v1", "kind": "Pod", "name": o, "uid": o,
                "blockOwnerDeletion": true}]))
        }))
        .expect("metadata")
    }

    #[test]
    fn a_dependent_without_owner_is_checked() {
        let (mut g, k) = (Graph::default(), kind());
        g.set(&k, &meta("owner", None, &[], false));
        assert_eq!(g.set(&k, &meta("a", Some("owner"), &[], false)), ["a"]);
        assert_eq!(g.decide("a"), Decision::Nothing);
        assert_eq!(g.remove("owner"), ["a"]);
        assert_eq!(g.decide("a"), Decision::CheckOwners);
    }

    #[test]
    fn foreground_deletion_waits_for_its_dependents() {
        let (mut g, k) = (Graph::default(), kind());
        g.set(&k, &meta("owner", None, &[FOREGROUND], true));
        g.set(&k, &meta("a", Some("owner"), &[], false));
        assert_eq!(g.decide("owner"), Decision::DeleteDependents(vec!["a".to_owned()]));
        assert_eq!(g.remove("a"), ["owner"]);
        assert_eq!(g.decide("owner"), Decision::Finish);
    }

    #[test]
    fn orphaning_frees_the_dependents() {
        let (mut g, k) = (Graph::default(), kind());
        g.set(&k, &meta("owner", None, &[ORPHAN], true));
        g.set(&k, &meta("a", Some("owner"), &[], false));
        assert_eq!(g.decide("owner"), Decision::Orphan(vec!["a".to_owned()]));
    }
}
