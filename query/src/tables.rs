//! `POST /sql`: a statement as `{"query": "…"}` or as plain text, an answer with columns, rows, notes and stats; or, where CSV
//! or an Arrow stream is asked for, the rows as they come.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::StreamExt;
use http::header;
use serde::Deserialize;

use crate::App;
use crate::error::Failure;
use crate::params::body;
use crate::prometheus::raw;
use crate::scope::Scope;

/// Bytes of a request's body: JSON may write a statement's text longer than it is.
const BODY: usize = 256 << 10;

/// The cluster's objects as the request's user may list them. Put into each request's extensions, beside the scope,
/// by whoever authenticated it; without it the table is empty.
#[derive(Clone)]
pub struct Objects(pub Arc<dyn sql::ObjectSource>);

pub(crate) fn router(app: App) -> Router {
    Router::new().route("/sql", post(run)).with_state(app)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    query: String,
}

async fn run(State(app): State<App>, scope: Scope, request: Request) -> Response {
    answer(&app, scope, request).await.unwrap_or_else(Failure::sql)
}

/// JSON, unless `?format=` or what the client accepts says otherwise.
fn format(request: &Request) -> Result<Option<sql::Format>, Failure> {
    let query = request.uri().query().unwrap_or_default();
    let asked = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "format").map(|(_, v)| v);
    match asked.as_deref() {
        Some("json") => Ok(None),
        Some(word) => match sql::Format::parse(word) {
            Some(format) => Ok(Some(format)),
            None => Err(Failure::Bad(format!("format {word:?}: give json, csv or arrow"))),
        },
        None => {
            let accept = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
            Ok(accept.split(',').find_map(|word| sql::Format::parse(word.trim())))
        }
    }
}

async fn answer(app: &App, scope: Scope, request: Request) -> Result<Response, Failure> {
    let objects = request.extensions().get::<Objects>().map(|o| o.0.clone());
    let format = format(&request)?;
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let is_json = kind.starts_with("application/json");
    let data = body(request, BODY).await?;
    let text = if is_json {
        let s: Statement = serde_json::from_slice(&data)
            .map_err(|e| Failure::Bad(format!("the body is not {{\"query\": \"…\"}}: {e}")))?;
        s.query
    } else {
        String::from_utf8(data.to_vec()).map_err(|_| Failure::Bad("the statement is not UTF-8".to_owned()))?
    };
    if let Some(format) = format {
        let rows = app.sql.export(&text, sql::Caller { enforce: scope.enforce(), objects }, format).await?;
        let rows = rows.map(|r| r.map_err(|e| std::io::Error::other(e.to_string())));
        return Ok(([(header::CONTENT_TYPE, format.media_type())], Body::from_stream(rows)).into_response());
    }
    let answer = app.sql.query(&text, sql::Caller { enforce: scope.enforce(), objects }).await?;
    let json = serde_json::to_string(&answer).map_err(|e| Failure::Internal(e.to_string()))?;
    Ok(raw(json).into_response())
}
