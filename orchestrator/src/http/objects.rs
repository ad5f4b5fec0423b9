//! The cluster's objects for SQL, listed in process as the user who asks: what RBAC hides stays hidden.

use std::sync::Arc;

use apimachinery::user::UserInfo;
use apiserver::{Access, ApiServer};
use client::Informers;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DynamicObject, ListParams, TypeMeta};
use kube::core::ApiResource;
use kube::{Api, Client, ResourceExt};
use signal::Timestamp;
use sql::{ObjectRow, ObjectSelect, ObjectSource};

/// Objects held at once.
const PAGE: u32 = 200;
/// Groups whose objects stand elsewhere too: computed from the TSDB at each look; events under a second name.
const ELSEWHERE: [&str; 2] = ["metrics.k8s.io", "events.k8s.io"];

#[derive(Clone)]
pub(super) struct Objects {
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
}

impl Objects {
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
