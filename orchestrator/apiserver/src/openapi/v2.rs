//! OpenAPI v2: one document of everything, as JSON and as gnostic's protobuf, which client-go asks for.
//! kubectl validates kind List by it, and older clients everything.
//!
//! Made at the first question, kept compressed until a custom kind or another server's comes or goes.
//! Source: github.com/google/gnostic-models: openapiv2/OpenAPIv2.proto (the numbers of its fields).

use std::io::{Read, Write};

use apimachinery::protobuf::wire::{put_bytes, put_varint};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value, json};

use crate::body;
use crate::discovery;
use crate::error::{ApiError, Result};
use crate::server::ApiServer;

const PREFIX: &str = "#/definitions/";
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// How client-go names it.
const PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The document in both forms, gzipped.
#[derive(Default)]
pub(crate) struct Cached {
    json: Form,
    protobuf: Form,
}

/// Which set of kinds, ours and others', it was made for, and what it is.
type Form = tokio::sync::Mutex<Option<([u64; 2], Bytes)>>;

pub(crate) async fn respond(server: &ApiServer, headers: &HeaderMap) -> Result<Response> {
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok()).unwrap_or("*/*");
    let form =
        accept.split(',').map(|m| m.split(';').next().unwrap_or_default().trim()).find_map(|m| match m {
            PROTOBUF | PROTOBUF_OLD => Some((PROTOBUF, &server.openapi_v2.protobuf)),
            JSON | "application/*" | "*/*" => Some((JSON, &server.openapi_v2.json)),
            _ => None,
        });
    let Some((media, cell)) = form else {
        let message = format!("only the following media types are accepted: {JSON}, {PROTOBUF}");
        return Err(ApiError::new(406, "NotAcceptable", message));
    };
    let epoch = [server.cache.customs.epoch(), server.aggregator.documents().0];
    let mut kept = cell.lock().await;
    let small = match &*kept {
        Some((made, bytes)) if *made == epoch => bytes.clone(),
        _ => {
            let document = document(server)?;
            let bytes = if media == JSON { document.to_string().into_bytes() } else { encode(&document) };
            let small = compress(&bytes).map_err(ApiError::internal)?;
            *kept = Some((epoch, small.clone()));
            small
        }
    };
    drop(kept);
    let etag = discovery::etag(&small);
    let takes = headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok());
    let compressed = takes.is_some_and(|v| v.contains("gzip"));
    let bytes = if compressed {
        small
    } else {
        let mut all = Vec::new();
        flate2::read::GzDecoder::new(&small[..]).read_to_end(&mut all).map_err(ApiError::internal)?;
        all.into()
    };
    let mut r = body::json(200, bytes);
    let h = r.headers_mut();
    h.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    h.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if compressed {
        h.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Ok(v) = HeaderValue::from_str(&etag) {
        h.insert(header::ETAG, v);
    }
    Ok(r)
}

fn compress(bytes: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.into())
}

/// The JSON form: all definitions, and the paths of all group-versions.
fn document(server: &ApiServer) -> Result<Value> {
    let mut definitions = super::definitions()?;
    definitions.extend(crate::custom::publish::definitions(server, None));
    let mut paths = Map::new();
    for (_, group, version) in discovery::group_versions(server) {
        let (found, _) = super::paths::of(server, &definitions, &group, &version);
        paths.extend(found);
    }
    definitions.values_mut().for_each(definition);
    let mut paths = paths.into_iter().map(|(p, item)| (p, operations(item))).collect();
    for part in server.aggregator.documents().1 {
        part.add_to(&mut paths, &mut definitions);
    }
    Ok(json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.35.0"},
        "paths": paths,
        "definitions": definitions,
    }))
}

/// References point elsewhere in version 2.
fn definition(v: &mut Value) {
    match v {
        Value::Object(m) => {
            for (k, v) in m {
                match v {
                    Value::String(r) if k == "$ref" => *r = r.replace(super::PREFIX, PREFIX),
                    v => definition(v),
                }
            }
        }
        Value::Array(l) => l.iter_mut().for_each(definition),
        _ => {}
    }
}

/// Parameters have their type beside their name here, bodies are parameters, and media types stand apart.
fn operations(item: Value) -> Value {
    let Value::Object(item) = item else { return item };
    let all = item.into_iter().map(|(method, v3)| {
        let of = if method == "parameters" { &v3 } else { &v3["parameters"] };
        let mut parameters: Vec<Value> = of.as_array().into_iter().flatten().map(plain).collect();
        if method == "parameters" {
            return (method, parameters.into());
        }
        let mut op = json!({
            "consumes": ["*/*"],
            "produces": [JSON, "application/yaml", crate::protobuf::MEDIA_TYPE],
            "responses": responses(&v3["responses"]),
        });
        for copied in ["operationId", "tags", "x-kubernetes-action", "x-kubernetes-group-version-kind"] {
            if let Some(v) = v3.get(copied) {
                op[copied] = v.clone();
            }
        }
        if let Some(content) = v3["requestBody"]["content"].as_object() {
            op["consumes"] = content.keys().cloned().collect();
            let mut schema = content.values().find_map(|c| c.get("schema").cloned()).unwrap_or(json!({}));
            definition(&mut schema);
            let mut body = json!({"name": "body", "in": "body", "schema": schema});
            if v3["requestBody"]["required"] == true {
                body["required"] = true.into();
            }
            parameters.insert(0, body);
        }
        if !parameters.is_empty() {
            op["parameters"] = parameters.into();
        }
        (method, op)
    });
    Value::Object(all.collect())
}

fn plain(p: &Value) -> Value {
    let mut out = json!({"name": p["name"], "in": p["in"], "type": p["schema"]["type"], "uniqueItems": true});
    for copied in ["description", "required"] {
        if let Some(v) = p.get(copied) {
            out[copied] = v.clone();
        }
    }
    out
}

fn responses(all: &Value) -> Value {
    let one = |(code, r): (&String, &Value)| {
        let mut out = json!({"description": r["description"]});
        if let Some(schema) = r["content"].as_object().and_then(|c| c.values().find_map(|c| c.get("schema")))
        {
            out["schema"] = schema.clone();
            definition(&mut out["schema"]);
        }
        (code.clone(), out)
    };
    Value::Object(all.as_object().into_iter().flatten().map(one).collect())
}

// gnostic's messages.

fn encode(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, &document["swagger"]);
    put_message(&mut out, 2, |b| {
        put_text(b, 1, &document["info"]["title"]);
        put_text(b, 2, &document["info"]["version"]);
    });
    put_message(&mut out, 8, |b| {
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            put_named(b, 2, path, |b| path_item(b, item));
        }
    });
    put_message(&mut out, 9, |b| {
        for (name, s) in document["definitions"].as_object().into_iter().flatten() {
            put_named(b, 1, name, |b| schema(b, s));
        }
    });
    out
}

fn put_text(out: &mut Vec<u8>, number: u32, v: &Value) {
    if let Some(s) = v.as_str() {
        put_bytes(out, number, s.as_bytes());
    }
}

fn put_texts(out: &mut Vec<u8>, number: u32, v: &Value) {
    v.as_array().into_iter().flatten().for_each(|s| put_text(out, number, s));
}

fn put_message(out: &mut Vec<u8>, number: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut b = Vec::new();
    fill(&mut b);
    put_bytes(out, number, &b);
}

/// A pair of name and value.
fn put_named(out: &mut Vec<u8>, number: u32, name: &str, fill: impl FnOnce(&mut Vec<u8>)) {
    put_message(out, number, |b| {
        put_bytes(b, 1, name.as_bytes());
        put_message(b, 2, fill);
    });
}

/// Anything, as YAML, which JSON is.
fn put_any(out: &mut Vec<u8>, v: &Value) {
    put_bytes(out, 2, format!("{v}\n").as_bytes());
}

fn put_extensions(out: &mut Vec<u8>, number: u32, v: &Value) {
    for (name, v) in v.as_object().into_iter().flatten().filter(|(k, _)| k.starts_with("x-")) {
        put_named(out, number, name, |b| put_any(b, v));
    }
}

fn path_item(out: &mut Vec<u8>, item: &Value) {
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(op) = item.get(method) {
            put_message(out, number, |b| operation(b, op));
        }
    }
    for p in item["parameters"].as_array().into_iter().flatten() {
        put_message(out, 9, |b| put_message(b, 1, |b| parameter(b, p)));
    }
}

fn operation(out: &mut Vec<u8>, op: &Value) {
    put_texts(out, 1, &op["tags"]);
    put_text(out, 5, &op["operationId"]);
    put_texts(out, 6, &op["produces"]);
    put_texts(out, 7, &op["consumes"]);
    for p in op["parameters"].as_array().into_iter().flatten() {
        put_message(out, 8, |b| put_message(b, 1, |b| parameter(b, p)));
    }
    put_message(out, 9, |b| {
        for (code, r) in op["responses"].as_object().into_iter().flatten() {
            put_named(b, 1, code, |b| {
                put_message(b, 1, |b| {
                    put_text(b, 1, &r["description"]);
                    if r["schema"].is_object() {
                        put_message(b, 2, |b| put_message(b, 1, |b| schema(b, &r["schema"])));
                    }
                });
            });
        }
    });
    put_extensions(out, 13, op);
}

fn parameter(out: &mut Vec<u8>, p: &Value) {
    if p["in"] == "body" {
        return put_message(out, 1, |b| {
            put_text(b, 2, &p["name"]);
            put_text(b, 3, &p["in"]);
            if p["required"] == true {
                put_varint(b, 4, 1);
            }
            put_message(b, 5, |b| schema(b, &p["schema"]));
        });
    }
    // Those of the query have one field more, so that all behind it is one number later.
    let (of, later) = if p["in"] == "path" { (4, 0) } else { (3, 1) };
    put_message(out, 2, |b| {
        put_message(b, of, |b| {
            if p["required"] == true {
                put_varint(b, 1, 1);
            }
            put_text(b, 2, &p["in"]);
            put_text(b, 3, &p["description"]);
            put_text(b, 4, &p["name"]);
            put_text(b, 5 + later, &p["type"]);
            put_varint(b, 19 + later, 1);
        });
    });
}

fn schema(out: &mut Vec<u8>, s: &Value) {
    put_text(out, 1, &s["$ref"]);
    put_text(out, 2, &s["format"]);
    put_text(out, 4, &s["description"]);
    if let Some(d) = s.get("default") {
        put_message(out, 5, |b| put_any(b, d));
    }
    put_texts(out, 19, &s["required"]);
    if let Some(a) = s.get("additionalProperties").filter(|a| a.is_object()) {
        put_message(out, 21, |b| put_message(b, 1, |b| schema(b, a)));
    }
    if s["type"].is_string() {
        put_message(out, 22, |b| put_text(b, 1, &s["type"]));
    }
    if let Some(items) = s.get("items") {
        put_message(out, 23, |b| put_message(b, 1, |b| schema(b, items)));
    }
    if let Some(properties) = s["properties"].as_object() {
        put_message(out, 25, |b| {
            for (name, p) in properties {
                put_named(b, 1, name, |b| schema(b, p));
            }
        });
    }
    put_extensions(out, 31, s);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_as_gnostic_has_them() {
        let mut out = Vec::new();
        schema(
            &mut out,
            &json!({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#/definitions/X"}}}),
        );
        let expect = [
            &[0x9a, 0x01, 1, b'a'][..],
            &[0xb2, 0x01, 8, 0x0a, 6],
            b"object",
            &[0xca, 0x01, 24, 0x0a, 22, 0x0a, 1, b'a', 0x12, 17, 0x0a, 15],
            b"#/definitions/X",
        ];
        assert_eq!(out, expect.concat());
    }

    #[test]
    fn bodies_become_parameters() {
        let v3 = json!({"post": {"x-kubernetes-action": "post", "parameters": [{"name": "dryRun", "in": "query", "schema": {"type": "string"}}],
            "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/X"}}}}}});
        let v2 = operations(v3);
        assert_eq!(v2["post"]["consumes"], json!(["application/json"]));
        assert_eq!(v2["post"]["parameters"][0]["schema"], json!({"$ref": "#/definitions/X"}));
        assert_eq!(v2["post"]["parameters"][1]["name"], "dryRun");
    }
}
