//! OpenAPI v3: one document per group-version, made when asked for, kept by clients under its hash.
//! kubectl explain, kubectl's validation and client-side apply read it. Version 2 is in [`v2`].

pub(crate) mod v2;

use std::collections::BTreeSet;

use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value, json};

use crate::body;
use crate::custom::publish;
use crate::discovery;
use crate::error::{ApiError, Result};
use crate::server::ApiServer;

const PREFIX: &str = "#/components/schemas/";

pub(crate) fn respond(server: &ApiServer, path: &str, headers: &HeaderMap) -> Result<Response> {
    if path == "/openapi/v3" || path == "/openapi/v3/" {
        let paths: Map<String, Value> = discovery::group_versions(server)
            .into_iter()
            .map(|(p, _, _)| {
                let mut hashed = apimachinery::schema::definitions_compressed().to_vec();
                hashed.extend_from_slice(p.as_bytes());
                if let Some((g, v)) = p.strip_prefix("apis/").and_then(|p| p.split_once('/')) {
                    for (name, schema) in publish::definitions(server, Some((g, v))) {
                        hashed.extend_from_slice(name.as_bytes());
                        hashed.extend_from_slice(schema.to_string().as_bytes());
                    }
                }
                let hash = discovery::hash(&hashed);
                (p.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{p}?hash={hash}")}))
            })
            .collect();
        return Ok(body::json(200, json!({"paths": paths}).to_string()));
    }
    let Some(gv) = path.strip_prefix("/openapi/v3/") else {
        return Err(ApiError::no_such_path());
    };
    let all = discovery::group_versions(server);
    let (_, group, version) = all.iter().find(|(p, _, _)| p == gv).ok_or_else(ApiError::no_such_path)?;
    if headers
        .get(header::ACCEPT)
        .is_some_and(|a| a.as_bytes().starts_with(b"application/com.github.proto-openapi"))
    {
        return Err(ApiError::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json",
        ));
    }
    let text = document(server, group, version)?.to_string();
    let etag = discovery::etag(text.as_bytes());
    let mut r = body::json_for(headers, 200, text.into());
    let h = r.headers_mut();
    h.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    if let Ok(v) = HeaderValue::from_str(&etag) {
        h.insert(header::ETAG, v);
    }
    Ok(r)
}

/// All definitions, by name.
fn definitions() -> Result<Map<String, Value>> {
    serde_json::from_str(&apimachinery::schema::definitions_json()).map_err(ApiError::internal)
}

fn document(server: &ApiServer, group: &str, version: &str) -> Result<Value> {
    let mut all = definitions()?;
    all.extend(publish::definitions(server, Some((group, version))));
    let (paths, wanted) = paths(server, &all, group, version);
    Ok(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.35.0"},
        "paths": paths,
        "components": {"schemas": closure(all, wanted)},
    }))
}

/// The paths of a group-version, and the schemas they name.
fn paths(
    server: &ApiServer,
    all: &Map<String, Value>,
    group: &str,
    version: &str,
) -> (Map<String, Value>, BTreeSet<String>) {
    let mut paths = Map::new();
    let mut wanted = BTreeSet::new();
    for r in &discovery::resources_of(server, group, version) {
        let (name, kind) = (r["name"].as_str().unwrap_or_default(), r["kind"].as_str().unwrap_or_default());
        let (g, v) = (r["group"].as_str().unwrap_or(group), r["version"].as_str().unwrap_or(version));
        let schema = all.iter().find(|(_, s)| {
            let gvks = s["x-kubernetes-group-version-kind"].as_array();
            gvks.into_iter().flatten().any(|k| k["group"] == g && k["version"] == v && k["kind"] == kind)
        });
        let schema = schema.map(|(n, _)| n.clone());
        wanted.extend(schema.clone());
        let base =
            if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let base = if r["namespaced"] == true { format!("{base}/namespaces/{{namespace}}") } else { base };
        let gvk = json!({"group": g, "version": v, "kind": kind});
        let verbs: Vec<&str> =
            r["verbs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        // kubectl asks here which patches a kind takes.
        let plural = name.split('/').next().unwrap_or_default();
        let custom = server.cache.customs.named(&format!("{group}/{plural}")).is_some();
        let mut add = |path: String, methods: &[(&str, &str)]| {
            paths.insert(path, operations(methods, &verbs, schema.as_deref(), &gvk, custom));
        };
        match name.split_once('/') {
            None => {
                let collection = [("get", "list"), ("post", "create"), ("delete", "deletecollection")];
                add(format!("{base}/{name}"), &collection);
                let one = [("get", "get"), ("put", "update"), ("patch", "patch"), ("delete", "delete")];
                add(format!("{base}/{name}/{{name}}"), &one);
            }
            Some((parent, sub)) => {
                let methods = [("get", "get"), ("post", "create"), ("put", "update"), ("patch", "patch")];
                add(format!("{base}/{parent}/{{name}}/{sub}"), &methods);
            }
        }
    }
    (paths, wanted)
}

/// Method and the verb that allows it → operations.
fn operations(
    methods: &[(&str, &str)],
    verbs: &[&str],
    schema: Option<&str>,
    gvk: &Value,
    custom: bool,
) -> Value {
    let mut out = Map::new();
    let content = || match schema {
        Some(s) => json!({"application/json": {"schema": {"$ref": format!("{PREFIX}{s}")}}}),
        None => json!({"application/json": {}}),
    };
    for (method, verb) in methods.iter().filter(|(_, v)| verbs.contains(v)) {
        let action = match *verb {
            "create" => "post",
            "update" => "put",
            v => v,
        };
        let mut op = json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
            "responses": {"200": {"description": "OK", "content": content()}},
        });
        if matches!(*method, "post" | "put" | "patch" | "delete") {
            let names: &[&str] = if *method == "delete" {
                &["dryRun"]
            } else {
                &["dryRun", "fieldManager", "fieldValidation"]
            };
            let parameters = names.iter().map(
                |n| json!({"name": n, "in": "query", "schema": {"type": "string", "uniqueItems": true}}),
            );
            op["parameters"] = parameters.collect::<Vec<_>>().into();
        }
        if matches!(*method, "post" | "put") {
            op["requestBody"] = json!({"content": content()});
        }
        if *method == "patch" {
            let media = [
                "application/apply-patch+yaml",
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ];
            let taken = media.iter().filter(|m| !(custom && m.contains("strategic")));
            let content: Map<String, Value> = taken.map(|m| ((*m).to_owned(), json!({}))).collect();
            op["requestBody"] = json!({"content": content});
        }
        out.insert((*method).to_owned(), op);
    }
    Value::Object(out)
}

/// The schemas that are reached from those wanted.
fn closure(mut all: Map<String, Value>, wanted: BTreeSet<String>) -> Map<String, Value> {
    let mut out = Map::new();
    let mut queue: Vec<String> = wanted.into_iter().collect();
    while let Some(name) = queue.pop() {
        if let Some(mut schema) = all.shift_remove(&name) {
            rewrite(&mut schema, &mut queue);
            out.insert(name, schema);
        }
    }
    out.sort_keys();
    out
}

/// Finds references; one with words beside it is wrapped, since OpenAPI 3.0 ignores siblings of `$ref`.
fn rewrite(v: &mut Value, found: &mut Vec<String>) {
    match v {
        Value::Object(m) => {
            if let Some(Value::String(r)) = m.get("$ref") {
                found.extend(r.strip_prefix(PREFIX).map(str::to_owned));
                if m.len() > 1
                    && let Some(r) = m.shift_remove("$ref")
                {
                    m.insert("allOf".to_owned(), json!([{"$ref": r}]));
                }
                return;
            }
            m.values_mut().for_each(|v| rewrite(v, found));
        }
        Value::Array(l) => l.iter_mut().for_each(|v| rewrite(v, found)),
        _ => {}
    }
}
