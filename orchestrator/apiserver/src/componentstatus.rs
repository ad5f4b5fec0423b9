//! ComponentStatus: how the parts of the control plane are, as old clients ask for it. Nothing of it is stored; the
//! parts live in one process, so who gets an answer has a scheduler and controllers, too
//! (kubernetes: pkg/registry/core/componentstatus/rest.go).

use apimachinery::selector::{FieldSelector, Selector};
use axum::response::Response;
use http::Method;
use serde_json::{Value, json};

use crate::body;
use crate::dispatch::Context;
use crate::error::{ApiError, Result};
use crate::kinds::{Column, NAME, column};
use crate::object;
use crate::request::Shape;
use crate::server::ApiServer;
use crate::table;

pub(crate) const RESOURCE: &str = "componentstatuses";
const WARNING: &str = "v1 ComponentStatus is deprecated in v1.19+";
const COLUMNS: [Column; 4] = [NAME, column("Status"), column("Message"), column("Error")];

/// The answer to a request for them; `None` if it is for something else.
pub(crate) async fn respond(server: &ApiServer, ctx: &Context, method: &Method) -> Option<Result<Response>> {
    let info = &ctx.info;
    let meant = info.group.is_empty() && info.resource == RESOURCE && info.namespace.is_empty();
    if !meant || info.version != "v1" || !info.subresource.is_empty() {
        return None;
    }
    if method != Method::GET || ctx.info.verb == "watch" {
        return Some(Err(ApiError::method_not_allowed()));
    }
    Some(answer(server, ctx).await)
}

async fn all(server: &ApiServer) -> Vec<Value> {
    let store = server.check_store().await;
    let parts = [("controller-manager", Ok(())), ("etcd-0", store), ("scheduler", Ok(()))];
    parts
        .into_iter()
        .map(|(name, found)| {
            let condition = match found {
                Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
                Err(why) => json!({"type": "Healthy", "status": "False", "error": why}),
            };
            json!({"kind": "ComponentStatus", "apiVersion": "v1",
                "metadata": {"name": name, "creationTimestamp": null}, "conditions": [condition]})
        })
        .collect()
}

/// Healthy, with a message, or not, with an error.
fn row(o: &Value) -> Value {
    let condition = &o["conditions"][0];
    let status = if condition["status"] == "True" { "Healthy" } else { "Unhealthy" };
    let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    json!({"cells": [o["metadata"]["name"], status, text("message"), text("error")],
        "object": table::partial(o.clone())})
}

async fn answer(server: &ApiServer, ctx: &Context) -> Result<Response> {
    let name = ctx.info.name.as_str();
    let labels = Selector::parse(ctx.query.get("labelSelector").unwrap_or_default())
        .map_err(|e| ApiError::bad_request(e.to_string()))?;
    let fields = FieldSelector::parse(ctx.query.get("fieldSelector").unwrap_or_default())
        .map_err(|e| ApiError::bad_request(e.to_string()))?;
    let mut items = all(server).await;
    items.retain(|o| {
        (name.is_empty() || o["metadata"]["name"] == name)
            && labels.matches_json(None)
            && fields.matches_with(|path| object::text(o, path))
    });
    if !name.is_empty() && items.is_empty() {
        let message = format!("{RESOURCE} \"{name}\" not found");
        let mut e = ApiError::new(404, "NotFound", message);
        e.details = Some(json!({"name": name, "kind": RESOURCE}));
        return Err(e);
    }
    let answer = match (Shape::negotiate(&ctx.headers)?, name.is_empty()) {
        (Shape::Table, _) => json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
            "columnDefinitions": table::columns(&COLUMNS), "rows": items.iter().map(row).collect::<Vec<_>>()}),
        (Shape::Object, false) => items.swap_remove(0),
        (Shape::Object, true) => {
            json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": items})
        }
        (Shape::Metadata, false) => table::partial(items.swap_remove(0)),
        (Shape::Metadata, true) => {
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
            "metadata": {}, "items": items.into_iter().map(table::partial).collect::<Vec<_>>()})
        }
    };
    let mut r = body::json(200, answer.to_string());
    body::warn(&mut r, &[WARNING.to_owned()]);
    Ok(r)
}
