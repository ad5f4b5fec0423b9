//! What is asked for by path: health, version, metrics, discovery, schemas, and how tokens are checked.

use std::sync::Arc;

use axum::response::Response;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use crate::dispatch::Context;
use crate::error::{ApiError, Result};
use crate::metrics::{flow, objects_stored, reads};
use crate::request::Query;
use crate::server::ApiServer;
use crate::{body, discovery, openapi};

/// What everyone may ask.
pub(crate) fn health(server: &ApiServer, path: &str, query: &Query) -> Option<Response> {
    if matches!(path, "/version" | "/version/") {
        return Some(body::json(200, version().to_string()));
    }
    let (endpoint, check) = match path.trim_start_matches('/').split_once('/') {
        Some((endpoint, check)) => (endpoint, Some(check)),
        None => (path.trim_start_matches('/'), None),
    };
    let checks = match endpoint {
        "readyz" | "healthz" => server.checks(),
        // A process that answers is alive.
        "livez" => vec![("ping".to_owned(), Ok(()))],
        _ => return None,
    };
    let remarks = if endpoint == "livez" { Vec::new() } else { server.remarks() };
    let Some(wanted) = check else { return Some(report(endpoint, &checks, &remarks, query)) };
    match checks.iter().find(|(name, _)| name == wanted)? {
        (_, Ok(())) => Some(body::text(200, "ok")),
        (_, Err(why)) => Some(body::text(500, format!("internal server error: {why}"))),
    }
}

type Checked = (String, std::result::Result<(), String>);

/// All checks as upstream lists them, unless all is well and nobody asked; remarks follow what is well.
fn report(endpoint: &str, checks: &[Checked], remarks: &[String], query: &Query) -> Response {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let (mut lines, mut failed) = (String::new(), false);
    for (name, result) in checks {
        match result {
            _ if excluded.contains(&name.as_str()) => {
                lines.push_str(&format!("[+]{name} excluded: ok\n"));
            }
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                failed = true;
                lines.push_str(&format!("[-]{name} failed: {why}\n"));
            }
        }
    }
    let said: String = remarks.iter().map(|r| format!("\n[!]{r}")).collect();
    match (failed, query.has("verbose")) {
        (true, _) => body::text(500, format!("{lines}{endpoint} check failed\n")),
        (false, true) => body::text(200, format!("{lines}{endpoint} check passed{said}\n")),
        (false, false) => body::text(200, format!("ok{said}")),
    }
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "35",
        "gitVersion": concat!("v1.35.0+binnacle-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": concat!("linux/", "amd64"),
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
        server.cache.count_all(objects_stored);
        for (index, kind) in server.stored_kinds() {
            reads::changed(kind, server.cache.changed(index));
        }
        for (level, executing, waiting) in server.fairness.loads() {
            flow::load(&level, executing, waiting);
        }
        let mut r = body::text(200, telemetry::metrics::encode());
        r.headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(telemetry::metrics::CONTENT_TYPE));
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
