//! What is asked for by path: health, version, metrics, discovery, schemas, and how tokens are checked.

use std::sync::Arc;

use axum::response::Response;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use crate::dispatch::Context;
use crate::error::{ApiError, Result};
use crate::metrics::{Build, flow, reads, store};
use crate::request::Query;
use crate::server::ApiServer;
use crate::{body, discovery, health, openapi};

/// What everyone may ask.
pub(crate) async fn open(server: &ApiServer, path: &str, query: &Query) -> Option<Response> {
    if matches!(path, "/version" | "/version/") {
        // As upstream's, on many lines whoever asks.
        let text = serde_json::to_string_pretty(&version()).unwrap_or_default();
        return Some(body::json(200, text));
    }
    health::respond(server, path, query).await
}

/// As `/version` and metrics tell it.
pub(crate) const BUILD: Build = Build {
    major: "1",
    minor: "35",
    git_version: concat!("v1.35.0+binnacle-", env!("CARGO_PKG_VERSION")),
    git_commit: "",
    git_tree_state: "clean",
    build_date: "",
    go_version: "",
    compiler: "rustc",
    platform: concat!("linux/", "amd64"),
};

fn version() -> Value {
    json!({
        "major": BUILD.major,
        "minor": BUILD.minor,
        "emulationMajor": "1",
        "emulationMinor": "35",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "34",
        "gitVersion": BUILD.git_version,
        "gitCommit": BUILD.git_commit,
        "gitTreeState": BUILD.git_tree_state,
        "buildDate": BUILD.build_date,
        "goVersion": BUILD.go_version,
        "compiler": BUILD.compiler,
        "platform": BUILD.platform,
    })
}

/// What others need to check our service accounts' tokens by themselves (OpenID Connect Discovery 1.0).
fn issuer(server: &ApiServer, path: &str) -> Option<Response> {
    let (media, body) = match path {
        "/openid/v1/jwks" => ("application/jwk-set+json", server.tokens.jwks.to_string()),
        "/.well-known/openid-configuration" => {
            let issuer = &server.tokens.issuer;
            let o = json!({
                "issuer": issuer,
                "jwks_uri": format!("{issuer}/openid/v1/jwks"),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            });
            ("application/json", o.to_string())
        }
        _ => return None,
    };
    let mut r = body::json(200, body);
    r.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    r.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Some(r)
}

pub(crate) async fn respond(server: &Arc<ApiServer>, ctx: &Context) -> Result<Response> {
    let path = ctx.info.path.as_str();
    if path == "/" {
        return Ok(body::json(200, discovery::paths(server).to_string()));
    }
    if path == "/metrics" {
        server.cache.count_all(store::objects);
        match server.store.size().await {
            Ok(bytes) => store::size(bytes),
            Err(e) => tracing::warn!(error = %e, "the store does not say how big it is"),
        }
        for (index, kind) in server.stored_kinds() {
            reads::changed(kind, server.cache.changed(index));
        }
        for (level, executing, waiting) in server.fairness.loads() {
            flow::load(&level, executing, waiting);
        }
        let accept = ctx.headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
        let (media, text) = telemetry::metrics::answer(accept);
        let mut r = body::text(200, text);
        r.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        return Ok(r);
    }
    if let Some(r) = issuer(server, path) {
        return Ok(r);
    }
    if path == "/openapi/v2" {
        return openapi::v2::respond(server, &ctx.headers).await;
    }
    if path.starts_with("/openapi/") {
        return openapi::respond(server, path, &ctx.headers);
    }
    discovery::respond(server, path, &ctx.headers).ok_or_else(ApiError::no_such_path)
}
