//! The cluster's objects for SQL, listed in process as the user who asks: what RBAC hides stays hidden.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::user::UserInfo;
use apiserver::{Access, ApiServer};
use client::Informers;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DynamicObject, ListParams, TypeMeta};
use kube::core::ApiResource;
use kube::{Api, Client, ResourceExt};
use log_index::{LogIndex, Search};
use signal::{Labels, LogRecord, Matcher, Timestamp};
use sql::{HistoryRow, ObjectRow, ObjectSelect, ObjectSource};
use tokio::sync::mpsc::Sender;

use crate::assemble::history::{GONE, name_of};

/// Objects held at once.
const PAGE: u32 = 200;
/// Revisions that wait for a query.
const ROWS: usize = 64;
/// Groups whose objects stand elsewhere too: computed from the TSDB at each look; events under a second name.
const ELSEWHERE: [&str; 2] = ["metrics.k8s.io", "events.k8s.io"];

#[derive(Clone)]
pub(super) struct Objects {
    pub(super) history: Arc<LogIndex>,
    pub(super) server: Arc<ApiServer>,
    pub(super) informers: Informers,
    pub(super) user: UserInfo,
}

/// A kind that can be listed.
struct Kind {
    resource: ApiResource,
    namespaced: bool,
}

/// One list: of a kind, everywhere or in one namespace.
struct List {
    api: Api<DynamicObject>,
    params: ListParams,
    types: TypeMeta,
}

impl ObjectSource for Objects {
    fn objects(&self, select: ObjectSelect) -> BoxStream<'static, Result<ObjectRow, String>> {
        let this = self.clone();
        let lists = async move {
            let client = Client::new(this.server.in_process(this.user.clone()), "default");
            match kinds(&client).await {
                Ok(kinds) => stream::iter(this.lists(&client, &select, kinds)).flat_map(pages).boxed(),
                Err(e) => stream::iter([Err(format!("the API's kinds could not be listed: {e}"))]).boxed(),
            }
        };
        stream::once(lists).flatten().boxed()
    }

    fn history(
        &self,
        select: ObjectSelect,
        start: Timestamp,
        end: Timestamp,
    ) -> BoxStream<'static, Result<HistoryRow, String>> {
        let this = self.clone();
        let (rows, told) = tokio::sync::mpsc::channel(ROWS);
        let read = async move {
            let client = Client::new(this.server.in_process(this.user.clone()), "default");
            let kinds = match kinds(&client).await {
                Ok(kinds) => kinds,
                Err(e) => return rows.send(Err(format!("the API's kinds could not be listed: {e}"))).await,
            };
            let failed = rows.clone();
            let scan =
                tokio::task::spawn_blocking(move || this.revisions(&select, start, end, &kinds, &rows));
            match scan.await.map_err(|e| e.to_string()).flatten() {
                Ok(()) => Ok(()),
                Err(e) => failed.send(Err(e)).await,
            }
        };
        // Nobody may be left to be told.
        telemetry::task::spawn("object-history", async move { drop(read.await) });
        received(told).boxed()
    }
}

fn received(
    mut told: tokio::sync::mpsc::Receiver<Result<HistoryRow, String>>,
) -> impl futures::Stream<Item = Result<HistoryRow, String>> {
    stream::poll_fn(move |cx| told.poll_recv(cx))
}

impl Objects {
    /// Revisions of objects that the caller may list, until nobody takes them.
    fn revisions(
        &self,
        select: &ObjectSelect,
        start: Timestamp,
        end: Timestamp,
        kinds: &[Kind],
        rows: &Sender<Result<HistoryRow, String>>,
    ) -> Result<(), String> {
        // The index has these as labels.
        let own: Vec<Matcher> =
            ["kind", "namespace"].into_iter().flat_map(|c| select.on(c)).cloned().collect();
        let search = |gone| {
            let matchers = own.iter().cloned().chain([Matcher::equal(GONE, gone)]);
            Search::new(matchers.collect(), start, end.saturating_add(Duration::from_nanos(1)))
        };
        // An object has its name in it, and an index of its words; a deletion has no object.
        let mut kept = search("");
        kept.needles.extend(select.only_name().filter(|n| plain(n)).map(str::to_owned));
        let mut allowed: HashMap<(String, String), bool> = HashMap::new();
        let mut may = |kind: &str, namespace: &str| {
            let found = allowed.entry((kind.to_owned(), namespace.to_owned()));
            *found.or_insert_with(|| {
                kinds.iter().any(|k| k.resource.kind == kind && self.may_list(k, namespace))
            })
        };
        let mut each = |labels: &Labels, records: Vec<LogRecord>| {
            let get = |name| labels.get(name).unwrap_or_default();
            if !may(get("kind"), get("namespace")) {
                return ControlFlow::Continue(());
            }
            for r in records {
                let name = name_of(labels, &r).to_owned();
                if !select.on("name").all(|m| m.matches(&name)) {
                    continue;
                }
                let words = |name: &str| r.attributes.get_str(name).unwrap_or_default().to_owned();
                let row = HistoryRow {
                    time: r.timestamp,
                    op: words("op"),
                    api_version: words("api_version"),
                    kind: get("kind").to_owned(),
                    namespace: get("namespace").to_owned(),
                    name,
                    uid: words("uid"),
                    revision: words("resource_version").parse().unwrap_or_default(),
                    object: r.body,
                };
                if rows.blocking_send(Ok(row)).is_err() {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        };
        self.history.scan(&kept, &mut each).map_err(|e| e.to_string())?;
        if rows.is_closed() {
            return Ok(());
        }
        self.history.scan(&search("true"), each).map_err(|e| e.to_string())
    }

    fn may_list(&self, kind: &Kind, namespace: &str) -> bool {
        let access = Access {
            verb: "list".to_owned(),
            group: kind.resource.group.clone(),
            resource: kind.resource.plural.clone(),
            namespace: namespace.to_owned(),
            ..Access::default()
        };
        self.server.authorize(&self.user, &access)
    }

    /// What to list: as few lists as the question and the caller's rights allow.
    fn lists(&self, client: &Client, select: &ObjectSelect, kinds: Vec<Kind>) -> Vec<List> {
        let mut out = Vec::new();
        for kind in kinds {
            let r = &kind.resource;
            if !select.kind(&r.kind) || !select.api_version(&r.api_version) {
                continue;
            }
            let mut params = ListParams::default().limit(PAGE);
            if let Some(name) = select.only_name().filter(|n| plain(n)) {
                params = params.fields(&format!("metadata.name={name}"));
            }
            let types = TypeMeta { api_version: r.api_version.clone(), kind: r.kind.clone() };
            let mut add = |api| out.push(List { api, params: params.clone(), types: types.clone() });
            if !kind.namespaced {
                if self.may_list(&kind, "") {
                    add(Api::all_with(client.clone(), r));
                }
            } else if let Some(namespace) = select.only_namespace() {
                if plain(namespace) && self.may_list(&kind, namespace) {
                    add(Api::namespaced_with(client.clone(), namespace, r));
                }
            } else if self.may_list(&kind, "") {
                add(Api::all_with(client.clone(), r));
            } else {
                for namespace in self.informers.of::<Namespace>().list() {
                    let name = namespace.name_any();
                    if select.namespace(&name) && self.may_list(&kind, &name) {
                        add(Api::namespaced_with(client.clone(), &name, r));
                    }
                }
            }
        }
        out
    }
}

/// Can be a part of a path or a selector as it is. No object is called otherwise.
fn plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c))
}

/// Every kind that can be listed, once: in its group's preferred version.
async fn kinds(client: &Client) -> kube::Result<Vec<Kind>> {
    let mut lists = vec![client.list_core_api_resources("v1").await?];
    for group in
        client.list_api_groups().await?.groups.into_iter().filter(|g| !ELSEWHERE.contains(&g.name.as_str()))
    {
        let version = group.preferred_version.or_else(|| group.versions.into_iter().next());
        if let Some(v) = version {
            lists.push(client.list_api_group_resources(&v.group_version).await?);
        }
    }
    let mut out = Vec::new();
    for list in lists {
        let (group, version) = list.group_version.rsplit_once('/').unwrap_or(("", &list.group_version));
        let listed = |r: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource| {
            !r.name.contains('/') && r.verbs.iter().any(|v| v == "list")
        };
        out.extend(list.resources.iter().filter(listed).map(|r| Kind {
            resource: ApiResource {
                group: group.to_owned(),
                version: version.to_owned(),
                api_version: list.group_version.clone(),
                kind: r.kind.clone(),
                plural: r.name.clone(),
            },
            namespaced: r.namespaced,
        }));
    }
    Ok(out)
}

/// A list's objects, page by page.
fn pages(list: List) -> BoxStream<'static, Result<ObjectRow, String>> {
    stream::unfold(Some(list), |list| async move {
        let mut list = list?;
        match list.api.list(&list.params).await {
            Err(e) => Some((vec![Err(format!("listing {}: {e}", list.types.kind))], None)),
            Ok(page) => {
                let rows = page.items.into_iter().map(|o| row(o, &list.types)).collect();
                list.params.continue_token = page.metadata.continue_.filter(|t| !t.is_empty());
                let more = list.params.continue_token.is_some();
                Some((rows, more.then_some(list)))
            }
        }
    })
    .flat_map(stream::iter)
    .boxed()
}

fn row(mut o: DynamicObject, types: &TypeMeta) -> Result<ObjectRow, String> {
    // Items of a list do not repeat what the list is of.
    o.types = Some(types.clone());
    // Bookkeeping of server-side apply, longer than all the rest; kubectl hides it too.
    o.metadata.managed_fields = None;
    let created = o.metadata.creation_timestamp.as_ref().map(|t| t.0.as_nanosecond());
    Ok(ObjectRow {
        api_version: types.api_version.clone(),
        kind: types.kind.clone(),
        namespace: o.namespace().unwrap_or_default(),
        name: o.name_any(),
        uid: o.uid().unwrap_or_default(),
        resource_version: o.resource_version().unwrap_or_default(),
        created: created.and_then(|n| i64::try_from(n).ok()).map(Timestamp::from_nanos),
        labels: o.labels().iter().collect(),
        object: serde_json::to_string(&o).map_err(|e| format!("{} {}: {e}", types.kind, o.name_any()))?,
    })
}
