//! What changes the database itself: deleting series and taking snapshots. Off unless the configuration turns it on
//! (Prometheus: `--web.enable-admin-api`), and only for those who may see everything.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use serde_json::json;

use super::{Answer, data, fail, no_content};
use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::scope::Scope;

pub(super) fn router() -> Router<App> {
    // Prometheus takes both methods.
    fn both<H, T>(handler: H) -> MethodRouter<App>
    where
        H: axum::handler::Handler<T, App>,
        T: 'static,
    {
        post(handler.clone()).put(handler)
    }
    Router::new()
        .route("/delete_series", both(delete_series))
        .route("/clean_tombstones", both(clean_tombstones))
        .route("/snapshot", both(snapshot))
}

fn allowed(app: &App, scope: &Scope) -> Result<(), Response> {
    if !app.config.admin_api {
        return Err(fail(Failure::Unavailable("admin APIs disabled".to_owned())));
    }
    if *scope != Scope::All {
        return Err(fail(Failure::Forbidden(
            "the admin API is for those who may see all namespaces".to_owned(),
        )));
    }
    Ok(())
}

fn failed(e: tsdb::Error) -> Response {
    fail(match e {
        tsdb::Error::Tombstones(m) => Failure::Execution(m),
        e => Failure::Internal(e.to_string()),
    })
}

/// A series matches if all of a selector's matchers hold; several selectors are deleted one after the other.
async fn delete_series(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    allowed(&app, &scope)?;
    let selects = super::selects(&app, &scope, &p, true).map_err(fail)?;
    if let Some(s) = selects.iter().find(|s| s.end < s.start) {
        let message = format!("end timestamp {} must not be before start timestamp {}", s.end, s.start);
        return Err(fail(Failure::Bad(message)));
    }
    for s in selects {
        app.engines.tsdb.delete(&s.matchers, s.start, s.end).await.map_err(failed)?;
    }
    Ok(no_content())
}

async fn clean_tombstones(State(app): State<App>, scope: Scope) -> Answer {
    allowed(&app, &scope)?;
    app.engines.tsdb.clean_tombstones().await.map_err(failed)?;
    Ok(no_content())
}

async fn snapshot(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    allowed(&app, &scope)?;
    let skip_head = match p.get("skip_head") {
        None => false,
        Some(text) => text.parse().map_err(|_| {
            fail(Failure::Bad(format!("invalid parameter \"skip_head\": {text:?} is neither true nor false")))
        })?,
    };
    let name = app.engines.tsdb.snapshot(skip_head).await.map_err(failed)?;
    Ok(data(json!({"name": name})))
}
