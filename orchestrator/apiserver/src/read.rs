//! The road of a read: get and list from the cache, in the shape the client wants.

use std::sync::Arc;

use apimachinery::selector::{FieldSelector, Selector};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value, json};
use store::Range;

use crate::cache::{self, Object};
use crate::error::{ApiError, Result};
use crate::history::{PastEvent, PastEvents};
use crate::kinds::Served;
use crate::listing::{Listed, Listing};
use crate::metrics::reads;
use crate::options::ListOptions;
use crate::request::Shape;
use crate::server::ApiServer;
use crate::table::{self, Include};
use crate::{expire, object, pick};

/// What a list or watch selects.
#[derive(Clone)]
pub(crate) struct Filter {
    served: Served,
    namespace: Option<String>,
    labels: Selector,
    fields: FieldSelector,
}

impl Filter {
    pub(crate) fn new(served: Served, namespace: &str, options: &ListOptions) -> Result<Filter> {
        let mut fields = options.fields.clone();
        for (f, _, _) in &mut fields.terms {
            // events.k8s.io names the same field differently.
            if served.kind.builtin() == "events"
                && let Some(rest) = f.strip_prefix("regarding.")
            {
                *f = format!("involvedObject.{rest}");
            }
            let known = f == "metadata.name"
                || f == "metadata.namespace" && served.kind.namespaced
                || served.kind.fields.contains(&f.as_str())
                    && served.custom.as_ref().is_none_or(|held| held.selectable.contains(f));
            if !known {
                return Err(ApiError::bad_request(format!("field label not supported: {f}")));
            }
        }
        let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        Ok(Filter { served, namespace, labels: options.labels.clone(), fields })
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref().or_else(|| self.fields.required("metadata.namespace"))
    }

    pub(crate) fn matches(&self, o: &Object) -> bool {
        if let Some(ns) = self.namespace()
            && o.namespace() != Some(ns)
        {
            return false;
        }
        self.labels.matches_with(|k| o.label(k))
            && self.fields.matches_with(|f| match f {
                "metadata.name" => Some(o.name()),
                "metadata.namespace" => o.namespace(),
                f => {
                    let i = self.served.kind.fields.iter().position(|k| *k == f)?;
                    o.fields.get(i).map(|v| &**v)
                }
            })
    }

    fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
}

/// An object's JSON in the version it is asked for.
pub(crate) fn render(served: &Served, o: &Object) -> Bytes {
    if is_as_stored(served) {
        return o.bytes.clone();
    }
    object::to_bytes(&render_value(served, o.value()))
}

/// An object's metadata alone, which is the same in all versions that we know ourselves.
pub(crate) fn render_metadata(served: &Served, o: &Object) -> Bytes {
    if served.custom.is_none()
        && let Some(metadata) = pick::metadata(&o.bytes)
    {
        let head = r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#;
        return Bytes::from([head, metadata, "}"].concat());
    }
    object::to_bytes(&table::partial(render_value(served, o.value())))
}

/// Whether objects are served in the version they lie in.
pub(crate) fn is_as_stored(served: &Served) -> bool {
    match (served.alias, &served.custom) {
        (None, None) => true,
        (None, Some(held)) => held.custom.is_stored_as(served) && held.custom.webhook.is_none(),
        _ => false,
    }
}

pub(crate) fn render_value(served: &Served, mut v: Value) -> Value {
    if let Some(held) = &served.custom {
        return held.renamed(v);
    }
    if let Some(alias) = served.alias {
        (alias.from_storage)(&mut v);
        v["apiVersion"] = served.api_version().into();
    }
    v
}

impl ApiServer {
    /// One object in a shape. Alias versions go through JSON, the storage version is served as it lies.
    pub(crate) fn shape_one(&self, served: &Served, o: &Object, shape: Shape, include: Include) -> Bytes {
        match shape {
            Shape::Object => render(served, o),
            Shape::Metadata => render_metadata(served, o),
            Shape::Table => {
                object::to_bytes(&self.shape_value(served, render_value(served, o.value()), shape, include))
            }
        }
    }

    /// An object that is already rendered, in a shape.
    pub(crate) fn shape_value(&self, served: &Served, v: Value, shape: Shape, include: Include) -> Value {
        match shape {
            Shape::Object => v,
            Shape::Metadata => table::partial(v),
            Shape::Table => {
                let metadata = json!({"resourceVersion": v["metadata"]["resourceVersion"]});
                let row = table::row(served, v, include, self.now());
                table::table(served, metadata, vec![row], true)
            }
        }
    }

    pub(crate) async fn list(
        &self,
        served: &Served,
        namespace: &str,
        options: &ListOptions,
        shape: Shape,
        include: Include,
    ) -> Result<Listed> {
        let filter = Filter::new(served.clone(), namespace, options)?;
        let mut page = self.page(&filter, options).await?;
        if served.kind.builtin() == "events"
            && page.continue_after.is_none()
            && options.resource_version.is_empty()
        {
            page.objects.extend(self.past_events(&filter).await?);
            page.objects.sort_by(|a, b| a.key.cmp(&b.key));
        }
        page.objects = self.all_served(served, page.objects).await?;
        let mut metadata = json!({"resourceVersion": page.revision.to_string()});
        if let Some(last) = &page.continue_after {
            metadata["continue"] = encode_continue(page.revision, last).into();
            if let Some(n) = page.remaining {
                metadata["remainingItemCount"] = n.into();
            }
        }
        if shape == Shape::Table {
            let now = self.now();
            let rows = page
                .objects
                .iter()
                .map(|o| table::row(served, render_value(served, o.value()), include, now));
            let table = table::table(served, metadata, rows.collect(), true);
            return Ok(Listed::Whole(object::to_bytes(&table)));
        }
        Ok(Listed::Objects(Listing { served: served.clone(), shape, metadata, objects: page.objects }))
    }

    /// Events that the store has forgotten, from whoever keeps them.
    pub(crate) async fn past_events(&self, filter: &Filter) -> Result<Vec<Arc<Object>>> {
        let Some(archive) = &self.config.past_events else { return Ok(Vec::new()) };
        let about = ["involvedObject.uid", "involvedObject.name", "metadata.name"];
        let wanted = PastEvents {
            namespace: filter.namespace().map(str::to_owned),
            holds: about.iter().find_map(|f| filter.fields.required(f)).map(str::to_owned),
        };
        let found = archive(wanted).await.map_err(ApiError::internal)?;
        let kind = filter.served.kind;
        let past = found.iter().filter_map(|PastEvent { object: e, deleted }| {
            let key = cache::object_key(kind, object::text(e, "metadata.namespace")?, object::name(e));
            let revision = object::text(e, "metadata.resourceVersion")?.parse().ok()?;
            // What went before its time was deleted by somebody, and stays so.
            let end = expire::last_seen(e)?.saturating_add(expire::KEPT);
            let by_age = deleted.is_some_and(|t| t >= end);
            let gone = by_age && self.cache.get(filter.served.index, &key).is_none();
            gone.then(|| Arc::new(Object::from_value(kind, &key, revision, e)))
        });
        Ok(past.filter(|o| filter.matches(o)).collect())
    }

    /// The objects of one page, of one revision.
    async fn page(&self, filter: &Filter, options: &ListOptions) -> Result<Page> {
        let token = options.continue_token.as_deref().map(decode_continue).transpose()?;
        let asked = options.revision()?;
        let began = self.config.clock.monotonic();
        let consistent = token.is_none() && asked == 0 && options.resource_version.is_empty();
        let there = match &token {
            Some((revision, _)) => self.cache.reach(*revision).await,
            None if consistent => self.cache.fresh().await,
            None => self.cache.reach(asked).await,
        };
        let took = self.config.clock.monotonic().saturating_duration_since(began);
        reads::waited(filter.served.kind, consistent, there.is_ok(), took);
        there?;
        let index = filter.served.index;
        let snapshot = self.cache.list(index, filter.namespace());
        let pinned = match &token {
            Some((revision, _)) => Some(*revision),
            None if options.exact && asked > 0 => Some(asked),
            None => None,
        };
        let after = token.map(|(_, key)| key);
        match pinned {
            // The snapshot has moved on: the last changes are undone, or the store still knows what was then.
            Some(revision) if snapshot.changed > revision => {
                if let Some(objects) = self.cache.list_at(index, filter.namespace(), revision) {
                    return Ok(Page::cut(objects, after, filter, options.limit, revision));
                }
                let mut prefix = cache::store_prefix(filter.served.kind);
                if let Some(ns) = filter.namespace() {
                    prefix.push_str(&format!("{ns}/"));
                }
                let range = Range { revision: Some(revision), ..Range::prefix(prefix) };
                let then = self.store.range(range).await?;
                let objects =
                    then.items.iter().filter_map(|kv| self.cache.read_stored(kv)).map(Arc::new).collect();
                Ok(Page::cut(objects, after, filter, options.limit, revision))
            }
            pinned => {
                let (revision, fetched) = (pinned.unwrap_or(snapshot.revision), snapshot.objects.len());
                let page = Page::cut(snapshot.objects, after, filter, options.limit, revision);
                reads::listed(filter.served.kind, filter.namespace().is_some(), fetched, page.objects.len());
                Ok(page)
            }
        }
    }

    /// Objects that match, for internal readers and DeleteCollection.
    pub(crate) async fn select(
        &self,
        served: &Served,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Vec<Arc<Object>>> {
        let filter = Filter::new(served.clone(), namespace, options)?;
        let unlimited = ListOptions { limit: 0, continue_token: None, ..options.clone() };
        Ok(self.page(&filter, &unlimited).await?.objects)
    }
}

struct Page {
    objects: Vec<Arc<Object>>,
    revision: u64,
    continue_after: Option<String>,
    remaining: Option<usize>,
}

impl Page {
    fn cut(
        all: Vec<Arc<Object>>,
        after: Option<String>,
        filter: &Filter,
        limit: usize,
        revision: u64,
    ) -> Page {
        let behind = |o: &Arc<Object>| after.as_ref().is_none_or(|a| *o.key > **a);
        let mut objects = all;
        // All are of the namespace already.
        if after.is_some() || !filter.is_everything() {
            objects.retain(|o| behind(o) && filter.matches(o));
        }
        let (mut continue_after, mut remaining) = (None, None);
        if limit > 0 && objects.len() > limit {
            remaining = filter.is_everything().then_some(objects.len() - limit);
            objects.truncate(limit);
            continue_after = objects.last().map(|o| o.key.to_string());
        }
        Page { objects, revision, continue_after, remaining }
    }
}

fn encode_continue(revision: u64, last: &str) -> String {
    URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": revision, "start": last}).to_string())
}

fn decode_continue(token: &str) -> Result<(u64, String)> {
    let bad = || ApiError::bad_request("continue key is not valid: illegal base64 data");
    let data = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| bad())?;
    let v: Value = serde_json::from_slice(&data).map_err(|_| bad())?;
    match (v["rv"].as_u64(), v["start"].as_str()) {
        (Some(rv), Some(start)) => Ok((rv, start.to_owned())),
        _ => Err(bad()),
    }
}
