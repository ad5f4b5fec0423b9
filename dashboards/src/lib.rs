//! Serves the web UI, built by `make web` from `dashboards/ui` and embedded in the binary.
//!
//! Promises: hashed assets may be cached for ever, the page never; a strict Content-Security-Policy; unknown
//! paths below `/ui/` give the page (the URL is the UI's state), so nothing outside `/ui/` is ever answered.
//! Does not know: who may see it; whoever mounts [`router`] asks for credentials first.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use rust_embed::Embed;

#[derive(Embed)]
#[folder = "ui/dist"]
#[allow_missing = true]
struct Dist;

/// Styles may be set by script only (CodeMirror and uPlot do so through the CSSOM, which needs no exception for
/// attributes, but CodeMirror mounts a `<style>` element).
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                   font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const NOT_BUILT: &str = "<!doctype html><meta charset=utf-8><title>Binnacle</title>\
    <h1>Binnacle</h1><p>The web UI was not built into this binary: run <code>make web</code> and build again.\
    All APIs work without it.</p>";

/// `/ui/` and everything below it.
pub fn router() -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/ui/") }))
        .route("/ui", get(|| async { Redirect::temporary("/ui/") }))
        .route("/ui/", get(|| async { file("index.html") }))
        .route("/ui/{*path}", get(|Path(path): Path<String>| async move { file(&path) }))
}

fn file(path: &str) -> Response {
    let (path, found) = match Dist::get(path) {
        Some(f) => (path, Some(f)),
        // A path of the UI's own: the page reads it. A missing asset is missing.
        None if path.starts_with("assets/") => return StatusCode::NOT_FOUND.into_response(),
        None => ("index.html", Dist::get("index.html")),
    };
    let Some(found) = found else { return Html(NOT_BUILT).into_response() };
    let mime = mime_guess::from_path(path).first_or_octet_stream();
    let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut response = found.data.into_owned().into_response();
    let headers = response.headers_mut();
    let mut set = |name, value: &str| {
        if let Ok(v) = HeaderValue::from_str(value) {
            headers.insert(name, v);
        }
    };
    set(header::CONTENT_TYPE, mime.as_ref());
    set(header::CACHE_CONTROL, cache);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CONTENT_SECURITY_POLICY, CSP);
    response
}
