//! Aggregated APIs: group-versions that other servers serve under our roof, each by an APIService
//! (kubernetes: staging/src/k8s.io/kube-aggregator/pkg/apiserver).
//!
//! [`register`] keeps a row for all that is served here and tells other servers whom to trust; [`probe`] asks the
//! others whether they are there and what they have; [`proxy`] hands requests on to them.

pub(crate) mod document;
mod metrics;
pub(crate) mod probe;
pub(crate) mod proxy;
pub(crate) mod register;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::Value;

use crate::cache::{Cache, Object};
use crate::kinds::apiregistration::{self, GROUP};
use crate::kinds::{self, Served};
use crate::object;
use crate::pki::Identity;
use crate::request::RequestInfo;
use crate::webhook::client::Peer;

use document::Document;

/// A group-version that another server serves.
pub(crate) struct Remote {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) group_priority: i64,
    pub(crate) version_priority: i64,
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) port: u16,
    /// Why it is trusted and what is shown to it; or what is wrong with its certificates.
    peer: Result<Peer, String>,
    pub(crate) available: bool,
}

/// What a server said of a group-version when it was asked last.
#[derive(Clone, Default)]
pub(crate) struct Known {
    /// Its APIResourceList.
    pub(crate) resources: Option<Arc<Value>>,
    /// What its OpenAPI v3 index says of the document: a query such as `hash=…`. `None` if it has none.
    pub(crate) openapi: Option<String>,
    /// What it adds to OpenAPI v2.
    pub(crate) document: Option<Arc<Document>>,
    /// Whether it answered.
    pub(crate) fresh: bool,
}

/// All of them, as the watch cache has them.
pub(crate) struct Aggregator {
    cache: Arc<Cache>,
    identity: Identity,
    index: usize,
    /// Made anew when an APIService changes.
    remotes: Mutex<(u64, Arc<Vec<Arc<Remote>>>)>,
    /// By name of the APIService.
    known: Mutex<HashMap<String, Known>>,
    /// How often what they add to OpenAPI v2 has changed.
    documents: AtomicU64,
}

fn services() -> Served {
    kinds::by_resource(GROUP, "apiservices").expect("apiservices are a kind")
}

impl Aggregator {
    /// `identity` is shown to the other servers.
    pub(crate) fn new(cache: Arc<Cache>, identity: Identity) -> Self {
        let index = services().index;
        Aggregator {
            cache,
            identity,
            index,
            remotes: Mutex::default(),
            known: Mutex::default(),
            documents: AtomicU64::new(0),
        }
    }

    pub(crate) fn remotes(&self) -> Arc<Vec<Arc<Remote>>> {
        // The revision is read first: the list may be newer than it says, never older.
        let changed = self.cache.changed(self.index);
        let mut kept = self.remotes.lock();
        if kept.0 != changed {
            let all = self.cache.list(self.index, None).objects;
            let mut remotes: Vec<Arc<Remote>> = all.iter().filter_map(|o| self.remote(o)).collect();
            remotes.sort_by(|a, b| {
                (b.group_priority, &a.group, b.version_priority, &a.version).cmp(&(
                    a.group_priority,
                    &b.group,
                    a.version_priority,
                    &b.version,
                ))
            });
            *kept = (changed, Arc::new(remotes));
        }
        kept.1.clone()
    }

    fn remote(&self, o: &Object) -> Option<Arc<Remote>> {
        let o = o.value();
        let spec = &o["spec"];
        let service = object::get(spec, "service")?;
        let text = |o: &Value, k: &str| object::text(o, k).unwrap_or_default().to_owned();
        let group = text(spec, "group");
        // What says who serves what is ours, and so is the core.
        if group.is_empty() || group == GROUP {
            return None;
        }
        let trusted = serde_json::json!({"url": "https://unused", "caBundle": spec["caBundle"]});
        let peer = Peer::from_client_config(&trusted).map(|p| Peer {
            identity: Some(self.identity.clone()),
            insecure: object::flag(spec, "insecureSkipTLSVerify"),
            ..p
        });
        Some(Arc::new(Remote {
            name: object::name(&o).to_owned(),
            group,
            version: text(spec, "version"),
            group_priority: object::int(spec, "groupPriorityMinimum").unwrap_or(0),
            version_priority: object::int(spec, "versionPriority").unwrap_or(0),
            namespace: text(service, "namespace"),
            service: text(service, "name"),
            port: object::int(service, "port").and_then(|p| u16::try_from(p).ok()).unwrap_or(443),
            peer,
            available: apiregistration::available(&o).is_some_and(|c| c["status"] == "True"),
        }))
    }

    pub(crate) fn find(&self, group: &str, version: &str) -> Option<Arc<Remote>> {
        let remotes = self.remotes();
        remotes.iter().find(|r| r.group == group && r.version == version).cloned()
    }

    /// Who answers a request, if it is not us.
    pub(crate) fn answers(&self, info: &RequestInfo) -> Option<Arc<Remote>> {
        if self.remotes().is_empty() {
            return None;
        }
        if info.is_resource {
            return self.find(&info.group, &info.version);
        }
        let parts: Vec<&str> = info.path.split('/').filter(|p| !p.is_empty()).collect();
        match parts.as_slice() {
            ["apis", group, version] => self.find(group, version),
            ["openapi", "v3", "apis", group, version] => self.find(group, version),
            _ => None,
        }
    }

    pub(crate) fn known(&self, name: &str) -> Known {
        self.known.lock().get(name).cloned().unwrap_or_default()
    }

    /// Keeps what was heard last of a server that says no more.
    fn learn(&self, name: &str, heard: Option<Known>) {
        let mut all = self.known.lock();
        let before = all.get(name).and_then(|k| k.document.as_ref());
        let same = match (before, heard.as_ref().and_then(|h| h.document.as_ref())) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            // What was heard last is kept.
            (Some(_), None) => heard.is_none(),
            (None, Some(_)) => false,
        };
        if !same {
            self.documents.fetch_add(1, Ordering::Relaxed);
        }
        match heard {
            Some(known) => drop(all.insert(name.to_owned(), known)),
            None => all.entry(name.to_owned()).or_default().fresh = false,
        }
    }

    fn forget(&self, keep: impl Fn(&str) -> bool) {
        self.known.lock().retain(|name, known| {
            let kept = keep(name);
            if !kept {
                metrics::forget(name);
            }
            if !kept && known.document.is_some() {
                self.documents.fetch_add(1, Ordering::Relaxed);
            }
            kept
        });
    }

    /// What the others add to OpenAPI v2, by name of the APIService, and how often that has changed.
    pub(crate) fn documents(&self) -> (u64, Vec<Arc<Document>>) {
        let all = self.known.lock();
        let mut named: Vec<(&String, &Arc<Document>)> =
            all.iter().filter_map(|(name, k)| Some((name, k.document.as_ref()?))).collect();
        named.sort_by_key(|(name, _)| *name);
        (self.documents.load(Ordering::Relaxed), named.into_iter().map(|(_, d)| d.clone()).collect())
    }
}

/// Upstream's order of groups and of versions in them
/// (kubernetes: pkg/controlplane/apiserver/aggregator.go apiVersionPriorities).
pub(crate) fn priority(group: &str, version: &str) -> (i64, i64) {
    let group = match group {
        GROUP => 20_001,
        "" => return (18_000, 1),
        "apps" => 17_800,
        "events.k8s.io" => 17_750,
        "authentication.k8s.io" => 17_700,
        "authorization.k8s.io" => 17_600,
        "autoscaling" => return (17_500, if version == "v2" { 30 } else { 15 }),
        "batch" => 17_400,
        "certificates.k8s.io" => 17_300,
        "networking.k8s.io" => 17_200,
        "policy" => 17_100,
        "rbac.authorization.k8s.io" => 17_000,
        "storage.k8s.io" => 16_800,
        "apiextensions.k8s.io" => 16_700,
        "admissionregistration.k8s.io" if version == "v1" => 16_700,
        "admissionregistration.k8s.io" => return (16_700, 12),
        "scheduling.k8s.io" => 16_600,
        "coordination.k8s.io" => 16_500,
        "node.k8s.io" => 16_300,
        "discovery.k8s.io" => 16_200,
        "flowcontrol.apiserver.k8s.io" => return (16_100, 21),
        "resource.k8s.io" => 15_900,
        crate::kinds::rego::GROUP => 15_000,
        // What definitions make.
        _ => return (1000, 100),
    };
    (group, 15)
}
