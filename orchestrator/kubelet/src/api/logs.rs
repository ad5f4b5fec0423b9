//! `GET /containerLogs/{namespace}/{pod}/{container}`: a container's log as plain text, also followed.

use std::time::Duration;

use apimachinery::logs::{ROTATED_AWAY, RotatedAway};
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use signal::Timestamp;
use tokio::sync::watch;

use super::query::Query;
use super::{Shared, refuse};
use crate::logs::{Progress, Query as LogQuery, Reader};

pub(super) async fn serve(
    State(shared): State<Shared>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(raw): RawQuery,
) -> Response {
    let q = Query::parse(raw.as_deref());
    let record = match shared.record(&namespace, &pod, &container, q.is("previous")) {
        Ok(r) => r,
        Err(response) => return response,
    };
    let now = shared.node.now();
    let since = q
        .get("sinceTime")
        .and_then(|t| t.parse::<jiff::Timestamp>().ok())
        .and_then(|t| i64::try_from(t.as_nanosecond()).ok())
        .map(Timestamp)
        .or_else(|| q.number::<u64>("sinceSeconds").map(|s| now.saturating_sub(Duration::from_secs(s))));
    let stream = q.get("stream").filter(|s| !s.is_empty() && *s != "All").map(str::to_ascii_lowercase);
    let query = LogQuery {
        tail_lines: q.number("tailLines"),
        since,
        timestamps: q.is("timestamps"),
        limit_bytes: q.number("limitBytes"),
        stream,
    };
    let logs = shared.node.runtime.logs();
    let path = logs.path(&record.identity);
    // Subscribed before the first read: what is written in between rings.
    let progress = q.is("follow").then(|| logs.progress(&path)).flatten();
    let reader = match tokio::task::spawn_blocking(move || Reader::open(&path, query)).await {
        Ok(Ok(r)) => r,
        Ok(Err(e)) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("opening the log: {e}")),
        Err(e) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    };
    let away = reader.away().map(|a| RotatedAway {
        before: a.before.nanos(),
        life: i64::from(record.identity.attempt),
        lines: a.lines,
    });
    let stream = futures::stream::unfold(Some((reader, progress)), |state| async move {
        let (reader, progress) = state?;
        next(reader, progress).await
    });
    let mut response = ([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(stream)).into_response();
    if let Some(value) = away.and_then(|a| a.to_string().parse().ok()) {
        response.headers_mut().insert(ROTATED_AWAY, value);
    }
    response
}

type Step = (Result<Bytes, std::io::Error>, Option<(Reader, Option<watch::Receiver<Progress>>)>);

/// The next piece; waits for it if the log is followed, and ends when its container has.
async fn next(mut reader: Reader, mut progress: Option<watch::Receiver<Progress>>) -> Option<Step> {
    loop {
        let ended = progress.as_mut().is_none_or(|p| p.borrow_and_update().ended);
        // Files are local and in the page cache; a read is bounded.
        let read = tokio::task::spawn_blocking(move || (reader.read(), reader)).await;
        let (data, r) = match read {
            Ok((Ok(data), r)) => (data, r),
            Ok((Err(e), _)) => return Some((Err(e), None)),
            Err(e) => return Some((Err(std::io::Error::other(e)), None)),
        };
        reader = r;
        match data {
            None => return None,
            Some(d) if !d.is_empty() => return Some((Ok(d.into()), Some((reader, progress)))),
            Some(_) if ended => return None,
            Some(_) => {}
        }
        // A writer that is gone without a last word has nothing more to say.
        progress.as_mut()?.changed().await.ok()?;
    }
}
