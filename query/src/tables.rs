//! `POST /sql`: a statement as `{"query": "…"}` or as plain text, an answer with columns, rows, notes and stats.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
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

async fn answer(app: &App, scope: Scope, request: Request) -> Result<Response, Failure> {
    let objects = request.extensions().get::<Objects>().map(|o| o.0.clone());
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
    let answer = app.sql.query(&text, sql::Caller { enforce: scope.enforce(), objects }).await?;
    let json = serde_json::to_string(&answer).map_err(|e| Failure::Internal(e.to_string()))?;
    Ok(raw(json).into_response())
}
