//! Deletion of log lines for good, as somebody's right to be forgotten asks for it (Loki: `/loki/api/v1/delete`). For
//! those who may see everything, and off unless the configuration turns the admin API on.
//!
//! Where Loki takes a request and works on it for a day, the answer here comes once the lines are on no disk.

use std::collections::VecDeque;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use signal::Timestamp;

use super::{Answer, answer, fail, required};
use crate::App;
use crate::error::Failure;
use crate::params::Params;
use crate::scope::Scope;

/// So many deletions are told of.
const REMEMBERED: usize = 1000;

/// What was deleted since the start, oldest first.
#[derive(Default)]
pub(crate) struct Deletions(Mutex<VecDeque<Deletion>>);

struct Deletion {
    id: String,
    query: String,
    start: Timestamp,
    end: Timestamp,
    asked: Timestamp,
    lines: u64,
}

impl Deletion {
    /// Loki's times here are milliseconds.
    fn json(&self) -> Value {
        json!({
            "request_id": self.id,
            "start_time": self.start.millis(),
            "end_time": self.end.millis(),
            "query": self.query,
            "status": "processed",
            "created_at": self.asked.millis(),
            "deleted_lines": self.lines,
        })
    }
}

fn allowed(app: &App, scope: &Scope) -> Result<(), Response> {
    if !app.config.admin_api {
        return Err(fail(Failure::Forbidden(
            "deletion is not available: start with --enable-admin-api".to_owned(),
        )));
    }
    if *scope != Scope::All {
        return Err(fail(Failure::Forbidden("deletion is for those who may see all namespaces".to_owned())));
    }
    Ok(())
}

/// `query`, from `start` to `end` (default: now), both inclusive.
pub(super) async fn delete(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    allowed(&app, &scope)?;
    let query = required(&p)?;
    let asked = app.engines.clock.now();
    let start = p.time("start").map_err(fail)?;
    let start = start.ok_or_else(|| fail(Failure::Bad("start time not set".to_owned())))?;
    let end = p.time("end").map_err(fail)?.unwrap_or(asked);
    if end < start {
        return Err(fail(Failure::Bad("start time can't be greater than end time".to_owned())));
    }
    if end > asked {
        return Err(fail(Failure::Bad("deletes in the future are not allowed".to_owned())));
    }
    let lines = app.logql.delete(&query, start, Timestamp(end.nanos() + 1)).await;
    let lines = lines.map_err(|e| fail(e.into()))?;
    tracing::info!(query, %start, %end, lines, "log lines were deleted for good");
    let id = format!("{:x}", asked.nanos());
    let mut all = app.deletions.0.lock();
    if all.len() >= REMEMBERED {
        all.pop_front();
    }
    all.push_back(Deletion { id, query, start, end, asked, lines });
    let mut done = Response::default();
    *done.status_mut() = StatusCode::NO_CONTENT;
    Ok(done)
}

pub(super) async fn list(State(app): State<App>, scope: Scope) -> Answer {
    allowed(&app, &scope)?;
    let all: Vec<Value> = app.deletions.0.lock().iter().map(Deletion::json).collect();
    Ok(answer(Value::Array(all)))
}

/// There is nothing left to call off.
pub(super) async fn cancel(State(app): State<App>, scope: Scope, p: Params) -> Answer {
    allowed(&app, &scope)?;
    let id = p.get("request_id").unwrap_or_default();
    Err(fail(if app.deletions.0.lock().iter().any(|d| d.id == id) {
        Failure::Bad("deletion of request which is already processed is not allowed".to_owned())
    } else {
        Failure::NotFound("could not find delete request with given id".to_owned())
    }))
}
