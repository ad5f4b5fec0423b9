//! Backfill: samples of any age, as `binnacle import metrics` sends them. The body is one of remote write 1.0; what it
//! holds goes into blocks, past the window that remote write has.

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;

use super::{data, fail, unpack};
use crate::App;
use crate::error::Failure;
use crate::params::body;
use crate::scope::Scope;

pub(super) async fn import(State(app): State<App>, scope: Scope, req: Request) -> Result<Response, Response> {
    if !scope.may_write() {
        return Err(fail(Failure::Forbidden("only cluster-wide writers may import".to_owned())));
    }
    let packed = body(req, app.config.body_bytes).await.map_err(fail)?;
    let raw = unpack(&packed, app.config.unpacked_bytes).map_err(fail)?;
    drop(packed);
    let request: exchange::remote::WriteRequest = prost::Message::decode(raw.as_slice())
        .map_err(|e| fail(Failure::Bad(format!("not a remote write request: {e}"))))?;
    drop(raw);
    let (batch, wrong) = request.into_batch();
    let done = app.engines.tsdb.import(batch).await.map_err(|e| fail(e.into()))?;
    Ok(data(json!({"accepted": done.accepted, "rejected": done.rejected + wrong, "reason": done.reason})))
}
