//! Who owns which field of an object: `metadata.managedFields`, and server-side apply by it (KEP-555).

use apimachinery::fieldset::{self, Set};
use apimachinery::schema::{Schemas, Type, schemas};
use apimachinery::trace::TRACEPARENT_ANNOTATION;
use serde_json::{Map, Value, json};
use signal::Timestamp;

use crate::error::{ApiError, Result};
use crate::kinds::Served;
use crate::object;
use crate::request::WriteOptions;

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

fn storage_version(served: &Served) -> String {
    let k = served.kind;
    if k.group.is_empty() { k.version.to_owned() } else { format!("{}/{}", k.group, k.version) }
}

/// The schema of a kind as it is served.
pub(crate) fn type_of(served: &Served) -> Option<(&Schemas, Type)> {
    if let Some(held) = &served.custom {
        return Some((&held.types.0, held.types.1.clone()));
    }
    let s = schemas();
    s.kind(served.group, served.version, served.kind.kind).map(|t| (s, t))
}

fn storage_type(served: &Served) -> Option<(&Schemas, Type)> {
    if let Some(held) = &served.custom {
        return Some((&held.types.0, held.types.1.clone()));
    }
    let s = schemas();
    s.kind(served.kind.group, served.kind.version, served.kind.kind).map(|t| (s, t))
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

/// Notes what an update by `manager` changed.
pub(crate) fn on_update(
    served: &Served,
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: &str,
    now: Timestamp,
) {
    let Some((schemas, ty)) = storage_type(served).filter(|_| is_tracked(served)) else {
        object::metadata(new).shift_remove("managedFields");
        return;
    };
    // An empty list is how a client clears the managers; everything else it says about them is not asked.
    let cleared = old.is_some()
        && object::get(new, "metadata.managedFields")
            .and_then(Value::as_array)
            .is_some_and(|l| l.is_empty() || l.iter().all(|e| e.as_object().is_some_and(Map::is_empty)));
    let mut all = if cleared { Vec::new() } else { old.map(entries).unwrap_or_default() };
    let (before, after) = (old.map_or_else(|| json!({}), strip), strip(new));
    if before == after {
        write(new, all);
        return;
    }
    let changed = fieldset::changed(schemas, &ty, &before, &after);
    let present = if all.is_empty() { Set::new() } else { fieldset::of(schemas, &ty, &after) };
    let version = storage_version(served);
    let mut found = false;
    for e in &mut all {
        let own = e.manager == manager && e.operation == "Update" && e.subresource == subresource;
        let kept = if own {
            fieldset::union(&e.fields, &changed)
        } else {
            fieldset::difference(&e.fields, &changed)
        };
        e.fields = fieldset::intersection(&kept, &present);
        if own {
            found = true;
            e.version.clone_from(&version);
            e.time = object::rfc3339(now);
        }
    }
    if !found {
        all.push(Entry {
            manager: manager.to_owned(),
            operation: "Update".to_owned(),
            subresource: subresource.to_owned(),
            version,
            time: object::rfc3339(now),
            fields: changed,
        });
    }
    write(new, all);
}

/// The object after `applied` was applied to `old`, with its managers.
pub(crate) fn apply(
    served: &Served,
    old: &Value,
    applied: &Value,
    options: &WriteOptions,
    subresource: &str,
    now: Timestamp,
) -> Result<Value> {
    let (schemas, ty) = storage_type(served).ok_or_else(|| ApiError::internal("a kind has no schema"))?;
    let wanted = fieldset::of(schemas, &ty, &strip(applied));
    let live = strip(old);
    let mut all = entries(old);
    let is_own = |e: &Entry| {
        e.manager == options.field_manager && e.operation == "Apply" && e.subresource == subresource
    };
    let merged_bare = fieldset::merge(schemas, &ty, &live, &strip(applied));
    let mut conflicts = Vec::new();
    for e in all.iter_mut().filter(|e| !is_own(e)) {
        let shared = fieldset::intersection(&e.fields, &wanted);
        let contested = fieldset::differing(schemas, &ty, &shared, &live, &merged_bare);
        if contested.is_empty() {
            continue;
        }
        if options.force {
            e.fields = fieldset::difference(&e.fields, &contested);
        } else {
            conflicts.push((describe(e), fieldset::paths(&contested)));
        }
    }
    if !conflicts.is_empty() {
        return Err(conflict(&conflicts));
    }
    let mut merged = fieldset::merge(schemas, &ty, old, applied);
    // What this manager applied before and no longer names goes, unless someone else has it too.
    if let Some(own) = all.iter().find(|e| is_own(e)) {
        let others =
            all.iter().filter(|e| !is_own(e)).fold(Set::new(), |s, e| fieldset::union(&s, &e.fields));
        let gone = fieldset::difference(&fieldset::difference(&own.fields, &wanted), &others);
        fieldset::remove(schemas, &ty, &mut merged, &gone);
    }
    // What went with it is nobody's any more.
    let present = fieldset::of(schemas, &ty, &strip(&merged));
    for e in all.iter_mut().filter(|e| !is_own(e)) {
        e.fields = fieldset::intersection(&e.fields, &present);
    }
    let same = all.iter().any(|e| is_own(e) && e.fields == wanted);
    let time = all.iter().find(|e| is_own(e)).map(|e| e.time.clone()).filter(|_| same);
    all.retain(|e| !is_own(e));
    all.push(Entry {
        manager: options.field_manager.clone(),
        operation: "Apply".to_owned(),
        subresource: subresource.to_owned(),
        version: storage_version(served),
        time: time.unwrap_or_else(|| object::rfc3339(now)),
        fields: wanted,
    });
    write(&mut merged, all);
    if object::text(applied, "metadata.resourceVersion").is_none() {
        object::copy(object::metadata(&mut merged), &old["metadata"], "resourceVersion");
    }
    Ok(merged)
}

/// The managers of an object that an apply creates.
pub(crate) fn on_create_by_apply(served: &Served, new: &mut Value, options: &WriteOptions, now: Timestamp) {
    let Some((schemas, ty)) = storage_type(served) else { return };
    let fields = fieldset::of(schemas, &ty, &strip(new));
    let entry = Entry {
        manager: options.field_manager.clone(),
        operation: "Apply".to_owned(),
        subresource: String::new(),
        version: storage_version(served),
        time: object::rfc3339(now),
        fields,
    };
    write(new, vec![entry]);
}

fn describe(e: &Entry) -> String {
    match e.operation.as_str() {
        "Apply" => format!("\"{}\"", e.manager),
        _ if e.subresource.is_empty() => format!("\"{}\" using {}", e.manager, e.version),
        _ => format!("\"{}\" with subresource \"{}\" using {}", e.manager, e.subresource, e.version),
    }
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
