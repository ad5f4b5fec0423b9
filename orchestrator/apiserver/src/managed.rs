//! Who owns which field of an object: `metadata.managedFields`, and server-side apply by it (KEP-555).
//!
//! A manager's fields are those of the version it wrote in; objects are turned into each manager's version to see what
//! became of them (structured-merge-diff: merge/update.go).

use apimachinery::fieldset::{self, Set};
use apimachinery::schema::{Schemas, Type, schemas};
use apimachinery::trace::TRACEPARENT_ANNOTATION;
use serde_json::{Map, Value, json};
use signal::Timestamp;

use crate::custom::conversion;
use crate::error::{ApiError, Result};
use crate::kinds::Served;
use crate::object;
use crate::options::WriteOptions;
use crate::server::ApiServer;

/// Older managers beyond this many are folded into one, as upstream does.
const MAX_UPDATE_MANAGERS: usize = 10;

/// One manager's fields.
struct Entry {
    manager: String,
    operation: String,
    subresource: String,
    version: String,
    time: String,
    fields: Set,
}

fn entries(o: &Value) -> Vec<Entry> {
    let all = object::list(o, "metadata.managedFields").iter();
    all.map(|e| {
        let text = |k: &str| e[k].as_str().unwrap_or_default().to_owned();
        Entry {
            manager: text("manager"),
            operation: text("operation"),
            subresource: text("subresource"),
            version: text("apiVersion"),
            time: text("time"),
            fields: e["fieldsV1"].as_object().cloned().unwrap_or_default(),
        }
    })
    .collect()
}

fn write(o: &mut Value, mut all: Vec<Entry>) {
    all.retain(|e| !e.fields.is_empty());
    // Applies first, then by time, as upstream sorts.
    all.sort_by(|a, b| {
        (a.operation != "Apply").cmp(&(b.operation != "Apply")).then_with(|| a.time.cmp(&b.time))
    });
    while all.iter().filter(|e| e.operation == "Update").count() > MAX_UPDATE_MANAGERS {
        let mut updates = all.iter().enumerate().filter(|(_, e)| e.operation == "Update").map(|(i, _)| i);
        let (Some(first), Some(second)) = (updates.next(), updates.next()) else { break };
        let oldest = all.remove(first);
        let next = &mut all[second - 1];
        next.fields = fieldset::union(&next.fields, &oldest.fields);
        next.manager = "ancient-changes".to_owned();
    }
    let list: Vec<Value> = all
        .into_iter()
        .map(|e| {
            let mut v = json!({"manager": e.manager, "operation": e.operation, "apiVersion": e.version, "time": e.time,
                "fieldsType": "FieldsV1", "fieldsV1": e.fields});
            if !e.subresource.is_empty() {
                v["subresource"] = e.subresource.into();
            }
            v
        })
        .collect();
    let meta = object::metadata(o);
    if list.is_empty() {
        meta.shift_remove("managedFields");
    } else {
        meta.insert("managedFields".to_owned(), list.into());
    }
}

/// The schema of a kind as it is served.
pub(crate) fn type_of(served: &Served) -> Option<(&Schemas, Type)> {
    if let Some(held) = &served.custom {
        return Some((&held.types.0, held.types.1.clone()));
    }
    let s = schemas();
    s.kind(served.group, served.version, served.kind.kind).map(|t| (s, t))
}

/// What of metadata nobody manages: the server's own.
const UNMANAGED: [&str; 10] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "managedFields",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// An object without the fields nobody manages.
fn strip(o: &Value) -> Value {
    let mut out = Map::new();
    for (k, v) in o.as_object().into_iter().flatten() {
        let kept = match (k.as_str(), v) {
            ("apiVersion" | "kind", _) => continue,
            ("metadata", Value::Object(m)) => {
                let managed = m.iter().filter(|(k, _)| !UNMANAGED.contains(&k.as_str()));
                let mut m: Map<String, Value> = managed.map(|(k, v)| (k.clone(), v.clone())).collect();
                if let Some(Value::Object(a)) = m.get_mut("annotations") {
                    a.shift_remove(TRACEPARENT_ANNOTATION);
                }
                if m.is_empty() {
                    continue;
                }
                Value::Object(m)
            }
            _ => v.clone(),
        };
        out.insert(k.clone(), kept);
    }
    Value::Object(out)
}

/// Kinds that change often and that nobody applies: their managers are not worth their bytes.
fn is_tracked(served: &Served) -> bool {
    !matches!(served.kind.builtin(), "events" | "leases" | "endpointslices" | "endpoints")
}

/// Who writes, and how.
#[derive(Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) manager: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) now: Timestamp,
}

/// The versions that managers speak, the request's first.
fn versions(own: String, all: &[Entry]) -> Vec<String> {
    let mut out = vec![own];
    for e in all {
        if !out.contains(&e.version) {
            out.push(e.version.clone());
        }
    }
    out
}

/// Notes what an update changed, in the words of each manager's version.
pub(crate) async fn on_update(
    server: &ApiServer,
    served: &Served,
    old: Option<&Value>,
    new: &mut Value,
    writer: Writer<'_>,
) -> Result<()> {
    if type_of(served).is_none() || !is_tracked(served) {
        object::metadata(new).shift_remove("managedFields");
        return Ok(());
    }
    // An empty list is how a client clears the managers; everything else it says about them is not asked.
    let cleared = old.is_some()
        && object::get(new, "metadata.managedFields")
            .and_then(Value::as_array)
            .is_some_and(|l| l.is_empty() || l.iter().all(|e| e.as_object().is_some_and(Map::is_empty)));
    let mut all = if cleared { Vec::new() } else { old.map(entries).unwrap_or_default() };
    if old.is_some_and(|old| strip(old) == strip(new)) {
        write(new, all);
        return Ok(());
    }
    let own_version = served.api_version();
    let mut added = None;
    for version in versions(own_version.clone(), &all) {
        let Some(there) = conversion::named(served, &version) else {
            // Nobody can say any more what it means.
            all.retain(|e| e.version != version);
            continue;
        };
        let Some((schemas, ty)) = type_of(&there) else { continue };
        let before = match old {
            Some(old) => strip(&*server.in_shown(&there, old).await?),
            None => json!({}),
        };
        let after = strip(&*server.in_shown(&there, new).await?);
        let changed = fieldset::changed(schemas, &ty, &before, &after);
        let present = if all.is_empty() { Set::new() } else { fieldset::of(schemas, &ty, &after) };
        let mut found = false;
        for e in all.iter_mut().filter(|e| e.version == version) {
            let own = e.manager == writer.manager
                && e.operation == "Update"
                && e.subresource == writer.subresource
                && version == own_version;
            let kept = if own {
                fieldset::union(&e.fields, &changed)
            } else {
                fieldset::difference(&e.fields, &changed)
            };
            e.fields = fieldset::intersection(&kept, &present);
            if own {
                found = true;
                e.time = object::rfc3339(writer.now);
            }
        }
        if version == own_version && !found {
            added = Some(Entry {
                manager: writer.manager.to_owned(),
                operation: "Update".to_owned(),
                subresource: writer.subresource.to_owned(),
                version,
                time: object::rfc3339(writer.now),
                fields: changed,
            });
        }
    }
    all.extend(added);
    write(new, all);
    Ok(())
}

/// An object in a request's version, in another.
async fn turned(server: &ApiServer, from: &Served, to: &Served, o: &Value) -> Result<Value> {
    if from.api_version() == to.api_version() {
        return Ok(o.clone());
    }
    let stored = conversion::as_registered(from, o.clone());
    Ok(server.in_shown(to, &stored).await?.into_owned())
}

/// The fields that others own in a version.
fn owned<'e>(all: impl Iterator<Item = &'e Entry>, version: &str) -> Set {
    all.filter(|e| e.version == version).fold(Set::new(), |s, e| fieldset::union(&s, &e.fields))
}

/// An apply, worked out in the version of its request.
struct Apply<'a> {
    server: &'a ApiServer,
    served: &'a Served,
    version: String,
    /// What is applied.
    wanted: Set,
    own: Option<Entry>,
    others: Vec<Entry>,
}

impl Apply<'_> {
    /// Who owns what the apply changes: described, with the paths. With `force` it is theirs no longer.
    async fn contest(
        &mut self,
        live: &Value,
        merged: &Value,
        force: bool,
    ) -> Result<Vec<(String, Vec<String>)>> {
        let mut conflicts = Vec::new();
        for version in versions(self.version.clone(), &self.others) {
            let Some(there) = conversion::named(self.served, &version) else {
                self.others.retain(|e| e.version != version);
                continue;
            };
            if !self.others.iter().any(|e| e.version == version) {
                continue;
            }
            let Some((schemas, ty)) = type_of(&there) else { continue };
            let before = strip(&turned(self.server, self.served, &there, live).await?);
            let after = strip(&turned(self.server, self.served, &there, merged).await?);
            for e in self.others.iter_mut().filter(|e| e.version == version) {
                let shared = if version == self.version {
                    fieldset::intersection(&e.fields, &self.wanted)
                } else {
                    e.fields.clone()
                };
                let contested = fieldset::differing(schemas, &ty, &shared, &before, &after);
                if contested.is_empty() {
                    continue;
                }
                if force {
                    e.fields = fieldset::difference(&e.fields, &contested);
                } else {
                    conflicts.push((describe(e), fieldset::paths(&contested)));
                }
            }
        }
        Ok(conflicts)
    }

    /// What this manager applied before and no longer names goes, unless someone else has it too.
    async fn prune(&self, schemas: &Schemas, ty: &Type, merged: Value) -> Result<Value> {
        let Some(own) = &self.own else { return Ok(merged) };
        let Some(last) = conversion::named(self.served, &own.version) else { return Ok(merged) };
        let others = owned(self.others.iter(), &self.version);
        let mut pruned = merged.clone();
        let gone = if own.version == self.version {
            own.fields.clone()
        } else {
            let Some((schemas_then, ty_then)) = type_of(&last) else { return Ok(merged) };
            let mut then = turned(self.server, self.served, &last, &merged).await?;
            let gone = fieldset::difference(&own.fields, &owned(self.others.iter(), &own.version));
            fieldset::remove(schemas_then, &ty_then, &mut then, &gone);
            let left = turned(self.server, &last, self.served, &then).await?;
            fieldset::difference(
                &fieldset::of(schemas, ty, &strip(&merged)),
                &fieldset::of(schemas, ty, &strip(&left)),
            )
        };
        let gone = fieldset::difference(&fieldset::difference(&gone, &self.wanted), &others);
        fieldset::remove(schemas, ty, &mut pruned, &gone);
        // Those who speak other versions keep what is theirs.
        for version in versions(self.version.clone(), &self.others).into_iter().skip(1) {
            let Some(there) = conversion::named(self.served, &version) else { continue };
            let Some((schemas, ty)) = type_of(&there) else { continue };
            let mut whole = turned(self.server, self.served, &there, &merged).await?;
            let left = turned(self.server, self.served, &there, &pruned).await?;
            let gone = fieldset::difference(
                &fieldset::of(schemas, &ty, &strip(&whole)),
                &fieldset::of(schemas, &ty, &strip(&left)),
            );
            let theirs = owned(self.others.iter(), &version);
            if !fieldset::intersection(&gone, &theirs).is_empty() {
                fieldset::remove(schemas, &ty, &mut whole, &fieldset::difference(&gone, &theirs));
                pruned = turned(self.server, &there, self.served, &whole).await?;
            }
        }
        Ok(pruned)
    }

    /// What went is nobody's any more.
    async fn forget(&mut self, merged: &Value) -> Result<()> {
        for version in versions(self.version.clone(), &self.others) {
            let Some(there) = conversion::named(self.served, &version) else { continue };
            if !self.others.iter().any(|e| e.version == version) {
                continue;
            }
            let Some((schemas, ty)) = type_of(&there) else { continue };
            let o = turned(self.server, self.served, &there, merged).await?;
            let present = fieldset::of(schemas, &ty, &strip(&o));
            for e in self.others.iter_mut().filter(|e| e.version == version) {
                e.fields = fieldset::intersection(&e.fields, &present);
            }
        }
        Ok(())
    }
}

/// The object after `applied` was applied to `old`, with its managers. Both are as the registry has them.
pub(crate) async fn apply(
    server: &ApiServer,
    served: &Served,
    old: &Value,
    applied: &Value,
    options: &WriteOptions,
    subresource: &str,
    now: Timestamp,
) -> Result<Value> {
    let (schemas, ty) = type_of(served).ok_or_else(|| ApiError::internal("a kind has no schema"))?;
    let live = server.in_shown(served, old).await?;
    let shown = server.in_shown(served, applied).await?;
    let is_own = |e: &Entry| {
        e.manager == options.field_manager && e.operation == "Apply" && e.subresource == subresource
    };
    let (own, others): (Vec<Entry>, Vec<Entry>) = entries(old).into_iter().partition(is_own);
    let mut a = Apply {
        server,
        served,
        version: served.api_version(),
        wanted: fieldset::of(schemas, &ty, &strip(&shown)),
        own: own.into_iter().next(),
        others,
    };
    let merged = fieldset::merge(schemas, &ty, &live, &shown);
    let conflicts = a.contest(&live, &merged, options.force).await?;
    if !conflicts.is_empty() {
        return Err(conflict(&conflicts));
    }
    let merged = a.prune(schemas, &ty, merged).await?;
    a.forget(&merged).await?;
    let same = a.own.as_ref().filter(|e| e.fields == a.wanted && e.version == a.version);
    let time = same.map_or_else(|| object::rfc3339(now), |e| e.time.clone());
    let mut all = a.others;
    all.push(Entry {
        manager: options.field_manager.clone(),
        operation: "Apply".to_owned(),
        subresource: subresource.to_owned(),
        version: a.version,
        time,
        fields: a.wanted,
    });
    let mut merged = conversion::as_registered(served, merged);
    write(&mut merged, all);
    if object::text(applied, "metadata.resourceVersion").is_none() {
        object::copy(object::metadata(&mut merged), &old["metadata"], "resourceVersion");
    }
    Ok(merged)
}

/// The managers of an object that an apply creates.
pub(crate) async fn on_create_by_apply(
    server: &ApiServer,
    served: &Served,
    new: &mut Value,
    options: &WriteOptions,
    now: Timestamp,
) -> Result<()> {
    let Some((schemas, ty)) = type_of(served) else { return Ok(()) };
    let fields = fieldset::of(schemas, &ty, &strip(&*server.in_shown(served, new).await?));
    let entry = Entry {
        manager: options.field_manager.clone(),
        operation: "Apply".to_owned(),
        subresource: String::new(),
        version: served.api_version(),
        time: object::rfc3339(now),
        fields,
    };
    write(new, vec![entry]);
    Ok(())
}

fn describe(e: &Entry) -> String {
    let mut who = format!("\"{}\"", e.manager);
    if !e.subresource.is_empty() {
        who.push_str(&format!(" with subresource \"{}\"", e.subresource));
    }
    if e.operation == "Update" {
        who.push_str(&format!(" using {}", e.version));
    }
    who
}

fn conflict(conflicts: &[(String, Vec<String>)]) -> ApiError {
    let count: usize = conflicts.iter().map(|(_, f)| f.len()).sum();
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for (who, fields) in conflicts {
        for f in fields {
            causes.push(json!({"reason": "FieldManagerConflict", "message": format!("conflict with {who}"), "field": f}));
        }
        match fields.as_slice() {
            [one] => lines.push(format!("conflict with {who}: {one}")),
            many => {
                lines.push(format!("conflicts with {who}:"));
                lines.extend(many.iter().map(|f| format!("- {f}")));
            }
        }
    }
    let head = if count == 1 {
        "Apply failed with 1 conflict: ".to_owned()
    } else {
        format!("Apply failed with {count} conflicts: ")
    };
    let mut e = ApiError::new(409, "Conflict", format!("{head}{}", lines.join("\n")));
    e.details = Some(json!({"causes": causes}));
    e
}
