//! The schemas of custom resources as OpenAPI publishes them
//! (apiextensions-apiserver: pkg/controller/openapi/builder).

use serde_json::{Map, Value, json};

use super::Version;
use crate::server::ApiServer;

const PREFIX: &str = "#/components/schemas/";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The definitions of all versions served of a group-version, or of all of them.
pub(crate) fn definitions(server: &ApiServer, group_version: Option<(&str, &str)>) -> Map<String, Value> {
    let mut out = Map::new();
    for served in server.cache.customs.served() {
        let Some(held) = &served.custom else { continue };
        if group_version.is_none_or(|(g, v)| g == served.group && v == served.version) {
            let name = name(held);
            let list_kind = &held.custom.list_kind;
            let list_name = format!("{}{list_kind}", name.strip_suffix(held.kind.kind).unwrap_or(&name));
            out.insert(list_name, list(held, list_kind, &name));
            out.insert(name, resource(held));
            // Lists of the built-in kinds have no schema of their own; kubectl before 1.30 refuses a reference to nothing.
            out.entry(format!("{META}.ListMeta")).or_insert_with(list_meta);
        }
    }
    out
}

/// `com.example.stable.v1.CronTab`
fn name(v: &Version) -> String {
    let mut parts: Vec<&str> = v.kind.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), v.kind.version, v.kind.kind)
}

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

fn resource(v: &Version) -> Value {
    let mut s = v.raw.clone();
    clean(&mut s);
    if !s["properties"].is_object() {
        s["properties"] = json!({});
    }
    let p = &mut s["properties"];
    p["apiVersion"] = json!({"type": "string", "description": API_VERSION});
    p["kind"] = json!({"type": "string", "description": KIND});
    p["metadata"] = json!({"$ref": format!("{PREFIX}{META}.ObjectMeta"), "description": METADATA});
    if let Some(p) = p.as_object_mut() {
        p.sort_keys();
    }
    s["x-kubernetes-group-version-kind"] =
        json!([{"group": v.kind.group, "version": v.kind.version, "kind": v.kind.kind}]);
    s
}

fn list(v: &Version, list_kind: &str, item: &str) -> Value {
    json!({
        "description": format!("{list_kind} is a list of {}", v.kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "items": {"type": "array", "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", v.kind.resource),
                "items": {"$ref": format!("{PREFIX}{item}")}},
            "kind": {"type": "string"},
            "metadata": {"$ref": format!("{PREFIX}{META}.ListMeta"), "description": "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"},
        },
        "x-kubernetes-group-version-kind": [{"group": v.kind.group, "version": v.kind.version, "kind": list_kind}],
    })
}

fn list_meta() -> Value {
    json!({
        "description": "ListMeta describes metadata that synthetic resources must have, including lists and various status objects. A resource may have only one of {ObjectMeta, ListMeta}.",
        "type": "object",
        "properties": {
            "continue": {"type": "string", "description": "continue may be set if the user set a limit on the number of items returned, and indicates that the server has more data available. The value is opaque and may be used to issue another request to the endpoint that served this list to retrieve the next set of available objects."},
            "remainingItemCount": {"type": "integer", "format": "int64", "description": "remainingItemCount is the number of subsequent items in the list which are not included in this list response."},
            "resourceVersion": {"type": "string", "description": "String that identifies the server's internal version of this object that can be used by clients to determine when objects have changed."},
            "selfLink": {"type": "string", "description": "Deprecated: selfLink is a legacy read-only field that is no longer populated by the system."},
        },
    })
}

/// Embedded resources have their fields spelled out for readers.
fn clean(s: &mut Value) {
    if s["x-kubernetes-embedded-resource"] == true {
        let p = &mut s["properties"];
        if !p.is_object() {
            *p = json!({});
        }
        p["apiVersion"] = json!({"type": "string"});
        p["kind"] = json!({"type": "string"});
        p["metadata"] = json!({"$ref": format!("{PREFIX}{META}.ObjectMeta")});
    }
    for key in ["items", "additionalProperties"] {
        if s[key].is_object() {
            clean(&mut s[key]);
        }
    }
    if let Some(p) = s.get_mut("properties").and_then(Value::as_object_mut) {
        p.values_mut().for_each(clean);
    }
}
