//! OpenAPI v3: one document per group-version, made when asked for, kept by clients under its hash.
//! kubectl explain, kubectl's validation and client-side apply read it. Version 2 is in [`v2`].

mod paths;
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
        let remotes = server.aggregator.remotes();
        let far = remotes.iter().filter_map(|r| {
            let (p, query) =
                (format!("apis/{}/{}", r.group, r.version), server.aggregator.known(&r.name).openapi?);
            Some((p.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{p}?{query}")})))
        });
        let paths: Map<String, Value> = discovery::group_versions(server)
            .into_iter()
            .map(|(p, _, _)| {
                let mut hashed = apimachinery::schema::definitions_source().concat();
                // A path's text changes with what writes it.
                hashed.extend_from_slice(include_bytes!("openapi/paths.rs"));
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
            .chain(far)
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
pub(crate) fn definitions() -> Result<Map<String, Value>> {
    serde_json::from_str(&apimachinery::schema::definitions_json()).map_err(ApiError::internal)
}

fn document(server: &ApiServer, group: &str, version: &str) -> Result<Value> {
    let mut all = definitions()?;
    all.extend(publish::definitions(server, Some((group, version))));
    let (paths, wanted) = paths::of(server, &all, group, version);
    Ok(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.35.0"},
        "paths": paths,
        "components": {"schemas": closure(all, wanted)},
    }))
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
