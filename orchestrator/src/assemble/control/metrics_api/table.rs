//! The shapes a client may ask for: objects, a Table of usage, or metadata alone
//! (metrics-server: pkg/api/table.go; apiserver: pkg/endpoints/handlers/response.go).

use std::convert::Infallible;

use apimachinery::quantity::Quantity;
use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::header::ACCEPT;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What of each object stands in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    None,
    Metadata,
    Object,
}

/// How a client wants its answer, by its `Accept` and `includeObject`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Object,
    Table { version: &'static str, include: Include },
    Metadata { version: &'static str },
}

impl<S: Sync> FromRequestParts<S> for Shape {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Shape, Infallible> {
        let accept = parts.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        Ok(Shape::of(accept, parts.uri.query().unwrap_or_default()))
    }
}

impl Shape {
    fn of(accept: &str, query: &str) -> Shape {
        let include = match query.split('&').find_map(|p| p.strip_prefix("includeObject=")) {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        };
        for wanted in accept.split(',') {
            let mut parts = wanted.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let mut shape = ("", "", "");
            for (name, value) in parts.filter_map(|p| p.split_once('=')) {
                match name {
                    "as" => shape.0 = value,
                    "g" => shape.1 = value,
                    "v" => shape.2 = value,
                    _ => {}
                }
            }
            if !matches!(media, "application/json" | "application/*" | "*/*") {
                continue;
            }
            let version = match shape.2 {
                "v1" => "meta.k8s.io/v1",
                "v1beta1" => "meta.k8s.io/v1beta1",
                _ => "",
            };
            match (shape.0, shape.1, version) {
                ("", ..) => return Shape::Object,
                ("Table", "meta.k8s.io", v) if !v.is_empty() => {
                    return Shape::Table { version: v, include };
                }
                ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", v)
                    if !v.is_empty() =>
                {
                    return Shape::Metadata { version: v };
                }
                // A shape there is not: the next one may be.
                _ => {}
            }
        }
        Shape::Object
    }

    /// The answer with one object or a list of them.
    pub(super) fn answer(&self, value: Value) -> Response {
        Json(self.shaped(value)).into_response()
    }

    fn shaped(&self, value: Value) -> Value {
        match self {
            Shape::Object => value,
            Shape::Table { version, include } => table(version, *include, &value),
            Shape::Metadata { version } => match value.get("items").and_then(Value::as_array) {
                Some(items) => json!({"kind": "PartialObjectMetadataList", "apiVersion": version,
                    "metadata": value["metadata"], "items": items.iter().map(|o| partial(version, o)).collect::<Vec<_>>()}),
                None => partial(version, &value),
            },
        }
    }
}

fn partial(version: &str, object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": object["metadata"]})
}

/// As metrics-server: without objects there are no columns.
fn table(version: &str, include: Include, value: &Value) -> Value {
    let (metadata, objects) = match value.get("items").and_then(Value::as_array) {
        Some(items) => (value["metadata"].clone(), items.iter().collect()),
        None => (json!({}), vec![value]),
    };
    let column = |name: &str, format: &str, description: &str| json!({"name": name, "type": "string", "format": format, "description": description, "priority": 0});
    let columns = match objects.first() {
        None => Vec::new(),
        Some(_) => vec![
            column("Name", "name", "Name of the resource"),
            column("cpu", "quantity", ""),
            column("memory", "quantity", ""),
            column("Window", "duration", ""),
        ],
    };
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|o| {
            let mut row =
                json!({"cells": [o["metadata"]["name"], used(o, "cpu"), used(o, "memory"), o["window"]]});
            match include {
                Include::None => {}
                Include::Metadata => row["object"] = partial(version, o),
                Include::Object => row["object"] = o.clone(),
            }
            row
        })
        .collect();
    json!({"kind": "Table", "apiVersion": version, "metadata": metadata, "columnDefinitions": columns, "rows": rows})
}

/// What a node uses, or all of a pod's containers together.
fn used(object: &Value, resource: &str) -> String {
    let all: Vec<&Value> = match object.get("containers").and_then(Value::as_array) {
        Some(containers) => containers.iter().map(|c| &c["usage"][resource]).collect(),
        None => vec![&object["usage"][resource]],
    };
    let parsed = all.iter().filter_map(|v| v.as_str()?.parse::<Quantity>().ok());
    parsed.reduce(|a, b| a + b).map_or_else(|| "0".to_owned(), |q| q.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_say_what_they_want() {
        let check = |accept: &str, query: &str, expect: Shape| {
            assert_eq!(Shape::of(accept, query), expect, "{accept}");
        };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        check(kubectl, "", Shape::Table { version: "meta.k8s.io/v1", include: Include::Metadata });
        check(
            kubectl,
            "limit=5&includeObject=Object",
            Shape::Table { version: "meta.k8s.io/v1", include: Include::Object },
        );
        check("", "", Shape::Object);
        check("application/json", "", Shape::Object);
        check("application/json;as=None;v=v1;g=meta.k8s.io,*/*", "", Shape::Object);
        check(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            "",
            Shape::Metadata { version: "meta.k8s.io/v1" },
        );
    }

    #[test]
    fn a_row_is_a_pods_whole_usage() {
        let pod = json!({"kind": "PodMetrics", "metadata": {"name": "web", "namespace": "shop"}, "window": "15s", "containers": [
            {"name": "a", "usage": {"cpu": "1500000n", "memory": "1024Ki"}},
            {"name": "b", "usage": {"cpu": "500000n", "memory": "512Ki"}},
        ]});
        let node = json!({"kind": "NodeMetrics", "metadata": {"name": "n"}, "window": "15s", "usage": {"cpu": "250000000n", "memory": "2048Ki"}});
        let shape = Shape::Table { version: "meta.k8s.io/v1", include: Include::Metadata };
        let t = shape.shaped(json!({"kind": "PodMetricsList", "metadata": {}, "items": [pod]}));
        let names: Vec<&str> = t["columnDefinitions"]
            .as_array()
            .expect("columns")
            .iter()
            .filter_map(|c| c["name"].as_str())
            .collect();
        assert_eq!(names, ["Name", "cpu", "memory", "Window"]);
        assert_eq!(t["rows"][0]["cells"], json!(["web", "2m", "1536Ki", "15s"]));
        assert_eq!(t["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        let t = Shape::Table { version: "meta.k8s.io/v1", include: Include::None }.shaped(node);
        assert_eq!(t["rows"], json!([{"cells": ["n", "250m", "2Mi", "15s"]}]));
        let none = shape.shaped(json!({"kind": "PodMetricsList", "metadata": {}, "items": []}));
        assert_eq!((&none["columnDefinitions"], &none["rows"]), (&json!([]), &json!([])));
    }
}
