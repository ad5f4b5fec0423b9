//! Questions that are asked by creating an object: who am I, may I, whose token is this.

use std::future::Future;
use std::pin::Pin;

use apimachinery::user::UserInfo;
use axum::response::Response;
use http::Method;
use serde_json::{Map, Value, json};

use crate::authz::Verdict;
use crate::body;
use crate::dispatch::Context;
use crate::error::{ApiError, Result};
use crate::node;
use crate::object;
use crate::server::{Access, ApiServer};
use crate::subresource;
use crate::validation::Errors;

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response>> + Send + 'a>>;
type Handler = for<'a> fn(&'a ApiServer, &'a Context, &'a [u8]) -> Answer<'a>;

/// The handler of a request that is such a question.
pub(crate) fn respond(_: &ApiServer, ctx: &Context, method: &Method) -> Option<Handler> {
    if method != Method::POST || ctx.info.version != "v1" {
        return None;
    }
    match (ctx.info.group.as_str(), ctx.info.resource.as_str()) {
        ("authentication.k8s.io", "selfsubjectreviews") => {
            Some(|s, c, b| Box::pin(async { whoami(s, c, b) }))
        }
        ("authentication.k8s.io", "tokenreviews") => Some(|s, c, b| Box::pin(token_review(s, c, b))),
        ("authorization.k8s.io", "selfsubjectaccessreviews") => {
            Some(|s, c, b| Box::pin(access_review(s, c, b, true)))
        }
        ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews") => {
            Some(|s, c, b| Box::pin(access_review(s, c, b, false)))
        }
        ("authorization.k8s.io", "selfsubjectrulesreviews") => {
            Some(|s, c, b| Box::pin(rules_review(s, c, b)))
        }
        ("", "bindings") => Some(|s, c, b| Box::pin(binding(s, c, b))),
        _ => None,
    }
}

pub(crate) fn user_json(u: &UserInfo) -> Value {
    let mut v = json!({"username": u.name, "groups": u.groups});
    if !u.uid.is_empty() {
        v["uid"] = u.uid.as_str().into();
    }
    if !u.extra.is_empty() {
        v["extra"] = json!(u.extra);
    }
    v
}

fn created(mut o: Value, kind: &str, group: &str, status: Value) -> Response {
    o["kind"] = kind.into();
    o["apiVersion"] = format!("{group}/v1").into();
    object::child(&mut o, "metadata");
    o["status"] = status;
    body::json(201, o.to_string())
}

fn decode(ctx: &Context, bytes: &[u8]) -> Result<Value> {
    body::decode(bytes, body::media_type(&ctx.headers))
}

fn whoami(server: &ApiServer, ctx: &Context, bytes: &[u8]) -> Result<Response> {
    let mut o = decode(ctx, bytes)?;
    let now = object::rfc3339(server.now());
    object::metadata(&mut o).insert("creationTimestamp".to_owned(), now.into());
    Ok(created(o, "SelfSubjectReview", "authentication.k8s.io", json!({"userInfo": user_json(&ctx.user)})))
}

async fn token_review(server: &ApiServer, ctx: &Context, bytes: &[u8]) -> Result<Response> {
    let o = decode(ctx, bytes)?;
    let token = object::text(&o, "spec.token").unwrap_or_default().to_owned();
    let audiences: Vec<String> =
        object::list(&o, "spec.audiences").iter().filter_map(|a| a.as_str().map(str::to_owned)).collect();
    server.cache.fresh().await?;
    let status = match server.tokens.authenticate(&token, &audiences, &server.cache, server.now()) {
        Ok((user, claims)) => {
            let both: Vec<&String> = claims
                .aud
                .iter()
                .filter(|a| audiences.is_empty() && **a == server.tokens.issuer || audiences.contains(a))
                .collect();
            json!({"authenticated": true, "user": user_json(&user), "audiences": both})
        }
        // Tokens of others are for this server, and say nothing of more.
        Err(reason) if !audiences.is_empty() && !audiences.contains(&server.tokens.issuer) => {
            json!({"authenticated": false, "user": {}, "error": reason})
        }
        Err(reason) => match server.bearer(&token).await {
            Some(user) => json!({"authenticated": true, "user": user_json(&user)}),
            None => json!({"authenticated": false, "user": {}, "error": reason}),
        },
    };
    Ok(created(o, "TokenReview", "authentication.k8s.io", status))
}

async fn access_review(server: &ApiServer, ctx: &Context, bytes: &[u8], own: bool) -> Result<Response> {
    let o = decode(ctx, bytes)?;
    let user = if own {
        ctx.user.clone()
    } else {
        let strings = |v: Option<&Value>| -> Vec<String> {
            v.and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|s| s.as_str().map(str::to_owned))
                .collect()
        };
        let extra: Map<String, Value> =
            object::get(&o, "spec.extra").and_then(Value::as_object).cloned().unwrap_or_default();
        UserInfo {
            name: object::text(&o, "spec.user").unwrap_or_default().to_owned(),
            uid: object::text(&o, "spec.uid").unwrap_or_default().to_owned(),
            groups: strings(object::get(&o, "spec.groups")),
            extra: extra.iter().map(|(k, v)| (k.clone(), strings(Some(v)))).collect(),
        }
    };
    let kind = match ctx.info.resource.as_str() {
        "selfsubjectaccessreviews" => "SelfSubjectAccessReview",
        "subjectaccessreviews" => "SubjectAccessReview",
        _ => "LocalSubjectAccessReview",
    };
    let mut errors = Errors::default();
    if !own && user.name.is_empty() && user.groups.is_empty() {
        errors.invalid("spec.user", user.name.as_str(), "at least one of user or group must be specified");
    }
    let attributes =
        ["resourceAttributes", "nonResourceAttributes"].map(|a| object::get(&o, &format!("spec.{a}")));
    match attributes {
        [Some(_), Some(other)] => errors.invalid(
            "spec.nonResourceAttributes",
            other,
            "cannot be specified in combination with resourceAttributes",
        ),
        [None, None] => errors.invalid(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => {}
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid_of("authorization.k8s.io", kind, "", &errors));
    }
    server.cache.fresh().await?;
    let verdict = if let Some(r) = object::get(&o, "spec.resourceAttributes") {
        let text = |k: &str| object::text(r, k).unwrap_or_default().to_owned();
        let access = Access {
            verb: text("verb"),
            group: text("group"),
            resource: text("resource"),
            subresource: text("subresource"),
            namespace: text("namespace"),
            name: text("name"),
        };
        let mut verdict = server.decide(&user, &access, None);
        if verdict.allowed {
            verdict.reason = server.allowed_by(&user, &access);
        }
        verdict
    } else if let Some(r) = object::get(&o, "spec.nonResourceAttributes") {
        let text = |k: &str| object::text(r, k).unwrap_or_default();
        let allowed = server.rbac.allows_url(&user, text("verb"), text("path"));
        Verdict { allowed, reason: String::new() }
    } else {
        return Err(ApiError::internal("attributes that were there are gone"));
    };
    let mut status = json!({"allowed": verdict.allowed});
    if !verdict.reason.is_empty() {
        status["reason"] = verdict.reason.into();
    }
    Ok(created(o, kind, "authorization.k8s.io", status))
}

async fn rules_review(server: &ApiServer, ctx: &Context, bytes: &[u8]) -> Result<Response> {
    let o = decode(ctx, bytes)?;
    server.cache.fresh().await?;
    let (resources, urls) =
        server.rbac.rules(&ctx.user, object::text(&o, "spec.namespace").unwrap_or_default());
    let mut status = json!({"resourceRules": resources, "nonResourceRules": urls, "incomplete": false});
    if node::identity(&ctx.user).is_some() {
        status["incomplete"] = true.into();
        status["evaluationError"] = "node authorizer does not support user rule resolution".into();
    }
    Ok(created(o, "SelfSubjectRulesReview", "authorization.k8s.io", status))
}

/// The old way to bind: `POST …/bindings` names its pod in the metadata.
async fn binding(server: &ApiServer, ctx: &Context, bytes: &[u8]) -> Result<Response> {
    let o = decode(ctx, bytes)?;
    subresource::bind(server, ctx, bytes, object::name(&o)).await
}
