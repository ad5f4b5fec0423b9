//! Subresources with rules of their own: scale, binding, token.

use axum::response::Response;
use http::Method;
use serde_json::{Value, json};
use signal::Timestamp;

use crate::admission::attributes::Operation;
use crate::body;
use crate::dispatch::Context;
use crate::error::{ApiError, Result};
use crate::eviction;
use crate::kinds::{self, Column, Served};
use crate::object;
use crate::patch;
use crate::registry::Part;
use crate::request::Shape;
use crate::server::ApiServer;
use crate::table;
use crate::token::{Bound, Claims, KubernetesClaims, bound};
use crate::validation::Errors;

const TOKEN_MIN_S: i64 = 600;
const TOKEN_MAX_S: i64 = 1 << 32;

pub(crate) async fn respond(
    server: &ApiServer,
    ctx: &mut Context,
    served: Served,
    method: &Method,
    bytes: &[u8],
) -> Result<Response> {
    let sub = ctx.info.subresource.clone();
    match (served.kind.builtin(), sub.as_str(), method) {
        (_, "scale", &Method::GET) if served.kind.scale => {
            let o = server.get(&served, &ctx.info.namespace, &ctx.info.name).await?;
            let scale = scale_of(&served, &server.to_served(&served, o.value()).await?);
            let answer = match Shape::negotiate(&ctx.headers)? {
                Shape::Object => scale,
                Shape::Metadata => table::partial(scale),
                Shape::Table => scale_table(scale, server.now()),
            };
            Ok(body::json(200, answer.to_string()))
        }
        (_, "scale", &(Method::PUT | Method::PATCH)) if served.kind.scale => {
            scale(server, ctx, served, method == Method::PATCH, bytes).await
        }
        ("pods", "binding", &Method::POST) => bind(server, ctx, bytes, &ctx.info.name).await,
        ("pods", "eviction", &Method::POST) => eviction::respond(server, ctx, served, bytes).await,
        ("serviceaccounts", "token", &Method::POST) => token(server, ctx, served, bytes).await,
        _ => Err(ApiError::no_such_path()),
    }
}

/// A workload as an autoscaling/v1 Scale.
pub(crate) fn scale_of(served: &Served, o: &Value) -> Value {
    let meta = &o["metadata"];
    let mut m = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        m[key] = meta[key].clone();
    }
    let (spec, status, selector) = match served.custom.as_ref().and_then(|held| held.scale.as_ref()) {
        Some(scale) => {
            let selector = scale.selector.as_ref().and_then(|p| object::text(o, p));
            (scale.spec.as_str(), scale.status.as_str(), selector.unwrap_or_default().to_owned())
        }
        None => match table::selector(object::get(o, "spec.selector")) {
            Value::String(s) if s != "<none>" => ("spec.replicas", "status.replicas", s),
            _ => ("spec.replicas", "status.replicas", String::new()),
        },
    };
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": m,
        "spec": {"replicas": object::int(o, spec).unwrap_or(0)},
        "status": {"replicas": object::int(o, status).unwrap_or(0), "selector": selector},
    })
}

/// As `kubectl get --subresource=scale` shows it.
fn scale_table(scale: Value, now: Timestamp) -> Value {
    let number = |part: &str| scale[part]["replicas"].as_i64().unwrap_or(0);
    let cells = json!([object::name(&scale), number("spec"), number("status"), table::age(&scale, now)]);
    let count = |name| Column { kind: "integer", ..kinds::column(name) };
    let columns = [kinds::NAME, count("Desired"), count("Available"), kinds::AGE];
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": scale["metadata"]["resourceVersion"]},
        "columnDefinitions": table::columns(&columns),
        "rows": [{"cells": cells, "object": table::partial(scale)}],
    })
}

/// Writes the number a Scale asks for where the kind keeps it.
pub(crate) fn set_replicas(served: &Served, o: &mut Value, replicas: Value) {
    let path = served.custom.as_ref().and_then(|held| held.scale.as_ref());
    let path = path.map_or("spec.replicas", |scale| &scale.spec);
    let (outer, last) = path.rsplit_once('.').unwrap_or(("", path));
    let holder = outer.split('.').filter(|p| !p.is_empty()).fold(o, |v, p| object::child(v, p));
    holder[last] = replicas;
}

async fn scale(
    server: &ApiServer,
    ctx: &Context,
    served: Served,
    patching: bool,
    bytes: &[u8],
) -> Result<Response> {
    let write = ctx.write()?;
    let media = body::media_type(&ctx.headers).to_owned();
    let given = if patching { None } else { Some(body::decode(bytes, &media)?) };
    let mut change = |old: &Value| -> Result<Value> {
        let wanted = match &given {
            Some(s) => s.clone(),
            None => patch::untyped(&scale_of(&served, old), &media, bytes)?,
        };
        let replicas = object::int(&wanted, "spec.replicas").unwrap_or(0);
        if replicas < 0 {
            let mut e = Errors::default();
            e.invalid("spec.replicas", replicas, "must be greater than or equal to 0");
            let message = format!("Scale.autoscaling \"{}\" is invalid: {e}", object::name(old));
            let mut refused = ApiError::new(422, "Invalid", message);
            refused.details = Some(
                json!({"name": object::name(old), "group": "autoscaling", "kind": "Scale", "causes": e.causes()}),
            );
            return Err(refused);
        }
        let mut new = old.clone();
        set_replicas(&served, &mut new, replicas.into());
        let named = object::text(&wanted, "metadata.resourceVersion").unwrap_or_default();
        object::metadata(&mut new).insert("resourceVersion".to_owned(), named.into());
        Ok(new)
    };
    let (ns, name) = (&ctx.info.namespace, &ctx.info.name);
    let o = server.update(&served, ns, name, &write, Part::Main, &mut change).await?;
    Ok(body::json(200, scale_of(&served, &o).to_string()))
}

/// Gives a pod its node (kubernetes: pkg/registry/core/pod/storage BindingREST).
pub(crate) async fn bind(server: &ApiServer, ctx: &Context, bytes: &[u8], name: &str) -> Result<Response> {
    let write = ctx.write()?;
    let mut binding = body::decode(bytes, body::media_type(&ctx.headers))?;
    let pods = kinds::by_resource("", "pods").expect("pods are a kind");
    server.admit_subject(Operation::Create, ctx, &pods, ("", "v1", "Binding"), &mut binding).await?;
    let node = object::text(&binding, "target.name").unwrap_or_default().to_owned();
    if node.is_empty() {
        return Err(ApiError::new(
            422,
            "Invalid",
            format!("Binding \"{name}\" is invalid: target.name: Required value"),
        ));
    }
    let annotations = object::get(&binding, "metadata.annotations").and_then(Value::as_object).cloned();
    let now = object::rfc3339(server.now());
    let uid = object::text(&binding, "metadata.uid").unwrap_or_default().to_owned();
    let mut change = |old: &Value| -> Result<Value> {
        let refuse = |why: &str| Err(ApiError::conflict(&pods, name, why));
        if !uid.is_empty() && object::text(old, "metadata.uid") != Some(&uid) {
            return refuse("Precondition failed: UID in precondition does not match");
        }
        if object::is_deleting(old) {
            return refuse(&format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        if let Some(n) = object::text(old, "spec.nodeName").filter(|n| !n.is_empty()) {
            return refuse(&format!("pod {name} is already assigned to node {n:?}"));
        }
        let mut new = old.clone();
        object::child(&mut new, "spec")["nodeName"] = node.clone().into();
        for (k, v) in annotations.iter().flatten() {
            let meta = object::child(&mut new, "metadata");
            object::child(meta, "annotations")[k.as_str()] = v.clone();
        }
        let mut conditions = object::list(&new, "status.conditions").to_vec();
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
        object::child(&mut new, "status")["conditions"] = conditions.into();
        Ok(new)
    };
    server.update(&pods, &ctx.info.namespace, name, &write, Part::Internal, &mut change).await?;
    Ok(success(201))
}

/// A signed token for a service account, maybe bound to a pod.
async fn token(server: &ApiServer, ctx: &Context, served: Served, bytes: &[u8]) -> Result<Response> {
    let mut request = body::decode(bytes, body::media_type(&ctx.headers))?;
    let account = server.get(&served, &ctx.info.namespace, &ctx.info.name).await?.value();
    let subject = ("authentication.k8s.io", "v1", "TokenRequest");
    server.admit_subject(Operation::Create, ctx, &served, subject, &mut request).await?;
    let seconds = object::int(&request, "spec.expirationSeconds").unwrap_or(3600);
    if !(TOKEN_MIN_S..=TOKEN_MAX_S).contains(&seconds) {
        let detail = if seconds < TOKEN_MIN_S {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let message = format!(
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: {seconds}: {detail}"
        );
        return Err(ApiError::new(422, "Invalid", message));
    }
    let mut audiences: Vec<String> = object::list(&request, "spec.audiences")
        .iter()
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    if audiences.is_empty() {
        audiences.push(server.tokens.issuer.clone());
    }
    let to = match object::get(&request, "spec.boundObjectRef") {
        Some(r) => bind_token(server, ctx, r).await?,
        None => BoundTo::default(),
    };
    let now = server.now();
    let seconds_now = now.millis() / 1000;
    let claims = Claims {
        aud: audiences.clone(),
        exp: seconds_now + seconds,
        iat: seconds_now,
        iss: server.tokens.issuer.clone(),
        jti: uuid::Uuid::new_v4().to_string(),
        kubernetes: KubernetesClaims {
            namespace: ctx.info.namespace.clone(),
            node: to.node,
            pod: to.pod,
            secret: to.secret,
            serviceaccount: bound(&account),
        },
        nbf: seconds_now,
        sub: format!("system:serviceaccount:{}:{}", ctx.info.namespace, ctx.info.name),
    };
    let signed = server.tokens.sign(&claims).map_err(ApiError::internal)?;
    let until = object::rfc3339(signal::Timestamp::from_secs(seconds_now + seconds));
    let spec = object::child(&mut request, "spec");
    spec["audiences"] = json!(audiences);
    spec["expirationSeconds"] = seconds.into();
    request["kind"] = "TokenRequest".into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["metadata"] = json!({"name": ctx.info.name, "namespace": ctx.info.namespace, "creationTimestamp": object::rfc3339(now)});
    request["status"] = json!({"token": signed, "expirationTimestamp": until});
    Ok(body::json(201, request.to_string()))
}

/// What a token ends with.
#[derive(Default)]
struct BoundTo {
    pod: Option<Bound>,
    node: Option<Bound>,
    secret: Option<Bound>,
}

async fn bind_token(server: &ApiServer, ctx: &Context, reference: &Value) -> Result<BoundTo> {
    let text = |k: &str| object::text(reference, k).unwrap_or_default();
    let (kind, name) = (text("kind"), text("name"));
    let (served, namespace) = match (text("apiVersion"), kind) {
        ("v1" | "", "Pod") => (kinds::by_resource("", "pods"), ctx.info.namespace.as_str()),
        ("v1" | "", "Secret") => (kinds::by_resource("", "secrets"), ctx.info.namespace.as_str()),
        ("v1" | "", "Node") => (kinds::by_resource("", "nodes"), ""),
        (version, kind) => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let served = served.expect("pods, secrets and nodes are kinds");
    let o = server.get(&served, namespace, name).await?.value();
    if !text("uid").is_empty() && Some(text("uid")) != object::text(&o, "metadata.uid") {
        return Err(ApiError::conflict(
            &served,
            name,
            "the UID in the bound object reference does not match the UID in record. The object might have been deleted and then recreated",
        ));
    }
    match kind {
        "Secret" => Ok(BoundTo { secret: Some(bound(&o)), ..BoundTo::default() }),
        "Node" => Ok(BoundTo { node: Some(bound(&o)), ..BoundTo::default() }),
        _ => {
            if object::text(&o, "spec.serviceAccountName") != Some(&ctx.info.name) {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    ctx.info.name
                )));
            }
            let nodes = kinds::by_resource("", "nodes").expect("nodes are a kind");
            let node = object::text(&o, "spec.nodeName").filter(|n| !n.is_empty());
            let node = node.and_then(|n| server.cache.get(nodes.index, n)).map(|n| bound(&n.value()));
            Ok(BoundTo { pod: Some(bound(&o)), node, secret: None })
        }
    }
}

pub(crate) fn success(code: u16) -> Response {
    let s = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code});
    body::json(code, s.to_string())
}
